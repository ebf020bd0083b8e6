"""LEAF's JSON folders: the five data sets' layouts, and what damage to them says."""

import json

import numpy as np
import pytest

from fedbridge.jax_core import ClientDataError
from fedbridge.tff_io import from_leaf


def content(data):
    return {
        "users": list(data),
        "num_samples": [len(features["y"]) for features in data.values()],
        "user_data": data,
    }


def write(folder, *files):
    folder.mkdir(exist_ok=True)
    for i, made in enumerate(files):
        (folder / f"all_data_{i}.json").write_text(json.dumps(made))
    return folder


def femnist():
    rng = np.random.default_rng(0)
    return {
        f"f{i:04d}_0": {"x": rng.random((n, 784)).tolist(), "y": rng.integers(0, 62, n).tolist()}
        for i, n in enumerate((3, 0, 2, 5))
    }


def test_femnist(tmp_path):
    made = femnist()
    users = list(made)
    one, two = ({u: made[u] for u in part} for part in (users[:2], users[2:]))
    data = from_leaf(write(tmp_path / "train", content(one), content(two)))
    assert data.client_ids == tuple(users)
    for user in users:
        rows = data.client(user)
        expected = np.array(made[user]["x"], np.float32).reshape(-1, 784)
        assert rows["x"].dtype == np.float32
        np.testing.assert_array_equal(rows["x"], expected)
        assert rows["y"].dtype == np.int64
        assert rows["y"].tolist() == made[user]["y"]


def test_one_float_makes_a_feature_float_for_all(tmp_path):
    made = {"a": {"x": [[1, 2]], "y": [0]}, "b": {"x": [[0.5, 1]], "y": [1]}}
    data = from_leaf(write(tmp_path / "synthetic", content(made)))
    assert data.client("a")["x"].dtype == np.float32
    assert data.client("a")["y"].dtype == np.int64


def test_shakespeare(tmp_path):
    made = {"HAMLET": {"x": ["to be or", "o be or é"], "y": [" ", "n"], "raw": "to be or not"}}
    rows = from_leaf(write(tmp_path / "train", content(made))).client("HAMLET")
    assert rows["x"].tolist() == [b"to be or", "o be or é".encode()]
    assert rows["y"].tolist() == [b" ", b"n"]
    assert list(rows) == ["x", "y"]  # the text as a whole is no example


def test_sent140(tmp_path):
    fields = ["146", "Mon Apr 06", "NO_QUERY", "some user", "is upset"]
    made = {"u": {"x": [fields, fields[::-1]], "y": [0, 1]}}
    rows = from_leaf(write(tmp_path / "train", content(made))).client("u")
    assert list(rows) == ["x/0", "x/1", "x/2", "x/3", "x/4", "y"]
    assert rows["x/4"].tolist() == [b"is upset", b"146"]


def test_reddit(tmp_path):
    tokens = [["<BOS>", "we", "have"], ["no", "<EOS>", "<PAD>"]]
    y = {"target_tokens": tokens, "subreddit": "news", "score": 3}
    made = {"u": {"x": [tokens, tokens[:1]], "y": [y, y | {"score": -1}]}}
    empty = {"u": {"x": [[], [[], tokens[0]]], "y": [y, y]}}  # a comment without words, or a part
    rows = from_leaf(write(tmp_path / "train", content(made))).client("u")
    assert rows["x"].tolist() == [b"<BOS> we have no <EOS> <PAD>", b"<BOS> we have"]
    assert rows["y/score"].tolist() == [3, -1]
    assert rows["y/subreddit"].tolist() == [b"news", b"news"]
    assert rows["y/target_tokens"][0] == rows["x"][0]
    rows = from_leaf(write(tmp_path / "test", content(empty))).client("u")
    assert rows["x"].tolist() == [b"", b"<BOS> we have"]


def bad(**changes):
    return content({"a": {"x": [[1.0]], "y": [1]}, "b": {"x": [[2.0]], "y": [2]}}) | changes


@pytest.mark.parametrize(
    "made, words",
    [
        ([1, 2], "has no 'users', so it is no LEAF file"),
        ({"users": []}, "has no 'num_samples'"),
        (bad(users=["a"]), "not those of the same clients"),
        (bad(users=["a", "c"]), "not those of the same clients"),
        (bad(num_samples=[1, 7]), "client 'b', feature 'x': it has 1 rows.*promises 7"),
        (bad(user_data={"a": 3, "b": 4}), "client 'a': its data is no dictionary"),
        (
            content({"a": {"x": [[1.0], [1.0, 2.0]], "y": [1, 2]}}),
            "client 'a', feature 'x': its rows are no numbers of one shape",
        ),
        (content({"a": {"x": [1, "2"], "y": [1, 2]}}), "client 'a', feature 'x'.*no numbers"),
        (content({"a": {"x": [None], "y": [1]}}), "client 'a', feature 'x'.*no numbers"),
        (content({"a": {"x": [2**70], "y": [1]}}), "client 'a', feature 'x'.*no numbers"),
        (
            content({"a": {"x": [[1.0]], "y": [1]}, "b": {"x": [[1.0, 2.0]], "y": [1]}}),
            "client 'b', feature 'x': its rows are",
        ),
        (
            content({"a": {"x": [[1.0]], "y": [1]}, "b": {"z": [[1.0]], "y": [1]}}),
            "client 'b': it has no feature 'x'",
        ),
        (content({"a": {"x": ["\ud800"], "y": [1]}}), "client 'a', feature 'x': it holds half"),
        (content({}), "no users"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, made, words):
    with pytest.raises(ClientDataError, match=words):
        from_leaf(write(tmp_path / "train", made))


def test_folders(tmp_path):
    write(tmp_path / "train", bad())
    with pytest.raises(ClientDataError, match="no .json files in it; give one of its.*train"):
        from_leaf(tmp_path)
    with pytest.raises(ClientDataError, match="nowhere: there are no .json files"):
        from_leaf(tmp_path / "nowhere")
    write(tmp_path / "train", bad(), bad())
    with pytest.raises(ClientDataError, match="all_data_1.json, client 'a'.*all_data_0.json has"):
        from_leaf(tmp_path / "train")


def test_damage_is_named_or_read(tmp_path):
    """A truncated file is always named; a flipped bit may only change a character of a value."""
    file = write(tmp_path / "train", bad()) / "all_data_0.json"
    whole, rng, said = file.read_bytes(), np.random.default_rng(0), []
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(ClientDataError, match=r"all_data_0\.json.*does not parse"):
            from_leaf(tmp_path / "train")
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            data = from_leaf(tmp_path / "train")
            assert data.num_clients == 2
        except ClientDataError as error:
            said.append(str(error))
    assert len(said) > 250
    assert all("train" in words for words in said)
    file.write_text("[" * 100_000)
    with pytest.raises(ClientDataError, match="does not parse"):
        from_leaf(tmp_path / "train")
