"""Downloads: resumed, checked, whole or not there. The server is on this machine."""

import bz2
import hashlib
import http.server
import io
import json
import lzma
import tarfile
import threading
from typing import NamedTuple

import numpy as np
import pytest
from typer.testing import CliRunner

import fedbridge as fb
from fedbridge.jax_core import ClientDataError
from fedbridge.tff_io import REMOTE_FILES, _fetch, fetch, write_sql


class Server(NamedTuple):
    """A server of bytes that can do what servers do wrong."""

    url: str
    files: dict[str, bytes]
    asked: list[tuple[str, str | None]]
    breaks: list[int]  # after so many bytes the connection ends, an answer each
    ranges: list[bool]  # the last one says whether it knows ranges


@pytest.fixture
def server(monkeypatch):
    files, asked, breaks, ranges = {}, [], [], [True]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name, asks = self.path.rsplit("/", 1)[-1], self.headers.get("Range")
            asked.append((name, asks))
            if name not in files:
                self.send_error(404)
                return
            body, start = files[name], 0
            if asks and ranges[-1]:
                start = int(asks.removeprefix("bytes=").removesuffix("-"))
                if start >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start:][: breaks.pop(0)] if breaks else body[start:])

        def log_message(self, *_):
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    monkeypatch.setattr(_fetch, "_PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("FEDBRIDGE_DATA", "FEDBRIDGE_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    yield Server(f"http://127.0.0.1:{made.server_port}/tff", files, asked, breaks, ranges)
    made.shutdown()
    made.server_close()


@pytest.fixture
def packed(tmp_path_factory):
    """An emnist_all.sqlite.lzma of one client, and the numbers in it."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28)).astype(np.float32) / 255
    client = {"pixels": pixels.astype(np.float32), "label": np.arange(30, dtype=np.int32) % 10}
    splits = ("digits_only_train", "digits_only_test", "all_train", "all_test")
    path = write_sql(
        tmp_path_factory.mktemp("made") / "made.sqlite", {split: {"f0": client} for split in splits}
    )
    return lzma.compress(path.read_bytes(), preset=0)


def test_a_file_is_fetched_unpacked_and_not_fetched_twice(server, packed, tmp_path):
    server.files["emnist_all.sqlite.lzma"] = packed
    seen = []
    for _ in range(2):
        (path,) = fetch(
            "emnist", tmp_path / "d", mirror=server.url, progress=lambda *now: seen.append(now)
        )
        assert path.read_bytes() == lzma.decompress(packed)
    assert server.asked == [("emnist_all.sqlite.lzma", None)]
    assert seen[-1] == ("emnist_all.sqlite.lzma", len(packed), len(packed))
    assert {p.name for p in (tmp_path / "d").iterdir()} == {"emnist_all.sqlite", "checksums.json"}


def test_a_broken_download_goes_on_where_it_broke(server, packed, tmp_path):
    server.files["emnist_all.sqlite.lzma"] = packed
    server.breaks.extend([1000, 500, 0, 2000])
    (path,) = fetch("emnist", tmp_path, mirror=server.url)
    assert path.read_bytes() == lzma.decompress(packed)
    ranges = [asks for _, asks in server.asked]
    assert ranges == [None, "bytes=1000-", "bytes=1500-", "bytes=1500-", "bytes=3500-"]


def test_it_goes_on_in_the_next_call_too(server, packed, tmp_path):
    server.files["emnist_all.sqlite.lzma"] = packed
    server.breaks.extend([1000, *[0] * _fetch._TRIES])
    with pytest.raises(ClientDataError, match=r"cannot be fetched.*1000 bytes are kept.*MIRROR"):
        fetch("emnist", tmp_path, mirror=server.url)
    assert [p.name for p in tmp_path.glob("*lzma*")] == ["emnist_all.sqlite.lzma.part"]
    server.breaks.clear()
    fetch("emnist", tmp_path, mirror=server.url)
    assert server.asked[-1][1] == "bytes=1000-"
    assert not list(tmp_path.glob("*lzma*"))


@pytest.mark.parametrize("kept", [0.5, 1.0, 1.5])
def test_a_part_is_never_joined_to_what_does_not_follow_it(server, packed, tmp_path, kept):
    """No ranges: anew. A whole part needs no byte more; one too long is dropped."""
    server.files["emnist_all.sqlite.lzma"] = packed
    server.ranges.append(kept >= 1)
    part = (packed + packed)[: int(kept * len(packed))]
    (tmp_path / "emnist_all.sqlite.lzma.part").write_bytes(part)
    (path,) = fetch("emnist", tmp_path, mirror=server.url)
    assert path.read_bytes() == lzma.decompress(packed)


def test_a_wrong_checksum_of_tffs_leaves_nothing(server, tmp_path):
    server.files["iNaturalist_train.csv"] = b"user_id,image_id\n"
    with pytest.raises(
        ClientDataError,
        match=r"its md5 is \w+, and not 63d5.*fetch it again .*from another mirror",
    ):
        fetch("inaturalist", tmp_path, mirror=server.url, only="iNaturalist_train.csv")
    assert not [p for p in tmp_path.iterdir() if p.name != "checksums.json"]


def test_the_checksum_of_the_first_time_is_kept(server, packed, tmp_path):
    server.files["emnist_all.sqlite.lzma"] = packed
    (path,) = fetch("emnist", tmp_path, mirror=server.url)
    recorded = json.loads((tmp_path / "checksums.json").read_text())
    assert recorded == {"emnist_all.sqlite.lzma": f"sha256:{hashlib.sha256(packed).hexdigest()}"}
    path.unlink()
    server.files["emnist_all.sqlite.lzma"] = lzma.compress(b"another file")
    with pytest.raises(ClientDataError, match=r"its sha256 is .*checksums\.json"):
        fetch("emnist", tmp_path, mirror=server.url)
    assert not path.exists()


@pytest.mark.parametrize("known", ["{", "3", '{"emnist_all.sqlite.lzma": 3}'])
def test_damaged_checksums_are_named(packed, tmp_path, known):
    (tmp_path / "emnist_all.sqlite.lzma").write_bytes(packed)
    (tmp_path / "checksums.json").write_text(known)
    with pytest.raises(ClientDataError, match=r"checksums\.json: it is damaged.*remove it"):
        fetch("emnist", tmp_path, mirror=tmp_path)
    assert not (tmp_path / "emnist_all.sqlite").exists()


def test_a_damaged_file_leaves_nothing(server, packed, tmp_path):
    server.files["emnist_all.sqlite.lzma"] = packed[: len(packed) // 2]
    address = f"{server.url}/emnist_all.sqlite.lzma: what came from there cannot be unpacked"
    with pytest.raises(
        ClientDataError, match=f"{address} .*is truncated, damaged.*look at the add"
    ):
        fetch("emnist", tmp_path, mirror=server.url)
    assert not list(tmp_path.iterdir())


def test_no_network_and_no_such_file(server, tmp_path):
    with pytest.raises(ClientDataError, match="the server answers 404"):
        fetch("emnist", tmp_path, mirror=server.url)
    with pytest.raises(ClientDataError, match="cannot be fetched.*FEDBRIDGE_MIRROR"):
        fetch("emnist", tmp_path, mirror="http://127.0.0.1:9/tff")
    with pytest.raises(ClientDataError, match="data set 'mnist': there are no addr.*emnist"):
        fetch("mnist", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_sentence(server, packed, tmp_path, monkeypatch):
    server.files["emnist_all.sqlite.lzma"] = packed

    def full(source, file, size):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", full)
        with pytest.raises(ClientDataError, match="cannot be kept there .No space left.*make room"):
            fetch("emnist", tmp_path, mirror=server.url)
    # The download itself is not lost.
    assert [path.name for path in tmp_path.iterdir()] == ["emnist_all.sqlite.lzma.part"]
    (path,) = fetch("emnist", tmp_path, mirror=server.url)
    assert path.read_bytes() == lzma.decompress(packed)
    assert [asks for _, asks in server.asked] == [None, f"bytes={len(packed)}-"]
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_is_a_mirror(packed, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("FEDBRIDGE_MIRROR", str(mirror))
    with pytest.raises(ClientDataError, match=r"mirror.emnist_all.*no such file in the mirror"):
        fetch("emnist", tmp_path / "d")
    (mirror / "emnist_all.sqlite.lzma").write_bytes(packed)
    (path,) = fetch("emnist", tmp_path / "d")
    assert path.read_bytes() == lzma.decompress(packed)
    assert (mirror / "emnist_all.sqlite.lzma").exists()


def test_a_mirror_may_have_files_unpacked(packed, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "emnist_all.sqlite").write_bytes(lzma.decompress(packed))
    (path,) = fetch("emnist", tmp_path / "d", mirror=mirror)
    assert path == tmp_path / "d" / "emnist_all.sqlite"
    assert path.read_bytes() == lzma.decompress(packed)


def test_word_counts_come_out_of_their_tar(server, tmp_path, monkeypatch):
    words, archive = b"the 12\nto 9\n", io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("stackoverflow.word_count")
        entry.size = len(words)
        tar.addfile(entry, io.BytesIO(words))
    body = bz2.compress(archive.getvalue())
    name = "stackoverflow.word_count.tar.bz2"
    server.files[name] = body
    remote = _fetch.Remote(f"{server.url}/{name}", f"sha256:{hashlib.sha256(body).hexdigest()}")
    monkeypatch.setitem(REMOTE_FILES, "stackoverflow", (remote,))
    assert fb.datasets.stackoverflow.load_word_counts(tmp_path) == {"the": 12, "to": 9}
    assert [p.name for p in tmp_path.iterdir()] == ["stackoverflow.word_count"]


def test_load_data_has_tffs_splits(server, packed, tmp_path, monkeypatch):
    server.files["emnist_all.sqlite.lzma"] = packed
    monkeypatch.setenv("FEDBRIDGE_MIRROR", server.url)
    monkeypatch.setenv("FEDBRIDGE_CACHE", str(tmp_path / "cache"))
    train, test = fb.datasets.emnist.load_data(only_digits=False, cache_dir=tmp_path)
    assert train.client_ids == test.client_ids == ("f0",)
    assert train.client("f0")["pixels"].shape == (30, 28, 28)


def test_the_command(server, packed, tmp_path):
    from fedbridge.cli import app

    server.files["emnist_all.sqlite.lzma"] = packed
    ask = ["data", "fetch", "emnist", "--out", str(tmp_path), "--mirror", server.url]
    said = CliRunner().invoke(app, ask)
    assert said.exit_code == 0
    assert str(tmp_path / "emnist_all.sqlite") in said.stdout
    refused = CliRunner().invoke(app, ["data", "fetch", "mnist"])
    assert refused.exit_code == 2
    assert "Traceback" not in refused.output
