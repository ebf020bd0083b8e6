"""Keras' intersection over union of classes (keras/src/metrics/iou_metrics.py of Keras 2.14).

The accumulator is the confusion matrix, `[labels, predictions]` in float32. Keras 3 counts in int32
and adds an epsilon to what it divides by; its metrics are computed as Keras 2.14's, too.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fedbridge.jax_core import Batch, Forward, Metric, ModelError, check_argument
from fedbridge.jax_core.metrics import Outcomes, divide_no_nan, highest, sum_of


def iou(
    of: Outcomes,
    num_classes: int,
    target_class_ids: Sequence[int],
    ignore_class: int | None = None,
    sparse_y_true: bool = True,
    sparse_y_pred: bool = True,
    axis: int = -1,
) -> Metric:
    """The mean over the target classes of tp / (tp + fp + fn), without those that never occur.

    A label or prediction that is no class makes it NaN; TensorFlow stops with an error.

    Args:
        of: Where labels and predictions are found, `[batch, ...]`.
        num_classes: How many classes there are.
        target_class_ids: The classes to average over.
        ignore_class: A label that does not count.
        sparse_y_true: Whether labels are class numbers; otherwise their last axis is the classes'.
        sparse_y_pred: The same of the predictions.
        axis: -1.

    Raises:
        ArgumentError: For another axis, or a target that is no class.
    """
    targets = np.asarray(target_class_ids, np.int32)
    check_argument(axis == -1, "axis", axis, "-1")
    classes = set(range(num_classes))
    allowed = f"some of the classes 0 to {num_classes - 1}"
    is_some = targets.size > 0 and set(targets.tolist()) <= classes
    check_argument(is_some, "target_class_ids", targets.tolist(), allowed)

    def terms(batch: Batch, forward: Forward, mask: Any) -> Float[Array, "classes classes"]:
        y_true, y_pred = (jnp.asarray(array) for array in of(batch, forward))
        y_true = y_true if sparse_y_true else highest(y_true)
        y_pred = y_pred if sparse_y_pred else highest(y_pred)
        if y_true.size != y_pred.size:
            raise ModelError(
                f"{y_true.size} labels and {y_pred.size} predicted classes do not fit: predictions"
                " with an axis of classes go with sparse_y_pred=False"
            )
        rows = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (y_true.ndim - 1)), y_true.shape)
        rows = rows if ignore_class is None else rows & (y_true != ignore_class)
        labels, classes, rows = (
            array.reshape(-1).astype(jnp.int32) for array in (y_true, y_pred, rows)
        )
        known = (labels >= 0) & (labels < num_classes) & (classes >= 0) & (classes < num_classes)
        cell = jnp.where(known, labels * num_classes + classes, 0)
        counts = jax.ops.segment_sum(rows.astype(jnp.float32), cell, num_classes**2)
        wrong = jnp.any((rows > 0) & ~known)
        return jnp.where(wrong, jnp.nan, counts.reshape(num_classes, num_classes))

    def finalize(seen: Float[Any, "classes classes"]) -> Float[Array, ""]:
        seen = jnp.asarray(seen)
        hits = jnp.diagonal(seen)
        union = (seen.sum(axis=0) + seen.sum(axis=1) - hits)[targets]
        shares = divide_no_nan(hits[targets], union)
        return divide_no_nan(shares.sum(), (union != 0).sum().astype(jnp.float32))

    return sum_of(terms, finalize, np.zeros((num_classes, num_classes), np.float32))


def mean_iou(
    of: Outcomes,
    num_classes: int,
    ignore_class: int | None = None,
    sparse_y_true: bool = True,
    sparse_y_pred: bool = True,
    axis: int = -1,
) -> Metric:
    """Over all classes."""
    classes = range(num_classes)
    return iou(of, num_classes, classes, ignore_class, sparse_y_true, sparse_y_pred, axis)


def binary_iou(
    of: Outcomes, target_class_ids: Sequence[int] = (0, 1), threshold: float = 0.5
) -> Metric:
    """Of two classes; here a prediction *at* the threshold is of class 1."""

    def classes(batch: Batch, forward: Forward) -> tuple[Any, Any]:
        y_true, y_pred = of(batch, forward)
        return y_true, y_pred.astype(jnp.float32) >= threshold

    return iou(classes, 2, target_class_ids)


def one_hot_iou(
    of: Outcomes,
    num_classes: int,
    target_class_ids: Sequence[int],
    ignore_class: int | None = None,
    sparse_y_pred: bool = False,
    axis: int = -1,
) -> Metric:
    """Of one-hot labels."""
    return iou(of, num_classes, target_class_ids, ignore_class, False, sparse_y_pred, axis)


def one_hot_mean_iou(
    of: Outcomes,
    num_classes: int,
    ignore_class: int | None = None,
    sparse_y_pred: bool = False,
    axis: int = -1,
) -> Metric:
    """Of one-hot labels, over all classes."""
    return mean_iou(of, num_classes, ignore_class, False, sparse_y_pred, axis)
