"""Pooling against `lax.reduce_window` and its select-and-scatter, on tied and untied inputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings, strategies as st
from jax import lax

from fedbridge.jax_core._convolutions import canonical_convolutions
from fedbridge.jax_core._errors import ModelError
from fedbridge.jax_core._pooling import avg_pool, max_pool


def reduce_window_max(x, window, strides, padding):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), padding)


def reduce_window_mean(x, window, strides, padding):
    def total(x):
        return lax.reduce_window(x, 0.0, lax.add, (1, *window, 1), (1, *strides, 1), padding)

    return total(x) / total(jnp.ones_like(x))


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))
def value_and_gradient(pool, x, *how):
    value, pullback = jax.vjp(lambda x: pool(x, *how), x)
    # Every output has a gradient of its own: a misplaced one cannot go unseen.
    gradients = jnp.arange(1, 1 + value.size, dtype=value.dtype).reshape(value.shape)
    return value, pullback(gradients)[0]


@st.composite
def poolings(draw):
    rank = draw(st.integers(1, 3))
    window = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    strides = draw(st.just(window) | st.tuples(*[st.integers(1, 3)] * rank))
    sizes = [draw(st.integers(places, 3 * places + 1)) for places in window]
    shape = (draw(st.integers(1, 3)), *sizes, draw(st.integers(1, 3)))
    return shape, (window, strides, draw(st.sampled_from(["VALID", "SAME"])))


@settings(deadline=None, max_examples=20)
@given(poolings(), st.sampled_from(["tied", "untied", "relu"]), st.integers(0, 99))
def test_max_pooling_and_its_gradient_equal_reduce_window(pooling, kind, seed):
    shape, how = pooling
    rng = np.random.default_rng(seed)
    x = {
        "tied": lambda: rng.integers(-1, 2, size=shape),
        "untied": lambda: rng.permutation(np.prod(shape)).reshape(shape),
        "relu": lambda: np.maximum(rng.normal(size=shape), 0),
    }[kind]()
    x = jnp.asarray(x, jnp.float32)
    actual = value_and_gradient(max_pool, x, *how)
    expected = value_and_gradient(reduce_window_max, x, *how)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@settings(deadline=None, max_examples=10)
@given(poolings(), st.integers(0, 99))
def test_average_pooling_and_its_gradient_equal_reduce_window(pooling, seed):
    shape, how = pooling
    x = jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)
    actual = value_and_gradient(avg_pool, x, *how)
    expected = value_and_gradient(reduce_window_mean, x, *how)
    for one, other in zip(actual, expected, strict=True):
        # At most 27 float32 summands of size 1 (gradients: up to 500), in another order.
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-6)


def test_the_first_maximum_of_a_window_takes_the_gradient():
    x = jnp.asarray([[1.0, 2.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0]])[None, ..., None]
    value, gradient = value_and_gradient(max_pool, x, (2, 2), (2, 2), "VALID")
    assert value.reshape(-1).tolist() == [2.0, 0.0]
    assert gradient[0, ..., 0].tolist() == [[0.0, 1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("shape", "window", "padding"),
    [
        ((2, 6, 4, 3), (2, 2), "VALID"),
        ((2, 7, 5, 3), (2, 3), "SAME"),
        ((2, 7, 5, 3), (3, 2), "VALID"),
        ((3, 9, 2), (4,), "SAME"),
        ((1, 4, 5, 4, 2), (2, 2, 3), "VALID"),
    ],
)
@pytest.mark.parametrize("clients", [None, 3])
def test_other_libraries_pool_without_select_and_scatter_in_a_round(
    shape, window, padding, clients
):
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (clients or 1, *shape)).astype(np.float32)  # full of ties

    def gradient(x):
        def weighed(x):
            y = nn.max_pool(x, window, window, padding)
            return jnp.sum((1 + jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape) * y)

        return jax.grad(weighed)(x)

    found = jax.vmap(gradient) if clients else lambda x: gradient(x[0])[None]
    rewritten = canonical_convolutions(found)
    assert "select_and_scatter" in str(jax.make_jaxpr(found)(x))
    assert "select_and_scatter" not in str(jax.make_jaxpr(rewritten)(x))
    np.testing.assert_array_equal(jax.jit(rewritten)(x), jax.jit(found)(x))


def test_windows_that_tile_the_input_need_no_select_and_scatter():
    x = jnp.zeros((2, 7, 9, 3))
    for padding in ("VALID", "SAME"):
        text = str(
            jax.make_jaxpr(jax.grad(lambda x: max_pool(x, (2, 3), (2, 3), padding).sum()))(x)
        )
        assert "select_and_scatter" not in text
        assert "pad" in text


def test_pooling_maps_over_clients():
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, size=(3, 2, 5, 4, 2)), jnp.float32)
    gradient = jax.grad(lambda x: jnp.sin(max_pool(x, (2, 2), (2, 2), "SAME")).sum())
    np.testing.assert_array_equal(jax.vmap(gradient)(x), jnp.stack([gradient(one) for one in x]))


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_another_padding_is_refused(pool):
    with pytest.raises(ModelError, match="padding='FULL' is neither 'VALID' nor 'SAME'"):
        pool(jnp.zeros((1, 2, 2, 1)), (2, 2), (2, 2), "FULL")
