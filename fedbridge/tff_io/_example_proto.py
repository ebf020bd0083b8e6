"""tf.train.Example without TensorFlow: many records at once.

The records of a data set mostly share a *layout*: the same length, and the same bytes everywhere
but in the values. One record is then parsed by the book (`_layout`), which says where its values
lie; the values of all records of that layout are taken out of one byte matrix. A record that fits
no layout is parsed by itself, in the same way.

Reference: tensorflow/core/example/{example,feature}.proto and the protobuf wire format.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedbridge.jax_core import ClientDataError

BYTES, FLOAT, INT64 = 1, 2, 3  # the field numbers of Feature.kind
KIND_NAMES = {BYTES: "strings", FLOAT: "floats", INT64: "integers"}

_VARINT, _FIXED64, _LENGTH, _GROUP, _END_GROUP, _FIXED32 = range(6)
_MAX_DEPTH = 100  # protobuf's own limit on nested groups
_FEW = 8  # fewer records than this are not worth a matrix


class Span(NamedTuple):
    """Where one value, or one packed run of values, lies in a record."""

    start: int
    stop: int
    packed: bool


class Feature(NamedTuple):
    """One feature of one record: its kind, and where its values lie."""

    kind: int
    spans: list[Span]


class Values(NamedTuple):
    """The values of one feature in many records.

    Attributes:
        kind: BYTES, FLOAT or INT64.
        values: A list of strings, or a float32 or int64 array; one record after another.
        counts: The number of values of each record.
    """

    kind: int
    values: Any
    counts: np.ndarray


class _DamageError(ValueError):
    """Bytes that are no tf.train.Example; becomes a ClientDataError that says where."""


def parse_example(record: bytes, where: str = "a record") -> dict[str, tuple[int, Any]]:
    """Parses one serialized tf.train.Example.

    Args:
        record: The serialized record.
        where: Names the record in errors.

    Returns:
        Feature name to (kind, values), in the order of the names; a feature without a kind is left
        out, as TensorFlow does.

    Raises:
        ClientDataError: The bytes are no tf.train.Example.

    Example:
        >>> parse_example(serialize_example({"label": np.int64(7)}))
        {'label': (3, array([7]))}
    """
    try:
        layout = _layout(record)
        return {
            name: (feature.kind, _values(record, feature))
            for name, feature in sorted(layout.items())
        }
    except _DamageError as error:
        raise _damaged(where, error) from None


def parse_examples(
    records: Sequence[bytes],
    kinds: Mapping[str, int],
    where: Callable[[int], str] = "record {}".format,
    *,
    exact: bool = False,
) -> dict[str, Values]:
    """Parses many serialized tf.train.Examples; quick where they share their layout.

    Args:
        records: The serialized records.
        kinds: The features to read, with their kinds.
        where: Names the record of an index, for errors.
        exact: Refuse records with other features beside these; otherwise those are left unread,
            as TensorFlow does.

    Raises:
        ClientDataError: A record that is no tf.train.Example, lacks a feature, or holds values of
            another kind in it.
    """
    groups: dict[int, list[int]] = {}
    for i, record in enumerate(records):
        groups.setdefault(len(record), []).append(i)
    order: list[np.ndarray] = []
    parts: list[Mapping[str, Values]] = []
    singles: list[int] = []
    for group in groups.values():
        rows = np.array(group)
        while len(rows) >= _FEW:
            layout = _checked_layout(records[rows[0]], kinds, where, rows[0], exact)
            alike, matrix, rows = _alike(records, rows, layout)
            try:
                parts.append({name: _gather(matrix, layout[name]) for name in kinds})
            except _DamageError:  # in which of them? One at a time finds it
                singles += alike.tolist()
            else:
                order.append(alike)
            if len(alike) < _FEW:
                break
        singles += rows.tolist()
    layouts = [_checked_layout(records[i], kinds, where, i, exact) for i in singles]
    order.append(np.array(singles, np.int64))
    parts.append({name: _each(records, singles, layouts, name, kinds[name]) for name in kinds})
    return _in_order(parts, np.concatenate(order), kinds)


def serialize_example(features: Mapping[str, Any]) -> bytes:
    """Serializes one tf.train.Example, features in the order of their names.

    Args:
        features: Feature name to a string, or an array of floats, integers or booleans. As in
            TFF's `save_to_sql_client_data`, shapes are not stored and floats become float32.

    Raises:
        ClientDataError: A feature of another type.
    """
    entries = []
    for name in sorted(features):
        values = features[name]
        if isinstance(values, str):
            values = values.encode()
        if isinstance(values, bytes):
            feature = _field(BYTES, _field(1, values))
        else:
            values = np.asarray(values)
            if values.dtype.kind == "f":
                feature = _field(FLOAT, _field(1, values.astype("<f4").tobytes()))
            elif values.dtype.kind in "iub" and values.dtype != np.uint64:
                packed = b"".join(_varint(v) for v in values.ravel().tolist())
                feature = _field(INT64, _field(1, packed))
            else:
                raise ClientDataError(
                    f"feature {name!r}: a tf.train.Example cannot hold {values.dtype}; give "
                    "strings, floats or integers of at most 63 bits."
                )
        entries.append(_field(1, _field(1, name.encode()) + _field(2, feature)))
    return _field(1, b"".join(entries))


# --- the layout of one record -----------------------------------------------------------------


def _layout(record: bytes) -> dict[str, Feature]:
    """The features of a record, by the book: later map entries replace, later oneofs replace."""
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
        if wire != _LENGTH:
            continue
        if number == 1:
            name = record[a:b]
            _text(name)
        elif number == 2:
            for member, wire, c, d in _fields(record, a, b):
                if wire == _LENGTH and member in KIND_NAMES:
                    if member != kind:  # another member of the oneof clears the first
                        kind, spans = member, []
                    spans += _value_spans(record, c, d, member)
    return _text(name), Feature(kind, spans)


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise _DamageError(f"the feature name {name!r} is not UTF-8") from None


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
                raise _DamageError(f"{b - a} bytes of packed floats")
            if kind == INT64 and not (b - a == 1 and record[a] < 0x80):
                _decode_varints(np.frombuffer(record, np.uint8, b - a, a))
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
                raise _DamageError(f"it ends within the value at byte {value}")
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
        raise _DamageError(f"wire type {wire} at byte {start}")
    if end > stop:
        raise _DamageError(f"it ends within the value at byte {start}")
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
    raise _DamageError(f"a group without its end at byte {start}")


def _tag(record: bytes, start: int, stop: int) -> tuple[int, int]:
    tag, end = _read_varint(record, start, stop)
    if tag < 8 or tag >> 32 or end - start > 5:
        raise _DamageError(f"no field has the tag at byte {start}")
    return tag, end


def _read_varint(record: bytes, start: int, stop: int) -> tuple[int, int]:
    value = 0
    for i in range(start, min(start + 10, stop)):
        byte = record[i]
        value |= (byte & 0x7F) << 7 * (i - start)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, i + 1
    raise _DamageError(f"a number without an end at byte {start}")


# --- values -----------------------------------------------------------------------------------


def _values(record: bytes, feature: Feature) -> Any:
    """The values of a feature of one record."""
    pieces = [record[span.start : span.stop] for span in feature.spans]
    if feature.kind == BYTES:
        return pieces
    joined = np.frombuffer(b"".join(pieces), np.uint8)
    if feature.kind == FLOAT:
        return joined.view("<f4").astype(np.float32)
    return _decode_varints(joined)


def _decode_varints(data: np.ndarray) -> np.ndarray:
    """A run of varints as int64; bits beyond the 64th are dropped, as protobuf does."""
    last = data < 0x80
    if last.all():
        return data.astype(np.int64)
    ends = np.flatnonzero(last)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
    sizes = ends - starts + 1 if len(ends) else starts
    if not last[-1] or sizes.max() > 10:
        raise _DamageError("a packed number without an end")
    shifts = 7 * (np.arange(len(data)) - np.repeat(starts, sizes))
    parts = (data & 0x7F).astype(np.uint64) << shifts.astype(np.uint64)
    return np.bitwise_or.reduceat(parts, starts).view(np.int64)


def _alike(
    records: Sequence[bytes], rows: np.ndarray, layout: Mapping[str, Feature]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of records of one length: those of the layout of the first, their bytes, and the others.

    A layout fixes every byte but those of values; of a number outside a packed run, it also fixes
    where it ends.
    """
    size = len(records[rows[0]])
    matrix = np.frombuffer(b"".join([records[i] for i in rows]), np.uint8).reshape(len(rows), size)
    fixed = np.full(size, 0xFF, np.uint8)
    for feature in layout.values():
        for span in feature.spans:
            loose = feature.kind == INT64 and not span.packed
            fixed[span.start : span.stop] = 0x80 if loose else 0
    columns = np.flatnonzero(fixed)
    same = (matrix[:, columns] & fixed[columns]) == (matrix[0, columns] & fixed[columns])
    fits = same.all(axis=1)
    if fits.all():
        return rows, matrix, rows[:0]
    return rows[fits], matrix[fits], rows[~fits]


