import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from results import result

from fedbridge import jax_core as fc
from fedbridge.bridge import check as module, trace_writer
from fedbridge.bridge.computations import Returned, packed
from fedbridge.tff_io import DataFolder

EMNIST = "import tensorflow_federated as tff\ntff.simulation.datasets.emnist.load_data()\n"


@pytest.fixture
def bridge(monkeypatch, tmp_path):
    """`check` between a recorder and a replay that only remember; a script; where data are."""
    bridge = SimpleNamespace(
        script=tmp_path / "train.py",
        found=DataFolder(None, "emnist_all.sqlite, downloaded by TFF"),
        data="nobody ran",
        trace=None,
        computations={},
        events=[],
    )
    bridge.script.write_text(EMNIST)

    def record(script, arguments, out, *, rounds, on_event, reference):
        bridge.data, bridge.trace = os.environ.get("FEDBRIDGE_DATA"), Path(out)
        bridge.asked = (script, arguments, rounds)
        bridge.trace.mkdir()
        return bridge.trace

    def replay(trace, *, on_event):
        assert trace.path == bridge.trace
        return result()

    def read(path):
        files = {}
        if bridge.computations:
            trace_writer.save(path / module.trace.COMPUTATIONS, bridge.computations)
            files = {module.trace.COMPUTATIONS: ""}
        return module.trace.Trace(path, {}, {}, files, [], [], None, {}, [], [])

    monkeypatch.setattr(module.recording, "record", record)
    monkeypatch.setattr(module, "replay", replay)
    monkeypatch.setattr(module.trace, "read", read)
    monkeypatch.setattr(module.reference_environment, "python", lambda path: Path("python"))
    monkeypatch.setattr(module, "find_data", lambda dataset: bridge.found)
    return bridge


def test_check_records_and_replays(bridge):
    one = module.check(bridge.script, ["--model", "cnn"], rounds=3)
    assert bridge.asked == (bridge.script, ["--model", "cnn"], 3)
    assert one == result()
    assert not bridge.trace.exists()  # it was nobody's wish to keep it


def test_what_computations_return_is_compared_where_there_are_some(bridge, monkeypatch):
    returned = lambda value: packed([Returned("mean", {}, {"": np.full((), value)}, {})])
    bridge.computations = returned(2.0)
    bridge.found = DataFolder(Path("cache"), "generated handwriting of 20 writers")

    def run_child(name, arguments, *, path, log, env):
        assert (name, arguments[0]) == ("fedbridge.tff._results", str(bridge.trace))
        assert arguments[2:] == [str(bridge.script), "--model", "cnn"]
        assert os.environ["FEDBRIDGE_DATA"] == "cache"
        log.write_text("a warning\nValueError: out of luck\n")
        if bridge.ours is None:
            return 1
        trace_writer.save(Path(arguments[1]), returned(bridge.ours))
        return 0

    monkeypatch.setattr(module.reference_environment, "run_child", run_child)
    verdicts = []
    for bridge.ours in (2.0, 2.5, None):
        one = module.check(bridge.script, ["--model", "cnn"])
        verdicts.append((one.verdict, one.reason.removeprefix(result().reason)))
    assert verdicts == [
        ("match", "; 1 call of its own computations returns what it does under TFF"),
        ("differs", "computation 1, mean returns a value that is off by 2.5e-01 (bound 1.0e-06)"),
        (
            "not comparable",
            "`fedbridge run` of the script ends with code 1: ValueError: out of luck",
        ),
    ]


def test_the_trace_is_kept_where_asked(bridge, tmp_path):
    module.check(bridge.script, keep_trace=tmp_path / "kept")
    assert (tmp_path / "kept").is_dir()


def test_tffs_own_download_and_cache_are_left_to_tff(bridge):
    module.check(bridge.script)
    assert bridge.data is None
    bridge.found = DataFolder(Path.home() / ".tff", "from TFF's own cache")
    module.check(bridge.script)
    assert bridge.data is None


def test_packed_data_are_unpacked_first(bridge, monkeypatch):
    monkeypatch.setenv("FEDBRIDGE_DATA", "packed")
    bridge.found = DataFolder(Path("unpacked"), "packed/emnist_all.sqlite.lzma (FEDBRIDGE_DATA)")
    one = module.check(bridge.script)
    assert bridge.data == "unpacked"
    assert one.notes == result().notes
    assert os.environ["FEDBRIDGE_DATA"] == "packed"


def test_a_stand_in_is_told(bridge):
    bridge.found = DataFolder(Path("cache"), "generated handwriting of 20 writers")
    told = []
    one = module.check(bridge.script, on_event=told.append)
    assert bridge.data == "cache"
    assert one.notes[0].startswith(
        "generated handwriting of 20 writers: there is no FEDBRIDGE_DATA"
    )
    assert one.notes[1:] == result().notes
    assert told[0]["event"] == "phase"
    assert "FEDBRIDGE_DATA" not in os.environ


def test_scripts_without_emnist_are_left_alone(bridge, monkeypatch):
    def refuse(dataset):
        raise AssertionError(dataset)

    monkeypatch.setattr(module, "find_data", refuse)
    bridge.script.write_text("import tensorflow_federated as tff\n")
    module.check(bridge.script)
    assert bridge.data is None


def test_the_environment_is_missed_before_data_are_made(bridge, monkeypatch):
    def absent(path):
        raise fc.ReferenceEnvironmentError("there is none: run `fedbridge reference create`")

    monkeypatch.setattr(module.reference_environment, "python", absent)
    monkeypatch.setattr(module, "find_data", absent)
    with pytest.raises(fc.ReferenceEnvironmentError, match="reference create"):
        module.check(bridge.script)
    with pytest.raises(fc.ScriptError, match=r"no such script"):
        module.check("nowhere.py")


def test_a_failure_leaves_the_variables_as_they_were(bridge, monkeypatch):
    def fail(*_, **__):
        raise fc.ScriptError("train.py, line 2: fails under TFF 0.87.0: NameError")

    bridge.found = DataFolder(Path("cache"), "generated handwriting")
    monkeypatch.setattr(module.recording, "record", fail)
    with pytest.raises(fc.ScriptError):
        module.check(bridge.script)
    assert "FEDBRIDGE_DATA" not in os.environ
