"""Keras' activations by name, as TensorFlow computes them.

They differ from `jax.nn` at the kinks and in the last bits: JAX halves the gradient where a minimum
or maximum ties, TensorFlow gives all of it to one side; TensorFlow computes elu as `exp(x) - 1`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedbridge.jax_core import ModelError
from fedbridge.jax_core._clipped import clip
from fedbridge.tff_io._keras_objects import construct

Activation = Callable[[Float[Array, "..."]], Float[Array, "..."]]


def absolute(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`tf.abs`: the gradient at 0 is 0, where `jnp.abs` has 1."""
    return x * jax.lax.stop_gradient(jnp.sign(x))


def maximum(x: Float[Array, "..."], y: Float[Array, "..."] | float) -> Float[Array, "..."]:
    """`tf.maximum`: NaN where one is; where both are equal, the first has the gradient."""
    return jnp.where((x >= y) | jnp.isnan(x), x, y)


def l2_normalize(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """`tf.linalg.l2_normalize`."""
    return x * jax.lax.rsqrt(maximum(jnp.sum(x * x, axis, keepdims=True), 1e-12))


def relu(
    x: Float[Array, "..."],
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
) -> Float[Array, "..."]:
    """`keras.backend.relu`, kinks included."""
    if negative_slope and max_value is None and not threshold:
        return leaky_relu(x, negative_slope)
    if threshold:
        positive = x * (x > threshold).astype(x.dtype)
    else:
        positive = relu6(x) if max_value == 6 else jax.nn.relu(x)
    if max_value is not None:
        positive = clip(positive, 0.0, max_value)
    return positive - negative_slope * jax.nn.relu(threshold - x) if negative_slope else positive


def relu6(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`tf.nn.relu6`: flat at both bounds."""
    return jnp.where(x <= 0, 0.0, jnp.where(x >= 6, 6.0, x))


def leaky_relu(x: Float[Array, "..."], alpha: float = 0.2) -> Float[Array, "..."]:
    """`tf.nn.leaky_relu`: the slope at 0 is `alpha`."""
    return jnp.where(x > 0, x, alpha * x)


def elu(x: Float[Array, "..."], alpha: float = 1.0) -> Float[Array, "..."]:
    """`tf.nn.elu`, which does not use `expm1`."""
    return jnp.where(x > 0, x, alpha * (jnp.exp(jnp.where(x > 0, 0.0, x)) - 1.0))


def selu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`tf.nn.selu`, which does not use `expm1`."""
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    return jnp.where(x < 0, scale * alpha * (jnp.exp(jnp.where(x > 0, 0.0, x)) - 1.0), scale * x)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`tf.nn.gelu`, not approximated."""
    return 0.5 * x * (1.0 + jax.lax.erf(x / 1.4142135623730951))


def of_keras_3(config: Any) -> Any:
    """A config of Keras 3, where `hard_sigmoid` is another function than in Keras 2.

    Example:
        >>> of_keras_3({"layers": [{"activation": "hard_sigmoid", "name": "hard_sigmoid"}]})
        {'layers': [{'activation': 'hard_sigmoid of Keras 3', 'name': 'hard_sigmoid'}]}
    """
    if isinstance(config, list):
        return [of_keras_3(one) for one in config]
    if not isinstance(config, Mapping):
        return config
    names = "activation", "recurrent_activation"
    renamed = {
        name: "hard_sigmoid of Keras 3" for name in names if config.get(name) == "hard_sigmoid"
    }
    return {name: renamed.get(name, of_keras_3(value)) for name, value in config.items()}


def _relu_layer(
    max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0
) -> Activation:
    return lambda x: relu(x, negative_slope or 0.0, max_value, threshold or 0.0)


def _leaky_relu_layer(
    alpha: float | None = None, negative_slope: float | None = None
) -> Activation:
    # Keras 2 and Keras 3 name it differently; 0.3 is the default of both.
    slope = next((slope for slope in (alpha, negative_slope) if slope is not None), 0.3)
    return lambda x: leaky_relu(x, slope)


def _elu_layer(alpha: float = 1.0) -> Activation:
    return lambda x: elu(x, alpha)


def _thresholded_relu_layer(theta: float = 1.0) -> Activation:
    return lambda x: x * (x > theta).astype(x.dtype)


def _softmax_layer(axis: int | list[int] = -1) -> Activation:
    return lambda x: jax.nn.softmax(x, axis=axis if isinstance(axis, int) else tuple(axis))


ACTIVATIONS: dict[str, Activation] = {
    "elu": elu,
    "exponential": jnp.exp,
    "gelu": gelu,
    "hard_sigmoid": lambda x: clip(0.2 * x + 0.5, 0.0, 1.0),
    "hard_sigmoid of Keras 3": lambda x: relu6(x + 3.0) / 6.0,
    "leaky_relu": leaky_relu,
    "linear": lambda x: x,
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "relu": jax.nn.relu,
    "relu6": relu6,
    "selu": selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softmax": jax.nn.softmax,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}

ACTIVATION_LAYERS: dict[str, Callable[..., Activation]] = {
    "ELU": _elu_layer,
    "LeakyReLU": _leaky_relu_layer,
    "ReLU": _relu_layer,
    "Softmax": _softmax_layer,
    "ThresholdedReLU": _thresholded_relu_layer,
}


def named_activation(spec: Any) -> Activation:
    """The activation that a layer's config names: None, a name, or a serialised layer.

    Raises:
        ModelError: When it is none that fedbridge computes.
    """
    if spec is None:
        return ACTIVATIONS["linear"]
    if isinstance(spec, str) and spec in ACTIVATIONS:
        return ACTIVATIONS[spec]
    if isinstance(spec, dict) and spec.get("class_name") in ACTIVATION_LAYERS:
        neutral = ("name", "trainable", "dtype")
        return construct(ACTIVATION_LAYERS, spec, kind="activation", neutral=neutral)
    name = spec.get("registered_name") or spec.get("config") if isinstance(spec, dict) else spec
    raise ModelError(
        f"fedbridge does not compute the activation {name!r}; supported:"
        f" {', '.join(sorted(ACTIVATIONS))}, and the layers {', '.join(sorted(ACTIVATION_LAYERS))}"
    )
