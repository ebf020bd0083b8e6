"""Pooling as TensorFlow computes it; max-pooling with a gradient that XLA computes fast on a CPU.

The derivative of `lax.reduce_window` is a select-and-scatter, on a CPU some ten times slower than
what it undoes. Where windows do not overlap (nearly always) comparing each place of a window with
its maximum does the same. Ties are not rare (zeros after a ReLU): the first maximum of a window,
row by row, takes the gradient, as in TensorFlow's MaxPoolGrad (core/kernels/maxpooling_op.cc) and
in XLA's select-and-scatter.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from fedbridge.jax_core._errors import ModelError

Images = Float[Array, "batch *space channels"]
Pooled = Float[Array, "batch *windows channels"]


def max_pool(x: Images, window: Sequence[int], strides: Sequence[int], padding: str) -> Pooled:
    """The maximum of each window, as `tf.nn.max_pool`.

    Where windows do not overlap, reverse-mode derivatives only.

    Args:
        x: One to three spatial dimensions between batch and channels.
        window: The size of a window in each spatial dimension.
        strides: The distance between windows in each spatial dimension.
        padding: "VALID" or "SAME".

    Raises:
        ModelError: Another padding.

    Example:
        >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> max_pool(x, (2, 2), (2, 2), "VALID").reshape(2, 2).tolist()
        [[5.0, 7.0], [13.0, 15.0]]
    """
    pads = _pads(x, window, strides, padding)
    if tuple(window) == tuple(strides):
        return _max_of_tiles(_to_tiles(x, window, pads, -jnp.inf))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), pads)


def avg_pool(x: Images, window: Sequence[int], strides: Sequence[int], padding: str) -> Pooled:
    """The mean of each window, padding left out, as `tf.nn.avg_pool`.

    Args:
        x: One to three spatial dimensions between batch and channels.
        window: The size of a window in each spatial dimension.
        strides: The distance between windows in each spatial dimension.
        padding: "VALID" or "SAME".

    Raises:
        ModelError: Another padding.

    Example:
        >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> avg_pool(x, (2, 2), (2, 2), "SAME").reshape(2, 2).tolist()
        [[2.0, 3.5], [6.5, 8.0]]
    """
    pads = _pads(x, window, strides, padding)
    if tuple(window) == tuple(strides):
        sums = _to_tiles(x, window, pads, 0.0).sum(_places(len(window)))
    else:
        sums = lax.reduce_window(x, 0.0, lax.add, (1, *window, 1), (1, *strides, 1), pads)
    sizes = x.shape[1:-1]
    counts = functools.reduce(
        np.multiply.outer,
        [
            _real_places(*dimension)
            for dimension in zip(sizes, window, strides, pads[1:-1], strict=True)
        ],
    )
    return sums / jnp.asarray(counts[None, ..., None], sums.dtype)


def _pads(x: Images, window: Sequence[int], strides: Sequence[int], padding: str) -> Sequence:
    if padding not in ("VALID", "SAME"):
        raise ModelError(f"pooling: padding={padding!r} is neither 'VALID' nor 'SAME'.")
    return lax.padtype_to_pads(x.shape, (1, *window, 1), (1, *strides, 1), padding)


def _real_places(size: int, window: int, stride: int, pads: Sequence) -> np.ndarray:
    """How many places of each window, in one dimension, are not padding."""
    first = np.arange(0, size + sum(pads) - window + 1, stride) - pads[0]
    return np.minimum(first + window, size) - np.maximum(first, 0)


def _places(rank: int) -> tuple[int, ...]:
    """Where `_to_tiles` puts the dimensions within a window."""
    return tuple(range(2, 2 * rank + 1, 2))


def _to_tiles(x: Images, window: Sequence[int], pads: Sequence, fill: float) -> Array:
    """`[batch, height, width, channels]` as `[batch, rows, kh, columns, kw, channels]`."""
    shape, config = [x.shape[0]], [(0, 0, 0)]
    for size, places, (low, high) in zip(x.shape[1:-1], window, pads[1:-1], strict=True):
        windows = (size + low + high) // places
        shape += [windows, places]
        config += [(low, windows * places - size - low, 0)]  # less than 0 cuts off what is over
    padded = lax.pad(x, jnp.asarray(fill, x.dtype), [*config, (0, 0, 0)])
    return padded.reshape(*shape, x.shape[-1])


@jax.custom_vjp
def _max_of_tiles(tiles: Array) -> Pooled:
    return tiles.max(_places(tiles.ndim // 2 - 1))


def _forward(tiles: Array) -> tuple[Pooled, tuple[Array, Pooled]]:
    maxima = _max_of_tiles(tiles)
    return maxima, (tiles, maxima)


def _backward(saved: tuple[Array, Pooled], gradient: Pooled) -> tuple[Array]:
    tiles, maxima = saved
    axes = _places(tiles.ndim // 2 - 1)
    window = [tiles.shape[axis] for axis in axes]
    parts, free = [], jnp.ones_like(maxima, bool)  # free: no earlier place was the maximum
    for number, place in enumerate(itertools.product(*map(range, window))):
        here = tiles[_at(place)] == maxima
        last = number == math.prod(window) - 1
        parts.append(jnp.where(free if last else free & here, gradient, 0))
        free = free & ~here
    for places, axis in reversed(list(zip(window, range(2, 2 + len(window)), strict=True))):
        parts = [jnp.stack(parts[i : i + places], axis) for i in range(0, len(parts), places)]
    return (parts[0],)


def is_tiling(window: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether windows, given for all dimensions, lie side by side in images of several rows."""
    return tuple(window) == tuple(strides) and len(window) > 2 and window[0] == window[-1] == 1


def max_pool_gradient(gradient: Pooled, x: Images, window: Sequence[int], pads: Sequence) -> Images:
    """What select-and-scatter gives, where windows do not overlap.

    Args:
        gradient: Of the maxima.
        x: What was pooled.
        window: The size of a window in every dimension, one for batch and channels.
        pads: Before and after, in every dimension.
    """
    cut = _to_tiles(x, window[1:-1], pads, -jnp.inf)
    (found,) = _backward((cut, _max_of_tiles(cut)), gradient)
    padded = found.reshape(
        x.shape[0],
        *(found.shape[axis - 1] * found.shape[axis] for axis in _places(len(window) - 2)),
        x.shape[-1],
    )
    config = [
        (-low, size + low - whole, 0)
        for size, whole, (low, _) in zip(x.shape, padded.shape, pads, strict=True)
    ]
    return lax.pad(padded, jnp.zeros((), x.dtype), config)


def _at(place: tuple[int, ...]) -> tuple:
    """The index of one place in every tile."""
    return (slice(None), *itertools.chain(*[(slice(None), within) for within in place]))


_max_of_tiles.defvjp(_forward, _backward)
