"""Where the data of a run is: a folder that TFF's `load_data(cache_dir=...)` reads."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from fedbridge.jax_core import ClientDataError, check_path
from fedbridge.tff_io._cache import cache_folder, fingerprint
from fedbridge.tff_io._fetch import fetch, fetched_folder
from fedbridge.tff_io._files import kept_in
from fedbridge.tff_io._generate_emnist import generate_emnist
from fedbridge.tff_io._generate_stackoverflow import generate_stackoverflow
from fedbridge.tff_io._sql import unpack

_FILES = {
    "emnist": "emnist_all.sqlite",
    "stackoverflow": "stackoverflow.sqlite",
    "shakespeare": "shakespeare.sqlite",
    "cifar100": "cifar100.sqlite",
    "celeba": "celeba.sqlite",
}
_IMAGES = ("gldv2", "inaturalist", "flair")  # TFF's other data sets: archives of JPEG files
_HOST = "https://storage.googleapis.com/tff-datasets-public/"
_STAND_IN_CLIENTS = 20
_STAND_IN_USERS, _STAND_IN_SENTENCES = 200, 12_000


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
        dataset: "emnist", "stackoverflow", "shakespeare", "cifar100" or "celeba".
        offline_ok: Whether generated data will do.

    Raises:
        ClientDataError: FEDBRIDGE_DATA does not hold the file; or there is neither data nor a
            network, and no stand-in for this data set.
    """
    if dataset in _IMAGES:
        raise ClientDataError(no_reader(dataset))
    if dataset not in _FILES:
        raise ClientDataError(
            f"data set {dataset!r}: only {', '.join(map(repr, _FILES))} can be looked for; read "
            "other files with `from_sql`."
        )
    name = _FILES[dataset]
    there = _at_hand(name)
    if there is not None:
        return there
    if _host_answers(name):
        return DataFolder(None, f"{name}, downloaded by TFF from {_HOST}")
    if dataset != "emnist" or not offline_ok:
        raise ClientDataError(
            f"data set {dataset!r}: there is no {name} in {Path.home() / '.tff'} and TFF's host "
            "does not answer; set FEDBRIDGE_DATA to a folder that holds the file."
        )
    return _generated_emnist()


def no_reader(dataset: str) -> str:
    """Why one of TFF's data sets cannot be read, and what to do; "" where it can.

    Example:
        >>> no_reader("emnist")
        ''
    """
    if dataset not in _IMAGES:
        return ""
    return (
        f"data set {dataset!r}: it is an archive of JPEG files, which fedbridge does not decode; "
        "give decoded images of one size to `from_clients`, or write them to an SQLite file with "
        "`fedbridge.tff_io.write_sql`, which `from_sql` reads."
    )


def data_at_hand(name: str, folder: str | os.PathLike[str] | None = None) -> DataFolder | None:
    """Where one of TFF's data files is on this machine; the network is not asked.

    Args:
        name: The file's name, unpacked.
        folder: Only there, packed or unpacked. None: the folder that FEDBRIDGE_DATA names, TFF's
            own cache, or what `fetch` has fetched.

    Returns:
        Its folder, or None where it is in none of them.

    Raises:
        ClientDataError: `folder`, or FEDBRIDGE_DATA, does not hold the file.
    """
    return _at_hand(name) if folder is None else _given(Path(folder).expanduser(), name, "")


def generated_data(dataset: str) -> DataFolder:
    """A small stand-in for "emnist" or "stackoverflow", generated once, in the cache folder."""
    return _generated_emnist() if dataset == "emnist" else _generated_stackoverflow()


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
    check_path("cache_dir", "." if folder is None else folder)
    if folder is None:
        if os.environ.get("FEDBRIDGE_DATA"):
            given = _given(Path(os.environ["FEDBRIDGE_DATA"]).expanduser(), name).folder
            assert given is not None
            return given / name
        if (Path.home() / ".tff" / name).is_file():
            return Path.home() / ".tff" / name
    elif any((Path(folder).expanduser() / f"{name}{end}").is_file() for end in ("", ".lzma")):
        given = _given(Path(folder).expanduser(), name, "").folder
        assert given is not None
        return given / name
    (path,) = fetch(dataset, folder, only=name)
    return path


def _at_hand(name: str) -> DataFolder | None:
    if os.environ.get("FEDBRIDGE_DATA"):
        return _given(Path(os.environ["FEDBRIDGE_DATA"]).expanduser(), name)
    tff_cache = Path.home() / ".tff"
    if (tff_cache / name).is_file():
        return DataFolder(tff_cache, f"{tff_cache / name}, from TFF's own cache")
    if (fetched_folder() / name).is_file():
        return DataFolder(fetched_folder(), f"{fetched_folder() / name}, fetched before")
    return None


def _generated_emnist() -> DataFolder:
    folder = _cache() / "generated" / f"emnist-{_STAND_IN_CLIENTS}-v1"
    if not (folder / _FILES["emnist"]).is_file():
        generate_emnist(_STAND_IN_CLIENTS, folder)
    return DataFolder(
        folder, f"generated handwriting of {_STAND_IN_CLIENTS} writers, a stand-in for EMNIST"
    )


def _generated_stackoverflow() -> DataFolder:
    folder = _cache() / "generated" / f"stackoverflow-{_STAND_IN_USERS}-v1"
    if not (folder / "stackoverflow.tag_count").is_file():  # the last one written
        generate_stackoverflow(_STAND_IN_USERS, folder, sentences=_STAND_IN_SENTENCES)
    return DataFolder(
        folder,
        f"generated text of {_STAND_IN_USERS} users, which means nothing: a stand-in for "
        "Stack Overflow",
    )


def _given(folder: Path, name: str, by: str = "FEDBRIDGE_DATA") -> DataFolder:
    says = f" ({by})" if by else ""
    if (folder / name).is_file():
        return DataFolder(folder, f"{folder / name}{says}")
    packed = folder / f"{name}.lzma"
    if not packed.is_file():
        asked = f"{by}={folder}" if by else str(folder)
        raise ClientDataError(
            f"{asked}: it holds neither {name} nor {packed.name}; name a folder with TFF's data "
            f"files{', or unset it' if by else ''}."
        )
    # One folder per file, found again by the path, and by size and time as long as they last.
    place = hashlib.sha256(str(packed.resolve()).encode()).hexdigest()[:16]
    version = hashlib.sha256(repr(fingerprint(packed)).encode()).hexdigest()[:16]
    unpacked = _cache() / "unpacked" / place / version
    if not (unpacked / name).is_file():
        shutil.rmtree(unpacked.parent, ignore_errors=True)
        with kept_in(unpacked):
            unpack(packed, unpacked / name)
    return DataFolder(unpacked, f"{packed}{says}")


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
