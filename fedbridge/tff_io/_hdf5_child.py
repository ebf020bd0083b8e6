"""Reads an HDF5 file of client data in a process of its own: `python _hdf5_child.py FILE`.

A damaged file can make libhdf5 loop without end, crash, or ask for any amount of memory. So this
program may use five seconds of processor time for each client, and memory in proportion to the
file; the operating system ends it where it goes past either (not on Windows, which has no such
limits).
It needs numpy and h5py and nothing of fedbridge, so that it starts quickly.

On stdin, pickled: None for the ids alone, or the arguments of `clients`. On stdout, pickled one
after another: ("ids", [id, ...]), or ("client", id, {feature: rows}) for each; at last ("done",),
or ("error", sentence).
"""

import contextlib
import math
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 5
_GROUP = "examples"
_MOST_PACKED = 1100  # deflate cannot shrink more than 1032 to 1
_MEMORY = 1 << 30
_MEMORY_OF_FILE = 64  # a file of images that are mostly one color shrinks so much
# What h5py raises over a damaged file, by where the damage lies.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError)


class RefusedError(Exception):
    """One sentence: where, what, the cure."""


def clients(
    source: str,
    breathe: Callable[[], None] = lambda: None,
    ids: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    needed: Sequence[str] | None = None,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The clients of a file with the rows of their features.

    Args:
        source: The file.
        breathe: Called before each client.
        ids: Which clients, in this order; all of them, sorted, if None.
        features: Those that each of them must have; None for any.
        needed: Those to read; None for all.

    Raises:
        RefusedError: A damaged file, or one that holds something else.
    """
    with _opened(source) as (h5py, group):
        for client_id in sorted(group) if ids is None else ids:
            breathe()
            where = f"{source}, client {client_id!r}"
            with _damage_named(where):
                member = group[client_id]
                if not isinstance(member, h5py.Group):
                    raise RefusedError(
                        f"{where}: it is no group of features; write "
                        f"'/{_GROUP}/<client id>/<feature>'."
                    )
                names = sorted(member)
            if features is not None and set(names) != set(features):
                raise RefusedError(
                    f"{where}: its features are not {', '.join(sorted(features))}, those of the "
                    "first client; write the file again."
                )
            rows = {}
            for name in names if needed is None else needed:
                here = f"{where}, feature {name!r}"
                with _damage_named(here):
                    rows[name] = _rows(h5py, member[name], here, Path(source).stat().st_size)
            yield client_id, rows


def client_ids(source: str) -> list[str]:
    """The ids of the clients of a file, sorted; raises as `clients`."""
    with _opened(source) as (_, group):
        return sorted(group)


@contextlib.contextmanager
def _opened(source: str) -> Iterator[tuple[Any, Any]]:
    """h5py, and the group of the clients."""
    import h5py

    with _damage_named(source):
        if not h5py.is_hdf5(source):
            raise RefusedError(
                f"{source}: this is no HDF5 file; give one as TFF served it, "
                "or read `.sqlite` files with `from_sql`."
            )
        with h5py.File(source, "r") as file:
            group = file.get(_GROUP)
            if not isinstance(group, h5py.Group):
                there = ", ".join(sorted(file)[:5]) or "nothing"
                raise RefusedError(
                    f"{source}: it has no group '/{_GROUP}' (but: {there}), so it is no client "
                    "data of TFF; give a file such as fed_emnist_train.h5."
                )
            yield h5py, group


@contextlib.contextmanager
def _damage_named(where: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise RefusedError(
            f"{where}: h5py cannot read it ({said}); the file is damaged or was not fetched to "
            "the end, fetch it again."
        ) from error


def _rows(h5py: Any, dataset: Any, where: str, file_size: int) -> np.ndarray:
    """The rows of one feature of a client: numbers in the machine's byte order, or strings."""
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or not dataset.shape:
        raise RefusedError(
            f"{where}: it is no array of rows; write the file again with one row an example."
        )
    most = file_size * (_MOST_PACKED if dataset.chunks else 1)
    if dataset.nbytes > most:
        raise RefusedError(
            f"{where}: it promises {dataset.nbytes} bytes in a file of {file_size}; the file is "
            "damaged, fetch it again."
        )
    if dataset.chunks:
        sides = zip(dataset.shape, dataset.chunks, strict=True)
        promised, there = math.prod(-(-n // c) for n, c in sides), dataset.id.get_num_chunks()
        if there < promised:  # HDF5 would fill in zeros, at any length
            raise RefusedError(
                f"{where}: it promises {promised} chunks, and {there} are there; the file is "
                "damaged or was not written to its end, fetch it again."
            )
    values = dataset[()]
    if values.dtype.kind not in "biufSO":
        raise RefusedError(
            f"{where}: it holds {values.dtype}; only numbers and strings can be read."
        )
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _limit_memory(source: str) -> None:
    if sys.platform != "linux":
        return
    import resource

    import h5py  # noqa: F401 -- what it maps does not count

    with open("/proc/self/statm", "rb") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    most = now + _MEMORY + _MEMORY_OF_FILE * Path(source).stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _breathe() -> None:
    """Allows so many seconds of processor time from now; then the system ends the process."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    until = int(used.ru_utime + used.ru_stime) + 1 + SECONDS
    if hard != resource.RLIM_INFINITY:
        until = min(until, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (until, hard))


def _main(source: str) -> None:
    out = sys.stdout.buffer
    last: tuple[Any, ...] = ("done",)
    try:
        asked = pickle.load(sys.stdin.buffer)  # noqa: S301 -- fedbridge's own
        _limit_memory(source)
        _breathe()
        if asked is None:
            pickle.dump(("ids", client_ids(source)), out, protocol=5)
        else:
            for client in clients(source, _breathe, **asked):
                pickle.dump(("client", *client), out, protocol=5)
    except RefusedError as error:
        last = ("error", str(error))
    pickle.dump(last, out, protocol=5)
    out.flush()


if __name__ == "__main__":
    _main(sys.argv[1])
