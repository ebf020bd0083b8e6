"""Splits of arrays: every row once, the same for one seed, and skewed as promised."""

import builtins

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fedbridge import partition
from fedbridge.jax_core import ArgumentError, ClientDataError


def arrays(rows=200, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 10, rows).astype(np.int32)
    return {
        "row": np.arange(rows),
        "x": rng.integers(0, 256, (rows, 2, 2)).astype(np.float32) / np.float32(255),
        "label": label,
        "coarse_label": label // 3,
        "text": [f"t{i}" for i in range(rows)],
    }


SEEDED = {
    "iid": lambda a, n, seed: partition.iid(a, n, seed=seed),
    "dirichlet": lambda a, n, seed: partition.dirichlet(a, n, alpha=0.3, seed=seed),
    "shards": lambda a, n, seed: partition.shards(a, n, seed=seed),
    "quantity_skew": lambda a, n, seed: partition.quantity_skew(a, n, alpha=0.3, seed=seed),
    "pachinko": lambda a, n, seed: partition.pachinko(a, n, seed=seed),
}


def owners(data):
    """Client to the numbers of its rows."""
    return {i: data.client(i)["row"].tolist() for i in data.client_ids}


def assert_whole(data, whole):
    """Every row once, and whole: its features still belong together; in the arrays' order."""
    rows = np.concatenate([np.array(r, int) for r in owners(data).values()])
    assert sorted(rows.tolist()) == whole["row"].tolist()
    for client_id in data.client_ids:
        features = data.client(client_id)
        mine = features["row"]
        assert (np.diff(mine) > 0).all()
        for name in ("x", "label", "coarse_label"):
            np.testing.assert_array_equal(features[name], whole[name][mine])
            assert features[name].dtype == whole[name].dtype
        assert features["text"].tolist() == [whole["text"][r].encode() for r in mine]


@pytest.mark.parametrize("name", SEEDED)
@given(clients=st.integers(1, 30), extra=st.integers(0, 100), seed=st.integers(0, 2**40))
@settings(max_examples=20, deadline=None)
def test_every_row_belongs_to_one_client_and_seeds_repeat(name, clients, extra, seed):
    whole = arrays(2 * clients + extra, seed)
    data = SEEDED[name](whole, clients, seed)
    assert data.num_clients == clients
    assert_whole(data, whole)
    assert owners(data) == owners(SEEDED[name](whole, clients, seed))


@pytest.mark.parametrize("name", SEEDED)
def test_another_seed_is_another_split(name):
    assert owners(SEEDED[name](arrays(), 7, 1)) != owners(SEEDED[name](arrays(), 7, 2))


def test_by_feature_groups_by_value():
    whole = arrays()
    data = partition.by_feature(whole, "label")
    assert_whole(data, whole)
    for client_id in data.client_ids:
        assert set(data.client(client_id)["label"].tolist()) == {int(client_id)}
    assert partition.by_feature(whole, "text").num_clients == 200
    bytes_ = {"who": [b"a\xff", b"a\xfe", b"a\xff"]}
    assert partition.by_feature(bytes_, "who").client_ids == ("a\\xfe", "a\\xff")


def sizes(data):
    return np.diff(data.offsets)


@pytest.mark.parametrize("name", ["iid", "shards", "pachinko"])
def test_equal_sizes(name):
    data = SEEDED[name](arrays(210), 7, 3)
    assert np.ptp(sizes(data)) == 0
    assert np.ptp(sizes(SEEDED["iid"](arrays(211), 7, 3))) == 1


def test_a_dirichlet_split_is_that_of_its_shares():
    # An oracle of its own: the shares are drawn again, in the same order of draws.
    whole, clients, alpha, seed = arrays(3000), 6, 0.5, 11
    data = partition.dirichlet(whole, clients, alpha=alpha, seed=seed)
    rng = np.random.default_rng(seed)
    for label in range(10):
        there = int((whole["label"] == label).sum())
        rng.permutation(there)
        shares = rng.dirichlet(np.full(clients, alpha))
        counts = [int((data.client(i)["label"] == label).sum()) for i in data.client_ids]
        assert np.abs(np.array(counts) - shares * there).max() <= 1


