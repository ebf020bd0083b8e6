"""TFF's SQLite files of client data, read without TensorFlow.

Two tables: `examples(split_name, client_id, serialized_example_proto)`, one tf.train.Example a
row, and `client_metadata(client_id, split_name, num_examples)`. The examples are read in one scan
in the order of their rows, which for every client is the order in which TFF reads them.

Reference: TFF's simulation/datasets/sql_client_data.py and the `load_data` of its data sets.
"""

import contextlib
import functools
import lzma
import math
import os
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge.jax_core import ClientDataError, FederatedArrays, check_path
from fedbridge.jax_core._columns import (
    Fraction255,
    Ragged,
    decode_column,
    encode_column,
    num_rows,
    take_rows,
)
from fedbridge.tff_io._cache import copied
from fedbridge.tff_io._element_spec import ElementSpec, FeatureSpec, infer_spec, read_spec
from fedbridge.tff_io._example_proto import Values, parse_examples
from fedbridge.tff_io._files import kept_in
from fedbridge.tff_io._wire import INT64

_BLOCK = 2048
_TABLES = {
    "examples": {"split_name", "client_id", "serialized_example_proto"},
    "client_metadata": {"client_id", "split_name"},
}


def from_sql(
    path: str | os.PathLike,
    split: str | None = None,
    *,
    element_spec: ElementSpec | None = None,
    cache: bool | str | os.PathLike = True,
) -> FederatedArrays:
    """Reads a TFF SQLite file of client data, also packed as `.sqlite.lzma`.

    The result equals what TFF's loaders give, element for element: clients sorted, examples in the
    order of the rows. A converted copy is kept as memory-mapped arrays, so that the next load is
    quick; it is thrown away when the file changes.

    Args:
        path: The file.
        split: Which of its splits, e.g. "all_train"; may be left out where there is only one.
        element_spec: Feature name to (shape, dtype), as `{"pixels": ((28, 28), "float32")}`;
            strings are `((), bytes)`. Files do not store shapes: None takes them from TFF's known
            data sets (EMNIST, Stack Overflow, Shakespeare, CIFAR-100, CelebA), recognised by their
            feature names; of others, scalars for one value a record, or else vectors.
        cache: Where the copy is kept: a folder, True for the environment's FEDBRIDGE_CACHE or else
            the user's cache folder, False to keep none.

    Raises:
        ClientDataError: A missing, truncated or foreign file, an unknown split, a duplicate client,
            a record that does not parse, or a feature of another shape in one record.
    """
    source = existing_file(path)
    spec = None if element_spec is None else read_spec(element_spec)

    def read(folder: Path | None) -> FederatedArrays:
        with _sqlite_file(source, folder) as file, connect(file, source) as connection:
            return _read(connection, source, split, spec)

    return copied(source, {"split": split, "spec": repr(spec)}, cache, read)


def existing_file(path: str | os.PathLike) -> Path:
    """The file.

    Raises:
        ClientDataError: There is none.
    """
    check_path("path", path)
    source = Path(path).expanduser()
    if not source.is_file():
        what = "this is a folder" if source.is_dir() else "there is no such file"
        raise ClientDataError(f"{path}: {what}; give the path of a TFF SQLite file.")
    return source


def unpack(source: Path, target: Path) -> None:
    """Unpacks an xz file, in one step and never half: aside, then renamed.

    Raises:
        ClientDataError: The file is damaged (xz checks every byte).
    """
    with tempfile.TemporaryDirectory(prefix=".aside-", dir=target.parent) as temporary:
        aside = Path(temporary) / target.name
        try:
            with lzma.open(source) as packed, aside.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 22)
        except (lzma.LZMAError, EOFError) as error:
            raise ClientDataError(
                f"{source}: the packed file is truncated or damaged ({error}); fetch it again."
            ) from error
        aside.replace(target)


# --- the file ---------------------------------------------------------------------------------


def is_packed(source: Path) -> bool:
    """Whether this is an xz file, and no SQLite file.

    Raises:
        ClientDataError: It is neither, or an SQLite file that was not fetched to its end.
    """
    with source.open("rb") as stream:
        head = stream.read(100)
    if head.startswith(b"SQLite format 3\0"):
        page, pages = int.from_bytes(head[16:18], "big"), int.from_bytes(head[28:32], "big")
        promised = (65536 if page == 1 else page) * pages
        counted = head[24:28] == head[92:96]  # otherwise the header does not know the size
        if len(head) < 100 or (counted and source.stat().st_size < promised):
            raise ClientDataError(
                f"{source}: the file is truncated ({source.stat().st_size} of {promised} bytes); "
                "fetch it again."
            )
        return False
    if head.startswith(b"\xfd7zXZ\0") or source.suffix in (".lzma", ".xz"):
        return True
    raise ClientDataError(
        f"{source}: this is no SQLite file; give a file as TFF's host serves it, "
        "`.sqlite` or `.sqlite.lzma`."
    )


