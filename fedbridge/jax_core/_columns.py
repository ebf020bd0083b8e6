"""Columns: the rows of one feature as they are stored, which know how to decode themselves.

A plain array stands for itself, `Fraction255` holds the numerators of pixels (a quarter of the
memory, and not one bit of difference), `Ragged` holds strings or ids of various lengths.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int64, UInt8

Column = Any
"""A plain array `[rows, ...]`, a `Fraction255` or a `Ragged`."""

_TABLE = np.arange(256, dtype=np.float32) / np.float32(255)
# 1/255 = _HIGH + _LOW. _HIGH has 16 significant bits, so that its product with an 8-bit number is
# exact, and the sum below is rounded once: it is k/255 to the last bit. A plain division would not
# be: compilers turn the division by a constant into a product with its rounded inverse.
_HIGH = np.float32(0x8080) / np.float32(1 << 23)
_LOW = np.float32(1 / 255 - 0x8080 / (1 << 23))


class Fraction255(NamedTuple):
    """Rows of float32 numbers k/255, kept as the integers k.

    Example:
        >>> Fraction255(np.array([[0, 51, 255]], np.uint8)).decode().tolist()
        [[0.0, 0.20000000298023224, 1.0]]
    """

    numerators: UInt8[Any, "..."]

    def decode(self) -> Float32[Any, "..."]:
        """The numbers: bitwise float32(k) / float32(255), in NumPy as in a compiled program."""
        if isinstance(self.numerators, np.ndarray | np.generic):
            return _TABLE[np.asarray(self.numerators, np.uint8)]
        k = jnp.asarray(self.numerators).astype(jnp.float32)
        return k * _HIGH + k * _LOW

    def take(self, rows: Any) -> "Fraction255":
        """The column of these rows (an index array or a slice)."""
        return Fraction255(self.numerators[rows])


class Ragged(NamedTuple):
    """Rows of various lengths: strings (uint8 values) or ids.

    Attributes:
        values: The values of all rows, one after another.
        offsets: Row r owns `values[offsets[r]:offsets[r + 1]]`.

    Example:
        >>> Ragged.from_rows([b"to be", b"", b"or not"]).decode().tolist()
        [b'to be', b'', b'or not']
    """

    values: Any
    offsets: Int64[Any, " edges"]

    @classmethod
    def from_rows(cls, rows: Sequence[bytes]) -> "Ragged":
        """Packs strings."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(rows), np.uint8), offsets)

    def decode(self) -> np.ndarray:
        """An object array: `bytes` for uint8 values, arrays of ids otherwise. On the host only."""
        rows = np.empty(len(self.offsets) - 1, object)
        ends = np.asarray(self.offsets).tolist()
        if self.values.dtype == np.uint8:
            data = self.values[ends[0] : ends[-1]].tobytes()
            ends = (np.asarray(self.offsets) - ends[0]).tolist()
        else:
            data = self.values
        for i in range(len(rows)):
            rows[i] = data[ends[i] : ends[i + 1]]
        return rows

    def take(self, rows: Any) -> "Ragged":
        """The column of these rows (an index array or a slice)."""
        starts, sizes = self.offsets[:-1][rows], np.diff(self.offsets)[rows]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
        where = np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Ragged(self.values[where], offsets)


def encode_column(values: np.ndarray) -> Column:
    """The column that stores these values in the least space without changing a bit.

    float32 values become a `Fraction255` where every one of them is a 255th, checked bit by bit;
    other arrays stay as they are.

    Example:
        >>> type(encode_column(np.array([[0.2, 1.0]], np.float32))).__name__
        'Fraction255'
    """
    if values.dtype != np.float32 or values.size == 0:
        return values
    with np.errstate(invalid="ignore", over="ignore"):  # what is no 255th does not survive anyway
        numerators = np.rint(np.clip(values, 0, 1) * np.float32(255)).astype(np.uint8)
    same = _TABLE[numerators].view(np.uint32) == np.ascontiguousarray(values).view(np.uint32)
    return Fraction255(numerators) if same.all() else values


def decode_column(column: Column) -> Any:
    """The values of a column."""
    return column.decode() if isinstance(column, Fraction255 | Ragged) else column


def decode_columns(columns: Mapping[str, Column]) -> dict[str, Any]:
    """The values of several columns, by feature."""
    return {name: decode_column(column) for name, column in columns.items()}


def take_rows(column: Column, rows: Any) -> Column:
    """The column of these rows (an index array or a slice)."""
    return column.take(rows) if isinstance(column, Fraction255 | Ragged) else column[rows]


def filled_up(column: Ragged, width: int | None = None) -> np.ndarray:
    """Ragged ids as a rectangle, filled up with -1.

    Args:
        column: The ids.
        width: Of the rectangle; default the next power of two of the longest row.
    """
    sizes = np.diff(column.offsets)
    if width is None:
        width = 1 << max(0, int(sizes.max(initial=0)) - 1).bit_length()
    rectangle = np.full((len(sizes), width), -1, column.values.dtype)
    rectangle[np.arange(width)[None, :] < sizes[:, None]] = column.values
    return rectangle


def num_rows(column: Column) -> int:
    """The number of rows of a column."""
    if isinstance(column, Ragged):
        return len(column.offsets) - 1
    return len(column.numerators if isinstance(column, Fraction255) else column)


def describe(column: Column) -> str:
    """What a column holds, for people."""
    if isinstance(column, Ragged):
        return "strings" if column.values.dtype == np.uint8 else f"{column.values.dtype}[...]"
    if isinstance(column, Fraction255):
        return f"float32{list(column.numerators.shape[1:])} as 255ths"
    return f"{column.dtype}{list(column.shape[1:])}"
