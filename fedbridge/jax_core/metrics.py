"""Metrics as sums: what is accumulated over batches and clients, and what becomes of the sum.

Means over examples are exact and global: numerators and denominators are summed, and divided once,
as TFF does (learning/metrics/aggregator.py). Masked rows count for nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fedbridge.jax_core._model import Batch, Forward, Metric


class MeanAccumulator(NamedTuple):
    """The variables of `tf.keras.metrics.Mean`: float32, in this order."""

    total: Float[Array, ""]
    count: Float[Array, ""]


def divide_no_nan(total: Any, count: Any) -> Float[Array, "..."]:
    """`total / count`, and 0 where there was nothing to count; TensorFlow's operation.

    Example:
        >>> float(divide_no_nan(1.0, 4.0)), float(divide_no_nan(0.0, 0.0))
        (0.25, 0.0)
    """
    empty = jnp.equal(count, 0)
    return jnp.where(empty, 0.0, total / jnp.where(empty, 1.0, count))


def masked_total(
    values: Float[Array, "batch ..."], mask: Bool[Array, " batch"] | None
) -> MeanAccumulator:
    """The sum of the values in the real rows, and how many values that are."""
    if mask is None:
        return MeanAccumulator(jnp.sum(values), jnp.asarray(values.size, jnp.float32))
    rows = mask.reshape(mask.shape + (1,) * (values.ndim - 1))
    per_row = values.size // max(values.shape[0], 1)
    count = jnp.sum(mask, dtype=jnp.float32) * per_row
    return MeanAccumulator(jnp.sum(jnp.where(rows, values, 0.0)), count)


def mean_of(
    values: Callable[[Batch, Forward, Bool[Array, " batch"] | None], Float[Array, "..."]],
) -> Metric:
    """The mean of what `values` gives for each example, over all examples of all clients.

    Args:
        values: `(batch, forward, mask) -> [batch, ...]`, one or more values for each row; or a
            scalar, which counts as one value for the whole batch.

    Example:
        >>> metric = mean_of(lambda batch, forward, mask: batch["x"])
        >>> batch = {"x": jnp.asarray([1.0, 2.0, 9.0])}
        >>> forward = Forward(jnp.zeros(()), batch["x"], jnp.zeros(()), jnp.asarray(2))
        >>> mask = jnp.asarray([True, True, False])
        >>> float(metric.finalize(metric.update(metric.zero(), batch, forward, mask)))
        1.5
    """

    def update(seen: MeanAccumulator, batch: Batch, forward: Forward, mask: Any) -> MeanAccumulator:
        new = jnp.asarray(values(batch, forward, mask), jnp.float32)
        if new.ndim == 0:
            real = jnp.ones((), jnp.float32) if mask is None else jnp.any(mask).astype(jnp.float32)
            total, count = jnp.where(real > 0, new, 0.0), real
        else:
            total, count = masked_total(new, mask)
        return MeanAccumulator(seen.total + total, seen.count + count)

    return Metric(_zero_mean, update, lambda seen: divide_no_nan(seen.total, seen.count))


def mean_loss() -> Metric:
    """The loss per example as TFF reports it: each batch's loss weighted by its examples.

    `_WeightedMeanLossMetric` of TFF's learning/models/keras_utils.py. A loss that is summed over
    the batch is weighted by the batch's size once more.
    """

    def update(seen: MeanAccumulator, batch: Batch, forward: Forward, mask: Any) -> MeanAccumulator:
        examples = jnp.asarray(forward.num_examples).astype(jnp.float32)
        total = seen.total + forward.metric_loss * examples
        return MeanAccumulator(total, seen.count + examples)

    return Metric(_zero_mean, update, lambda seen: divide_no_nan(seen.total, seen.count))


def num_examples_counter() -> Metric:
    """How many examples were seen, repeats included; TFF's `NumExamplesCounter`."""
    return Metric(
        zero=lambda: jnp.zeros((), jnp.int32),
        update=lambda seen, batch, forward, mask: seen + forward.num_examples,
        finalize=lambda seen: seen,
    )


def num_batches_counter() -> Metric:
    """How many batches were seen; TFF's `NumBatchesCounter`. An all-padding batch is none."""
    return Metric(
        zero=lambda: jnp.zeros((), jnp.int32),
        update=lambda seen, batch, forward, mask: (
            seen + (jnp.asarray(forward.num_examples) > 0).astype(jnp.int32)
        ),
        finalize=lambda seen: seen,
    )


def _zero_mean() -> MeanAccumulator:
    return MeanAccumulator(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))
