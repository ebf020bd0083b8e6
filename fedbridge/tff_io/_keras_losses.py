"""What Keras' losses are made of, as TFF computes them.

TFF calls a Keras model through a `tf.function`, so that the loss sees plain numbers: probabilities
are not traced back to the logits before them but clipped to [1e-7, 1 - 1e-7], with a gradient of 0
where they are saturated; and Keras' mask is lost. The formulas are those of Keras 2.14
(keras/src/backend.py and losses.py), its rules for the shapes of labels included.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from fedbridge.jax_core import ModelError
from fedbridge.jax_core._clipped import clipped_log, clipped_log_likelihood
from fedbridge.jax_core.metrics import divide_no_nan, masked_total
from fedbridge.tff_io._keras_activations import absolute

Mask = Bool[Array, " batch"] | None
Elements = Callable[[Array, Array, Mask], Float[Array, "..."]]
LossFn = Callable[[Array, Array, Mask], Float[Array, ""]]
"""`(labels, predictions, mask) -> loss`."""


def match_ranks(
    y_true: Num[Array, "..."], y_pred: Num[Array, "..."]
) -> tuple[Num[Array, "..."], Num[Array, "..."]]:
    """Keras' `squeeze_or_expand_dimensions`: drops a last dimension of 1 that the other lacks."""
    if y_pred.ndim == y_true.ndim + 1 and y_pred.shape[-1] == 1:
        return y_true, y_pred[..., 0]
    if y_pred.ndim == y_true.ndim - 1 and y_true.shape[-1] == 1:
        return y_true[..., 0], y_pred
    return y_true, y_pred


def mean_of_last_axis(elements: Float[Array, "batch ..."], mask: Mask) -> Float[Array, "..."]:
    """`tf.reduce_mean(elements, axis=-1)`; where that is the batch itself, over its real rows.

    Labels and predictions of shape [batch] do that in Keras: what is left is one number.
    """
    if elements.ndim > 1:
        return jnp.mean(elements, axis=-1)
    return divide_no_nan(*masked_total(elements, mask))


def reduced(elements: Elements, reduction: str | None, ignore_class: int | None = None) -> LossFn:
    """The loss of a batch, from what counts for each example or label.

    Args:
        elements: Gives a value for each; 0 for a label that does not count.
        reduction: Keras' word for the sum or the mean of them.
        ignore_class: The label that does not count in a mean. NaN where no other is in a batch, as
            in Keras.

    Raises:
        ModelError: For a reduction that gives no number.
    """
    if reduction not in REDUCTIONS:
        raise ModelError(
            f"reduction={reduction!r} is not supported; supported: {', '.join(REDUCTIONS)}"
        )

    def loss(y_true: Array, y_pred: Array, mask: Mask) -> Float[Array, ""]:
        values = elements(*match_ranks(jnp.asarray(y_true), y_pred), mask)
        if values.ndim == 0:
            return values
        total, count = masked_total(values, mask)
        if ignore_class is not None and reduction != "sum":
            # Keras weighs the labels that count: by how many there are, over how many of these.
            counting = (y_true != ignore_class).astype(values.dtype)
            weight = count / masked_total(counting, mask)[0]
            total, _ = masked_total(values * weight, mask)
        return total if reduction == "sum" else divide_no_nan(total, count)

    return loss


def sparse_categorical_crossentropy(
    from_logits: bool = False, axis: int = -1, ignore_class: int | None = None
) -> Elements:
    """Keras' function of this name, one value for each label."""
    last_axis(axis)

    def elements(y_true: Array, y_pred: Array, mask: Mask) -> Array:
        if y_pred.ndim < 2 or y_true.size != y_pred.size // y_pred.shape[-1]:
            raise misfit(y_true, y_pred)
        labels = y_true.reshape(y_pred.shape[:-1]).astype(jnp.int32)
        counts = None if ignore_class is None else labels != ignore_class
        if counts is not None:  # Keras takes the others out: no gradient goes through them
            y_pred = jnp.where(counts[..., None], y_pred, 1.0 / y_pred.shape[-1])
            labels = jnp.where(counts, labels, 0)
        logits = y_pred if from_logits else clipped_log(y_pred)
        shifted, log_sum = _log_sum(logits)
        classes = jnp.arange(y_pred.shape[-1]).reshape((1,) * labels.ndim + (-1,))
        chosen = jnp.where(classes == labels[..., None], shifted, 0.0).sum(axis=-1)
        # TensorFlow fails on a label that is no class, or gives NaN (GPU). Multiplied, so that the
        # gradient is NaN too and the client does not count.
        is_class = (labels >= 0) & (labels < y_pred.shape[-1])
        found = (log_sum - chosen) * jnp.where(is_class, 1.0, jnp.nan)
        return found if counts is None else jnp.where(counts, found, 0.0)

    return elements


