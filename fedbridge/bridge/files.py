"""Results on disk: checked before the long work, written aside, then renamed."""

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from fedbridge.bridge.result import strict
from fedbridge.jax_core import FedbridgeError
from fedbridge.tff_io._files import write_whole


def check_target(path: str | Path, *, folder: bool = False) -> Path:
    """Makes sure that a result can be written, before an hour is spent on it.

    Tries it out and leaves nothing behind: a run that fails should leave no empty folder.

    Args:
        path: The file, or with `folder` the folder, that will be written.
        folder: Whether `path` is a folder.

    Returns:
        The path.

    Raises:
        FedbridgeError: If it cannot be written there.
    """
    path = Path(path)
    parent = path if folder else path.parent
    if not folder and path.is_dir():
        raise _cannot(path, "it is a folder")
    absent = [place for place in (parent, *parent.parents) if not place.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        # Permissions do not tell: root may write everywhere, and yet not in /proc.
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise _cannot(path, error.strerror or str(error)) from error
    finally:
        for place in absent:
            with contextlib.suppress(OSError):  # not made, or somebody else's file is in it
                place.rmdir()
    return path


def replace_text(path: str | Path, text: str) -> Path:
    """Writes a text file in one step, or not at all, and returns its path."""
    path = check_target(path)
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))
    return path


def json_text(tree: Any) -> str:
    """A tree as strict JSON: NaN and infinity are null, tuples with names are objects."""
    return json.dumps(strict(tree), indent=2, allow_nan=False) + "\n"


def _cannot(path: Path, why: str) -> FedbridgeError:
    return FedbridgeError(f"{path}: cannot be written ({why}); name another place.")
