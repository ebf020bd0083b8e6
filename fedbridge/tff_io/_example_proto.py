"""tf.train.Example without TensorFlow: many records at once.

The records of a data set mostly share a *layout*: the same length, and the same bytes everywhere
but in the values. One record is then parsed by the book (`find_values`), which says where they
lie; the values of all records of that layout are taken out of one byte matrix. Records with several
strings share no layout, and are taken apart side by side (`find_spans`). A record that fits neither
is parsed by itself, by the book.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedbridge.jax_core import ClientDataError
from fedbridge.tff_io._side_by_side import Spans, find_spans, gather, joined_records
from fedbridge.tff_io._wire import (
    BYTES,
    FLOAT,
    INT64,
    DamageError,
    Feature,
    decode_varints,
    find_values,
)

KIND_NAMES = {BYTES: "strings", FLOAT: "floats", INT64: "integers"}

_FEW = 16  # fewer records than this are not worth a matrix


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
        layout = find_values(record)
        return {
            name: (feature.kind, _values(record, feature))
            for name, feature in sorted(layout.items())
        }
    except DamageError as error:
        raise _damaged(where, error) from None


def parse_examples(
    records: Sequence[bytes],
    kinds: Mapping[str, int],
    where: Callable[[int], str] = "record {}".format,
    *,
    exact: bool = False,
    only: Collection[str] | None = None,
) -> dict[str, Values]:
    """Parses many serialized tf.train.Examples; quick where they share their layout.

    Args:
        records: The serialized records.
        kinds: The features to read, with their kinds.
        where: Names the record of an index, for errors.
        exact: Refuse records with other features beside these; otherwise those are left unread,
            as TensorFlow does.
        only: The features whose values are asked for; the others are checked alone. None: all.

    Raises:
        ClientDataError: A record that is no tf.train.Example, lacks a feature, or holds values of
            another kind in it.
    """
    taken = {name: kind for name, kind in kinds.items() if only is None or name in only}
    order: list[np.ndarray] = []
    parts: list[Mapping[str, Values]] = []
    singles: list[int] = []
    rest = np.arange(len(records))
    if len(records) >= _FEW:
        layout = _checked_layout(records[0], kinds, where, 0, exact)
        if sum(feature.kind == BYTES for feature in layout.values()) > 1:
            fits, values = _side_by_side(records, layout, taken)
            order.append(np.flatnonzero(fits))
            parts.append(values)
            rest = np.flatnonzero(~fits)
    groups: dict[int, list[int]] = {}
    for i in rest.tolist():
        groups.setdefault(len(records[i]), []).append(i)
    for group in groups.values():
        rows = np.array(group)
        while len(rows) >= _FEW:
            first = int(rows[0])
            layout = _checked_layout(records[first], kinds, where, first, exact)
            alike, matrix, rows = _alike(records, rows, layout)
            try:
                parts.append({name: _gather(matrix, layout[name]) for name in taken})
            except DamageError:  # in which of them? One at a time finds it
                singles += alike.tolist()
            else:
                order.append(alike)
            if len(alike) < _FEW:
                break
        singles += rows.tolist()
    layouts = [_checked_layout(records[i], kinds, where, i, exact) for i in singles]
    order.append(np.array(singles, np.int64))
    parts.append({n: _each(records, singles, layouts, n, kind) for n, kind in taken.items()})
    return _in_order(parts, np.concatenate(order), taken)


def serialize_example(features: Mapping[str, Any]) -> bytes:
    """Serializes one tf.train.Example, features in the order of their names.

    Args:
        features: Feature name to a string, or an array of floats, integers or booleans. As in
            TFF's `save_to_sql_client_data`, shapes are not stored and floats become float32.

    Raises:
        ClientDataError: A feature of another type.
    """
    return join_features(serialize_feature(name, features[name]) for name in sorted(features))


def serialize_feature(name: str, values: Any) -> bytes:
    """Serializes one feature of a tf.train.Example, for `join_features`.

    Raises:
        ClientDataError: As `serialize_example`.
    """
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
    return _field(1, _field(1, name.encode()) + _field(2, feature))


def join_features(features: Iterable[bytes]) -> bytes:
    """One serialized tf.train.Example of these features.

    Example:
        >>> join_features([serialize_feature("label", np.int64(7))])
        b'\\n\\x10\\n\\x0e\\n\\x05label\\x12\\x05\\x1a\\x03\\n\\x01\\x07'
    """
    return _field(1, b"".join(features))


# --- values -----------------------------------------------------------------------------------


def _values(record: bytes, feature: Feature) -> Any:
    """The values of a feature of one record."""
    pieces = [record[span.start : span.stop] for span in feature.spans]
    if feature.kind == BYTES:
        return pieces
    joined = np.frombuffer(b"".join(pieces), np.uint8)
    if feature.kind == FLOAT:
        return joined.view("<f4").astype(np.float32)
    return decode_varints(joined)


def _side_by_side(
    records: Sequence[bytes], layout: Mapping[str, Feature], kinds: Mapping[str, int]
) -> tuple[np.ndarray, dict[str, Values]]:
    """Which records have the shape of this layout, and the values of those that have it."""
    joined, data, edges = joined_records(records)
    fits, spans = find_spans(data, edges, {name: feature.kind for name, feature in layout.items()})
    for name, kind in kinds.items():
        if kind != BYTES:
            # Of what does not fit, nothing is looked at: not every span lies within the data.
            starts, stops = (np.where(fits, places, 0) for places in spans[name])
            fits &= _are_whole(*gather(data, Spans(starts, stops)), kind)
    values = {}
    for name, kind in kinds.items():
        starts, stops = (places[fits] for places in spans[name])
        if kind == BYTES:
            pairs = zip(starts.tolist(), stops.tolist(), strict=True)
            texts = [joined[start:stop] for start, stop in pairs]
            values[name] = Values(BYTES, texts, np.ones(len(texts), np.int64))
            continue
        run, edges = gather(data, Spans(starts, stops))
        if kind == FLOAT:
            values[name] = Values(FLOAT, run.view("<f4").astype(np.float32), np.diff(edges) // 4)
        else:
            ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(run < 0x80)])
            values[name] = Values(INT64, decode_varints(run), np.diff(ends[edges]))
    return fits, values


def _are_whole(run: np.ndarray, edges: np.ndarray, kind: int) -> np.ndarray:
    """Whether each piece of a packed run holds whole numbers."""
    if kind == FLOAT:
        return np.diff(edges) % 4 == 0
    ends = np.flatnonzero(run < 0x80)
    too_long = ends[np.diff(ends, prepend=-1) > 10]
    whole = np.diff(edges) == 0
    filled = np.flatnonzero(~whole)
    whole[filled] = run[edges[filled + 1] - 1] < 0x80
    whole[np.searchsorted(edges, too_long, side="right") - 1] = False
    return whole


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
        raise DamageError("a packed number without an end")
    return Values(INT64, decode_varints(joined.reshape(-1)), (joined < 0x80).sum(axis=1))


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
        layout = find_values(record)
        for name, kind in kinds.items():
            if name not in layout:
                raise DamageError(f"it has no feature {name!r}")
            if layout[name].kind != kind:
                raise DamageError(
                    f"its feature {name!r} holds {KIND_NAMES[layout[name].kind]} instead of "
                    f"{KIND_NAMES[kind]}"
                )
        if exact and len(layout) > len(kinds):
            extra = min(set(layout) - set(kinds))
            raise DamageError(f"it has a feature {extra!r} that the first record lacks")
    except DamageError as error:
        raise _damaged(where(row), error) from None
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


def _damaged(where: str, error: DamageError) -> ClientDataError:
    return ClientDataError(
        f"{where}: this is no tf.train.Example of the expected features ({error}); "
        "the file is damaged or of another kind, fetch or write it again."
    )


# --- writing ----------------------------------------------------------------------------------


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


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
