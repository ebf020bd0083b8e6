"""Aggregators: pairs of a client half and a server half around a sum, which compose by nesting.

TFF's `tff.aggregators` and the recommended ones of `tff.learning`, functions in place of factories:

    fb.aggregators.zeroing(100.0, fb.aggregators.clipping(1.0, fb.aggregators.weighted_mean()))

`fb.aggregators.robust_aggregator()` has both, with norms that follow the clients'. Whatever is
nested, memory does not grow with the cohort: clients contribute to sums only.
"""

from fedbridge.jax_core._aggregators import (
    Aggregator as Aggregator,
    MeasuredProcessOutput as MeasuredProcessOutput,
    as_weighted_aggregator as as_weighted_aggregator,
    sum_ as sum_,
    unweighted_mean as unweighted_mean,
    weighted_mean as weighted_mean,
)
from fedbridge.jax_core.aggregators._compression import (
    quantize_above_threshold as quantize_above_threshold,
)
from fedbridge.jax_core.aggregators._dp_queries import (
    AdaptiveClipState as AdaptiveClipState,
    ComposedDpEvent as ComposedDpEvent,
    DPQuery as DPQuery,
    GaussianDpEvent as GaussianDpEvent,
    GaussianSumState as GaussianSumState,
    NormalizedState as NormalizedState,
    gaussian_sum as gaussian_sum,
    normalized as normalized,
    quantile_adaptive_clip_sum as quantile_adaptive_clip_sum,
)
from fedbridge.jax_core.aggregators._measurements import (
    ClientMeasurement as ClientMeasurement,
    add_debug_measurements as add_debug_measurements,
    add_debug_measurements_with_mixed_dtype as add_debug_measurements_with_mixed_dtype,
    add_measurements as add_measurements,
)
from fedbridge.jax_core.aggregators._model_update import (
    compression_aggregator as compression_aggregator,
    dp_aggregator as dp_aggregator,
    robust_aggregator as robust_aggregator,
)
from fedbridge.jax_core.aggregators._norms import clipping as clipping, zeroing as zeroing
from fedbridge.jax_core.aggregators._privacy import (
    DPAggregatorState as DPAggregatorState,
    differentially_private as differentially_private,
    gaussian_adaptive as gaussian_adaptive,
    gaussian_fixed as gaussian_fixed,
)
from fedbridge.jax_core.aggregators._quantiles import (
    EmptyRound as EmptyRound,
    EstimationProcess as EstimationProcess,
    QuantileState as QuantileState,
    constant as constant,
    keep_estimate as keep_estimate,
    nan_as_tff as nan_as_tff,
    quantile_estimation as quantile_estimation,
)

# TFF's names for them.
clipping_factory = clipping
zeroing_factory = zeroing
