"""What the body of a federated computation does: broadcasts, maps, sums, averages.

Sums are left folds over the clients in their order, from zero, in the dtype of the values, which
is what TFF does (tensorflow_backend/tensorflow_tree_transformations.py), to the last bit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fedbridge.tff import _sequences
from fedbridge.tff._computations import federated_computation, function_of
from fedbridge.tff._representations import given, taken
from fedbridge.tff._type_errors import FederatedTypeError
from fedbridge.tff._types import (
    CLIENTS,
    SERVER,
    FederatedType,
    Placement,
    SequenceType,
    StructType,
    TensorType,
    Type,
    contains,
    to_type,
)
from fedbridge.tff._values import Run, Value, as_value, each, fitted, zipped
from fedbridge.tff.types import is_structure_of_tensors


def to_value(arg: Any, type_spec: Any = None) -> Value:
    """What a body is made of as a value, perhaps as one of a type."""
    made = as_value(arg)
    return made if type_spec is None else fitted(made, to_type(type_spec))


def federated_value(value: Any, placement: Placement) -> Value:
    """A constant, the same everywhere at a placement."""
    made = as_value(value)
    if contains(made.type_signature, lambda t: isinstance(t, FederatedType)):
        raise FederatedTypeError(
            f"federated_value: a value of type {made.type_signature} is placed already."
        )
    signature = FederatedType(made.type_signature, placement, True)
    return Value(signature, lambda run: _everywhere(lambda: run.of(made), placement, run))


def federated_eval(fn: Any, placement: Placement) -> Value:
    """What a computation without arguments gives, computed anew on each client."""
    function = function_of(fn, None, "federated_eval")
    signature = FederatedType(function.type_signature.result, placement)
    compute = function._compiled.compute
    return Value(signature, lambda run: _everywhere(lambda: compute(None, run), placement, run))


def federated_broadcast(value: Any) -> Value:
    """What the server has, on all clients."""
    made, signature = _placed(value, SERVER, "federated_broadcast")
    everywhere = FederatedType(signature.member, CLIENTS, True)
    return Value(everywhere, lambda run: [run.of(made)] * run.clients)


def federated_map(fn: Any, arg: Any) -> Value:
    """A computation of every member."""
    made, signature = _placed(arg, None, "federated_map")
    function = function_of(fn, signature.member, "federated_map")
    compute = function._compiled.compute
    result = FederatedType(function.type_signature.result, signature.placement)
    return Value(result, lambda run: each(lambda one: compute(one, run), signature, run.of(made)))


def federated_zip(value: Any) -> Value:
    """Values at one placement as one value there, of structures."""
    return zipped(as_value(value))


def federated_sum(value: Any) -> Value:
    """The sum over the clients."""
    made, signature = _placed(value, CLIENTS, "federated_sum")
    _check_numbers(signature, "federated_sum", np.number)
    return _at_server(signature.member, lambda run: _sum(run.of(made), signature.member))


def federated_secure_sum(value: Any, max_input: Any) -> Value:
    """The same: the sums of integers are exact."""
    made, signature = _placed(value, CLIENTS, "federated_secure_sum")
    _check_numbers(signature, "federated_secure_sum", np.integer)
    return federated_sum(made)


def federated_secure_sum_bitwidth(value: Any, bitwidth: Any) -> Value:
    """The same."""
    return federated_secure_sum(value, bitwidth)


def federated_mean(value: Any, weight: Any = None) -> Value:
    """The mean over the clients, weighted if weights are given."""
    made, signature = _placed(value, CLIENTS, "federated_mean")
    _check_numbers(signature, "federated_mean", np.inexact)
    member = signature.member
    if weight is None:
        return _at_server(member, lambda run: _mean(run.of(made), None, member))
    weights, weight_signature = _placed(weight, CLIENTS, "federated_mean")
    scalar = weight_signature.member
    if not isinstance(scalar, TensorType) or scalar.shape != () or scalar.dtype.kind not in "iuf":
        raise FederatedTypeError(
            f"federated_mean: weights are one number a client, not of type {scalar}."
        )
    return _at_server(member, lambda run: _mean(run.of(made), run.of(weights), member))


def federated_min(value: Any) -> Value:
    """The least over the clients, element by element."""
    return _extreme(value, "federated_min", np.minimum, lambda limits: limits.max)


def federated_max(value: Any) -> Value:
    """The greatest."""
    return _extreme(value, "federated_max", np.maximum, lambda limits: limits.min)


def federated_aggregate(value: Any, zero: Any, accumulate: Any, merge: Any, report: Any) -> Value:
    """A left fold over the clients, in their order; nothing is merged, as in TFF on one machine."""
    made, signature = _placed(value, CLIENTS, "federated_aggregate")
    start = as_value(zero)
    name = "federated_aggregate"
    pair = StructType([start.type_signature, signature.member])
    fold = function_of(accumulate, pair, name)
    state = fold.type_signature.result
    function_of(merge, StructType([state, state]), name)
    last = function_of(report, state, name)

    def compute(run: Run) -> Any:
        held = run.of(start)
        for one in run.of(made):
            held = fold._compiled.compute((held, one), run)
        return last._compiled.compute(held, run)

    return _at_server(last.type_signature.result, compute)


def federated_reduce(value: Any, zero: Any, op: Any) -> Value:
    """The fold alone, as TFF had it up to 0.18."""
    made, signature = _placed(value, CLIENTS, "federated_reduce")
    start = as_value(zero)
    pair = StructType([start.type_signature, signature.member])
    fold = function_of(op, pair, "federated_reduce")

    def compute(run: Run) -> Any:
        held = run.of(start)
        for one in run.of(made):
            held = fold._compiled.compute((held, one), run)
        return held

    return _at_server(fold.type_signature.result, compute)


def federated_collect(value: Any) -> Value:
    """The clients' members as a sequence at the server, as TFF had it up to 0.19."""
    made, signature = _placed(value, CLIENTS, "federated_collect")
    sequence = SequenceType(signature.member)

    def compute(run: Run) -> Any:
        return taken([given(one, signature.member) for one in run.of(made)], sequence, 0)

    return _at_server(sequence, compute)


