"""tf.train.Example without TensorFlow; compat_tests compare with the official parser."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fedbridge.jax_core import ClientDataError
from fedbridge.tff_io._example_proto import (
    join_features,
    parse_example,
    parse_examples,
    serialize_example,
    serialize_feature,
)
from fedbridge.tff_io._side_by_side import find_spans, joined_records
from fedbridge.tff_io._wire import BYTES, FLOAT, INT64

int64s = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(width=32)
values = st.one_of(
    st.binary(max_size=9),
    st.lists(int64s, max_size=5).map(lambda v: np.array(v, np.int64)),
    st.lists(floats, max_size=5).map(lambda v: np.array(v, np.float32)),
)
examples = st.dictionaries(st.text(max_size=4), values, max_size=4)


def field(number, payload):
    size = len(payload)
    head = [number << 3 | 2, size] if size < 128 else [number << 3 | 2, size & 127 | 128, size >> 7]
    return bytes(head) + payload


def example(*entries):
    return field(1, b"".join(entries))


def entry_of(content):
    return field(1, content)


def entry(name, feature):
    return entry_of(field(1, name) + field(2, feature))


def assert_same(parsed, features):
    assert list(parsed) == sorted(features)
    for name, value in features.items():
        kind, found = parsed[name]
        if isinstance(value, bytes):
            assert (kind, found) == (BYTES, [value])
        elif value.dtype == np.int64:
            assert kind == INT64
            assert found.tolist() == value.tolist()
        else:
            assert kind == FLOAT
            np.testing.assert_array_equal(found.view(np.uint32), value.view(np.uint32))


@given(examples)
def test_what_was_written_is_read(features):
    assert_same(parse_example(serialize_example(features)), features)


@given(st.lists(examples, min_size=1, max_size=2), st.lists(st.integers(0, 2), max_size=50))
@settings(max_examples=20, deadline=None)
def test_many_records_read_as_one_by_one(others, order):
    names = {"same": INT64, "also": FLOAT}
    records = []
    for n, i in enumerate(order):
        features = others[i % len(others)] | {
            "same": np.array([n, -n][: i + 1]),
            "also": np.full(i, n, np.float32),
        }
        records.append(serialize_example(features))
    together = parse_examples(records, names)
    for name in names:
        start = 0
        for record, count in zip(records, together[name].counts, strict=True):
            _, expected = parse_example(record)[name]
            found = together[name].values[start : start + count]
            assert list(found) == list(expected)
            start += count
        assert start == len(together[name].values)


@given(examples, st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_end_in_the_named_error(features, data):
    record = bytearray(serialize_example(features))
    kind = data.draw(st.sampled_from(["cut", "flip", "insert"]))
    at = data.draw(st.integers(0, max(0, len(record) - 1)))
    if kind == "cut":
        del record[at:]
    elif kind == "flip" and record:
        record[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        record[at:at] = data.draw(st.binary(max_size=12))
    with contextlib.suppress(ClientDataError):  # anything else fails the test
        parse_example(bytes(record))


@given(st.binary(max_size=40))
def test_any_bytes_end_in_the_named_error(record):
    with contextlib.suppress(ClientDataError):
        parse_example(record)


def test_every_encoding_of_the_same_numbers():
    unpacked_floats = b"".join(b"\x0d" + np.float32(v).tobytes() for v in (1, 2))
    packed = [field(1, np.array(v, np.float32).tobytes()) for v in ([1, 2], [1], [2])]
    expected = [1.0, 2.0]
    for payload in (packed[0], unpacked_floats, packed[1] + packed[2], packed[1] + unpacked_floats):
        kind, found = parse_example(example(entry(b"x", field(2, payload))))["x"]
        assert kind == FLOAT
        assert found.tolist()[-2:] == expected
    unpacked = b"\x08\x01" + b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    chunks = (
        field(1, b"\x01") + field(1, b"") + field(1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
    )
    for payload in (unpacked, chunks):
        kind, found = parse_example(example(entry(b"y", field(3, payload))))["y"]
        assert (kind, found.tolist()) == (INT64, [1, -1])


def test_the_last_entry_of_a_name_wins_and_the_last_kind_of_a_feature():
    one, two = field(3, field(1, b"\x01")), field(3, field(1, b"\x02"))
    text = field(1, field(1, b"text"))
    parsed = parse_example(example(entry(b"y", one), entry(b"y", text)))
    assert parsed == {"y": (BYTES, [b"text"])}
    assert parse_example(example(entry(b"y", one + text)))["y"] == (BYTES, [b"text"])
    assert parse_example(example(entry(b"y", text + two)))["y"][1].tolist() == [2]
    # The same kind twice is one message in two parts; a kind between them clears the first.
    assert parse_example(example(entry(b"y", one + two)))["y"][1].tolist() == [1, 2]
    assert parse_example(example(entry(b"y", one + text + two)))["y"][1].tolist() == [2]


def test_unknown_fields_are_skipped_and_the_order_is_free():
    unknown = b"".join(
        [
            b"\x50\x96\x01",  # field 10, a number
            b"\x51" + bytes(8),
            b"\x55" + bytes(4),
            field(11, b"what is this"),
            b"\x63\x08\x01\x64",  # a group
        ]
    )
    feature = unknown + field(3, unknown + field(1, b"\x07") + unknown)
    backwards = entry_of(field(2, feature) + field(1, b"y"))
    record = unknown + field(1, unknown + backwards) + unknown
    assert parse_example(record)["y"][1].tolist() == [7]
    assert parse_example(field(1, field(1, b""))) == {}  # an entry of nothing at all
    assert parse_example(b"") == {}


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (b"\x0a", "without an end"),
        (b"\x0a\x05abc", "ends within"),
        (b"\x00\x00", "tag"),
        (b"\x0f\x00", "wire type 7"),
        (b"\x0c", "wire type 4"),
        (b"\x0b\x08\x01", "without its end"),
        (b"\x0b" * 200, "wire type 3"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x01\x00", "tag"),
        (example(entry(b"\xff", b"")), "UTF-8"),
        (
            example(entry_of(field(1, b"y") + b"\x18\x01" + field(2, b""))),
            "an entry with a field 3",
        ),
        (example(entry(b"x", field(2, field(1, b"123")))), "packed floats"),
        (example(entry(b"y", field(3, field(1, b"\x80")))), "without an end"),
        (example(entry(b"y", field(3, field(1, b"\x80" * 10 + b"\x01")))), "without an end"),
    ],
)
def test_damage_is_named(record, what):
    with pytest.raises(ClientDataError, match=f"here: .*{what}"):
        parse_example(record, "here")


TEXTS = {"a": BYTES, "long name": BYTES, "n": INT64, "f": FLOAT}
texts = st.fixed_dictionaries(
    {
        "a": st.binary(max_size=300),
        "long name": st.integers(0, 40_000).map(lambda size: b"x" * size),
        "n": st.lists(int64s, min_size=1, max_size=3).map(lambda v: np.array(v, np.int64)),
        "f": st.lists(floats, max_size=2).map(lambda v: np.array(v, np.float32)),
    }
)


def damaged(record, how, at, extra):
    record = bytearray(record)
    at %= len(record)
    if how == "cut":
        del record[at:]
    elif how == "flip":
        record[at] ^= 1 << extra
    elif how == "insert":
        record[at:at] = bytes([extra])
    elif how == "twice":  # repeated messages are merged, later entries win
        record = record * 2
    return bytes(record)


@given(
    st.lists(
        st.tuples(
            texts,
            st.sampled_from([None] * 6 + ["cut", "flip", "flip", "insert", "twice"]),
            st.integers(0, 10**6),
            st.integers(0, 7),
        ),
        min_size=17,
        max_size=24,
    ),
    st.randoms(use_true_random=False),
    st.sampled_from([None, {"n", "long name"}, {"f"}]),
)
@settings(max_examples=40)
def test_records_of_any_length_read_as_one_by_one(drawn, random, only):
    """Side by side or by the book: the same values, or the named error."""
    records = []
    for features, how, at, extra in drawn:
        entries = [serialize_feature(name, value) for name, value in features.items()]
        random.shuffle(entries)
        records.append(damaged(join_features(entries), how, at, extra))
    records[0] = serialize_example(drawn[0][0])
    expected = {name: ([], []) for name in TEXTS if only is None or name in only}
    try:
        for record in records:
            parsed = parse_example(record)
            if any(parsed.get(name, (0,))[0] != kind for name, kind in TEXTS.items()):
                raise ClientDataError("a feature is missing, or of another kind")
            for name, (found, counts) in expected.items():
                found += list(parsed[name][1])
                counts.append(len(parsed[name][1]))
    except ClientDataError:
        with pytest.raises(ClientDataError):
            parse_examples(records, TEXTS, only=only)
        return
    together = parse_examples(records, TEXTS, only=only)
    assert set(together) == set(expected)
    for name, (found, counts) in expected.items():
        assert together[name].counts.tolist() == counts
        if TEXTS[name] == BYTES:
            assert together[name].values == found
        else:
            np.testing.assert_array_equal(
                together[name].values.view(np.uint8), np.array(found).view(np.uint8)
            ) if found else None


def test_texts_are_taken_apart_side_by_side():
    """And the order of the features, or the length of their lengths, makes no difference."""
    rng = np.random.default_rng(0)
    features = [
        {"a": b"x" * n, "b": b"y" * (n**2 % 20_000), "n": np.arange(n % 4 + 1)} for n in range(300)
    ]
    records = []
    for one in features:
        entries = [serialize_feature(*item) for item in one.items()]
        records.append(join_features([entries[i] for i in rng.permutation(3)]))
    _, data, edges = joined_records(records)
    fits, spans = find_spans(data, edges, {"a": BYTES, "b": BYTES, "n": INT64})
    assert fits.all()
    for i, one in enumerate(features):
        assert data[spans["b"].starts[i] : spans["b"].stops[i]].tobytes() == one["b"]


def test_one_damaged_record_among_many_alike_is_found():
    records = [serialize_example({"y": np.array([1, 300 + i])}) for i in range(40)]
    start = records[23].rindex(b"\x01")
    records[23] = records[23][: start + 2] + b"\x80"  # the last number never ends
    assert len(records[23]) == len(records[22])
    with pytest.raises(ClientDataError, match="record 23: "):
        parse_examples(records, {"y": INT64})


@pytest.mark.parametrize(
    ("features", "what"),
    [
        ({"z": np.array([1])}, "no feature 'y'"),
        ({"y": np.array([1.0])}, "'y' holds floats instead of integers"),
        ({"y": b"text"}, "'y' holds strings instead of integers"),
        ({"y": np.array([1]), "z": b"more"}, "a feature 'z' that the first record lacks"),
    ],
)
def test_a_record_of_other_features_is_found(features, what):
    records = [serialize_example({"y": np.array([i])}) for i in range(30)]
    records[17] = serialize_example(features)
    with pytest.raises(ClientDataError, match=f"record 17: .*{what}"):
        parse_examples(records, {"y": INT64}, exact=True)


def test_what_a_record_cannot_hold():
    with pytest.raises(ClientDataError, match=r"feature 'z'.*complex"):
        serialize_example({"z": np.array([1j])})
    with pytest.raises(ClientDataError, match=r"feature 'z'.*63 bits"):
        serialize_example({"z": np.array([1], np.uint64)})
