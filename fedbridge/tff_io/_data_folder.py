"""Where the data of a run is: a folder that TFF's `load_data(cache_dir=...)` reads."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from fedbridge.jax_core import ClientDataError
from fedbridge.tff_io._cache import cache_folder, fingerprint
from fedbridge.tff_io._fetch import fetch, fetched_folder
from fedbridge.tff_io._generate_emnist import generate_emnist
from fedbridge.tff_io._sql import unpack

_FILES = {"emnist": "emnist_all.sqlite", "stackoverflow": "stackoverflow.sqlite"}
_HOST = "https://storage.googleapis.com/tff-datasets-public/"
_STAND_IN_CLIENTS = 20


class DataFolder(NamedTuple):
    """Where the data of a run comes from.

    Attributes:
        folder: For `cache_dir`; None: TFF shall download the data itself, into its own cache.
        source: One phrase that says which data this is.
    """

    folder: Path | None
    source: str


def find_data(dataset: str = "emnist", *, offline_ok: bool = True) -> DataFolder:
    """Finds real data, or makes a stand-in, and says which.

    In this order: the folder FEDBRIDGE_DATA names (packed files are unpacked into the cache
    folder); TFF's own cache; what `fetch` has fetched; TFF's download, where its host answers;
    generated handwriting.

    Args:
        dataset: "emnist" or "stackoverflow".
        offline_ok: Whether generated data will do.

    Raises:
        ClientDataError: FEDBRIDGE_DATA does not hold the file; or there is neither data nor a
            network, and no stand-in for this data set.
    """
    if dataset not in _FILES:
        raise ClientDataError(
            f"data set {dataset!r}: only {', '.join(map(repr, _FILES))} can be looked for; read "
            "other files with `from_sql`."
        )
    name = _FILES[dataset]
    if os.environ.get("FEDBRIDGE_DATA"):
        return _given(Path(os.environ["FEDBRIDGE_DATA"]).expanduser(), name)
    tff_cache = Path.home() / ".tff"
    if (tff_cache / name).is_file():
        return DataFolder(tff_cache, f"{tff_cache / name}, from TFF's own cache")
    if (fetched_folder() / name).is_file():
        return DataFolder(fetched_folder(), f"{fetched_folder() / name}, fetched before")
    if _host_answers(name):
        return DataFolder(None, f"{name}, downloaded by TFF from {_HOST}")
    if dataset != "emnist" or not offline_ok:
        raise ClientDataError(
            f"data set {dataset!r}: there is no {name} in {tff_cache} and TFF's host does not "
            "answer; set FEDBRIDGE_DATA to a folder that holds the file."
        )
    folder = _cache() / "generated" / f"emnist-{_STAND_IN_CLIENTS}-v1"
    if not (folder / name).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        generate_emnist(_STAND_IN_CLIENTS, folder)
    return DataFolder(
        folder, f"generated handwriting of {_STAND_IN_CLIENTS} writers, a stand-in for EMNIST"
    )


def find_file(dataset: str, name: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """The path of one of TFF's data files, fetched where it is not there yet.

    Args:
        dataset: As in `fetch`.
        name: The file's name, unpacked.
        folder: Where to look, and where it is fetched to. None: the folder that FEDBRIDGE_DATA
            names, TFF's own cache, or what `fetch` fills.

    Raises:
        ClientDataError: FEDBRIDGE_DATA does not hold the file; or as `fetch`.
    """
    if folder is None:
        if os.environ.get("FEDBRIDGE_DATA"):
            given = _given(Path(os.environ["FEDBRIDGE_DATA"]).expanduser(), name).folder
            assert given is not None
            return given / name
        if (Path.home() / ".tff" / name).is_file():
            return Path.home() / ".tff" / name
    (path,) = fetch(dataset, folder, only=name)
    return path


def _given(folder: Path, name: str) -> DataFolder:
    if (folder / name).is_file():
        return DataFolder(folder, f"{folder / name} (FEDBRIDGE_DATA)")
    packed = folder / f"{name}.lzma"
    if not packed.is_file():
        raise ClientDataError(
            f"FEDBRIDGE_DATA={folder}: it holds neither {name} nor {packed.name}; name a folder "
            "with TFF's data files, or unset it."
        )
    # One folder per file, found again by the path, and by size and time as long as they last.
    place = hashlib.sha256(str(packed.resolve()).encode()).hexdigest()[:16]
    version = hashlib.sha256(repr(fingerprint(packed)).encode()).hexdigest()[:16]
    unpacked = _cache() / "unpacked" / place / version
    if not (unpacked / name).is_file():
        shutil.rmtree(unpacked.parent, ignore_errors=True)
        unpacked.mkdir(parents=True, exist_ok=True)
        unpack(packed, unpacked / name)
    return DataFolder(unpacked, f"{packed} (FEDBRIDGE_DATA)")


def _cache() -> Path:
    folder = cache_folder(True)
    assert folder is not None
    return folder


def _host_answers(name: str) -> bool:
    from urllib.request import Request, urlopen

    request = Request(f"{_HOST}{name}.lzma", method="HEAD")  # noqa: S310 -- the host is ours to name
    try:
        with urlopen(request, timeout=5) as answer:  # noqa: S310
            return answer.status == 200
    except OSError:
        return False
