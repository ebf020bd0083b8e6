"""`tff.aggregators`: TFF's factories by their names and arguments, as aggregators of the core."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fedbridge import jax_core as fc
from fedbridge.tff import _arguments as arguments
from fedbridge.tff._aggregation import (
    UnweightedAggregationFactory as UnweightedAggregationFactory,
    WeightedAggregationFactory as WeightedAggregationFactory,
    process_of,
)
from fedbridge.tff._errors import missing
from fedbridge.tff._measurements import on_server
from fedbridge.tff.templates import AggregationProcess

_nan = fc.aggregators.nan_as_tff


class AggregationFactory(fc.Aggregator):
    """An aggregator of the core where TFF has a factory of them."""

    __slots__ = ()

    def create(self, value_type: Any, weight_type: Any = None) -> AggregationProcess:
        """The process of it for values of a type, in computations."""
        return process_of(self, value_type, weight_type)


UnweightedAggregationFactory.register(AggregationFactory)
WeightedAggregationFactory.register(AggregationFactory)


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


@factory
def add_measurements(
    inner_agg_factory: Any,
    *,
    client_measurement_fn: Any = None,
    server_measurement_fn: Any = None,
) -> fc.Aggregator:
    """Adds measurements to those of an aggregator (aggregators/measurements.py).

    Args:
        inner_agg_factory: What aggregates.
        client_measurement_fn: A `fedbridge.aggregators.ClientMeasurement`: what a client tells,
            which is summed, and what becomes of the sum. No client's values are kept for a
            function of all of them.
        server_measurement_fn: As in TFF, of the result at the server, in Federated Core; it runs
            outside of the compiled program.

    Raises:
        ArgumentError: No function, or one of the clients' values in Federated Core.
    """
    fits = client_measurement_fn is None or isinstance(
        client_measurement_fn, fc.aggregators.ClientMeasurement
    )
    allowed = (
        "a fedbridge.aggregators.ClientMeasurement, what a client tells and what becomes of the "
        "sum, since no client's values are kept"
    )
    fc.check_argument(fits, "client_measurement_fn", client_measurement_fn, allowed)
    server = server_measurement_fn
    if server is not None:
        fc.check_function("server_measurement_fn", server, "(result)")
        server = on_server(server)
    return fc.aggregators.add_measurements(
        inner_agg_factory, client_measurement_fn=client_measurement_fn, server_measurement_fn=server
    )


_QUERY = "a query of tensorflow_privacy does not run on JAX; write "
_missing = missing(
    "tff.aggregators",
    {
        **dict.fromkeys(
            ("SecureSumFactory", "SecureModularSumFactory", "secure_quantized_sum"),
            "nothing is encrypted in one process, and quantizing for it would change the sums; "
            "write tff.aggregators.SumFactory",
        ),
        **dict.fromkeys(
            ("DiscreteFourierTransformFactory", "HadamardTransformFactory"),
            "rotations serve secure sums of quantized values, which are not there; write "
            "tff.aggregators.EncodedSumFactory.quantize_above_threshold",
        ),
        **dict.fromkeys(
            ("UnweightedReservoirSamplingFactory", "federated_sample"),
            "no client's values are kept; samples of the clients' metrics are "
            "tff.learning.metrics.finalize_then_sample",
        ),
        "concat_factory": "leaves stay apart; norms and noise are those of all together, so for "
        "clipping, zeroing and noise write its inner factory alone (quantizing is by leaf)",
        "DifferentiallyPrivateFactory.tree_aggregation": "noise that is correlated over rounds "
        "(DP-FTRL) is not computed; write DifferentiallyPrivateFactory.gaussian_fixed",
        "DifferentiallyPrivateFactory.tree_adaptive": "noise that is correlated over rounds "
        "(DP-FTRL) is not computed; write DifferentiallyPrivateFactory.gaussian_adaptive",
    },
)


class _Named(type):
    """Classes that only give names to functions."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _missing(f"{cls.__name__}.{name}")


class PrivateQuantileEstimationProcess(metaclass=_Named):
    """Estimates a quantile of the clients' norms."""

    def __init__(self, *args: Any, **kwargs: Any):
        raise fc.ScriptError(
            f"tff.aggregators.PrivateQuantileEstimationProcess(...): {_QUERY}"
            "PrivateQuantileEstimationProcess.no_noise."
        )

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
        process = fc.aggregators.quantile_estimation(
            initial_estimate, target_quantile, learning_rate, multiplier, increment,
            empty_round=_nan,
        )  # fmt: skip
        return _Estimation(*process)


class _Estimation(fc.aggregators.EstimationProcess):
    """The core's process, whose rounds a script may also run by itself."""

    __slots__ = ()

    def next(self, state: Any, value: Any) -> Any:
        """The state after the clients' values, a list of numbers."""
        values = np.asarray(arguments.listed("value", value), np.float32)
        key = jax.random.key(0)  # nothing is drawn
        told = jax.vmap(lambda x: self.client(state, x, key))(values)
        return self.server(state, jax.tree.map(lambda leaf: leaf.sum(0), told), key)


class DifferentiallyPrivateFactory(metaclass=_Named):
    """The Gaussian mechanisms."""

    def __init__(self, *args: Any, **kwargs: Any):
        raise fc.ScriptError(
            f"tff.aggregators.DifferentiallyPrivateFactory(...): {_QUERY}gaussian_fixed or "
            "gaussian_adaptive, or fedbridge.aggregators.differentially_private with a query of it."
        )

    gaussian_fixed = staticmethod(factory(fc.aggregators.gaussian_fixed))
    gaussian_adaptive = staticmethod(factory(fc.aggregators.gaussian_adaptive))


class EncodedSumFactory(metaclass=_Named):
    """Sums of quantized values."""

    def __init__(self, *args: Any, **kwargs: Any):
        raise fc.ScriptError(
            "tff.aggregators.EncodedSumFactory(...): an encoder of tensorflow_model_optimization "
            "does not run on JAX; write EncodedSumFactory.quantize_above_threshold."
        )

    quantize_above_threshold = staticmethod(factory(fc.aggregators.quantize_above_threshold))


__getattr__ = _missing
