"""Keras' layers that take several inputs.

Inputs of fewer dimensions get dimensions of 1 behind the batch, as in Keras. Keras' mask behind
them hides what one of the inputs hides; in Keras 3 a sum hides what all of them hide, TFF runs
Keras 2.14 (keras/src/layers/merging).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fedbridge.jax_core import ModelError
from fedbridge.tff_io._keras_activations import l2_normalize, maximum
from fedbridge.tff_io._keras_parts import Layer, StepMask, of_function


def _of_two(merge: Callable[[Array, Array], Array]) -> Callable[[], Layer]:
    """A layer that merges its inputs from left to right."""
    return lambda: of_function(
        lambda *inputs: functools.reduce(merge, _of_one_rank(inputs)), _hidden_by_one
    )


def _average() -> Layer:
    def mean(*inputs: Array) -> Array:
        return functools.reduce(jnp.add, _of_one_rank(inputs)) / len(inputs)

    return of_function(mean, _hidden_by_one)


def _subtract() -> Layer:
    def difference(*inputs: Array) -> Array:
        if len(inputs) != 2:
            raise ModelError(f"Subtract takes 2 inputs, not {len(inputs)}")
        first, second = _of_one_rank(inputs)
        return first - second

    return of_function(difference, _hidden_by_one)


def _concatenate(axis: int = -1) -> Layer:
    def hidden(inputs: Sequence[Array], masks: Sequence[StepMask]) -> StepMask:
        if all(mask is None for mask in masks):
            return None
        full = [_as_wide(x, mask) for x, mask in zip(inputs, masks, strict=True)]
        return jnp.concatenate(full, axis=axis).all(axis=-1)

    return of_function(lambda *inputs: jnp.concatenate(inputs, axis=axis), hidden)


def _as_wide(x: Array, mask: StepMask) -> Bool[Array, "..."]:
    if mask is None:
        return jnp.ones(x.shape, bool)
    return mask[..., None] if mask.ndim < x.ndim else mask


def _dot(axes: int | Sequence[int], normalize: bool = False) -> Layer:
    def dot(*inputs: Array) -> Float[Array, "batch ..."]:
        if len(inputs) != 2:
            raise ModelError(f"Dot takes 2 inputs, not {len(inputs)}")
        first, second = inputs
        own = (axes, axes) if isinstance(axes, int) else axes
        a, b = own[0] % first.ndim, own[1] % second.ndim
        if normalize:
            first, second = l2_normalize(first, a), l2_normalize(second, b)
        out = jax.lax.dot_general(first, second, (((a,), (b,)), ((0,), (0,))))
        return out[:, None] if out.ndim == 1 else out

    return of_function(dot)


def _of_one_rank(inputs: Sequence[Array]) -> list[Array]:
    rank = max(x.ndim for x in inputs)
    return [x.reshape(x.shape[0], *(1,) * (rank - x.ndim), *x.shape[1:]) for x in inputs]


def _hidden_by_one(inputs: Any, masks: Sequence[StepMask]) -> StepMask:
    given = [mask for mask in masks if mask is not None]
    return functools.reduce(jnp.logical_and, given) if given else None


MERGE_LAYERS: dict[str, Callable[..., Layer]] = {
    "Add": _of_two(jnp.add),
    "Average": _average,
    "Concatenate": _concatenate,
    "Dot": _dot,
    "Maximum": _of_two(maximum),
    "Minimum": _of_two(lambda x, y: jnp.where(x <= y, x, y)),
    "Multiply": _of_two(jnp.multiply),
    "Subtract": _subtract,
}
