"""Pieces of client data on disk, and how they become one folder of arrays.

A chunk holds some elements in the order of the file they come from: whose they are, and the
columns. Chunks are merged one after another, so that no more than one of them is in memory: first
all sizes are counted, which says where every element lies in the end, then every chunk is written
there. The elements of a client keep their order.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from fedbridge.jax_core import ClientDataError, FederatedArrays, Fraction255, Ragged
from fedbridge.tff_io._cache import column_parts
from fedbridge.tff_io._files import to_disk

_BLOCK = 1 << 20  # numbers that are summed up at a time


class _Column(NamedTuple):
    """A column of a chunk, or of the whole; `shape` is that of one value."""

    name: str
    encoding: str
    dtype: str
    shape: list[int]
    values: int


def save_chunk(path: Path, owner: np.ndarray, data: FederatedArrays) -> None:
    """Writes a chunk, aside and renamed.

    Args:
        path: The file.
        owner: The position of each element's client.
        data: The elements, all of one client.
    """
    arrays: dict[str, Any] = {"owner": owner.astype(np.int32)}
    columns = []
    if data.element_offsets is not None:
        arrays["elements"] = np.diff(data.element_offsets)
    for number, (name, column) in enumerate(data.features.items()):
        encoding, (values, *offsets) = column_parts(column)
        arrays[f"{number}"] = values
        if offsets:
            arrays[f"{number}.sizes"] = np.diff(offsets[0])
        columns.append(
            _Column(name, encoding, str(values.dtype), list(values.shape[1:]), len(values))
        )
    arrays["columns"] = np.array(json.dumps(columns))
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            np.savez(file, **arrays)
        aside.replace(path)  # what a power failure takes from it, its checksums tell
    finally:
        aside.unlink(missing_ok=True)


def merge_chunks(
    chunks: Sequence[Path], num_clients: int, folder: Path
) -> tuple[list[dict[str, Any]], Int64[np.ndarray, " clients"]]:
    """Writes the arrays of all chunks together, client after client.

    Args:
        chunks: At least one, in the order of their elements.
        num_clients: The number of clients.
        folder: An empty folder; it gets offsets.npy, 0.npy, ...

    Returns:
        The entries of the manifest for the features, and the number of elements of each client.

    Raises:
        ClientDataError: A chunk is damaged (it is deleted), or their columns differ.
    """
    sizes, schemas, elements = np.zeros(num_clients, np.int64), [], False
    for arrays in _opened(chunks, "owner", "columns", "elements"):
        sizes += np.bincount(arrays["owner"], minlength=num_clients)
        schemas.append([_Column(*column) for column in json.loads(str(arrays["columns"]))])
        elements = "elements" in arrays
    offsets = _edges(sizes)
    np.save(folder / "offsets.npy", offsets)
    if elements:
        _merge_offsets(chunks, "elements", offsets, folder / "element_offsets.npy")
    features = []
    for number, column in enumerate(_agreed(schemas)):
        files = [f"{number}.npy"]
        counts = "elements" if elements else None
        if column.encoding == "ragged":
            files.append(f"{number}.offsets.npy")
            counts = f"{number}.sizes"
            _merge_offsets(chunks, counts, offsets, folder / files[1])
        starts = folder / ("element_offsets.npy" if counts == "elements" else files[-1])
        _merge_values(chunks, f"{number}", column, offsets, counts, starts, folder / files[0])
        features.append({"name": column.name, "encoding": column.encoding, "files": files})
    return features, sizes


def _agreed(schemas: Sequence[Sequence[_Column]]) -> list[_Column]:
    """The columns of the whole; 255ths only where every chunk with values has them."""
    names = {tuple(column.name for column in columns) for columns in schemas}
    if len(names) > 1:
        some, others = sorted(names)[:2]
        raise ClientDataError(
            f"the features {', '.join(some)} of some clients are {', '.join(others)} of others; "
            "write the file again."
        )
    whole = []
    for columns in zip(*schemas, strict=True):
        filled = [column for column in columns if column.values] or columns[:1]
        plain = {column.encoding for column in filled} == {"fraction255", "plain"}
        dtypes = {"float32" if plain and c.encoding != "plain" else c.dtype for c in filled}
        if len(dtypes) > 1 or len({tuple(column.shape) for column in filled}) > 1:
            raise ClientDataError(
                f"feature {filled[0].name!r}: its shape or dtype is not the same for all clients; "
                "write the file again."
            )
        encoding = "plain" if plain else filled[0].encoding
        values = sum(column.values for column in columns)
        whole.append(filled[0]._replace(encoding=encoding, dtype=dtypes.pop(), values=values))
    return whole


def _merge_offsets(
    chunks: Sequence[Path], counts: str, offsets: Int64[np.ndarray, " edges"], target: Path
) -> None:
    """Where the values of each element lie: the sums of what all chunks count."""
    shape = (int(offsets[-1]) + 1,)
    np.lib.format.open_memmap(target, mode="w+", dtype=np.int64, shape=shape)
    for arrays, order, places in _placed(chunks, offsets, counts):
        if counts in arrays:  # a piece without rows may not know that a column is ragged
            _put(target, places + 1, arrays[counts][order])
    ends, total = np.load(target, mmap_mode="r+"), 0
    for start in range(1, len(ends), _BLOCK):
        block = ends[start : start + _BLOCK]
        np.cumsum(block, out=block)
        block += total
        total = block[-1]
    del ends
    to_disk(target)


def _merge_values(
    chunks: Sequence[Path],
    key: str,
    column: _Column,
    offsets: Int64[np.ndarray, " edges"],
    counts: str | None,
    starts: Path,
    target: Path,
) -> None:
    """The values of a column; `counts` and `starts` of each element, where it has several."""
    shape = (column.values, *column.shape)
    np.lib.format.open_memmap(target, mode="w+", dtype=np.dtype(column.dtype), shape=shape)
    for arrays, order, places in _placed(chunks, offsets, key, counts):
        values = arrays[key]
        if not len(values):
            continue
        if values.dtype != column.dtype:  # 255ths, and elsewhere there are other numbers
            values = Fraction255(values).decode()
        if counts is None:
            _put(target, places, values[order])
            continue
        taken = Ragged(values, _edges(arrays[counts])).take(order)
        first = np.load(starts, mmap_mode="r")[places] - taken.offsets[:-1]
        within = np.arange(taken.offsets[-1])
        _put(target, np.repeat(first, np.diff(taken.offsets)) + within, taken.values)
    to_disk(target)


def _placed(
    chunks: Sequence[Path], offsets: Int64[np.ndarray, " edges"], *keys: str | None
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
    """Each chunk, its elements in the order of their clients, and where these lie in the whole."""
    free = offsets[:-1].copy()
    for arrays in _opened(chunks, "owner", *keys):
        owner = arrays["owner"]
        order = np.argsort(owner, kind="stable")
        owner = owner[order]
        earlier = np.arange(len(owner)) - np.searchsorted(owner, owner)
        places = free[owner] + earlier
        free += np.bincount(owner, minlength=len(free))
        yield arrays, order, places


def _opened(chunks: Sequence[Path], *keys: str | None) -> Iterator[dict[str, np.ndarray]]:
    """These arrays of one chunk after another, as far as it has them."""
    for chunk in chunks:
        try:
            with np.load(chunk, allow_pickle=False) as arrays:
                found = {key: arrays[key] for key in keys if key is not None and key in arrays}
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError, zlib.error) as error:
            chunk.unlink()
            raise ClientDataError(
                f"{chunk}: this piece of the conversion is damaged ({error}), and was deleted; run "
                "the same again, and it is made anew."
            ) from error
        yield found


def _put(target: Path, places: np.ndarray, values: np.ndarray) -> None:
    """Writes values to ascending places; the mapping ends here, and its memory with it."""
    if not len(places):
        return
    array = np.load(target, mmap_mode="r+")
    side_by_side = places[-1] - places[0] + 1 == len(places)
    array[slice(places[0], places[-1] + 1) if side_by_side else places] = values


def _edges(sizes: np.ndarray) -> Int64[np.ndarray, " edges"]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
