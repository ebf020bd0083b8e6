"""What a script hands to TFF, written down: builders, models, optimizers, the data folder.

TFF's builders return computations, from which nothing can be read back. So the functions that
scripts call are replaced by ones that call the original and remember the arguments: on the object
itself where there is one (`_fedbridge`), else in the `trace.Process` of the process built.
"""

import functools
import inspect
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedbridge.bridge import keras_optimizers, trace

EMPTY_CLIENT = (
    "an empty client counts as a zero update in the unweighted mean, as in TFF: "
    "see docs/differences"
)
_RANDOM_LAYERS = (
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout",
    "GaussianDropout", "GaussianNoise", "RandomFlip", "RandomRotation", "RandomZoom",
    "RandomTranslation", "RandomContrast", "RandomCrop", "RandomBrightness",
)  # fmt: skip
_REPLAYED = ("build_weighted_fed_avg", "build_unweighted_fed_avg", "build_fed_eval")


def install(watch: Any) -> None:
    """Replaces TFF's functions, in the modules that scripts see, by ones that remember."""
    import tensorflow_federated as tff
    from tensorflow_federated.python.simulation.datasets import download

    optimizers, models, algorithms = (
        tff.learning.optimizers,
        tff.learning.models,
        tff.learning.algorithms,
    )
    for name in [name for name in dir(optimizers) if name.startswith("build_")]:
        setattr(optimizers, name, _remembering(name, getattr(optimizers, name)))
    models.from_keras_model = _remembering_model(models.from_keras_model)
    for name in dir(algorithms):
        if name.startswith("build_") and name != "build_personalization_eval_computation":
            builder = getattr(algorithms, name)
            called_as = f"tff.learning.algorithms.{name}"
            setattr(algorithms, name, _building(watch, builder, called_as))
    for module, name in (
        (tff.learning.templates, "compose_learning_process"),
        (tff.simulation, "compose_dataset_computation_with_learning_process"),
        (tff.simulation, "compose_dataset_computation_with_iterative_process"),
    ):
        qualified = f"tff.{module.__name__.partition('.python.')[2]}.{name}"
        setattr(module, name, _composing(watch, getattr(module, name), qualified))
    download.get_compressed_file = _finding_data(watch, download.get_compressed_file)


def build(name: str, called_as: str, **arguments: Any) -> Any:
    """Builds with `tff.learning.algorithms.<name>`, written down as called by an older name."""
    import tensorflow_federated as tff

    return getattr(tff.learning.algorithms, name)(**arguments, _called_as=called_as)


def _building(watch: Any, original: Callable[..., Any], qualified: str) -> Callable[..., Any]:
    signature = inspect.signature(original)
    name = original.__name__

    @functools.wraps(original)
    def builder(*args: Any, _called_as: str = qualified, **kwargs: Any) -> Any:
        if kwargs.pop("use_experimental_simulation_loop", None) is not None:
            watch.adapt("use_experimental_simulation_loop -> loop_implementation (its default)")
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        for key, value in given.items():
            if "optimizer" in key and value is not None:
                given[key] = _optimizer(watch, value)
        if "server_optimizer_fn" in given and given["server_optimizer_fn"] is None:
            rate = 0.1 if name == "build_fed_sgd" else 1.0
            given["server_optimizer_fn"] = _tff().learning.optimizers.build_sgdm(rate)
        seen: dict[str, Any] = {}
        if callable(given.get("model_fn")):
            given["model_fn"] = _noticing(given["model_fn"], seen)
        started = time.perf_counter()
        process = original(*bound.args, **bound.kwargs)
        seconds = time.perf_counter() - started
        if name not in _REPLAYED:
            watch.refuse(f"{qualified} is not replayed yet.")
            if "prox" in name:
                watch.note(
                    "proximal term as in TFF, sign reversed against the paper: see docs/differences"
                )
        weighting = given.get("client_weighting")
        kind = "evaluation" if "eval" in name else "training"
        description = trace.Process(
            builder=qualified,
            called_as=_called_as,
            kind=kind,
            model=_model(watch, seen, given.get("model_fn"), kind),
            client_optimizer=_described(watch, given.get("client_optimizer_fn"), "client"),
            server_optimizer=_described(watch, given.get("server_optimizer_fn"), "server"),
            client_weighting=weighting.name if weighting is not None else None,
            seconds_build=seconds,
        )
        _refuse_custom_parts(watch, given)
        return watch.built(process, description)

    return builder


