"""TFF's data files from TFF's public addresses, or from a mirror.

    FOLDER/emnist_all.sqlite                the file, unpacked: whole, or not there
    FOLDER/emnist_all.sqlite.lzma.part      a download that broke; the next one goes on from there
    FOLDER/checksums.json                   what was fetched: checksums TFF does not publish

Reference: TFF's simulation/datasets/download.py and the `load_data` of its data sets, whose
addresses and checksums these are. TFF starts a broken download anew, and publishes no checksums of
its SQLite files.
"""

import http.client
import json
import os
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fedbridge.jax_core import ClientDataError, check_path
from fedbridge.tff_io._cache import cache_folder
from fedbridge.tff_io._files import kept_in, write_whole
from fedbridge.tff_io._sql import unpack


class Remote(NamedTuple):
    """A file at its public address.

    Attributes:
        url: The address.
        checksum: "sha256:..." or "md5:...", as TFF publishes it, or None.
    """

    url: str
    checksum: str | None = None


_TFF = "https://storage.googleapis.com/tff-datasets-public/"
_INATURALIST = "https://ml-inat-competition-datasets.s3.amazonaws.com/2017/"
REMOTE_FILES: dict[str, tuple[Remote, ...]] = {
    "emnist": (Remote(f"{_TFF}emnist_all.sqlite.lzma"),),
    "stackoverflow": (
        Remote(f"{_TFF}stackoverflow.sqlite.lzma"),
        Remote(
            f"{_TFF}stackoverflow.word_count.tar.bz2",
            "sha256:1dc00256d6e527c54b9756d968118378ae14e6692c0b3b6cad470cdd3f0c519c",
        ),
        Remote(
            f"{_TFF}stackoverflow.tag_count.tar.bz2",
            "sha256:6fe281cec490d9384a290d560072438e7e2b377bbb823876ce7bd6f82696772d",
        ),
    ),
    "shakespeare": (Remote(f"{_TFF}shakespeare.sqlite.lzma"),),
    "cifar100": (Remote(f"{_TFF}cifar100.sqlite.lzma"),),
    "celeba": (Remote(f"{_TFF}celeba.sqlite.lzma"),),
    "gldv2": (
        Remote(
            "https://storage.googleapis.com/gresearch/federated-vision-datasets/"
            "landmarks-user-160k.zip",
            "md5:53c36bd7d5fc12f927af2820b7e4a57c",
        ),
        Remote(f"{_TFF}mini_gld_train_split.csv", "md5:9fd62cf79a67046fdd673d3a0ac52841"),
        Remote(f"{_TFF}mini_gld_test.csv", "md5:298e9d19d66357236f66fe8e22920933"),
    ),
    "inaturalist": (
        Remote(f"{_TFF}iNaturalist_train.csv", "md5:63d5a41699434bc2b13f5853f3764c18"),
        Remote(f"{_TFF}iNaturalist_test.csv", "md5:bcf08a5a740ee76dac4e5af668081891"),
        Remote(f"{_INATURALIST}train_val_images.tar.gz", "md5:7c784ea5e424efaec655bd392f87301f"),
        Remote(f"{_INATURALIST}test2017.tar.gz", "md5:7d9b096fa1cd94d67a0fa779ea301234"),
    ),
}

Progress = Callable[[str, int, int | None], None]
"""Is told a file's name, how many of its bytes are there, and of how many, where that is known."""

_TRIES = 5  # one after another that bring no byte
_PAUSE = 1.0  # seconds before the second try, doubled before each further one
_CHUNK = 1 << 20


