"""TFF's old HDF5 files of client data: fed_emnist_train.h5, stackoverflow_*.h5, shakespeare_*.h5.

    /examples/<client id>/<feature>     one data set of all rows, [rows, ...]

The element of a client is row r of every feature; clients and features are sorted by name.

Reference: TFF's simulation/hdf5_client_data.py (HDF5ClientData, up to TFF 0.20).
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge.jax_core import ClientDataError, FederatedArrays
from fedbridge.tff_io._cache import cache_folder, fingerprint, load_copy, save_copy
from fedbridge.tff_io._client_data import _pack

_GROUP = "examples"
_MOST_PACKED = 1100  # deflate cannot shrink more than 1032 to 1
# What h5py raises over a damaged file, by where the damage lies.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError)


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
    numbers is not noticed, and one among strings can make the HDF5 library loop without end.

    Args:
        path: The file; or a folder that holds one file for each split, `*_train.h5`, `*_test.h5`.
        split: Which file of a folder: the end of its name. With a file it is not needed.
        cache: As in `from_sql`.

    Raises:
        ClientDataError: h5py is missing; a missing, truncated or damaged file; one that holds
            something else; or features of a client that differ in their number of rows.
    """
    source = _find(Path(path).expanduser(), split)
    folder = cache_folder(cache)
    key = {"path": str(source.resolve()), "split": split, "spec": "hdf5"}
    before = fingerprint(source)
    if folder is not None and (data := load_copy(folder, key, before)) is not None:
        return data
    data = _read(source)
    return data if folder is None else save_copy(folder, key, before, data)


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
    try:
        import h5py
    except ImportError as error:
        raise ClientDataError(
            f"{source}: HDF5 files are read by h5py, which is not installed; "
            "`pip install 'fedbridge[hdf5]'`."
        ) from error
    clients: dict[str, dict[str, np.ndarray]] = {}
    where = f"{source}"
    try:
        if not h5py.is_hdf5(source):
            raise ClientDataError(
                f"{source}: this is no HDF5 file; give one as TFF served it, "
                "or read `.sqlite` files with `from_sql`."
            )
        with h5py.File(source, "r") as file:
            group = file.get(_GROUP)
            if not isinstance(group, h5py.Group):
                there = ", ".join(sorted(file)[:5]) or "nothing"
                raise ClientDataError(
                    f"{source}: it has no group '/{_GROUP}' (but: {there}), so it is no client "
                    "data of TFF; give a file such as fed_emnist_train.h5."
                )
            for client_id in sorted(group):
                where = f"{source}, client {client_id!r}"
                member = group[client_id]
                if not isinstance(member, h5py.Group):
                    raise ClientDataError(
                        f"{where}: it is no group of features; write "
                        f"'/{_GROUP}/<client id>/<feature>'."
                    )
                clients[client_id] = {}
                for name in sorted(member):
                    where = f"{source}, client {client_id!r}, feature {name!r}"
                    clients[client_id][name] = _rows(
                        h5py, member[name], where, source.stat().st_size
                    )
    except ClientDataError:
        raise
    except _DAMAGE as error:
        said = " ".join(str(error).split())
        raise ClientDataError(
            f"{where}: h5py cannot read it ({said}); the file is damaged or was not fetched to "
            "the end, fetch it again."
        ) from error
    if not clients:
        raise ClientDataError(f"{source}: its group '/{_GROUP}' has no clients; fetch it again.")
    try:
        return _pack(clients)
    except ClientDataError as error:
        raise ClientDataError(f"{source}: {error}") from error


def _rows(h5py: Any, dataset: Any, where: str, file_size: int) -> np.ndarray:
    """The rows of one feature of a client: numbers in the machine's byte order, or strings."""
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or not dataset.shape:
        raise ClientDataError(
            f"{where}: it is no array of rows; write the file again with one row an example."
        )
    most = file_size * (_MOST_PACKED if dataset.chunks else 1)
    if dataset.nbytes > most:
        raise ClientDataError(
            f"{where}: it promises {dataset.nbytes} bytes in a file of {file_size}; the file is "
            "damaged, fetch it again."
        )
    values = dataset[()]
    if values.dtype.kind not in "biufSO":
        raise ClientDataError(
            f"{where}: it holds {values.dtype}; only numbers and strings can be read."
        )
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
