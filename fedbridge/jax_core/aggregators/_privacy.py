"""Differentially private means: clipped, summed, with Gaussian noise from the round's key.

TFF: aggregators/differential_privacy.py. The sum is divided by `clients_per_round`, whatever the
number of clients that came. Which noise is drawn is fedbridge's: the same for the same seed and
round, one independent normal for every coordinate.

**Every round needs its number**: `data.cohort(ids, batches, round=n)` in a loop of one's own, as
`fb.train` has it. The state, which is TFF's, counts no rounds; so two rounds of the same number get
the same noise, which the difference of two models then shows without any: no privacy is left.
"""

import warnings
from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from fedbridge.jax_core._aggregators import Aggregator, MeasuredProcessOutput, sum_or
from fedbridge.jax_core._errors import ArgumentError, check_argument
from fedbridge.jax_core.aggregators._arguments import (
    Number,
    check_finite_positive,
    check_not_negative,
    check_quantile,
)
from fedbridge.jax_core.aggregators._dp_queries import (
    DPQuery,
    check_query,
    gaussian_sum,
    normalized,
    quantile_adaptive_clip_sum,
)


class DPAggregatorState(NamedTuple):
    """TFF's; the event of a state from `initialize` is a placeholder."""

    query_state: PyTree
    agg_state: PyTree
    dp_event: PyTree
    is_init_state: Bool[Array, ""]


def differentially_private(query: DPQuery, record_sum: Aggregator | None = None) -> Aggregator:
    """An unweighted aggregator from a query; TFF's `DifferentiallyPrivateFactory`.

    Args:
        query: What becomes of a value and of the sum.
        record_sum: Sums the records; default `sum_()`. It must not raise the sum's sensitivity.
    """
    check_query("query", query)
    sums = sum_or("record_sum", record_sum)

    def initialize(template: PyTree) -> DPAggregatorState:
        state = query.initialize()
        shapes = jax.eval_shape(query.client, state, template)
        record = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        first = jnp.asarray(True)
        return DPAggregatorState(state, sums.initialize(record), query.event(state), first)

    def client(state: DPAggregatorState, value: PyTree, weight: Any, key: Any) -> PyTree:
        record = query.client(state.query_state, value)
        return sums.client(state.agg_state, record, jnp.ones((), jnp.float32), key)

    def server(state: DPAggregatorState, summed: PyTree, key: Any) -> MeasuredProcessOutput:
        sum_key, query_key = jax.random.split(key)
        records = sums.server(state.agg_state, summed, sum_key)
        result, query_state = query.server(state.query_state, records.result, query_key)
        event = query.event(state.query_state)
        new = DPAggregatorState(query_state, records.state, event, jnp.asarray(False))
        measured = OrderedDict(dp_query_metrics=query.metrics(query_state), dp=records.measurements)
        return MeasuredProcessOutput(new, result, measured)

    return Aggregator(initialize, client, server, weighted=False)


def gaussian_fixed(noise_multiplier: Number, clients_per_round: Number, clip: Number) -> Aggregator:
    """`(Σ clip(vₖ) + N(0, (z·clip)²)) / clients_per_round`.

    TFF's `DifferentiallyPrivateFactory.gaussian_fixed`; McMahan et al., 2017,
    https://arxiv.org/abs/1710.06963.

    The noise belongs to the cohort's (seed, round): in a loop of one's own pass `round=n` to
    `data.cohort`, or all rounds get the same noise, and hide nothing.

    Args:
        noise_multiplier: z; with 0 there is no noise.
        clients_per_round: The expected number of clients.
        clip: The L2 norm to which a value is clipped.

    Raises:
        ArgumentError: z below 0, another number not above 0, or one that is not finite: noise
            hides nothing without a clip.

    Example:
        >>> aggregator, key = gaussian_fixed(0.0, 2, clip=5.0), jax.random.key(0)
        >>> state = aggregator.initialize(jnp.zeros(2))
        >>> told = aggregator.client(state, jnp.asarray([6.0, 8.0]), 1.0, key)
        >>> aggregator.server(state, told, key).result.tolist()
        [1.5, 2.0]
    """
    check_not_negative("noise_multiplier", noise_multiplier)
    check_finite_positive("clients_per_round", clients_per_round)
    check_finite_positive("clip", clip)
    query = gaussian_sum(clip, clip * noise_multiplier)
    return differentially_private(normalized(query, clients_per_round))


