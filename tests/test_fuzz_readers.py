"""Damaged files are read as another reader reads them, or refused in one sentence; a few of the
cases of scripts/fuzz_readers.py, in this process."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

_SPEC = importlib.util.spec_from_file_location(
    "fuzz_readers", Path(__file__).resolve().parents[1] / "scripts" / "fuzz_readers.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
fuzz = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fuzz)


READERS = fuzz.readers()


@pytest.mark.parametrize(
    "name, cases",
    [("sqlite", 150), ("example", 150), ("packed", 50), ("hdf5", 6), ("leaf", 200), ("npz", 100)],
)
def test_damage_is_refused_or_read_as_the_reference_reads_it(tmp_path, name, cases):
    """And takes no memory but what a sound file takes, and four times its size."""
    reader = READERS[name]
    whole = reader.make()
    most = fuzz.allowed(reader, whole, tmp_path)
    done = {seed: fuzz.run_case(reader, whole, seed, tmp_path) for seed in range(cases)}
    assert not {s: c for s, c in done.items() if c.verdict not in ("read", "refused")}
    assert "refused" in {case.verdict for case in done.values()}
    assert max(case.kib for case in done.values()) <= most


def test_what_sqlite_reads_over_is_refused(tmp_path):
    """Seeds that once gave fewer clients or examples, UnicodeDecodeError, or a record's text."""
    reader = READERS["sqlite"]
    whole = reader.make()
    for seed in (342, 452, 548, 675, 679, 716, 748, 982, 2793, 2809, 3260, 3285, 3470):
        assert fuzz.run_case(reader, whole, seed, tmp_path).verdict == "refused"


@pytest.mark.parametrize("name", READERS)
def test_a_sound_file_is_read(tmp_path, name):
    reader = READERS[name]
    sound = reader._replace(damage=lambda whole, rng: whole)
    assert fuzz.run_case(sound, reader.make(), 0, tmp_path).verdict == "read"


def test_what_differs_is_seen(tmp_path):
    reader = READERS["sqlite"]
    other = {**fuzz._clients(), "b": fuzz._clients()["a"]}
    wrong = reader._replace(damage=lambda whole, rng: whole, reference=lambda path, found: other)
    assert "client 'b'" in fuzz.run_case(wrong, reader.make(), 0, tmp_path).verdict


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process takes")
def test_what_takes_too_much_is_seen(tmp_path):
    reader = READERS["npz"]
    whole = reader.make()
    greedy = reader._replace(read=lambda path: (np.ones(1 << 18), reader.read(path))[1])
    assert (
        fuzz.run_case(greedy, whole, 0, tmp_path).kib
        >= 2048
        > fuzz.allowed(reader, whole, tmp_path)
    )
