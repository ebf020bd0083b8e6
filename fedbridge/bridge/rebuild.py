"""From the processes that a trace describes to processes of the JAX core."""

from collections.abc import Callable, Mapping
from typing import Any

import optax

from fedbridge import algorithms, jax_core as fc, tff_io
from fedbridge.bridge.trace import Process, Trace

_OPTIMIZERS: Mapping[str, Callable[..., optax.GradientTransformation]] = {
    "build_sgdm": fc.optimizers.sgdm,
    "build_adagrad": fc.optimizers.adagrad,
    "build_adam": fc.optimizers.adam,
    "build_rmsprop": fc.optimizers.rmsprop,
    "keras_sgd_nesterov": tff_io.keras_sgd_nesterov,
    "keras_rmsprop": tff_io.keras_rmsprop,
    "keras_legacy_adagrad": tff_io.keras_legacy_adagrad,
}

_CLIENT_WEIGHTS: Mapping[str | None, fc.ClientWeight] = {
    None: fc.num_examples,
    "NUM_EXAMPLES": fc.num_examples,
    "UNIFORM": fc.uniform,
}

_PREFIX = "tff.learning.algorithms."
_AGGREGATORS = {
    _PREFIX + "build_weighted_fed_avg": fc.weighted_mean,
    _PREFIX + "build_unweighted_fed_avg": fc.unweighted_mean,
}
_EVALUATION = _PREFIX + "build_fed_eval"


def evaluates(process: Process) -> bool:
    """Whether the process only evaluates."""
    return process.kind == "evaluation"


def is_adaptive(process: Process) -> bool:
    """Whether an optimizer of either side divides by what it has seen: that amplifies rounding."""
    described = (process.client_optimizer, process.server_optimizer)
    names = {optimizer["name"] for optimizer in described if optimizer}
    return not names <= {"build_sgdm", "keras_sgd_nesterov"}


def obstacle(trace: Trace) -> str | None:
    """Why the JAX core cannot repeat the trace, in one sentence; None where it can."""
    for number, process in enumerate(trace.processes):
        if process.builder not in {*_AGGREGATORS, _EVALUATION}:
            return f"{process.builder} is not replayed yet"
        if process.model_aggregator is not None:
            return f"the model aggregator {process.model_aggregator['name']} is not replayed yet"
        for optimizer in (process.client_optimizer, process.server_optimizer):
            if optimizer is not None and optimizer["name"] not in _OPTIMIZERS:
                return f"the optimizer {optimizer['name']} is not replayed yet"
        try:
            _model(trace, number)
        except fc.ModelError as error:
            return str(error).rstrip(".")
    return None


def what_is_random(trace: Trace) -> str | None:
    """What no two frameworks can draw alike, in one sentence; None where nothing is random."""
    for process in trace.processes:
        config = (process.model or {}).get("config")
        layers = [] if evaluates(process) or not config else tff_io.random_layers(config)
        if layers:
            return f"dropout in {', '.join(layers)}: random masks never agree across frameworks"
    return None


def rebuild(trace: Trace, number: int) -> fc.LearningProcess:
    """A process of the trace, on the JAX core; the model starts from the first recorded weights.

    Raises:
        NotReplayableError: Something in it has no counterpart; `obstacle` says so before.
    """
    reason = obstacle(trace)
    if reason is not None:
        raise fc.NotReplayableError(f"{trace.path}: {reason}; see `fedbridge lint`.")
    process, model = trace.processes[number], _model(trace, number)
    if process.builder == _EVALUATION:
        return algorithms.fed_eval(model)
    return algorithms.fed_avg(
        model,
        _optimizer(process.client_optimizer),
        _optimizer(process.server_optimizer),
        aggregator=_AGGREGATORS[process.builder](),
        client_weight=_CLIENT_WEIGHTS[process.client_weighting],
    )


def _optimizer(described: Mapping[str, Any] | None) -> optax.GradientTransformation:
    if described is None:
        raise fc.TraceError("the trace describes a training process without its optimizers.")
    return _OPTIMIZERS[described["name"]](**described["arguments"])


def _model(trace: Trace, number: int) -> fc.Model:
    described = trace.processes[number].model or {}
    call = next((call for call in trace.calls if call.process == number), None)
    state = {} if call is None else trace.state(call.state_before)
    part = lambda name: [
        leaf for path, leaf in state.items() if path.startswith(f"global_model_weights/{name}/")
    ]
    weights = fc.ModelWeights(part("trainable"), part("non_trainable"))
    return tff_io.from_keras_config(
        described["class_name"],
        described["config"],
        loss=described["loss"],
        metrics=described["metrics"],
        weights=weights,
    )
