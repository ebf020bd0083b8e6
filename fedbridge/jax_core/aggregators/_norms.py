"""Limits to the norm of what a client contributes: clipping and zeroing (aggregators/robust.py).

    each client k:  nₖ ← ‖Δₖ‖
                    clipping:  Δₖ ← Δₖ / (nₖ / c)  if nₖ > c      (c: the clipping norm, L2)
                    zeroing:   Δₖ ← 0              if nₖ > z      (z: the zeroing norm)
    the server:     c, z ← constant, or moved by an estimation process that is told the nₖ

The weight of a client that was zeroed stays. A norm that is NaN exceeds nothing: such an update
goes through, as in TFF, and the finalizer rejects the round; but client works zero it before that.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fedbridge.jax_core._aggregators import (
    Aggregator,
    MeasuredProcessOutput,
    check_aggregator,
    count_sum_or,
)
from fedbridge.jax_core._errors import check_argument, is_real
from fedbridge.jax_core._trees import tree_where, tree_zeros_like
from fedbridge.jax_core.aggregators._arguments import Number, check_positive
from fedbridge.jax_core.aggregators._quantiles import EstimationProcess, constant

Norm = Callable[[PyTree], Float[Array, ""]]


def global_l1_norm(tree: PyTree) -> Float[Array, ""]:
    """The sum of all absolute values, each leaf's in its own dtype."""
    return _total([jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)])


def global_l2_norm(tree: PyTree) -> Float[Array, ""]:
    """The root of the sum of squares, each leaf's norm in its own dtype and rounded, as in TFF."""
    norms = [jnp.sqrt(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(_total([jnp.square(norm) for norm in norms]))


def global_inf_norm(tree: PyTree) -> Float[Array, ""]:
    """The largest absolute value."""
    largest = [jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack([jnp.float32(0), *(n.astype(jnp.float32) for n in largest)]))


def _total(norms: list[Any]) -> Float[Array, ""]:
    return jnp.sum(jnp.stack([jnp.float32(0), *(norm.astype(jnp.float32) for norm in norms)]))


_NORMS: dict[float, Norm] = {1.0: global_l1_norm, 2.0: global_l2_norm, math.inf: global_inf_norm}


class Limited(NamedTuple):
    """The contributions to an aggregator of limited values."""

    norm: PyTree
    inner: PyTree
    count: PyTree


def clipping(
    clipping_norm: Number | EstimationProcess,
    inner: Aggregator,
    clipped_count_sum: Aggregator | None = None,
) -> Aggregator:
    """Scales a client's value down to an L2 norm of at most `clipping_norm`; `clipping_factory`.

    Args:
        clipping_norm: A number, or an `EstimationProcess` that is told the clients' norms.
        inner: Aggregates what was clipped.
        clipped_count_sum: Counts the clients that were clipped; default `sum_()`.

    Raises:
        ArgumentError: A norm of zero or less.

    Example:
        >>> from fedbridge.jax_core import sum_
        >>> clipped, key = clipping(5.0, sum_()), jax.random.key(0)
        >>> value = {"w": jnp.asarray([6.0, 8.0])}
        >>> state = clipped.initialize(value)
        >>> output = clipped.server(state, clipped.client(state, value, 1.0, key), key)
        >>> output.result["w"].tolist(), int(output.measurements["clipped_count"])
        ([3.0, 4.0], 1)
    """

    def clip(value: PyTree, norm: Float[Array, ""], limit: Float[Array, ""]) -> PyTree:
        return jax.tree.map(lambda leaf: leaf / (norm / limit).astype(leaf.dtype), value)

    limit = _limit_process("clipping_norm", clipping_norm)
    count = count_sum_or("clipped_count_sum", clipped_count_sum)
    return _limited(limit, inner, count, global_l2_norm, clip, "clipp")


def zeroing(
    zeroing_norm: Number | EstimationProcess,
    inner: Aggregator,
    norm_order: Number = math.inf,
    zeroed_count_sum: Aggregator | None = None,
) -> Aggregator:
    """Zeroes a client's value if its norm exceeds `zeroing_norm`; `zeroing_factory`.

    Args:
        zeroing_norm: A number, or an `EstimationProcess` that is told the clients' norms.
        inner: Aggregates what is left; the weight of a zeroed value is unchanged.
        norm_order: 1, 2 or infinity.
        zeroed_count_sum: Counts the clients that were zeroed; default `sum_()`.

    Raises:
        ArgumentError: A norm of zero or less, or another order.
    """
    known = is_real(norm_order) and float(norm_order) in _NORMS
    check_argument(known, "norm_order", norm_order, "1, 2 or infinity")
    limit = _limit_process("zeroing_norm", zeroing_norm)
    count = count_sum_or("zeroed_count_sum", zeroed_count_sum)
    to_zero = lambda value, norm, limit: tree_zeros_like(value)
    return _limited(limit, inner, count, _NORMS[float(norm_order)], to_zero, "zero")


def _limit_process(name: str, limit: Any) -> EstimationProcess:
    if isinstance(limit, EstimationProcess):
        return limit
    check_positive(name, limit)
    return constant(limit)


def _limited(
    limit: EstimationProcess,
    inner: Aggregator,
    count: Aggregator,
    norm_of: Norm,
    reduce: Callable[[PyTree, Float[Array, ""], Float[Array, ""]], PyTree],
    verb: str,
) -> Aggregator:
    doing, norm_name, count_name = f"{verb}ing", f"{verb}ing_norm", f"{verb}ed_count"

    check_aggregator("inner", inner)

    def state_of(norm: PyTree, inner: PyTree, count: PyTree) -> OrderedDict:
        return OrderedDict([(norm_name, norm), ("inner_agg", inner), (f"{count_name}_agg", count)])

    def initialize(template: PyTree) -> OrderedDict:
        zero = jnp.zeros((), jnp.int32)
        return state_of(limit.initialize(), inner.initialize(template), count.initialize(zero))

    def client(state: OrderedDict, value: PyTree, weight: Any, key: Any) -> Limited:
        norm_key, inner_key, count_key = jax.random.split(key, 3)
        norm, bound = norm_of(value), limit.report(state[norm_name])
        exceeds = norm > bound
        value = tree_where(exceeds, reduce(value, norm, bound), value)
        return Limited(
            limit.client(state[norm_name], norm, norm_key),
            inner.client(state["inner_agg"], value, weight, inner_key),
            count.client(
                state[f"{count_name}_agg"],
                exceeds.astype(jnp.int32),
                jnp.ones((), jnp.float32),
                count_key,
            ),
        )

    def server(state: OrderedDict, summed: Limited, key: Any) -> MeasuredProcessOutput:
        norm_key, inner_key, count_key = jax.random.split(key, 3)
        aggregate = inner.server(state["inner_agg"], summed.inner, inner_key)
        counted = count.server(state[f"{count_name}_agg"], summed.count, count_key)
        norm_state = limit.server(state[norm_name], summed.norm, norm_key)
        measured = [
            (doing, aggregate.measurements),
            (norm_name, limit.report(state[norm_name])),
            (count_name, counted.result),
        ]
        return MeasuredProcessOutput(
            state_of(norm_state, aggregate.state, counted.state),
            aggregate.result,
            OrderedDict(measured),
        )

    return Aggregator(initialize, client, server, inner.weighted)
