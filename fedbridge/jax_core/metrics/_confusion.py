"""Metrics of true and false positives and negatives at thresholds.

Keras 2.14's formulas (keras/src/metrics/confusion_metrics.py, utils/metrics_utils.py): a prediction
is positive where it is *greater* than the threshold, a label where it is not 0; arrays of more than
one dimension are flattened, so that every label of an example counts. Accumulators are Keras' own
variables, float32 of the shape [thresholds], in the order of their creation in Keras 2.14.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from fedbridge.jax_core._errors import (
    ModelError,
    check_argument,
    check_function,
    check_whole,
    is_real,
)
from fedbridge.jax_core._model import Batch, Forward, Metric
from fedbridge.jax_core.metrics._sums import divide_no_nan, sum_of

Outcomes = Callable[[Batch, Forward], tuple[Any, Any]]
"""`(batch, forward) -> (labels, predictions)`, `[batch, ...]` both."""

EPSILON = 1e-7
LOWEST = -1e10
"""What a prediction becomes that is not among the first k; Keras' NEG_INF."""


class Confusion(NamedTuple):
    """The variables of `tf.keras.metrics.AUC`, in this order: `[thresholds]`, float32.

    With `multi_label` they are `[thresholds, labels]`.
    """

    true_positives: Float[Any, " thresholds *labels"]
    true_negatives: Float[Any, " thresholds *labels"]
    false_positives: Float[Any, " thresholds *labels"]
    false_negatives: Float[Any, " thresholds *labels"]


class Thresholds(NamedTuple):
    """Thresholds, and whether Keras takes them for `[0, 1/(n-1), ..., 1]`.

    It then compares buckets, `ceil((n-1) p) - 1` of the prediction p clipped to [0, 1], with
    positions in the list. That differs where (n-1) p rounds.
    """

    values: np.ndarray
    even: bool = False


def outcomes(labels: str = "y") -> Outcomes:
    """A feature of the batch as the labels, and the model's output as the predictions."""
    check_argument(isinstance(labels, str), "labels", labels, "the name of a feature")

    def of(batch: Batch, forward: Forward) -> tuple[Any, Any]:
        if labels not in batch:
            raise ModelError(
                f"a metric compares with the feature {labels!r}, and batches have "
                f"{', '.join(map(repr, batch)) or 'none'}; write fb.metrics.outcomes(labels) with "
                "one of these."
            )
        return batch[labels], forward.predictions

    return of


OF_Y = outcomes()
"""Where Keras models have their labels."""


def check_outcomes(of: Any) -> None:
    """Refuses what does not find labels and predictions, e.g. the name of a feature."""
    check_function("of", of, "(batch, forward), e.g. fb.metrics.outcomes(labels)")


def precision(
    of: Outcomes = OF_Y,
    thresholds: float | Sequence[float] | None = None,
    top_k: int | None = None,
    class_id: int | None = None,
) -> Metric:
    """True positives among the predicted positives; Keras' `Precision`.

    Args:
        of: Where labels and predictions are found.
        thresholds: One or more, in [0, 1]; there is a value for each. 0.5 if neither these nor
            `top_k` are given.
        top_k: Only the k highest predictions of an example can be positive, equal ones in order.
        class_id: The only class that counts.

    Raises:
        ArgumentError: For thresholds outside of [0, 1].
        ModelError: In use, when labels and predictions do not fit each other or the arguments.

    Example:
        >>> metric = precision(thresholds=[0.0, 0.5])
        >>> batch, mask = {"y": jnp.asarray([0, 1, 1, 1])}, jnp.asarray([True, True, True, False])
        >>> predictions = jnp.asarray([0.6, 0.2, 0.9, 0.9])
        >>> forward = Forward(jnp.zeros(()), predictions, jnp.zeros(()), jnp.asarray(3))
        >>> seen = metric.update(metric.zero(), batch, forward, mask)
        >>> metric.finalize(seen).tolist()
        [0.6666666865348816, 0.5]
    """
    names = ("true_positives", "false_positives")
    return _ratio(PrecisionAccumulator, names, of, thresholds, top_k, class_id)


def recall(
    of: Outcomes = OF_Y,
    thresholds: float | Sequence[float] | None = None,
    top_k: int | None = None,
    class_id: int | None = None,
) -> Metric:
    """True positives among the positive labels; Keras' `Recall`. Arguments as of `precision`."""
    names = ("true_positives", "false_negatives")
    return _ratio(RecallAccumulator, names, of, thresholds, top_k, class_id)


class PrecisionAccumulator(NamedTuple):
    """The variables of `tf.keras.metrics.Precision`, in this order."""

    true_positives: Float[Any, " thresholds"]
    false_positives: Float[Any, " thresholds"]


