"""Keras' metrics as sums (keras/src/metrics of Keras 2.14), in TFF's order.

A table: class name to what makes the metric of the class's arguments. Accumulators are Keras' own
variables, in its order and dtypes. TFF adds `loss`, `num_examples` and `num_batches` after the
user's metrics.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from fedbridge.jax_core import Batch, Forward, Metric, ModelError
from fedbridge.jax_core.metrics import (
    auc,
    best_at,
    confusion_count,
    masked_accuracy,
    mean_loss,
    mean_of,
    num_batches_counter,
    num_examples_counter,
    num_tokens_counter,
    outcomes,
    precision,
    precision_rate,
    recall,
    recall_rate,
    specificity_rate,
)
from fedbridge.tff_io import _keras_iou as overlap, _keras_values as values
from fedbridge.tff_io._keras_losses import (
    Elements,
    Mask,
    absolute_error,
    binary_crossentropy,
    categorical_crossentropy,
    match_ranks,
    sparse_categorical_crossentropy,
    squared_error,
)
from fedbridge.tff_io._keras_objects import Spec, construct, is_from_keras


def tff_metrics(specs: Sequence[Spec]) -> OrderedDict[str, Metric]:
    """The metrics of TFF's `from_keras_model`: the user's, then loss and counters.

    The counters are left out where the user has metrics of these names.

    Args:
        specs: The serialised Keras metrics.

    Raises:
        ModelError: For a metric or an argument that fedbridge does not compute.
    """
    metrics = OrderedDict((_name(spec), _metric(spec)) for spec in specs)
    metrics["loss"] = mean_loss()
    metrics.setdefault("num_examples", num_examples_counter())
    metrics.setdefault("num_batches", num_batches_counter())
    return metrics


def _metric(spec: Spec) -> Metric:
    class_name, dtype = spec["class_name"], spec["config"].get("dtype")
    if class_name in TFF_REFUSES and is_from_keras(spec):
        raise ModelError(
            f'metric "{_name(spec)}" ({class_name}): TFF cannot use it, since'
            f" {TFF_REFUSES[class_name]}"
        )
    metric = construct(METRICS, spec, kind="metric", neutral=("name", "dtype", "fn"))
    supported = DTYPES.get(class_name, ("float32",))
    if dtype is not None and dtype not in supported:
        raise ModelError(
            f'metric "{_name(spec)}" accumulates {dtype}; supported: {", ".join(supported)}'
        )
    return metric


def _name(spec: Spec) -> str:
    return spec["config"]["name"]


def _as_keras(batch: Batch, forward: Forward) -> tuple[Array, Array]:
    """Labels and predictions as Keras' metrics start: float32, and of one rank where that fits."""
    y_true = jnp.asarray(batch["y"]).astype(jnp.float32)
    return match_ranks(y_true, forward.predictions.astype(jnp.float32))


def _mean(
    elements: Elements, finalize: Callable[[Float[Array, ""]], Float[Array, ""]] = lambda mean: mean
) -> Metric:
    """Keras' `MeanMetricWrapper` of a function."""

    def per_example(batch: Batch, forward: Forward, mask: Mask) -> Float[Array, "..."]:
        return elements(*_as_keras(batch, forward), mask)

    return mean_of(per_example, finalize)


def _averaged(build: Callable[..., Elements]) -> Callable[..., Metric]:
    """The mean of what `build` makes of a config; its arguments stay visible."""

    @functools.wraps(build)
    def metric(**config: object) -> Metric:
        return _mean(build(**config))

    return metric


def _mean_of(elements: Elements) -> Callable[[], Metric]:
    """Of a function that has no config."""
    return lambda: _mean(elements)


def _confusion_count(which: str) -> Callable[..., Metric]:
    return functools.partial(confusion_count, which, _as_keras)


def _precision_at_recall(recall: float, num_thresholds: int = 200, class_id: int | None = None):
    return best_at(precision_rate, recall_rate, recall, _as_keras, num_thresholds, class_id)


def _recall_at_precision(precision: float, num_thresholds: int = 200, class_id: int | None = None):
    return best_at(recall_rate, precision_rate, precision, _as_keras, num_thresholds, class_id)


def _sensitivity_at_specificity(
    specificity: float, num_thresholds: int = 200, class_id: int | None = None
):
    return best_at(recall_rate, specificity_rate, specificity, _as_keras, num_thresholds, class_id)


def _specificity_at_sensitivity(
    sensitivity: float, num_thresholds: int = 200, class_id: int | None = None
):
    return best_at(specificity_rate, recall_rate, sensitivity, _as_keras, num_thresholds, class_id)