@contextlib.contextmanager
def _sqlite_file(source: Path, folder: Path | None) -> Iterator[Path]:
    """The SQLite file itself, unpacked beside the cache where it is packed."""
    if not is_packed(source):
        yield source
        return
    with contextlib.suppress(OSError):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    beside = folder if folder is not None and os.access(folder, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=beside) as temporary:
        file = Path(temporary) / "data.sqlite"
        with kept_in(file.parent.parent):
            unpack(source, file)
        yield file


@contextlib.contextmanager
def connect(file: Path, source: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection; whatever SQLite finds wrong is said in one sentence."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
        ) as connection:
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:  # its own words may be no text
        said = " ".join(str(error).split())[:200]
        raise ClientDataError(
            f"{source}: SQLite cannot read it ({said}); the file is damaged, fetch it again."
        ) from error


# --- reading ----------------------------------------------------------------------------------


def _read(
    connection: sqlite3.Connection,
    source: Path,
    split: str | None,
    spec: dict[str, FeatureSpec] | None,
) -> FederatedArrays:
    """All clients of a split, brought together from one scan of the examples."""
    split, ids, promised = open_split(connection, source, split)
    _check_whole(connection, source)
    owner, columns = _scan(connection, source, split, ids, spec)
    sizes = np.bincount(owner, minlength=len(ids))
    compare_sizes(source, ids, promised, sizes)
    if (np.diff(owner) < 0).any():
        order = np.argsort(owner, kind="stable")
        columns = {name: take_rows(column, order) for name, column in columns.items()}
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
    return FederatedArrays(tuple(ids), offsets, columns)


