"""Files converted piece by piece: equal to what is read at once, and resumed wherever they stop."""

import contextlib
import dataclasses
import errno
import functools
import lzma
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings, strategies as st

import fedbridge as fb
from fedbridge.jax_core import ClientDataError, Fraction255, Ragged
from fedbridge.jax_core._prefetch import page_runs, prefetch
from fedbridge.tff_io import (
    _convert,
    _hdf5_child,
    _hdf5_pieces,
    _sql_pieces,
    _workers,
    from_sql,
    verify_converted,
    write_sql,
)

VOCAB = ["the", "cat", "sat", "café"]
WORDS = functools.partial(
    fb.preprocessing.stackoverflow_word_prediction,
    vocab=VOCAB,
    sequence_length=5,
    num_out_of_vocab_buckets=3,
)
TAGS = functools.partial(
    fb.preprocessing.stackoverflow_tag_prediction, word_vocab=VOCAB, tag_vocab=["a", "b"]
)


def shuffled(path, seed=0):
    """The same file, with the rows of all clients and splits in any order, and with gaps."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT * FROM examples").fetchall()
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    connection.execute("DELETE FROM examples")
    connection.executemany(
        "INSERT INTO examples (rowid, split_name, client_id, serialized_example_proto) "
        "VALUES (?, ?, ?, ?)",
        [(n * 3 + 5 + 10_000 * (n > 20), *rows[i]) for n, i in enumerate(order)],
    )
    connection.commit()
    connection.close()
    return path


def sentences(rng, size):
    words = ["the", "cat", "sat", "café", "on", "mat", "", "The"]
    text = lambda most: " ".join(rng.choice(words, rng.integers(0, most)))
    return {
        "tokens": [text(9) for _ in range(size)] or np.zeros(0, object),
        "title": [text(3) for _ in range(size)] or np.zeros(0, object),
        "tags": ["|".join(rng.choice(["a", "b", "z"], 2)) for _ in range(size)]
        or np.zeros(0, object),
        "score": rng.integers(-5, 2**40, size),
    }


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(1)
    sizes = {"b": 3, "a": 40, "ü 'quoted'": 1, "none": 0, "c": 25}
    splits = {
        split: {i: sentences(rng, size) for i, size in sizes.items()} for split in ("train", "test")
    }
    return shuffled(write_sql(tmp_path / "data.sqlite", splits))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(_sql_pieces, "_MOST_ROWS", 17)
    monkeypatch.setattr(_convert, "num_cores", lambda: 1)


def assert_same(found, expected):
    assert found.client_ids == expected.client_ids
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    assert (found.element_offsets is None) == (expected.element_offsets is None)
    if found.element_offsets is not None:
        np.testing.assert_array_equal(found.element_offsets, expected.element_offsets)
    assert found.decode is expected.decode
    assert found.structure == expected.structure
    assert list(found.features) == list(expected.features)
    for name, column in expected.features.items():
        assert type(found.features[name]) is type(column) or isinstance(column, np.ndarray)
        pairs = zip(leaves(found.features[name]), leaves(column), strict=True)
        for one, other in pairs:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def leaves(column):
    return tuple(column) if isinstance(column, Ragged | Fraction255) else (column,)


def direct(path, preprocess=None, **kwargs):
    data = from_sql(path, cache=False, **kwargs)
    return data if preprocess is None else preprocess(data)


# --- equality -----------------------------------------------------------------------------------


@pytest.mark.parametrize("preprocess", [None, WORDS, TAGS], ids=["as it is", "words", "tags"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_converted_is_what_is_read(path, tmp_path, preprocess, split):
    found = fb.convert(path, tmp_path / "out", split, preprocess=preprocess)
    assert_same(found, direct(path, preprocess, split=split))
    assert_same(fb.from_converted(tmp_path / "out"), found)
    assert_same(verify_converted(tmp_path / "out"), found)
    assert {p.name for p in tmp_path.iterdir()} == {"data.sqlite", "out"}


def test_several_processes_convert_the_same(path, tmp_path):
    seen = []
    found = fb.convert(
        path,
        tmp_path / "out",
        "train",
        preprocess=WORDS,
        processes=2,
        progress=lambda *done: seen.append(done),
    )
    assert_same(found, direct(path, WORDS, split="train"))
    assert seen == sorted(seen)
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1]


clients_of_numbers = st.dictionaries(
    st.text(min_size=1, max_size=3, alphabet="abé"),
    st.lists(st.tuples(st.integers(0, 255), st.booleans(), st.binary(max_size=5)), max_size=9),
    min_size=1,
    max_size=5,
)


@given(clients_of_numbers, st.integers(0, 9), st.integers(1, 8))
@settings(max_examples=25)
def test_any_clients_in_any_order_and_pieces(tmp_path_factory, clients, seed, rows):
    """Pixels that are 255ths only in some pieces, strings, clients without rows."""
    folder = tmp_path_factory.mktemp("any")
    splits = {
        "s": {
            i: {
                "x": np.array([[k / 255, k / 255 if whole else 0.3] for k, whole, _ in content])
                .astype(np.float32)
                .reshape(-1, 2),
                "y": np.array([k for k, _, _ in content], np.int64),
                "z": [z for _, _, z in content] or np.zeros(0, object),
            }
            for i, content in clients.items()
        }
    }
    path = shuffled(write_sql(folder / "x.sqlite", splits), seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sql_pieces, "_MOST_ROWS", rows)
        for n, spec in enumerate([None, {"x": ((2,), "float32"), "z": ((), bytes)}]):
            found = fb.convert(path, folder / f"{n}", element_spec=spec)
            assert_same(found, direct(path, element_spec=spec))


def test_elements_of_several_rows(tmp_path):
    text = "To be, or not to be: that is the question. " * 5
    clients = {f"{i}": {"snippets": [text[: 7 * i + j] for j in range(i)]} for i in range(1, 12)}
    path = shuffled(write_sql(tmp_path / "x.sqlite", {"s": clients}))
    function = functools.partial(
        fb.preprocessing.shakespeare_character_prediction, sequence_length=20
    )
    found = fb.convert(path, tmp_path / "out", preprocess=function)
    assert_same(found, direct(path, function))
    assert found.element_offsets[-1] > found.offsets[-1]


@pytest.mark.parametrize(
    "function",
    [
        fb.preprocessing.emnist_character_recognition,
        fb.preprocessing.emnist_autoencoder,
        functools.partial(fb.preprocessing.cifar100_image_classification, crop_shape=(24, 24, 3)),
        fb.preprocessing.cifar100_whole_images,
    ],
)
def test_images(tmp_path, function):
    rng = np.random.default_rng(0)
    emnist = {
        "label": rng.integers(0, 62, 40),
        "pixels": rng.integers(0, 256, (40, 28, 28)).astype(np.float32) / np.float32(255),
    }
    cifar = {
        "coarse_label": rng.integers(0, 20, 40),
        "image": rng.integers(0, 256, (40, 32, 32, 3)),
        "label": rng.integers(0, 100, 40),
    }
    rows = emnist if "emnist" in str(function) else cifar
    clients = {c: {k: v[i::3] for k, v in rows.items()} for i, c in enumerate("cab")}
    path = shuffled(write_sql(tmp_path / "x.sqlite", {"s": clients}))
    expected = direct(path, function)
    assert_same(fb.convert(path, tmp_path / "out", preprocess=function), expected)


@pytest.mark.slow
@pytest.mark.parametrize("preprocess", [None, WORDS, TAGS], ids=["as it is", "words", "tags"])
def test_hdf5(tmp_path, monkeypatch, preprocess):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(2)
    with h5py.File(tmp_path / "stackoverflow_train.h5", "w") as file:
        for client_id, size in {"b": 3, "a": 9, "empty": 0, "ü": 1, "c": 25}.items():
            for name, rows in sentences(rng, size).items():
                content = rows if name == "score" else np.array(list(rows), object)
                kind = np.int64 if name == "score" else h5py.string_dtype()
                file.create_dataset(f"examples/{client_id}/{name}", data=content, dtype=kind)
            pixels = rng.integers(0, 256, (size, 2)) / 255 if client_id != "c" else 0.3
            file.create_dataset(
                f"examples/{client_id}/x", data=np.broadcast_to(pixels, (size, 2)), dtype="f4"
            )
    path = tmp_path / "stackoverflow_train.h5"
    expected = fb.from_hdf5(path, cache=False)
    for number, size in enumerate((1, 10_000, 1 << 24)):  # a client a piece, some, all in one
        monkeypatch.setattr(_hdf5_pieces, "PIECE_BYTES", size)
        found = fb.convert(path, tmp_path / f"{number}", preprocess=preprocess)
        assert_same(found, expected if preprocess is None else preprocess(expected))
    with pytest.raises(ClientDataError, match="split 'test' was asked for, and a file holds one"):
        fb.convert(path, tmp_path / "out", "test")
    with pytest.raises(ClientDataError, match="HDF5 files store shapes; leave out `element_spec`"):
        fb.convert(path, tmp_path / "out", element_spec={"x": ((2,), "float32")})
    with h5py.File(path, "a") as file:
        del file["examples/c/x"]
    with pytest.raises(ClientDataError, match=r"client 'c': its features are not score, tags"):
        fb.convert(path, tmp_path / "out")
    program = Path(_hdf5_child.__file__).read_text()
    assert program.count("return sorted(group)") == 1
    broken = program.replace("return sorted(group)", "__import__('os').abort()")
    (tmp_path / "child.py").write_text(broken)
    with monkeypatch.context() as patched:
        patched.setattr(_hdf5_child, "__file__", str(tmp_path / "child.py"))
        with pytest.raises(ClientDataError, match=r"train.h5: the HDF5 library crashed"):
            fb.convert(path, tmp_path / "out")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ClientDataError, match=r"train.h5: h5py cannot read it .*fetch it again"):
        fb.convert(path, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_cohorts_of_converted_data_are_the_same(path, tmp_path):
    found = fb.convert(path, tmp_path / "out", "train", preprocess=WORDS)
    expected = direct(path, WORDS, split="train")
    spec = fb.ClientSpec(num_epochs=2, batch_size=3, max_elements=20)
    pipeline = spec.pipeline("stackoverflow", seed=5)
    ids = fb.samplers.uniform(3, seed=1)(1, found.client_ids)
    assert ids == fb.samplers.uniform(3, seed=1)(1, expected.client_ids)
    one, other = (fb.sequential.place(d.cohort(ids, pipeline)) for d in (found, expected))
    batches = [c.batch(c.streams["train"].rows[0]) for c in (one, other)]
    for key in ("x", "y"):
        np.testing.assert_array_equal(*(np.asarray(batch[key]) for batch in batches))
    assert_same(dataclasses.replace(found.select(ids)), expected.select(ids))


def test_a_packed_file_is_unpacked_beside_the_folder(path, tmp_path):
    packed = tmp_path / "packed.sqlite.lzma"
    packed.write_bytes(lzma.compress(path.read_bytes()))
    found = fb.convert(packed, tmp_path / "out", "train")
    assert_same(found, direct(path, split="train"))
    assert not (tmp_path / "out.partial").exists()
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(ClientDataError, match="truncated or damaged"):
        fb.convert(packed, tmp_path / "other", "train")
    assert not (tmp_path / "other.partial").exists()


def test_a_split_without_examples(tmp_path):
    path = write_sql(tmp_path / "x.sqlite", {"s": {"a": {"y": np.zeros(0, np.int64)}}})
    assert_same(fb.convert(path, tmp_path / "out"), direct(path))
    spec = {"y": ((), "int32")}
    found = fb.convert(path, tmp_path / "spec", element_spec=spec)
    assert_same(found, direct(path, element_spec=spec))
    with pytest.raises(ClientDataError, match="no feature 'tokens'"):
        fb.convert(path, tmp_path / "words", preprocess=WORDS)


def test_numbers_that_differ_from_the_metadata_are_named(path, tmp_path):
    connection = sqlite3.connect(path)
    connection.execute("UPDATE client_metadata SET num_examples = 99 WHERE client_id = 'b'")
    connection.commit()
    connection.close()
    with pytest.warns(UserWarning, match="the metadata gives client 'b' 99 examples, and it has 3"):
        fb.convert(path, tmp_path / "out", "train")


# --- stopped, and resumed -----------------------------------------------------------------------

# Converts with three rows a piece, and stops dead when some pieces are done.
_STOPS = """
import sys, time
from tests_convert_stand_in import WORDS
import fedbridge as fb
from fedbridge.tff_io import _sql_pieces
_sql_pieces._MOST_ROWS = 17
def progress(done, total):
    if done > total / 3:
        print("stopped", flush=True)
        time.sleep(600)
