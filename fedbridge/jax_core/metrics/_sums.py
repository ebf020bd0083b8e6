"""Metrics as sums: what is accumulated over batches and clients, and what becomes of the sum.

Means over examples are exact and global: numerators and denominators are summed, and divided once,
as TFF does (learning/metrics/aggregator.py). Masked rows count for nothing.

Accumulators have the dtypes of Keras' variables. float32 holds whole numbers exactly up to 2^24 =
16,777,216: a count that has come so far grows no more when ones are added to it, in Keras as here.
Counters are int32 inside a round's program and int64 once it has ended. A single round thus counts
up to 2^31 - 1 = 2,147,483,647 examples, fifteen passes over all of Stack Overflow; one more and the
count turns negative, which is an error when the round has ended. Hence whole numbers that may be
negative are summed as float32.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from fedbridge.jax_core._errors import check_argument, check_function
from fedbridge.jax_core._model import Batch, Forward, Metric
from fedbridge.jax_core._trees import check_numbers

Mask = Bool[Array, " batch"] | None


class MeanAccumulator(NamedTuple):
    """The variables of `tf.keras.metrics.Mean`: float32, in this order."""

    total: Float[Any, ""]
    count: Float[Any, ""]


ZERO_MEAN = MeanAccumulator(*np.zeros(2, np.float32))


def sum_of(
    terms: Callable[[Batch, Forward, Bool[Array, " batch"]], PyTree],
    finalize: Callable[[PyTree], PyTree] = lambda sums: sums,
    zero: PyTree = 0.0,
) -> Metric:
    """A metric of two pure functions: what a batch adds, and what becomes of the sum.

    Args:
        terms: `(batch, forward, mask) -> tree of arrays`, summed over the real rows of one batch.
            Here the mask is always an array, True where a row is real.
        finalize: `sum over all batches of all clients -> value`.
        zero: Where the sum starts: a tree with the shapes and dtypes of what is summed, float32 or
            int32. A Python float or int stands for a scalar.

    Example:
        The share of the labels' variance that is explained:

        >>> def terms(batch, forward, mask):
        ...     y = jnp.where(mask, batch["y"], 0.0)
        ...     error = jnp.where(mask, batch["y"] - forward.predictions, 0.0)
        ...     return {"n": mask.sum(), "y": y.sum(), "y2": (y**2).sum(), "e2": (error**2).sum()}
        >>> def finalize(sums):
        ...     return 1.0 - sums["e2"] / (sums["y2"] - sums["y"] ** 2 / sums["n"])
        >>> explained = sum_of(terms, finalize, {"n": 0, "y": 0.0, "y2": 0.0, "e2": 0.0})
        >>> batch = {"y": jnp.asarray([1.0, 3.0, 9.0])}
        >>> predictions = jnp.asarray([1.5, 3.0, 0.0])
        >>> forward = Forward(jnp.zeros(()), predictions, jnp.zeros(()), jnp.asarray(2))
        >>> mask = jnp.asarray([True, True, False])
        >>> float(explained.finalize(explained.update(explained.zero(), batch, forward, mask)))
        0.875
    """
    check_function("terms", terms, "(batch, forward, mask)")
    check_function("finalize", finalize, "(the sum)")

    def of_real_rows(batch: Batch, forward: Forward, mask: Mask) -> PyTree:
        if mask is None:
            mask = jnp.ones(jnp.shape(jax.tree.leaves(batch)[0])[0], bool)
        found = terms(batch, forward, mask)
        check_numbers("terms(batch, forward, mask)", found)
        same = jax.tree.structure(found) == jax.tree.structure(zero)
        form = "a tree like that of `zero`, which says where the sum starts"
        check_argument(same, "terms(batch, forward, mask)", found, form)
        return found

    check_numbers("zero", zero)
    return _summed(of_real_rows, finalize, zero)


def mean_of(
    values: Callable[[Batch, Forward, Mask], Float[Array, "..."]],
    finalize: Callable[[Float[Array, ""]], Float[Array, ""]] = lambda mean: mean,
) -> Metric:
    """The mean of what `values` gives for each example, over all examples of all clients.

    Args:
        values: `(batch, forward, mask) -> [batch, ...]`, one or more values for each row; or a
            scalar, which counts as one value for the whole batch.
        finalize: What is reported of the mean, such as `jnp.sqrt` of a mean square.

    Example:
        >>> metric = mean_of(lambda batch, forward, mask: batch["x"])
        >>> batch = {"x": jnp.asarray([1.0, 2.0, 9.0])}
        >>> forward = Forward(jnp.zeros(()), batch["x"], jnp.zeros(()), jnp.asarray(2))
        >>> mask = jnp.asarray([True, True, False])
        >>> float(metric.finalize(metric.update(metric.zero(), batch, forward, mask)))
        1.5
    """
    check_function("values", values, "(batch, forward, mask)")
    check_function("finalize", finalize, "(the mean)")

    def terms(batch: Batch, forward: Forward, mask: Mask) -> MeanAccumulator:
        given = values(batch, forward, mask)
        check_numbers("values(batch, forward, mask)", given)
        new = jnp.asarray(given, jnp.float32)
        rows = new.shape[:1] if mask is None else mask.shape
        if new.ndim:
            check_argument(
                new.shape[:1] == rows,
                "values(batch, forward, mask)",
                given,
                f"one number for the batch, or of each of its {rows[0]} rows",
            )
        return masked_total(new, mask) if new.ndim else _one_value(new, mask)

    return _summed(terms, lambda seen: finalize(divide_no_nan(*seen)), ZERO_MEAN)


def mean_of_batches(value: Callable[[Batch, Forward, Mask], Float[Array, ""]]) -> Metric:
    """The mean of one number a batch, each batch counted once, however many rows it has.

    The loss that TFF's federated reconstruction reports (learning/algorithms/fed_recon.py:
    `MeanMetricWrapper` of a loss that is reduced already). An all-padding batch is none.

    Example:
        >>> metric = mean_of_batches(lambda batch, forward, mask: forward.metric_loss)
        >>> seen = metric.zero()
        >>> for loss, rows in ((1.0, 20), (4.0, 1)):
        ...     forward = Forward(jnp.zeros(()), (), jnp.asarray(loss), jnp.asarray(rows))
        ...     seen = metric.update(seen, {}, forward, None)
        >>> float(metric.finalize(seen))
        2.5
    """
    check_function("value", value, "(batch, forward, mask)")

    def terms(batch: Batch, forward: Forward, mask: Mask) -> MeanAccumulator:
        return _one_value(jnp.asarray(value(batch, forward, mask), jnp.float32), mask)

    return _summed(terms, lambda seen: divide_no_nan(*seen), ZERO_MEAN)


def mean_loss() -> Metric:
    """The loss per example as TFF reports it: each batch's loss weighted by its examples.

    `_WeightedMeanLossMetric` of TFF's learning/models/keras_utils.py. A loss that is summed over
    the batch is weighted by the batch's size once more.
    """

    def terms(batch: Batch, forward: Forward, mask: Mask) -> MeanAccumulator:
        examples = jnp.asarray(forward.num_examples).astype(jnp.float32)
        return MeanAccumulator(forward.metric_loss * examples, examples)

    return _summed(terms, lambda seen: divide_no_nan(*seen), ZERO_MEAN)


def num_examples_counter() -> Metric:
    """How many examples were seen, repeats included; TFF's `NumExamplesCounter`."""
    return _summed(lambda batch, forward, mask: forward.num_examples, lambda seen: seen, 0)


