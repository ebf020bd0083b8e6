"""Files of client data that are larger than memory, converted once into memory-mapped arrays.

    FOLDER.partial/             while it lasts
        job.json                what is converted, and in which pieces
        chunk-00000.npz, ...    the pieces that are done
    FOLDER/                     at the end
        manifest.json           what it holds, size and checksums of every file
        offsets.npy, 0.npy, ...

Every piece is a range of the rows of the file, or of its clients: it is read, parsed and
preprocessed, and written aside and renamed. Pieces do not depend on each other, so several
processes share them, and what a run that was killed has left is found by the next. When all are
there, they are merged client after client, and the folder gets its name.
"""

import contextlib
import dataclasses
import gc
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge.jax_core import (
    ClientDataError,
    FedbridgeError,
    FederatedArrays,
    check_path,
    check_whole,
    num_cores,
)
from fedbridge.tff_io._cache import (
    cache_folder,
    fingerprint,
    mapped_data,
    read_manifest,
    write_manifest,
)
from fedbridge.tff_io._chunks import merge_chunks, save_chunk
from fedbridge.tff_io._element_spec import ElementSpec, FeatureSpec, read_spec
from fedbridge.tff_io._files import to_disk
from fedbridge.tff_io._hdf5 import client_ids
from fedbridge.tff_io._hdf5_pieces import is_hdf5, open_clients, plan_clients
from fedbridge.tff_io._prepared import Preprocess, describe, no_rows, rebuild
from fedbridge.tff_io._sql import (
    compare_sizes,
    connect,
    existing_file,
    is_packed,
    open_split,
    unpack,
)
from fedbridge.tff_io._sql_pieces import Plan, open_pieces, plan_pieces
from fedbridge.tff_io._workers import answer_pieces, in_processes, interrupts

_FORMAT = 1
_PARTIAL = ".partial"
_MOST_PROCESSES = 4  # of about 0.3 GB each: below 2 GB together
_WORTH_A_PROCESS = 8  # pieces: it takes as long to start


