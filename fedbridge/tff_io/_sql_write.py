"""TFF's SQLite files of client data, written without TensorFlow.

Tables and indices are those of TFF's own files; see `from_sql` for what they hold.
"""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge.jax_core import ClientDataError, FederatedArrays, check_path
from fedbridge.tff_io._example_proto import serialize_example
from fedbridge.tff_io._files import kept_in, to_disk


def write_sql(
    path: str | os.PathLike,
    splits: Mapping[str, Mapping[str, Mapping[str, Any]] | FederatedArrays],
) -> Path:
    """Writes client data as a TFF SQLite file.

    Args:
        path: The file; it is written aside and renamed, over an older one too.
        splits: Split name to client id to feature name to rows (an array `[rows, ...]`, or a list
            of strings); or split name to `FederatedArrays`.

    Returns:
        The path.

    Raises:
        ClientDataError: Features of one client of various lengths, or of a type that a
            tf.train.Example cannot hold; a folder that cannot be written, or a full disk.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> path = write_sql(folder / "toy.sqlite", {"train": {"a": {"y": np.array([7, 8])}}})
        >>> from fedbridge.tff_io import from_sql
        >>> from_sql(path, cache=False).client("a")
        {'y': array([7, 8])}
    """
    check_path("path", path)
    return write_records(path, _records(splits))


def write_records(
    path: str | os.PathLike, clients: Iterable[tuple[str, str, Iterable[bytes]]]
) -> Path:
    """Writes serialized examples as a TFF SQLite file; they pass through memory client by client.

    Args:
        path: The file; it is written aside and renamed, over an older one too.
        clients: (split, client id, its records), one after another.

    Returns:
        The path.

    Raises:
        ClientDataError: A folder that cannot be written, or a full disk.
    """
    target = Path(path).expanduser()
    with (
        kept_in(target.parent),
        tempfile.TemporaryDirectory(prefix=".aside-", dir=target.parent) as temporary,
    ):
        aside = Path(temporary) / target.name
        with contextlib.closing(sqlite3.connect(aside)) as connection, connection:
            _write(connection, clients)
        to_disk(aside)
        aside.replace(target)
    return target


def _records(splits: Mapping[str, Any]) -> Iterator[tuple[str, str, list[bytes]]]:
    for split, clients in splits.items():
        arrays = isinstance(clients, FederatedArrays)
        for client_id in clients.client_ids if arrays else tuple(clients):
            features = clients.client(client_id) if arrays else clients[client_id]
            yield split, client_id, _serialized(features, f"split {split!r}, client {client_id!r}")


def _write(
    connection: sqlite3.Connection, clients: Iterable[tuple[str, str, Iterable[bytes]]]
) -> None:
    connection.execute("PRAGMA journal_mode = OFF")  # it is written aside: whole, or not there
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(
        "CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)"
    )
    connection.execute(
        "CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, num_examples INTEGER)"
    )
    for split, client_id, records in clients:
        added = connection.executemany(
            "INSERT INTO examples VALUES (?, ?, ?)",
            ((split, client_id, record) for record in records),
        )
        connection.execute(
            "INSERT INTO client_metadata VALUES (?, ?, ?)",
            (client_id, split, max(added.rowcount, 0)),
        )
    for index, table in (("examples", "examples"), ("metadata", "client_metadata")):
        connection.execute(
            f"CREATE INDEX idx_{index}_client_id_split ON {table} (client_id, split_name)"
        )


def _serialized(features: Mapping[str, Any], where: str) -> list[bytes]:
    columns = {name: _as_rows(column) for name, column in features.items()}
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise ClientDataError(f"{where}: its features have different numbers of rows, {sizes}.")
    size = max(sizes.values(), default=0)
    return [
        serialize_example({name: column[i] for name, column in columns.items()})
        for i in range(size)
    ]


def _as_rows(column: Any) -> Any:
    """Strings as a list of them; everything else as an array."""
    if isinstance(column, list | tuple) and column and isinstance(column[0], str | bytes):
        return column
    array = np.asarray(column)
    return array.tolist() if array.dtype.kind in "OSU" else array
