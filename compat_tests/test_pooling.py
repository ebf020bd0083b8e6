"""Pooling and its gradient against the real TensorFlow, with tied maxima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedbridge.jax_core._pooling import avg_pool, max_pool

tf = pytest.importorskip("tensorflow")

CASES = [
    ((3, 24, 24, 5), (2, 2), (2, 2)),
    ((3, 25, 23, 5), (2, 2), (2, 2)),
    ((2, 13, 17, 3), (3, 4), (3, 4)),
    ((2, 13, 17, 3), (3, 3), (2, 2)),
    ((2, 13, 17, 3), (2, 3), (3, 1)),
    ((2, 19, 3), (3,), (3,)),
    ((2, 19, 3), (3,), (2,)),
    ((2, 7, 9, 8, 3), (2, 3, 2), (2, 3, 2)),
    ((2, 7, 9, 8, 3), (3, 3, 3), (2, 2, 2)),
]


def theirs(pool, x, gradients, how):
    @tf.function  # TensorFlow 2.14 cannot differentiate pooling over volumes eagerly
    def value_and_gradient(x):
        value = pool(x, *how)
        return value, tf.gradients(value, x, tf.constant(gradients))[0]

    return [result.numpy() for result in value_and_gradient(tf.constant(x))]


def ours(pool, x, gradients, how):
    value, pullback = jax.vjp(lambda x: pool(x, *how), jnp.asarray(x))
    return value, pullback(jnp.asarray(gradients))[0]


def volumes_spread_over_ties():
    """Whether every tied maximum of a volume takes the gradient, as without oneDNN's kernels.

    TensorFlow takes those where the processor has certain instructions.
    """
    x, one = np.zeros((1, 2, 2, 2, 1), np.float32), np.ones((1, 1, 1, 1, 1), np.float32)
    _, gradient = theirs(tf.nn.max_pool, x, one, ((2, 2, 2), (2, 2, 2), "VALID"))
    return gradient.sum() > 1


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize(("shape", "window", "strides"), CASES)
@pytest.mark.parametrize("values", ["tied", "untied"])
def test_max_pooling_gives_the_gradient_to_tensorflows_maximum(
    shape, window, strides, padding, values
):
    if values == "tied" and len(window) == 3 and volumes_spread_over_ties():
        pytest.skip("on this processor TensorFlow gives every tied maximum the whole gradient")
    rng = np.random.default_rng(0)
    untied = rng.permutation(np.prod(shape)).reshape(shape)
    x = (rng.integers(-1, 2, size=shape) if values == "tied" else untied).astype(np.float32)
    how = window, strides, padding
    value = max_pool(jnp.asarray(x), *how)
    # Small integers: sums over overlapping windows are exact.
    gradients = rng.integers(1, 100, size=value.shape).astype(np.float32)
    for one, other in zip(
        ours(max_pool, x, gradients, how), theirs(tf.nn.max_pool, x, gradients, how), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize(("shape", "window", "strides"), CASES)
def test_average_pooling_leaves_padding_out_as_tensorflow_does(shape, window, strides, padding):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    how = window, strides, padding
    gradients = rng.normal(size=avg_pool(jnp.asarray(x), *how).shape).astype(np.float32)
    for one, other in zip(
        ours(avg_pool, x, gradients, how), theirs(tf.nn.avg_pool, x, gradients, how), strict=True
    ):
        # Sums of at most 27 float32 values of size 1, in another order.
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


def test_a_nan_beside_other_values_is_handed_on_here_and_perhaps_dropped_there():
    x = np.zeros((1, 2, 2, 8), np.float32)
    x[0, 0, 1] = np.nan
    how = (2, 2), (2, 2), "VALID"
    theirs = tf.nn.max_pool(tf.constant(x), *how).numpy()
    assert ((theirs == 0) | np.isnan(theirs)).all()  # zeros where the kernel drops it
    assert np.isnan(max_pool(jnp.asarray(x), *how)).all()
