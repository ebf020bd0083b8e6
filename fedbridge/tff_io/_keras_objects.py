"""What Keras writes down about an object, `{"class_name", "config"}`, and how it is built from it.

The same few lines read layers, losses, metrics and regularizers: the class is looked up in a plain
table, and its config becomes the keyword arguments of the function found there. Whatever that
function does not take is refused by name, so that no argument is ever silently ignored.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fedbridge.jax_core import ModelError

Spec = Mapping[str, Any]
"""A serialised Keras object: at least `class_name` and `config`."""


def describe_keras(instance: Any) -> dict[str, Any]:
    """Writes down a Keras loss or metric: its class, its module and its config.

    Raises:
        ModelError: When the object has no config.
    """
    cls = type(instance)
    try:
        config = dict(instance.get_config())
        # Keras 3 forgets these in the config of Huber and CosineSimilarity.
        known = getattr(instance, "_fn_kwargs", {})
        config = {name: known[name] for name in ("axis", "delta") if name in known} | config
    except (AttributeError, NotImplementedError, TypeError) as error:
        raise ModelError(
            f"{instance!r} is no Keras object with a config: pass an instance, such as"
            " `tf.keras.losses.SparseCategoricalCrossentropy()`"
        ) from error
    return {"class_name": cls.__name__, "module": cls.__module__, "config": config}


def construct(
    table: Mapping[str, Callable[..., Any]], spec: Spec, *, kind: str, neutral: Collection[str] = ()
) -> Any:
    """Builds what a serialised Keras object describes.

    Args:
        table: Class name to a function that takes the config's entries as keyword arguments.
        spec: The serialised object.
        kind: "layer", "loss", ...: the word in error messages.
        neutral: Entries of the config that change no number, or that the caller reads itself.

    Raises:
        ModelError: For a class that is not in the table, somebody's own class, or an argument that
            the function does not take.
    """
    class_name, config = spec["class_name"], spec.get("config") or {}
    where = f'{kind} "{config["name"]}"' if config.get("name") else f"the {kind}"
    if not is_from_keras(spec) or class_name not in table:
        own = "" if is_from_keras(spec) else "custom class "
        raise ModelError(
            f"{where} is of the {own or 'class '}{class_name}, which fedbridge does not compute;"
            f" supported: {', '.join(sorted(table))}"
        )
    build = table[class_name]
    known = inspect.signature(build).parameters
    arguments = {name: value for name, value in config.items() if name in known}
    for name, value in config.items():
        if name not in known and name not in neutral and value is not None:
            raise ModelError(
                f"{where} ({class_name}) has {name}={_short(value)}, which fedbridge does not"
                f" compute; supported arguments: {', '.join(sorted(known)) or 'none'}"
            )
    try:
        return build(**arguments)
    except (ModelError, TypeError, ValueError) as error:
        raise ModelError(f"{where} ({class_name}): {error}") from error


def is_from_keras(spec: Spec) -> bool:
    """Whether the serialised object is one of Keras' (or TFF's) own classes."""
    module = spec.get("module") or "keras"
    package = module.partition(".")[0]
    own = ">" in (spec.get("registered_name") or "")  # "package>Class": somebody registered it
    return package in ("keras", "tf_keras", "tensorflow_federated") and not own


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "class_name" in value:
        return str(value["class_name"])
    return repr(value)