fb.convert(sys.argv[1], sys.argv[2], "train", preprocess=WORDS, processes=int(sys.argv[3]),
           progress=progress)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_conversion_goes_on_where_it_was(path, tmp_path, processes):
    (tmp_path / "tests_convert_stand_in.py").write_text(
        "import functools, fedbridge as fb\n"
        "WORDS = functools.partial(fb.preprocessing.stackoverflow_word_prediction, "
        f"vocab={VOCAB!r}, sequence_length=5, num_out_of_vocab_buckets=3)\n"
    )
    out = tmp_path / "out"
    root = str(Path(fb.__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-c", _STOPS, path, out, str(processes)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([root, str(tmp_path)])},
    )
    with child:
        assert child.stdout.readline() == "stopped\n"
        workers = psutil.Process(child.pid).children()
        assert len(workers) == (processes if processes > 1 else 0)
        child.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive  # they end with the process that started them
    with pytest.raises(ClientDataError, match=r"out: its conversion has not come to its end; run"):
        fb.from_converted(out)
    done = {p.name: p.stat().st_ino for p in (tmp_path / "out.partial").glob("chunk-*")}
    assert done
    seen = []
    read, made = _convert.save_chunk, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_convert, "save_chunk", lambda p, *a: (made.append(p.name), read(p, *a)))
        found = fb.convert(path, out, "train", preprocess=WORDS, progress=lambda *a: seen.append(a))
    assert seen[0][0] > seen[0][1] / 3
    assert not set(made) & set(done)
    assert_same(found, direct(path, WORDS, split="train"))
    assert not (tmp_path / "out.partial").exists()