def _composing(watch: Any, original: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function that puts a process together: its rounds are watched, but not replayed."""

    @functools.wraps(original)
    def compose(*args: Any, **kwargs: Any) -> Any:
        watch.refuse(f"a process put together by {name} is not replayed yet.")
        started = time.perf_counter()
        process = original(*args, **kwargs)
        seconds = time.perf_counter() - started
        if not isinstance(process, _tff().learning.templates.LearningProcess):
            return process
        return watch.built(process, trace.Process(name, name, "training", seconds_build=seconds))

    return compose


def _noticing(model_fn: Callable[[], Any], seen: dict[str, Any]) -> Callable[[], Any]:
    """`model_fn`, noting what it returned when TFF called it: no call of our own."""

    def noticing() -> Any:
        model = model_fn()
        seen["source"] = getattr(model, "_fedbridge", None)
        seen["type"] = type(model).__name__
        return model

    return noticing


def _remembering(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def remembering(*args: Any, **kwargs: Any) -> Any:
        optimizer = original(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        optimizer._fedbridge = {"name": name, "arguments": dict(bound.arguments)}
        return optimizer

    return remembering


def _remembering_model(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def from_keras_model(*args: Any, **kwargs: Any) -> Any:
        model = original(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        # TFF has called the constructors among the metrics; its instances stand first in _metrics.
        metrics = model._metrics[: len(bound.arguments["metrics"] or [])]
        model._fedbridge = (
            bound.arguments["keras_model"],
            bound.arguments["loss"],
            metrics,
        )
        return model

    return from_keras_model


def _optimizer(watch: Any, value: Any) -> Any:
    """A TFF optimizer from what the script gave: one of TFF's, a Keras one, or a callable."""
    tff_optimizer = _tff().learning.optimizers.Optimizer
    if not isinstance(value, tff_optimizer) and not keras_optimizers.is_keras(value):
        if not callable(value) or len(inspect.signature(value).parameters):
            return value
        value = value()
    if not keras_optimizers.is_keras(value):
        return value
    converted = keras_optimizers.convert(value)
    optimizer = converted.optimizer
    optimizer._fedbridge = {"name": converted.name, "arguments": converted.arguments}
    shown = ", ".join(
        f"{key}={given}" for key, given in converted.arguments.items() if given is not None
    )
    home = "tff.learning.optimizers." if converted.name.startswith("build_") else ""
    watch.adapt(f"{keras_optimizers.described(value)} -> {home}{converted.name}({shown})")
    return optimizer


def _described(watch: Any, optimizer: Any, side: str) -> dict[str, Any] | None:
    """An optimizer as name and arguments."""
    if optimizer is None:
        return None
    known = getattr(optimizer, "_fedbridge", None)
    if known is None:
        watch.refuse(
            f"the {side} optimizer is a custom one ({type(optimizer).__name__}), which cannot be "
            "written down."
        )
        return None
    try:
        arguments = {
            key: value if value is None or isinstance(value, bool | str) else float(value)
            for key, value in known["arguments"].items()
        }
    except (TypeError, ValueError):
        watch.refuse(f"the {side} optimizer {known['name']} depends on more than numbers.")
        return None
    return {"name": known["name"], "arguments": arguments}


def _refuse_custom_parts(watch: Any, given: dict[str, Any]) -> None:
    """Anything but the default aggregators, distributor and metrics cannot be repeated yet."""
    metrics = _tff().learning.metrics
    for key in ("model_aggregator", "metrics_aggregator", "metrics_aggregation_process",
                "model_distributor", "full_gradient_aggregator"):  # fmt: skip
        part = given.get(key)
        if part is None or part is metrics.sum_then_finalize or _is_plain_mean(part):
            continue
        name = getattr(part, "__name__", type(part).__name__)
        watch.refuse(f"{key}={name} is not replayed yet.")


def _is_plain_mean(factory: Any) -> bool:
    aggregators = _tff().aggregators
    if type(factory) is aggregators.MeanFactory:
        inner = (factory._value_sum_factory, factory._weight_sum_factory)
        plain = not factory._no_nan_division
    elif type(factory) is aggregators.UnweightedMeanFactory:
        inner = (factory._value_sum_factory, factory._count_sum_factory)
        plain = True
    else:
        return False
    return plain and all(type(part) is aggregators.SumFactory for part in inner)


def _model(watch: Any, seen: dict[str, Any], model_fn: Any, kind: str) -> dict[str, Any] | None:
    """The Keras model, loss and metrics as JSON, or a refusal that names the reason."""
    if seen.get("source") is None:
        name = seen.get("type") or type(model_fn).__name__
        watch.refuse(
            f"the model is a {name}, not made by from_keras_model: only Keras models are replayed."
        )
        return None
    keras_model, loss, metrics = seen["source"]
    if isinstance(loss, list) and len(loss) == 1:
        (loss,) = loss
    if isinstance(loss, list):
        watch.refuse("the model has several losses, which are not replayed yet.")
        return None
    try:
        description = json.loads(keras_model.to_json())
    except (NotImplementedError, TypeError, ValueError):
        watch.refuse(
            f"the Keras model {type(keras_model).__name__} is a subclass without a config; only "
            "Sequential and functional models are replayed."
        )
        return None
    for part, word in [(loss, "loss"), *((metric, "metric") for metric in metrics)]:
        if not type(part).__module__.startswith(("keras.", "tensorflow_federated.")):
            watch.refuse(f"the {word} {type(part).__name__} is a custom class of the script.")
    _notes(watch, description, loss, kind)
    return {
        "kind": "keras",
        "class_name": description["class_name"],
        "config": description["config"],
        "keras_version": description["keras_version"],
        "loss": _config(loss),
        "metrics": [_config(metric) for metric in metrics],
    }


def _config(part: Any) -> dict[str, Any]:
    config = part.get_config()
    return {
        "class_name": type(part).__name__,
        "config": json.loads(json.dumps(config, default=str)),
    }


def _notes(watch: Any, description: dict[str, Any], loss: Any, kind: str) -> None:
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
        )
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


def _finding_data(watch: Any, original: Callable[..., str]) -> Callable[..., str]:
    """TFF's download, after a look into FEDBRIDGE_DATA, where the file may be packed."""

    @functools.wraps(original)
    def get_compressed_file(origin: str, cache_dir: str | None = None) -> str:
        chosen = os.environ.get("FEDBRIDGE_DATA")
        if not chosen or cache_dir not in (None, chosen):
            return original(origin, cache_dir)
        name = origin.rpartition("/")[2].removesuffix(".lzma")
        folder = Path(chosen).expanduser()
        if not (folder / name).is_file() and (folder / f"{name}.lzma").is_file():
            from fedbridge import tff_io

            known = {"emnist_all.sqlite": "emnist", "stackoverflow.sqlite": "stackoverflow"}
            if name in known:
                folder = tff_io.find_data(known[name]).folder or folder
        if not (folder / name).is_file():
            return original(origin, cache_dir)
        if cache_dir is None:
            watch.adapt(f"{name}: read from FEDBRIDGE_DATA")
        return original(origin, str(folder))

    return get_compressed_file


def _tff() -> Any:
    import tensorflow_federated

    return tensorflow_federated
