"""Converted copies: client data as memory-mapped arrays, so that a large file is parsed once.

    CACHE/client_data/emnist_all-all_train-0f3c.../
        manifest.json       where it came from, what it holds, size and checksums of every file
        offsets.npy, 0.npy, 1.npy, ...

A copy belongs to one source (path, size, time, inode), one split and one element spec. It is
written aside and renamed; when its source has changed, or when it is damaged, it is thrown away
and made anew. Small copies are checked byte by byte on every load, large ones at the edges of their
files; `verify_cache` checks everything.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge.jax_core import FederatedArrays, Fraction255, Ragged, check_argument
from fedbridge.jax_core._columns import Column

_FORMAT = 1
_CHECKED_WHOLE = 1 << 26  # copies of up to 64 MiB: some hundredths of a second
_EDGE = 1 << 16
_ASIDE = ".aside-"


def cache_folder(cache: bool | str | os.PathLike) -> Path | None:
    """Where converted, unpacked and generated files are kept.

    Args:
        cache: A folder; True for the environment's FEDBRIDGE_CACHE, or else the user's cache
            folder; False for none.

    Returns:
        The folder, which may not exist yet, or None.
    """
    if cache is False:
        return None
    if cache is not True:
        check_argument(
            isinstance(cache, str | os.PathLike), "cache", cache, "True, False or a folder"
        )
        return Path(cache).expanduser()
    if os.environ.get("FEDBRIDGE_CACHE"):
        return Path(os.environ["FEDBRIDGE_CACHE"]).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("fedbridge", appauthor=False)


def fingerprint(path: Path) -> list[list[int]]:
    """What changes when a file changes: size, time and inode, of an SQLite journal too."""
    files = [path, path.with_name(path.name + "-wal")]
    stats = [file.stat() for file in files if file.exists()]
    return [[stat.st_size, stat.st_mtime_ns, stat.st_ino] for stat in stats]


def verify_cache(cache: bool | str | os.PathLike = True) -> list[Path]:
    """Reads every byte of every converted copy and throws the damaged ones away.

    Args:
        cache: As in `from_sql`.

    Returns:
        The folders of the copies that were damaged; the next `from_sql` makes them anew.
    """
    folder = cache_folder(cache)
    damaged = []
    for copy in sorted((folder / "client_data").glob("*")) if folder else []:
        if not copy.name.startswith(_ASIDE) and read_manifest(copy, whole=True) is None:
            shutil.rmtree(copy, ignore_errors=True)
            damaged.append(copy)
    return damaged


def copied(
    source: Path,
    key: Mapping[str, Any],
    cache: bool | str | os.PathLike[str],
    read: Callable[[Path | None], FederatedArrays],
) -> FederatedArrays:
    """The data of a file, memory-mapped where a cache folder keeps a converted copy of them.

    Args:
        source: The file.
        key: What tells this reading of it from others.
        cache: As in `from_sql`.
        read: Reads the file, when there is no copy; it is given the cache folder.
    """
    folder = cache_folder(cache)
    key = {"path": str(source.resolve()), **key}
    before = fingerprint(source)
    data = None if folder is None else _load_copy(folder, key, before)
    if data is None:
        data = read(folder)
        data = data if folder is None else _save_copy(folder, key, before, data)
    return dataclasses.replace(data, source=str(source))


def _load_copy(folder: Path, key: Mapping[str, Any], source: Any) -> FederatedArrays | None:
    """The converted copy of this key, memory-mapped; None where there is no usable one."""
    copy = _place(folder, key)
    if not copy.is_dir():
        return None
    manifest = read_manifest(copy, whole=False)
    if manifest is None or manifest["source"] != source or manifest["key"] != dict(key):
        shutil.rmtree(copy, ignore_errors=True)
        return None
    return mapped_data(copy, manifest)


def _save_copy(
    folder: Path, key: Mapping[str, Any], source: Any, data: FederatedArrays
) -> FederatedArrays:
    """Keeps a converted copy and returns it memory-mapped; the data itself where that fails."""
    copy = _place(folder, key)
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=_ASIDE, dir=copy.parent, ignore_cleanup_errors=True
        ) as temporary:
            aside = Path(temporary) / "copy"
            aside.mkdir()
            _write(aside, key, source, data)
            if copy.exists():  # another process was quicker, or a damaged copy is still there
                copy.rename(Path(temporary) / "old")
            aside.rename(copy)
    except OSError as error:
        warnings.warn(
            f"{folder}: no converted copy can be kept there ({error.strerror or error}); "
            "set FEDBRIDGE_CACHE to a folder that can be written.",
            stacklevel=4,
        )
        return data
    return _load_copy(folder, key, source) or data


def _place(folder: Path, key: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps([_FORMAT, dict(key)]).encode()).hexdigest()[:16]
    name = f"{Path(key['path']).name.split('.')[0]}-{key['split'] or 'all'}"
    return folder / "client_data" / f"{re.sub(r'[^0-9A-Za-z_.-]', '_', name)[:80]}-{digest}"


def column_parts(column: Column) -> tuple[str, tuple[np.ndarray, ...]]:
    """How a column is encoded, and the arrays that it is made of.

    Example:
        >>> column_parts(Ragged.from_rows([b"to be"]))[0]
        'ragged'
    """
    if isinstance(column, Ragged | Fraction255):
        return ("ragged" if isinstance(column, Ragged) else "fraction255"), tuple(column)
    return "plain", (column,)


def mapped_data(folder: Path, manifest: Mapping[str, Any]) -> FederatedArrays:
    """The data that a manifest describes, memory-mapped."""
    column = {"plain": lambda array: array, "fraction255": Fraction255, "ragged": Ragged}
    features = {
        entry["name"]: column[entry["encoding"]](*[_map(folder / file) for file in entry["files"]])
        for entry in manifest["features"]
    }
    elements = folder / "element_offsets.npy"
    return FederatedArrays(
        tuple(manifest["client_ids"]),
        _map(folder / "offsets.npy"),
        features,
        element_offsets=_map(elements) if elements.name in manifest["files"] else None,
    )


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes down what a folder of arrays holds, with size and checksums of every file."""
    whole = {**manifest, "files": {f.name: _describe(f) for f in sorted(folder.glob("*.npy"))}}
    whole["checksum"] = zlib.crc32(json.dumps(whole, sort_keys=True).encode())
    (folder / "manifest.json").write_text(json.dumps(whole))


