"""Files that are whole or not there: written aside in the same folder, then renamed."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from fedbridge.jax_core import StateError


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Has a file written aside, and renames it; an existing one is replaced.

    Args:
        path: The file.
        write: Writes the file that it is given.

    Raises:
        StateError: It cannot be written there.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            aside = Path(folder, target.name)
            write(aside)
            to_disk(aside)
            os.replace(aside, target)
    except OSError as error:
        raise StateError(
            f"{path}: it cannot be written there ({error.strerror}); name another folder."
        ) from None


def to_disk(file: Path) -> None:
    """Waits until a file has left the caches of the operating system."""
    handle = os.open(file, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
