"""What people give as data by mistake: one sentence that names it and the cure.

Downloads and checksums: test_fetch.py. HDF5 files of something else: test_hdf5.py.
"""

import contextlib
import lzma

import numpy as np
import optax
import pytest

import fedbridge as fb
from fedbridge.jax_core import ClientDataError


def refused(match, call):
    with pytest.raises(ClientDataError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def images(label):
    pixels = np.zeros((2, 28, 28), np.float32)
    return fb.from_clients({"a": {"pixels": pixels, "label": np.array([0, label], np.int32)}})


def test_a_client_that_does_not_exist():
    data = images(1)
    words = "client 'zz': there is no such client; `client_ids` lists"
    refused(words, lambda: data.client("zz"))
    refused(words, lambda: data.cohort(["zz"], fb.Batches(batch_size=2)))


def test_ragged_features():
    rows = {"a": {"x": [[1, 2], [3]], "y": [1, 2]}}
    refused("client 'a', feature 'x': its rows differ in shape", lambda: fb.from_clients(rows))


def test_a_label_outside_the_classes_matters_where_it_is_seen():
    good, bad = (images(label).client("a") for label in (61, 62))
    data = fb.from_clients({"bad": bad, "good": good})
    process = fb.algorithms.fed_avg(fb.models.softmax_regression(), fb.optimizers.sgdm(0.1))
    start, batches = process.initialize(), fb.Batches(2)
    process.next(start, data.cohort(["good"], batches))
    with pytest.raises(fb.ClientDataError, match="label 62"):
        process.next(start, data.cohort(["good", "bad"], batches))


def test_a_label_outside_the_classes():
    process = fb.algorithms.fed_avg(fb.models.emnist_2nn(), optax.sgd(0.1))
    cohort = images(62).cohort(["a"], fb.Batches(batch_size=2))
    words = "feature .label. of client 'a'.* holds the label 62, .* classes 0 to 61"
    refused(words, lambda: process.next(process.initialize(), cohort))


def test_a_label_outside_the_classes_is_found_among_many_clients():
    labels = {f"w{i}": images(62 if i == 7 else 4).client("a") for i in range(9)}
    data, model = fb.from_clients(labels), fb.models.emnist_2nn()
    words = "feature .label. of client 'w7'"
    refused(words, lambda: fb.central_eval(model, data)(model.initial_weights))
    process = fb.algorithms.fed_avg(model, optax.sgd(0.1))
    cohort = data.cohort(["w3", "w7", "w8"], fb.Batches(batch_size=2))
    refused(words, lambda: process.next(process.initialize(), cohort))


def test_a_vocabulary_smaller_than_asked(tmp_path):
    (tmp_path / "stackoverflow.word_count").write_text("the 12\nto 9\n")
    words = "word_count: it has 2 words, fewer than the 3 asked for; ask for no more"
    refused(words, lambda: fb.datasets.stackoverflow.load_word_counts(tmp_path, 3))


@pytest.mark.parametrize("name", ["gldv2", "inaturalist", "flair"])
def test_a_data_set_that_is_not_decoded(name):
    words = f"data set '{name}': .*JPEG.*does not decode; give decoded images.*from_clients"
    refused(words, lambda: fb.tff_io.find_data(name))
    with pytest.raises(AttributeError, match=words):
        getattr(fb.datasets, name)


def test_a_data_set_of_nobody():
    refused("'imagenet': only 'emnist'.*can be looked for", lambda: fb.tff_io.find_data("imagenet"))


def test_a_folder_of_data_without_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDBRIDGE_DATA", str(tmp_path))
    words = "it holds neither shakespeare.sqlite nor shakespeare.sqlite.lzma; name a folder"
    refused(words, fb.datasets.shakespeare.load_data)


@contextlib.contextmanager
def full_disk():
    """No file can grow beyond 30,000 bytes."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing(tmp_path):
    clients = {"train": {"a": {"x": np.random.default_rng(0).normal(size=(100, 100))}}}
    path = fb.tff_io.write_sql(tmp_path / "x.sqlite", clients)
    packed = tmp_path / "x.sqlite.lzma"
    packed.write_bytes(lzma.compress(path.read_bytes()))
    with full_disk():
        words = "new: the files cannot be kept there .*make room, or name another folder"
        refused(words, lambda: fb.tff_io.write_sql(tmp_path / "new" / "y.sqlite", clients))
        refused(words, lambda: fb.tff_io.generate_emnist(1, tmp_path / "new"))
        refused("cache: the files cannot", lambda: fb.from_sql(packed, cache=tmp_path / "cache"))
        words = "new: it cannot be written there .*make room and run the same again"
        refused(words, lambda: fb.convert(packed, tmp_path / "new"))
        refused(words, lambda: fb.convert(path, tmp_path / "new"))
    names = {p.name for p in tmp_path.iterdir()} | {p.name for p in (tmp_path / "cache").iterdir()}
    assert names == {"x.sqlite", "x.sqlite.lzma", "cache", "new.partial"}
    assert {p.name for p in (tmp_path / "new.partial").iterdir()} == {"job.json", "lock"}
    assert fb.convert(path, tmp_path / "new").client("a")["x"].shape == (100, 100)  # it goes on


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    words = "file: the files cannot be kept there .File exists.; make room, or name another folder"
    refused(words, lambda: fb.tff_io.generate_stackoverflow(1, tmp_path / "file", sentences=1))
    refused(words, lambda: fb.tff_io.fetch("emnist", tmp_path / "file", mirror=tmp_path))
