"""The area under the receiver operating characteristic or the precision-recall curve.

Keras 2.14's `AUC` (keras/src/metrics/confusion_metrics.py): a Riemann sum over thresholds.

References:
    Davis and Goadrich, 2006, section 4: the interpolation of the precision-recall curve.
    https://www.biostat.wisc.edu/~page/rocpr.pdf
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fedbridge.jax_core._errors import ModelError, check_argument, check_bool, check_whole, is_real
from fedbridge.jax_core._model import Batch, Forward, Metric
from fedbridge.jax_core.metrics._confusion import (
    EPSILON,
    OF_Y,
    Confusion,
    Outcomes,
    Thresholds,
    check_outcomes,
    confusion,
    given_thresholds,
    is_even,
    precision_rate,
    recall_rate,
)
from fedbridge.jax_core.metrics._sums import divide_no_nan, sum_of

CURVES = ("ROC", "PR")
SUMMATIONS = ("interpolation", "majoring", "minoring")


def auc(
    of: Outcomes = OF_Y,
    num_thresholds: int = 200,
    curve: str = "ROC",
    summation_method: str = "interpolation",
    thresholds: Sequence[float] | None = None,
    multi_label: bool = False,
    num_labels: int | None = None,
    label_weights: Sequence[float] | ArrayLike | None = None,
    from_logits: bool = False,
) -> Metric:
    """The area under a curve, by Keras' Riemann sum.

    Args:
        of: Where labels and predictions are found.
        num_thresholds: How many thresholds are spread evenly over [0, 1].
        curve: `"ROC"` or `"PR"`.
        summation_method: `"interpolation"`, `"minoring"` or `"majoring"`.
        thresholds: Inner thresholds to use instead, in [0, 1]; the two ends are added.
        multi_label: Whether each label has its own curve; the areas are averaged. Otherwise all
            labels of all examples lie on one.
        num_labels: How many labels there are; needed with `multi_label`.
        label_weights: What each label's area weighs in the average; or, without `multi_label`, what
            each of its predictions counts.
        from_logits: Whether predictions are logits.

    Raises:
        ArgumentError: For an argument that is not one of these.

    Example:
        >>> metric = auc(num_thresholds=3)
        >>> batch = {"y": jnp.asarray([0, 0, 1, 1])}
        >>> predictions = jnp.asarray([0.0, 0.5, 0.3, 0.9])
        >>> forward = Forward(jnp.zeros(()), predictions, jnp.zeros(()), jnp.asarray(4))
        >>> float(metric.finalize(metric.update(metric.zero(), batch, forward, None)))
        0.75
    """
    curve, summation_method = str(curve).upper(), str(summation_method).lower()
    check_argument(curve in CURVES, "curve", curve, " or ".join(CURVES))
    check_argument(
        summation_method in SUMMATIONS, "summation_method", summation_method, ", ".join(SUMMATIONS)
    )
    # Without it Keras makes its variables with the first batch, and TFF stops with an error.
    check_bool("multi_label", multi_label)
    check_bool("from_logits", from_logits)
    check_outcomes(of)
    if num_labels is not None:
        check_whole("num_labels", num_labels)
    given = bool(num_labels) == bool(multi_label)
    check_argument(given, "num_labels", num_labels, "given with multi_label=True, and only then")
    limits = _with_ends(thresholds, num_thresholds)
    try:
        by_label = None if label_weights is None else np.asarray(label_weights, np.float32)
    except (TypeError, ValueError):
        by_label = np.full((), -1, np.float32)
    if by_label is not None:
        fits = bool(np.all(by_label >= 0)) and (not multi_label or by_label.shape == (num_labels,))
        check_argument(fits, "label_weights", label_weights, "one a label, none negative")

    def terms(batch: Batch, forward: Forward, mask: Any) -> Confusion:
        labels, predictions = of(batch, forward)
        if num_labels is not None and jnp.shape(predictions)[1:] != (num_labels,):
            raise ModelError(
                f"predictions of shape {jnp.shape(predictions)} are not [batch, labels] with the "
                f"{num_labels} labels of num_labels"
            )
        if from_logits:
            predictions = jax.nn.sigmoid(predictions)
        return confusion(
            labels,
            predictions,
            mask,
            limits,
            multi_label=multi_label,
            label_weights=None if multi_label else by_label,
        )

    def finalize(seen: Confusion) -> Float[Array, ""]:
        areas = _areas(seen, curve, summation_method).sum(axis=0)
        if not multi_label or by_label is None:
            return areas.mean()
        return divide_no_nan((areas * by_label).sum(), by_label.sum())

    shape = (4, len(limits.values), *([num_labels] if num_labels else []))
    return sum_of(terms, finalize, Confusion(*np.zeros(shape, np.float32)))


def _with_ends(thresholds: Sequence[float] | None, num_thresholds: int) -> Thresholds:
    """The thresholds between an end below 0 and one above 1."""
    if thresholds is None:
        check_whole("num_thresholds", num_thresholds, 2)
        inner, even = np.linspace(0.0, 1.0, num_thresholds)[1:-1], True
    else:
        listed = not is_real(thresholds)
        check_argument(listed, "thresholds", thresholds, "a list of numbers in [0, 1]")
        given_thresholds(thresholds, 0.5)
        inner = np.sort(np.asarray(thresholds, np.float64))
        even = is_even(np.concatenate([[0.0], inner, [1.0]]))
    values = np.concatenate([[-EPSILON], inner, [1.0 + EPSILON]])
    return Thresholds(values.astype(np.float32), even)


def _areas(
    seen: Confusion, curve: str, summation_method: str
) -> Float[Array, " intervals *labels"]:
    """The area between each threshold and the next."""
    if curve == "PR" and summation_method == "interpolation":
        return _interpolated_precision(seen)
    if curve == "ROC":
        negatives = seen.false_positives + seen.true_negatives
        x, y = divide_no_nan(seen.false_positives, negatives), recall_rate(seen)
    else:
        x, y = recall_rate(seen), precision_rate(seen)
    heights = {
        "interpolation": lambda: (y[:-1] + y[1:]) / 2.0,
        "minoring": lambda: jnp.minimum(y[:-1], y[1:]),
        "majoring": lambda: jnp.maximum(y[:-1], y[1:]),
    }
    return (x[:-1] - x[1:]) * heights[summation_method]()


def _interpolated_precision(seen: Confusion) -> Float[Array, " intervals *labels"]:
    """Keras' `interpolate_pr_auc`: true and false positives vary linearly between thresholds.

    With P = tp + fp and slope = Δtp / ΔP, the area from A to B is
    slope (Δtp + (tp_B - slope P_B) log(P_A / P_B)) / (tp + fn).
    """
    tp, p = jnp.asarray(seen.true_positives), seen.true_positives + seen.false_positives
    dtp, dp = tp[:-1] - tp[1:], p[:-1] - p[1:]
    slope = divide_no_nan(dtp, jnp.maximum(dp, 0.0))
    intercept = tp[1:] - slope * p[1:]
    both = (p[:-1] > 0) & (p[1:] > 0)
    ratio = jnp.where(both, divide_no_nan(p[:-1], jnp.maximum(p[1:], 0.0)), 1.0)
    positives = jnp.maximum(tp[1:] + seen.false_negatives[1:], 0.0)
    return divide_no_nan(slope * (dtp + intercept * jnp.log(ratio)), positives)
