"""The files behind `load_data`: in `cache_dir`, in FEDBRIDGE_DATA, in TFF's own cache."""

import os
from pathlib import Path

from fedbridge.jax_core import ClientDataError
from fedbridge.tff.simulation.datasets._client_data import ArraysClientData
from fedbridge.tff_io import from_sql

HOST = "https://storage.googleapis.com/tff-datasets-public/"


def find(names: tuple[str, ...], cache_dir: str | None) -> Path:
    """The first of the names that is there.

    Raises:
        ClientDataError: None is; it says where to put the file.
    """
    given = cache_dir or os.environ.get("FEDBRIDGE_DATA") or "~/.tff"
    folder = Path(given).expanduser()
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ClientDataError(
        f"there is no {names[0]} in {folder}; get {HOST}{names[-1]} and put it there, or set "
        "FEDBRIDGE_DATA to the folder that holds it."
    )


def splits(name: str, wanted: tuple[str, ...], cache_dir: str | None) -> tuple:
    """Those splits of one of TFF's SQLite files, as client data."""
    path = find((f"{name}.sqlite", f"{name}.sqlite.lzma"), cache_dir)
    return tuple(ArraysClientData(from_sql(path, split)) for split in wanted)
