"""A state in a file: written whole or not at all, and refused when a bit of it has changed.

The file is one line of ASCII, `fedbridge-state 1 SHA256 [ALGORITHM]`, and then NumPy's npz of the
leaves under their paths ("global_model_weights/trainable/0"), with an empty array "aggregator()"
where there is a container without leaves; the checksum is that of the algorithm's name and all that
follows the line.
"""

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import TypeVar

import numpy as np

from fedbridge.jax_core import (
    StateError,
    check_argument,
    check_path,
    empty_containers,
    fits_shape,
    from_named_leaves,
    numpy_leaves,
)

_MAGIC, _FORMAT = b"fedbridge-state", 1
_Tree = TypeVar("_Tree")


def save(path: str | os.PathLike[str], state: object, *, algorithm: str = "") -> None:
    """Writes a state: aside first, then renamed, so that `path` is always whole.

    Args:
        path: The file; an existing one is replaced.
        state: Any tree of arrays, e.g. a `LearningAlgorithmState`.
        algorithm: `process.name`, for `load` to compare; one word.

    Raises:
        StateError: The folder cannot be written to.
        ArgumentError: A name that is more than one word, a leaf that is no array, or no path.

    Example:
        >>> import tempfile, os
        >>> file = os.path.join(tempfile.mkdtemp(), "round_7.state")
        >>> save(file, {"w": np.arange(3)})
        >>> load(file, like={"w": np.zeros(3, int)})
        {'w': array([0, 1, 2])}
    """
    from fedbridge.tff_io._files import write_whole  # not needed by a plain `import fedbridge`

    check_path("path", path)
    name = _name(algorithm)
    content = io.BytesIO()
    np.savez(content, **_content(state))  # type: ignore[arg-type]
    words = [_MAGIC, b"%d" % _FORMAT, _digest(name, content.getbuffer()), *name.split()]
    head = b" ".join(words) + b"\n"

    def write(file: Path) -> None:
        with file.open("wb") as handle:
            handle.write(head)
            handle.write(content.getbuffer())

    write_whole(path, write)


def load(path: str | os.PathLike[str], like: _Tree, *, algorithm: str = "") -> _Tree:
    """Reads a state.

    The states of two algorithms may have the same names, shapes and dtypes (FedProx's and
    FedSGD's): without `algorithm` one goes on from the other's state, as in TFF. Two optimizers of
    the same state (Yogi and Adam) are never told apart.

    Args:
        path: A file that `save` wrote.
        like: A state of the same process, e.g. `process.initialize()`: the structure, and the
            shapes and dtypes that the file must have. What starts with no rows may have grown,
            e.g. a sample of the clients.
        algorithm: `process.name`; a file that was saved with another one is refused.

    Raises:
        StateError: There is no such file, it is damaged or cut off, or it is of another process.
    """
    check_path("path", path)
    name = _name(algorithm)
    try:
        head, _, content = Path(path).read_bytes().partition(b"\n")
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}; give a file that `fb.save` wrote.") from None
    words = head.split(b" ")
    if len(words) not in (3, 4) or words[0] != _MAGIC:
        raise StateError(f"{path}: this is no saved state; give a file that `fb.save` wrote.")
    if words[1] != b"%d" % _FORMAT:
        raise StateError(
            f"{path}: it is of format {words[1].decode(errors='replace')}, this fedbridge reads "
            f"format {_FORMAT}; upgrade fedbridge."
        )
    saved_by = b"".join(words[3:])
    if _digest(saved_by, content) != words[2]:
        raise StateError(
            f"{path}: it is damaged (its checksum differs); use the state of an earlier round, or "
            "begin anew."
        )
    if name and saved_by and name != saved_by:
        raise StateError(
            f"{path}: it was saved by {saved_by.decode()}, and this is {algorithm}; load it with "
            "the algorithm that saved it."
        )
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            leaves = {name: stored[name] for name in stored.files}
    except (ValueError, zipfile.BadZipFile):
        raise StateError(f"{path}: it holds no npz file of numbers; save it again.") from None
    expected = _content(like)
    for name in {**expected, **leaves}:
        found, own = leaves.get(name), expected.get(name)
        if found is None or own is None or not _fits(found, own):
            raise StateError(
                f"{path}: {name!r} is {_describe(found)} there and {_describe(own)} in this "
                "process; load it with the process that saved it."
            )
    return from_named_leaves(like, leaves)


def _name(algorithm: object) -> bytes:
    word = isinstance(algorithm, str) and algorithm.isascii() and len(algorithm.split()) <= 1
    check_argument(word, "algorithm", algorithm, "one word, e.g. process.name")
    return str(algorithm).strip().encode()


def _digest(name: bytes, content: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(name)
    digest.update(content)
    return digest.hexdigest().encode()


def _content(state: object) -> dict[str, np.ndarray]:
    """The leaves by their paths, and an empty array `path()` for each container without any."""
    return numpy_leaves("state", state, "OSU") | {
        name: np.zeros(0, np.int8) for name in empty_containers(state)
    }


def _fits(found: np.ndarray, own: np.ndarray) -> bool:
    return found.dtype == own.dtype and fits_shape(found.shape, own.shape)


def _describe(leaf: np.ndarray | None) -> str:
    return "absent" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
