"""TFF's old HDF5 files of client data: fed_emnist_train.h5, stackoverflow_*.h5, shakespeare_*.h5.

    /examples/<client id>/<feature>     one data set of all rows, [rows, ...]

The element of a client is row r of every feature; clients and features are sorted by name.

Reference: TFF's simulation/hdf5_client_data.py (HDF5ClientData, up to TFF 0.20).
"""

import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge.jax_core import ClientDataError, FederatedArrays, check_path
from fedbridge.tff_io import _hdf5_child
from fedbridge.tff_io._cache import copied
from fedbridge.tff_io._client_data import _pack


def from_hdf5(
    path: str | os.PathLike,
    split: str | None = None,
    *,
    cache: bool | str | os.PathLike = True,
) -> FederatedArrays:
    """Reads a TFF HDF5 file of client data (needs h5py: `pip install 'fedbridge[hdf5]'`).

    The values and dtypes are those of TFF's HDF5ClientData, which 0.87.0 has no more: compared with
    its body written again in tf.data. All of the file passes through memory once; then a converted
    copy is memory-mapped, as with `from_sql`. HDF5 has no checksums: a changed byte inside of the
    numbers is not noticed. One elsewhere can make the HDF5 library loop or crash, so a process of
    its own reads the file, limited in time and memory.

    Args:
        path: The file; or a folder that holds one file for each split, `*_train.h5`, `*_test.h5`.
        split: Which file of a folder: the end of its name. With a file it is not needed.
        cache: As in `from_sql`.

    Raises:
        ClientDataError: h5py is missing; a missing, truncated or damaged file; one that holds
            something else; or features of a client that differ in their number of rows.
    """
    check_path("path", path)
    source = _find(Path(path).expanduser(), split)
    return copied(source, {"split": split, "spec": "hdf5"}, cache, lambda folder: _read(source))


def _find(path: Path, split: str | None) -> Path:
    if path.is_dir():
        files = sorted(path.glob("*.h5"))
        fit = [file for file in files if split is None or file.stem.endswith(f"_{split}")]
        if len(fit) != 1:
            names = ", ".join(file.name for file in files) or "none"
            raise ClientDataError(
                f"{path}: {len(fit)} of its .h5 files fit the split {split!r} (it has: {names}); "
                "give the path of one file."
            )
        return fit[0]
    if not path.is_file():
        raise ClientDataError(f"{path}: there is no such file; give the path of a TFF HDF5 file.")
    if split is not None and not path.stem.endswith(split):
        raise ClientDataError(
            f"{path}: split {split!r} was asked for, and a file holds one split, which its name "
            "ends with; give that split's file, or leave out `split`."
        )
    return path


def _read(source: Path) -> FederatedArrays:
    """All clients."""
    clients = read_clients(source)
    if not clients:
        raise ClientDataError(f"{source}: its group '/examples' has no clients; fetch it again.")
    return packed(source, clients)


def packed(source: Path, clients: dict[str, dict[str, np.ndarray]]) -> FederatedArrays:
    """Clients of a file as arrays; raises `ClientDataError` where they do not fit together."""
    try:
        return _pack(clients)
    except ClientDataError as error:
        raise ClientDataError(f"{source}: {error}") from error


def read_clients(
    source: Path,
    ids: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    needed: Sequence[str] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Clients of a file, read by a process of its own; arguments and errors as in `_hdf5_child`.

    Raises:
        ClientDataError: What that process says, or that it hung or crashed.
    """
    asked = {"ids": ids, "features": features, "needed": needed}
    return {client_id: rows for _, client_id, rows in _answers(source, asked)}


def client_ids(source: Path) -> list[str]:
    """The clients of a file, sorted as TFF does; read, and raises, as `read_clients`."""
    (_, ids), *_ = _answers(source, None)
    return ids


def _answers(source: Path, asked: dict[str, Any] | None) -> Iterator[tuple[Any, ...]]:
    """What the process says; libhdf5 can hang or crash over a damaged file."""
    if importlib.util.find_spec("h5py") is None:
        raise ClientDataError(
            f"{source}: HDF5 files are read by h5py, which is not installed; "
            "`pip install 'fedbridge[hdf5]'`."
        )
    last: tuple[Any, ...] = ("ended",)
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as question:
        pickle.dump(asked, question, protocol=5)
        question.seek(0)
        command = [sys.executable, "-P", _hdf5_child.__file__, str(source)]
        with subprocess.Popen(
            command, stdin=question, stdout=subprocess.PIPE, stderr=said
        ) as child:
            assert child.stdout is not None
            try:
                while (last := pickle.load(child.stdout))[0] in ("client", "ids"):  # noqa: S301
                    yield last
            except (EOFError, pickle.UnpicklingError):
                last = ("ended",)
            finally:
                child.kill()
    if last[0] == "error":
        raise ClientDataError(last[1])
    if last[0] != "done":
        raise ClientDataError(
            f"{source}: the HDF5 library crashed over it, or used more than "
            f"{_hdf5_child.SECONDS} seconds on one client; the file is damaged, fetch it again."
        )
