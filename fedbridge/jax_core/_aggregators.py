"""Aggregators: what a client contributes to a sum, and what the sum becomes.

TFF's factories (aggregators/) compose by nesting; so do these: an aggregator that clips, say, has
an inner one, and calls both its halves. At the bottom stands a sum.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from fedbridge.jax_core._trees import tree_scale
from fedbridge.jax_core.metrics import divide_no_nan


class MeasuredProcessOutput(NamedTuple):
    """TFF's output of a process that measures (core/templates/measured_process.py)."""

    state: PyTree
    result: PyTree
    measurements: PyTree


class Aggregator(NamedTuple):
    """A reduction over clients.

    Attributes:
        initialize: `template -> state`, for values that look like the template.
        client: `(state, value, weight, key) -> contribution`, a tree that is summed over clients;
            the state is the server's, the key the client's own.
        server: `(state, sum, key) -> MeasuredProcessOutput(state, result, measurements)`; the key
            is the round's.
    """

    initialize: Callable[[PyTree], PyTree]
    client: Callable[[PyTree, PyTree, Float[Array, ""], Key[Array, ""]], PyTree]
    server: Callable[[PyTree, PyTree, Key[Array, ""]], MeasuredProcessOutput]


def sum_() -> Aggregator:
    """`Σ vₖ` over clients; weights are dropped (aggregators/sum_factory.py)."""
    return Aggregator(
        initialize=lambda template: (),
        client=lambda state, value, weight, key: value,
        server=lambda state, summed, key: MeasuredProcessOutput(state, summed, ()),
    )


class Parts(NamedTuple):
    """The contributions to the two sums of a mean."""

    value: PyTree
    weight: PyTree


def weighted_mean(
    value_sum: Aggregator | None = None,
    weight_sum: Aggregator | None = None,
    *,
    no_nan_division: bool = False,
) -> Aggregator:
    """`Σ wₖ vₖ / Σ wₖ` over clients (aggregators/mean.py).

    Args:
        value_sum: Sums the weighted values; default `sum_()`.
        weight_sum: Sums the weights; default `sum_()`.
        no_nan_division: Whether the mean is 0 where all weights are zero; otherwise NaN, as in TFF.

    Example:
        >>> mean, key = weighted_mean(), jax.random.key(0)
        >>> parts = [mean.client(mean.initialize(0.0), jnp.float32(v), w, key)
        ...          for v, w in ((1, 1.0), (4, 2.0))]
        >>> total = jax.tree.map(lambda a, b: a + b, *parts)
        >>> float(mean.server(mean.initialize(0.0), total, key).result)
        3.0
    """
    prepare = lambda value, weight: (tree_scale(weight, value), weight)
    names = ("value_sum_process", "weight_sum_process"), ("mean_value", "mean_weight")
    return _mean(value_sum, weight_sum, prepare, names, no_nan_division)


def unweighted_mean(
    value_sum: Aggregator | None = None, count_sum: Aggregator | None = None
) -> Aggregator:
    """`Σ vₖ / number of clients`; weights are dropped, as TFF's `as_weighted_aggregator` does.

    Args:
        value_sum: Sums the values; default `sum_()`.
        count_sum: Sums a one for each client; default `sum_()`.
    """
    prepare = lambda value, weight: (value, jnp.ones((), jnp.float32))
    names = ("value_sum_process", "count_sum_process"), ("mean_value", "mean_count")
    return _mean(value_sum, count_sum, prepare, names, False)


def _mean(
    value_sum: Aggregator | None,
    weight_sum: Aggregator | None,
    prepare: Callable[[PyTree, Any], tuple[PyTree, Any]],
    names: tuple[tuple[str, str], tuple[str, str]],
    no_nan_division: bool,
) -> Aggregator:
    values, weights = value_sum or sum_(), weight_sum or sum_()
    (value_state, weight_state), (value_name, weight_name) = names

    def initialize(template: PyTree) -> OrderedDict:
        one = jnp.ones((), jnp.float32)
        return OrderedDict(
            [(value_state, values.initialize(template)), (weight_state, weights.initialize(one))]
        )

    def client(state: OrderedDict, value: PyTree, weight: Any, key: Any) -> Parts:
        value, weight = prepare(value, jnp.asarray(weight, jnp.float32))
        value_key, weight_key = jax.random.split(key)
        return Parts(
            values.client(state[value_state], value, weight, value_key),
            weights.client(state[weight_state], weight, weight, weight_key),
        )

    def server(state: OrderedDict, summed: Parts, key: Any) -> MeasuredProcessOutput:
        value_key, weight_key = jax.random.split(key)
        value = values.server(state[value_state], summed.value, value_key)
        weight = weights.server(state[weight_state], summed.weight, weight_key)
        divide = divide_no_nan if no_nan_division else jnp.divide
        mean = jax.tree.map(
            lambda leaf: divide(leaf, weight.result.astype(leaf.dtype)), value.result
        )
        return MeasuredProcessOutput(
            OrderedDict([(value_state, value.state), (weight_state, weight.state)]),
            mean,
            OrderedDict([(value_name, value.measurements), (weight_name, weight.measurements)]),
        )

    return Aggregator(initialize, client, server)