def federated_select(client_keys: Any, max_key: Any, server_val: Any, select_fn: Any) -> Value:
    """For each client the sequence of what a function picks of the server's value, by its keys."""
    name = "federated_select"
    keys, key_signature = _placed(client_keys, CLIENTS, name)
    _, most = _placed(max_key, SERVER, name)
    server, server_signature = _placed(server_val, SERVER, name)
    member, key = key_signature.member, TensorType(np.int32)
    vector = isinstance(member, TensorType) and member.dtype == np.int32 and member.shape
    if not vector or len(vector) != 1 or vector[0] is None or most.member != key:
        raise FederatedTypeError(
            f"{name}: a client's keys are int32[N] and max_key is int32, not of the types {member} "
            f"and {most.member}."
        )
    select = function_of(select_fn, StructType([server_signature.member, key]), name)
    sequence = SequenceType(select.type_signature.result)

    def compute(run: Run) -> Any:
        held = run.of(server)

        def picked(one: Any) -> Any:
            return given(select._compiled.compute((held, one), run), sequence.element)

        return [taken([picked(one) for one in mine], sequence, 0) for mine in run.of(keys)]

    return Value(FederatedType(sequence, CLIENTS), compute)


def federated_secure_select(
    client_keys: Any, max_key: Any, server_val: Any, select_fn: Any
) -> Value:
    """The same: nobody sees the keys here."""
    return federated_select(client_keys, max_key, server_val, select_fn)


# --------------------------------------------------------------------------- sequences


def sequence_map(fn: Any, arg: Any) -> Value:
    """A computation of every element of a sequence, also of one on every client."""

    def mapped(value: Value) -> Value:
        signature = _sequence(value, "sequence_map")
        function = function_of(fn, signature.element, "sequence_map")
        result = SequenceType(function.type_signature.result)

        def compute(run: Run) -> Any:
            inner = function._compiled.compute
            made = [inner(one, run) for one in _elements(run.of(value), signature)]
            return taken([given(one, result.element) for one in made], result, 0)

        return Value(result, compute)

    return _on_members(mapped, as_value(arg))


def sequence_reduce(value: Any, zero: Any, op: Any) -> Value:
    """A left fold over a sequence, also over one on every client."""

    def reduced(pair: Value) -> Value:
        sequence, start = pair
        signature = _sequence(sequence, "sequence_reduce")
        fold = function_of(
            op, StructType([start.type_signature, signature.element]), "sequence_reduce"
        )

        def compute(run: Run) -> Any:
            held = run.of(start)
            for one in _elements(run.of(sequence), signature):
                held = fold._compiled.compute((held, one), run)
            return held

        return Value(fold.type_signature.result, compute)

    return _on_members(reduced, as_value((value, zero)))


