"""What Keras' mean metrics are the mean of: one value for each example, label or batch.

The formulas are Keras 2.14's (keras/src/losses.py and metrics/), its epsilons included. Labels and
predictions are float32 and of matching ranks. Where they are [batch], the last axis is the batch
itself, and what is left is one number.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedbridge.jax_core._clipped import EPSILON, clip
from fedbridge.jax_core.metrics import highest, in_top_k
from fedbridge.tff_io._keras_activations import absolute, maximum
from fedbridge.tff_io._keras_losses import (
    Elements,
    Mask,
    broadcast,
    last_axis,
    mean_of_last_axis,
    misfit,
)

Values = Float[Array, "..."]


def accuracy(y_true: Array, y_pred: Array, mask: Mask) -> Values:
    """Every label counts, not every example: the classes do not average as the functions do."""
    return (y_true == y_pred).astype(jnp.float32)


def binary_accuracy(threshold: float = 0.5) -> Elements:
    """Whether a prediction above the threshold meets a label of 1, or one below it a 0."""
    return lambda y_true, y_pred, mask: (y_true == (y_pred > threshold).astype(jnp.float32)).astype(
        jnp.float32
    )


def categorical_accuracy(y_true: Array, y_pred: Array, mask: Mask) -> Values:
    """Of one-hot labels."""
    return (highest(y_true) == highest(y_pred)).astype(jnp.float32)


def sparse_categorical_accuracy(y_true: Array, y_pred: Array, mask: Mask) -> Values:
    """Of class numbers."""
    if y_true.ndim == y_pred.ndim:
        y_true = y_true[..., 0]
    return (y_true == highest(y_pred).astype(jnp.float32)).astype(jnp.float32)


def top_k_categorical_accuracy(k: int = 5) -> Elements:
    """Whether the class of a one-hot label is among the k most likely."""
    return lambda y_true, y_pred, mask: _among_k(highest(y_true), y_pred, k)


def sparse_top_k_categorical_accuracy(k: int = 5) -> Elements:
    """Whether a class number is among the k most likely."""
    return lambda y_true, y_pred, mask: _among_k(y_true, y_pred, k)


def percentage_error(y_true: Array, y_pred: Array, mask: Mask) -> Values:
    """Keras' `mean_absolute_percentage_error`."""
    labels, y_pred = broadcast(y_true, y_pred)
    share = absolute((labels - y_pred) / jnp.maximum(jnp.abs(labels), EPSILON))
    return 100.0 * mean_of_last_axis(share, mask)


def squared_logarithmic_error(y_true: Array, y_pred: Array, mask: Mask) -> Values:
    """Keras' `mean_squared_logarithmic_error`: negative values count as 0."""
    labels, y_pred = broadcast(y_true, y_pred)
    log = lambda x: jnp.log(maximum(x, EPSILON) + 1.0)
    return mean_of_last_axis((log(y_pred) - log(labels)) ** 2, mask)


def every_squared_error(y_true: Array, y_pred: Array, mask: Mask) -> Values:
    """What `RootMeanSquaredError` averages: each label on its own."""
    labels, y_pred = broadcast(y_true, y_pred)
    return (y_pred - labels) ** 2


def log_cosh(y_true: Array, y_pred: Array, mask: Mask) -> Values:
    """The logarithm of the hyperbolic cosine of the error."""
    labels, y_pred = broadcast(y_true, y_pred)
    error = y_pred - labels
    return mean_of_last_axis(error + jax.nn.softplus(-2.0 * error) - math.log(2.0), mask)


def cosine_similarity(axis: int = -1) -> Elements:
    """The cosine of the angle between labels and predictions; 0 where one of them is 0."""
    last_axis(axis)

    def normalized(x: Array, mask: Mask) -> Array:
        norm2 = _sum_of_last_axis(x * x, mask)
        return x * jax.lax.rsqrt(maximum(norm2, 1e-12))[..., None]

    def values(y_true: Array, y_pred: Array, mask: Mask) -> Values:
        labels, y_pred = broadcast(y_true, y_pred)
        return _sum_of_last_axis(normalized(labels, mask) * normalized(y_pred, mask), mask)

    return values


def kl_divergence(y_true: Array, y_pred: Array, mask: Mask) -> Values:
    """Σ y log(y / p), both clipped to [1e-7, 1]."""
    labels, y_pred = (clip(x, EPSILON, 1.0) for x in broadcast(y_true, y_pred))
    return _sum_of_last_axis(labels * jnp.log(labels / y_pred), mask)


def poisson(y_true: Array, y_pred: Array, mask: Mask) -> Values:
    """The Poisson loss, p - y log(p + 1e-7)."""
    labels, y_pred = broadcast(y_true, y_pred)
    return mean_of_last_axis(y_pred - labels * jnp.log(y_pred + EPSILON), mask)


def hinge(y_true: Array, y_pred: Array, mask: Mask) -> Values:
    """max(1 - y p, 0)."""
    return mean_of_last_axis(_short_of_margin(y_true, y_pred, mask), mask)


def squared_hinge(y_true: Array, y_pred: Array, mask: Mask) -> Values:
    """max(1 - y p, 0)²."""
    return mean_of_last_axis(_short_of_margin(y_true, y_pred, mask) ** 2, mask)


def categorical_hinge(y_true: Array, y_pred: Array, mask: Mask) -> Values:
    """How far the right class is short of standing out from the others by 1."""
    labels, y_pred = broadcast(y_true, y_pred)
    if y_pred.ndim < 2:
        raise misfit(y_true, y_pred)
    right = jnp.sum(labels * y_pred, axis=-1)
    other = jnp.max((1.0 - labels) * y_pred, axis=-1)
    return maximum(other - right + 1.0, 0.0)


def _short_of_margin(y_true: Array, y_pred: Array, mask: Mask) -> Values:
    labels, y_pred = broadcast(y_true, y_pred)
    # Where all labels of the batch are 0 or 1, Keras takes them for -1 and 1.
    binary = (labels == 0) | (labels == 1)
    if mask is not None:
        binary = binary | ~mask.reshape(mask.shape + (1,) * (labels.ndim - 1))
    labels = jnp.where(binary.all(), 2.0 * labels - 1.0, labels)
    return maximum(1.0 - labels * y_pred, 0.0)


def _among_k(y_true: Array, y_pred: Array, k: int) -> Values:
    if y_pred.ndim < 2 or y_true.size != y_pred.size // y_pred.shape[-1]:
        raise misfit(y_true, y_pred)
    return in_top_k(y_true.reshape(y_pred.shape[:-1]), y_pred, k).astype(jnp.float32)


def _sum_of_last_axis(elements: Array, mask: Mask) -> Values:
    """`tf.reduce_sum(elements, axis=-1)`; where that is the batch itself, over its real rows."""
    if elements.ndim > 1 or mask is None:
        return jnp.sum(elements, axis=-1)
    return jnp.sum(jnp.where(mask, elements, 0.0))
