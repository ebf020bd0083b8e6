"""tf.train.Examples of various lengths, taken apart side by side.

Records that hold text rarely share a layout, but they share their *shape*: one message of features,
each there once, in one list, with one string or one packed run of numbers. All records are walked
through at once, one header after another, each with a place of its own. What has another shape does
not fit, and is parsed by the book, so that this file only ever says what the book says.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from fedbridge.tff_io._wire import BYTES

_BEYOND = 8  # bytes behind the last record, so that a header may be looked for at its end


class Spans(NamedTuple):
    """Where the value of a feature lies in each record, among the joined bytes of all of them."""

    starts: Int64[np.ndarray, " records"]
    stops: Int64[np.ndarray, " records"]


def joined_records(
    records: Sequence[bytes],
) -> tuple[bytes, UInt8[np.ndarray, " bytes"], Int64[np.ndarray, " edges"]]:
    """The bytes of all records, the same as an array, and where each record begins."""
    edges = np.zeros(len(records) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, records), np.int64, len(records)), out=edges[1:])
    joined = b"".join([*records, bytes(_BEYOND)])
    return joined, np.frombuffer(joined, np.uint8), edges


def find_spans(
    data: UInt8[np.ndarray, " bytes"], edges: Int64[np.ndarray, " edges"], kinds: Mapping[str, int]
) -> tuple[Bool[np.ndarray, " records"], dict[str, Spans]]:
    """Which records have exactly these features in the plain shape, and where their values lie.

    Args:
        data: The joined records, with some bytes behind them.
        edges: Record r is `data[edges[r]:edges[r + 1]]`.
        kinds: All features of a record, with their kinds; quickest in the order of the file.
    """
    names, ends = list(kinds), edges[1:]
    kind_of = np.array([kinds[name] for name in names])
    seen = np.zeros(len(ends), np.int64)
    spans = {name: Spans(np.zeros(len(ends), np.int64), ends.copy()) for name in names}
    fits, at, size = _header(data, edges[:-1], 1)
    fits &= at + size == ends
    for turn in range(len(names)):
        fits, at, stops = _within(data, fits, at, 1, ends)  # an entry of the map
        name_fits, name_at, name_size = _header(data, at, 1)
        fits &= name_fits & (name_at + name_size < stops)
        which = _which(data, fits, name_at, name_size, names, turn)
        fits &= which >= 0
        fits, at, _ = _within(data, fits, name_at + name_size, 2, stops, whole=True)  # its feature
        fits, at, _ = _within(data, fits, at, kind_of[which], stops, whole=True)  # its list
        fits, starts, _ = _within(data, fits, at, 1, stops, whole=True)  # its one string or run
        for i, name in enumerate(names):
            here = np.flatnonzero(fits & (which == i))
            spans[name].starts[here], spans[name].stops[here] = starts[here], stops[here]
        seen |= np.where(fits, 1 << which, 0)
        at = np.where(fits, stops, ends)
    fits &= (at == ends) & (seen == (1 << len(names)) - 1)
    for name, kind in kinds.items():
        starts, stops = spans[name]
        fits &= (kind == BYTES) | (stops > starts)
    return fits, spans


def gather(
    data: UInt8[np.ndarray, " bytes"], spans: Spans
) -> tuple[UInt8[np.ndarray, " values"], Int64[np.ndarray, " edges"]]:
    """The bytes of these spans one after another, and where each begins."""
    sizes = spans.stops - spans.starts
    edges = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=edges[1:])
    return data[np.repeat(spans.starts - edges[:-1], sizes) + np.arange(edges[-1])], edges


def _header(
    data: np.ndarray, at: np.ndarray, number: int | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether a length-delimited field of this number begins here; its content's start and size."""
    at = np.minimum(at, len(data) - 4)
    first = data[at + 1]
    size, after = first.astype(np.int64), at + 2
    fits = data[at] == number << 3 | 2
    long = np.flatnonzero(first >= 0x80)  # lengths of two or three bytes
    if len(long):
        second = data[at[long] + 2].astype(np.int64)
        third = np.where(second < 0x80, 0, data[at[long] + 3]).astype(np.int64)
        size[long] = size[long] & 0x7F | (second & 0x7F) << 7 | third << 14
        after[long] += 1 + (second >= 0x80)
        fits[long] &= third < 0x80
    return fits, after, size


def _within(
    data: np.ndarray,
    fits: np.ndarray,
    at: np.ndarray,
    number: int | np.ndarray,
    stops: np.ndarray,
    *,
    whole: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a field begins and ends that does not pass `stops`, or goes up to it if `whole`."""
    found, start, size = _header(data, at, number)
    end = start + size
    return fits & found & ((end == stops) if whole else (end <= stops)), start, end


def _which(
    data: np.ndarray,
    fits: np.ndarray,
    at: np.ndarray,
    size: np.ndarray,
    names: Sequence[str],
    turn: int,
) -> np.ndarray:
    """Which of the names stands at these places; -1 for none. Most often it is the turn's own."""
    which = np.full(len(at), -1)
    left = np.flatnonzero(fits)
    for i in [turn, *(i for i in range(len(names)) if i != turn)]:
        name = np.frombuffer(names[i].encode(), np.uint8)
        long = left[size[left] == len(name)]
        same = (data[at[long, None] + np.arange(len(name))] == name).all(axis=1)
        which[long[same]] = i
        left = left[which[left] < 0]
        if not len(left):
            break
    return which
