"""Losses and metrics, one value for each example: from logits, and as TFF computes them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fedbridge.jax_core._clipped import clipped_log, clipped_log_likelihood

PerExample = Callable[[Any, Any], Any]
"""`(labels, predictions) -> [batch]`, one value an example."""


def cross_entropy(labels: Any, logits: Any) -> Any:
    """The cross-entropy of integer labels and logits, one value an example."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def clipped_cross_entropy(labels: Any, logits: Any) -> Any:
    """As TFF's tasks compute it: of probabilities clipped to [1e-7, 1 - 1e-7].

    TFF's models end in a softmax, and their loss sees the probabilities alone: that of an example
    is at most 16.118, and its gradient 0 where the probability is below 1e-7.

    Example:
        >>> logits = jnp.asarray([[0.0, 60.0]])
        >>> [round(float(loss(jnp.asarray([0]), logits)[0]), 3)
        ...     for loss in (cross_entropy, clipped_cross_entropy)]
        [60.0, 16.118]
    """
    return cross_entropy(labels, clipped_log(jax.nn.softmax(logits)))


def binary_cross_entropy(labels: Any, logits: Any) -> Any:
    """The mean over the labels of an example: `[batch, labels]` both, from logits."""
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean(-1)


def clipped_binary_cross_entropy(labels: Any, logits: Any) -> Any:
    """As TFF's tag prediction computes it: of a sigmoid's values clipped to [1e-7, 1 - 1e-7]."""
    return -clipped_log_likelihood(labels, jax.nn.sigmoid(logits)).mean(-1)


def squared_error(labels: Any, predictions: Any) -> Any:
    """The mean over what an example consists of: `[batch, values]` both."""
    return jnp.square(predictions - labels).mean(-1)


def absolute_error(labels: Any, predictions: Any) -> Any:
    """The mean over what an example consists of: `[batch, values]` both."""
    return jnp.abs(predictions - labels).mean(-1)


def accuracy(labels: Any, logits: Any) -> Any:
    """One where the largest logit is the label's, else zero."""
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