class RecallAccumulator(NamedTuple):
    """The variables of `tf.keras.metrics.Recall`, in this order."""

    true_positives: Float[Any, " thresholds"]
    false_negatives: Float[Any, " thresholds"]


def confusion_count(
    which: str, of: Outcomes = OF_Y, thresholds: float | Sequence[float] | None = None
) -> Metric:
    """How many there are of one kind; Keras' `TruePositives` and its like.

    Args:
        which: A field of `Confusion`, such as `"true_positives"`.
        of: Where labels and predictions are found.
        thresholds: One or more, in [0, 1]; there is a count for each. 0.5 if none is given.
    """
    check_argument(which in Confusion._fields, "which", which, f"one of {Confusion._fields}")
    check_outcomes(of)
    limits = given_thresholds(thresholds, 0.5)
    return sum_of(
        lambda batch, forward, mask: getattr(confusion(*of(batch, forward), mask, limits), which),
        _single,
        np.zeros(len(limits.values), np.float32),
    )


Rate = Callable[[Confusion], Float[Array, " thresholds *labels"]]


def precision_rate(seen: Confusion) -> Float[Array, " thresholds *labels"]:
    """tp / (tp + fp)."""
    return divide_no_nan(seen.true_positives, seen.true_positives + seen.false_positives)


def recall_rate(seen: Confusion) -> Float[Array, " thresholds *labels"]:
    """tp / (tp + fn), also called sensitivity."""
    return divide_no_nan(seen.true_positives, seen.true_positives + seen.false_negatives)


def specificity_rate(seen: Confusion) -> Float[Array, " thresholds *labels"]:
    """tn / (tn + fp)."""
    return divide_no_nan(seen.true_negatives, seen.true_negatives + seen.false_positives)


def best_at(
    best: Rate,
    constrained: Rate,
    at_least: float,
    of: Outcomes = OF_Y,
    num_thresholds: int = 200,
    class_id: int | None = None,
) -> Metric:
    """The best of one rate where another is high enough, over thresholds that are spread evenly.

    Keras' `PrecisionAtRecall(0.8)` is `best_at(precision_rate, recall_rate, 0.8)`. Where no
    threshold is good enough, it is 0.

    Raises:
        ArgumentError: When `at_least` is not in [0, 1], or there is no threshold.
    """
    check_function("best", best, "(counts), e.g. precision_rate")
    check_function("constrained", constrained, "(counts), e.g. recall_rate")
    reachable = is_real(at_least) and 0 <= at_least <= 1
    check_argument(reachable, "at_least", at_least, "a number from 0 to 1")
    check_outcomes(of)
    check_whole("num_thresholds", num_thresholds)
    if class_id is not None:
        check_whole("class_id", class_id, 0)
    single = num_thresholds == 1
    values = np.asarray([0.5]) if single else np.linspace(0.0, 1.0, num_thresholds)
    limits = Thresholds(values.astype(np.float32), even=not single)

    def finalize(seen: Confusion) -> Float[Array, ""]:
        good_enough = constrained(seen) >= jnp.float32(at_least)
        return jnp.max(jnp.where(good_enough, best(seen), 0.0))

    return sum_of(
        lambda batch, forward, mask: confusion(
            *of(batch, forward), mask, limits, class_id=class_id
        ),
        finalize,
        Confusion(*np.zeros((4, num_thresholds), np.float32)),
    )


def confusion(
    labels: Any,
    predictions: Any,
    mask: Bool[Array, " batch"],
    thresholds: Thresholds,
    *,
    top_k: int | None = None,
    class_id: int | None = None,
    label_weights: np.ndarray | None = None,
    multi_label: bool = False,
) -> Confusion:
    """What a batch adds to the true and false positives and negatives.

    Args:
        labels: `[batch, ...]`, positive where they are not 0.
        predictions: Of the same shape.
        mask: Which rows are real.
        thresholds: What the predictions are compared with.
        top_k: As of `precision`.
        class_id: As of `precision`.
        label_weights: `[labels]`, what each column counts.
        multi_label: Counts each column on its own.

    Raises:
        ModelError: When labels and predictions, or the other arguments, do not fit each other.
    """
    labels = jnp.asarray(labels).astype(jnp.float32)
    predictions = jnp.asarray(predictions).astype(jnp.float32)
    _check_shapes(labels, predictions, top_k, class_id, label_weights, multi_label)
    if top_k is not None:
        predictions = _first_k(predictions, top_k)
    if class_id is not None:
        labels, predictions = labels[..., class_id, None], predictions[..., class_id, None]
    rows = labels.shape[0]
    labels, predictions = labels.reshape(rows, -1), predictions.reshape(rows, -1)
    count = np.ones(labels.shape[1]) if label_weights is None else label_weights
    weights = jnp.where(mask[:, None], jnp.asarray(count, jnp.float32)[None], 0.0)
    above, positive = _above(predictions, thresholds), (labels != 0)[None]

    def total(chosen: Bool[Array, "thresholds batch labels"]) -> Float[Array, "..."]:
        return jnp.where(chosen, weights[None], 0.0).sum(axis=1 if multi_label else (1, 2))

    return Confusion(
        true_positives=total(above & positive),
        true_negatives=total(~above & ~positive),
        false_positives=total(above & ~positive),
        false_negatives=total(~above & positive),
    )