def test_a_merge_that_was_stopped_is_made_again(path, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_convert, "write_manifest", lambda *a: interrupt())
        with pytest.raises(KeyboardInterrupt):
            fb.convert(path, tmp_path / "out", "train")
    assert not (tmp_path / "out").exists()
    seen = []
    found = fb.convert(path, tmp_path / "out", "train", progress=lambda *a: seen.append(a))
    assert [done for done, _ in seen] == [seen[0][1]]
    assert_same(found, direct(path, split="train"))


def test_a_preprocessing_that_is_refused_leaves_nothing(path, tmp_path):
    for wrong in ({"vocab": []}, {"sequence_length": 0}, {"num_out_of_vocab_buckets": 0}):
        with pytest.raises(fb.ArgumentError):
            fb.convert(
                path, tmp_path / "out", "train", preprocess=functools.partial(WORDS, **wrong)
            )
        assert not (tmp_path / "out.partial").exists()


def test_an_interrupt_that_python_swallows_is_not_lost(path, tmp_path, monkeypatch):
    """It came in a callback of the garbage collector, say, which cannot raise."""

    def swallowed(*args):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        return save(*args)

    save = _convert.save_chunk
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(_convert, "save_chunk", swallowed)
            with pytest.raises(KeyboardInterrupt):
                fb.convert(path, tmp_path / "out", "train", processes=1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, usual)
    assert_same(fb.convert(path, tmp_path / "out", "train"), direct(path, split="train"))