def convert(
    path: str | os.PathLike,
    folder: str | os.PathLike,
    split: str | None = None,
    *,
    element_spec: ElementSpec | None = None,
    preprocess: Preprocess | None = None,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FederatedArrays:
    """Converts a TFF file of any size into memory-mapped arrays, and opens them.

    The result equals `preprocess(from_sql(path, split))`, or `from_hdf5`, bit for bit, and memory
    stays below 2 GB.
    A conversion that was stopped goes on where it was when it is called again in the same way: what
    is done is kept beside the folder, in `FOLDER.partial`.

    Args:
        path: An SQLite file, also packed as `.sqlite.lzma` (which is unpacked beside the folder),
            or an HDF5 file (needs h5py).
        folder: The new folder. If it holds the same conversion already, it is only opened.
        split: As in `from_sql`.
        element_spec: As in `from_sql`; HDF5 files know it themselves.
        preprocess: A function of `fb.preprocessing`, or a `functools.partial` of one with named
            arguments: only what it makes of the rows is stored, token ids in place of text. None:
            all features as they are.
        processes: How many convert at the same time; default one for each core, at most 4, and
            none beside this one where there is little to do. Each takes about 0.3 GB.
        progress: Called as `progress(done, total)` with rows of the file, or with clients of an
            HDF5 file.

    Returns:
        The data, as `from_converted` opens them.

    Raises:
        ClientDataError: As in `from_sql`; a folder that holds something else, or cannot be written;
            another process that converts into it.

    Example:
        >>> from fedbridge.tff_io import write_sql
        >>> tmp = getfixture("tmp_path")
        >>> path = write_sql(tmp / "toy.sqlite", {"train": {"a": {"y": [7, 8]}, "b": {"y": [9]}}})
        >>> convert(path, tmp / "converted").client("b")
        {'y': array([9])}
    """
    check_path("folder", folder)
    source, target = existing_file(path), Path(folder).expanduser()
    if processes is not None:
        check_whole("processes", processes)
    if element_spec is not None and is_hdf5(source):
        raise ClientDataError(f"{source}: HDF5 files store shapes; leave out `element_spec`.")
    key = {
        "path": str(source.resolve()),
        "split": split,
        "element_spec": None if element_spec is None else _listed(read_spec(element_spec)),
        "preprocess": describe(preprocess),
    }
    before = fingerprint(source)
    partial = target.with_name(target.name + _PARTIAL)
    if target.exists():
        _check_same(target, key, before)
    else:
        try:
            partial.mkdir(parents=True, exist_ok=True)
            with _alone(partial):
                job = _job(partial, source, key, before)
                _convert_pieces(partial, job, processes, progress or (lambda done, total: None))
                _merge(partial, job)
                if fingerprint(source) != before:
                    shutil.rmtree(partial, ignore_errors=True)
                    raise ClientDataError(
                        f"{source}: the file changed while it was converted; convert it again."
                    )
                (partial / "whole").rename(target)
        except ChildProcessError as error:
            raise ClientDataError(
                f"{source}: {error}, perhaps for want of memory; run the same again with fewer "
                "processes, what is done is kept."
            ) from error
        except OSError as error:
            if not (partial / "job.json").exists():  # nothing is done
                shutil.rmtree(partial, ignore_errors=True)
            raise ClientDataError(
                f"{target}: it cannot be written there ({error.strerror or error}); make room and "
                "run the same again, what is done is kept, or name another folder."
            ) from error
    shutil.rmtree(partial, ignore_errors=True)
    return from_converted(target)


def convert_once(
    path: str | os.PathLike,
    split: str,
    preprocess: Preprocess,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> FederatedArrays:
    """`convert` into the cache folder; what is there already is only opened.

    Args:
        path: As in `convert`.
        split: As in `convert`.
        preprocess: As in `convert`.
        progress: As in `convert`.

    Raises:
        ClientDataError: As `convert`.
    """
    source = existing_file(path)
    key = [str(source.resolve()), split, describe(preprocess), fingerprint(source)]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    cache = cache_folder(True)
    assert cache is not None
    folder = cache / "converted" / f"{source.stem}-{split}-{digest}"
    return convert(source, folder, split, preprocess=preprocess, progress=progress)


def from_converted(folder: str | os.PathLike) -> FederatedArrays:
    """Opens what `convert` made: memory-mapped, at once, whatever its size.

    The data are as any other: `cohort`, samplers, `fb.preprocessing` (where they were converted
    without one). Sizes and checksums are looked at as in the cache: all of small folders, the edges
    of large ones; `verify_converted` reads every byte.

    Args:
        folder: The folder.

    Raises:
        ClientDataError: There is no such folder; it holds something else, or a damaged file; or the
            conversion has not come to its end.
    """
    check_path("folder", folder)
    return _open(Path(folder).expanduser(), whole=False)


def verify_converted(folder: str | os.PathLike) -> FederatedArrays:
    """Opens what `convert` made after reading every byte of it.

    Args:
        folder: The folder.

    Raises:
        ClientDataError: As `from_converted`.
    """
    check_path("folder", folder)
    return _open(Path(folder).expanduser(), whole=True)


def _open(folder: Path, *, whole: bool) -> FederatedArrays:
    if not folder.is_dir():
        half = folder.with_name(folder.name + _PARTIAL).is_dir()
        cure = "run the same conversion again, it goes on where it was" if half else "convert first"
        what = "its conversion has not come to its end" if half else "there is no such folder"
        raise ClientDataError(f"{folder}: {what}; {cure}.")
    manifest = read_manifest(folder, whole=whole)
    if manifest is None or manifest.get("converted") != _FORMAT:
        there = (folder / "manifest.json").is_file()
        what = "a file in it is damaged" if there else "it holds no converted client data"
        raise ClientDataError(f"{folder}: {what}; delete it and convert again.")
    data = mapped_data(folder, manifest)
    prepared = rebuild(manifest["key"]["preprocess"])(no_rows(_spec(manifest["spec"])))
    # The rows have been preprocessed; what the preprocessing does to batches is not stored.
    return dataclasses.replace(data, decode=prepared.decode, structure=prepared.structure)


def _check_same(target: Path, key: Mapping[str, Any], before: Any) -> None:
    manifest = read_manifest(target, whole=False) if target.is_dir() else None
    if manifest is None or manifest.get("key") != key or manifest.get("source") != before:
        raise ClientDataError(
            f"{target}: it is there already and is not this conversion; name another folder, or "
            "delete it."
        )


@contextlib.contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """Refuses a second process that converts into the same folder (where the platform can)."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (partial / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClientDataError(
                f"{partial}: another process converts into it; wait for it, or name another folder."
            ) from None
        yield


def _job(partial: Path, source: Path, key: Mapping[str, Any], before: Any) -> dict[str, Any]:
    """What there is to do: as it was planned before, or planned now."""
    file, expected = partial / "job.json", {"format": _FORMAT, "key": key, "source": before}
    if file.exists():
        job = json.loads(file.read_bytes())
        if {name: job.get(name) for name in expected} != expected:
            raise ClientDataError(
                f"{partial}: it holds half of another conversion, or the file has changed since; "
                "delete it, or name another folder."
            )
        return job
    sqlite = source
    try:
        if is_hdf5(source):
            plan = plan_clients(source, key["split"])
        else:
            if is_packed(source):
                sqlite = partial / "unpacked.sqlite"
                if not sqlite.exists():
                    unpack(source, sqlite)
            plan = plan_pieces(sqlite, source, key["split"], _spec(key["element_spec"]))
    except FedbridgeError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    job = expected | {
        "file": str(sqlite.resolve()),
        "plan": plan._replace(spec=_listed(plan.spec))._asdict(),
    }
    aside = partial / ".job.json"
    aside.write_text(json.dumps(job))
    to_disk(aside)
    aside.replace(file)
    return job


def _convert_pieces(
    partial: Path, job: Any, processes: int | None, progress: Callable[[int, int], None]
) -> None:
    """Does all pieces that are not there yet, here or in processes of their own."""
    rows = [last - first + 1 for first, last in job["plan"]["pieces"]]
    todo = [i for i in range(len(rows)) if not _chunk(partial, i).exists()]
    done, total = sum(rows) - sum(rows[i] for i in todo), sum(rows)
    progress(done, total)
    processes = processes or min(num_cores(), _MOST_PROCESSES, len(todo) // _WORTH_A_PROCESS)
    several = min(processes, len(todo)) > 1
    try:
        for i in in_processes(partial, todo, processes) if several else _here(partial, job, todo):
            done += rows[i]
            progress(done, total)
    except FedbridgeError:  # it cannot be converted in this way: nothing half-written stays
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _here(partial: Path, job: Any, todo: Sequence[int]) -> Iterator[int]:
    with _converter(partial, job) as convert_piece, interrupts() as came:
        for number in todo:
            convert_piece(number)
            if came():
                raise KeyboardInterrupt
            yield number


def serve(partial: str) -> None:
    """What a process of a conversion does."""
    with _converter(Path(partial), json.loads(Path(partial, "job.json").read_bytes())) as convert:
        answer_pieces(convert)


@contextlib.contextmanager
def _converter(partial: Path, job: Any) -> Iterator[Callable[[int], None]]:
    """A function that converts one piece."""
    plan = Plan(**job["plan"])
    plan = plan._replace(spec=_spec(plan.spec))
    source, preprocess = Path(job["key"]["path"]), rebuild(job["key"]["preprocess"])
    if is_hdf5(source):
        opened = open_clients(source, plan, preprocess)
    else:
        opened = open_pieces(Path(job["file"]), source, plan, preprocess)
    with opened as read:
        gc.freeze()  # or else many lists of words make Python look through all of jax, often
        try:
            yield lambda number: save_chunk(_chunk(partial, number), *read(number))
        finally:
            gc.unfreeze()


def _merge(partial: Path, job: Any) -> None:
    """The folder `whole`, of all pieces."""
    whole, source, split = partial / "whole", Path(job["key"]["path"]), job["plan"]["split"]
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    if is_hdf5(source):
        ids, promised = client_ids(source), {}
    else:
        with connect(Path(job["file"]), source) as connection:
            _, ids, promised = open_split(connection, source, split)
    chunks = [_chunk(partial, i) for i in range(len(job["plan"]["pieces"]))]
    features, sizes = merge_chunks(chunks, len(ids), whole)
    if promised:
        compare_sizes(source, ids, promised, sizes)
    manifest = {"converted": _FORMAT, "key": job["key"], "source": job["source"]}
    manifest |= {"spec": job["plan"]["spec"], "features": features, "client_ids": ids}
    write_manifest(whole, manifest)
    to_disk(whole / "manifest.json")


def _chunk(partial: Path, number: int) -> Path:
    return partial / f"chunk-{number:05}.npz"


def _listed(spec: Mapping[str, FeatureSpec]) -> list[Any]:
    """A spec as JSON holds it."""
    return [
        [name, list(shape), None if dtype is None else dtype.str]
        for name, (shape, dtype) in spec.items()
    ]


def _spec(listed: Any) -> Any:
    """What `_listed` has written."""
    if listed is None:
        return None
    return {
        name: FeatureSpec(tuple(shape), None if dtype is None else np.dtype(dtype))
        for name, shape, dtype in listed
    }
