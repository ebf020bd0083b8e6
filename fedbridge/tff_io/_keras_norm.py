"""Keras' normalizations that look at one example alone, so that padded rows change nothing.

Keras 2.14: keras/src/layers/normalization/layer_normalization.py, group_normalization.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import Array

from fedbridge.jax_core import ModelError
from fedbridge.tff_io._keras_objects import Spec
from fedbridge.tff_io._keras_parts import Layer, StepMask, regularizer, same_mask


def _layer_normalization(
    axis: int | Sequence[int] = -1,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
    rms_scaling: bool = False,
    beta_regularizer: Spec | None = None,
    gamma_regularizer: Spec | None = None,
) -> Layer:
    if rms_scaling:
        raise ModelError("rms_scaling=True is not supported; supported: False")
    given = [axis] if isinstance(axis, int) else list(axis)

    def apply(weights: Sequence[Array], inputs: Sequence[Array], masks: Any, key: Any) -> Array:
        (x,) = inputs
        axes = tuple(one % x.ndim for one in given)
        shape = tuple(size if place in axes else 1 for place, size in enumerate(x.shape))
        return _normalized(x, axes, epsilon, [w.reshape(shape) for w in weights], center, scale)

    shape = (None,) * len(given)
    return _normalization(apply, shape, center, scale, beta_regularizer, gamma_regularizer)


def _group_normalization(
    groups: int = 32,
    axis: int = -1,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
    beta_regularizer: Spec | None = None,
    gamma_regularizer: Spec | None = None,
) -> Layer:
    def apply(
        weights: Sequence[Array], inputs: Sequence[Array], masks: Sequence[StepMask], key: Any
    ) -> Array:
        (x,) = inputs
        if masks[0] is not None:
            raise ModelError(
                "GroupNormalization behind Keras' mask is not supported: Keras sets the mask of"
                f" shape {masks[0].shape} against values of shape {x.shape}"
            )
        place = axis % x.ndim
        channels = x.shape[place]
        count = channels if groups == -1 else groups
        if channels % count:
            raise ModelError(f"{channels} channels do not make {count} groups of one size")
        split = (*x.shape[:place], count, channels // count, *x.shape[place + 1 :])
        axes = tuple(one for one in range(1, len(split)) if one != place)
        shape = tuple(size if one in (place, place + 1) else 1 for one, size in enumerate(split))
        parts = [w.reshape(shape) for w in weights]
        return _normalized(x.reshape(split), axes, epsilon, parts, center, scale).reshape(x.shape)

    return _normalization(apply, (None,), center, scale, beta_regularizer, gamma_regularizer)


def _normalized(
    x: Array,
    axes: tuple[int, ...],
    epsilon: float,
    weights: Sequence[Array],
    center: bool,
    scale: bool,
) -> Array:
    """Mean 0 and variance 1 over some axes, times gamma, plus beta, where they are there."""
    centered = x - x.mean(axes, keepdims=True)
    variance = (centered * centered).mean(axes, keepdims=True)
    out = centered * jax.lax.rsqrt(variance + epsilon)
    out = out * weights[0] if scale else out
    return out + weights[-1] if center else out


def _normalization(
    apply: Callable[..., Array],
    shape: tuple[int | None, ...],
    center: bool,
    scale: bool,
    beta_regularizer: Spec | None,
    gamma_regularizer: Spec | None,
) -> Layer:
    parts = [("gamma", gamma_regularizer)] * scale + [("beta", beta_regularizer)] * center
    return Layer(
        apply,
        tuple((name, shape) for name, _ in parts),
        tuple(regularizer(spec) for _, spec in parts),
        mask=same_mask,
    )


NORMALIZATION_LAYERS: dict[str, Callable[..., Layer]] = {
    "GroupNormalization": _group_normalization,
    "LayerNormalization": _layer_normalization,
}
