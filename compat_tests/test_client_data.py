"""Client data as TFF gives it and as fedbridge reads it: element for element the same."""

from collections import OrderedDict

import numpy as np
import pytest

import fedbridge.tff
from fedbridge.jax_core import ClientDataError
from fedbridge.tff_io import (
    convert,
    find_data,
    from_client_data,
    from_clients,
    from_datasets,
    from_sql,
    generate_emnist,
    generate_stackoverflow,
    to_client_data,
    write_sql,
)
from fedbridge.tff_io._example_proto import parse_example, serialize_example


def assert_same(one, two):
    """The same clients in the same order, the same features, the same rows to the last bit."""
    assert one.client_ids == two.client_ids
    assert sorted(one.features) == sorted(two.features)
    np.testing.assert_array_equal(one.offsets, two.offsets)
    for client_id in one.client_ids:
        rows, others = one.client(client_id), two.client(client_id)
        for name, values in rows.items():
            assert values.dtype == others[name].dtype
            assert values.shape == others[name].shape
            assert values.tobytes() == others[name].tobytes() or values.dtype == object
            assert values.dtype != object or values.tolist() == others[name].tolist()


def some(client_data, tff, count):
    """The first clients only: going through TFF takes its time."""
    return tff.simulation.datasets.ClientData.from_clients_and_tf_fn(
        client_data.client_ids[:count], client_data.serializable_dataset_fn
    )


# --- files ------------------------------------------------------------------------------------


@pytest.fixture
def folder(shared_data, tmp_path_factory, monkeypatch):
    """The real data, unpacked once for the run, as TFF's cache_dir."""
    monkeypatch.setenv("FEDBRIDGE_CACHE", str(tmp_path_factory.getbasetemp() / "fedbridge"))
    monkeypatch.setenv("FEDBRIDGE_DATA", str(shared_data))
    return lambda dataset: find_data(dataset).folder


@pytest.mark.parametrize("only_digits", [False, True])
def test_emnist_reads_as_tff_reads_it(tff, folder, only_digits):
    folder = folder("emnist")
    loaded = tff.simulation.datasets.emnist.load_data(only_digits, cache_dir=str(folder))
    splits = ("digits_only_train", "digits_only_test") if only_digits else ("all_train", "all_test")
    for client_data, split in zip(loaded, splits, strict=True):
        data = from_sql(folder / "emnist_all.sqlite", split)
        assert list(data.client_ids) == client_data.client_ids
        count = {"all_train": 40, "all_test": None}.get(split, 12)
        assert_same(
            from_client_data(some(client_data, tff, count)), data.select(data.client_ids[:count])
        )


def test_packed_and_unpacked_files_are_the_same(folder, shared_data):
    packed = from_sql(shared_data / "emnist_all.sqlite.lzma", "all_test")
    assert_same(packed, from_sql(folder("emnist") / "emnist_all.sqlite", "all_test"))


def test_generated_stack_overflow_reads_as_tff_reads_it(tff, tmp_path):
    """Read at once, and converted piece by piece."""
    path = generate_stackoverflow(12, tmp_path, sentences=200, seed=3)
    loaded = tff.simulation.datasets.stackoverflow.load_data(cache_dir=str(tmp_path))
    for client_data, split in zip(loaded, ("train", "heldout", "test"), strict=True):
        theirs = from_client_data(client_data)
        assert_same(theirs, from_sql(path, split, cache=False))
        assert_same(theirs, convert(path, tmp_path / split, split))


def test_stack_overflow_reads_as_tff_reads_it(tff, folder):
    folder = folder("stackoverflow")
    loaded = tff.simulation.datasets.stackoverflow.load_data(cache_dir=str(folder))
    for client_data, split in zip(loaded[1:], ("heldout", "test"), strict=True):
        data = from_sql(folder / "stackoverflow.sqlite", split)
        assert list(data.client_ids) == client_data.client_ids
        assert_same(from_client_data(some(client_data, tff, 6)), data.select(data.client_ids[:6]))


