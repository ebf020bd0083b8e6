"""`tff.aggregators`: TFF's factories by their names and arguments, as aggregators of the core."""

import functools
import math
from collections.abc import Callable
from typing import Any

from fedbridge import jax_core as fc
from fedbridge.tff._errors import missing

_nan = fc.aggregators.nan_as_tff


class AggregationFactory(fc.Aggregator):
    """An aggregator of the core where TFF has a factory of them."""

    __slots__ = ()

    def create(self, value_type: Any, weight_type: Any = None) -> "AggregationFactory":
        """The process of it; an aggregator of the core serves for all types."""
        return self


def factory(make: Callable[..., fc.Aggregator]) -> Callable[..., AggregationFactory]:
    """A function whose aggregators are factories."""

    @functools.wraps(make)
    def making(*args: Any, **kwargs: Any) -> AggregationFactory:
        return AggregationFactory(*make(*args, **kwargs))

    return making


@factory
def SumFactory() -> fc.Aggregator:
    """Sums."""
    return fc.sum_()


@factory
def MeanFactory(
    value_sum_factory: Any = None, weight_sum_factory: Any = None, no_nan_division: bool = False
) -> fc.Aggregator:
    """The weighted mean."""
    return fc.weighted_mean(value_sum_factory, weight_sum_factory, no_nan_division=no_nan_division)


@factory
def UnweightedMeanFactory(
    value_sum_factory: Any = None, count_sum_factory: Any = None
) -> fc.Aggregator:
    """The mean over clients."""
    return fc.unweighted_mean(value_sum_factory, count_sum_factory)


@factory
def clipping_factory(
    clipping_norm: Any, inner_agg_factory: Any, clipped_count_sum_factory: Any = None
) -> fc.Aggregator:
    """Clips each client's value to an L2 norm."""
    return fc.aggregators.clipping(clipping_norm, inner_agg_factory, clipped_count_sum_factory)


@factory
def zeroing_factory(
    zeroing_norm: Any,
    inner_agg_factory: Any,
    norm_order: float = math.inf,
    zeroed_count_sum_factory: Any = None,
) -> fc.Aggregator:
    """Zeroes each client's value whose norm is too large."""
    return fc.aggregators.zeroing(
        zeroing_norm, inner_agg_factory, norm_order, zeroed_count_sum_factory
    )


as_weighted_aggregator = factory(fc.aggregators.as_weighted_aggregator)


class PrivateQuantileEstimationProcess:
    """Estimates a quantile of the clients' norms."""

    @staticmethod
    def no_noise(
        initial_estimate: float,
        target_quantile: float,
        learning_rate: float,
        multiplier: float = 1.0,
        increment: float = 0.0,
        secure_estimation: bool = False,
    ) -> Any:
        """Without noise; sums are exact here, so that secure ones are the same."""
        return fc.aggregators.quantile_estimation(
            initial_estimate, target_quantile, learning_rate, multiplier, increment,
            empty_round=_nan,
        )  # fmt: skip


class DifferentiallyPrivateFactory:
    """The Gaussian mechanisms."""

    gaussian_fixed = staticmethod(factory(fc.aggregators.gaussian_fixed))
    gaussian_adaptive = staticmethod(factory(fc.aggregators.gaussian_adaptive))


class EncodedSumFactory:
    """Sums of quantized values."""

    quantize_above_threshold = staticmethod(factory(fc.aggregators.quantize_above_threshold))


__getattr__ = missing("tff.aggregators")
