"""Rules of TensorFlow's operations in JAX: gradients against JAX's own derivatives, and borders."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedbridge.tff_io._graph_rules import NoRuleError, rule

RNG = np.random.default_rng(0)
X = RNG.standard_normal([3, 4]).astype(np.float32)
G = RNG.standard_normal([3, 4]).astype(np.float32)
IMAGES = RNG.standard_normal([2, 5, 6, 3]).astype(np.float32)
FILTERS = RNG.standard_normal([2, 3, 3, 4]).astype(np.float32)


def attributes(**given):
    """As a node has them: a field for each kind."""
    flags = ("keep_dims", "transpose_a", "transpose_b")
    masks = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    made = {name: types.SimpleNamespace(b=False, i=0) for name in (*flags, *masks)}
    made["data_format"] = types.SimpleNamespace(s=b"NHWC")
    made["padding"] = types.SimpleNamespace(s=b"VALID")
    for name, value in given.items():
        numbers = types.SimpleNamespace(i=value)
        made[name] = types.SimpleNamespace(list=numbers, s=value, b=value, i=value)
    return made


WINDOWS = attributes(strides=[1, 2, 2, 1], dilations=[1, 1, 1, 1], ksize=[1, 2, 2, 1])


def of_output(function):
    """Inputs of an operation that takes the output of the forward one, and the gradient."""
    return lambda x, g: (function(x), g)


@pytest.mark.parametrize(
    ("operation", "forward", "inputs"),
    [
        ("TanhGrad", jnp.tanh, of_output(np.tanh)),
        ("SigmoidGrad", jax.nn.sigmoid, of_output(lambda x: 1 / (1 + np.exp(-x)))),
        ("SqrtGrad", lambda x: jnp.sqrt(abs(x)), lambda x, g: (np.sqrt(abs(x)), g * np.sign(x))),
        (
            "RsqrtGrad",
            lambda x: 1 / jnp.sqrt(abs(x)),
            lambda x, g: (abs(x) ** np.float32(-0.5), g * np.sign(x)),
        ),
        ("ReciprocalGrad", lambda x: 1 / x, of_output(lambda x: 1 / x)),
        ("EluGrad", jax.nn.elu, lambda x, g: (g, np.where(x < 0, np.expm1(x), x))),
        ("ReluGrad", jax.nn.relu, lambda x, g: (g, x)),
        ("SoftplusGrad", jax.nn.softplus, lambda x, g: (g, x)),
    ],
)
def test_the_gradient_of_a_function_is_its_derivative(operation, forward, inputs):
    expected = jax.vjp(forward, X)[1](G)[0]
    found = rule(operation)(attributes(), *inputs(X, G))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # float32, another order


def test_the_gradients_of_sums_and_images_are_their_derivatives():
    def convolved(images, filters):
        order = ("NHWC", "HWIO", "NHWC")
        strides = (2, 2)
        return jax.lax.conv_general_dilated(
            images, filters, strides, "VALID", dimension_numbers=order
        )

    made, back = jax.vjp(convolved, IMAGES, FILTERS)
    gradient = np.ones(made.shape, np.float32)
    sizes = np.array(IMAGES.shape, np.int32), np.array(FILTERS.shape, np.int32)
    found = (
        rule("Conv2DBackpropInput")(WINDOWS, sizes[0], FILTERS, gradient),
        rule("Conv2DBackpropFilter")(WINDOWS, IMAGES, sizes[1], gradient),
    )
    for one, expected in zip(found, back(gradient), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(rule("Conv2D")(WINDOWS, IMAGES, FILTERS), made, rtol=1e-5, atol=1e-5)
    bias = rule("BiasAddGrad")(attributes(), IMAGES)
    np.testing.assert_allclose(bias, IMAGES.sum((0, 1, 2)), rtol=1e-5)
    pooled = rule("MaxPool")(WINDOWS, IMAGES)
    places = rule("MaxPoolGrad")(WINDOWS, IMAGES, pooled, np.ones_like(pooled))
    assert np.array_equal(np.sort(IMAGES[np.asarray(places) > 0]), np.sort(np.ravel(pooled)))


def test_a_label_out_of_range_is_no_number():
    """TensorFlow stops there with an error."""
    labels = np.array([1, 4, -1], np.int32)
    loss, gradient = rule("SparseSoftmaxCrossEntropyWithLogits")(attributes(), X, labels)
    expected = np.log(np.exp(X[0].astype(float)).sum()) - X[0, 1]
    np.testing.assert_allclose(loss, [expected, np.nan, np.nan], rtol=1e-6)
    assert np.isnan(gradient).any(1).tolist() == [False, True, True]
    soft = np.eye(4, dtype=np.float32)[[1]]
    found = rule("SoftmaxCrossEntropyWithLogits")(attributes(), X[:1], soft)
    np.testing.assert_allclose(found[0], loss[:1], rtol=1e-6)
    np.testing.assert_allclose(found[1], gradient[:1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("one", "other", "axes"),
    [([3, 4], [4], ([], [0])), ([3, 1], [1, 4], ([1], [0])), ([], [2, 3], ([0, 1], []))],
)
def test_broadcasts_are_summed_where_they_repeat(one, other, axes):
    found = rule("BroadcastGradientArgs")(attributes(), *(np.array(s, int) for s in (one, other)))
    assert tuple(part.tolist() for part in found) == axes


def test_places_and_shapes_that_are_not_known_have_no_rule():
    slices = rule("StridedSlice")
    picked = attributes(shrink_axis_mask=1)
    assert np.array_equal(slices(picked, X, np.array([2]), np.array([3]), np.array([1])), X[2])
    with pytest.raises(IndexError):  # JAX would take the last row
        slices(picked, jnp.asarray(X), np.array([3]), np.array([4]), np.array([1]))
    with pytest.raises(NoRuleError, match="depends on the data"):
        rule("Reshape")(attributes(), X, jnp.array([4, 3]))
    with pytest.raises(NoRuleError, match="Conv3D has no rule"):
        rule("Conv3D")