def interrupt():
    raise KeyboardInterrupt


def stopped(path, out, **kwargs):
    """A conversion that was interrupted after its first piece."""

    def progress(done, total):
        if done:
            interrupt()

    with pytest.raises(KeyboardInterrupt):
        fb.convert(path, out, "train", progress=progress, **kwargs)
    return out.with_name(out.name + ".partial")


def test_the_same_again_is_opened_and_another_is_refused(path, tmp_path):
    out = tmp_path / "out"
    fb.convert(path, out, "train")
    before = (out / "manifest.json").stat().st_ino
    fb.convert(path, out, "train")
    assert (out / "manifest.json").stat().st_ino == before
    for change in ({"split": "test"}, {"split": "train", "preprocess": WORDS}):
        with pytest.raises(ClientDataError, match=r"out: it is there already and is not this conv"):
            fb.convert(path, out, **change)
    partial = stopped(path, tmp_path / "half")
    with pytest.raises(ClientDataError, match=r"half\.partial: it holds half of another conv.*del"):
        fb.convert(path, tmp_path / "half", "train", preprocess=WORDS)
    assert partial.exists()
    path.write_bytes(path.read_bytes() + bytes(4096))
    with pytest.raises(ClientDataError, match="or the file has changed since"):
        fb.convert(path, tmp_path / "half", "train")


