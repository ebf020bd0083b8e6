"""Scores by class or by output: the F-score and the coefficient of determination.

Keras 2.14's formulas (keras/src/metrics/f_score_metrics.py, regression_metrics.py). Keras makes
their variables with the first batch, for which TFF has no place ("'F1Score' object has no attribute
'true_positives'"): here one says how many classes or outputs there are.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fedbridge.jax_core._errors import ModelError, check_argument, check_whole, is_real
from fedbridge.jax_core._model import Batch, Forward, Metric
from fedbridge.jax_core.metrics._confusion import OF_Y, Outcomes, check_outcomes
from fedbridge.jax_core.metrics._sums import divide_no_nan, sum_of


class FScoreAccumulator(NamedTuple):
    """The variables of `tf.keras.metrics.FBetaScore`, in this order."""

    true_positives: Float[Any, "*classes"]
    false_positives: Float[Any, "*classes"]
    false_negatives: Float[Any, "*classes"]
    intermediate_weights: Float[Any, "*classes"]


def f_beta_score(
    num_classes: int,
    of: Outcomes = OF_Y,
    beta: float = 1.0,
    average: str | None = None,
    threshold: float | None = None,
) -> Metric:
    """The harmonic mean of precision and recall, weighted; Keras' `F1Score` and `FBetaScore`.

    Args:
        num_classes: The size of the last axis of labels and predictions, `[batch, classes]` both.
        of: Where labels, one-hot or several of 0 and 1 a row, and predictions are found.
        beta: How many times as much recall counts as precision.
        average: None for a score a class; `"macro"` for their mean, `"weighted"` for their mean by
            the classes' labels, `"micro"` for the score of all classes together.
        threshold: Above which a class is predicted; by default where it is the row's highest.

    Raises:
        ArgumentError: For an average, beta or threshold that is not one of these.
    """
    averages = (None, "macro", "micro", "weighted")
    check_argument(average in averages, "average", average, "None, macro, micro or weighted")
    check_whole("num_classes", num_classes)
    check_outcomes(of)
    finite = is_real(beta) and 0 < beta < math.inf
    check_argument(finite, "beta", beta, "a finite number above 0")
    fits = threshold is None or (is_real(threshold) and 0 < threshold <= 1)
    check_argument(fits, "threshold", threshold, "None or in (0, 1]")

    def terms(batch: Batch, forward: Forward, mask: Any) -> FScoreAccumulator:
        y, p = _pair(of(batch, forward), num_classes)
        if threshold is None:
            highest = p.max(axis=-1, keepdims=True)
            predicted = (p >= highest) & (jnp.abs(p) > 1e-9)
        else:
            predicted = p > threshold
        p = predicted.astype(jnp.float32)

        def total(values: Float[Array, "batch classes"]) -> Float[Array, "..."]:
            rows = jnp.where(mask[:, None], values, 0.0)
            return rows.sum() if average == "micro" else rows.sum(axis=0)

        return FScoreAccumulator(total(p * y), total(p * (1 - y)), total((1 - p) * y), total(y))

    def finalize(seen: FScoreAccumulator) -> Float[Array, "..."]:
        tp = seen.true_positives
        precision = divide_no_nan(tp, tp + seen.false_positives)
        recall = divide_no_nan(tp, tp + seen.false_negatives)
        mean = divide_no_nan(precision * recall, beta**2 * precision + recall)
        score = mean * (1 + beta**2)
        if average == "weighted":
            labels = jnp.asarray(seen.intermediate_weights)
            return (score * divide_no_nan(labels, labels.sum())).sum()
        return score if average is None else score.mean()

    shape = (4,) if average == "micro" else (4, num_classes)
    return sum_of(terms, finalize, FScoreAccumulator(*np.zeros(shape, np.float32)))


class R2Accumulator(NamedTuple):
    """The variables of `tf.keras.metrics.R2Score`, in this order."""

    num_samples: Int[Any, ""]
    squared_sum: Float[Any, " outputs"]
    sum: Float[Any, " outputs"]
    residual: Float[Any, " outputs"]
    count: Float[Any, " outputs"]


def r2_score(
    num_outputs: int,
    of: Outcomes = OF_Y,
    class_aggregation: str | None = "uniform_average",
    num_regressors: int = 0,
) -> Metric:
    """The share of the labels' variance that is explained; Keras' `R2Score`.

    Args:
        num_outputs: The size of the last axis of labels and predictions, `[batch, outputs]` both.
        of: Where labels and predictions are found.
        class_aggregation: None for a score an output; `"uniform_average"` for their mean,
            `"variance_weighted_average"` for their mean by the labels' variances.
        num_regressors: How many the adjusted score corrects for; 0 for the plain one.

    Raises:
        ArgumentError: For an aggregation or a number that is not one of these.
    """
    known = (None, "uniform_average", "variance_weighted_average")
    check_argument(
        class_aggregation in known,
        "class_aggregation",
        class_aggregation,
        "None, uniform_average or variance_weighted_average",
    )
    check_whole("num_outputs", num_outputs)
    check_whole("num_regressors", num_regressors, 0)
    check_outcomes(of)

    def terms(batch: Batch, forward: Forward, mask: Any) -> R2Accumulator:
        y, p = _pair(of(batch, forward), num_outputs)
        total = lambda values: jnp.where(mask[:, None], values, 0.0).sum(axis=0)
        rows = mask.sum()
        return R2Accumulator(
            num_samples=rows * num_outputs,  # Keras counts labels here, not rows
            squared_sum=total(y * y),
            sum=total(y),
            residual=total((y - p) ** 2),
            count=jnp.full((num_outputs,), rows),
        )

    def finalize(seen: R2Accumulator) -> Float[Array, "..."]:
        seen = R2Accumulator(*(jnp.asarray(value) for value in seen))
        total = seen.squared_sum - seen.sum * (seen.sum / seen.count)
        scores = 1 - seen.residual / total
        scores = jnp.where(jnp.isinf(scores), 0.0, scores)
        if class_aggregation == "uniform_average":
            scores = scores.mean()
        elif class_aggregation == "variance_weighted_average":
            scores = (total * scores).sum() / total.sum()
        n = seen.num_samples.astype(jnp.float32)
        adjusted = 1.0 - (1.0 - scores) * (n - 1.0) / (n - num_regressors - 1.0)
        enough = seen.num_samples - 1 > num_regressors
        return jnp.where(enough, adjusted, scores) if num_regressors else scores

    zeros = np.zeros((4, num_outputs), np.float32)
    return sum_of(terms, finalize, R2Accumulator(np.zeros((), np.int32), *zeros))


def _pair(
    found: tuple[Any, Any], size: int
) -> tuple[Float[Array, "batch size"], Float[Array, "batch size"]]:
    labels, predictions = (jnp.asarray(array).astype(jnp.float32) for array in found)
    if labels.shape != predictions.shape or labels.shape[1:] != (size,):
        raise ModelError(
            f"labels of shape {labels.shape} and predictions of shape {predictions.shape} are not"
            f" [batch, {size}] both"
        )
    return labels, predictions
