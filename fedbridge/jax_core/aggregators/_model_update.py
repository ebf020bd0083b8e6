"""The aggregators that TFF's users are told to use (learning/model_update_aggregator.py)."""

import math
from collections.abc import Callable, Sequence

from fedbridge.jax_core._aggregators import (
    Aggregator,
    check_aggregator,
    unweighted_mean,
    weighted_mean,
)
from fedbridge.jax_core._errors import ArgumentError, check_bool, check_function
from fedbridge.jax_core.aggregators import _norms
from fedbridge.jax_core.aggregators._arguments import Number
from fedbridge.jax_core.aggregators._compression import quantize_above_threshold
from fedbridge.jax_core.aggregators._privacy import gaussian_adaptive
from fedbridge.jax_core.aggregators._quantiles import EmptyRound, keep_estimate, quantile_estimation

Wrapper = Callable[[Aggregator], Aggregator]


def robust_aggregator(
    *,
    zeroing: bool = True,
    clipping: bool = True,
    weighted: bool = True,
    debug_measurements_fn: Wrapper | None = None,
    empty_round: EmptyRound = keep_estimate,
) -> Aggregator:
    """A mean of zeroed and clipped updates, with limits that follow the clients' norms.

    `zeroing(clipping(mean))`: what exceeds about twice the largest norm of late is dropped, then
    what exceeds the 80th percentile of the L2 norms is clipped to it.

    Args:
        zeroing: Whether to zero.
        clipping: Whether to clip.
        weighted: Whether the mean is weighted.
        debug_measurements_fn: Wraps the mean, e.g. `add_debug_measurements`.
        empty_round: What becomes of the norms in a round without clients; `nan_as_tff` in replays.

    Raises:
        ArgumentError: `debug_measurements_fn` makes a weighted mean unweighted, or the reverse.
    """
    check_bool("weighted", weighted)
    mean = weighted_mean() if weighted else unweighted_mean()
    return _limited(mean, zeroing, clipping, debug_measurements_fn, empty_round)


def dp_aggregator(
    noise_multiplier: Number,
    clients_per_round: Number,
    zeroing: bool = True,
    *,
    empty_round: EmptyRound = keep_estimate,
) -> Aggregator:
    """Zeroing around `gaussian_adaptive(noise_multiplier, clients_per_round)`; unweighted.

    In a loop of one's own every cohort needs its number, `data.cohort(..., round=n)`: rounds of one
    number get the same noise, which then hides nothing.

    Args:
        noise_multiplier: Of the Gaussian mechanism; 1 or more for a meaningful privacy.
        clients_per_round: The expected number of clients.
        zeroing: Whether to zero what exceeds about twice the largest norm of late.
        empty_round: What becomes of that norm in a round without clients; `nan_as_tff` in replays.
    """
    check_bool("zeroing", zeroing)
    private = gaussian_adaptive(noise_multiplier, clients_per_round)
    return _adaptive_zeroing(private, empty_round) if zeroing else private


def compression_aggregator(
    *,
    zeroing: bool = True,
    clipping: bool = True,
    weighted: bool = True,
    debug_measurements_fn: Wrapper | None = None,
    stochastic: bool = True,
    min_max: Sequence[Number] | None = None,
    empty_round: EmptyRound = keep_estimate,
) -> Aggregator:
    """`robust_aggregator` around a mean whose weighted values are quantized to 8 bits.

    Leaves of at most 20,000 entries are not; see `quantize_above_threshold`.

    Args:
        zeroing: Whether to zero.
        clipping: Whether to clip, before the quantization.
        weighted: Whether the mean is weighted.
        debug_measurements_fn: Wraps the mean, e.g. `add_debug_measurements`.
        stochastic: Whether to round at random.
        min_max: The quantized range; by default that of each client's leaf.
        empty_round: What becomes of the norms in a round without clients; `nan_as_tff` in replays.
    """
    values = quantize_above_threshold(8, 20000, stochastic=stochastic, min_max=min_max)
    check_bool("weighted", weighted)
    mean = weighted_mean(values) if weighted else unweighted_mean(values)
    return _limited(mean, zeroing, clipping, debug_measurements_fn, empty_round)


def _limited(
    mean: Aggregator,
    zeroing: bool,
    clipping: bool,
    debug_measurements_fn: Wrapper | None,
    empty_round: EmptyRound,
) -> Aggregator:
    check_bool("zeroing", zeroing)
    check_bool("clipping", clipping)
    aggregator = mean
    if debug_measurements_fn is not None:
        check_function("debug_measurements_fn", debug_measurements_fn, "(the mean)")
        aggregator = debug_measurements_fn(mean)
    check_aggregator("debug_measurements_fn(mean)", aggregator)
    if aggregator.weighted != mean.weighted:
        is_, was = ("weighted", "unweighted") if aggregator.weighted else ("unweighted", "weighted")
        raise ArgumentError(
            f"debug_measurements_fn gives an aggregator that is {is_}; it must be {was}, like the "
            "one that it gets."
        )
    if clipping:
        aggregator = _adaptive_clipping(aggregator, empty_round)
    return _adaptive_zeroing(aggregator, empty_round) if zeroing else aggregator


def _adaptive_zeroing(inner: Aggregator, empty_round: EmptyRound) -> Aggregator:
    norm = quantile_estimation(10.0, 0.98, math.log(10.0), 2.0, 1.0, empty_round=empty_round)
    return _norms.zeroing(norm, inner)


def _adaptive_clipping(inner: Aggregator, empty_round: EmptyRound) -> Aggregator:
    return _norms.clipping(quantile_estimation(1.0, 0.8, 0.2, empty_round=empty_round), inner)
