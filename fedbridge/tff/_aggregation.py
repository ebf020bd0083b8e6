"""Aggregators in both forms: those of the core as computations, a script's own on the core.

`process_of` makes TFF's `AggregationProcess` of an aggregator of the core, for a script that calls
it in its own computations; `as_core` takes a factory that a script has written, whose process then
aggregates in every round, on the host.
"""

import abc
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedbridge import jax_core as fc
from fedbridge.tff._computations import Compiled, Computation
from fedbridge.tff._representations import given, leaves, taken
from fedbridge.tff._types import (
    CLIENTS,
    SERVER,
    FederatedType,
    FunctionType,
    StructType,
    StructWithPythonType,
    TensorType,
    Type,
    to_type,
)
from fedbridge.tff._values import Run
from fedbridge.tff.templates import AggregationProcess, MeasuredProcessOutput


class UnweightedAggregationFactory(abc.ABC):
    """The base of a script's own factories (aggregators/factory.py)."""

    @abc.abstractmethod
    def create(self, value_type: Any) -> AggregationProcess:
        """The process for values of a type."""


class WeightedAggregationFactory(abc.ABC):
    """The same of values and weights."""

    @abc.abstractmethod
    def create(self, value_type: Any, weight_type: Any) -> AggregationProcess:
        """The process for values and weights of these types."""


class CoreAggregationProcess(AggregationProcess):
    """The process of an aggregator of the core, which it keeps."""

    aggregator: fc.Aggregator


def process_of(
    aggregator: fc.Aggregator, value_type: Any, weight_type: Any = None
) -> CoreAggregationProcess:
    """An aggregator of the core as computations.

    Args:
        aggregator: What computes; what it draws at random is drawn anew in every call.
        value_type: Of a client's value.
        weight_type: Of its weight; None where it has none.
    """
    value, weight = to_type(value_type), None if weight_type is None else to_type(weight_type)
    template = [jnp.zeros(one.shape, one.dtype) for one in _tensors(value)]

    def reduce(state: Any, values: list[Any], weights: list[Any], key: Any) -> Any:
        keys = jax.random.split(key, len(values) + 1)
        sums = None
        for one, by, own in zip(values, weights, keys[1:], strict=True):
            found = aggregator.client(state, one, by, own)
            sums = found if sums is None else jax.tree.map(jnp.add, sums, found)
        if sums is None:
            nothing = jax.eval_shape(aggregator.client, state, template, jnp.float32(0), key)
            sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), nothing)
        return aggregator.server(state, sums, keys[0])

    state = jax.device_get(aggregator.initialize(template))
    made = jax.eval_shape(reduce, state, [template], [jnp.float32(1)], jax.random.key(0))
    state_type, measured = _type_of(state), _type_of(made.measurements)
    clients = {"value": value} | ({} if weight is None else {"weight": weight})
    parameter = StructType(
        [
            ("state", FederatedType(state_type, SERVER)),
            *((name, FederatedType(one, CLIENTS)) for name, one in clients.items()),
        ]
    )
    results = {"state": state_type, "result": value, "measurements": measured}
    output = StructWithPythonType(
        [(name, FederatedType(one, SERVER)) for name, one in results.items()],
        MeasuredProcessOutput,
    )

    def compute(argument: Any, run: Run) -> Any:
        before, values, *weights = argument
        found = jax.device_get(
            reduce(
                given(before, state_type),
                [[jnp.asarray(leaf) for leaf in leaves(one, value)] for one in values],
                [jnp.float32(one) for one in (weights[0] if weights else [1] * len(values))],
                jax.random.key(np.random.default_rng().integers(2**31)),
            )
        )
        result = _packed(value, iter(jax.tree.leaves(found.result)))
        after = taken(found.state, state_type, 0)
        return after, result, taken(found.measurements, measured, 0)

    start = FunctionType(None, FederatedType(state_type, SERVER))
    process = CoreAggregationProcess(
        Computation(Compiled(start, lambda _, run: taken(state, state_type, 0)), "initialize"),
        Computation(Compiled(FunctionType(parameter, output), compute), "next"),
    )
    process.aggregator = aggregator
    return process


def as_core(aggregator: Any) -> Any:
    """What the builders of the core take: an aggregator, or a script's own on the host.

    Args:
        aggregator: An aggregator of the core, a process of one, a factory or a process of a
            script's own; anything else is returned as it is.
    """
    if isinstance(aggregator, fc.Aggregator):
        return aggregator
    if isinstance(aggregator, CoreAggregationProcess):
        return aggregator.aggregator
    if isinstance(aggregator, AggregationProcess):
        return _on_host(lambda value_type: aggregator)
    if isinstance(aggregator, WeightedAggregationFactory):
        return _on_host(lambda value_type: aggregator.create(value_type, TensorType(np.float32)))
    if isinstance(aggregator, UnweightedAggregationFactory):
        return _on_host(aggregator.create)
    return aggregator


def _on_host(create: Any) -> fc.HostAggregator:
    created = functools.cache(create)

    def process(template: Any) -> AggregationProcess:
        return created(to_type(jax.tree.map(lambda x: TensorType(x.dtype, x.shape), template)))

    def next(state: Any, template: Any, values: Any, weights: Any) -> fc.MeasuredProcessOutput:
        made = process(template)
        parameter: Any = made.next.type_signature.parameter
        weighted = len(parameter) > 2
        found = made.next.of((state, values, *([list(weights)] if weighted else [])))
        result = jax.tree.unflatten(jax.tree.structure(template), jax.tree.leaves(found.result))
        return fc.MeasuredProcessOutput(found.state, result, found.measurements)

    return fc.HostAggregator(lambda template: process(template).initialize.of(None), next)


def _tensors(type_spec: Any) -> list[TensorType]:
    if isinstance(type_spec, TensorType):
        return [type_spec]
    return [one for child in type_spec for one in _tensors(child)]


def _packed(type_spec: Type, found: Any) -> Any:
    """Arrays, in order, as a value of a type."""
    if isinstance(type_spec, StructType):
        return tuple(_packed(child, found) for child in type_spec)
    tensor: Any = type_spec
    return np.asarray(next(found), tensor.dtype)


def _type_of(tree: Any) -> Type:
    tensor = lambda leaf: TensorType(jnp.result_type(leaf), jnp.shape(leaf))
    return to_type(jax.tree.map(tensor, tree))