def fetch(
    dataset: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    only: str | None = None,
    mirror: str | os.PathLike[str] | None = None,
    progress: Progress = lambda name, done, total: None,
) -> tuple[Path, ...]:
    """Fetches the files of one of TFF's data sets, those that are not there yet.

    A download that breaks is tried again and goes on where it broke, also in the next call. Each
    file is compared with TFF's checksum; where TFF publishes none, with the one of the first time
    that it was fetched to this folder. `.lzma` and `.tar.bz2` are unpacked in a stream, and the
    packed file is removed.

    Args:
        dataset: "emnist", "stackoverflow", "shakespeare", "cifar100" or "celeba"; "gldv2" and
            "inaturalist" are fetched as they are served (of gldv2, the lists of images only).
        folder: Where the files go; None: `files` in the cache folder.
        only: The unpacked name of one of the files, where the others are not wanted.
        mirror: A folder, or an address, with files of the same names (in a folder also unpacked);
            None: the environment's FEDBRIDGE_MIRROR, or else the public addresses.
        progress: Called as bytes arrive.

    Returns:
        The paths of the files, unpacked.

    Raises:
        ClientDataError: No such data set; no network, or a server that refuses; a wrong checksum or
            a damaged file; a full disk, or a folder that cannot be written.
    """
    if dataset not in REMOTE_FILES:
        raise ClientDataError(
            f"data set {dataset!r}: there are no addresses of it here; ask for one of "
            f"{', '.join(REMOTE_FILES)}."
        )
    check_path("folder", "." if folder is None else folder)
    check_path("mirror", "." if mirror is None else mirror)
    into = fetched_folder() if folder is None else Path(folder).expanduser()
    place = os.fspath(mirror or os.environ.get("FEDBRIDGE_MIRROR", ""))
    with kept_in(into):
        return tuple(
            _fetch(remote, into, place, progress)
            for remote in REMOTE_FILES[dataset]
            if only in (None, _unpacked_name(remote))
        )


def fetched_folder() -> Path:
    """The folder that `fetch` fills where none is named."""
    folder = cache_folder(True)
    assert folder is not None
    return folder / "files"


def _fetch(remote: Remote, folder: Path, mirror: str, progress: Progress) -> Path:
    name = remote.url.rsplit("/", 1)[-1]
    target = folder / _unpacked_name(remote)
    if target.is_file():
        return target
    checksum = remote.checksum or _recorded(folder).get(name)
    local = bool(mirror) and "://" not in mirror
    url = f"{mirror.rstrip('/')}/{name}" if mirror else remote.url
    packed = (Path(mirror).expanduser() if local else folder) / name
    unpacked = packed.with_name(target.name)
    if local and not packed.is_file() and unpacked.is_file():  # a mirror may have it unpacked
        write_whole(target, lambda aside: shutil.copyfile(unpacked, aside))
        return target
    download = not local and not packed.is_file()
    if download:
        checksum = _download(url, packed, checksum, progress)
    elif packed.is_file():
        checksum = _compared(packed, packed, checksum)
    else:
        raise ClientDataError(
            f"{packed}: there is no such file in the mirror; put it there, or name no "
            "mirror (--mirror, FEDBRIDGE_MIRROR) to fetch it from the public address."
        )
    try:
        _unpack(packed, target)
    except ClientDataError as error:
        if not download:
            raise
        packed.unlink(missing_ok=True)
        raise ClientDataError(
            f"{url}: what came from there cannot be unpacked ({packed.name} is truncated, damaged, "
            "or a page in its place); look at the address, or name a mirror that has the file."
        ) from error
    except BaseException:  # a full disk, say: the next call need not fetch it again
        if download and packed != target:
            os.replace(packed, _part(packed))
        raise
    if download and packed != target:
        packed.unlink(missing_ok=True)
    if remote.checksum is None:
        known = json.dumps({**_recorded(folder), name: checksum}, indent=1)
        write_whole(folder / "checksums.json", lambda aside: aside.write_text(known))
    return target


def _unpacked_name(remote: Remote) -> str:
    return remote.url.rsplit("/", 1)[-1].removesuffix(".lzma").removesuffix(".tar.bz2")


def _download(url: str, target: Path, checksum: str | None, progress: Progress) -> str:
    """Downloads and compares a file; pooch puts it in its place when both went well."""
    import pooch

    found = ""

    def downloader(url: str, aside: str, _: Any) -> None:
        nonlocal found
        _resume(url, Path(aside), target, progress)
        found = _compared(Path(aside), url, checksum)

    pooch.get_logger().setLevel("WARNING")
    place: Any = downloader  # pooch's protocol knows more than it needs
    pooch.retrieve(url, known_hash=None, fname=target.name, path=target.parent, downloader=place)
    return found


def _resume(url: str, aside: Path, target: Path, progress: Progress) -> None:
    """Downloads a file, going on where an earlier download broke."""
    part = _part(target)
    fruitless, error = 0, ""
    while fruitless < _TRIES:
        if fruitless:
            time.sleep(_PAUSE * 2 ** (fruitless - 1))
        before = _size(part)
        try:
            if _go_on(url, part, lambda done, total: progress(target.name, done, total)):
                os.replace(part, aside)
                return
            error = "the connection closed early"
        except _BrokenError as broken:
            error = str(broken)
        fruitless = 0 if _size(part) > before else fruitless + 1
    kept = f"; {_size(part)} bytes are kept, fetch again to go on" if _size(part) else ""
    raise ClientDataError(
        f"{url}: it cannot be fetched ({error}){kept}; look at the network, or set "
        "FEDBRIDGE_MIRROR to a folder or an address that has the file."
    )


