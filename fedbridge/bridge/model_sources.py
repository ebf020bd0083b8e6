"""The models of a script as JSON: a Keras config, its loss and metrics, and what TFF made of it.

TFF's converters are replaced by ones that remember the Keras model on what they return, a `Source`.
"""

import collections
import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fedbridge.bridge.structures import leaves

_RANDOM_LAYERS = (
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout",
    "GaussianDropout", "GaussianNoise", "RandomFlip", "RandomRotation", "RandomZoom",
    "RandomTranslation", "RandomContrast", "RandomCrop", "RandomBrightness",
)  # fmt: skip
_GROUPS = ("global_trainable", "global_non_trainable", "local_trainable", "local_non_trainable")


class Source(NamedTuple):
    """What a model of TFF was made of.

    Attributes:
        kind: "keras" for a variable model, "functional", or "reconstruction".
        keras_model: The Keras model.
        loss: The Keras loss; None where the builder is given it.
        metrics: Name to Keras metric.
        variables: For reconstruction, which of the Keras model's variables are whose, by number.
    """

    kind: str
    keras_model: Any
    loss: Any
    metrics: Mapping[str, Any]
    variables: Mapping[str, list[int]] | None = None


def install() -> None:
    """Replaces TFF's converters of Keras models."""
    import tensorflow_federated as tff

    models = tff.learning.models
    models.from_keras_model = _variable_model(models.from_keras_model)
    models.functional_model_from_keras = _functional_model(models.functional_model_from_keras)
    reconstruction = models.ReconstructionModel
    for name in ("from_keras_model_and_layers", "from_keras_model_and_variables"):
        original = vars(reconstruction)[name].__func__
        setattr(reconstruction, name, classmethod(_reconstruction_model(original)))


def noticing(function: Callable[[], Any], seen: dict[str, Any], key: str) -> Callable[[], Any]:
    """A function without arguments, noting what it returned when TFF called it."""

    def noticing() -> Any:
        seen[key] = function()
        return seen[key]

    return noticing