def _num_tokens_counter(masked_tokens: Sequence[int] = ()) -> Metric:
    return num_tokens_counter(outcomes(), masked_tokens)


def _without_ignored(from_logits: bool = False, axis: int = -1) -> Elements:
    """Of all classes: a metric's `ignore_class` is weighed in another way than a loss'."""
    return sparse_categorical_crossentropy(from_logits, axis)


METRICS: dict[str, Callable[..., Metric]] = {
    "AUC": functools.partial(auc, _as_keras),
    "Accuracy": _mean_of(values.accuracy),
    "BinaryAccuracy": _averaged(values.binary_accuracy),
    "BinaryCrossentropy": _averaged(binary_crossentropy),
    "BinaryIoU": functools.partial(overlap.binary_iou, outcomes()),
    "CategoricalAccuracy": _mean_of(values.categorical_accuracy),
    "CategoricalCrossentropy": _averaged(categorical_crossentropy),
    "CategoricalHinge": _mean_of(values.categorical_hinge),
    "CosineSimilarity": _averaged(values.cosine_similarity),
    "FalseNegatives": _confusion_count("false_negatives"),
    "FalsePositives": _confusion_count("false_positives"),
    "Hinge": _mean_of(values.hinge),
    "IoU": functools.partial(overlap.iou, outcomes()),
    "KLDivergence": _mean_of(values.kl_divergence),
    "LogCoshError": _mean_of(values.log_cosh),
    "MaskedCategoricalAccuracy": functools.partial(masked_accuracy, outcomes()),
    "MeanAbsoluteError": _mean_of(absolute_error),
    "MeanAbsolutePercentageError": _mean_of(values.percentage_error),
    "MeanIoU": functools.partial(overlap.mean_iou, outcomes()),
    "MeanSquaredError": _mean_of(squared_error),
    "MeanSquaredLogarithmicError": _mean_of(values.squared_logarithmic_error),
    "NumBatchesCounter": num_batches_counter,
    "NumExamplesCounter": num_examples_counter,
    "NumTokensCounter": _num_tokens_counter,
    "OneHotIoU": functools.partial(overlap.one_hot_iou, outcomes()),
    "OneHotMeanIoU": functools.partial(overlap.one_hot_mean_iou, outcomes()),
    "Poisson": _mean_of(values.poisson),
    "Precision": functools.partial(precision, _as_keras),
    "PrecisionAtRecall": _precision_at_recall,
    "Recall": functools.partial(recall, _as_keras),
    "RecallAtPrecision": _recall_at_precision,
    "RootMeanSquaredError": lambda: _mean(values.every_squared_error, jnp.sqrt),
    "SensitivityAtSpecificity": _sensitivity_at_specificity,
    "SparseCategoricalAccuracy": _mean_of(values.sparse_categorical_accuracy),
    "SparseCategoricalCrossentropy": _averaged(_without_ignored),
    "SparseTopKCategoricalAccuracy": _averaged(values.sparse_top_k_categorical_accuracy),
    "SpecificityAtSensitivity": _specificity_at_sensitivity,
    "SquaredHinge": _mean_of(values.squared_hinge),
    "TopKCategoricalAccuracy": _averaged(values.top_k_categorical_accuracy),
    "TrueNegatives": _confusion_count("true_negatives"),
    "TruePositives": _confusion_count("true_positives"),
}

_COUNTS, _CLASS_COUNTS = ("int64",), ("float32", "int32", "int")
DTYPES = {
    "BinaryIoU": _CLASS_COUNTS,  # Keras 3's default is int
    "IoU": _CLASS_COUNTS,
    "MeanIoU": _CLASS_COUNTS,
    "NumBatchesCounter": _COUNTS,
    "NumExamplesCounter": _COUNTS,
    "NumTokensCounter": _COUNTS,
    "OneHotIoU": _CLASS_COUNTS,
    "OneHotMeanIoU": _CLASS_COUNTS,
}
"""What a metric may accumulate; float32 where nothing else is said."""

_LATE = "Keras makes its variables with the first batch; use fb.metrics."
_VALUES = "TFF passes labels and predictions, and it takes values; use fb.metrics."
TFF_REFUSES = {
    "F1Score": f"{_LATE}f_beta_score",
    "FBetaScore": f"{_LATE}f_beta_score",
    "Mean": f"{_VALUES}mean_of",
    "MeanTensor": f"{_VALUES}sum_of",
    "R2Score": f"{_LATE}r2_score",
    "Sum": f"{_VALUES}sum_of",
}
"""Keras metrics that TFF 0.87.0 stops at with an error, and what stands for them natively."""
