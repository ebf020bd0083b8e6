"""Reads an HDF5 file of client data in a process of its own: `python _hdf5_child.py FILE`.

A damaged file can make libhdf5 loop without end, crash, or ask for any amount of memory. So this
program may use ten seconds of processor time for each client, and memory in proportion to the file;
the operating system ends it where it goes past either (not on Windows, which has no such limits).
It needs numpy and h5py and nothing of fedbridge, so that it starts quickly.

On stdout, pickled one after another: ("client", id, {feature: rows}) for each; at last ("done",),
or ("error", sentence).
"""

import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 10
_GROUP = "examples"
_MOST_PACKED = 1100  # deflate cannot shrink more than 1032 to 1
_MEMORY = 1 << 30
_MEMORY_OF_FILE = 64  # a file of images that are mostly one color shrinks so much
# What h5py raises over a damaged file, by where the damage lies.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError)


class RefusedError(Exception):
    """One sentence: where, what, the cure."""


def clients(
    source: str, breathe: Callable[[], None] = lambda: None
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The clients of a file, sorted, with the rows of their features.

    Args:
        source: The file.
        breathe: Called before each client.

    Raises:
        RefusedError: A damaged file, or one that holds something else.
    """
    import h5py

    where = source
    try:
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
            for client_id in sorted(group):
                breathe()
                where = f"{source}, client {client_id!r}"
                member = group[client_id]
                if not isinstance(member, h5py.Group):
                    raise RefusedError(
                        f"{where}: it is no group of features; write "
                        f"'/{_GROUP}/<client id>/<feature>'."
                    )
                features = {}
                for name in sorted(member):
                    where = f"{source}, client {client_id!r}, feature {name!r}"
                    features[name] = _rows(h5py, member[name], where, Path(source).stat().st_size)
                yield client_id, features
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
        _limit_memory(source)
        _breathe()
        for client in clients(source, _breathe):
            pickle.dump(("client", *client), out, protocol=5)
    except RefusedError as error:
        last = ("error", str(error))
    pickle.dump(last, out, protocol=5)
    out.flush()


if __name__ == "__main__":
    _main(sys.argv[1])