def test_celeba_reads_as_tff_reads_it(tff, tmp_path):
    theirs, ours = tff.simulation.datasets.celeba, fedbridge.tff.simulation.datasets.celeba
    rng = np.random.default_rng(0)
    clients = {
        client_id: {name: rng.integers(0, 2, size) for name in theirs.ATTRIBUTE_NAMES}
        | {"image": rng.integers(0, 256, (size, 84, 84, 3))}
        for client_id, size in (("a", 2), ("b", 1))
    }
    splits = [
        f"split_by_{by}_{part}" for by in ("clients", "examples") for part in ("train", "test")
    ]
    write_sql(tmp_path / "celeba.sqlite", dict.fromkeys(splits, clients))
    for by_clients in (True, False):
        pairs = zip(
            *(of.load_data(by_clients, str(tmp_path)) for of in (theirs, ours)), strict=True
        )
        for expected, found in pairs:
            assert found.element_type_structure == expected.element_type_structure
            assert_same(from_client_data(found), from_client_data(expected))


@pytest.mark.parametrize("name", ["gldv2", "inaturalist"])
def test_synthetic_images_are_tffs(tff, name):
    pair = [getattr(of.simulation.datasets, name).get_synthetic() for of in (tff, fedbridge.tff)]
    assert pair[1].element_type_structure == pair[0].element_type_structure
    assert_same(*map(from_client_data, pair))


def test_tff_reads_what_we_write(tff, tmp_path):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    clients = {
        client_id: {
            "count": rng.integers(-(2**62), 2**62, size),
            "flag": rng.integers(0, 2, (size, 3)).astype(bool),
            "text": np.array(
                [bytes(rng.integers(0, 256, 7).tolist()) for _ in range(size)], object
            ),
            "x": rng.normal(size=(size, 2, 3)).astype(np.float32),
        }
        for client_id, size in (("b", 3), ("a", 30), ("none", 0))
    }
    path = write_sql(tmp_path / "x.sqlite", {"train": clients, "test": {"c": clients["b"]}})
    specs = {
        "count": tf.TensorSpec((), tf.int64),
        "flag": tf.TensorSpec((3,), tf.int32),  # TFF's own parser knows no booleans
        "text": tf.TensorSpec((), tf.string),
        "x": tf.TensorSpec((2, 3), tf.float32),
    }
    element_spec = {
        "count": ((), "int64"),
        "flag": ((3,), "int32"),
        "text": ((), bytes),
        "x": ((2, 3), "float32"),
    }
    loader = tff.simulation.datasets.load_and_parse_sql_client_data
    for split in ("train", "test"):
        theirs = from_client_data(loader(str(path), specs, split))
        assert_same(theirs, from_sql(path, split, element_spec=element_spec, cache=False))
    train = from_sql(path, "train", element_spec=element_spec, cache=False)
    for name in ("count", "text", "x"):
        assert train.client("a")[name].tolist() == clients["a"][name].tolist()


def test_we_read_what_tff_writes(tff, tmp_path):
    client_data = tff.simulation.datasets.stackoverflow.get_synthetic()
    path = tmp_path / "folder" / "x.sqlite"
    tff.simulation.datasets.save_to_sql_client_data(
        client_data.client_ids, client_data.create_tf_dataset_for_client, str(path)
    )
    ours = from_sql(path, cache=False)
    theirs = from_client_data(client_data)
    assert_same(theirs.select(ours.client_ids), ours)


def test_tff_reads_generated_handwriting(tff, tmp_path):
    path = generate_emnist(2, tmp_path)
    loaded = tff.simulation.datasets.emnist.load_data(only_digits=True, cache_dir=str(tmp_path))
    for client_data, split in zip(loaded, ("digits_only_train", "digits_only_test"), strict=True):
        assert_same(from_client_data(client_data), from_sql(path, split, cache=False))


# --- objects ----------------------------------------------------------------------------------


def round_trip(tff, client_data):
    """To arrays, back to TFF, and to arrays again; eagerly, and inside a TFF computation."""
    data = from_client_data(client_data)
    back = to_client_data(data)
    assert back.client_ids == list(client_data.client_ids)
    assert back.element_type_structure == client_data.element_type_structure
    assert_same(from_client_data(back), data)
    for client_id in back.client_ids[:2]:
        computed = back.dataset_computation(client_id)
        assert_same(from_datasets({client_id: computed}), data.select([client_id]))
    return data


def test_test_client_data(tff):
    slices = {
        "b": OrderedDict(y=np.array([[3.5]]), x=np.array([2], np.uint8)),
        "a": OrderedDict(y=np.array([[1.5], [0.0]]), x=np.array([1, 2], np.uint8)),
    }
    data = round_trip(tff, tff.simulation.datasets.TestClientData(slices))
    assert data.client_ids == ("b", "a")
    assert data.client("a")["y"].tolist() == [[1.5], [0.0]]


