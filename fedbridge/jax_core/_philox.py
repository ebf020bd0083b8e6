"""TensorFlow's counter-based random numbers (Philox 4x32-10), in numpy, many blocks at a time.

Whoever knows a seed knows every word: there is no state to carry, `philox_words` reads any stretch
of a stream. That is enough to repeat, bit for bit, `tf.data`'s seeded shuffle, `tf.random.
stateless_uniform` and so the seeded initializers of Keras 2.

Sources: J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011);
tensorflow/core/lib/random/philox_random.h and random_distributions.h (TF 2.14.1).
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt32

_MASK = 0xFFFFFFFF
_STATELESS_KEY = (0x3EC8F720, 0x02461E29)  # scrambles the seed of TensorFlow's stateless functions


def _block(c0: Any, c1: Any, c2: Any, c3: Any, k0: int, k1: int) -> tuple[Any, Any, Any, Any]:
    """One block of four words, of Python integers or of uint64 arrays: the same arithmetic."""
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def _halves(word: int) -> tuple[int, int]:
    return word & _MASK, (word >> 32) & _MASK


def philox_words(seed: int, seed2: int, start: int, count: int) -> UInt32[np.ndarray, " words"]:
    """Words `start` to `start + count` of TensorFlow's `PhiloxRandom(seed, seed2)`.

    Args:
        seed: 64 bits: the key.
        seed2: 64 bits: the upper half of the counter.
        start: How many words of the stream to leave out.
        count: How many words to return.

    Example:
        >>> philox_words(87654321, 1, start=0, count=2)
        array([2870909127, 3455438759], dtype=uint32)
    """
    first, last = start // 4, -(-(start + count) // 4)
    if last - first <= 1:  # a pair of seeds: plain integers are quicker than arrays of one
        words = np.array(_block(*_halves(first), *_halves(seed2), *_halves(seed)), np.uint32)
    else:
        counter = np.arange(first, last, dtype=np.uint64)
        block = _block(counter & _MASK, counter >> 32, *_halves(seed2), *_halves(seed))
        words = np.stack(block, axis=-1).astype(np.uint32).reshape(-1)
    return words[start - 4 * first :][:count]


def _stateless_words(shape: tuple[int, ...], seed: tuple[int, int]) -> UInt32[np.ndarray, " words"]:
    """The words behind `tf.random.stateless_*(shape, seed)`, in whole blocks of four."""
    k0, k1, c0, c1 = _block(*_halves(seed[0]), *_halves(seed[1]), *_STATELESS_KEY)
    return philox_words(k0 | k1 << 32, c0 | c1 << 32, 0, -(-math.prod(shape) // 4) * 4)


def _unit_floats(words: UInt32[np.ndarray, " words"]) -> Float32[np.ndarray, " words"]:
    """23 random bits as the fraction of a float in [1, 2), less 1."""
    return ((words & np.uint32(0x7FFFFF)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)


def stateless_uniform(
    shape: tuple[int, ...], seed: tuple[int, int], minval: float = 0.0, maxval: float = 1.0
) -> Float32[np.ndarray, "..."]:
    """`tf.random.stateless_uniform` in float32, bit for bit.

    Args:
        shape: The shape to return.
        seed: Two integers. Keras 2's seeded initializers use `(seed, 0)`.
        minval: The least value.
        maxval: The bound that is not reached.
    """
    low = np.float32(minval)
    units = _unit_floats(_stateless_words(shape, seed))[: math.prod(shape)]
    return (units * (np.float32(maxval) - low) + low).reshape(shape)


def stateless_normal(
    shape: tuple[int, ...], seed: tuple[int, int], mean: float = 0.0, stddev: float = 1.0
) -> Float32[np.ndarray, "..."]:
    """`tf.random.stateless_normal` in float32, to the last bit but one.

    TensorFlow's Box-Muller transform; its logarithm, sine and cosine are those of the C library,
    and one or two values in a hundred come out one bit apart.

    Args:
        shape: The shape to return.
        seed: Two integers. Keras 2's seeded initializers use `(seed, 0)`.
        mean: The mean.
        stddev: The standard deviation.
    """
    u1, u2 = _unit_floats(_stateless_words(shape, seed)).reshape(-1, 2).T
    logarithm = np.log(np.maximum(u1, np.float32(1e-7)).astype(np.float64)).astype(np.float32)
    radius = np.sqrt(np.float32(-2) * logarithm)
    angle = (2 * np.pi * u2.astype(np.float64)).astype(np.float32).astype(np.float64)
    pair = np.stack([np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32) * radius[:, None]
    values = pair.reshape(-1)[: math.prod(shape)].reshape(shape)
    return np.asarray(values * np.float32(stddev) + np.float32(mean))
