"""The stand-ins for EMNIST and Stack Overflow, and where the data of a run is found."""

import collections
import lzma
import re

import numpy as np
import pytest

from fedbridge.jax_core import ArgumentError, ClientDataError, Fraction255
from fedbridge.tff_io import (
    _data_folder,
    find_data,
    from_sql,
    generate_emnist,
    generate_stackoverflow,
    read_tag_counts,
    read_word_counts,
    write_sql,
)
from fedbridge.tff_io._generate_emnist import _num_train

SPLITS = ("all_train", "all_test", "digits_only_train", "digits_only_test")


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    return generate_emnist(3, tmp_path_factory.mktemp("generated"), seed=1)


def rows(data):
    return {client_id: data.client(client_id) for client_id in data.client_ids}


def test_the_file_looks_like_tffs(generated):
    assert generated.name == "emnist_all.sqlite"
    splits = {split: from_sql(generated, split, cache=False) for split in SPLITS}
    for split, data in splits.items():
        assert isinstance(data.features["pixels"], Fraction255)
        assert all(re.fullmatch(r"f\d{4}_\d\d", client_id) for client_id in data.client_ids)
        labels = data.features["label"]
        assert labels.min() >= 0
        assert labels.max() < (10 if split.startswith("digits") else 62)
    pixels = splits["all_train"].features["pixels"].numerators
    assert (pixels == 255).mean() > 0.8  # 1.0 is paper
    assert (pixels < 128).any(axis=(1, 2)).all()  # and there is ink in every image
    digits = splits["all_train"].features["label"] < 10
    assert 0.55 < digits.mean() < 0.78
    np.testing.assert_array_equal(
        splits["digits_only_train"].features["pixels"].numerators, pixels[digits]
    )


def test_the_same_seed_gives_the_same_data(generated, tmp_path):
    again = generate_emnist(3, tmp_path / "again", seed=1)
    other = generate_emnist(1, tmp_path / "other", seed=2)
    one, two, three = (from_sql(p, "all_train", cache=False) for p in (generated, again, other))
    for client_id, features in rows(one).items():
        for name, values in features.items():
            np.testing.assert_array_equal(two.client(client_id)[name], values)
    client = one.client_ids[0]
    assert not np.array_equal(one.client(client)["label"], three.client(client)["label"])


def test_writers_do_not_depend_on_how_many_there_are(generated, tmp_path):
    alone = from_sql(generate_emnist(1, tmp_path, seed=1), "all_train", cache=False)
    (client,) = alone.client_ids
    first = from_sql(generated, "all_train", cache=False)
    np.testing.assert_array_equal(alone.client(client)["pixels"], first.client(client)["pixels"])


