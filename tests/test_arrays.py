"""The rows of all clients: columns keep every bit, selections keep every row."""

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

import fedbridge as fb
from fedbridge.jax_core import ClientDataError, FederatedArrays, Fraction255, Ragged
from fedbridge.jax_core._columns import (
    decode_columns,
    encode_column,
    num_rows,
    take_rows,
)

ALL = np.arange(256, dtype=np.uint8)


def bits(array):
    return np.asarray(array).view(np.uint32)


def toy():
    features = {
        "x": encode_column(np.arange(12, dtype=np.float32).reshape(6, 2) / np.float32(255)),
        "y": np.arange(6),
        "s": Ragged.from_rows([b"a", b"", b"ccc", b"\0", b"e\0", b"ff"]),
    }
    return FederatedArrays(("a", "empty", "b"), np.array([0, 2, 2, 6]), features)


def test_255ths_are_bitwise_the_quotient():
    expected = ALL.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(bits(Fraction255(ALL).decode()), bits(expected))


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, lambda fn: jax.jit(jax.vmap(fn))])
def test_255ths_are_bitwise_the_same_in_a_compiled_program(transform):
    # A plain division would not be: XLA multiplies by the rounded inverse.
    decoded = transform(lambda k: Fraction255(k).decode())(ALL)
    np.testing.assert_array_equal(bits(decoded), bits(Fraction255(ALL).decode()))


def test_255ths_decode_inside_a_loop():
    loop = jax.jit(lambda k: jax.lax.map(lambda one: Fraction255(one).decode(), k))
    np.testing.assert_array_equal(bits(loop(ALL)), bits(Fraction255(ALL).decode()))


@given(hnp.arrays(np.float32, st.integers(0, 20)))
def test_encoding_changes_no_bit(values):
    column = encode_column(values)
    decoded = column.decode() if isinstance(column, Fraction255) else column
    np.testing.assert_array_equal(bits(decoded), bits(values))


@given(hnp.arrays(np.uint8, (3, 4)))
def test_255ths_are_recognised(numerators):
    values = numerators.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(encode_column(values).numerators, numerators)


@pytest.mark.parametrize(
    "odd", [-0.0, np.nan, np.inf, -np.inf, 1e30, np.nextafter(np.float32(0.2), np.float32(1))]
)
def test_one_other_number_keeps_the_column_plain(odd):
    values = np.array([0.0, 0.2, 1.0, odd], np.float32)
    assert encode_column(values) is values


@given(st.lists(st.binary(max_size=5), max_size=8), st.data())
def test_strings_are_taken_by_row(rows, data):
    index = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8)) if rows else []
    column = Ragged.from_rows(rows)
    assert column.decode().tolist() == rows
    taken = column.take(np.array(index, int))
    assert taken.decode().tolist() == [rows[i] for i in index]
    assert column.take(slice(1, 3)).decode().tolist() == rows[1:3]


def test_a_ragged_column_of_ids():
    column = Ragged(np.array([5, 6, 7], np.int16), np.array([0, 2, 2, 3]))
    assert [row.tolist() for row in column.decode()] == [[5, 6], [], [7]]


def test_a_client_owns_its_rows():
    data = toy()
    assert data.num_clients == 3
    assert [data.num_examples(c) for c in data.client_ids] == [2, 0, 4]
    assert data.client("b")["y"].tolist() == [2, 3, 4, 5]
    assert data.client("b")["s"].tolist() == [b"ccc", b"\0", b"e\0", b"ff"]
    assert {k: len(v) for k, v in data.client("empty").items()} == {"x": 0, "y": 0, "s": 0}
    assert data.client("a")["x"].dtype == np.float32


@pytest.mark.parametrize("ids", [("b", "a"), ("a", "empty"), (), ("empty",), ("a", "empty", "b")])
def test_select_keeps_the_rows_of_its_clients(ids):
    data = toy()
    selected = data.select(ids)
    assert selected.client_ids == ids
    for client_id in ids:
        for name, rows in data.client(client_id).items():
            np.testing.assert_array_equal(selected.client(client_id)[name], rows)


