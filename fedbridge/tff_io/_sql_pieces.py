"""A TFF SQLite file in pieces: ranges of the rows of its table, each read by itself."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedbridge.jax_core import FederatedArrays
from fedbridge.tff_io._element_spec import FeatureSpec, infer_spec
from fedbridge.tff_io._prepared import Preprocess, needed_features
from fedbridge.tff_io._sql import check_records, connect, joined_blocks, open_split, read_block

PIECE_BYTES = 16 << 20  # of records; what is made of them takes some times as much memory
_MOST_ROWS = 1 << 16


class Plan(NamedTuple):
    """How a split is read in pieces.

    Attributes:
        split: Its name.
        spec: The features.
        exact: Whether a record with other features is refused.
        pieces: The first and the last row of each; there is at least one.
    """

    split: str | None
    spec: dict[str, FeatureSpec]
    exact: bool
    pieces: list[tuple[int, int]]


def plan_pieces(
    file: Path, source: Path, split: str | None, spec: dict[str, FeatureSpec] | None
) -> Plan:
    """Looks at the first record, and divides the rows of the table.

    Args:
        file: The SQLite file.
        source: What it is called in errors.
        split: As in `from_sql`.
        spec: The features to read; None: those of the first record.

    Raises:
        ClientDataError: As `from_sql`.
    """
    with connect(file, source) as connection:
        split, ids, _ = open_split(connection, source, split)
        found = _first_spec(connection, source, split, set(ids)) if spec is None else spec
        return Plan(split, found, spec is None, _pieces(connection, file.stat().st_size))


@contextlib.contextmanager
def open_pieces(
    file: Path, source: Path, plan: Plan, preprocess: Preprocess
) -> Iterator[Callable[[int], tuple[np.ndarray, FederatedArrays]]]:
    """A function that reads a piece: the positions of its elements' clients, and the elements.

    Raises:
        ClientDataError: As `from_sql` and the preprocessing.
    """
    split, spec, exact, pieces = plan
    needed = needed_features(preprocess, spec, source)
    with connect(file, source) as connection:
        positions = {i: n for n, i in enumerate(open_split(connection, source, split)[1])}

        def read(number: int) -> tuple[np.ndarray, FederatedArrays]:
            fetched = connection.execute(
                "SELECT client_id, serialized_example_proto, rowid FROM examples "
                "WHERE +split_name IS ? AND rowid BETWEEN ? AND ? ORDER BY rowid",
                (split, *pieces[number]),
            ).fetchall()
            # Examples of clients that the metadata does not list are invisible to TFF too.
            rows = [row for row in fetched if row[0] in positions]
            where = lambda i: f"{source}, split {split!r}, client {rows[i][0]!r}, row {rows[i][2]}"
            columns = {name: joined_blocks([], spec[name]) for name in needed}
            if rows:
                records = [row[1] for row in rows]
                blocks = read_block(records, spec, where, exact=exact, only=needed)
                columns = {name: joined_blocks([blocks[name]], spec[name]) for name in needed}
            owner = np.array([positions[row[0]] for row in rows], np.int32)
            edges = np.array([0, len(rows)])
            return owner, preprocess(FederatedArrays(("all",), edges, columns))

        yield read


def _first_spec(
    connection: sqlite3.Connection, source: Path, split: str | None, ids: set[str]
) -> dict[str, FeatureSpec]:
    """The features of the first record of the split; of none, none."""
    for client_id, record in connection.execute(
        "SELECT client_id, serialized_example_proto FROM examples WHERE +split_name IS ? "
        "ORDER BY rowid",
        (split,),
    ):
        if client_id in ids:
            where = f"{source}, split {split!r}, client {client_id!r}, record 0"
            check_records([record], lambda i, where=where: where)
            return infer_spec(record, where)
    return {}


def _pieces(connection: sqlite3.Connection, size: int) -> list[tuple[int, int]]:
    """Ranges of rows of about as many bytes; where rows have been deleted, none begins."""
    at = lambda sql, *values: connection.execute(f"SELECT {sql}", values).fetchone()[0]
    first, last = at("MIN(rowid) FROM examples"), at("MAX(rowid) FROM examples")
    if first is None:
        return [(0, 0)]
    rows = max(1, min(_MOST_ROWS, PIECE_BYTES * (last - first + 1) // max(size, 1)))
    pieces = []
    while first is not None:
        end = min(first + rows - 1, last)
        pieces.append((first, end))
        first = at("MIN(rowid) FROM examples WHERE rowid > ?", end) if end < last else None
    return pieces
