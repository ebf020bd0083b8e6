"""Keras' layers as pure functions: the table from a layer's class to what it computes.

A function of this file takes the layer's config as keyword arguments (the names are Keras') and
returns a `Layer`. To support another class, write its function and add a line to `LAYERS`.

The layouts are Keras' own, so weights need no conversion: Dense [in, out], Conv2D [height, width,
in / groups, out], images [batch, height, width, channels].
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fedbridge.jax_core import ModelError
from fedbridge.jax_core._pooling import avg_pool, max_pool
from fedbridge.tff_io._keras_activations import ACTIVATION_LAYERS, named_activation
from fedbridge.tff_io._keras_objects import Spec, construct

Penalty = Callable[[Float[Array, "..."]], Float[Array, ""]]


class Layer(NamedTuple):
    """One Keras layer.

    Attributes:
        apply: `(weights, inputs, key) -> output`; the key is None unless the layer is training.
        weights: The names and shapes of the weights, in Keras' order; None for a dimension that
            depends on the input.
        penalties: For each weight, its regularizer or None.
        random: Whether the output in training depends on the key.
    """

    apply: Callable[[Sequence[Array], Sequence[Array], Key[Array, ""] | None], Array]
    weights: tuple[tuple[str, tuple[int | None, ...]], ...] = ()
    penalties: tuple[Penalty | None, ...] = ()
    random: bool = False


# Entries of a layer's config that change no number here. TFF's optimizers assign to the variables,
# so that Keras' weight constraints never act; initializers have done their work.
NEUTRAL = (
    "batch_input_shape",
    "batch_shape",
    "bias_constraint",
    "bias_initializer",
    "dtype",
    "kernel_constraint",
    "kernel_initializer",
    "name",
    "seed",
    "trainable",
)


def layer(spec: Spec) -> Layer:
    """The layer that a config describes.

    Raises:
        ModelError: For a class, an argument or a dtype that fedbridge does not compute.
    """
    built = construct(LAYERS | ACTIVATION_LAYERS, spec, kind="layer", neutral=NEUTRAL)
    dtype = spec["config"].get("dtype")
    if isinstance(dtype, Mapping):  # Keras 3 writes a policy
        dtype = dtype["config"]["name"]
    if dtype not in (None, "float32") and spec["class_name"] != "InputLayer":
        raise ModelError(
            f'layer "{spec["config"].get("name")}" ({spec["class_name"]}) computes in {dtype};'
            " supported: float32"
        )
    return built if isinstance(built, Layer) else _function(built)


def regularizer(spec: Spec | None) -> Penalty | None:
    """The penalty that a layer's config names.

    Raises:
        ModelError: When it is none that fedbridge computes.
    """
    return None if spec is None else construct(REGULARIZERS, spec, kind="regularizer")


def _input_layer(
    batch_input_shape: Sequence[int | None] | None = None,
    batch_shape: Sequence[int | None] | None = None,
    dtype: str | None = None,
    sparse: bool = False,
    ragged: bool = False,
    optional: bool = False,
) -> Layer:
    if sparse or ragged or optional:
        raise ModelError("sparse, ragged and optional inputs are not supported; supported: dense")
    if dtype in ("float16", "bfloat16", "float64", "string"):
        raise ModelError(f"dtype={dtype} is not supported; supported: float32 and integers")
    shape = batch_shape or batch_input_shape  # Keras 3 and Keras 2

    def conform(x: Array) -> Array:
        # Keras takes [batch, ...] for [batch, ..., 1] and the other way round.
        if shape is not None and x.ndim == len(shape) - 1 and shape[-1] == 1:
            x = x[..., None]
        elif shape is not None and x.ndim == len(shape) + 1 and x.shape[-1] == 1:
            x = x[..., 0]
        if shape is not None and not fits(x.shape, shape):
            raise ModelError(
                f"the batch's feature has the shape {x.shape}; the model's input is {tuple(shape)}"
            )
        return x.astype(dtype or jnp.float32).astype(jnp.float32)

    return _function(conform)


def fits(shape: Sequence[int], expected: Sequence[int | None]) -> bool:
    """Whether a shape is the expected one, in which None stands for any number.

    Example:
        >>> fits((3, 5), (None, 5)), fits((3, 5), (None,))
        (True, False)
    """
    return len(shape) == len(expected) and all(
        want in (None, got) for got, want in zip(shape, expected, strict=True)
    )


def _dense(
    units: int,
    activation: Any = None,
    use_bias: bool = True,
    kernel_regularizer: Spec | None = None,
    bias_regularizer: Spec | None = None,
) -> Layer:
    return _affine(
        lambda x, kernel: x @ kernel,
        (None, units),
        activation,
        use_bias,
        (kernel_regularizer, bias_regularizer),
    )


def _conv2d(
    filters: int,
    kernel_size: Sequence[int],
    strides: Sequence[int] = (1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Sequence[int] = (1, 1),
    groups: int = 1,
    activation: Any = None,
    use_bias: bool = True,
    kernel_regularizer: Spec | None = None,
    bias_regularizer: Spec | None = None,
) -> Layer:
    _channels_last(data_format)
    pad = _padding(padding)

    def convolve(x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=_pair(strides),
            padding=pad,
            rhs_dilation=_pair(dilation_rate),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    return _affine(
        convolve,
        (*_pair(kernel_size), None, filters),
        activation,
        use_bias,
        (kernel_regularizer, bias_regularizer),
    )


def _affine(
    linear: Callable[[Array, Array], Array],
    kernel_shape: tuple[int | None, ...],
    activation_spec: Any,
    use_bias: bool,
    regularizers: tuple[Spec | None, Spec | None],
) -> Layer:
    """A kernel, perhaps a bias, and an activation: Dense and the convolutions."""
    activation = named_activation(activation_spec)

    def apply(weights: Sequence[Array], inputs: Sequence[Array], key: Any) -> Array:
        (x,) = inputs
        out = linear(x, weights[0])
        if use_bias:
            out = out + weights[1].reshape((1,) * (out.ndim - 1) + (-1,))
        return activation(out)

    count = 2 if use_bias else 1
    shapes = (("kernel", kernel_shape), ("bias", kernel_shape[-1:]))
    return Layer(apply, shapes[:count], tuple(regularizer(spec) for spec in regularizers[:count]))


def _max_pooling_2d(
    pool_size: Sequence[int] = (2, 2),
    strides: Sequence[int] | None = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Layer:
    return _pooling(max_pool, pool_size, strides, padding, data_format)


def _average_pooling_2d(
    pool_size: Sequence[int] = (2, 2),
    strides: Sequence[int] | None = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Layer:
    return _pooling(avg_pool, pool_size, strides, padding, data_format)


def _pooling(
    pool: Callable[..., Array],
    pool_size: Sequence[int],
    strides: Sequence[int] | None,
    padding: str,
    data_format: str | None,
) -> Layer:
    _channels_last(data_format)
    window, pad = _pair(pool_size), _padding(padding)
    step = window if strides is None else _pair(strides)
    return _function(lambda x: pool(x, window, step, pad))


def _global_pooling_2d(reduce: Callable[..., Array]) -> Callable[..., Layer]:
    def build(data_format: str | None = None, keepdims: bool = False) -> Layer:
        _channels_last(data_format)
        return _function(lambda x: reduce(x, axis=(1, 2), keepdims=keepdims))

    return build


def _flatten(data_format: str | None = None) -> Layer:
    _channels_last(data_format)
    return _function(lambda x: x.reshape(x.shape[0], -1))


def _reshape(target_shape: Sequence[int]) -> Layer:
    return _function(lambda x: x.reshape(x.shape[0], *target_shape))


def _dropout(rate: float, noise_shape: Any = None) -> Layer:
    if noise_shape is not None:
        raise ModelError("noise_shape is not supported; supported: one draw for each value")
    if not 0.0 <= rate < 1.0:
        raise ModelError(f"rate={rate} is not supported; supported: 0 <= rate < 1")

    def apply(weights: Sequence[Array], inputs: Sequence[Array], key: Any) -> Array:
        (x,) = inputs
        if key is None or rate == 0.0:
            return x
        kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
        return jnp.where(kept, x * (1.0 / (1.0 - rate)), 0.0)

    return Layer(apply, random=rate > 0.0)


def _activation(activation: Any) -> Layer:
    return _function(named_activation(activation))


def _rescaling(scale: float, offset: float = 0.0) -> Layer:
    if not isinstance(scale, int | float) or not isinstance(offset, int | float):
        raise ModelError("scale and offset are supported as numbers only")
    return _function(lambda x: x * scale + offset)


def _add() -> Layer:
    def add(*inputs: Array) -> Array:
        total = inputs[0]
        for x in inputs[1:]:
            total = total + x
        return total

    return _function(add)


def _concatenate(axis: int = -1) -> Layer:
    return _function(lambda *inputs: jnp.concatenate(inputs, axis=axis))


def _function(function: Callable[..., Array]) -> Layer:
    """A layer without weights."""
    return Layer(lambda weights, inputs, key: function(*inputs))


def _l1(l1: float) -> Penalty:
    return lambda weight: l1 * jnp.sum(jnp.abs(weight))


def _l2(l2: float) -> Penalty:
    # As Keras writes it: its gradient, 2 * l2 * weight, is then exact in the same way.
    return lambda weight: 2.0 * l2 * (jnp.sum(weight * weight) / 2.0)


def _l1_l2(l1: float = 0.0, l2: float = 0.0) -> Penalty:
    parts = ([_l1(l1)] if l1 else []) + ([_l2(l2)] if l2 else [])
    return lambda weight: sum((part(weight) for part in parts), jnp.zeros((), jnp.float32))


def _channels_last(data_format: str | None) -> None:
    if data_format not in (None, "channels_last"):
        raise ModelError(f"data_format={data_format!r} is not supported; supported: channels_last")


def _padding(padding: str) -> str:
    if padding not in ("valid", "same"):
        raise ModelError(f"padding={padding!r} is not supported; supported: same, valid")
    return padding.upper()


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


LAYERS: dict[str, Callable[..., Layer]] = {
    "Activation": _activation,
    "Add": _add,
    "AveragePooling2D": _average_pooling_2d,
    "Concatenate": _concatenate,
    "Conv2D": _conv2d,
    "Dense": _dense,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "GlobalAveragePooling2D": _global_pooling_2d(jnp.mean),
    "GlobalMaxPooling2D": _global_pooling_2d(jnp.max),
    "InputLayer": _input_layer,
    "MaxPooling2D": _max_pooling_2d,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
}

REGULARIZERS: dict[str, Callable[..., Penalty]] = {"L1": _l1, "L1L2": _l1_l2, "L2": _l2}
