"""What a script hands to TFF's builders, written down; and where TFF finds its data.

TFF's builders return computations, from which nothing can be read back. So the functions that
scripts call are replaced by ones that call the original and remember the arguments: on the object
itself where there is one (`describe`), else in the `trace.Process` of the process built.
"""

import functools
import inspect
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedbridge.bridge import factories, keras_optimizers, model_sources, trace
from fedbridge.bridge.describe import Schedule, UndescribedError, described, remember, remembering
from fedbridge.bridge.model_sources import noticing

REVERSED_SIGN = "proximal term as in TFF, sign reversed against the paper: see docs/differences"

_AGGREGATORS = ("model_aggregator", "model_aggregator_factory")
_NUMBERS = ("proximal_strength", "num_clusters", "data_shape", "random_seed")
_OTHER_AGGREGATORS = ("full_gradient_aggregator", "sum_aggregator")
_OTHER_OPTIMIZERS = ("base_optimizer", "reconstruction_optimizer_fn")
_SCHEDULES = ("client_learning_rate_fn", "learning_rate_fn")
_PROBE_RATES = (0.25, 0.75)


def install(watch: Any) -> None:
    """Replaces TFF's functions, in the modules that scripts see, by ones that remember.

    Args:
        watch: who is told; a `watch.Current`, since TFF is patched once in a process.
    """
    import tensorflow_federated as tff
    from tensorflow_federated.python.simulation.datasets import download

    optimizers, algorithms = tff.learning.optimizers, tff.learning.algorithms
    for name in [name for name in dir(optimizers) if name.startswith("build_")]:
        setattr(optimizers, name, remembering(name, getattr(optimizers, name)))
    optimizers.schedule_learning_rate = remembering(
        "schedule_learning_rate", optimizers.schedule_learning_rate, ("schedule_fn",)
    )
    factories.install()
    model_sources.install()
    for name in dir(algorithms):
        if name.startswith("build_") and name != "build_personalization_eval_computation":
            builder = getattr(algorithms, name)
            called_as = f"tff.learning.algorithms.{name}"
            setattr(algorithms, name, _building(watch, builder, called_as))
    for module, name in (
        (algorithms, "build_personalization_eval_computation"),
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
    for parameter in signature.parameters.values():
        _mark_default(parameter.default)

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
        server = "server_optimizer" if "server_optimizer" in given else "server_optimizer_fn"
        if server in given and given[server] is None:
            rate = 0.1 if name == "build_fed_sgd" else 1.0
            given[server] = _tff().learning.optimizers.build_sgdm(rate)
        called = dict(given)
        seen: dict[str, Any] = {}
        for key, word in (("model_fn", "model"), ("loss_fn", "loss"), ("metrics_fn", "metrics")):
            if callable(given.get(key)):
                given[key] = noticing(given[key], seen, word)
        started = time.perf_counter()
        process = original(*bound.args, **bound.kwargs)
        seconds = time.perf_counter() - started
        kind = "evaluation" if "eval" in name else "training"
        description = trace.Process(
            builder=qualified,
            called_as=_called_as,
            kind=kind,
            model=_model(watch, seen, called, kind),
            client_optimizer=_client_optimizer(watch, called.get("client_optimizer_fn")),
            server_optimizer=_written(watch, called.get(server), "the server optimizer", float),
            client_weighting=_weighting(watch, called.get("client_weighting")),
            model_aggregator=_first(watch, called, _AGGREGATORS),
            arguments=_arguments(watch, called),
            seconds_build=seconds,
        )
        if "prox" in name:
            watch.note(REVERSED_SIGN)
        return watch.built(process, description, called.get(server))

    return builder


def _mark_default(optimizer: Any) -> None:
    """Marks an optimizer that a builder has as its default, made before TFF was patched: SGD."""
    import tensorflow as tf

    if isinstance(optimizer, type(_tff().learning.optimizers.build_sgdm(1.0))):
        hparams = optimizer.get_hparams(optimizer.initialize(tf.TensorSpec((), tf.float32)))
        rate, momentum = hparams["learning_rate"], hparams.get("momentum")
        remember(optimizer, "build_sgdm", {"learning_rate": rate, "momentum": momentum})


def _composing(watch: Any, original: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function that puts together what only the script knows: watched, but not replayed."""

    @functools.wraps(original)
    def compose(*args: Any, **kwargs: Any) -> Any:
        watch.refuse(
            f"{name} runs functions of the script, which cannot be written down."
            if "personalization" in name
            else f"a process put together by {name} is not replayed yet."
        )
        started = time.perf_counter()
        process = original(*args, **kwargs)
        seconds = time.perf_counter() - started
        if not isinstance(process, _tff().learning.templates.LearningProcess):
            return process
        return watch.built(process, trace.Process(name, name, "training", seconds_build=seconds))

    return compose


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
    remember(converted.optimizer, converted.name, converted.arguments)
    shown = ", ".join(
        f"{key}={given}" for key, given in converted.arguments.items() if given is not None
    )
    home = "tff.learning.optimizers." if converted.name.startswith("build_") else ""
    watch.adapt(f"{keras_optimizers.described(value)} -> {home}{converted.name}({shown})")
    return converted.optimizer


def _client_optimizer(watch: Any, given: Any) -> Any:
    """The client optimizer; of a function from a rate to one, the optimizer without its rate."""
    words = "the client optimizer"
    if given is None or isinstance(given, _tff().learning.optimizers.Optimizer):
        return _written(watch, given, words, float)
    one, other = (_written(watch, given(rate), words, float) for rate in _PROBE_RATES)
    if one is None or other is None:
        return None
    rates = tuple(made["arguments"].pop("learning_rate", None) for made in (one, other))
    if rates != _PROBE_RATES or one != other:
        watch.refuse(
            "client_optimizer_fn makes of a learning rate more than an optimizer with that rate, "
            "which cannot be written down."
        )
        return None
    return one


def _arguments(watch: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a builder that are neither models, nor optimizers of every builder."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        if value is None:
            continue
        if key in _SCHEDULES:
            found[key] = Schedule(value)
        elif key in _OTHER_OPTIMIZERS:
            found[key.removesuffix("_fn")] = _written(watch, value, key, float)
        elif key in (*_NUMBERS, *_OTHER_AGGREGATORS):
            found[key] = _written(watch, value, key)
        elif key == "dataset_split_fn":
            found[key] = _tried(watch, key, factories.described_split, value)
        elif key == "metrics_aggregator":
            found[key] = _tried(watch, key, factories.described_metrics_aggregator, value)
        elif key in ("metrics_aggregation_process", "model_distributor", "distributor"):
            process = _written(watch, value, key) or {}
            if process and process.get("name") != "build_broadcast_process":
                watch.refuse(f"{key}={process['name']} is not replayed yet.")
    return {key: value for key, value in found.items() if value is not None}


def _first(watch: Any, given: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((_written(watch, given[k], k) for k in keys if given.get(k) is not None), None)


def _written(watch: Any, value: Any, words: str, number: Callable[[Any], Any] | None = None) -> Any:
    """A value as JSON, or None and a refusal that names what cannot be written down."""
    return _tried(watch, words, functools.partial(described, number=number), value)


def _tried(watch: Any, words: str, describe: Callable[[Any], Any], value: Any) -> Any:
    try:
        return describe(value)
    except UndescribedError as unknown:
        watch.refuse(f"{words} is or holds code of the script ({unknown}), not written down.")
        return None


def _weighting(watch: Any, given: Any) -> str | None:
    if given is None or isinstance(given, _tff().learning.ClientWeighting):
        return given.name if given is not None else None
    name = getattr(given, "__name__", type(given).__name__)
    watch.refuse(f"client_weighting={name} is a function of the script, not written down.")
    return None


def _model(watch: Any, seen: dict[str, Any], given: dict[str, Any], kind: str) -> Any:
    """The model as JSON; k-means has none."""
    model_fn = given.get("model_fn")
    if model_fn is None:
        return None
    described_model = model_sources.described_model(watch, seen.get("model", model_fn), kind, seen)
    if described_model and described_model["kind"] == "reconstruction":
        described_model["local_weights"] = model_sources.local_weights(watch, model_fn)
    return described_model


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