def gaussian_adaptive(
    noise_multiplier: Number,
    clients_per_round: Number,
    initial_l2_norm_clip: Number = 0.1,
    target_unclipped_quantile: Number = 0.5,
    learning_rate: Number = 0.2,
    clipped_count_stddev: Number | None = None,
) -> Aggregator:
    """`gaussian_fixed` with a clip that follows a quantile of the norms, with noise of its own.

    TFF's `DifferentiallyPrivateFactory.gaussian_adaptive`; Andrew et al., 2021,
    https://arxiv.org/abs/1905.03871. The measured `clip` is the next round's. As for
    `gaussian_fixed`, every round's cohort needs its number.

    Args:
        noise_multiplier: z of both noises together; the values' own is
            `(z⁻² − (2s)⁻²)^−½`, a little larger.
        clients_per_round: The expected number of clients.
        initial_l2_norm_clip: The clip of the first round.
        target_unclipped_quantile: Which part of the clients is to stay unclipped.
        learning_rate: A round moves the clip by a factor of at most exp(learning rate).
        clipped_count_stddev: s, of the noise on the count of unclipped clients; by default
            0.05 · clients_per_round, and 0 where z is.

    Raises:
        ArgumentError: A number out of range, or an s that is too small for z.
    """
    check_not_negative("noise_multiplier", noise_multiplier)
    check_finite_positive("clients_per_round", clients_per_round)
    check_finite_positive("initial_l2_norm_clip", initial_l2_norm_clip)
    check_quantile("target_unclipped_quantile", target_unclipped_quantile)
    check_not_negative("learning_rate", learning_rate)
    if clipped_count_stddev is not None:
        check_not_negative("clipped_count_stddev", clipped_count_stddev)
    multiplier, stddev = adaptive_clip_noise_params(
        noise_multiplier, clients_per_round, clipped_count_stddev
    )
    query = quantile_adaptive_clip_sum(
        initial_l2_norm_clip,
        multiplier,
        target_unclipped_quantile,
        learning_rate,
        stddev,
        clients_per_round,
    )
    return differentially_private(normalized(query, clients_per_round))


def adaptive_clip_noise_params(
    noise_multiplier: Number,
    expected_clients_per_round: Number,
    clipped_count_stddev: Number | None = None,
) -> tuple[float, float]:
    """The noise multiplier of the values, and s, which together are worth `noise_multiplier`."""
    if noise_multiplier == 0:
        return 0.0, float(clipped_count_stddev or 0.0)
    z, given = float(noise_multiplier), clipped_count_stddev
    check_argument(z >= 1e-30, "noise_multiplier", z, "0, or a finite number of at least 1e-30")
    stddev = 0.05 * float(expected_clients_per_round) if given is None else float(given)
    if z >= 2 * stddev:
        default = ", by default 0.05 times clients_per_round" if given is None else ""
        raise ArgumentError(
            f"clipped_count_stddev is {stddev}{default}; with a noise_multiplier of {z} it must be "
            f"above {z / 2}."
        )
    multiplier = (z**-2 - (2 * stddev) ** -2) ** -0.5
    if multiplier >= 2 * z:
        warnings.warn(
            f"the values get {multiplier / z:.2f} times the noise of noise_multiplier={z}, for the "
            f"count's is only {stddev}; raise clipped_count_stddev or clients_per_round",
            stacklevel=3,
        )
    return multiplier, stddev