def _part(target: Path) -> Path:
    """What is there of a download."""
    return target.with_name(f"{target.name}.part")


class _BrokenError(Exception):
    """The network, in a few words; another try may go well."""


def _go_on(url: str, part: Path, progress: Callable[[int, int | None], None]) -> bool:
    """Asks for the bytes that `part` lacks; whether it is whole then."""
    have = _size(part)
    with _asked(url, have) as answer:
        served = answer.headers.get("Content-Range", "")
        if answer.status == 416:  # nothing lies behind what is there
            if served == f"bytes */{have}":
                return True
            part.unlink()
            return False
        goes_on = answer.status == 206 and served.startswith(f"bytes {have}-")
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        with part.open("ab" if goes_on else "wb") as file:
            while chunk := _received(answer):
                file.write(chunk)
                have += len(chunk)
                progress(have, total)
    return total is None or have == total


def _asked(url: str, have: int) -> Any:
    """The server's answer."""
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30)  # noqa: S310 -- an address of ours, or the user's
    except urllib.error.HTTPError as answer:
        if answer.code == 416 and have:
            return answer
        if answer.code >= 500:
            raise _BrokenError(f"the server answers {answer.code} {answer.reason}") from answer
        raise ClientDataError(
            f"{url}: the server answers {answer.code} {answer.reason}; give an address that has "
            "the file in FEDBRIDGE_MIRROR."
        ) from answer
    except ValueError as error:
        raise ClientDataError(f"{url}: this is no address ({error}); give another.") from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(getattr(error, "reason", error)) or type(error).__name__) from error


def _received(answer: Any) -> bytes:
    """What has come, so that nothing of it is lost when the connection breaks."""
    try:
        return answer.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _compared(file: Path, source: str | Path, expected: str | None) -> str:
    """The checksum of a file, which has to be the expected one."""
    import pooch

    method, _, digest = (expected or "sha256:").partition(":")
    found = pooch.file_hash(str(file), alg=method)
    if digest and found != digest:
        published = any(
            remote.checksum == expected for files in REMOTE_FILES.values() for remote in files
        )
        renewed = "from another mirror" if published else "remove its line from checksums.json"
        again = "remove it and put the right one there" if file == source else "fetch it again"
        raise ClientDataError(
            f"{source}: its {method} is {found}, and not {digest}; it was damaged on the way or is "
            f"another file, {again} ({'if it stays so' if published else 'a new version'}: "
            f"{renewed})."
        )
    return f"{method}:{found}"


def _recorded(folder: Path) -> dict[str, str]:
    file = folder / "checksums.json"
    if not file.is_file():
        return {}
    try:
        known = dict(json.loads(file.read_bytes()))
        if not all(isinstance(checksum, str) for checksum in known.values()):
            raise ValueError("a checksum is no text")
        return known
    except (ValueError, TypeError) as error:
        raise ClientDataError(f"{file}: it is damaged ({error}); remove it.") from error


def _unpack(packed: Path, target: Path) -> None:
    if packed.suffix == ".lzma":
        unpack(packed, target)
    elif packed.name.endswith(".tar.bz2"):
        _extract(packed, target)
    elif packed != target:
        write_whole(target, lambda aside: shutil.copyfile(packed, aside))


def _extract(packed: Path, target: Path) -> None:
    """The one file that a tar of TFF's holds."""
    with tempfile.TemporaryDirectory(prefix=".aside-", dir=target.parent) as temporary:
        aside = Path(temporary) / target.name
        try:
            with tarfile.open(packed, "r:bz2") as archive, aside.open("wb") as file:
                inside = archive.extractfile(target.name)
                if inside is None:
                    raise KeyError(f"{target.name} is no file")
                shutil.copyfileobj(inside, file, _CHUNK)
        except (tarfile.TarError, EOFError, KeyError) as error:
            raise ClientDataError(
                f"{packed}: the packed file is truncated or damaged ({error}); fetch it again."
            ) from error
        aside.replace(target)
