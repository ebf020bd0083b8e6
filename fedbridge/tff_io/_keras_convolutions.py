"""Keras' convolutions beside Conv2D: in one dimension, by channel, separable and transposed.

One dimension is two, the first of size 1, as in TensorFlow: one form of convolution to make fast.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import Array, Float

from fedbridge.jax_core import ModelError
from fedbridge.tff_io._keras_activations import named_activation
from fedbridge.tff_io._keras_objects import Spec
from fedbridge.tff_io._keras_parts import (
    Layer,
    affine,
    along_last,
    channels_last,
    padding_name,
    regularizer,
    sizes,
)

Images = Float[Array, "batch _ _ _"]
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _conv1d(
    filters: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = 1,
    groups: int = 1,
    activation: Any = None,
    use_bias: bool = True,
    kernel_regularizer: Spec | None = None,
    bias_regularizer: Spec | None = None,
) -> Layer:
    channels_last(data_format)
    (size,), (stride,), (dilation,) = (
        sizes(value, 1) for value in (kernel_size, strides, dilation_rate)
    )
    before = (size - 1) * dilation  # causal: the output at t does not see what comes later
    pad = [(0, 0), (before, 0)] if padding == "causal" else padding_name(padding)

    def convolve(x: Array, kernel: Array) -> Array:
        out = jax.lax.conv_general_dilated(
            x[:, None],
            kernel[None],
            window_strides=(1, stride),
            padding=pad,
            rhs_dilation=(1, dilation),
            dimension_numbers=_LAYOUT,
            feature_group_count=groups,
        )
        return out[:, 0]

    regularizers = (kernel_regularizer, bias_regularizer)
    return affine(convolve, (size, None, filters), activation, use_bias, regularizers)


def _conv2d_transpose(
    filters: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = (1, 1),
    padding: str = "valid",
    output_padding: Any = None,
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = (1, 1),
    groups: int = 1,
    activation: Any = None,
    use_bias: bool = True,
    kernel_regularizer: Spec | None = None,
    bias_regularizer: Spec | None = None,
) -> Layer:
    channels_last(data_format)
    _one_group(groups)
    if output_padding is not None or sizes(dilation_rate, 2) != (1, 1):
        raise ModelError(
            "output_padding and dilation_rate are not supported with transposition; leave them out,"
            " or write UpSampling2D and Conv2D"
        )
    pad = padding_name(padding)

    def spread(x: Images, kernel: Float[Array, "_ _ _ _"]) -> Images:
        return jax.lax.conv_transpose(
            x, kernel, sizes(strides, 2), pad, dimension_numbers=_LAYOUT, transpose_kernel=True
        )

    regularizers = (kernel_regularizer, bias_regularizer)
    shape = (*sizes(kernel_size, 2), filters, None)
    built = affine(spread, shape, activation, use_bias, regularizers)
    bias = (("bias", (filters,)),) if use_bias else ()
    return built._replace(weights=(built.weights[0], *bias))


def _depthwise_conv2d(
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = (1, 1),
    padding: str = "valid",
    depth_multiplier: int = 1,
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = (1, 1),
    groups: int = 1,
    activation: Any = None,
    use_bias: bool = True,
    depthwise_regularizer: Spec | None = None,
    bias_regularizer: Spec | None = None,
) -> Layer:
    channels_last(data_format)
    _one_group(groups)
    by_channel = _by_channel(sizes(strides, 2), padding, sizes(dilation_rate, 2))
    shape = (*sizes(kernel_size, 2), None, depth_multiplier)
    regularizers = (depthwise_regularizer, bias_regularizer)
    built = affine(by_channel, shape, activation, use_bias, regularizers)
    bias = (("bias", (None,)),) if use_bias else ()
    return built._replace(weights=(("depthwise_kernel", shape), *bias))


def _separable(rank: int) -> Callable[..., Layer]:
    def build(
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        depth_multiplier: int = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_regularizer: Spec | None = None,
        pointwise_regularizer: Spec | None = None,
        bias_regularizer: Spec | None = None,
    ) -> Layer:
        channels_last(data_format)
        _one_group(groups)
        step, dilation = sizes(strides, rank), sizes(dilation_rate, rank)
        # As TensorFlow does it, in two dimensions with one stride for both.
        step, dilation = (step * 2, (1, *dilation)) if rank == 1 else (step, dilation)
        by_channel = _by_channel(step, padding, dilation)
        activate = named_activation(activation)

        def apply(weights: Sequence[Array], inputs: Sequence[Array], masks: Any, _: Any) -> Array:
            x, depthwise = inputs[0], weights[0]
            if rank == 1:
                x, depthwise = x[:, None], depthwise[None]
            out = by_channel(x, depthwise)
            out = (out[:, 0] if rank == 1 else out) @ weights[1].reshape(weights[1].shape[-2:])
            return activate(out + along_last(weights[2], out.ndim) if use_bias else out)

        weights = (
            ("depthwise_kernel", (*sizes(kernel_size, rank), None, depth_multiplier)),
            ("pointwise_kernel", (*(1,) * rank, None, filters)),
            ("bias", (filters,)),
        )
        specs = (depthwise_regularizer, pointwise_regularizer, bias_regularizer)
        count = 3 if use_bias else 2
        return Layer(apply, weights[:count], tuple(regularizer(one) for one in specs[:count]))

    return build


def _by_channel(
    strides: tuple[int, ...], padding: str, dilation: tuple[int, ...]
) -> Callable[[Array, Array], Array]:
    pad = padding_name(padding)

    def convolve(x: Images, kernel: Float[Array, "_ _ _ _"]) -> Images:
        channels = x.shape[-1]
        return jax.lax.conv_general_dilated(
            x,
            kernel.reshape(*kernel.shape[:2], 1, -1),
            window_strides=strides,
            padding=pad,
            rhs_dilation=dilation,
            dimension_numbers=_LAYOUT,
            feature_group_count=channels,
        )

    return convolve


def _one_group(groups: int) -> None:
    if groups != 1:
        raise ModelError(f"groups={groups} is not supported here; supported: 1")


CONVOLUTION_LAYERS: dict[str, Callable[..., Layer]] = {
    "Conv1D": _conv1d,
    "Conv2DTranspose": _conv2d_transpose,
    "DepthwiseConv2D": _depthwise_conv2d,
    "SeparableConv1D": _separable(1),
    "SeparableConv2D": _separable(2),
}
