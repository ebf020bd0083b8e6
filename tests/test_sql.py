"""TFF's SQLite files: what is in them is read, what is wrong with them is said in one sentence."""

import lzma
import os
import sqlite3
import warnings

import numpy as np
import pytest

from fedbridge.jax_core import ClientDataError, Fraction255, Ragged
from fedbridge.tff_io import from_clients, from_sql, verify_cache, write_sql
from fedbridge.tff_io._example_proto import parse_example, serialize_example


def clients(seed=0):
    rng = np.random.default_rng(seed)
    made = {}
    for client_id, size in (("b", 3), ("a", 40), ("ü 'quoted'", 1), ("none", 0)):
        made[client_id] = {
            "label": rng.integers(0, 62, size).astype(np.int32),
            "pixels": rng.integers(0, 256, (size, 28, 28)).astype(np.float32) / np.float32(255),
        }
    return made


@pytest.fixture
def path(tmp_path):
    return write_sql(tmp_path / "data.sqlite", {"train": clients(), "test": clients(1)})


def assert_holds(data, expected):
    assert data.client_ids == tuple(sorted(expected))
    for client_id, features in expected.items():
        rows = data.client(client_id)
        assert sorted(rows) == sorted(features)
        for name, values in features.items():
            assert rows[name].dtype == values.dtype
            np.testing.assert_array_equal(rows[name], values)


