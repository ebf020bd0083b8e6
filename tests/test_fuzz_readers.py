"""Damaged files are read as another reader reads them, or refused in one sentence; a few of the
cases of scripts/fuzz_readers.py, in this process."""

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "fuzz_readers", Path(__file__).resolve().parents[1] / "scripts" / "fuzz_readers.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
fuzz = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fuzz)


@pytest.mark.parametrize(
    "name, cases", [("sqlite", 150), ("example", 150), ("hdf5", 6), ("leaf", 200), ("npz", 100)]
)
def test_damage_is_refused_or_read_as_the_reference_reads_it(tmp_path, name, cases):
    reader = fuzz.READERS[name]
    whole = reader.make()
    verdicts = {seed: fuzz.run_case(reader, whole, seed, tmp_path) for seed in range(cases)}
    assert not {s: v for s, v in verdicts.items() if v not in ("read", "refused")}
    assert "refused" in verdicts.values()


def test_what_sqlite_reads_over_is_refused(tmp_path):
    """Seeds that once gave fewer clients or examples, UnicodeDecodeError, or a record's text."""
    reader = fuzz.READERS["sqlite"]
    whole = reader.make()
    for seed in (342, 452, 548, 675, 679, 716, 748, 982, 2793, 2809, 3260, 3285, 3470):
        assert fuzz.run_case(reader, whole, seed, tmp_path) == "refused"


@pytest.mark.parametrize("name", fuzz.READERS)
def test_a_sound_file_is_read(tmp_path, name):
    reader = fuzz.READERS[name]
    sound = reader._replace(damage=lambda whole, rng: whole)
    assert fuzz.run_case(sound, reader.make(), 0, tmp_path) == "read"


def test_what_differs_is_seen(tmp_path):
    reader = fuzz.READERS["sqlite"]
    other = {**fuzz._clients(), "b": fuzz._clients()["a"]}
    wrong = reader._replace(damage=lambda whole, rng: whole, reference=lambda path, found: other)
    assert "client 'b'" in fuzz.run_case(wrong, reader.make(), 0, tmp_path)
