"""The wire format of one tf.train.Example: where its values lie.

By the book: later entries of a map replace earlier ones, so do other members of a oneof; repeated
messages are merged; unknown fields are skipped, but not those of a map's entry.

Reference: tensorflow/core/example/{example,feature}.proto and the protobuf wire format.
"""

from typing import NamedTuple

import numpy as np

BYTES, FLOAT, INT64 = 1, 2, 3  # the field numbers of Feature.kind

_VARINT, _FIXED64, _LENGTH, _GROUP, _END_GROUP, _FIXED32 = range(6)
_MAX_DEPTH = 100  # protobuf's own limit on nested groups


class Span(NamedTuple):
    """Where one value, or one packed run of values, lies in a record."""

    start: int
    stop: int
    packed: bool


class Feature(NamedTuple):
    """One feature of one record: its kind, and where its values lie."""

    kind: int
    spans: list[Span]


class DamageError(ValueError):
    """Bytes that are no tf.train.Example; becomes a ClientDataError that says where."""


def find_values(record: bytes) -> dict[str, Feature]:
    """The features of a record: their kinds, and where their values lie.

    Raises:
        DamageError: The bytes are no tf.train.Example.
    """
    features: dict[str, Feature] = {}
    for number, wire, a, b in _fields(record, 0, len(record)):
        if number == 1 and wire == _LENGTH:  # Example.features; a repeated message is merged
            for number, wire, c, d in _fields(record, a, b):
                if number == 1 and wire == _LENGTH:  # an entry of Features.feature
                    name, feature = _entry(record, c, d)
                    features[name] = feature
    return {name: feature for name, feature in features.items() if feature.kind}


def _entry(record: bytes, start: int, stop: int) -> tuple[str, Feature]:
    name, kind, spans = b"", 0, []
    for number, wire, a, b in _fields(record, start, stop):
        if wire != _LENGTH or number > 2:
            # protobuf's own parsers disagree here: C++ keeps the entry, upb drops it, and
            # TensorFlow refuses it.
            raise DamageError(f"an entry with a field {number} at byte {a}")
        if number == 1:
            name = record[a:b]
            _text(name)
            continue
        for member, wire, c, d in _fields(record, a, b):
            if wire == _LENGTH and member in (BYTES, FLOAT, INT64):
                if member != kind:  # another member of the oneof clears the first
                    kind, spans = member, []
                spans += _value_spans(record, c, d, member)
    return _text(name), Feature(kind, spans)


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise DamageError(f"the feature name {name!r} is not UTF-8") from None


def _value_spans(record: bytes, start: int, stop: int, kind: int) -> list[Span]:
    """Where the values lie in a BytesList, FloatList or Int64List."""
    spans = []
    single = {BYTES: _LENGTH, FLOAT: _FIXED32, INT64: _VARINT}[kind]
    for number, wire, a, b in _fields(record, start, stop):
        if number != 1:
            continue
        if wire == single:
            spans.append(Span(a, b, False))
        elif wire == _LENGTH:
            if kind == FLOAT and (b - a) % 4:
                raise DamageError(f"{b - a} bytes of packed floats")
            if kind == INT64 and not (b - a == 1 and record[a] < 0x80):
                decode_varints(np.frombuffer(record, np.uint8, b - a, a))
            if b > a:
                spans.append(Span(a, b, True))
    return spans


def _fields(record: bytes, start: int, stop: int) -> list[tuple[int, int, int, int]]:
    """The fields of a message: (number, wire type, start and end of the value)."""
    fields = []
    while start < stop:
        tag = record[start]
        if 8 <= tag < 0x80:
            start += 1
        else:
            tag, start = _tag(record, start, stop)
        wire = tag & 7
        if wire == _LENGTH and start < stop and record[start] < 0x80:  # by far the most frequent
            value = start + 1
            start = value + record[start]
            if start > stop:
                raise DamageError(f"it ends within the value at byte {value}")
        else:
            value, start = _skip(record, start, stop, tag >> 3, wire, 0)
        fields.append((tag >> 3, wire, value, start))
    return fields


def _skip(
    record: bytes, start: int, stop: int, number: int, wire: int, depth: int
) -> tuple[int, int]:
    """The start and the end of a value."""
    value = start
    if wire == _LENGTH:
        size, value = _read_varint(record, start, stop)
        end = value + size
    elif wire == _VARINT:
        _, end = _read_varint(record, start, stop)
    elif wire == _FIXED32:
        end = start + 4
    elif wire == _FIXED64:
        end = start + 8
    elif wire == _GROUP and depth < _MAX_DEPTH:
        end = _skip_group(record, start, stop, number, depth)
    else:
        raise DamageError(f"wire type {wire} at byte {start}")
    if end > stop:
        raise DamageError(f"it ends within the value at byte {start}")
    return value, end


def _skip_group(record: bytes, start: int, stop: int, group: int, depth: int) -> int:
    while start < stop:
        tag, start = _tag(record, start, stop)
        number, wire = tag >> 3, tag & 7
        if wire == _END_GROUP:
            if number != group:
                break
            return start
        _, start = _skip(record, start, stop, number, wire, depth + 1)
    raise DamageError(f"a group without its end at byte {start}")


def _tag(record: bytes, start: int, stop: int) -> tuple[int, int]:
    tag, end = _read_varint(record, start, stop)
    if tag < 8 or tag >> 32 or end - start > 5:
        raise DamageError(f"no field has the tag at byte {start}")
    return tag, end


def _read_varint(record: bytes, start: int, stop: int) -> tuple[int, int]:
    value = 0
    for i in range(start, min(start + 10, stop)):
        byte = record[i]
        value |= (byte & 0x7F) << 7 * (i - start)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, i + 1
    raise DamageError(f"a number without an end at byte {start}")


def decode_varints(data: np.ndarray) -> np.ndarray:
    """A run of varints as int64; bits beyond the 64th are dropped, as protobuf does."""
    last = data < 0x80
    if last.all():
        return data.astype(np.int64)
    ends = np.flatnonzero(last)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
    sizes = ends - starts + 1 if len(ends) else starts
    if not last[-1] or sizes.max() > 10:
        raise DamageError("a packed number without an end")
    shifts = 7 * (np.arange(len(data)) - np.repeat(starts, sizes))
    parts = (data & 0x7F).astype(np.uint64) << shifts.astype(np.uint64)
    return np.bitwise_or.reduceat(parts, starts).view(np.int64)
