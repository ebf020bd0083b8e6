"""The parts of a process, from their descriptions: optimizers, aggregators, weights of clients.

Each table has TFF's names, as a trace has them. What TFF computes differently from the papers, or
from what fedbridge does by default, is asked for explicitly here.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from fedbridge import jax_core as fc, tff_io

Described = Mapping[str, Any]


def schedule(described: Described) -> Callable[[Any], Any]:
    """A function of the number of a round or step, from its values; the last one goes on."""
    values = jnp.asarray(described["values"], jnp.float32)
    return lambda number: values[jnp.minimum(number, len(values) - 1)]


def optimizer(described: Described | None) -> optax.GradientTransformation:
    """The optimizer of a description.

    Raises:
        NotReplayableError: There is none of that name.
        TraceError: There is no description where there must be one.
    """
    if described is None:
        raise fc.TraceError("the trace describes a training process without its optimizers.")
    if described["name"] not in _OPTIMIZERS:
        raise fc.NotReplayableError(f"the optimizer {described['name']} is not replayed yet.")
    return _OPTIMIZERS[described["name"]](**described["arguments"])


def optimizer_of_rate(described: Described) -> Callable[[Any], optax.GradientTransformation]:
    """The function from a learning rate to the optimizer of a description."""

    def make(rate: Any) -> optax.GradientTransformation:
        arguments = {"learning_rate": rate, **described["arguments"]}
        return optimizer({**described, "arguments": arguments})

    return make


def aggregator(described: Described | None, default: fc.Aggregator) -> fc.Aggregator:
    """The aggregator of a description, which nests as TFF's factories do.

    Raises:
        NotReplayableError: There is none of one of its names.
    """
    return default if described is None else _made(described)


def _made(described: Any) -> Any:
    if not isinstance(described, Mapping):
        return described
    name = described.get("name", described.get("function"))
    if name not in _FACTORIES:
        raise fc.NotReplayableError(f"the aggregator {name} is not replayed yet.")
    if "function" in described:
        return _FACTORIES[name]
    given = {key: _made(value) for key, value in described["arguments"].items()}
    known = inspect.signature(_FACTORIES[name]).parameters
    if odd := [key for key in given if key not in known and "given" not in known]:
        raise fc.NotReplayableError(f"{name} with {odd[0]} is not replayed yet.")
    return _FACTORIES[name](**given)


def metrics_aggregator(described: Described | None) -> fc.MetricsAggregator:
    """How the clients' metrics become the round's.

    Raises:
        NotReplayableError: There is none of that name.
    """
    if described is None:
        return fc.sum_then_finalize
    if described["name"] == "finalize_then_sample":
        return fc.finalize_then_sample(**described["arguments"])
    raise fc.NotReplayableError(f"the metrics aggregator {described['name']} is not replayed yet.")


def dataset_split(described: Described | None) -> fc.DatasetSplitFn:
    """How a reconstruction splits a client's batches; TFF's default takes turns."""
    if described is None:
        return fc.build_dataset_split_fn(split_dataset=True)
    if described["name"] == "simple_dataset_split_fn":
        return fc.simple_dataset_split_fn
    return fc.build_dataset_split_fn(**described["arguments"])


def client_weight(weighting: str | None, builder: str) -> fc.ClientWeight:
    """The weight of a client; TFF's unweighted builders weigh all of them by one."""
    return fc.uniform if weighting == "UNIFORM" or "unweighted" in builder else fc.num_examples


def _scheduled(**given: Described) -> optax.GradientTransformation:
    return fc.optimizers.schedule_learning_rate(
        optimizer(given["optimizer"]), schedule(given["schedule_fn"])
    )


_OPTIMIZERS: Mapping[str, Callable[..., optax.GradientTransformation]] = {
    "build_adafactor": fc.optimizers.adafactor,
    "build_adagrad": fc.optimizers.adagrad,
    "build_adam": fc.optimizers.adam,
    "build_adamw": fc.optimizers.adamw,
    "build_rmsprop": fc.optimizers.rmsprop,
    "build_sgdm": fc.optimizers.sgdm,
    "build_yogi": fc.optimizers.yogi,
    "schedule_learning_rate": _scheduled,
    "keras_sgd_nesterov": tff_io.keras_sgd_nesterov,
    "keras_rmsprop": tff_io.keras_rmsprop,
    "keras_legacy_adagrad": tff_io.keras_legacy_adagrad,
}


_nan = fc.aggregators.nan_as_tff


def _mean(value_sum_factory: Any, weight_sum_factory: Any, no_nan_division: bool) -> fc.Aggregator:
    return fc.weighted_mean(value_sum_factory, weight_sum_factory, no_nan_division=no_nan_division)


def _unweighted_mean(value_sum_factory: Any, count_sum_factory: Any) -> fc.Aggregator:
    return fc.unweighted_mean(value_sum_factory, count_sum_factory)


def _clipping(
    clipping_norm: Any, inner_agg_factory: Any, clipped_count_sum_factory: Any
) -> fc.Aggregator:
    return fc.aggregators.clipping(clipping_norm, inner_agg_factory, clipped_count_sum_factory)


def _zeroing(
    zeroing_norm: Any, inner_agg_factory: Any, norm_order: float, zeroed_count_sum_factory: Any
) -> fc.Aggregator:
    return fc.aggregators.zeroing(
        zeroing_norm, inner_agg_factory, norm_order, zeroed_count_sum_factory
    )


def _quantile(*, secure_estimation: bool, **given: Any) -> Any:
    if secure_estimation:
        raise fc.NotReplayableError("an estimate by secure sums is not replayed yet.")
    return fc.aggregators.quantile_estimation(**given, empty_round=_nan)


def _with_nan(make: Callable[..., fc.Aggregator]) -> Callable[..., fc.Aggregator]:
    """As TFF, whose estimates turn NaN for ever in a round without clients."""
    return functools.partial(make, empty_round=_nan)


_FACTORIES: Mapping[str, Callable[..., Any]] = {
    "SumFactory": fc.sum_,
    "MeanFactory": _mean,
    "UnweightedMeanFactory": _unweighted_mean,
    "clipping_factory": _clipping,
    "zeroing_factory": _zeroing,
    "PrivateQuantileEstimationProcess.no_noise": _quantile,
    "DifferentiallyPrivateFactory.gaussian_fixed": fc.aggregators.gaussian_fixed,
    "DifferentiallyPrivateFactory.gaussian_adaptive": fc.aggregators.gaussian_adaptive,
    "EncodedSumFactory.quantize_above_threshold": fc.aggregators.quantize_above_threshold,
    "robust_aggregator": _with_nan(fc.aggregators.robust_aggregator),
    "dp_aggregator": _with_nan(fc.aggregators.dp_aggregator),
    "compression_aggregator": _with_nan(fc.aggregators.compression_aggregator),
    "add_debug_measurements": fc.aggregators.add_debug_measurements,
    "add_debug_measurements_with_mixed_dtype": (
        fc.aggregators.add_debug_measurements_with_mixed_dtype
    ),
}