def _map(file: Path) -> np.ndarray:
    mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    return np.asarray(mapped)  # a plain read-only array that keeps the mapping alive


def _write(folder: Path, key: Mapping[str, Any], source: Any, data: FederatedArrays) -> None:
    features, number = [], 0
    for name, column in data.features.items():
        encoding, arrays = column_parts(column)
        files = []
        for array in arrays:
            files.append(f"{number}.npy")
            np.save(folder / files[-1], array, allow_pickle=False)
            number += 1
        features.append({"name": name, "encoding": encoding, "files": files})
    np.save(folder / "offsets.npy", data.offsets, allow_pickle=False)
    write_manifest(
        folder,
        {
            "format": _FORMAT,
            "key": dict(key),
            "source": source,
            "features": features,
            "client_ids": list(data.client_ids),
        },
    )


def _describe(file: Path) -> dict[str, int]:
    return {
        "size": file.stat().st_size,
        "edges": _checksum_edges(file),
        "whole": _checksum_whole(file),
    }


def read_manifest(copy: Path, *, whole: bool) -> dict[str, Any] | None:
    """The manifest of a folder whose files are as they were written; None otherwise.

    Args:
        copy: The folder.
        whole: Whether every byte of a large one is read; small ones are read anyway.
    """
    try:
        manifest = json.loads((copy / "manifest.json").read_bytes())
        checksum = manifest.pop("checksum")
        if checksum != zlib.crc32(json.dumps(manifest, sort_keys=True).encode()):
            return None
        files = manifest["files"]
        small = sum(entry["size"] for entry in files.values()) <= _CHECKED_WHOLE
        for name, entry in files.items():
            file = copy / name
            if file.stat().st_size != entry["size"]:
                return None
            if whole or small:
                if _checksum_whole(file) != entry["whole"]:
                    return None
            elif _checksum_edges(file) != entry["edges"]:
                return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return manifest


def _checksum_whole(file: Path) -> int:
    checksum = 0
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _checksum_edges(file: Path) -> int:
    with file.open("rb") as stream:
        checksum = zlib.crc32(stream.read(_EDGE))
        stream.seek(max(0, file.stat().st_size - _EDGE))
        return zlib.crc32(stream.read(_EDGE), checksum)
