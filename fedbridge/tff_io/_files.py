"""Files that are whole or not there: written aside in the same folder, then renamed."""

import contextlib
import errno
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fedbridge.jax_core import ClientDataError, StateError, check_path


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Has a file written aside, and renames it; an existing one is replaced.

    Args:
        path: The file.
        write: Writes the file that it is given.

    Raises:
        StateError: It cannot be written there.
        ArgumentError: The path is none.
    """
    check_path("path", path)
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            aside = Path(folder, target.name)
            write(aside)
            to_disk(aside)
            os.replace(aside, target)
    except OSError as error:
        room = "make room, or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise StateError(
            f"{path}: it cannot be written there ({error.strerror}); {room}name another folder."
        ) from None


@contextlib.contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Makes a folder for client data, and says in one sentence that they cannot be kept there.

    What it has made goes again where it stays empty.

    Raises:
        ClientDataError: The folder cannot be made or written, or the disk is full.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        for place in made:
            with contextlib.suppress(OSError):  # there is something in it
                place.rmdir()
        if not isinstance(error, OSError | sqlite3.OperationalError):
            raise
        raise ClientDataError(
            f"{folder}: the files cannot be kept there ({getattr(error, 'strerror', '') or error});"
            " make room, or name another folder (for the cache: FEDBRIDGE_CACHE)."
        ) from error


def to_disk(file: Path) -> None:
    """Waits until a file has left the caches of the operating system."""
    handle = os.open(file, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
