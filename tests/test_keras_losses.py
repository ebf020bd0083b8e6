"""Keras' losses beside the cross-entropies: against Keras 3, with ties, padding and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedbridge.tff_io import describe_keras
from fedbridge.tff_io._keras_activations import relu
from fedbridge.tff_io._keras_loss_table import LOSSES, loss_function

keras = pytest.importorskip("keras")

ROWS, REAL = 12, 7
LOSSES_OF_KERAS = [
    ("CategoricalHinge", {}),
    ("CosineSimilarity", {}),
    ("Hinge", {}),
    ("Huber", {"delta": 0.3}),
    ("KLDivergence", {}),
    ("LogCosh", {}),
    ("MeanAbsoluteError", {}),
    ("MeanAbsolutePercentageError", {}),
    ("MeanSquaredLogarithmicError", {}),
    ("Poisson", {}),
    ("SquaredHinge", {}),
]


def test_every_loss_has_a_test_here_or_with_the_models():
    with_models = {
        "BinaryCrossentropy",
        "CategoricalCrossentropy",
        "MeanSquaredError",
        "SparseCategoricalCrossentropy",
    }
    assert set(LOSSES) - with_models == {name for name, _ in LOSSES_OF_KERAS}


def data(name):
    rng = np.random.default_rng(1)
    positive = name in ("KLDivergence", "Poisson", "MeanSquaredLogarithmicError")
    out = np.abs(rng.normal(size=(ROWS, 4))) + 0.1 if positive else rng.normal(size=(ROWS, 4))
    labels = np.abs(rng.normal(size=(ROWS, 4)))
    if "Hinge" in name:  # of 0 and 1, which count as -1 and 1, unless padding has others
        labels = (labels > 0.5).astype(np.float32)
        labels[REAL:] = 0.5
    return labels.astype(np.float32), out.astype(np.float32)


@pytest.mark.parametrize(("name", "arguments"), LOSSES_OF_KERAS, ids=lambda value: str(value))
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
def test_values_and_gradients_are_keras(name, arguments, reduction):
    """Of the real rows; the padded ones change nothing."""
    theirs = getattr(keras.losses, name)(**arguments, reduction=reduction)
    ours = loss_function(describe_keras(theirs))
    labels, out = data(name)
    mask = jnp.arange(ROWS) < REAL
    y, x = jnp.asarray(labels), jnp.asarray(out)
    value, gradient = jax.value_and_grad(lambda x: ours(y, x, mask))(x)
    with jax.numpy_rank_promotion("allow"):
        expected, slope = jax.value_and_grad(lambda x: theirs(labels[:REAL], x))(out[:REAL])
    # Float32 on both sides; the logarithms of Keras 3 differ in the last bits.
    np.testing.assert_allclose(value, expected, rtol=3e-6)
    np.testing.assert_allclose(gradient[:REAL], slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gradient[REAL:], 0.0)


@pytest.mark.parametrize(("name", "slope"), [("Hinge", -1.0), ("SquaredHinge", 0.0)])
def test_on_the_margin_the_gradient_is_tensorflows(name, slope):
    loss = loss_function({"class_name": name, "config": {}})
    gradient = jax.grad(lambda out: loss(jnp.ones((1, 1)), out, None))(jnp.ones((1, 1)))
    assert gradient.item() == slope


def test_where_it_is_met_an_absolute_error_has_no_slope():
    loss = loss_function({"class_name": "MeanAbsoluteError", "config": {}})
    gradient = jax.grad(lambda out: loss(jnp.ones((1, 1)), out, None))(jnp.ones((1, 1)))
    assert gradient.item() == 0.0


@pytest.mark.parametrize(("name", "arguments"), LOSSES_OF_KERAS, ids=lambda value: str(value))
def test_nan_stays_nan(name, arguments):
    loss = loss_function({"class_name": name, "config": arguments})
    labels, out = map(jnp.asarray, data(name))
    assert jnp.isnan(loss(labels[:REAL], out[:REAL].at[2, 1].set(jnp.nan), None))


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_nan_passes_a_rectifier(threshold):
    assert jnp.isnan(relu(jnp.array([jnp.nan, 1.0]), threshold=threshold))[0]


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
def test_a_class_that_does_not_count_is_left_out_as_in_keras(from_logits, reduction):
    """Not even NaN goes through its rows; padded rows change nothing."""
    theirs = keras.losses.SparseCategoricalCrossentropy(
        from_logits=from_logits, ignore_class=-1, reduction=reduction
    )
    ours = loss_function(describe_keras(theirs))
    rng = np.random.default_rng(2)
    out = rng.random((ROWS, 3, 5)).astype(np.float32) + 0.1
    out /= 1.0 if from_logits else out.sum(-1, keepdims=True)
    labels = rng.integers(0, 5, (ROWS, 3)).astype(np.int32)
    labels[:, 0] = labels[1] = -1
    mask = jnp.arange(ROWS) < REAL
    value, gradient = jax.value_and_grad(lambda x: ours(jnp.asarray(labels), x, mask))(out)
    with jax.numpy_rank_promotion("allow"):
        expected, slope = jax.value_and_grad(lambda x: theirs(labels[:REAL], x))(out[:REAL])
    np.testing.assert_allclose(value, expected, rtol=3e-6)
    np.testing.assert_allclose(gradient[:REAL], slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gradient[REAL:], 0.0)
    broken = jnp.asarray(out).at[1].set(jnp.nan)
    again, slope = jax.value_and_grad(lambda x: ours(jnp.asarray(labels), x, mask))(broken)
    np.testing.assert_array_equal(again, value)
    assert np.isfinite(slope).all()


def test_a_batch_in_which_no_class_counts_is_nan_as_in_keras():
    loss = loss_function({
        "class_name": "SparseCategoricalCrossentropy",
        "config": {"from_logits": True, "ignore_class": 2},
    })  # fmt: skip
    assert np.isnan(loss(jnp.full(3, 2), jnp.ones((3, 4)), None))
