"""Fingerprint64, the hash by which TensorFlow puts unknown words into buckets.

That is FarmHash's `farmhashna::Hash64` (Geoff Pike, Google; github.com/google/farmhash), written
out for Python's integers. Only unknown words are hashed, and only where there are several buckets.
"""

_MASK = 2**64 - 1
_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F


def fingerprint64(text: bytes) -> int:
    """The fingerprint, as `tf.strings.to_hash_bucket_fast` takes it modulo the buckets.

    Example:
        >>> fingerprint64(b"hello") % 1000
        296
    """
    size = len(text)
    if size > 64:
        return _long(text)
    if size > 32:
        return _up_to_64(text)
    if size > 16:
        return _up_to_32(text)
    return _up_to_16(text)


def _at(text: bytes, start: int, size: int = 8) -> int:
    return int.from_bytes(text[start : start + size], "little")


def _rotate(value: int, shift: int) -> int:
    value &= _MASK
    return (value >> shift) | (value << (64 - shift)) & _MASK


def _mix(value: int) -> int:
    value &= _MASK
    return value ^ (value >> 47)


def _pair(u: int, v: int, mul: int) -> int:
    a = _mix(((u ^ v) & _MASK) * mul)
    b = _mix((v ^ a) * mul)
    return b * mul & _MASK


def _up_to_16(s: bytes) -> int:
    size = len(s)
    mul = _K2 + size * 2
    if size >= 8:
        a, b = _at(s, 0) + _K2, _at(s, size - 8)
        return _pair(_rotate(b, 37) * mul + a, (_rotate(a, 25) + b) * mul, mul)
    if size >= 4:
        return _pair(size + (_at(s, 0, 4) << 3), _at(s, size - 4, 4), mul)
    if size > 0:
        y = s[0] + (s[size >> 1] << 8)
        z = size + (s[size - 1] << 2)
        return _mix(y * _K2 ^ z * _K0) * _K2 & _MASK
    return _K2


def _up_to_32(s: bytes) -> int:
    size = len(s)
    mul = _K2 + size * 2
    a, b = _at(s, 0) * _K1, _at(s, 8)
    c, d = _at(s, size - 8) * mul, _at(s, size - 16) * _K2
    first = _rotate(a + b, 43) + _rotate(c, 30) + d
    return _pair(first, a + _rotate(b + _K2, 18) + c, mul)


def _up_to_64(s: bytes) -> int:
    size = len(s)
    mul = _K2 + size * 2
    a, b = _at(s, 0) * _K2, _at(s, 8)
    c, d = _at(s, size - 8) * mul, _at(s, size - 16) * _K2
    y = _rotate(a + b, 43) + _rotate(c, 30) + d
    z = _pair(y, a + _rotate(b + _K2, 18) + c, mul)
    e, f = _at(s, 16) * mul, _at(s, 24)
    g, h = (y + _at(s, size - 32)) * mul, (z + _at(s, size - 24)) * mul
    first = _rotate(e + f, 43) + _rotate(g, 30) + h
    return _pair(first, e + _rotate(f + a, 18) + g, mul)


def _weak_32(s: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = (_at(s, at + 8 * i) for i in range(4))
    a += w
    b = _rotate(b + a + z, 21)
    c = a
    a += x + y
    return (a + z) & _MASK, (b + _rotate(a, 44) + c) & _MASK


def _long(s: bytes) -> int:
    size = len(s)
    y = (81 * _K1 + 113) & _MASK
    z = _mix(y * _K2 + 113) * _K2 & _MASK
    v, w = (0, 0), (0, 0)
    x = 81 * _K2 + _at(s, 0)
    for at in range(0, (size - 1) // 64 * 64, 64):
        x, y, z, v, w = _block(s, at, x, y, z, v, w, _K1, 1)
    mul = _K1 + ((z & 0xFF) << 1)
    w = (w[0] + ((size - 1) & 63), w[1])
    v = (v[0] + w[0], v[1])
    w = (w[0] + v[0], w[1])
    x, y, z, v, w = _block(s, size - 64, x, y, z, v, w, mul, 9)
    first = _pair(v[0], w[0], mul) + _mix(y) * _K0 + z
    return _pair(first, _pair(v[1], w[1], mul) + x, mul)


def _block(s, at, x, y, z, v, w, mul, nine):
    """The step for 64 bytes; the last one multiplies by nine in two places."""
    x = _rotate(x + y + v[0] + _at(s, at + 8), 37) * mul
    y = _rotate(y + v[1] + _at(s, at + 48), 42) * mul
    x ^= w[1] * nine
    y += v[0] * nine + _at(s, at + 40)
    z = _rotate(z + w[0], 33) * mul & _MASK
    v_next = _weak_32(s, at, v[1] * mul, x + w[0])
    w_next = _weak_32(s, at + 32, z + w[1], y + _at(s, at + 16))
    return z, y & _MASK, x & _MASK, v_next, w_next