def test_synthetic_data_sets(tff):
    datasets = tff.simulation.datasets
    round_trip(tff, datasets.emnist.get_synthetic())
    round_trip(tff, datasets.stackoverflow.get_synthetic())
    round_trip(tff, datasets.shakespeare.get_synthetic())
    round_trip(tff, datasets.cifar100.get_synthetic())


@pytest.mark.parametrize("structure", ["tuple", "dict", "nested", "single", "nested tuple"])
def test_preprocessed_elements_of_every_structure(tff, structure):
    import tensorflow as tf

    make = {
        "tuple": lambda e: (e["pixels"], e["label"]),
        "dict": lambda e: {"y": e["label"], "x": tf.cast(e["pixels"] > 0.5, tf.bool)},
        "nested": lambda e: OrderedDict(x={"a": e["pixels"], "b": e["label"]}, y=e["label"]),
        "single": lambda e: e["pixels"],
        "nested tuple": lambda e: ({"a": e["pixels"]}, (e["label"], e["label"] + 1)),
    }[structure]
    names = {
        "tuple": ["x", "y"],
        "dict": ["y", "x"],
        "nested": ["x/a", "x/b", "y"],
        "single": ["x"],
        "nested tuple": ["x/a", "y/0", "y/1"],
    }[structure]
    source = tff.simulation.datasets.emnist.get_synthetic()
    prepared = source.preprocess(lambda ds: ds.map(make).take(7))
    data = round_trip(tff, prepared)
    assert sorted(data.features) == sorted(names)
    assert data.num_examples(data.client_ids[0]) == 7


def test_filtered_and_empty_clients(tff):
    source = tff.simulation.datasets.emnist.get_synthetic()
    prepared = source.preprocess(lambda ds: ds.filter(lambda e: e["label"] > 100))
    data = round_trip(tff, prepared)
    assert data.offsets.tolist() == [0, 0, 0]
    assert data.client(data.client_ids[0])["pixels"].shape == (0, 28, 28)


def test_a_file_per_user(tff, tmp_path):
    import tensorflow as tf

    for user in ("b", "a"):
        with tf.io.TFRecordWriter(str(tmp_path / user)) as writer:
            for i in range(3):
                writer.write(serialize_example({"y": np.array([i]), "of": user.encode()}))

    def dataset_fn(path):
        spec = {
            "y": tf.io.FixedLenFeature((), tf.int64),
            "of": tf.io.FixedLenFeature((), tf.string),
        }
        return tf.data.TFRecordDataset(path).map(lambda r: tf.io.parse_single_example(r, spec))

    files = {user: str(tmp_path / user) for user in ("b", "a")}
    client_data = tff.simulation.datasets.FilePerUserClientData(files, dataset_fn)
    data = round_trip(tff, client_data)
    assert data.client_ids == ("a", "b")
    assert data.client("b")["of"].tolist() == [b"b"] * 3


def test_arrays_become_client_data(tff):
    clients = {"b": {"x": np.eye(2, dtype=np.float32)}, "a": {"x": np.ones((0, 2), np.float32)}}
    data = from_clients(clients)
    back = data.to_client_data()
    assert isinstance(back, tff.simulation.datasets.ClientData)
    assert back.client_ids == ["b", "a"]
    assert_same(from_client_data(back), data)
    (element, _) = back.create_tf_dataset_for_client("b").as_numpy_iterator()
    assert isinstance(element, OrderedDict)


def test_what_a_dataset_must_not_be(tff):
    import tensorflow as tf

    numbers = tf.data.Dataset.range(5)
    with pytest.raises(ClientDataError, match=r"client 'a', feature 'x'.*dataset.unbatch\(\)"):
        from_datasets({"a": numbers.batch(2)})
    with pytest.raises(ClientDataError, match=r"client 'a': the dataset never ends.*repeat"):
        from_datasets({"a": numbers.repeat()})
    ragged = numbers.map(lambda n: tf.RaggedTensor.from_row_lengths(tf.range(n), [n]))
    with pytest.raises(ClientDataError, match="expected a dense tensor"):
        from_datasets({"a": ragged})
    with pytest.raises(ClientDataError, match="client 'b': its elements are.*'a' are"):
        from_datasets({"a": numbers, "b": numbers.map(lambda n: (n, n))})
    with pytest.raises(ClientDataError, match="client 'b', feature 'x'.*float32.*int64"):
        from_datasets({"a": numbers, "b": numbers.map(lambda n: tf.cast(n, tf.float32))})
    with pytest.raises(ClientDataError, match="no clients"):
        from_datasets({})
    whole = from_datasets({"a": numbers.batch(5), "b": numbers.batch(5)})  # an element is a row
    assert whole.client("b")["x"].tolist() == [[0, 1, 2, 3, 4]]