def test_alpha_bounds_the_skew():
    # The variance of a share of Dirichlet(alpha) over n clients is (n - 1) / (n^2 (n alpha + 1)).
    # 300 labels of 100 rows: the mean of 3000 squares, 20 % apart at most (seeded, seen: below 10).
    labels = {"label": np.repeat(np.arange(300), 100)}
    for alpha in (0.1, 1.0, 10.0):
        data = partition.dirichlet(labels, 10, alpha=alpha, seed=0)
        counts = np.array(
            [np.bincount(data.client(i)["label"], minlength=300) for i in data.client_ids]
        )
        expected = 9 / (100 * (10 * alpha + 1))
        assert abs(((counts / 100 - 0.1) ** 2).mean() / expected - 1) < 0.2


def test_shards_hold_few_labels():
    whole = {"label": np.tile(np.arange(10), 60)}
    data = partition.shards(whole, 20, seed=0)
    # 40 shards of 15 rows of 10 labels of 60 rows: no shard holds two labels.
    assert all(len(set(data.client(i)["label"].tolist())) <= 2 for i in data.client_ids)
    assert sizes(data).tolist() == [30] * 20


def test_quantity_skew_leaves_no_client_empty():
    data = partition.quantity_skew(arrays(300), 50, alpha=0.05, seed=0)
    assert sizes(data).min() >= 1
    assert sizes(data).max() > 60


def test_pachinko_skews_the_coarse_labels_and_spreads_those_below():
    label = np.repeat(np.arange(20), 100)
    whole = {"label": label, "coarse_label": label // 5}
    data = partition.pachinko(whole, 10, seed=0)
    first = data.client(data.client_ids[0])
    top = np.bincount(first["coarse_label"]).argmax()
    # The first client meets no exhausted label but its own: 100 of 500 rows a coarse label.
    assert (first["coarse_label"] == top).mean() > 0.5
    assert len(set(first["label"][first["coarse_label"] == top].tolist())) == 5
    even = partition.pachinko(whole, 10, seed=0, alpha=1e6, beta=1e6)
    counts = np.bincount(even.client(even.client_ids[0])["label"], minlength=20)
    assert counts.min() > 0
    assert counts.max() < 25  # 200 draws of 20 labels: 10 each, 5 standard deviations


def test_the_picture_shows_every_row(tmp_path):
    data = partition.dirichlet(arrays(), 5, alpha=0.5, seed=0)
    figure = partition.plot_labels(data, tmp_path / "split.png")
    assert (tmp_path / "split.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    heights = np.array([[bar.get_height() for bar in bars] for bars in axes.containers])
    assert heights.sum(0).tolist() == sizes(data).tolist()
    assert heights.sum(1).tolist() == np.bincount(arrays()["label"]).tolist()


def test_without_matplotlib_the_cure_is_said(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ClientDataError, match=r"fedbridge\[plots\]"):
        partition.plot_labels(partition.iid(arrays(), 2, seed=0))


@pytest.mark.parametrize(
    "build, error, words",
    [
        (lambda a: partition.iid(a, 201, seed=0), ClientDataError, "201 clients for 200 rows"),
        (lambda a: partition.iid(a, 0, seed=0), ClientDataError, "0 clients"),
        (lambda a: partition.iid(a, 2, seed=-1), ArgumentError, "seed is -1"),
        (lambda a: partition.shards(a, 101, seed=0), ClientDataError, "202 shards for 200"),
        (lambda a: partition.dirichlet(a, 2, alpha=0, seed=0), ArgumentError, "alpha is 0"),
        (
            lambda a: partition.dirichlet(a, 2, alpha=1, seed=0, label="y"),
            ClientDataError,
            "feature 'y'.*name one of row, x",
        ),
        (
            lambda a: partition.shards(a, 2, seed=0, label="x"),
            ClientDataError,
            r"feature 'x'.*\[2, 2\]",
        ),
        (
            lambda a: partition.shards({"label": np.array([0.5, 1.0])}, 1, seed=0),
            ClientDataError,
            "feature 'label': 0.5 is no whole label",
        ),
        (
            lambda a: partition.pachinko({**a, "coarse_label": a["row"]}, 2, seed=0),
            ClientDataError,
            "lies below two values of 'coarse_label'",
        ),
        (
            lambda a: partition.iid({"x": np.zeros(3), "y": np.zeros(2)}, 1, seed=0),
            ClientDataError,
            "different numbers of rows",
        ),
    ],
)
def test_what_is_wrong_is_said(build, error, words):
    with pytest.raises(error, match=words):
        build(arrays())