def test_a_damaged_piece_is_made_anew(path, tmp_path):
    partial = stopped(path, tmp_path / "out")
    chunk = min(partial.glob("chunk-*"))
    content = bytearray(chunk.read_bytes())
    content[300] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(ClientDataError, match=r"chunk-00000.npz: this piece .* is damaged .*again"):
        fb.convert(path, tmp_path / "out", "train")
    assert_same(fb.convert(path, tmp_path / "out", "train"), direct(path, split="train"))


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_one_at_a_time(path, tmp_path):
    def again(done, total):
        with pytest.raises(ClientDataError, match="another process converts into it; wait for it"):
            fb.convert(path, tmp_path / "out", "train")

    fb.convert(path, tmp_path / "out", "train", progress=again)


def test_a_full_disk_keeps_what_is_done(path, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(_convert, "merge_chunks", full)
        with pytest.raises(ClientDataError, match=r"out: .*No space left.*run the same again, "):
            fb.convert(path, tmp_path / "out", "train")
    assert list((tmp_path / "out.partial").glob("chunk-*"))
    assert_same(fb.convert(path, tmp_path / "out", "train"), direct(path, split="train"))


# --- what is wrong is said ----------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2])
def test_a_record_that_does_not_parse_is_named_and_nothing_stays(path, tmp_path, processes):
    connection = sqlite3.connect(path)
    connection.execute("UPDATE examples SET serialized_example_proto = x'0a' WHERE rowid = 8")
    client, split = connection.execute(
        "SELECT client_id, split_name FROM examples WHERE rowid = 8"
    ).fetchone()
    connection.commit()
    connection.close()
    with pytest.raises(ClientDataError) as error:
        fb.convert(path, tmp_path / "out", split, preprocess=TAGS, processes=processes)
    assert f"split {split!r}, client {client!r}, row 8: this is no tf.train.Example" in str(
        error.value
    )
    assert [p.name for p in tmp_path.iterdir()] == ["data.sqlite"]


def test_a_process_that_ends_by_itself(path, tmp_path, monkeypatch):
    monkeypatch.setattr(_workers, "_START", "import os; os._exit(9)")
    with pytest.raises(ClientDataError, match=r"ended by itself \(exit code 9\).*fewer processes"):
        fb.convert(path, tmp_path / "out", "train", processes=2)


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        (lambda data: data, "<lambda> is no function of fb.preprocessing"),
        (fb.preprocessing.sentence_ids, "sentence_ids is no function of fb.preprocessing that tak"),
        (fb.preprocessing.stackoverflow_word_prediction, "missing a required argument: 'vocab'"),
        (functools.partial(WORDS, size=3), "unexpected keyword argument 'size'"),
        (functools.partial(WORDS.func, VOCAB), "missing a required argument|is the data; name"),
        (functools.partial(WORDS.func, vocab=[b"\xff"]), r"b'\\xff' is no UTF-8 text"),
    ],
)
def test_a_preprocessing_that_cannot_be_stored(path, tmp_path, preprocess, message):
    with pytest.raises(ClientDataError, match=message):
        fb.convert(path, tmp_path / "out", "train", preprocess=preprocess)
    assert [p.name for p in tmp_path.iterdir()] == ["data.sqlite"]