def test_progress_and_nothing_left_beside(tmp_path):
    seen = []
    generate_emnist(2, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert [p.name for p in tmp_path.iterdir()] == ["emnist_all.sqlite"]
    with pytest.raises(ClientDataError, match="0 clients cannot be generated; ask"):
        generate_emnist(0, tmp_path)


def test_writers_have_tffs_number_of_examples():
    sizes = [_num_train(np.random.default_rng(i)) for i in range(3400)]
    assert 190 < np.mean(sizes) < 206
    assert min(sizes) >= 20
    assert max(sizes) <= 460


# --- Stack Overflow ---------------------------------------------------------------------------


def test_stackoverflow_looks_like_tffs(tmp_path):
    seen = []
    path = generate_stackoverflow(
        60, tmp_path, sentences=3000, seed=1, progress=lambda *done: seen.append(done)
    )
    assert {p.name.removeprefix("stackoverflow.") for p in tmp_path.iterdir()} == {
        "sqlite",
        "word_count",
        "tag_count",
    }
    train, heldout, test = (
        from_sql(path, split, cache=False) for split in ("train", "heldout", "test")
    )
    sizes = [int(data.offsets[-1]) for data in (train, heldout, test)]
    assert [data.num_clients for data in (train, heldout, test)] == [60, 6, 35]
    assert sizes[0] == 3000
    assert 0.1 < sizes[1] / 3000 < 0.15
    assert seen[-1] == (sum(sizes), sum(sizes))
    assert not set(train.client_ids) & set(heldout.client_ids)
    assert set(test.client_ids) < set(train.client_ids)
    each = np.diff(train.offsets)
    assert each.min() >= 1
    assert each.max() > 4 * np.median(each)  # a long tail
    rows = {name: column.decode() for name, column in train.features.items() if name != "score"}
    assert set(rows["type"]) == {b"question", b"answer"}
    assert all(re.fullmatch(rb"20[01]\d-\d\d-\d\d [\d:.]+ UTC", d) for d in rows["creation_date"])
    assert all(1 <= len(set(tags.split(b"|"))) <= 5 for tags in rows["tags"])
    # The vocabulary files count what is in train.
    words = read_word_counts(tmp_path / "stackoverflow.word_count")
    counted = collections.Counter(b" ".join(rows["tokens"]).split())
    assert {word.encode(): n for word, n in words.items()} == counted
    assert list(words.values()) == sorted(words.values(), reverse=True)
    assert list(words)[:2] == ["ba", "be"]
    tags = read_tag_counts(tmp_path / "stackoverflow.tag_count")
    assert {tag.encode() for tag in tags} >= {t for row in rows["tags"] for t in row.split(b"|")}


def test_stackoverflow_is_the_same_for_the_same_seed(tmp_path):
    paths = [
        generate_stackoverflow(3, tmp_path / f"{n}", sentences=20, seed=seed)
        for n, seed in enumerate((1, 1, 2))
    ]
    one, two, three = (path.read_bytes() for path in paths)
    assert one == two != three


def test_stackoverflow_of_no_size(tmp_path):
    with pytest.raises(ClientDataError, match="0 clients cannot be generated; ask"):
        generate_stackoverflow(0, tmp_path)
    with pytest.raises(ClientDataError, match="3 sentences are too few for 4 clients; ask"):
        generate_stackoverflow(4, tmp_path, sentences=3)
    for generate in (generate_emnist, generate_stackoverflow):
        with pytest.raises(ArgumentError, match="seed is -1; it must be a whole number of at le"):
            generate(1, tmp_path, seed=-1)
    assert not list(tmp_path.iterdir())


# --- where the data is ------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No data anywhere, and no network."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FEDBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FEDBRIDGE_DATA", raising=False)
    monkeypatch.setattr(_data_folder, "_host_answers", lambda name: False)
    monkeypatch.setattr(_data_folder, "_STAND_IN_CLIENTS", 1)
    return tmp_path


def small(path, y=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_sql(path, {"all_train": {"a": {"y": [y]}}})


def test_a_folder_that_was_named(nowhere, monkeypatch):
    path = small(nowhere / "data" / "emnist_all.sqlite")
    monkeypatch.setenv("FEDBRIDGE_DATA", str(path.parent))
    assert find_data().folder == path.parent
    with pytest.raises(ClientDataError, match="holds neither stackoverflow.sqlite nor"):
        find_data("stackoverflow")


def test_a_packed_file_is_unpacked_once_and_again_when_it_changes(nowhere, monkeypatch):
    packed = nowhere / "data" / "emnist_all.sqlite.lzma"
    packed.parent.mkdir()
    packed.write_bytes(lzma.compress(small(nowhere / "x.sqlite").read_bytes()))
    monkeypatch.setenv("FEDBRIDGE_DATA", str(packed.parent))
    found = find_data()
    unpacked = found.folder / "emnist_all.sqlite"
    before = unpacked.stat().st_ino
    assert from_sql(unpacked, cache=False).client("a")["y"].tolist() == [1]
    assert find_data() == found
    assert unpacked.stat().st_ino == before
    packed.write_bytes(lzma.compress(small(nowhere / "x.sqlite", 22).read_bytes()))
    newer = find_data().folder / "emnist_all.sqlite"
    assert from_sql(newer, cache=False).client("a")["y"].tolist() == [22]
    assert not unpacked.exists() or unpacked == newer
    packed.write_bytes(packed.read_bytes()[:-10])
    with pytest.raises(ClientDataError, match="truncated or damaged"):
        find_data()


def test_tffs_own_cache_comes_next(nowhere):
    path = small(nowhere / "home" / ".tff" / "emnist_all.sqlite")
    assert find_data().folder == path.parent


def test_then_tffs_own_download(nowhere, monkeypatch):
    monkeypatch.setattr(_data_folder, "_host_answers", lambda name: True)
    found = find_data()
    assert found.folder is None
    assert "downloaded by TFF" in found.source


def test_and_at_last_the_stand_in_made_once(nowhere, monkeypatch):
    found = find_data()
    assert "stand-in" in found.source
    assert from_sql(found.folder / "emnist_all.sqlite", "all_train", cache=False).num_clients == 1
    monkeypatch.setattr(_data_folder, "generate_emnist", None)
    assert find_data() == found
    with pytest.raises(ClientDataError, match="set FEDBRIDGE_DATA to a folder"):
        find_data(offline_ok=False)
    with pytest.raises(ClientDataError, match="set FEDBRIDGE_DATA to a folder"):
        find_data("stackoverflow")
    with pytest.raises(ClientDataError, match="'mnist'.*read other files with `from_sql`"):
        find_data("mnist")
