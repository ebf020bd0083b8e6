"""TFF's old HDF5 files: what is in them is read, what is wrong with them is said."""

import importlib.util
from pathlib import Path

import h5py
import numpy as np
import pytest

from fedbridge.jax_core import ClientDataError, Fraction255, Ragged
from fedbridge.tff_io import _hdf5_child, from_hdf5


def clients(seed=0):
    rng = np.random.default_rng(seed)
    return {
        client_id: {
            "label": rng.integers(0, 62, size).astype(np.int32),
            "pixels": rng.integers(0, 256, (size, 4, 4)).astype(np.float32) / np.float32(255),
            "tokens": [f"wörd {i}" * i for i in range(size)],
        }
        for client_id, size in (("b", 3), ("a", 40), ("f00_1", 1), ("none", 0))
    }


def write(path, made, **options):
    with h5py.File(path, "w") as file:
        for client_id, features in made.items():
            for name, rows in features.items():
                where = f"examples/{client_id}/{name}"
                if isinstance(rows, list):
                    file.create_dataset(
                        where, data=np.array(rows, object), dtype=h5py.string_dtype()
                    )
                else:
                    file.create_dataset(where, data=rows, **(options if len(rows) else {}))
    return path


def assert_holds(data, made):
    assert data.client_ids == tuple(sorted(made))
    for client_id, features in made.items():
        rows = data.client(client_id)
        assert list(rows) == sorted(features)
        for name, values in features.items():
            if isinstance(values, list):
                assert rows[name].tolist() == [text.encode() for text in values]
            else:
                assert rows[name].dtype == values.dtype.newbyteorder("=")
                np.testing.assert_array_equal(rows[name], values)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "fed_emnist_train.h5", clients())


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
def test_what_was_written_is_read(tmp_path, options):
    data = from_hdf5(write(tmp_path / "some.h5", clients(), **options), cache=False)
    assert isinstance(data.features["pixels"], Fraction255)
    assert isinstance(data.features["tokens"], Ragged)
    assert_holds(data, clients())


def test_the_cached_copy_equals_the_file_and_goes_with_it(path, tmp_path):
    for _ in range(2):
        assert_holds(from_hdf5(path, cache=tmp_path / "cache"), clients())
    write(path, clients(1))
    assert_holds(from_hdf5(path, cache=tmp_path / "cache"), clients(1))


def test_a_folder_and_a_split(path):
    write(path.with_name("fed_emnist_test.h5"), clients(1))
    assert_holds(from_hdf5(path.parent, "test", cache=False), clients(1))
    assert_holds(from_hdf5(path, "train", cache=False), clients())
    with pytest.raises(ClientDataError, match="2 of its .h5 files.*fed_emnist_test.h5"):
        from_hdf5(path.parent, cache=False)
    with pytest.raises(ClientDataError, match="split 'test' was asked for"):
        from_hdf5(path, "test", cache=False)


def test_numbers_of_the_other_byte_order(tmp_path):
    made = {"a": {"y": np.arange(5, dtype=">i4")}}
    assert_holds(from_hdf5(write(tmp_path / "big.h5", made), cache=False), made)


def test_what_is_wrong_is_said(tmp_path):
    file = tmp_path / "bad.h5"
    with pytest.raises(ClientDataError, match="there is no such file"):
        from_hdf5(file)
    file.write_bytes(b"SQLite format 3\0")
    with pytest.raises(ClientDataError, match="bad.h5: this is no HDF5 file"):
        from_hdf5(file)
    with h5py.File(file, "w") as other:
        other["model_weights/dense"] = np.zeros(3)
    with pytest.raises(ClientDataError, match="no group '/examples'.*model_weights"):
        from_hdf5(file)
    with h5py.File(file, "w") as other:
        other.create_group("examples")
    with pytest.raises(ClientDataError, match="no clients"):
        from_hdf5(file)
    with h5py.File(file, "w") as other:
        other["examples/a"] = np.zeros(3)
    with pytest.raises(ClientDataError, match="client 'a': it is no group"):
        from_hdf5(file)
    with h5py.File(file, "w") as other:
        other["examples/a/y"] = 3
    with pytest.raises(ClientDataError, match="client 'a', feature 'y': it is no array"):
        from_hdf5(file)
    write(file, {"a": {"x": np.zeros(3), "y": np.zeros(2)}})
    with pytest.raises(ClientDataError, match="bad.h5: client 'a'.*different numbers of rows"):
        from_hdf5(file)
    write(file, {"a": {"y": np.zeros(3)}, "b": {"z": np.zeros(2)}})
    with pytest.raises(ClientDataError, match="client 'b': it has no feature 'y'"):
        from_hdf5(file)
    with h5py.File(file, "w") as other:
        other.create_dataset("examples/a/y", shape=(10**12,), dtype="f4")
    with pytest.raises(ClientDataError, match="feature 'y': it promises 4000000000000 bytes"):
        from_hdf5(file)
    with h5py.File(file, "w") as other:  # a size that is more than was written
        grown = other.create_dataset(
            "examples/a/y", data=np.arange(12), chunks=(4,), maxshape=(None,)
        )
        grown.resize((20_000,))
    with pytest.raises(ClientDataError, match="feature 'y': it promises 5000 chunks, and 3 are th"):
        from_hdf5(file)


def test_without_h5py_the_cure_is_said(path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ClientDataError, match=r"fedbridge\[hdf5\]"):
        from_hdf5(path, cache=False)


def test_a_truncated_file_is_named(path):
    whole = path.read_bytes()
    for size in np.random.default_rng(0).integers(0, len(whole), 100):
        path.write_bytes(whole[:size])
        with pytest.raises(_hdf5_child.RefusedError, match=r"fed_emnist_train\.h5"):
            dict(_hdf5_child.clients(str(path)))
    with pytest.raises(ClientDataError, match=r"fed_emnist_train\.h5"):
        from_hdf5(path, cache=False)


def test_flipped_bits_are_named_or_read(tmp_path):
    """HDF5 has no checksums: the numbers may differ, but nothing else comes out than arrays."""
    path = write(tmp_path / "flip.h5", {"a": {"y": np.arange(50)}, "b": {"y": np.arange(9)}})
    whole, rng, said = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            dict(_hdf5_child.clients(str(path)))
        except _hdf5_child.RefusedError as error:
            said.append(str(error))
    assert len(said) > 5
    assert all("flip.h5" in words for words in said)


@pytest.mark.parametrize(
    "body", ["while True: pass", "__import__('os').abort()", "[0] * (1 << 40)"]
)
def test_a_reader_that_hangs_crashes_or_wants_all_memory_is_ended(
    path, tmp_path, monkeypatch, body
):
    """What libhdf5 was seen to do over damaged files, put in the place of reading the rows."""
    program = Path(_hdf5_child.__file__).read_text()
    assert program.count("    values = dataset[()]") == 1
    broken = program.replace("    values = dataset[()]", f"    {body}").replace(
        "SECONDS = 5", "SECONDS = 1"
    )
    (tmp_path / "child.py").write_text(broken)
    monkeypatch.setattr(_hdf5_child, "__file__", str(tmp_path / "child.py"))
    with pytest.raises(ClientDataError, match=r"fed_emnist_train\.h5.*damaged.*fetch it again"):
        from_hdf5(path, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*"))