def num_batches_counter() -> Metric:
    """How many batches were seen; TFF's `NumBatchesCounter`. An all-padding batch is none."""
    return _summed(
        lambda batch, forward, mask: jnp.asarray(forward.num_examples) > 0, lambda seen: seen, 0
    )


def divide_no_nan(total: Any, count: Any) -> Float[Array, "..."]:
    """`total / count`, and 0 where there was nothing to count; TensorFlow's operation.

    Example:
        >>> float(divide_no_nan(1.0, 4.0)), float(divide_no_nan(0.0, 0.0))
        (0.25, 0.0)
    """
    empty = jnp.equal(count, 0)
    return jnp.where(empty, 0.0, total / jnp.where(empty, 1.0, count))


def masked_total(values: Float[Array, "batch ..."], mask: Mask) -> MeanAccumulator:
    """The sum of the values in the real rows, and how many values that are."""
    if mask is None:
        return MeanAccumulator(jnp.sum(values), jnp.asarray(values.size, jnp.float32))
    rows = mask.reshape(mask.shape + (1,) * (values.ndim - 1))
    per_row = values.size // max(values.shape[0], 1)
    count = jnp.sum(mask, dtype=jnp.float32) * per_row
    return MeanAccumulator(jnp.sum(jnp.where(rows, values, 0.0)), count)


def _summed(
    terms: Callable[[Batch, Forward, Mask], PyTree],
    finalize: Callable[[Any], PyTree],
    zero: PyTree,
) -> Metric:
    """`sum_of` with the mask as it comes."""

    def update(seen: PyTree, batch: Batch, forward: Forward, mask: Mask) -> PyTree:
        add = lambda sum_, term: sum_ + jnp.asarray(term).astype(sum_.dtype)
        return jax.tree.map(add, seen, terms(batch, forward, mask))

    # NumPy first: its scalars are strongly typed, a Python float would be a weak one.
    start = lambda: jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), zero)
    return Metric(start, update, finalize)


def _one_value(value: Float[Array, ""], mask: Mask) -> MeanAccumulator:
    """What a batch adds to a mean of batches."""
    real = jnp.ones((), bool) if mask is None else jnp.any(mask)
    return MeanAccumulator(jnp.where(real, value, 0.0), real.astype(jnp.float32))