def test_elements_of_several_rows():
    features = {"y": np.arange(6)}
    elements = np.array([0, 2, 3, 6])  # of 2, 1 and 3 rows
    data = FederatedArrays(("a", "b"), np.array([0, 2, 3]), features, element_offsets=elements)
    assert data.num_examples("a") == 2
    assert data.client("a")["y"].tolist() == [0, 1, 2]
    swapped = data.select(["b", "a"])
    assert swapped.client("b")["y"].tolist() == [3, 4, 5]
    assert swapped.client("a")["y"].tolist() == [0, 1, 2]
    assert swapped.element_offsets.tolist() == [0, 3, 5, 6]


def test_map_batches_composes():
    data = toy().map_batches(lambda b: {"y": b["y"] + 1}).map_batches(lambda b: {"z": b["y"] * 10})
    assert data.decode({"y": 4}) == {"z": 50}
    assert toy().decode({"y": 4}) == {"y": 4}


def test_batches_have_32_bits_and_say_so_once():
    features = {"y": np.array([1, -2]), "w": np.array([0.5, 1.5]), "k": np.zeros(2, np.uint8)}
    data = FederatedArrays(("a",), np.array([0, 2]), features)
    with pytest.warns(UserWarning, match="'y' int64 -> int32, 'w' float64 -> float32"):
        columns = data.residence.columns
    assert {k: str(v.dtype) for k, v in columns.items()} == {
        "y": "int32",
        "w": "float32",
        "k": "uint8",
    }
    assert data.residence.columns is columns
    assert data.client("a")["y"].dtype == np.int64


def test_what_no_batch_can_hold():
    offsets = np.array([0, 1])
    big = FederatedArrays(("a",), offsets, {"id": np.array([2**40])})
    with pytest.raises(ClientDataError, match=r"feature 'id'.*32 bits; encode"):
        _ = big.residence.columns
    words = FederatedArrays(("a",), offsets, {"s": Ragged.from_rows([b"to be"])})
    with pytest.raises(ClientDataError, match=r"feature 's'.*encode it"):
        _ = words.residence.columns


def test_what_does_not_fit_together():
    with pytest.raises(ClientDataError, match=r"client 'a'.*more than once"):
        FederatedArrays(("a", "b", "a"), np.array([0, 1, 2, 3]), {})
    with pytest.raises(ClientDataError, match="3 of them for 1 clients"):
        FederatedArrays(("a",), np.array([0, 1, 2]), {})
    with pytest.raises(ClientDataError, match=r"feature 'y'.*5 rows.*promise 6"):
        FederatedArrays(("a",), np.array([0, 6]), {"y": np.zeros(5)})
    with pytest.raises(ClientDataError, match=r"client 'c': there is no such client.*'a'"):
        toy().client("c")
    with pytest.raises(ClientDataError, match=r"client 'a'.*more than once"):
        toy().select(["a", "a"])


def test_columns_decode_and_take_alike():
    columns = toy().features
    rows = np.array([4, 0])
    for name, column in columns.items():
        assert num_rows(column) == 6
        np.testing.assert_array_equal(
            decode_columns({name: take_rows(column, rows)})[name],
            decode_columns({name: column})[name][rows],
        )


def test_the_data_describe_themselves():
    assert repr(toy()) == (
        "FederatedArrays(3 clients, 6 examples: x float32[2] as 255ths, y int64[], s strings)"
    )


def test_a_shuffle_without_a_seed_belongs_to_seed_round_client_and_occurrence():
    rows = {"x": np.arange(40, dtype=np.int32)}
    data = fb.from_clients({"a": rows, "b": rows})
    batches = fb.Batches(batch_size=40, shuffle_buffer=40)

    def order(client_ids=("a",), at=0, **given):
        return data.cohort(list(client_ids), batches, **given).streams["train"].rows[at].tolist()

    first = order(round=3, seed=5)
    assert first == order(round=3, seed=5) == order(["b", "a"], 1, round=3, seed=5)
    others = [order(round=4, seed=5), order(round=3, seed=6), order(["a", "a"], 1, round=3, seed=5)]
    others.append([row - 40 for row in order(["b"], round=3, seed=5)])
    two = data.cohort(["a"], {"train": batches, "test": batches}, round=3, seed=5).streams
    others.append(two["test"].rows[0].tolist())
    assert sorted(first) == list(range(40))
    for number, other in enumerate(others):
        assert sorted(other) == list(range(40))
        assert other not in [first, *others[:number]]
    order(round=0, seed=-1)  # as jax.random.key takes them
