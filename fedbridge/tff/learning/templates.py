"""`tff.learning.templates`: a process, its state, its output, and the parts it is composed of.

The parts that TFF builds are those of the core; parts written in Federated Core are refused.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from fedbridge import jax_core as fc
from fedbridge.tff import _arguments as arguments, _process
from fedbridge.tff._computations import Computation
from fedbridge.tff._errors import missing
from fedbridge.tff._process import (
    LearningAlgorithmState as LearningAlgorithmState,
    LearningProcessOutput as LearningProcessOutput,
    like,
)
from fedbridge.tff._type_errors import FederatedTypeError
from fedbridge.tff._types import StructType
from fedbridge.tff.learning._weighting import client_weight
from fedbridge.tff.templates import IterativeProcess

ClientResult = fc.ClientResult


class LearningProcess(IterativeProcess):
    """A process in computations of a script's own that knows its model's weights.

    What the builders make are learning processes too.

    Args:
        initialize_fn: As of any process.
        next_fn: Of the state and the clients' data; it gives a `LearningProcessOutput`.
        get_model_weights: From the state, not placed, to the weights.
        set_model_weights: From the state and weights to the state, none of them placed.
        get_hparams_fn: From the state to its hyperparameters; None: it has none.
        set_hparams_fn: From the state and hyperparameters to the state.

    Raises:
        FederatedTypeError: The types do not fit.
    """

    def __init__(
        self,
        initialize_fn: Computation,
        next_fn: Computation,
        get_model_weights: Computation,
        set_model_weights: Computation,
        get_hparams_fn: Computation | None = None,
        set_hparams_fn: Computation | None = None,
    ):
        super().__init__(initialize_fn, next_fn, True)
        result = next_fn.type_signature.result
        made = result.python_container if isinstance(result, StructType) else None
        if made is not LearningProcessOutput:
            raise FederatedTypeError(
                f"LearningProcess: next_fn must give a LearningProcessOutput, not {result}."
            )
        state: Any = self.state_type
        for name, given in {
            "get_model_weights": get_model_weights.type_signature.parameter,
            "set_model_weights": _first(set_model_weights.type_signature.parameter),
        }.items():
            if given is None or not given.is_equivalent_to(state.member):
                raise FederatedTypeError(
                    f"LearningProcess: {name} must take a state of type {state.member}, not "
                    f"{given}."
                )
        self.get_model_weights, self.set_model_weights = get_model_weights, set_model_weights
        self.get_hparams = get_hparams_fn or (lambda state: OrderedDict())
        self.set_hparams = set_hparams_fn or (lambda state, hparams: state)


LearningProcess.register(_process.LearningProcess)


def _first(parameter: Any) -> Any:
    return parameter[0] if isinstance(parameter, StructType) and len(parameter) else None


class ClientWorkProcess:
    """What the clients do; made by `build_model_delta_client_work`."""

    def __init__(self, initialize_fn: Any, next_fn: Any, **others: Any):
        _refuse_own(type(self).__name__, "build_model_delta_client_work")


class FinalizerProcess:
    """What the server does with the aggregate; made by `build_apply_optimizer_finalizer`."""

    def __init__(self, initialize_fn: Any, next_fn: Any, **others: Any):
        _refuse_own(type(self).__name__, "build_apply_optimizer_finalizer")


class DistributionProcess:
    """How the model reaches the clients; see `build_broadcast_process`."""

    def __init__(self, initialize_fn: Any, next_fn: Any):
        _refuse_own(type(self).__name__, "build_broadcast_process")


class _LocalTraining(ClientWorkProcess):
    def __init__(self, model: fc.Model, work: fc.ClientWork):
        self.model, self.work = model, work


class _ApplyOptimizer(FinalizerProcess):
    def __init__(self, finalizer: fc.Finalizer):
        self.finalizer = finalizer


def build_broadcast_process(value_type: object = None) -> str:
    """The model is sent as it is."""
    return arguments.BROADCAST


def build_model_delta_client_work(
    model_fn: Any,
    optimizer: Any,
    client_weighting: Any,
    metrics_aggregator: Any = None,
    *,
    loop_implementation: Any = None,
) -> ClientWorkProcess:
    """Local training: how far a client's weights move (templates/model_delta_client_work.py)."""
    model = arguments.model(model_fn)
    work = fc.local_training(
        model,
        arguments.optimizer(optimizer, "optimizer"),
        client_weight(client_weighting),
        metrics_aggregator=arguments.metrics_aggregator(metrics_aggregator),
    )
    return _LocalTraining(model, work)


def build_functional_model_delta_client_work(
    *,
    model: Any,
    optimizer: Any,
    client_weighting: Any,
    metrics_aggregator: Any = None,
    loop_implementation: Any = None,
) -> ClientWorkProcess:
    """The same of a functional model."""
    return build_model_delta_client_work(model, optimizer, client_weighting, metrics_aggregator)


def reject_non_finite_update(*args: Any) -> None:
    """The rule of `build_apply_optimizer_finalizer`: what is not finite changes nothing."""


def build_apply_optimizer_finalizer(
    optimizer_fn: Any,
    model_weights_type: Any = None,
    should_reject_update: Any = reject_non_finite_update,
) -> FinalizerProcess:
    """The server's optimizer (templates/apply_optimizer_finalizer.py).

    Raises:
        ArgumentError: Another rule of which updates are rejected.
    """
    known = should_reject_update is reject_non_finite_update
    rule = "left out: what is not finite is rejected"
    fc.check_argument(known, "should_reject_update", should_reject_update, rule)
    return _ApplyOptimizer(fc.apply_optimizer(arguments.optimizer(optimizer_fn, "optimizer_fn")))


def compose_learning_process(
    initial_model_weights_fn: Callable[[], Any],
    model_weights_distributor: Any,
    client_work: Any,
    model_update_aggregator: Any,
    model_finalizer: Any,
) -> _process.LearningProcess:
    """A learning process of its parts (templates/composers.py).

    Args:
        initial_model_weights_fn: Gives the weights; called once.
        model_weights_distributor: What `build_broadcast_process` gives.
        client_work: What `build_model_delta_client_work` gives.
        model_update_aggregator: What a factory of `tff.aggregators` creates.
        model_finalizer: What `build_apply_optimizer_finalizer` gives.

    Raises:
        ArgumentError: Another part.
    """
    arguments.no_distributor(model_weights_distributor)
    for name, part, kind, build in (
        ("client_work", client_work, _LocalTraining, "build_model_delta_client_work"),
        ("model_finalizer", model_finalizer, _ApplyOptimizer, "build_apply_optimizer_finalizer"),
    ):
        fc.check_argument(isinstance(part, kind), name, part, f"what {build} gives")
    start = map(like, client_work.model.initial_weights, tuple(initial_model_weights_fn()))
    model = client_work.model._replace(initial_weights=fc.ModelWeights(*start))
    aggregator = arguments.aggregator(model_update_aggregator, fc.weighted_mean)
    process = fc.compose_learning_process(
        model, client_work.work, aggregator, model_finalizer.finalizer
    )
    return _process.LearningProcess(process)


def _refuse_own(name: str, instead: str) -> None:
    raise fc.ScriptError(
        f"tff.learning.templates.{name}: a part of a learning process in computations of your own "
        f"is not in fedbridge.tff yet; use {instead}, or write the whole algorithm in Federated "
        "Core, as a tff.templates.IterativeProcess."
    )


__getattr__ = missing("tff.learning.templates")