def given_thresholds(thresholds: float | Sequence[float] | None, default: float) -> Thresholds:
    """The thresholds of Keras' arguments of this name.

    Raises:
        ArgumentError: When one is not in [0, 1].
    """
    if thresholds is None:
        return Thresholds(np.asarray([default], np.float32))
    several = [thresholds] if is_real(thresholds) else thresholds
    listed = isinstance(several, Sequence | np.ndarray | jax.Array) and all(map(is_real, several))
    values = np.asarray(several if listed else [], np.float64)
    inside = values.size > 0 and bool(np.all((values >= 0) & (values <= 1)))
    check_argument(inside, "thresholds", thresholds, "numbers in [0, 1]")
    return Thresholds(values.astype(np.float32), is_even(values))


def is_even(values: np.ndarray) -> bool:
    """Keras' `is_evenly_distributed_thresholds`, tolerances included."""
    if len(values) < 3:
        return False
    even = np.arange(len(values), dtype=np.float32) / (len(values) - 1)
    return bool(np.allclose(values, even, atol=EPSILON))


def _ratio(
    accumulator: Any,
    names: tuple[str, str],
    of: Outcomes,
    thresholds: float | Sequence[float] | None,
    top_k: int | None,
    class_id: int | None,
) -> Metric:
    """The first of two counts as a share of both."""
    check_outcomes(of)
    if top_k is not None:
        check_whole("top_k", top_k)
    if class_id is not None:
        check_whole("class_id", class_id, 0)
    limits = given_thresholds(thresholds, 0.5 if top_k is None else LOWEST)

    def terms(batch: Batch, forward: Forward, mask: Any) -> Any:
        found = confusion(*of(batch, forward), mask, limits, top_k=top_k, class_id=class_id)
        return accumulator(*(getattr(found, name) for name in names))

    zero = accumulator(*np.zeros((2, len(limits.values)), np.float32))
    return sum_of(terms, lambda seen: _single(divide_no_nan(seen[0], seen[0] + seen[1])), zero)


def _single(values: Float[Any, " thresholds"]) -> Float[Any, "..."]:
    """A single threshold's value is a scalar."""
    return values[0] if len(values) == 1 else values


def _above(
    predictions: Float[Array, "batch labels"], thresholds: Thresholds
) -> Bool[Array, "thresholds batch labels"]:
    if not thresholds.even:
        return predictions[None] > jnp.asarray(thresholds.values)[:, None, None]
    last = len(thresholds.values) - 1
    bucket = jnp.ceil(jnp.clip(predictions, 0.0, 1.0) * jnp.float32(last)) - 1.0
    if thresholds.values[0] < 0:  # AUC's: nothing is below the first
        bucket = jnp.maximum(bucket, 0.0)
    return bucket[None] >= jnp.arange(last + 1, dtype=jnp.float32)[:, None, None]


def _first_k(predictions: Float[Array, "... classes"], k: int) -> Float[Array, "... classes"]:
    """All but the k highest of each row become `LOWEST`; Keras' `_filter_top_k`."""
    _, indices = jax.lax.top_k(predictions, k)
    chosen = jax.nn.one_hot(indices, predictions.shape[-1]).sum(axis=-2)
    return predictions * chosen + LOWEST * (1.0 - chosen)


def _check_shapes(
    labels: Array,
    predictions: Array,
    top_k: int | None,
    class_id: int | None,
    label_weights: np.ndarray | None,
    multi_label: bool,
) -> None:
    if labels.shape != predictions.shape:
        raise ModelError(
            f"labels of shape {labels.shape} do not fit predictions of shape {predictions.shape}: a"
            " metric of positives and negatives takes a label for each prediction, one-hot labels"
            " where there are classes"
        )
    columns = predictions.shape[-1] if predictions.ndim > 1 else 0
    if top_k is not None and not 0 < top_k <= columns:
        raise ModelError(f"top_k={top_k}, but there are {columns} classes")
    if class_id is not None and not 0 <= class_id < columns:
        raise ModelError(f"class_id={class_id}, but there are {columns} classes")
    by_label = label_weights is not None or multi_label
    if by_label and (
        predictions.ndim != 2 or (label_weights is not None and len(label_weights) != columns)
    ):
        raise ModelError(
            f"predictions of shape {predictions.shape} are not [batch, labels] with a label for"
            " each of label_weights"
        )
