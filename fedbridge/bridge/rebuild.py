"""From the processes that a trace describes to processes of the JAX core, with TFF's numbers."""

from collections.abc import Callable, Mapping
from typing import Any

from fedbridge import algorithms, jax_core as fc, tff_io
from fedbridge.bridge import model_parts, parts
from fedbridge.bridge.describe import is_adaptive, parts as nested
from fedbridge.bridge.trace import Process, Trace

_PREFIX = "tff.learning.algorithms."
_TRAINABLE = "global_model_weights/trainable"
_OBSTACLES = (fc.ArgumentError, fc.ModelError, fc.NotReplayableError)


def evaluates(process: Process) -> bool:
    """Whether the process only evaluates."""
    return process.kind == "evaluation"


def clients_adapt(process: Process) -> bool:
    """Whether an optimizer that the clients' steps use divides by what it has seen."""
    found = process.arguments or {}
    inner = [found.get(key) for key in ("base_optimizer", "reconstruction_optimizer")]
    return any(map(is_adaptive, (process.client_optimizer, *inner)))


def server_adapts(process: Process) -> bool:
    """Whether the server optimizer does."""
    return is_adaptive(process.server_optimizer)


def obstacle(trace: Trace) -> str | None:
    """Why the JAX core cannot repeat the trace, in one sentence; None where it can."""
    try:
        for number in trace.called():
            _built(trace, number)
    except _OBSTACLES as error:
        return str(error).rstrip(".")
    return None


def what_is_random(trace: Trace) -> str | None:
    """What no two frameworks can draw alike, in one sentence; None where nothing is random."""
    for number in trace.called():
        process = trace.processes[number]
        config = (process.model or {}).get("config")
        layers = [] if evaluates(process) or not config else tff_io.random_layers(config)
        if layers:
            return f"dropout in {', '.join(layers)}: random masks never agree across frameworks"
        largest = max(
            (leaf.size for leaf in model_parts.weights(trace, number, _TRAINABLE)), default=0
        )
        for part in nested([process.model_aggregator, process.arguments]):
            if isinstance(part, Mapping) and "name" in part and _draws(part, largest):
                return f"{part['name']} {_DRAWS[part['name']]}"
    return None


_DRAWS = {
    "finalize_then_sample": "samples clients at random, in an order that no other library draws",
    "compression_aggregator": "rounds stochastically, with numbers that no other library draws",
    "EncodedSumFactory.quantize_above_threshold": "rounds stochastically, with numbers that no "
    "other library draws",
    **dict.fromkeys(
        (
            "dp_aggregator",
            "DifferentiallyPrivateFactory.gaussian_fixed",
            "DifferentiallyPrivateFactory.gaussian_adaptive",
        ),
        "adds Gaussian noise, which no other library draws",
    ),
}


def _draws(part: Mapping[str, Any], largest: int) -> bool:
    """Whether a part of a process draws random numbers, for tensors of so many elements."""
    given = part["arguments"]
    if part["name"] not in _DRAWS:
        return False
    if "noise_multiplier" in given:
        return bool(given["noise_multiplier"] or given.get("clipped_count_stddev"))
    if part["name"] == "finalize_then_sample":
        return True
    return given.get("stochastic", True) and largest > given.get("threshold", 20000)


def rebuild(trace: Trace, number: int) -> fc.LearningProcess:
    """A process of the trace, on the JAX core; the model starts from the first recorded weights.

    Raises:
        NotReplayableError: Something in it has no counterpart; `obstacle` says so before.
    """
    try:
        return _built(trace, number)
    except _OBSTACLES as error:
        reason = str(error).rstrip(".")
        raise fc.NotReplayableError(f"{trace.path}: {reason}; see `fedbridge lint`.") from error


def server_finalizer(process: Process) -> fc.Finalizer:
    """The server's step of a process, alone."""
    return fc.apply_optimizer(parts.optimizer(process.server_optimizer))


def _built(trace: Trace, number: int) -> fc.LearningProcess:
    process = trace.processes[number]
    name = process.builder.removeprefix(_PREFIX)
    if name not in _BUILDERS:
        raise fc.NotReplayableError(f"{process.builder} is not replayed yet.")
    return _BUILDERS[name](trace, number, process)


def _fed_avg(trace: Trace, number: int, process: Process) -> fc.LearningProcess:
    return algorithms.fed_avg(
        model_parts.model(trace, number),
        parts.optimizer(process.client_optimizer),
        parts.optimizer(process.server_optimizer),
        client_weight=parts.client_weight(process.client_weighting, process.builder),
        **_aggregators(process),
    )


def _fed_avg_with_schedule(trace: Trace, number: int, process: Process) -> fc.LearningProcess:
    return algorithms.fed_avg_with_schedule(
        model_parts.model(trace, number),
        parts.schedule(_argument(process, "client_learning_rate_fn")),
        parts.optimizer_of_rate(process.client_optimizer or {}),
        parts.optimizer(process.server_optimizer),
        **_aggregators(process),
    )


