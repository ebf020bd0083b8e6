"""Queries that hide what a single client contributed; tensorflow_privacy's, without TensorFlow.

A query is the clients' and the server's part around a sum of records. Their composition, states and
events are those of tensorflow_privacy 0.9.0 (privacy/dp_query/) and dp_accounting, so that a state
is TFF's, and what one accounts for from TFF's states can be accounted for from these.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from fedbridge.jax_core._errors import check_argument
from fedbridge.jax_core._trees import tree_norm
from fedbridge.jax_core.aggregators._arguments import (
    Number,
    check_finite_positive,
    check_not_negative,
    check_quantile,
)
from fedbridge.jax_core.aggregators._quantiles import (
    QuantileState,
    below_estimate,
    next_estimate,
    quantile_state,
)


class DPQuery(NamedTuple):
    """A private sum.

    Attributes:
        initialize: `() -> state`.
        client: `(state, value) -> record`, a tree that is summed over clients.
        server: `(state, sum of records, key) -> (result, state)`.
        event: `state -> event`, what a round from this state costs.
        metrics: `state -> measurements`, of the state after the round.
    """

    initialize: Callable[[], Any]
    client: Callable[[Any, PyTree], PyTree]
    server: Callable[[Any, PyTree, Key[Array, ""]], tuple[PyTree, Any]]
    event: Callable[[Any], PyTree]
    metrics: Callable[[Any], OrderedDict[str, PyTree]]


def check_query(name: str, query: Any) -> None:
    """Refuses what is no query, e.g. a function that makes one, uncalled."""
    is_one = isinstance(query, DPQuery)
    check_argument(is_one, name, query, "a DPQuery, e.g. gaussian_sum(clip, stddev)")


def _event_names(class_name: bytes) -> dict[str, bytes]:
    """What TFF's state of an event holds before its fields, and no program can: texts."""
    return {"module_name": b"dp_accounting.dp_event", "class_name": class_name}


class GaussianDpEvent(NamedTuple):
    """dp_accounting's event of a sum with noise."""

    noise_multiplier: Float[Array, ""]

    tff_type = "_GaussianDpEventNamedTupleWrapper"
    tff_constants = _event_names(b"GaussianDpEvent")


class ComposedDpEvent(NamedTuple):
    """dp_accounting's event of several."""

    events: list

    tff_type = "_ComposedDpEventNamedTupleWrapper"
    tff_constants = _event_names(b"ComposedDpEvent")


class GaussianSumState(NamedTuple):
    """The state of a `gaussian_sum`."""

    l2_norm_clip: Float[Array, ""]
    stddev: Float[Array, ""]

    tff_type = "_GlobalState"


class NormalizedState(NamedTuple):
    """The state of a `normalized` query."""

    numerator_state: PyTree
    denominator: Float[Array, ""]

    tff_type = "_GlobalState"


class AdaptiveClipState(NamedTuple):
    """The state of a `quantile_adaptive_clip_sum`."""

    noise_multiplier: Float[Array, ""]
    sum_state: GaussianSumState
    quantile_estimator_state: QuantileState

    tff_type = "_GlobalState"


class AdaptiveClipRecord(NamedTuple):
    """What a client contributes to a `quantile_adaptive_clip_sum`."""

    sum_state: PyTree
    quantile_estimator_state: Float[Array, ""]


def clip_by_global_norm(
    tree: PyTree, clip_norm: Float[Array, ""]
) -> tuple[PyTree, Float[Array, ""]]:
    """`tf.clip_by_global_norm`: the tree times `c · min(1/n, 1/c)`, and its norm n.

    A norm that is not finite makes the tree NaN.
    """
    norm = tree_norm(tree)
    scale = clip_norm * jnp.minimum(1.0 / norm, 1.0 / clip_norm)
    scale = jnp.where(jnp.isfinite(norm), scale, jnp.nan)
    return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), tree), norm


