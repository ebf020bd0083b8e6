"""Builders of tensorflow_datasets: one that answers as they do, since the tests have none."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import fedbridge as fb
from fedbridge.jax_core import ClientDataError

ROWS = [
    {"image": np.full((2, 2), i, np.uint8), "user": {"id": who}, "text": text, "y": np.int64(i)}
    for i, (who, text) in enumerate([(b"b", b"one"), (b"a", b""), (b"b", b"two words")])
]


def builder(rows, file_format="array_record"):
    """What `tfds.core.DatasetBuilder` has of what is used."""

    def as_data_source(split):
        if split != "train":
            raise ValueError(f"Unknown split {split!r}.\nShould be one of ['train'].")
        return rows

    info = SimpleNamespace(file_format=SimpleNamespace(value=file_format))
    return SimpleNamespace(name="some", info=info, as_data_source=as_data_source)


def test_a_client_for_each_value_of_the_key():
    data = fb.from_tfds(builder(ROWS), client_key="user/id")
    assert data.client_ids == ("a", "b")
    rows = data.client("b")
    assert rows["image"].dtype == np.uint8
    np.testing.assert_array_equal(rows["image"], np.stack([ROWS[0]["image"], ROWS[2]["image"]]))
    assert rows["text"].tolist() == [b"one", b"two words"]
    assert rows["y"].tolist() == [0, 2]
    assert fb.from_tfds(builder(ROWS), client_key="y").client_ids == ("0", "1", "2")


def test_what_is_wrong_is_said(monkeypatch):
    with pytest.raises(fb.ArgumentError, match="builder is 5; it must be a tensorflow_datasets"):
        fb.from_tfds(5, client_key="y")
    with pytest.raises(ClientDataError, match="'some', split 'train': it has no feature 'who'.*y"):
        fb.from_tfds(builder(ROWS), client_key="who")
    with pytest.raises(ClientDataError, match=r"example 0: feature 'image' is uint8\[2, 2\]"):
        fb.from_tfds(builder(ROWS), client_key="image")
    with pytest.raises(ClientDataError, match="split 'test': it cannot be read .Unknown split"):
        fb.from_tfds(builder(ROWS), "test", client_key="y")
    with pytest.raises(ClientDataError, match="no examples"):
        fb.from_tfds(builder([]), client_key="y")
    ragged = [{"y": np.int64(0), "x": np.zeros(2)}, {"y": np.int64(0), "x": np.zeros(3)}]
    with pytest.raises(ClientDataError, match="'some', split 'train': its features cannot be pack"):
        fb.from_tfds(builder(ragged), client_key="y")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ClientDataError, match=r"'mnist'.*not installed; `pip install 'fedbridge"):
        fb.from_tfds("mnist", client_key="label")
    with pytest.raises(ClientDataError, match="TensorFlow, which is not installed.*array_record"):
        fb.from_tfds(builder(ROWS, "tfrecord"), client_key="y")
