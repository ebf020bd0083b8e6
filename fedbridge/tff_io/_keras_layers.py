"""Keras' layers as pure functions: the table from a layer's class to what it computes.

A function of this file, or of its neighbours, takes the layer's config as keyword arguments (the
names are Keras') and returns a `Layer`. To support another class, write its function and add a line
to `LAYERS`.

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
from fedbridge.tff_io._keras_convolutions import CONVOLUTION_LAYERS
from fedbridge.tff_io._keras_merge import MERGE_LAYERS
from fedbridge.tff_io._keras_noise import NOISE_LAYERS
from fedbridge.tff_io._keras_norm import NORMALIZATION_LAYERS
from fedbridge.tff_io._keras_objects import Spec, construct
from fedbridge.tff_io._keras_parts import (
    NEUTRAL,
    Layer,
    affine,
    channels_last,
    fits,
    of_function,
    padding_name,
    regularizer,
    same_mask,
    sizes,
)
from fedbridge.tff_io._keras_recurrent import RECURRENT_LAYERS
from fedbridge.tff_io._keras_sequences import SEQUENCE_LAYERS
from fedbridge.tff_io._keras_shapes import SHAPE_LAYERS


def build_layer(spec: Spec) -> Layer:
    """The layer that a config describes.

    Raises:
        ModelError: For a class, an argument or a dtype that fedbridge does not compute.
    """
    if spec["class_name"] == "Lambda":
        raise ModelError(
            f'layer "{spec["config"].get("name")}" is a Lambda, whose function the config does not'
            " hold; write it with Keras' own layers, or compute it on the data, before the model"
        )
    built = construct(ACTIVATION_LAYERS | LAYERS, spec, kind="layer", neutral=NEUTRAL)
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


def _activation(activation: Any) -> Layer:
    return of_function(named_activation(activation), same_mask)


def _rescaling(scale: float, offset: float = 0.0) -> Layer:
    if not isinstance(scale, int | float) or not isinstance(offset, int | float):
        raise ModelError("scale and offset are supported as numbers only")
    return of_function(lambda x: x * scale + offset)


def _p_relu(shared_axes: Any = None, alpha_regularizer: Spec | None = None) -> Layer:
    def apply(weights: Sequence[Array], inputs: Sequence[Array], masks: Any, _: Any) -> Array:
        (x,) = inputs
        return jax.nn.relu(x) - weights[0][None] * jax.nn.relu(-x)

    return Layer(apply, (("alpha", None),), (regularizer(alpha_regularizer),), mask=same_mask)


def _softmax(axis: int | list[int] = -1) -> Layer:
    softmax = ACTIVATION_LAYERS["Softmax"](axis)

    def apply(weights: Any, inputs: Sequence[Array], masks: Sequence[Any], _: Any) -> Array:
        (x,), (mask,) = inputs, masks
        if mask is None:
            return softmax(x)
        if mask.shape != x.shape:
            raise ModelError(
                "Softmax behind Keras' mask is not supported: Keras adds the mask of shape"
                f" {mask.shape} to values of shape {x.shape}; use activation='softmax' before it"
            )
        return softmax(x + (1.0 - mask.astype(x.dtype)) * -1e9)

    return Layer(apply, mask=same_mask)


def _time_distributed(layer: Spec) -> Layer:
    """The layer, applied to every step as if it were an example of its own."""
    if layer["class_name"] not in LAYERS | ACTIVATION_LAYERS or layer["config"].get("return_state"):
        raise ModelError(f"a {layer['class_name']} is not supported here; supported: one layer")
    inner = build_layer(layer)

    def of_steps(arrays: Sequence[Any]) -> list[Any]:
        return [x if x is None else x.reshape(-1, *x.shape[2:]) for x in arrays]

    def apply(
        weights: Sequence[Array], inputs: Sequence[Array], masks: Sequence[Any], training: Any
    ) -> Array:
        if training is not None and training.rows is not None:
            training = training._replace(rows=jnp.repeat(training.rows, inputs[0].shape[1]))
        out: Any = inner.apply(weights, of_steps(inputs), of_steps(masks), training)
        return out.reshape(*inputs[0].shape[:2], *out.shape[1:])

    def mask(inputs: Sequence[Array], masks: Sequence[Any]) -> Any:
        shown = inner.mask(of_steps(inputs), of_steps(masks))
        if isinstance(shown, tuple):  # one for each output, and there is one
            (shown,) = shown
        if shown is not None:
            return shown.reshape(*inputs[0].shape[:2], *shown.shape[1:])
        return masks[0] if masks[0] is None else masks[0].any(tuple(range(2, masks[0].ndim)))

    return inner._replace(apply=apply, mask=mask)


LAYERS: dict[str, Callable[..., Layer]] = {
    "Activation": _activation,
    "AveragePooling2D": _average_pooling_2d,
    "Conv2D": _conv2d,
    "Dense": _dense,
    "GlobalAveragePooling2D": _global_pooling_2d(jnp.mean),
    "GlobalMaxPooling2D": _global_pooling_2d(jnp.max),
    "InputLayer": _input_layer,
    "MaxPooling2D": _max_pooling_2d,
    "PReLU": _p_relu,
    "Rescaling": _rescaling,
    "Softmax": _softmax,
    "TimeDistributed": _time_distributed,
    **CONVOLUTION_LAYERS,
    **MERGE_LAYERS,
    **NOISE_LAYERS,
    **NORMALIZATION_LAYERS,
    **RECURRENT_LAYERS,
    **SEQUENCE_LAYERS,
    **SHAPE_LAYERS,
}