def sequence_sum(value: Any) -> Value:
    """The sum of a sequence, also of one on every client."""

    def summed(sequence: Value) -> Value:
        signature = _sequence(sequence, "sequence_sum")

        def compute(run: Run) -> Any:
            return _sum(_elements(run.of(sequence), signature), signature.element)

        return Value(signature.element, compute)

    return _on_members(summed, as_value(value))


def _on_members(function: Callable[[Value], Value], value: Value) -> Value:
    """A function of values, or of the members of a placed one."""
    placed = contains(value.type_signature, lambda t: isinstance(t, FederatedType))
    if not placed:
        return function(value)
    return federated_map(federated_computation(function), value)


def _sequence(value: Value, operation: str) -> SequenceType:
    if not isinstance(value.type_signature, SequenceType):
        raise FederatedTypeError(
            f"{operation} needs a sequence, not a value of type {value.type_signature}."
        )
    return value.type_signature


def _elements(graph: bytes, signature: SequenceType) -> list[Any]:
    found = _sequences.read(graph, signature).as_numpy_iterator()
    return [taken(element, signature.element, 0) for element in found]


# --------------------------------------------------------------------------- numbers


def _sum(members: list[Any], member: Type) -> Any:
    held = _filled(member, lambda dtype: 0)
    for one in members:
        held = _leaf_by_leaf(np.add, member, held, one)
    return held


def _mean(members: list[Any], weights: list[Any] | None, member: Type) -> Any:
    """`sum(w x) / sum(w)`, in the dtype of x; without weights w is one."""
    if weights is None:
        weights = [np.int32(1)] * len(members)
    scaled = [
        _leaf_by_leaf(lambda x, w=w: x * np.asarray(w).astype(x.dtype), member, one)
        for one, w in zip(members, weights, strict=True)
    ]
    total = sum_of_weights(weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _leaf_by_leaf(
            lambda x: np.divide(x, np.asarray(total).astype(x.dtype)), member, _sum(scaled, member)
        )


def sum_of_weights(weights: list[Any]) -> Any:
    """In their own dtype, in order."""
    held = np.zeros((), weights[0].dtype) if weights else np.int32(0)
    for weight in weights:
        held = np.add(held, weight, dtype=held.dtype)
    return held


def _extreme(value: Any, name: str, least: Any, start: Callable[[Any], Any]) -> Value:
    made, signature = _placed(value, CLIENTS, name)
    _check_numbers(signature, name, np.number)
    member = signature.member
    limits = lambda dtype: start(np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype))

    def compute(run: Run) -> Any:
        held = _filled(member, limits)
        for one in run.of(made):
            held = _leaf_by_leaf(least, member, held, one)
        return held

    return _at_server(member, compute)


def _filled(type_spec: Type, number: Callable[[np.dtype], Any]) -> Any:
    if isinstance(type_spec, StructType):
        return tuple(_filled(child, number) for child in type_spec)
    assert isinstance(type_spec, TensorType)
    sizes = [size or 1 for size in type_spec.shape or ()]
    return np.full(sizes, number(type_spec.dtype), type_spec.dtype)


def _leaf_by_leaf(function: Callable[..., Any], type_spec: Type, *values: Any) -> Any:
    if isinstance(type_spec, StructType):
        parts = zip(type_spec, *values, strict=True)
        return tuple(_leaf_by_leaf(function, child, *inner) for child, *inner in parts)
    return function(*values)


# --------------------------------------------------------------------------- placements


def _placed(value: Any, placement: Placement | None, operation: str) -> tuple[Value, FederatedType]:
    """A value at a placement, zipped where it is a structure of such."""
    made = zipped(as_value(value))
    signature = made.type_signature
    assert isinstance(signature, FederatedType)
    if placement is not None and signature.placement is not placement:
        raise FederatedTypeError(
            f"{operation} needs a value at {placement}, not one of type {signature}."
        )
    return made, signature


def _at_server(member: Type, compute: Callable[[Run], Any]) -> Value:
    return Value(FederatedType(member, SERVER), compute)


def _everywhere(member: Callable[[], Any], placement: Placement, run: Run) -> Any:
    return [member() for _ in range(run.clients)] if placement is CLIENTS else member()


def _check_numbers(signature: FederatedType, operation: str, kind: type[np.generic]) -> None:
    member = signature.member
    numbers = is_structure_of_tensors(member) and not contains(
        member, lambda t: isinstance(t, TensorType) and not np.issubdtype(t.dtype, kind)
    )
    if not numbers:
        words = {np.integer: "integers", np.inexact: "floating-point numbers"}
        raise FederatedTypeError(
            f"{operation} needs {words.get(kind, 'numbers')}, not values of type {member}."
        )
