"""Keras' normalizations.

Layer and group normalization look at one example alone. Batch normalization looks at the real rows
of a batch, and never updates its moving statistics, as in TFF: they are broadcast to the clients
and never come back, so that evaluation uses the initial ones for ever.

Keras 2.14: keras/src/layers/normalization/layer_normalization.py, group_normalization.py,
batch_normalization.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from fedbridge.jax_core import ModelError
from fedbridge.tff_io._keras_objects import Spec
from fedbridge.tff_io._keras_parts import Layer, StepMask, Training, regularizer, same_mask


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

    def apply(weights: Sequence[Array], inputs: Sequence[Array], masks: Any, _: Any) -> Array:
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
        weights: Sequence[Array], inputs: Sequence[Array], masks: Sequence[StepMask], _: Any
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


def _batch_normalization(
    axis: int | Sequence[int] = -1,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
    synchronized: bool = False,
    renorm: bool = False,
    renorm_clipping: Any = None,
    renorm_momentum: float = 0.99,
    trainable: bool = True,
    beta_regularizer: Spec | None = None,
    gamma_regularizer: Spec | None = None,
) -> Layer:
    if renorm:
        raise ModelError("renorm=True is not supported; supported: False")
    if not isinstance(axis, int) and len(axis) != 1:
        raise ModelError(f"axis={list(axis)} is not supported; supported: one axis")
    given = axis if isinstance(axis, int) else axis[0]

    def apply(
        weights: Sequence[Array],
        inputs: Sequence[Array],
        masks: Sequence[StepMask],
        training: Training | None,
    ) -> Array:
        (x,) = inputs
        shape = [1] * x.ndim
        shape[given] = -1
        *own, mean, variance = [weight.reshape(shape) for weight in weights]
        if training is not None and trainable:  # a frozen layer does as in evaluation
            axes = tuple(place for place in range(x.ndim) if place != given % x.ndim)
            mean, variance = _moments(x, axes, _counting(x, masks[0], training.rows))
        return _scaled((x - mean) * jax.lax.rsqrt(variance + epsilon), own, center, scale)

    built = _normalization(apply, (None,), center, scale, beta_regularizer, gamma_regularizer)
    return built._replace(fixed=(("moving_mean", (None,)), ("moving_variance", (None,))))


def _counting(
    x: Array, mask: StepMask, rows: Bool[Array, " batch"] | None
) -> Bool[Array, "..."] | None:
    """What is no padding and, but for images, not hidden by Keras' mask; ready to broadcast."""
    counting = None if rows is None else rows.reshape(-1, *(1,) * (x.ndim - 1))
    if mask is None or x.ndim > 3:  # Keras' fused implementation ignores the mask
        return counting
    shown = mask.reshape(*mask.shape, *(1,) * (x.ndim - mask.ndim))
    return shown if counting is None else shown & counting


def _moments(
    x: Array, axes: tuple[int, ...], counting: Bool[Array, "..."] | None
) -> tuple[Array, Array]:
    """Mean and variance over some axes of what counts; 0 and 0 where nothing does."""
    if counting is None:
        mean = x.mean(axes, keepdims=True)
        return mean, jnp.square(x - mean).mean(axes, keepdims=True)
    weights = jnp.broadcast_to(counting, x.shape).astype(x.dtype)
    total = jnp.maximum(weights.sum(axes, keepdims=True), 1.0)
    mean = (x * weights).sum(axes, keepdims=True) / total
    return mean, (jnp.square(x - mean) * weights).sum(axes, keepdims=True) / total


def _normalized(
    x: Array,
    axes: tuple[int, ...],
    epsilon: float,
    weights: Sequence[Array],
    center: bool,
    scale: bool,
) -> Array:
    """Mean 0 and variance 1 over some axes, times gamma, plus beta, where they are there."""
    mean, variance = _moments(x, axes, None)
    return _scaled((x - mean) * jax.lax.rsqrt(variance + epsilon), weights, center, scale)


def _scaled(x: Array, weights: Sequence[Array], center: bool, scale: bool) -> Array:
    out = x * weights[0] if scale else x
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
    "BatchNormalization": _batch_normalization,
    "GroupNormalization": _group_normalization,
    "LayerNormalization": _layer_normalization,
}