def change(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(*(statement if isinstance(statement, tuple) else (statement,)))
    connection.commit()
    connection.close()


# --- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_what_was_written_is_read(path, split):
    data = from_sql(path, split, cache=False)
    assert isinstance(data.features["pixels"], Fraction255)
    assert list(data.features) == ["label", "pixels"]
    assert_holds(data, clients(0 if split == "train" else 1))


def test_a_packed_file_reads_the_same(path, tmp_path):
    packed = tmp_path / "data.sqlite.lzma"
    packed.write_bytes(lzma.compress(path.read_bytes()))
    for cache in (False, tmp_path / "cache"):
        assert_holds(from_sql(packed, "train", cache=cache), clients())
    assert not list((tmp_path / "cache").glob(".*"))


def test_interleaved_clients_keep_the_order_of_rows(tmp_path):
    path = write_sql(tmp_path / "x.sqlite", {"s": {"b": {"y": [0]}, "a": {"y": [1]}}})
    for i in range(2, 3000):  # more than one block of the scan
        owner, record = "ab"[i % 7 == 0], serialize_example({"y": np.array([i * i])})
        change(
            path, ("INSERT INTO examples VALUES ('s', ?, ?)", (owner, record))
        ) if i < 12 else None
    connection = sqlite3.connect(path)
    rows = [("s", "abz"[i % 3], serialize_example({"y": np.array([i])})) for i in range(12, 5000)]
    connection.executemany("INSERT INTO examples VALUES (?, ?, ?)", rows)
    connection.commit()
    query = "SELECT serialized_example_proto FROM examples WHERE client_id = ? ORDER BY rowid"
    with pytest.warns(UserWarning, match="the metadata gives client 'a' 1 examples"):
        data = from_sql(path, cache=False)
    assert data.client_ids == ("a", "b")  # "z" is in no metadata: TFF does not see it either
    for client_id in data.client_ids:
        records = [serialize_example({"y": np.array([y])}) for y in data.client(client_id)["y"]]
        assert records == [row[0] for row in connection.execute(query, (client_id,))]
    connection.close()


def test_features_that_tff_does_not_know(tmp_path):
    features = {
        "count": np.array([-1, 2**40]),
        "vector": np.array([[1.5, -0.0], [np.nan, 3.0]], np.float32),
        "text": np.array([b"to be", b"\0"], object),
    }
    path = write_sql(tmp_path / "x.sqlite", {"s": {"a": features}})
    data = from_sql(path, cache=False)
    assert isinstance(data.features["text"], Ragged)
    assert_holds(data, {"a": features})


def test_an_element_spec_gives_shapes_and_dtypes(tmp_path):
    rows = {"a": np.arange(12).reshape(2, 6), "b": np.array([0, 3]), "c": np.array([0.5, 2.0])}
    path = write_sql(tmp_path / "x.sqlite", {"s": {"client": rows}})
    spec = {"c": ((), "float64"), "a": ((2, 3), np.uint8), "b": ((), bool)}
    data = from_sql(path, element_spec=spec, cache=False)
    assert list(data.features) == ["c", "a", "b"]
    found = data.client("client")
    assert {k: (v.shape, str(v.dtype)) for k, v in found.items()} == {
        "c": ((2,), "float64"),
        "a": ((2, 2, 3), "uint8"),
        "b": ((2,), "bool"),
    }
    assert found["b"].tolist() == [False, True]
    only = from_sql(path, element_spec={"b": ((), "int8")}, cache=False)
    assert list(only.features) == ["b"]


def test_stack_overflow_and_cifar_are_recognised(tmp_path):
    so = {k: [b"x"] for k in ("creation_date", "tags", "title", "tokens", "type")} | {"score": [3]}
    cifar = {"coarse_label": [1], "label": [2], "image": np.full((1, 32, 32, 3), 200)}
    path = write_sql(tmp_path / "x.sqlite", {"so": {"a": so}, "cifar": {"a": cifar}})
    assert repr(from_sql(path, "so", cache=False)).endswith(
        "creation_date strings, score int64[], tags strings, title strings, tokens strings, "
        "type strings)"
    )
    assert from_sql(path, "cifar", cache=False).features["image"].dtype == np.uint8
    assert from_sql(path, "cifar", cache=False).client("a")["image"].shape == (1, 32, 32, 3)


def test_values_that_are_no_255ths_stay_exact_from_block_to_block(tmp_path):
    pixels = np.zeros((3000, 28, 28), np.float32)
    pixels[2500, 3, 4] = np.float32(0.123)
    rows = {"label": np.zeros(3000, int), "pixels": pixels}
    path = write_sql(tmp_path / "x.sqlite", {"s": {"a": rows}})
    data = from_sql(path, cache=False)
    np.testing.assert_array_equal(data.client("a")["pixels"], pixels)


def test_arrays_can_be_written_and_nothing_is_left_beside(tmp_path):
    data = from_clients(clients())
    path = write_sql(tmp_path / "x.sqlite", {"s": data})
    assert_holds(from_sql(path, cache=False), clients())
    assert [p.name for p in tmp_path.iterdir()] == ["x.sqlite"]


# --- the converted copy -----------------------------------------------------------------------


def copies(cache):
    return sorted((cache / "client_data").iterdir())


def test_the_second_load_is_a_copy_in_the_cache(path, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = from_sql(path, "train", cache=cache)
    monkeypatch.setattr(sqlite3, "connect", None)  # the copy needs no SQLite
    second = from_sql(path, "train", cache=cache)
    assert_holds(first, clients())
    assert_holds(second, clients())
    assert [p.name.split("-")[:2] for p in copies(cache)] == [["data", "train"]]
    assert not second.features["label"].flags.writeable


def test_the_cache_follows_the_environment(path, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDBRIDGE_CACHE", str(tmp_path / "there"))
    from_sql(path, "train")
    assert len(copies(tmp_path / "there")) == 1


def test_a_changed_source_is_read_again(path, tmp_path):
    cache = tmp_path / "cache"
    from_sql(path, "train", cache=cache)
    write_sql(path, {"train": clients(5)})
    assert_holds(from_sql(path, "train", cache=cache), clients(5))
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert_holds(from_sql(path, "train", cache=cache), clients(5))
    assert len(copies(cache)) == 1


def test_every_flip_in_a_copy_is_found(path, tmp_path):
    cache = tmp_path / "cache"
    from_sql(path, "train", cache=cache)
    rng = np.random.default_rng(0)
    for name in sorted(p.name for p in copies(cache)[0].iterdir()):
        for _ in range(8):
            file = copies(cache)[0] / name
            data = bytearray(file.read_bytes())
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            file.write_bytes(data)
            assert_holds(from_sql(path, "train", cache=cache), clients())
            assert verify_cache(cache) == []


def test_a_cut_copy_and_a_missing_file_are_found(path, tmp_path):
    cache = tmp_path / "cache"
    from_sql(path, "train", cache=cache)
    for name in sorted(p.name for p in copies(cache)[0].iterdir()):
        os.truncate(copies(cache)[0] / name, 10)
        assert_holds(from_sql(path, "train", cache=cache), clients())
        (copies(cache)[0] / name).unlink()
        assert_holds(from_sql(path, "train", cache=cache), clients())


def test_large_copies_are_checked_at_the_edges_and_by_verify(path, tmp_path, monkeypatch):
    monkeypatch.setattr("fedbridge.tff_io._cache._CHECKED_WHOLE", 0)
    monkeypatch.setattr("fedbridge.tff_io._cache._EDGE", 256)
    cache = tmp_path / "cache"
    from_sql(path, "train", cache=cache)
    (pixels,) = (p for p in copies(cache)[0].glob("?.npy") if p.stat().st_size > 10_000)
    data = bytearray(pixels.read_bytes())
    data[5000] ^= 1
    pixels.write_bytes(data)
    assert verify_cache(cache) == copies(cache) or not copies(cache)
    assert_holds(from_sql(path, "train", cache=cache), clients())
    data[-1] ^= 1
    (p for p in copies(cache)[0].glob("?.npy") if p.stat().st_size > 10_000).__next__().write_bytes(
        data
    )
    assert_holds(from_sql(path, "train", cache=cache), clients())


def test_a_cache_that_cannot_be_written_is_no_obstacle(path, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="no converted copy can be kept there.*FEDBRIDGE_CACHE"):
        data = from_sql(path, "train", cache=tmp_path / "file" / "cache")
    assert_holds(data, clients())


# --- what is wrong ----------------------------------------------------------------------------


def refused(path, match, split=None, **kwargs):
    cache = path.parent / "never"
    with pytest.raises(ClientDataError, match=match) as caught:
        from_sql(path, split, cache=cache, **kwargs)
    assert "\n" not in str(caught.value)
    assert not list(cache.rglob("*"))  # nothing half-written


def test_no_file(tmp_path):
    refused(tmp_path / "absent.sqlite", "absent.sqlite: there is no such file; give")
    refused(tmp_path, "this is a folder; give")


def test_no_sqlite_file(tmp_path):
    for content in (b"", b"something else", b"\0" * 5000):
        (tmp_path / "x.sqlite").write_bytes(content)
        refused(tmp_path / "x.sqlite", "this is no SQLite file; give")


def test_a_foreign_sqlite_file(tmp_path):
    change(tmp_path / "x.sqlite", "CREATE TABLE music (name TEXT)")
    refused(tmp_path / "x.sqlite", "holds no TFF client data .no table 'examples'")
    change(tmp_path / "x.sqlite", "CREATE TABLE examples (split_name TEXT, client_id TEXT)")
    refused(tmp_path / "x.sqlite", "table 'examples' without serialized_example_proto")


def test_a_truncated_file(path):
    data = path.read_bytes()
    for size in (50, 4096, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        refused(path, r"data.sqlite: the file is truncated .*fetch it again", "train")


def test_a_damaged_packed_file(path, tmp_path):
    packed = tmp_path / "data.sqlite.lzma"
    data = lzma.compress(path.read_bytes())
    for size in (0, 5, len(data) // 2, len(data) - 1):
        packed.write_bytes(data[:size])
        refused(packed, r"packed file is truncated or damaged .*fetch it again", "train")
    for at in np.random.default_rng(0).integers(6, len(data), 20):
        flipped = bytearray(data)
        flipped[at] ^= 4
        packed.write_bytes(flipped)
        refused(packed, "packed file is truncated or damaged", "train")


def test_a_damaged_file_gives_an_error_or_what_sqlite_gives(tmp_path):
    made = {c: {"y": np.arange(n), "s": [b"text"] * n} for c, n in (("a", 30), ("b", 9), ("c", 0))}
    data = write_sql(tmp_path / "x.sqlite", {"train": made, "test": made}).read_bytes()
    spec, rng = {"y": ((), "int64"), "s": ((), bytes)}, np.random.default_rng(0)
    outcomes = {"refused": 0, "read": 0}
    for i in range(200):
        path = tmp_path / f"{i}.sqlite"
        flipped = bytearray(data)
        flipped[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = from_sql(path, "train", element_spec=spec, cache=False)
        except ClientDataError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        query = (
            "SELECT serialized_example_proto FROM examples NOT INDEXED "
            "WHERE client_id = ? AND split_name = 'train' ORDER BY rowid"
        )
        connection = sqlite3.connect(path)
        for client_id in found.client_ids:
            records = [parse_example(row[0]) for row in connection.execute(query, (client_id,))]
            rows = found.client(client_id)
            assert [r["y"][1].tolist() for r in records] == [[y] for y in rows["y"]]
            assert [r["s"][1] for r in records] == [[s] for s in rows["s"]]
        connection.close()
    assert min(outcomes.values()) > 10


def test_splits_are_listed(path):
    refused(path, "several splits; give `split`, one of 'test', 'train'")
    refused(path, "no split 'heldout'; there are 'test', 'train'", "heldout")


def test_no_clients_and_a_client_twice(path):
    insert = "INSERT INTO client_metadata VALUES ('a', 'train', 40)"
    change(path, insert)
    refused(path, "client 'a' is listed more than once", "train")
    change(path, "DELETE FROM client_metadata")
    refused(path, "it lists no clients", "train")


def test_a_record_that_does_not_parse_is_named(path):
    change(
        path,
        "UPDATE examples SET serialized_example_proto = x'0a05' WHERE rowid = "
        "(SELECT rowid FROM examples WHERE client_id = 'a' AND split_name = 'train' LIMIT 1) + 7",
    )
    refused(path, r"split 'train', client 'a', record 7: this is no tf.train.Example", "train")
    change(path, "UPDATE examples SET serialized_example_proto = 'text'")
    refused(path, r"client 'b', record 0: it holds str instead of a tf.train.Example", "train")


@pytest.mark.parametrize(
    ("features", "what"),
    [
        ({"label": 1, "pixels": np.zeros(783)}, "feature 'pixels': it has 783 values.*784"),
        ({"label": [1, 2], "pixels": np.zeros(784)}, "feature 'label': it has 2 values"),
        ({"label": 1.0, "pixels": np.zeros(784)}, "'label' holds floats instead of integers"),
        ({"label": 2**31, "pixels": np.zeros(784)}, "'label': it holds a number that int32"),
        ({"pixels": np.zeros(784)}, "no feature 'label'"),
    ],
)
def test_a_record_of_another_shape_is_named(path, features, what):
    record = serialize_example({k: np.array(v) for k, v in features.items()})
    statement = "INSERT INTO examples VALUES ('train', 'b', ?)"
    change(path, (statement, (record,)))
    refused(path, rf"client 'b', record 3.*{what}", "train")


def test_vectors_of_various_lengths_are_named(tmp_path):
    path = write_sql(tmp_path / "x.sqlite", {"s": {"a": {"v": [[1, 2]]}, "b": {"v": [[1, 2, 3]]}}})
    refused(path, r"client 'b', record 0, feature 'v': it has 3 values .*element_spec")


def test_element_specs_that_make_no_sense(path):
    refused(path, "only one string", "train", element_spec={"label": ((2,), bytes)})
    refused(path, "cannot hold complex64", "train", element_spec={"label": ((), "complex64")})
    refused(path, "no feature 'lable'", "train", element_spec={"lable": ((), "int32")})


def test_an_interrupted_write_leaves_the_old_file(path, tmp_path):
    before = path.read_bytes()
    with pytest.raises(ClientDataError, match="split 's', client 'a'.*different numbers of rows"):
        write_sql(path, {"s": {"a": {"x": [1, 2], "y": [1]}}})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


# --- clients in memory ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, "there are no clients"),
        (
            {"a": {"pixel": [1]}, "b": {"pixels": [1]}},
            r"'b': .* no feature 'pixel' \(it has 'pixels'",
        ),
        ({"a": {"x": [1]}, "b": {"x": [1], "y": [1]}}, "'a': it has no feature 'y'.*'b' has"),
        ({"a": {"x": [1], "y": [1, 2]}}, "'a': its features have different numbers of rows"),
        ({"a": {"x": [1]}, "b": {"x": [[1]]}}, r"'b', feature 'x': its rows are int64\[1\]"),
        ({"a": {"x": [1]}, "b": {"x": [1.5]}}, "'b', feature 'x'.*float64.*int64"),
        ({"a": {"x": [[1], [1, 2]]}}, "'a', feature 'x': its rows differ in shape"),
        ({"a": {"x": 3}}, "'a', feature 'x': it is one value"),
        ({1: {"x": [1]}, "1": {"x": [2]}}, "the same text"),
        ({"a": [1]}, "'a': expected a dictionary"),
        ({"a": {"x": [["b", "c"]]}}, "'a', feature 'x': expected one string a row"),
    ],
)
def test_clients_that_do_not_fit_together(given, what):
    with pytest.raises(ClientDataError, match=what):
        from_clients(given)


def test_clients_without_rows():
    data = from_clients(
        {"none": {"x": [], "s": []}, "a": {"x": np.ones((2, 3)), "s": ["b", b"\0"]}}
    )
    assert data.client_ids == ("none", "a")
    assert data.client("none")["x"].shape == (0, 3)
    assert data.client("a")["s"].tolist() == [b"b", b"\0"]
    assert from_clients({"none": {"x": np.zeros((0, 2))}}).client("none")["x"].shape == (0, 2)
