"""The words of many texts at once: where they lie, and what a vocabulary calls them.

A word of at most 16 bytes is two numbers, so that all words of a block are looked up together, each
exactly, and none is cut out of its text. Longer words, and whatever holds a zero byte, are looked
up one by one.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt64

from fedbridge.preprocessing._vocabulary import Vocabulary

_SPACE = ord(" ")
_LONGEST = 16  # bytes of a word that is two numbers
_LOW_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)  # odd, bits well mixed
_SLOTS = 8  # at least, for every word of a vocabulary


class Words(NamedTuple):
    """Words between single spaces: those of all texts, one after another.

    Attributes:
        text: The bytes that they lie in, and some zeros behind.
        starts: Where a word begins in them.
        stops: Where it ends.
        counts: How many words each text has.
    """

    text: UInt8[np.ndarray, " bytes"]
    starts: Int64[np.ndarray, " words"]
    stops: Int64[np.ndarray, " words"]
    counts: Int64[np.ndarray, " texts"]


class WordTable(NamedTuple):
    """The short words of a vocabulary by a hash of their numbers, the next free slot if taken."""

    first: UInt64[np.ndarray, " slots"]
    second: UInt64[np.ndarray, " slots"]
    ids: Int32[np.ndarray, " slots"]


def first_words(
    values: UInt8[np.ndarray, " bytes"], edges: Int64[np.ndarray, " edges"], most: int
) -> Words:
    """Of each text the words up to `most`; a text without a space is one word, also if empty.

    Args:
        values: The texts one after another.
        edges: Text t is `values[edges[t]:edges[t + 1]]`.
        most: Words of a text.

    Example:
        >>> text = np.frombuffer(b"to be  or", np.uint8)
        >>> words = first_words(text, np.array([0, 5, 5, 9]), 2)
        >>> words.counts.tolist(), words.starts.tolist(), words.stops.tolist()
        ([2, 1, 2], [0, 3, 5, 5, 6], [2, 5, 5, 5, 6])
    """
    text = np.concatenate([values[edges[0] : edges[-1]], np.zeros(_LONGEST, np.uint8)])
    edges = edges - edges[0]
    spaces = np.flatnonzero(text[: edges[-1]] == _SPACE)
    before = np.searchsorted(spaces, edges)  # spaces before a text
    counts = np.diff(before) + 1
    first = before[:-1] + np.arange(len(counts))  # its first word
    starts, stops = np.empty(counts.sum(), np.int64), np.empty(counts.sum(), np.int64)
    after = np.arange(len(spaces)) + np.repeat(np.arange(len(counts)), counts - 1)
    starts[first], starts[after + 1] = edges[:-1], spaces + 1
    stops[first + counts - 1], stops[after] = edges[1:], spaces
    if counts.max(initial=0) > most:
        kept = np.arange(len(starts)) - np.repeat(first, counts) < most
        starts, stops, counts = starts[kept], stops[kept], np.minimum(counts, most)
    return Words(text, starts, stops, counts)


def word_table(vocabulary: Vocabulary) -> WordTable:
    """The table of a vocabulary, for `lookup`."""
    slots = 1 << (len(vocabulary) * _SLOTS - 1).bit_length()
    free_slots = np.zeros((2, slots), np.uint64)
    table = WordTable(free_slots[0], free_slots[1], np.full(slots, -1, np.int32))
    short = [word for word in vocabulary if len(word) <= _LONGEST and b"\0" not in word]
    ids = np.fromiter(map(vocabulary.get, short), np.int32, len(short))
    stops = np.cumsum([0, *map(len, short)])
    text = np.frombuffer(b"".join([*short, bytes(_LONGEST)]), np.uint8)
    first, second = _numbers(text, stops[:-1], stops[1:])
    slot, left = _slot(first, second, slots), np.arange(len(short))
    while len(left):
        free = left[table.ids[slot[left]] < 0]
        table.ids[slot[free]] = ids[free]  # one of those that ask for a slot gets it
        has = table.ids[slot[left]] == ids[left]
        put, left = left[has], left[~has]
        table.first[slot[put]], table.second[slot[put]] = first[put], second[put]
        slot[left] = (slot[left] + 1) % slots
    return table


def lookup(words: Words, table: WordTable, vocabulary: Vocabulary) -> Int32[np.ndarray, " words"]:
    """The ids of these words, as `vocabulary.lookup` gives them.

    Args:
        words: The words.
        table: That of the vocabulary.
        vocabulary: For what the table does not know.

    Example:
        >>> vocabulary = Vocabulary(["be", "to"])
        >>> words = first_words(np.frombuffer(b"to be or", np.uint8), np.array([0, 8]), 9)
        >>> lookup(words, word_table(vocabulary), vocabulary).tolist()
        [1, 0, 2]
    """
    text, starts, stops, _ = words
    ids = np.full(len(starts), -1, np.int32)
    plain = text[:-_LONGEST].all()  # no byte is zero
    short = np.flatnonzero((stops - starts <= _LONGEST) & plain)
    first, second = _numbers(text, starts[short], stops[short])
    slot = _slot(first, second, len(table.ids))
    left = np.arange(len(short))
    while len(left):
        at = slot[left]
        found = table.ids[at]
        same = (table.first[at] == first[left]) & (table.second[at] == second[left])
        ids[short[left]] = np.where(same, found, -1)
        left = left[~same & (found >= 0)]  # taken by another word: it may be in the next
        slot[left] = (slot[left] + 1) % len(table.ids)
    if vocabulary.num_oov_buckets == 1:
        ids[short] = np.where(ids[short] < 0, len(vocabulary), ids[short])
    other = np.flatnonzero(ids < 0)
    data, ends = text.tobytes() if len(other) else b"", stops[other].tolist()
    texts = [data[a:b] for a, b in zip(starts[other].tolist(), ends, strict=True)]
    ids[other] = vocabulary.lookup(texts)
    return ids


def _numbers(text: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, ...]:
    """The first 8 bytes of short words as a number, and the second; zero behind a word's end."""
    every = np.ndarray(max(len(text) - 7, 0), "<u8", text, strides=(1,))  # one begins at each byte
    sizes = stops - starts
    first = every[starts] & _LOW_BYTES[np.minimum(sizes, 8)]
    second = np.zeros(len(starts), np.uint64)
    long = np.flatnonzero(sizes > 8)
    second[long] = every[starts[long] + 8] & _LOW_BYTES[sizes[long] - 8]
    return first, second


def _slot(first: np.ndarray, second: np.ndarray, slots: int) -> np.ndarray:
    mixed = first * _FACTORS[0] ^ second * _FACTORS[1]
    return (mixed >> np.uint64(65 - slots.bit_length())).astype(np.int64)
