"""`tff.templates`: pairs of computations, `initialize` and `next`, whose types fit each other."""

import abc
from collections import OrderedDict
from typing import Any, NamedTuple

from fedbridge.tff._computations import Computation, federated_computation
from fedbridge.tff._errors import missing
from fedbridge.tff._intrinsics import federated_zip
from fedbridge.tff._process import LearningProcess
from fedbridge.tff._type_errors import FederatedTypeError
from fedbridge.tff._types import (
    SERVER,
    FederatedType,
    StructType,
    StructWithPythonType,
    Type,
)


class IterativeProcess(abc.ABC):  # noqa: B024 -- learning processes are registered as ones
    """A state, and what makes the next one of it.

    Args:
        initialize_fn: A computation without arguments that gives the first state.
        next_fn: A computation of the state, and perhaps more, that gives the state, alone or first.
        next_is_multi_arg: Whether the state is the first of several arguments (None: as the types
            say).

    Raises:
        FederatedTypeError: The types do not fit.
    """

    def __init__(
        self,
        initialize_fn: Computation,
        next_fn: Computation,
        next_is_multi_arg: bool | None = None,
    ):
        for name, function in {"initialize_fn": initialize_fn, "next_fn": next_fn}.items():
            if not isinstance(function, Computation):
                raise FederatedTypeError(
                    f"{type(self).__name__}: {name} must be a computation with types, not "
                    f"{type(function).__name__}; decorate it with @tff.federated_computation."
                )
        initial = initialize_fn.type_signature
        if initial.parameter is not None:
            raise FederatedTypeError(
                f"{type(self).__name__}: initialize_fn takes no arguments, not {initial.parameter}."
            )
        self.initialize, self.next = initialize_fn, next_fn
        self._state = _state_type(initial.result, next_fn, next_is_multi_arg)
        result: Any = next_fn.type_signature.result
        first = result[0] if isinstance(result, StructType) and len(result) else None
        if not any(t and self._state.is_assignable_from(t) for t in (result, first)):
            raise FederatedTypeError(
                f"{type(self).__name__}: next_fn takes a state of type {self._state}, but gives "
                f"{result}."
            )

    @property
    def state_type(self) -> Type:
        """The type of the state."""
        return self._state


IterativeProcess.register(LearningProcess)


class MeasuredProcessOutput(NamedTuple):
    """What `next` of a measured process gives."""

    state: Any
    result: Any
    measurements: Any


class MeasuredProcess(IterativeProcess):
    """A process whose `next` gives a MeasuredProcessOutput."""

    def __init__(
        self,
        initialize_fn: Computation,
        next_fn: Computation,
        next_is_multi_arg: bool | None = None,
    ):
        super().__init__(initialize_fn, next_fn, next_is_multi_arg)
        result = next_fn.type_signature.result
        made = result.python_container if isinstance(result, StructType) else None
        if made is not MeasuredProcessOutput:
            raise FederatedTypeError(
                f"{type(self).__name__}: next_fn must give a tff.templates.MeasuredProcessOutput, "
                f"not {result}."
            )


class AggregationProcess(MeasuredProcess):
    """A measured process from values at the clients to one at the server."""

    def __init__(self, initialize_fn: Computation, next_fn: Computation):
        super().__init__(initialize_fn, next_fn, True)
        result: Any = next_fn.type_signature.result
        parameter: Any = next_fn.type_signature.parameter
        types = [*parameter, *result]
        at_server: list[Any] = [self._state, *result]
        if not all(isinstance(t, FederatedType) for t in types):
            raise FederatedTypeError(
                f"AggregationProcess: next_fn is of type {next_fn.type_signature}, but all that it "
                "takes and gives must be placed; zip structures with tff.federated_zip."
            )
        if any(t.placement is not SERVER for t in at_server):
            raise FederatedTypeError(
                "AggregationProcess: state, result and measurements must be at the server, not of "
                f"type {result}."
            )