def _gather(matrix: np.ndarray, feature: Feature) -> Values:
    """The values of a feature of all records of a layout."""
    count, spans = len(matrix), feature.spans
    if feature.kind == BYTES:
        values = [row[s.start : s.stop].tobytes() for row in matrix for s in spans]
        return Values(BYTES, values, np.full(count, len(spans)))
    pieces = [matrix[:, span.start : span.stop] for span in spans]
    joined = pieces[0] if len(pieces) == 1 else np.concatenate([matrix[:, :0], *pieces], axis=1)
    if feature.kind == FLOAT:
        values = np.ascontiguousarray(joined).view("<f4").astype(np.float32, copy=False)
        return Values(FLOAT, values.reshape(-1), np.full(count, joined.shape[1] // 4))
    if any((piece[:, -1] >= 0x80).any() for piece in pieces):
        raise _DamageError("a packed number without an end")
    return Values(INT64, _decode_varints(joined.reshape(-1)), (joined < 0x80).sum(axis=1))


def _each(
    records: Sequence[bytes],
    rows: Sequence[int],
    layouts: Sequence[Mapping[str, Feature]],
    name: str,
    kind: int,
) -> Values:
    """The values of a feature of records that were parsed one by one."""
    pieces = [_values(records[i], layout[name]) for i, layout in zip(rows, layouts, strict=True)]
    counts = np.array([len(piece) for piece in pieces], np.int64)
    if kind == BYTES:
        return Values(BYTES, [value for piece in pieces for value in piece], counts)
    dtype = np.float32 if kind == FLOAT else np.int64
    return Values(kind, np.concatenate([np.zeros(0, dtype), *pieces]), counts)


def _checked_layout(
    record: bytes, kinds: Mapping[str, int], where: Callable[[int], str], row: int, exact: bool
) -> Mapping[str, Feature]:
    try:
        layout = _layout(record)
        for name, kind in kinds.items():
            if name not in layout:
                raise _DamageError(f"it has no feature {name!r}")
            if layout[name].kind != kind:
                raise _DamageError(
                    f"its feature {name!r} holds {KIND_NAMES[layout[name].kind]} instead of "
                    f"{KIND_NAMES[kind]}"
                )
        if exact and len(layout) > len(kinds):
            extra = min(set(layout) - set(kinds))
            raise _DamageError(f"it has a feature {extra!r} that the first record lacks")
    except _DamageError as error:
        raise _damaged(where(int(row)), error) from None
    return layout


def _in_order(
    parts: Sequence[Mapping[str, Values]], rows: np.ndarray, kinds: Mapping[str, int]
) -> dict[str, Values]:
    """Puts the values of the records `rows` into the order of the records."""
    back = np.argsort(rows, kind="stable")
    result = {}
    for name, kind in kinds.items():
        counts = np.concatenate([part[name].counts for part in parts])
        if kind == BYTES:
            values: Any = [value for part in parts for value in part[name].values]
        else:
            values = np.concatenate([part[name].values for part in parts])
        if (np.diff(rows) < 0).any():
            starts, sizes = (np.cumsum(counts) - counts)[back], counts[back]
            index = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
            values = [values[i] for i in index.tolist()] if kind == BYTES else values[index]
            counts = sizes
        result[name] = Values(kind, values, counts)
    return result


def _damaged(where: str, error: _DamageError) -> ClientDataError:
    return ClientDataError(
        f"{where}: this is no tf.train.Example of the expected features ({error}); "
        "the file is damaged or of another kind, fetch or write it again."
    )


# --- writing ----------------------------------------------------------------------------------


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    value = int(value) & 0xFFFFFFFFFFFFFFFF
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
