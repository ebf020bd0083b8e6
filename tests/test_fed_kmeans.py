"""Federated k-means: against NumPy point by point, and its laws."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from problems import largest_difference

import fedbridge as fb
from fedbridge.jax_core import sum_

# Centroids and points are numbers around 1: a few roundings of float32.
CLOSE = 2e-6
BATCHES = fb.Batches(batch_size=4)
fed_kmeans = fb.algorithms.fed_kmeans


def points(sizes, shape=(2,)):
    rng = np.random.default_rng(0)
    return {
        f"c{i}": {"x": rng.normal(size=(n, *shape)).astype(np.float32)} for i, n in enumerate(sizes)
    }


def kmeans_in_numpy(data, centroids, rounds):
    """Sculley's mini-batch k-means, whose batch are all points; centroids count as one point."""
    centroids, counts = centroids.astype(float), np.ones(len(centroids))
    for _ in range(rounds):
        sums, new = np.zeros_like(centroids), np.zeros_like(counts)
        for client in data.values():
            for point in client["x"]:
                distances = [np.sum((point - c) ** 2) for c in centroids]
                nearest = min(range(len(distances)), key=distances.__getitem__)
                sums[nearest] += point
                new[nearest] += 1
        for k in range(len(centroids)):
            centroids[k] = (counts[k] * centroids[k] + sums[k]) / (counts[k] + new[k])
        counts += new
    return centroids, counts


def run(process, data, rounds=1, ids=None, state=None):
    packed = fb.from_clients(data)
    state, metrics = process.initialize() if state is None else state, None
    for _ in range(rounds):
        cohort = packed.cohort(packed.client_ids if ids is None else ids, BATCHES)
        state, metrics = process.next(state, cohort)
    return state, metrics


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_equals_k_means_in_numpy(shape):
    data = points([7, 0, 5, 1], shape)
    process = fed_kmeans(3, shape, (1, 2))
    start = process.initialize().global_model_weights
    assert start.shape == (3, *shape)
    state, metrics = run(process, data, rounds=3)
    centroids, counts = kmeans_in_numpy(data, np.asarray(start), 3)
    assert largest_difference(state.global_model_weights, centroids) < CLOSE
    np.testing.assert_array_equal(state.finalizer, counts)
    assert state.finalizer.dtype == np.float32
    assert metrics == OrderedDict(
        distributor=(),
        client_work=OrderedDict(num_examples=np.float32(13)),
        aggregator=(),
        finalizer=(),
    )
    assert metrics["client_work"]["num_examples"].dtype == np.float32
    assert (state.client_work, state.aggregator, state.distributor) == ((), (), ())


def test_a_tie_goes_to_the_first_centroid():
    process = fed_kmeans(3, (1,), (0, 0))
    centroids = np.array([[5.0], [-1.0], [1.0]], np.float32)
    state = process.set_model_weights(process.initialize(), centroids)
    data = {"a": {"x": np.array([[0.0], [3.0]], np.float32)}}  # between the last two, and 5 and 1
    state, _ = run(process, data, state=state)
    np.testing.assert_array_equal(state.global_model_weights, [[4.0], [-0.5], [1.0]])
    np.testing.assert_array_equal(state.finalizer, [2, 2, 1])


def test_seeds():
    start = lambda *seed: np.asarray(fed_kmeans(3, (2,), *seed).initialize().global_model_weights)
    np.testing.assert_array_equal(start((3, 4)), start((3, 4)))
    assert np.abs(start((3, 4)) - start((4, 3))).min() > 1e-3
    assert np.isfinite(start()).all()


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 99))
def test_permuting_clients_changes_nothing(seed):
    data = points([7, 3, 5, 1])
    shuffled = [str(i) for i in np.random.default_rng(seed).permutation(list(data))]
    process = fed_kmeans(3, (2,), (1, 2))
    a, b = run(process, data), run(process, data, ids=shuffled)
    assert largest_difference(a, b) < CLOSE