# --- records ----------------------------------------------------------------------------------


def official(record):
    """What the official parser reads, or None."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        example = tf.train.Example.FromString(record)
    except DecodeError:
        return None
    kinds = {"bytes_list": 1, "float_list": 2, "int64_list": 3}
    read = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind is not None:
            read[name] = (kinds[kind], list(getattr(feature, kind).value))
    return read


def mutations(record, rng, count):
    """Bytes changed, cut, doubled, swapped and overwritten with what means something."""
    words = [
        b"\x0a",
        b"\x12\x00",
        b"\x1a\x03\x0a\x01\x07",
        b"\xff" * 9 + b"\x01",
        b"\x63\x64",
        b"\x0d",
    ]
    for _ in range(count):
        out = bytearray(record)
        for _ in range(int(rng.integers(1, 4))):
            at, size = int(rng.integers(len(out) + 1)), int(rng.integers(1, 9))
            kind = rng.integers(6)
            if kind == 0 and at < len(out):
                out[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                del out[at : at + size]
            elif kind == 2:
                out[at:at] = out[at : at + size]
            elif kind == 3:
                out[at:at] = words[int(rng.integers(len(words)))]
            elif kind == 4 and at < len(out):
                out[at] = (out[at] + int(rng.integers(-3, 4))) % 256
            elif kind == 5 and len(out) > 200:
                del out[at:]
        yield bytes(out)


def field(number, payload):
    assert len(payload) < 128
    return bytes([number << 3 | 2, len(payload)]) + payload


def odd_records():
    """Records by hand: merged messages, doubled keys and values, unpacked and empty lists."""
    one, two = field(3, field(1, b"\x01")), field(3, b"\x08\x02")
    text, number = field(1, field(1, b"hi")), field(2, b"\x0d\x00\x00\x80\x3f")
    name = field(1, b"y")
    for feature in (one, two, text, number, one + two, one + text + two, b"", text + number + one):
        entry = name + field(2, feature)
        yield field(1, field(1, entry))
        yield field(1, field(1, entry) + field(1, name + field(2, text)))
        yield field(1, field(1, entry)) + field(1, field(1, name + field(2, two)))
        yield field(1, field(1, entry + field(2, two)))  # one entry, two values
        yield field(1, field(1, field(2, feature) + name + field(1, b"z")))  # one entry, two keys
        yield field(1, field(1, field(2, feature)))  # no key
        yield field(1, field(1, name))  # no value
        yield field(1, field(1, entry) + field(1, name))  # the last one wins, and is empty


def test_records_read_as_the_official_parser_reads_them():
    rng = np.random.default_rng(0)
    plain = serialize_example(
        {
            "label": np.array([3, -1, 300]),
            "pixels": rng.normal(size=20).astype(np.float32),
            "text": b"to be or not to be",
        }
    )
    records = [plain, *odd_records(), *mutations(plain, rng, 1500)]
    for record in odd_records():
        records += mutations(record, rng, 15)
    outcomes = {"same": 0, "refused": 0, "refused by both": 0}
    for record in records:
        expected = official(record)
        try:
            found = parse_example(record)
        except ClientDataError:
            outcomes["refused" if expected is not None else "refused by both"] += 1
            continue
        assert expected is not None, record
        assert sorted(found) == sorted(expected), record
        for name, (kind, values) in expected.items():
            assert found[name][0] == kind, record
            assert list(map(repr, values)) == [
                repr(v) for v in np.asarray(found[name][1]).tolist()
            ] or (kind == 1 and list(values) == list(found[name][1])), record
        outcomes["same"] += 1
    assert outcomes["same"] > 200
    assert outcomes["refused by both"] > 200
    # We are stricter only where parsers disagree: unknown fields in an entry of a map.
    assert outcomes["refused"] < 0.1 * len(records)