def add_normal(key: Key[Array, ""], stddev: Float[Array, ""], tree: PyTree) -> PyTree:
    """Adds N(0, stddev²) to every entry, independently."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(len(leaves), 1))
    noisy = [
        leaf + (stddev * jax.random.normal(k, leaf.shape, jnp.float32)).astype(leaf.dtype)
        for leaf, k in zip(leaves, keys, strict=False)
    ]
    return jax.tree.unflatten(structure, noisy)


def gaussian_sum(l2_norm_clip: Number, stddev: Number) -> DPQuery:
    """Clips each value to an L2 norm, and adds N(0, stddev²) to every entry of the sum.

    Raises:
        ArgumentError: A clip of zero or less, or none at all: then no noise hides anything. A
            deviation below 0 or not finite.
    """
    check_finite_positive("l2_norm_clip", l2_norm_clip)
    check_not_negative("stddev", stddev)
    as_float = lambda number: jnp.asarray(number, jnp.float32)
    return DPQuery(
        initialize=lambda: GaussianSumState(as_float(l2_norm_clip), as_float(stddev)),
        client=lambda state, value: clip_by_global_norm(value, state.l2_norm_clip)[0],
        server=lambda state, summed, key: (add_normal(key, state.stddev, summed), state),
        event=lambda state: GaussianDpEvent(state.stddev / state.l2_norm_clip),
        metrics=lambda state: OrderedDict(),
    )


def normalized(numerator: DPQuery, denominator: Number) -> DPQuery:
    """Divides by a constant, e.g. the expected number of clients: their true number is private.

    Raises:
        ArgumentError: The constant is not above 0.
    """
    check_query("numerator", numerator)
    check_finite_positive("denominator", denominator)

    def server(state: NormalizedState, summed: PyTree, key: Any) -> tuple[PyTree, NormalizedState]:
        total, numerator_state = numerator.server(state.numerator_state, summed, key)
        mean = jax.tree.map(lambda leaf: leaf / state.denominator.astype(leaf.dtype), total)
        return mean, state._replace(numerator_state=numerator_state)

    return DPQuery(
        lambda: NormalizedState(numerator.initialize(), jnp.asarray(denominator, jnp.float32)),
        lambda state, value: numerator.client(state.numerator_state, value),
        server,
        lambda state: numerator.event(state.numerator_state),
        lambda state: numerator.metrics(state.numerator_state),
    )


def quantile_adaptive_clip_sum(
    initial_l2_norm_clip: Number,
    noise_multiplier: Number,
    target_unclipped_quantile: Number,
    learning_rate: Number,
    clipped_count_stddev: Number,
    expected_num_records: Number,
) -> DPQuery:
    """A `gaussian_sum` whose clip C follows a quantile of the clients' norms, privately.

        each client k:  contributes its clipped value, and bₖ ← 1[nₖ ≤ C] − ½
        the server:     b ← (Σ bₖ + N(0, s²)) / expected number of clients + ½, clipped to [0, 1]
                        C ← C · exp(−η (b − q));  stddev ← noise multiplier · C

    Andrew et al., 2021. https://arxiv.org/abs/1905.03871

    Raises:
        ArgumentError: A quantile outside of (0, 1), a clip or a number of records of zero or less,
            another number below 0.
    """
    check_finite_positive("initial_l2_norm_clip", initial_l2_norm_clip)
    check_not_negative("noise_multiplier", noise_multiplier)
    check_quantile("target_unclipped_quantile", target_unclipped_quantile)
    check_not_negative("learning_rate", learning_rate)
    check_not_negative("clipped_count_stddev", clipped_count_stddev)
    check_finite_positive("expected_num_records", expected_num_records)
    below = normalized(gaussian_sum(0.5, clipped_count_stddev), expected_num_records)
    total = gaussian_sum(initial_l2_norm_clip, noise_multiplier * initial_l2_norm_clip)

    def initialize() -> AdaptiveClipState:
        quantile = quantile_state(
            initial_l2_norm_clip, target_unclipped_quantile, learning_rate, below.initialize()
        )
        multiplier = jnp.asarray(noise_multiplier, jnp.float32)
        return AdaptiveClipState(multiplier, total.initialize(), quantile)

    def client(state: AdaptiveClipState, value: PyTree) -> AdaptiveClipRecord:
        clipped, norm = clip_by_global_norm(value, state.sum_state.l2_norm_clip)
        quantile = state.quantile_estimator_state
        unclipped = below_estimate(norm, quantile.current_estimate)
        return AdaptiveClipRecord(clipped, below.client(quantile.below_estimate_state, unclipped))

    def server(
        state: AdaptiveClipState, summed: AdaptiveClipRecord, key: Any
    ) -> tuple[PyTree, AdaptiveClipState]:
        sum_key, below_key = jax.random.split(key)
        result, _ = total.server(state.sum_state, summed.sum_state, sum_key)
        quantile = state.quantile_estimator_state
        mean_below, below_state = below.server(
            quantile.below_estimate_state, summed.quantile_estimator_state, below_key
        )
        clip = next_estimate(quantile, mean_below)
        quantile = quantile._replace(current_estimate=clip, below_estimate_state=below_state)
        bound = jnp.maximum(clip, 0.0)
        sum_state = GaussianSumState(bound, bound * state.noise_multiplier)
        return result, AdaptiveClipState(state.noise_multiplier, sum_state, quantile)

    def event(state: AdaptiveClipState) -> ComposedDpEvent:
        of_below = below.event(state.quantile_estimator_state.below_estimate_state)
        return ComposedDpEvent([total.event(state.sum_state), of_below])

    metrics = lambda state: OrderedDict(clip=state.sum_state.l2_norm_clip)
    return DPQuery(initialize, client, server, event, metrics)
