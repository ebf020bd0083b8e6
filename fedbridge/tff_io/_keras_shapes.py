"""Keras' layers that move, repeat, cut, pad or pool values.

None of them hands Keras' mask on, as in Keras 2.14.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fedbridge.jax_core import ModelError
from fedbridge.jax_core._pooling import avg_pool, max_pool
from fedbridge.tff_io._keras_parts import (
    Layer,
    StepMask,
    channels_last,
    of_function,
    padding_name,
    sizes,
)


def _flatten(data_format: str | None = None) -> Layer:
    channels_last(data_format)
    return of_function(lambda x: x.reshape(x.shape[0], -1))


def _reshape(target_shape: Sequence[int]) -> Layer:
    return of_function(lambda x: x.reshape(x.shape[0], *target_shape))


def _permute(dims: Sequence[int]) -> Layer:
    return of_function(lambda x: jnp.transpose(x, (0, *dims)))


def _repeat_vector(n: int) -> Layer:
    return of_function(lambda x: jnp.repeat(x[:, None], n, axis=1))


def _zero_padding(rank: int) -> Callable[..., Layer]:
    def build(padding: Any = 1, data_format: str | None = None) -> Layer:
        channels_last(data_format)
        pads = _both_ends(padding, rank)
        return of_function(lambda x: jnp.pad(x, [(0, 0), *pads, (0, 0)]))

    return build


def _cropping(rank: int) -> Callable[..., Layer]:
    def build(cropping: Any = 1, data_format: str | None = None) -> Layer:
        channels_last(data_format)
        cuts = _both_ends(cropping, rank)

        def crop(x: Array) -> Array:
            spaces = zip(x.shape[1:], cuts, strict=False)
            kept = [slice(low, size - high) for size, (low, high) in spaces]
            return x[(slice(None), *kept)]

        return of_function(crop)

    return build


def _both_ends(value: Any, rank: int) -> list[tuple[int, int]]:
    """Sizes at the low and the high end of each dimension, from one of Keras' short forms.

    Example:
        >>> _both_ends(2, 1), _both_ends([1, 0], 1), _both_ends([[1, 0], [2, 3]], 2)
        ([(2, 2)], [(1, 0)], [(1, 0), (2, 3)])
    """
    if rank == 1:
        low, high = sizes(value, 2)
        return [(low, high)]
    values = [value] * rank if isinstance(value, int) else list(value)
    return [(low, high) for low, high in (sizes(one, 2) for one in values)]


def _up_sampling(rank: int) -> Callable[..., Layer]:
    def build(
        size: Any = 2, data_format: str | None = None, interpolation: str = "nearest"
    ) -> Layer:
        channels_last(data_format)
        if interpolation != "nearest":
            raise ModelError(
                f"interpolation={interpolation!r} is not supported; supported: nearest"
            )

        def repeat(x: Array) -> Array:
            for axis, times in enumerate(sizes(size, rank), 1):
                x = jnp.repeat(x, times, axis=axis)
            return x

        return of_function(repeat)

    return build


def _pooling_1d(pool: Callable[..., Array]) -> Callable[..., Layer]:
    def build(
        pool_size: int | Sequence[int] = 2,
        strides: int | Sequence[int] | None = None,
        padding: str = "valid",
        data_format: str | None = None,
    ) -> Layer:
        channels_last(data_format)
        window, pad = sizes(pool_size, 1), padding_name(padding)
        step = window if strides is None else sizes(strides, 1)
        return of_function(lambda x: pool(x, window, step, pad))

    return build


def _global_max_pooling_1d(data_format: str | None = None, keepdims: bool = False) -> Layer:
    channels_last(data_format)
    return of_function(lambda x: jnp.max(x, axis=1, keepdims=keepdims))


def _global_average_pooling_1d(data_format: str | None = None, keepdims: bool = False) -> Layer:
    """The mean over the steps that Keras' mask shows; NaN where it shows none, as in Keras 2.14."""
    channels_last(data_format)

    def apply(
        weights: Any,
        inputs: Sequence[Float[Array, "b s c"]],
        masks: Sequence[StepMask],
        _: Any,
    ) -> Array:
        (x,), (mask,) = inputs, masks
        if mask is None:
            return x.mean(axis=1, keepdims=keepdims)
        shown = mask[..., None].astype(x.dtype)
        return (x * shown).sum(axis=1, keepdims=keepdims) / shown.sum(axis=1, keepdims=keepdims)

    return Layer(apply)


SHAPE_LAYERS: dict[str, Callable[..., Layer]] = {
    "AveragePooling1D": _pooling_1d(avg_pool),
    "Cropping1D": _cropping(1),
    "Cropping2D": _cropping(2),
    "Flatten": _flatten,
    "GlobalAveragePooling1D": _global_average_pooling_1d,
    "GlobalMaxPooling1D": _global_max_pooling_1d,
    "MaxPooling1D": _pooling_1d(max_pool),
    "Permute": _permute,
    "RepeatVector": _repeat_vector,
    "Reshape": _reshape,
    "UpSampling1D": _up_sampling(1),
    "UpSampling2D": _up_sampling(2),
    "ZeroPadding1D": _zero_padding(1),
    "ZeroPadding2D": _zero_padding(2),
}