def test_debug_equals_the_compiled_round():
    data = points([7, 0, 5])
    a = run(fed_kmeans(3, (2,), (1, 2)), data, rounds=2)
    b = run(fed_kmeans(3, (2,), (1, 2), execution=fb.debug), data, rounds=2)
    assert largest_difference(a, b) < CLOSE
    assert jax.tree.structure(a) == jax.tree.structure(b)


@pytest.mark.parametrize("ids", [[], ["c1"]], ids=["nobody", "empty"])
def test_without_points_nothing_moves(ids):
    process = fed_kmeans(3, (2,), (1, 2))
    state, _ = run(process, points([7, 0, 5]))
    after, metrics = run(process, points([7, 0, 5]), ids=ids, state=state)
    assert largest_difference(after, state) == 0  # v / v is 1
    assert metrics["client_work"]["num_examples"] == 0


def test_a_client_with_nan_is_absent_or_spoils_the_first_centroid_as_in_tff():
    data = points([7, 3, 5])
    data["c1"]["x"][1] = np.nan
    clean, _ = run(fed_kmeans(3, (2,), (1, 2)), data, ids=["c0", "c2"])
    state, metrics = run(fed_kmeans(3, (2,), (1, 2)), data)
    assert largest_difference(state, clean) == 0
    assert metrics["client_work"]["num_examples"] == 12
    process = fed_kmeans(3, (2,), (1, 2), non_finite=fb.keep_non_finite)
    state, metrics = run(process, data, rounds=2)
    assert metrics["client_work"]["num_examples"] == 15
    assert np.isnan(state.global_model_weights[0]).all()
    assert np.isfinite(state.global_model_weights[1:]).all()
    # Whatever is nearer to a number than to NaN, and that is everything but the NaN itself.
    assert state.finalizer[1:].sum() >= 2 + 14


def test_the_sum_can_be_another_aggregator():
    """One that keeps a state of the update's form, and halves what it sums."""
    plain = sum_()
    halved = plain._replace(
        initialize=lambda template: jax.tree.map(jnp.zeros_like, template),
        server=lambda state, summed, key: plain.server(
            jax.tree.map(jnp.add, state, summed), jax.tree.map(lambda leaf: leaf / 2, summed), key
        ),
    )
    data = points([7, 5])
    state, _ = run(fed_kmeans(3, (2,), (1, 2), sum_aggregator=halved), data)
    sums, counts = state.aggregator
    assert counts.sum() == 12
    every = np.concatenate([client["x"] for client in data.values()])
    np.testing.assert_allclose(sums.sum(0), every.sum(0), atol=1e-5)
    np.testing.assert_array_equal(state.finalizer, 1 + counts / 2)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((0, (2,)), "num_clusters is 0; it must be a whole number above 0"),
        ((2**30, (2,)), r"num_clusters is 1073741824; it must be at most 134217728"),
        ((3, (2, -1)), r"data_shape is \(2, -1\); it must be a tuple of whole numbers above 0"),
        ((3, (2,), (-(2**70), 0)), "it must be two whole numbers"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(fb.ArgumentError, match=words):
        fed_kmeans(*arguments)


def test_points_of_another_shape_or_name():
    with pytest.raises(fb.ClientDataError, match=r"shape \(4,\), and there are points of shape"):
        run(fed_kmeans(3, (4,), (1, 2)), points([3]))
    data = {"a": {"pixels": np.zeros((2, 4), np.float32)}}
    with pytest.raises(fb.ClientDataError, match=r"there are none, among \['pixels'\]"):
        run(fed_kmeans(3, (4,), (1, 2)), data)
    state, _ = run(fed_kmeans(3, (4,), (1, 2), feature="pixels"), data)
    assert state.finalizer.sum() == 5


def test_centroids_of_another_shape():
    process = fed_kmeans(3, (2,), (1, 2))
    with pytest.raises(fb.StateError, match=r"\(3, 2\)"):
        process.set_model_weights(process.initialize(), np.zeros((2, 2), np.float32))


def test_a_sum_may_zero_what_is_large():
    zeroed = fb.aggregators.zeroing(0.5, sum_())
    state, _ = run(fed_kmeans(3, (2,), (1, 2), sum_aggregator=zeroed), points([7, 5]))
    assert state.finalizer.tolist() == [1, 1, 1]  # every client's counts are larger