class EstimationProcess(IterativeProcess):
    """A process with a third computation: what the state says.

    Args:
        initialize_fn: As of any process.
        next_fn: As of any process.
        report_fn: A computation of the state.
        next_is_multi_arg: As of any process.
    """

    def __init__(
        self,
        initialize_fn: Computation,
        next_fn: Computation,
        report_fn: Computation,
        next_is_multi_arg: bool | None = None,
    ):
        super().__init__(initialize_fn, next_fn, next_is_multi_arg)
        parameter = report_fn.type_signature.parameter
        if parameter is None or not parameter.is_assignable_from(self._state):
            raise FederatedTypeError(
                f"EstimationProcess: report_fn takes {parameter}, but the state is of type "
                f"{self._state}."
            )
        self.report = report_fn

    def map(self, map_fn: Any) -> "EstimationProcess":
        """The process whose report is a computation of this one's, with its placement."""
        reported = self.report.type_signature.result
        parameter = map_fn.type_signature.parameter if isinstance(map_fn, Computation) else None
        if parameter is None or not parameter.is_assignable_from(reported):
            raise FederatedTypeError(
                f"EstimationProcess.map: map_fn must be a computation of {reported}, which report "
                f"gives, not of {parameter}."
            )
        report = federated_computation(lambda state: map_fn(self.report(state)), self._state)
        return EstimationProcess(self.initialize, self.next, report)


def chain_measured_processes(measured_processes: Any) -> MeasuredProcess:
    """Processes of which each takes the result of the one before.

    Args:
        measured_processes: Name to process, in order.
    """
    processes = dict(measured_processes)
    value_type = next(iter(processes.values())).next.type_signature.parameter[1]

    @federated_computation(_joined_state(processes), value_type)
    def following(state: Any, values: Any) -> Any:
        states, measurements = {}, {}
        for name, process in processes.items():
            states[name], values, measurements[name] = process.next(state[name], values)
        return MeasuredProcessOutput(federated_zip(states), values, federated_zip(measurements))

    return MeasuredProcess(_joined_initialize(processes), following)


def concatenate_measured_processes(measured_processes: Any) -> MeasuredProcess:
    """Processes beside each other, each with a value of its own.

    Args:
        measured_processes: Name to process.
    """
    processes = dict(measured_processes)
    values_type = StructWithPythonType(
        [(name, p.next.type_signature.parameter[1]) for name, p in processes.items()],
        OrderedDict,
    )

    @federated_computation(_joined_state(processes), values_type)
    def following(state: Any, values: Any) -> Any:
        outputs = {name: p.next(state[name], values[name]) for name, p in processes.items()}
        return MeasuredProcessOutput(
            federated_zip(OrderedDict((name, output[0]) for name, output in outputs.items())),
            OrderedDict((name, output[1]) for name, output in outputs.items()),
            federated_zip(OrderedDict((name, output[2]) for name, output in outputs.items())),
        )

    return MeasuredProcess(_joined_initialize(processes), following)


def _joined_initialize(processes: dict[str, MeasuredProcess]) -> Computation:
    def initialize() -> Any:
        parts = ((name, process.initialize()) for name, process in processes.items())
        return federated_zip(OrderedDict(parts))

    return federated_computation(initialize)


def _joined_state(processes: dict[str, MeasuredProcess]) -> FederatedType:
    members: Any = [(name, process.state_type) for name, process in processes.items()]
    return FederatedType(StructType([(name, type_.member) for name, type_ in members]), SERVER)


def _state_type(initial: Type, next_fn: Computation, first_of_several: bool | None) -> Type:
    parameter: Any = next_fn.type_signature.parameter
    candidates = [] if first_of_several or parameter is None else [parameter]
    if first_of_several is not False and isinstance(parameter, StructType) and len(parameter):
        candidates.append(parameter[0])
    for candidate in candidates:
        if candidate.is_assignable_from(initial):
            return candidate
    raise FederatedTypeError(
        f"a process that starts from a state of type {initial} cannot go on with next_fn, which "
        f"takes {parameter}."
    )


__getattr__ = missing("tff.templates")
