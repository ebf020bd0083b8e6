"""Keras' metrics as sums (keras/src/metrics of Keras 2.14), in TFF's order.

Each is the mean of what its function gives for an example; the accumulator is Keras' own, total and
count in float32. TFF adds `loss`, `num_examples` and `num_batches` after the user's metrics.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from fedbridge.jax_core import Batch, Forward, Metric, ModelError
from fedbridge.jax_core.metrics import (
    mean_loss,
    mean_of,
    num_batches_counter,
    num_examples_counter,
)
from fedbridge.tff_io._keras_losses import (
    Mask,
    absolute_error,
    match_ranks,
    squared_error,
)
from fedbridge.tff_io._keras_objects import Spec, construct

Values = Callable[[Array, Array, Mask], Float[Array, "..."]]


def tff_metrics(specs: Sequence[Spec], labels: str = "y") -> OrderedDict[str, Metric]:
    """The metrics of TFF's `from_keras_model`: the user's, then loss and counters.

    The counters are left out where the user has metrics of these names.

    Args:
        specs: The serialised Keras metrics.
        labels: The feature that holds the labels.

    Raises:
        ModelError: For a metric or an argument that fedbridge does not compute.
    """
    metrics = OrderedDict((_name(spec), _metric(spec, labels)) for spec in specs)
    metrics["loss"] = mean_loss()
    metrics.setdefault("num_examples", num_examples_counter())
    metrics.setdefault("num_batches", num_batches_counter())
    return metrics


def _metric(spec: Spec, labels: str) -> Metric:
    built = construct(METRICS, spec, kind="metric", neutral=("name", "dtype", "fn"))
    dtype, computed = spec["config"].get("dtype"), "float32"
    if isinstance(built, Metric):
        return built
    if dtype not in (None, computed):
        raise ModelError(f'metric "{_name(spec)}" accumulates {dtype}; supported: {computed}')

    def values(batch: Batch, forward: Forward, mask: Mask) -> Float[Array, "..."]:
        # Keras casts both to the metric's dtype before anything else.
        y_true = jnp.asarray(batch[labels]).astype(jnp.float32)
        return built(*match_ranks(y_true, forward.predictions.astype(jnp.float32)), mask)

    return mean_of(values)


def _name(spec: Spec) -> str:
    return spec["config"]["name"]


def _accuracy() -> Values:
    return lambda y_true, y_pred, mask: (y_true == y_pred).astype(jnp.float32)


def _binary_accuracy(threshold: float = 0.5) -> Values:
    # Every label counts, not every example: the class does not average as the function does.
    return lambda y_true, y_pred, mask: (y_true == (y_pred > threshold).astype(jnp.float32)).astype(
        jnp.float32
    )


def _categorical_accuracy() -> Values:
    def values(y_true: Array, y_pred: Array, mask: Mask) -> Array:
        return (y_true.argmax(axis=-1) == y_pred.argmax(axis=-1)).astype(jnp.float32)

    return values


def _sparse_categorical_accuracy() -> Values:
    def values(y_true: Array, y_pred: Array, mask: Mask) -> Array:
        if y_true.ndim == y_pred.ndim:
            y_true = y_true[..., 0]
        return (y_true == y_pred.argmax(axis=-1).astype(jnp.float32)).astype(jnp.float32)

    return values


METRICS: dict[str, Callable[..., Values | Metric]] = {
    "Accuracy": _accuracy,
    "BinaryAccuracy": _binary_accuracy,
    "CategoricalAccuracy": _categorical_accuracy,
    "MeanAbsoluteError": lambda: absolute_error,
    "MeanSquaredError": lambda: squared_error,
    "NumBatchesCounter": num_batches_counter,
    "NumExamplesCounter": num_examples_counter,
    "SparseCategoricalAccuracy": _sparse_categorical_accuracy,
}