def _variable_model(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def from_keras_model(*args: Any, **kwargs: Any) -> Any:
        model = original(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        # TFF has called the constructors among the metrics; its instances stand first in _metrics.
        metrics = model._metrics[: len(bound.arguments["metrics"] or [])]
        model._fedbridge_source = Source(
            "keras",
            bound.arguments["keras_model"],
            bound.arguments["loss"],
            {metric.name: metric for metric in metrics},
        )
        return model

    return from_keras_model


def _functional_model(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def functional_model_from_keras(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given, seen = bound.arguments, {}
        keras_model, constructor = given["keras_model"], given["metrics_constructor"]
        if isinstance(constructor, Mapping):
            instances = _instances(constructor, seen)
            given["metrics_constructor"] = collections.OrderedDict(instances)
        elif constructor is not None:
            given["metrics_constructor"] = noticing(constructor, seen, "metrics")
        if not hasattr(keras_model, "to_json"):
            given["keras_model"] = noticing(keras_model, seen, "model")
        model = original(*bound.args, **bound.kwargs)
        metrics = seen.get("metrics", {})
        if not isinstance(metrics, Mapping):
            metrics = {"": metrics}
        model._fedbridge_source = Source(
            "functional", seen.get("model", keras_model), given["loss_fn"], dict(metrics)
        )
        return model

    return functional_model_from_keras


def _instances(constructors: Mapping[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    metrics: dict[str, Any] = seen.setdefault("metrics", dict.fromkeys(constructors))
    return {name: noticing(make, metrics, name) for name, make in constructors.items()}


def _reconstruction_model(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def from_keras(cls: type, *args: Any, **kwargs: Any) -> Any:
        model = original(cls, *args, **kwargs)
        keras_model = model._keras_model
        numbers = {
            group: _numbers(
                getattr(model, f"{group}_variables"),
                keras_model.non_trainable_variables
                if "non_trainable" in group
                else keras_model.trainable_variables,
            )
            for group in _GROUPS
        }
        model._fedbridge_source = Source("reconstruction", keras_model, None, {}, numbers)
        return model

    return from_keras


def _numbers(chosen: list[Any], variables: list[Any]) -> list[int]:
    places = {id(variable): number for number, variable in enumerate(variables)}
    return [places[id(variable)] for variable in chosen]


def described_model(watch: Any, model: Any, kind: str, seen: Mapping[str, Any]) -> Any:
    """The Keras model, loss and metrics as JSON; None, and a refusal that names the reason.

    Args:
        watch: Who is told of refusals and notes.
        model: The model that TFF got, or that the script's function returned to it.
        kind: "training" or "evaluation".
        seen: The loss and the metrics of a reconstruction, which the builder is given.
    """
    source = getattr(model, "_fedbridge_source", None)
    if source is None:
        watch.refuse(
            f"the model is a {type(model).__name__}, not made by TFF from a Keras model: only "
            "Keras models are replayed."
        )
        return None
    if source.kind == "reconstruction":
        metrics = {metric.name: metric for metric in seen.get("metrics") or []}
        source = source._replace(loss=seen.get("loss"), metrics=metrics)
    loss = source.loss
    if isinstance(loss, list) and len(loss) == 1:
        (loss,) = loss
    if isinstance(loss, list):
        watch.refuse("the model has several losses, which are not replayed yet.")
        return None
    if "" in source.metrics:
        watch.refuse(
            "the metrics of the functional model have no names; only a dictionary of metrics is "
            "replayed."
        )
        return None
    try:
        description = json.loads(source.keras_model.to_json())
    except (NotImplementedError, TypeError, ValueError):
        watch.refuse(
            f"the Keras model {type(source.keras_model).__name__} is a subclass without a config; "
            "only Sequential and functional models are replayed."
        )
        return None
    kinds = [(loss, "loss"), *((metric, "metric") for metric in source.metrics.values())]
    for part, word in kinds:
        if not type(part).__module__.startswith(("keras.", "tensorflow_federated.")):
            watch.refuse(f"the {word} {type(part).__name__} is a custom class of the script.")
    _notes(watch, description, loss, kind, source.kind)
    written = {
        "kind": source.kind,
        "class_name": description["class_name"],
        "config": description["config"],
        "keras_version": description["keras_version"],
        "loss": _config(loss),
        "metrics": [_config(metric) for metric in source.metrics.values()],
    }
    if source.kind == "functional":
        written["metric_names"] = list(source.metrics)
    if source.variables is not None:
        written["variables"] = {group: list(which) for group, which in source.variables.items()}
    return written


def local_weights(watch: Any, model_fn: Callable[[], Any]) -> int | None:
    """The weights that every client's reconstruction starts from, kept in the trace.

    TFF makes the model once more for its clients, so that only what two makings agree on is known.
    """
    import tensorflow_federated as tff

    def fresh() -> Any:
        model = model_fn()
        return tuple(model.local_trainable_variables), tuple(model.local_non_trainable_variables)

    one, other = (leaves(tff.tensorflow.computation(fresh)()) for _ in range(2))
    if any(one[path].tobytes() != other[path].tobytes() for path in one):
        watch.refuse(
            "the local variables of the reconstruction model start from unseeded random values, "
            "which nobody outside TFF's graph can draw."
        )
        return None
    return watch.keep(one)


def _config(part: Any) -> dict[str, Any]:
    weights = getattr(part, "label_weights", None)
    if hasattr(weights, "op") and not hasattr(weights, "numpy"):
        # AUC's are a constant of the graph in which TFF made it, and Keras reads only eager ones.
        import tensorflow as tf

        part.label_weights = tf.get_static_value(weights)
    config = part.get_config()
    return {
        "class_name": type(part).__name__,
        "config": json.loads(json.dumps(config, default=_plain)),
    }


def _plain(value: Any) -> Any:
    """What JSON has no word for: arrays and tensors as lists, all else by its name."""
    array = value.numpy() if hasattr(value, "numpy") else value
    return array.tolist() if hasattr(array, "tolist") else str(value)


def _notes(watch: Any, description: dict[str, Any], loss: Any, kind: str, model_kind: str) -> None:
    """One line for each known defect of TFF (or Keras inside TFF) that the model touches."""
    text = json.dumps(description["config"])
    layers = list(_layers(description["config"]))
    for layer in layers:
        layer_kind, config = layer["class_name"], layer["config"]
        rates = [config.get(key) for key in ("rate", "dropout", "recurrent_dropout", "stddev")]
        draws = layer_kind in _RANDOM_LAYERS and (layer_kind.startswith("Random") or any(rates))
        if kind == "training" and (draws or any(rates[1:3])):
            watch.refuse(
                f"the layer {config.get('name')!r} ({layer_kind}) draws random masks, which can "
                "never agree across frameworks."
            )
        if layer_kind == "BatchNormalization":
            watch.note(
                "batch normalization as in TFF, moving statistics are never updated: "
                "see docs/differences"
            )
    if '_regularizer": {' in text:
        watch.note(
            "regularization as in TFF, in the gradient but not in the loss metric: "
            "see docs/differences"
            if model_kind == "keras"
            else f"regularization as in TFF, left out of a {model_kind} model: see docs/differences"
        )
    if '_constraint": {' in text:
        watch.note("constraints of weights as in TFF, never applied: see docs/differences")
    if '"mask_zero": true' in text or any(layer["class_name"] == "Masking" for layer in layers):
        watch.note("padding as in TFF, not masked in the loss: see docs/differences")
    last = layers[-1]["config"].get("activation") if layers else None
    from_logits = loss.get_config().get("from_logits", False)
    if (
        layers
        and not from_logits
        and (last in ("softmax", "sigmoid") or layers[-1]["class_name"] == "Softmax")
    ):
        watch.note(
            "loss from probabilities clipped to [1e-7, 1 - 1e-7], as in TFF: see docs/differences"
        )


def _layers(config: Any) -> Any:
    """Every layer of a model's config, wrapped and nested ones too."""
    if isinstance(config, dict):
        inner = config.get("config")
        # Initializers have a class name as well, but no name of their own.
        if "class_name" in config and isinstance(inner, dict) and "name" in inner:
            yield config
        for child in config.values():
            yield from _layers(child)
    elif isinstance(config, list):
        for child in config:
            yield from _layers(child)
