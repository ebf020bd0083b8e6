"""Aggregators: what a client contributes to a sum, and what the sum becomes.

TFF's factories (aggregators/mean.py) compose by nesting; so do these: an aggregator that clips,
say, has an inner one, and calls both its halves.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fedbridge.jax_core._trees import tree_scale


class MeasuredProcessOutput(NamedTuple):
    """TFF's output of a process that measures (core/templates/measured_process.py)."""

    state: PyTree
    result: PyTree
    measurements: PyTree


class Aggregator(NamedTuple):
    """A reduction over clients.

    Attributes:
        initialize: `() -> state`.
        client: `(state, value, weight) -> contribution`, a tree that is summed over clients.
        server: `(state, sum) -> MeasuredProcessOutput(state, result, measurements)`.
    """

    initialize: Callable[[], PyTree]
    client: Callable[[PyTree, PyTree, Float[Array, ""]], PyTree]
    server: Callable[[PyTree, PyTree], MeasuredProcessOutput]


class _Contribution(NamedTuple):
    value: PyTree
    weight: Float[Array, ""]


def _mean(value: PyTree, weight: Float[Array, ""]) -> PyTree:
    return jax.tree.map(lambda leaf: leaf / weight.astype(leaf.dtype), value)


def weighted_mean() -> Aggregator:
    """`Σ wₖ vₖ / Σ wₖ` over clients; as in TFF (aggregators/mean.py), NaN if all weights are zero.

    Example:
        >>> mean = weighted_mean()
        >>> parts = [mean.client((), jnp.float32(v), w) for v, w in ((1, 1.0), (4, 2.0))]
        >>> total = jax.tree.map(lambda a, b: a + b, *parts)
        >>> float(mean.server((), total).result)
        3.0
    """

    def client(state: PyTree, value: PyTree, weight: Any) -> _Contribution:
        weight = jnp.asarray(weight, jnp.float32)
        return _Contribution(tree_scale(weight, value), weight)

    def server(state: PyTree, summed: _Contribution) -> MeasuredProcessOutput:
        measured = OrderedDict(mean_value=(), mean_weight=())
        return MeasuredProcessOutput(state, _mean(summed.value, summed.weight), measured)

    state = lambda: OrderedDict(value_sum_process=(), weight_sum_process=())
    return Aggregator(state, client, server)


def unweighted_mean() -> Aggregator:
    """`Σ vₖ / number of clients`; weights are dropped, as TFF's `as_weighted_aggregator` does."""

    def client(state: PyTree, value: PyTree, weight: Any) -> _Contribution:
        return _Contribution(value, jnp.ones((), jnp.float32))

    def server(state: PyTree, summed: _Contribution) -> MeasuredProcessOutput:
        measured = OrderedDict(mean_value=(), mean_count=())
        return MeasuredProcessOutput(state, _mean(summed.value, summed.weight), measured)

    state = lambda: OrderedDict(value_sum_process=(), count_sum_process=())
    return Aggregator(state, client, server)