def _scan(
    connection: sqlite3.Connection,
    source: Path,
    split: str | None,
    ids: Sequence[str],
    spec: dict[str, FeatureSpec] | None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The examples in the order of their rows: the client of each, and the columns."""
    exact = spec is None
    positions = {client_id: i for i, client_id in enumerate(ids)}
    owners = [np.zeros(0, np.int64)]
    blocks: dict[str, list[Any]] = {name: [] for name in spec or {}}
    cursor = connection.execute(
        "SELECT client_id, serialized_example_proto FROM examples WHERE split_name IS ? "
        "ORDER BY rowid",
        (split,),
    )
    while fetched := cursor.fetchmany(_BLOCK):
        # Examples of clients that the metadata does not list are invisible to TFF too.
        rows = [row for row in fetched if row[0] in positions]
        if not rows:
            continue
        owners.append(np.array([positions[row[0]] for row in rows]))
        where = functools.partial(_describe, source, split, ids, tuple(owners))
        records = [row[1] for row in rows]
        if spec is None:
            check_records(records[:1], where)
            spec = infer_spec(records[0], where(0))
            blocks = {name: [] for name in spec}
        for name, block in read_block(records, spec, where, exact=exact).items():
            blocks[name].append(block)
    columns = {name: joined_blocks(blocks[name], feature) for name, feature in (spec or {}).items()}
    return np.concatenate(owners), columns


def open_split(
    connection: sqlite3.Connection, source: Path, split: str | None
) -> tuple[str | None, list[str], dict[str, Any]]:
    """A split, its clients sorted as TFF does, and how many examples each is said to have.

    Raises:
        ClientDataError: No client data of TFF, no such split, or a client that is there twice.
    """
    _check_tables(connection, source)
    split = _choose_split(connection, source, split)
    return split, *_client_ids(connection, source, split)


def read_block(
    records: Sequence[Any],
    spec: Mapping[str, FeatureSpec],
    where: Callable[[int], str],
    *,
    exact: bool,
    only: Collection[str] | None = None,
) -> dict[str, Any]:
    """One block of every column, for `joined_blocks`.

    Args:
        records: What the table holds.
        spec: The features to read.
        where: Names the record of an index, for errors.
        exact: Refuse records with other features.
        only: The columns that are asked for; the features of others are checked alone. None: all.

    Raises:
        ClientDataError: A record that is none, or holds something else.
    """
    check_records(records, where)
    kinds = {name: feature.kind for name, feature in spec.items()}
    values = parse_examples(records, kinds, where, exact=exact, only=only)
    return {name: _shaped(found, name, spec[name], where) for name, found in values.items()}


def check_records(records: Sequence[Any], where: Callable[[int], str]) -> None:
    """Refuses records that are no bytes.

    Raises:
        ClientDataError: One of them is not.
    """
    if set(map(type, records)) <= {bytes}:
        return
    i, record = next((i, r) for i, r in enumerate(records) if type(r) is not bytes)
    raise ClientDataError(
        f"{where(i)}: it holds {type(record).__name__} instead of a tf.train.Example; write the "
        "file again."
    )


def _describe(
    source: Path, split: str | None, ids: Sequence[str], owners: Sequence[np.ndarray], i: int
) -> str:
    """Names record i of the last block: its client, and which of the client's records it is."""
    client = owners[-1][i]
    earlier = np.concatenate([*owners[:-1], owners[-1][:i]])
    number = int((earlier == client).sum())
    return f"{source}, split {split!r}, client {ids[client]!r}, record {number}"


def _check_tables(connection: sqlite3.Connection, source: Path) -> None:
    for table, columns in _TABLES.items():
        found = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        if not columns <= found:
            columns_lacking = ", ".join(sorted(columns - found))
            lacks = f"table {table!r} without {columns_lacking}" if found else f"no table {table!r}"
            raise ClientDataError(
                f"{source}: this SQLite file holds no TFF client data ({lacks}); give a file "
                "that TFF's SqlClientData reads."
            )


def _check_whole(connection: sqlite3.Connection, source: Path) -> None:
    """SQLite reads on over some damage, and leaves rows out; this finds it, in one more pass."""
    for check in ("integrity_check(client_metadata)", "quick_check(examples)"):
        (said,) = connection.execute(f"PRAGMA {check}").fetchone()
        if said != "ok":
            said = " ".join(said.split())[:200]
            raise ClientDataError(f"{source}: SQLite finds it damaged ({said}); fetch it again.")


def _choose_split(connection: sqlite3.Connection, source: Path, split: str | None) -> str | None:
    rows = connection.execute("SELECT DISTINCT split_name FROM client_metadata")
    splits = sorted((row[0] for row in rows), key=str)
    if not splits:
        raise ClientDataError(f"{source}: it lists no clients; write the file again.")
    there = ", ".join(map(repr, splits))
    if split is None and len(splits) > 1:
        raise ClientDataError(f"{source}: it has several splits; give `split`, one of {there}.")
    if split is not None and split not in splits:
        raise ClientDataError(f"{source}: it has no split {split!r}; there are {there}.")
    return splits[0] if split is None else split


def _client_ids(
    connection: sqlite3.Connection, source: Path, split: str | None
) -> tuple[list[str], dict[str, Any]]:
    """The clients of a split, sorted as TFF does, and how many examples each is said to have."""
    found = {row[1] for row in connection.execute("PRAGMA table_info(client_metadata)")}
    number = "num_examples" if "num_examples" in found else "NULL"
    promised: dict[str, Any] = {}
    for client_id, count in connection.execute(
        f"SELECT client_id, {number} FROM client_metadata WHERE split_name IS ?",  # noqa: S608
        (split,),
    ):
        if not isinstance(client_id, str):
            raise ClientDataError(
                f"{source}, split {split!r}: the client id {client_id!r} is no text; write the "
                "file again."
            )
        if client_id in promised:
            raise ClientDataError(
                f"{source}, split {split!r}: client {client_id!r} is listed more than once; give "
                "every client its own id."
            )
        promised[client_id] = count
    return sorted(promised), promised


def compare_sizes(
    source: Path, ids: Sequence[str], promised: Mapping[str, Any], sizes: np.ndarray
) -> None:
    """TFF never looks at the promised numbers; a difference is worth a word all the same."""
    wrong = [
        (client_id, promised[client_id], size)
        for client_id, size in zip(ids, sizes.tolist(), strict=True)
        if promised[client_id] not in (None, size)
    ]
    if wrong:
        warnings.warn(
            f"{source}: the metadata gives client {wrong[0][0]!r} {wrong[0][1]} examples, and it "
            f"has {wrong[0][2]} ({len(wrong)} such clients); is the file complete?",
            stacklevel=4,
        )


def _shaped(values: Values, name: str, feature: FeatureSpec, where: Callable[[int], str]) -> Any:
    """One block of a column, encoded; a list of strings stays a list."""
    count = math.prod(feature.shape)
    other = np.flatnonzero(values.counts != count)
    if len(other):
        raise ClientDataError(
            f"{where(int(other[0]))}, feature {name!r}: it has {values.counts[other[0]]} values "
            f"where shape {list(feature.shape)} needs {count}; give the true shape in "
            "`element_spec`, or write the record again."
        )
    if feature.dtype is None:
        return values.values
    array = values.values.reshape(-1, *feature.shape)
    if feature.dtype.kind == "b":
        return array != 0
    if feature.kind == INT64 and feature.dtype.itemsize < 8:
        limits = np.iinfo(feature.dtype)
        outside = ((array < limits.min) | (array > limits.max)).reshape(len(array), -1).any(axis=1)
        if outside.any():
            i = int(np.flatnonzero(outside)[0])
            raise ClientDataError(
                f"{where(i)}, feature {name!r}: it holds a number that {feature.dtype} cannot "
                "hold; give a wider dtype in `element_spec`."
            )
    return encode_column(array.astype(feature.dtype, copy=False))


def joined_blocks(blocks: Sequence[Any], feature: FeatureSpec) -> Any:
    """The blocks of a column as one column; encoded only where every block is."""
    if feature.dtype is None:
        return Ragged.from_rows([row for block in blocks for row in block])
    blocks = [block for block in blocks if num_rows(block)]
    if blocks and all(isinstance(block, Fraction255) for block in blocks):
        return Fraction255(np.concatenate([block.numerators for block in blocks]))
    empty = np.zeros((0, *feature.shape), feature.dtype)
    return np.concatenate([empty, *map(decode_column, blocks)])