def _fed_prox(trace: Trace, number: int, process: Process) -> fc.LearningProcess:
    return algorithms.fed_prox(
        model_parts.model(trace, number),
        _argument(process, "proximal_strength"),
        parts.optimizer(process.client_optimizer),
        parts.optimizer(process.server_optimizer),
        pull=algorithms.away_from_server,
        client_weight=parts.client_weight(process.client_weighting, process.builder),
        non_finite=fc.keep_non_finite,
        **_aggregators(process),
    )


def _fed_sgd(trace: Trace, number: int, process: Process) -> fc.LearningProcess:
    return algorithms.fed_sgd(
        model_parts.model(trace, number),
        parts.optimizer(process.server_optimizer),
        non_finite=fc.keep_non_finite,
        **_aggregators(process),
    )


def _mime_lite(trace: Trace, number: int, process: Process) -> fc.LearningProcess:
    rate = (process.arguments or {}).get("learning_rate_fn")
    build = algorithms.mime_lite
    if rate is not None:
        build = lambda model, *args, **kwargs: algorithms.mime_lite_with_schedule(
            model, parts.schedule(rate), *args, **kwargs
        )
    return build(
        model_parts.model(trace, number),
        parts.optimizer(_argument(process, "base_optimizer")),
        parts.optimizer(process.server_optimizer),
        client_weight=parts.client_weight(process.client_weighting, process.builder),
        full_gradient_aggregator=parts.aggregator(
            (process.arguments or {}).get("full_gradient_aggregator"), fc.weighted_mean()
        ),
        non_finite=fc.keep_non_finite,
        **_aggregators(process),
    )


def _fed_eval(trace: Trace, number: int, process: Process) -> fc.LearningProcess:
    return algorithms.fed_eval(model_parts.model(trace, number))


def _fed_recon(trace: Trace, number: int, process: Process) -> fc.LearningProcess:
    return algorithms.fed_recon(
        model_parts.reconstruction_model(trace, number),
        parts.optimizer(process.client_optimizer),
        parts.optimizer(process.server_optimizer),
        parts.optimizer(_argument(process, "reconstruction_optimizer")),
        dataset_split_fn=parts.dataset_split((process.arguments or {}).get("dataset_split_fn")),
        client_weight=parts.client_weight(process.client_weighting, process.builder),
        non_finite=fc.keep_non_finite,
        **_aggregators(process),
    )


def _fed_recon_eval(trace: Trace, number: int, process: Process) -> fc.LearningProcess:
    return algorithms.fed_recon_eval(
        model_parts.reconstruction_model(trace, number),
        parts.optimizer(_argument(process, "reconstruction_optimizer")),
        dataset_split_fn=parts.dataset_split((process.arguments or {}).get("dataset_split_fn")),
    )


def _fed_kmeans(trace: Trace, number: int, process: Process) -> fc.LearningProcess:
    found = process.arguments or {}
    first, second = found.get("random_seed") or (0, 0)
    return algorithms.fed_kmeans(
        _argument(process, "num_clusters"),
        tuple(_argument(process, "data_shape")),
        # A replay starts from the recorded centroids, whatever they were drawn with.
        (first, second),
        sum_aggregator=parts.aggregator(found.get("sum_aggregator"), fc.sum_()),
        non_finite=fc.keep_non_finite,
    )


_Builder = Callable[[Trace, int, Process], fc.LearningProcess]
_BUILDERS: Mapping[str, _Builder] = {
    "build_weighted_fed_avg": _fed_avg,
    "build_unweighted_fed_avg": _fed_avg,
    "build_weighted_fed_avg_with_optimizer_schedule": _fed_avg_with_schedule,
    "build_weighted_fed_prox": _fed_prox,
    "build_unweighted_fed_prox": _fed_prox,
    "build_fed_sgd": _fed_sgd,
    "build_weighted_mime_lite": _mime_lite,
    "build_unweighted_mime_lite": _mime_lite,
    "build_mime_lite_with_optimizer_schedule": _mime_lite,
    "build_fed_eval": _fed_eval,
    "build_fed_recon": _fed_recon,
    "build_fed_recon_eval": _fed_recon_eval,
    "build_fed_kmeans": _fed_kmeans,
}


def _aggregators(process: Process) -> dict[str, Any]:
    """The aggregators of the updates and of the metrics, which every builder takes."""
    default = fc.unweighted_mean() if "unweighted" in process.builder else fc.weighted_mean()
    metrics = (process.arguments or {}).get("metrics_aggregator")
    return {
        "aggregator": parts.aggregator(process.model_aggregator, default),
        "metrics_aggregator": parts.metrics_aggregator(metrics),
    }


def _argument(process: Process, name: str) -> Any:
    try:
        return (process.arguments or {})[name]
    except KeyError:
        raise fc.TraceError(f"the trace describes {process.builder} without its {name}.") from None