def categorical_crossentropy(
    from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Elements:
    """Keras' function of this name, one value for each example."""
    last_axis(axis)

    def elements(y_true: Array, y_pred: Array, mask: Mask) -> Array:
        if y_pred.ndim < 2 or y_true.shape != y_pred.shape:
            raise misfit(y_true, y_pred)
        labels = y_true.astype(y_pred.dtype)
        if label_smoothing:
            labels = labels * (1.0 - label_smoothing) + label_smoothing / labels.shape[-1]
        if not from_logits:
            probabilities = y_pred / y_pred.sum(axis=-1, keepdims=True)
            logs = clipped_log(probabilities)
            return -jnp.sum(labels * logs, axis=-1)
        # TensorFlow's gradient is softmax - labels, also where the labels do not sum to 1.
        shifted, log_sum = _log_sum(y_pred)
        constant = jax.lax.stop_gradient(log_sum)
        return jnp.sum(labels * (constant[..., None] - shifted), axis=-1) + (log_sum - constant)

    return elements


def binary_crossentropy(
    from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Elements:
    """Keras' function of this name, one value for each example."""
    last_axis(axis)

    def elements(y_true: Array, y_pred: Array, mask: Mask) -> Array:
        labels, y_pred = broadcast(y_true, y_pred)
        if label_smoothing:
            labels = labels * (1.0 - label_smoothing) + 0.5 * label_smoothing
        if from_logits:
            positive = y_pred >= 0
            high, low = jnp.where(positive, y_pred, 0.0), jnp.where(positive, -y_pred, y_pred)
            return mean_of_last_axis(high - y_pred * labels + jnp.log1p(jnp.exp(low)), mask)
        return mean_of_last_axis(-clipped_log_likelihood(labels, y_pred), mask)

    return elements


def squared_error(y_true: Array, y_pred: Array, mask: Mask) -> Float[Array, "..."]:
    """Keras' `mean_squared_error`, one value for each example."""
    labels, y_pred = broadcast(y_true, y_pred)
    difference = y_pred - labels
    return mean_of_last_axis(difference * difference, mask)


def absolute_error(y_true: Array, y_pred: Array, mask: Mask) -> Float[Array, "..."]:
    """Keras' `mean_absolute_error`, one value for each example."""
    labels, y_pred = broadcast(y_true, y_pred)
    return mean_of_last_axis(absolute(y_pred - labels), mask)


def huber(delta: float = 1.0) -> Elements:
    """Keras' function of this name: squared up to delta, straight beyond."""

    def elements(y_true: Array, y_pred: Array, mask: Mask) -> Array:
        labels, y_pred = broadcast(y_true, y_pred)
        error = y_pred - labels
        size = absolute(error)
        near, far = 0.5 * error * error, delta * size - 0.5 * delta * delta
        return mean_of_last_axis(jnp.where(size <= delta, near, far), mask)

    return elements


def _log_sum(logits: Array) -> tuple[Array, Array]:
    """The logits moved below 0, and the logarithm of the sum of their exponentials."""
    shifted = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    return shifted, jnp.log(jnp.exp(shifted).sum(axis=-1))


def broadcast(y_true: Array, y_pred: Array) -> tuple[Array, Array]:
    """Labels and predictions of one rank; a dimension of 1 stands for any number, as in Keras."""
    fits = y_true.ndim == y_pred.ndim and y_true.shape[0] == y_pred.shape[0]
    if not fits or any(
        t != p and 1 not in (t, p) for t, p in zip(y_true.shape, y_pred.shape, strict=True)
    ):
        raise misfit(y_true, y_pred)
    return y_true.astype(y_pred.dtype), y_pred


def misfit(y_true: Array, y_pred: Array) -> ModelError:
    """The error for labels and predictions whose shapes do not go together."""
    return ModelError(
        f"labels of shape {y_true.shape} do not fit predictions of shape {y_pred.shape} with this"
        " loss or metric: one-hot labels go with CategoricalCrossentropy, class numbers with"
        " SparseCategoricalCrossentropy"
    )


def last_axis(axis: int) -> None:
    """Raises for any other axis."""
    if axis != -1:
        raise ModelError(f"axis={axis} is not supported; supported: axis=-1")


REDUCTIONS = ("auto", "mean", "mean_with_sample_weight", "sum", "sum_over_batch_size")
"""Without sample weights, which TFF never passes, all but "sum" are one mean over all elements."""
