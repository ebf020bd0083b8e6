"""Keras' layers that draw random numbers in training, and only then.

They draw from JAX's generator, so that they train as TFF's do but never equally.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fedbridge.jax_core import ModelError
from fedbridge.tff_io._keras_parts import Layer, drop_rate, key_of, same_mask


def _dropout(rate: float, noise_shape: Any = None) -> Layer:
    if noise_shape is not None:
        raise ModelError("noise_shape is not supported; supported: one draw for each value")
    drop_rate(rate)
    return _noise(rate, lambda x, key: _dropped(x, rate, key, x.shape))


def _spatial_dropout(rank: int) -> Callable[..., Layer]:
    """Drops whole channels: one draw for all places."""

    def build(rate: float, data_format: str | None = None) -> Layer:
        drop_rate(rate)

        def drop(x: Array, key: Key[Array, ""]) -> Array:
            return _dropped(x, rate, key, (x.shape[0], *(1,) * rank, x.shape[-1]))

        return _noise(rate, drop)

    return build


def _gaussian_noise(stddev: float) -> Layer:
    return _noise(stddev, lambda x, key: x + stddev * jax.random.normal(key, x.shape))


def _gaussian_dropout(rate: float) -> Layer:
    stddev = math.sqrt(drop_rate(rate) / (1.0 - rate))
    return _noise(rate, lambda x, key: x * (1.0 + stddev * jax.random.normal(key, x.shape)))


def _noise(strength: float, add: Callable[[Array, Key[Array, ""]], Array]) -> Layer:
    def apply(weights: Any, inputs: Sequence[Array], masks: Any, training: Any) -> Array:
        (x,) = inputs
        key = key_of(training)
        return x if key is None or strength == 0.0 else add(x, key)

    return Layer(apply, random=strength > 0.0, mask=same_mask)


def _dropped(
    x: Float[Array, "batch ..."], rate: float, key: Key[Array, ""], shape: tuple[int, ...]
) -> Float[Array, "batch ..."]:
    kept = jax.random.bernoulli(key, 1.0 - rate, shape)
    return jnp.where(kept, x * (1.0 / (1.0 - rate)), 0.0)


NOISE_LAYERS: dict[str, Callable[..., Layer]] = {
    "Dropout": _dropout,
    "GaussianDropout": _gaussian_dropout,
    "GaussianNoise": _gaussian_noise,
    "SpatialDropout1D": _spatial_dropout(1),
    "SpatialDropout2D": _spatial_dropout(2),
}
