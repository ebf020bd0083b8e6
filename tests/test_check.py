import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from results import result

from fedbridge import jax_core as fc
from fedbridge.bridge import check as module
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
        events=[],
    )
    bridge.script.write_text(EMNIST)

    def record(script, arguments, out, *, rounds, on_event, reference):
        bridge.data, bridge.trace = os.environ.get("FEDBRIDGE_DATA"), Path(out)
        bridge.asked = (script, arguments, rounds)
        bridge.trace.mkdir()
        return bridge.trace

    def replay(trace, *, on_event):
        assert trace == ("read", bridge.trace)
        return result()

    monkeypatch.setattr(module.recording, "record", record)
    monkeypatch.setattr(module, "replay", replay)
    monkeypatch.setattr(module.trace, "read", lambda path: ("read", path))
    monkeypatch.setattr(module.reference_environment, "python", lambda path: Path("python"))
    monkeypatch.setattr(module, "find_data", lambda dataset: bridge.found)
    return bridge


def test_check_records_and_replays(bridge):
    one = module.check(bridge.script, ["--model", "cnn"], rounds=3)
    assert bridge.asked == (bridge.script, ["--model", "cnn"], 3)
    assert one == result()
    assert not bridge.trace.exists()  # it was nobody's wish to keep it


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
