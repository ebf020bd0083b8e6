"""Traces: what is written is what is read, and every change of a file is found."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fedbridge.bridge import trace, trace_writer
from fedbridge.jax_core import TraceError

SCRIPT = {"name": "train.py", "arguments": [], "sha256": "0" * 64}


def batch(*rows):
    """A batch of rows [n, n] / 255 with labels n."""
    return {
        "x": np.stack([np.full(2, n) for n in rows]).astype(np.float32) / np.float32(255),
        "y": np.array(rows, np.int32),
    }


def write(out: Path, clients, **close):
    """A trace with one process and one call."""
    writer = trace_writer.Writer(out)
    writer.process(trace.Process("builder", "called_as", "training"))
    before, after = {"a/0": np.float32([1, 2])}, {"a/0": np.float32([1, 3])}
    writer.call(
        0,
        writer.batches(clients),
        num_clients=len(clients),
        state_before=writer.state(before),
        state_after=writer.state(after),
        metrics={"loss": float(np.float32(0.1)), "bad": float("nan")},
        probes=[{"trainable/0": np.float32([5])}],
        probe_metrics=[{}],
    )
    return writer.close(versions={"python": "3.11"}, script=SCRIPT, **close)


def test_what_is_written_is_read(tmp_path):
    out = write(
        tmp_path / "deep" / "trace",
        [[batch(7, 8), batch(7)], [], [batch(8)]],
        adapted=["a -> b"],
        notes=["note"],
    )
    found = trace.read(out)
    call = found.call(0)
    assert call["rows"].tolist() == [0, 1, 0, 1] and call["rows"].dtype == np.int32
    assert call["batch_sizes"].tolist() == [2, 1, 1] and call["batch_sizes"].dtype == np.int32
    assert call["step_offsets"].tolist() == [0, 2, 2, 3] and call["step_offsets"].dtype == np.int64
    assert call["probe_1/trainable/0"].tolist() == [5]
    assert found.calls[0].num_examples == 4 and found.calls[0].num_clients == 3
    assert (found.calls[0].round, found.calls[0].seconds) == (1, None)
    assert found.calls[0].metrics["loss"] == float(np.float32(0.1))
    assert np.isnan(found.calls[0].metrics["bad"])
    assert found.features["x"] == trace.Feature((2,), "float32", "fraction255")
    assert found.rows()["x"].tolist() == [[7, 7], [8, 8]]
    np.testing.assert_array_equal(
        found.features["x"].decode(found.rows()["x"]), batch(7, 8)["x"], strict=True
    )
    assert found.state(1)["a/0"].tolist() == [1, 3]
    assert (found.adapted, found.notes, found.not_replayable) == (["a -> b"], ["note"], None)


def test_rows_and_states_are_kept_once(tmp_path):
    writer = trace_writer.Writer(tmp_path / "trace")
    first = writer.batches([[batch(1, 2), batch(2, 3)]])
    second = writer.batches([[batch(3, 1)]])
    assert first.rows.tolist() == [0, 1, 1, 2] and second.rows.tolist() == [2, 0]
    # One feature alone does not make a row.
    other = writer.batches([[{**batch(1), "y": np.array([9], np.int32)}]])
    assert other.rows.tolist() == [3]
    one = np.ones((), np.float32)
    assert writer.state({"a": one}) == writer.state({"a": one.copy()}) == 0
    assert writer.state({"a": one.astype(np.float64)}) == 1
    assert writer.state({"b": one}) == 2
    writer.discard()
    assert not list(tmp_path.iterdir())


def test_one_value_that_is_no_255th_makes_the_feature_plain(tmp_path):
    odd = {"x": np.float32([[0.3, -0.0]]), "y": np.array([5], np.int32)}
    found = trace.read(write(tmp_path / "trace", [[batch(7), odd]]))
    assert found.features["x"].encoding == "plain"
    np.testing.assert_array_equal(
        found.rows()["x"], np.concatenate([batch(7)["x"], odd["x"]]), strict=True
    )


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"x": np.zeros((1, 3), np.float32), "y": np.zeros(1, np.int32)}, "float32.3,"),
        ({"x": np.zeros((1, 2)), "y": np.zeros(1, np.int32)}, "float64"),
        ({"x": np.zeros((1, 2), np.float32)}, "features"),
        ({"x": np.zeros((2, 2), np.float32), "y": np.zeros(1, np.int32)}, "first dimension"),
    ],
)
def test_batches_that_do_not_stack_are_refused(tmp_path, second, words):
    writer = trace_writer.Writer(tmp_path / "trace")
    with pytest.raises(TraceError, match=words):
        writer.batches([[batch(1), second]])


def test_strings_are_refused(tmp_path):
    with pytest.raises(TraceError, match="not recorded yet"):
        trace_writer.Writer(tmp_path / "trace").batches([[{"x": np.array([b"word"])}]])


def test_an_empty_cohort_has_no_steps(tmp_path):
    found = trace.read(write(tmp_path / "trace", []))
    assert found.call(0)["step_offsets"].tolist() == [0]
    assert found.rows() == {} and found.features == {}


def test_nothing_is_left_aside_and_nothing_is_overwritten(tmp_path):
    write(tmp_path / "trace", [[batch(1)]])
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]
    with pytest.raises(TraceError, match="exists already"):
        trace_writer.Writer(tmp_path / "trace")


def test_the_same_recording_gives_the_same_bytes(tmp_path):
    one, two = (write(tmp_path / name, [[batch(1, 2)]]) for name in ("one", "two"))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_names_that_numpy_or_the_system_would_trip_over(tmp_path):
    odd = {"file": np.zeros((1, 2), np.float32), "x/name": np.zeros(1, np.int32)}
    found = trace.read(write(tmp_path / "trace", [[odd]]))
    assert set(found.rows()) == {"file", "x/name"}


def test_every_flipped_byte_is_found(tmp_path):
    out = write(tmp_path / "trace", [[batch(1, 2), batch(3)]])
    for path in sorted(out.iterdir()):
        sound = path.read_bytes()
        for place in range(0, len(sound), 29):
            damaged = bytearray(sound)
            damaged[place] ^= 1
            path.write_bytes(bytes(damaged))
            try:
                found = trace.read(out)
            except TraceError:
                continue
            finally:
                path.write_bytes(sound)
            # White space and a number's last, unread digit leave the manifest's content alone.
            assert path.name == "manifest.json"
            assert json.dumps(found.calls, default=str) == json.dumps(
                trace.read(out).calls, default=str
            )


def test_a_missing_file_is_named(tmp_path):
    out = write(tmp_path / "trace", [[batch(1)]])
    (out / "state_0001.npz").unlink()
    with pytest.raises(TraceError, match=r"state_0001\.npz is missing"):
        trace.read(out)


def test_a_newer_trace_asks_for_a_newer_fedbridge(tmp_path):
    out = write(tmp_path / "trace", [[batch(1)]])
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(TraceError, match=r"format 2.*upgrade fedbridge"):
        trace.read(out)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", "\x00", '{"format": 1}'])
def test_what_is_no_trace_says_so(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(TraceError, match="trace"):
        trace.read(tmp_path)
    with pytest.raises(TraceError, match="not a trace"):
        trace.read(tmp_path / "nowhere")


def test_times_are_merged_under_a_fresh_checksum(tmp_path):
    out = write(tmp_path / "trace", [[batch(1)]])
    manifest = trace.read_manifest(out)
    manifest["calls"][0]["seconds"] = 1.5
    trace_writer.write_manifest(out, manifest)
    assert trace.read(out).calls[0].seconds == 1.5


def test_a_packed_trace_is_read_as_its_folder(tmp_path):
    out = write(tmp_path / "trace", [[batch(1, 2), batch(3)]])
    one, two = (trace_writer.pack(out, tmp_path / name) for name in ("one.zip", "two.zip"))
    assert one.read_bytes() == two.read_bytes()
    packed, folder = trace.read(one), trace.read(out)
    assert packed._replace(path=None) == folder._replace(path=None)
    for part in ("rows", "state", "call"):
        arrays, expected = (
            getattr(found, part)(*([] if part == "rows" else [0])) for found in (packed, folder)
        )
        assert list(arrays) == list(expected)
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], expected[name], strict=True)
    with pytest.raises(TraceError, match="exists already"):
        trace_writer.pack(out, one)
    with pytest.raises(TraceError, match="not a trace"):
        trace_writer.pack(tmp_path, tmp_path / "three.zip")


def test_every_flipped_byte_of_a_packed_trace_is_found_or_means_nothing(tmp_path):
    packed = trace_writer.pack(write(tmp_path / "trace", [[batch(1, 2)]]), tmp_path / "trace.zip")
    sound, known = packed.read_bytes(), str(trace.read(packed))
    arrays = str(trace.read(packed).call(0))
    for place in range(0, len(sound), 7):
        damaged = bytearray(sound)
        damaged[place] ^= 1
        packed.write_bytes(bytes(damaged))
        try:
            found = trace.read(packed)
            assert (str(found), str(found.call(0))) == (known, arrays)
        except TraceError:
            pass


def test_a_file_that_is_no_packed_trace_says_so(tmp_path):
    (tmp_path / "train.py").write_text("print()")
    with pytest.raises(TraceError, match="is a file, and a trace is a folder"):
        trace.read(tmp_path / "train.py")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(TraceError, match="not a trace"):
        trace.read(tmp_path / "other.zip")


def test_a_trace_of_before_is_read(tmp_path):
    """What was written without the newer fields of a process."""
    out = write(tmp_path / "trace", [[batch(1)]])
    manifest = trace.read_manifest(out)
    for name in ("arguments", "metrics_dtypes"):
        del manifest["processes"][0][name]
    trace_writer.write_manifest(out, manifest)
    assert trace.read(out).processes[0].arguments is None