def test_other_bad_input(path, tmp_path):
    with pytest.raises(ClientDataError, match="there is no such file"):
        fb.convert(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(ClientDataError, match="it has no split 'x'; there are 'test', 'train'"):
        fb.convert(path, tmp_path / "out", "x")
    with pytest.raises(fb.ArgumentError, match="processes is 0; it must be a whole number"):
        fb.convert(path, tmp_path / "out", "train", processes=0)
    with pytest.raises(ClientDataError, match="out: there is no such folder; convert first"):
        fb.from_converted(tmp_path / "out")
    with pytest.raises(ClientDataError, match="it holds no converted client data; delete it"):
        fb.from_converted(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["data.sqlite"]


def test_every_changed_byte_is_refused(path, tmp_path):
    out = tmp_path / "out"
    fb.convert(path, out, "train", preprocess=WORDS)
    for file in out.iterdir():
        content = file.read_bytes()
        for at in (0, len(content) // 2, len(content) - 1):
            damaged = bytearray(content)
            damaged[at] ^= 4
            file.write_bytes(damaged)
            with pytest.raises(ClientDataError, match="a file in it is damaged; delete it and con"):
                fb.from_converted(out)
        file.write_bytes(content)
    fb.from_converted(out)


def test_a_file_that_changes_meanwhile(path, tmp_path):
    def touch(done, total):
        os.utime(path, ns=(time.time_ns(), time.time_ns() + done))

    with pytest.raises(ClientDataError, match="the file changed while it was converted"):
        fb.convert(path, tmp_path / "out", "train", progress=touch)
    assert not (tmp_path / "out.partial").exists()


# --- read by cohorts ----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 5000)), max_size=20))
def test_runs_of_pages_hold_all_pieces(pieces):
    starts, sizes = np.array(pieces, np.int64).reshape(-1, 2).T
    runs = page_runs(starts, starts + sizes, 512)
    assert all(start % 512 == stop % 512 == 0 for start, stop in runs)
    for start, size in pieces:
        assert size == 0 or any(a <= start and start + size <= b for a, b in runs)
    covered = sum(stop - start for start, stop in runs)
    assert covered <= sum(size + 1024 for _, size in pieces if size)


def test_rows_far_apart_are_asked_for_at_once(path, tmp_path):
    """Of every encoding, memory-mapped or not, also of none of the rows."""
    data = fb.convert(path, tmp_path / "out", "train", preprocess=TAGS)
    rows = np.array([0, 3, 60])
    for column in (*data.features.values(), Fraction255(np.zeros((99, 2), np.uint8))):
        for some in (rows, rows[:0]):
            prefetch(column, some)
