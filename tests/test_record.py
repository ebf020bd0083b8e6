"""The parent's half of `record`, with a stand-in for the child that runs TFF."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedbridge.bridge import record as module, trace, trace_writer
from fedbridge.bridge.record import record
from fedbridge.jax_core import FedbridgeError, ReferenceEnvironmentError, ScriptError

METRICS = {"client_work": {"train": {"loss": 2.5}}}


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train.py"
    path.write_text("import tensorflow_federated as tff\n")
    return path


class Child:
    """Plays the recorder: writes the events and results that it is told to."""

    def __init__(self, failure=None, failing_mode=None, code=0, timed_calls=1, refused=False):
        self.failure, self.failing_mode, self.refused = failure, failing_mode, refused
        self.code, self.timed_calls, self.runs = code, timed_calls, []

    def __call__(self, name, arguments, *, path, log, poll):
        assert name == "fedbridge.bridge.recorder"
        self.runs.append(arguments)
        value = lambda flag: arguments[arguments.index(flag) + 1]
        mode, out, events = value("--mode"), Path(value("--out")), Path(value("--events"))
        log.write_text("noise\nlast words\n")
        if self.code:
            return self.code
        with events.open("a") as stream:
            line = json.dumps({"event": "round", "process": 0, "kind": "training", "round": 1,
                               "loss": 2.5, "seconds": 0.1})  # fmt: skip
            stream.write(line[:20])
            stream.flush()
            poll()  # half a line is no event yet
            stream.write(line[20:] + "\n")
            stream.write(json.dumps({"event": "note", "line": "a defect"}) + "\n")
            if self.failing_mode == mode:
                failed = {"event": "failed", "error": self.failure, "line": "line 3",
                          "refused": self.refused}  # fmt: skip
                stream.write(json.dumps(failed) + "\n")
        poll()
        if self.failing_mode == mode:
            return 1
        if mode == "record":
            write_trace(out)
        else:
            call = {"process": 0, "seconds": 0.5, "metrics": METRICS}
            processes = [{"seconds_build": 4.0, "seconds_initialize": 1.0}]
            times = {"processes": processes, "calls": [call] * self.timed_calls}
            out.write_text(json.dumps(times))
        return 0


def write_trace(out):
    writer = trace_writer.Writer(out)
    writer.process(trace.Process("builder", "builder", "training"))
    writer.call(
        0,
        writer.batches([[{"x": np.zeros((2, 3), np.float32)}]]),
        num_clients=1,
        state_before=writer.state({"a": np.zeros(1)}),
        state_after=writer.state({"a": np.ones(1)}),
        metrics=METRICS,
    )
    writer.close(versions={}, script={}, notes=["a defect"])


@pytest.fixture
def play(monkeypatch):
    def install(**behaviour):
        child = Child(**behaviour)
        monkeypatch.setattr(module.reference_environment, "run_child", child)
        monkeypatch.setattr(module.reference_environment, "python", lambda path: Path("python"))
        return child

    return install


def test_times_of_the_second_pass_are_merged(script, tmp_path, play):
    child, events = play(), []
    out = record(script, ["--lr", "1"], tmp_path / "out", rounds=3, on_event=events.append)
    found = trace.read(out)
    assert (found.calls[0].seconds, found.calls[0].metrics_timed) == (0.5, METRICS)
    assert found.processes[0].seconds_build == 4.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "train.py"]
    assert all(run[-3:] == ["--", "--lr", "1"] and "--rounds" in run for run in child.runs)
    kinds = [event["event"] for event in events]
    assert kinds == ["phase", "round", "note", "phase", "round"]


@pytest.mark.parametrize("behaviour", [{"timed_calls": 2}, {"failing_mode": "time"}])
def test_without_the_same_second_pass_there_are_no_times(script, tmp_path, play, behaviour):
    play(failure="FileExistsError: model", **behaviour)
    found = trace.read(record(script, [], tmp_path / "out"))
    assert found.calls[0].seconds is None
    assert found.notes[0] == "a defect" and "there are no times" in found.notes[1]


def test_a_script_that_fails_leaves_nothing(script, tmp_path, play):
    play(failing_mode="record", failure="ValueError: no")
    with pytest.raises(ScriptError, match=r"train\.py, line 3: fails under TFF.*ValueError: no"):
        record(script, [], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_a_script_that_fails_is_to_be_mended(script, tmp_path, play):
    play(failing_mode="record", failure="ValueError: no.")
    with pytest.raises(ScriptError, match="ValueError: no; mend the script and run the same"):
        record(script, [], tmp_path / "out")


def test_what_fedbridge_refuses_is_no_failure_of_tff(script, tmp_path, play):
    play(failing_mode="record", failure="it ran no round; check one that does.", refused=True)
    with pytest.raises(ScriptError) as caught:
        record(script, [], tmp_path / "out")
    assert str(caught.value) == f"{script}, line 3: it ran no round; check one that does."


def test_a_child_that_dies_is_reported_with_its_last_words(script, tmp_path, play):
    play(code=-9)
    with pytest.raises(ScriptError, match=r"code -9: last words; .*doctor"):
        record(script, [], tmp_path / "out")


def test_bad_input_is_refused_before_the_long_work(script, tmp_path, play):
    child = play()
    with pytest.raises(ScriptError, match="no such script"):
        record(tmp_path / "nowhere.py", [], tmp_path / "out")
    with pytest.raises(FedbridgeError, match="0 rounds"):
        record(script, [], tmp_path / "out", rounds=0)
    (tmp_path / "out").mkdir()
    with pytest.raises(FedbridgeError, match="'.*out' exists already"):
        record(script, [], tmp_path / "out")
    assert not child.runs


def test_without_a_reference_environment_the_cure_is_named(script, tmp_path):
    with pytest.raises(ReferenceEnvironmentError, match="fedbridge"):
        record(script, [], tmp_path / "out", reference=tmp_path / "none")
