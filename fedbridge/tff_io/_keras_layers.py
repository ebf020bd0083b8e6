"""Keras' layers as pure functions: the table from a layer's class to what it computes.

A function of this file takes the layer's config as keyword arguments (the names are Keras') and
returns a `Layer`. To support another class, write its function and add a line to `LAYERS`.

The layouts are Keras' own, so weights need no conversion: Dense [in, out], Conv2D [height, width,
in / groups, out], images [batch, height, width, channels].
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fedbridge.jax_core import ModelError
from fedbridge.jax_core._pooling import avg_pool, max_pool
from fedbridge.tff_io._keras_activations import ACTIVATION_LAYERS, named_activation
from fedbridge.tff_io._keras_objects import Spec, construct
from fedbridge.tff_io._keras_parts import (
    NEUTRAL,
    Layer,
    affine,
    channels_last,
    drop_rate,
    fits,
    of_function,
    padding_name,
    same_mask,
    sizes,
)
from fedbridge.tff_io._keras_recurrent import RECURRENT_LAYERS
from fedbridge.tff_io._keras_sequences import SEQUENCE_LAYERS


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
    return built if isinstance(built, Layer) else of_function(built, same_mask)


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

    return of_function(conform)


def _dense(
    units: int,
    activation: Any = None,
    use_bias: bool = True,
    kernel_regularizer: Spec | None = None,
    bias_regularizer: Spec | None = None,
) -> Layer:
    return affine(
        lambda x, kernel: x @ kernel,
        (None, units),
        activation,
        use_bias,
        (kernel_regularizer, bias_regularizer),
        mask=same_mask,
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
    channels_last(data_format)
    pad = padding_name(padding)

    def convolve(x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=sizes(strides, 2),
            padding=pad,
            rhs_dilation=sizes(dilation_rate, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    return affine(
        convolve,
        (*sizes(kernel_size, 2), None, filters),
        activation,
        use_bias,
        (kernel_regularizer, bias_regularizer),
    )


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
    channels_last(data_format)
    window, pad = sizes(pool_size, 2), padding_name(padding)
    step = window if strides is None else sizes(strides, 2)
    return of_function(lambda x: pool(x, window, step, pad))


def _global_pooling_2d(reduce: Callable[..., Array]) -> Callable[..., Layer]:
    def build(data_format: str | None = None, keepdims: bool = False) -> Layer:
        channels_last(data_format)
        return of_function(lambda x: reduce(x, axis=(1, 2), keepdims=keepdims))

    return build


def _flatten(data_format: str | None = None) -> Layer:
    channels_last(data_format)
    return of_function(lambda x: x.reshape(x.shape[0], -1))


def _reshape(target_shape: Sequence[int]) -> Layer:
    return of_function(lambda x: x.reshape(x.shape[0], *target_shape))


def _dropout(rate: float, noise_shape: Any = None) -> Layer:
    if noise_shape is not None:
        raise ModelError("noise_shape is not supported; supported: one draw for each value")
    drop_rate(rate)

    def apply(weights: Sequence[Array], inputs: Sequence[Array], masks: Any, key: Any) -> Array:
        (x,) = inputs
        if key is None or rate == 0.0:
            return x
        kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
        return jnp.where(kept, x * (1.0 / (1.0 - rate)), 0.0)

    return Layer(apply, random=rate > 0.0, mask=same_mask)


def _activation(activation: Any) -> Layer:
    return of_function(named_activation(activation), same_mask)


def _rescaling(scale: float, offset: float = 0.0) -> Layer:
    if not isinstance(scale, int | float) or not isinstance(offset, int | float):
        raise ModelError("scale and offset are supported as numbers only")
    return of_function(lambda x: x * scale + offset)


def _add() -> Layer:
    def add(*inputs: Array) -> Array:
        total = inputs[0]
        for x in inputs[1:]:
            total = total + x
        return total

    return of_function(add)


def _concatenate(axis: int = -1) -> Layer:
    return of_function(lambda *inputs: jnp.concatenate(inputs, axis=axis))


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
    **RECURRENT_LAYERS,
    **SEQUENCE_LAYERS,
}

DROPOUTS = ("Dropout",)
