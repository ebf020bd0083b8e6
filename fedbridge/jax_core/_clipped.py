"""Cross-entropies of probabilities as TFF computes them, clipped to [1e-7, 1 - 1e-7].

TFF calls a Keras model through a `tf.function`, so that Keras' losses do not see the logits behind
a softmax or sigmoid. The loss of a label is at most -log 1e-7 = 16.118, and its gradient 0 beyond.

Reference: Keras 2.14, keras/src/backend.py.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-7


def clip(x: Float[Array, "..."], low: float, high: float) -> Float[Array, "..."]:
    """`tf.clip_by_value`: the gradient is 1 inside and on the bounds, 0 beyond them."""
    lowest, highest = jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype)
    return jnp.where(x < lowest, lowest, jnp.where(x > highest, highest, x))


def clipped_log(probabilities: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logarithm of clipped probabilities.

    Example:
        >>> [round(float(x), 3) for x in clipped_log(jnp.asarray([0.0, 0.5]))]
        [-16.118, -0.693]
    """
    return jnp.log(clip(probabilities, EPSILON, 1.0 - EPSILON))


def clipped_log_likelihood(
    labels: Float[Array, "..."], probabilities: Float[Array, "..."]
) -> Float[Array, "..."]:
    """y log(p + 1e-7) + (1 - y) log(1 - p + 1e-7) of clipped probabilities p, for each label y.

    Example:
        >>> found = clipped_log_likelihood(jnp.ones(2), jnp.asarray([0.0, 0.5]))
        >>> [round(float(x), 3) for x in found]
        [-15.425, -0.693]
    """
    p = clip(probabilities, EPSILON, 1.0 - EPSILON)
    # Behind a choice, since XLA would make (1 + 1e-7) - p of 1 - p + 1e-7, which is 2e-8 off: a
    # hundredth where p is near 1. TFF runs graphs as they are written.
    other = jnp.where(p > 1.0, 0.0, 1.0 - p)
    return labels * jnp.log(p + EPSILON) + (1.0 - labels) * jnp.log(other + EPSILON)
