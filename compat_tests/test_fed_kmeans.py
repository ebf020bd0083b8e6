"""Federated k-means against TFF, round by round from TFF's states: seeds, ties, shapes, NaN."""

import numpy as np
import pytest
from rounds import compare_rounds

import fedbridge as fb

SIZES = [[7, 4, 0], [3], [], [0], [6, -5, 4], [7, 4]]  # a minus marks a client with a NaN


def _points(size, shape, seed):
    """Halves: sums are exact, and distances are often equal."""
    rng = np.random.default_rng(seed)
    points = np.round(2 * rng.normal(size=(abs(size), *shape))).astype(np.float32) / 2
    if size < 0:
        points[1] = np.nan
    return {"x": points}


def _dataset(client):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(client["x"])


@pytest.mark.parametrize(
    "shape, seed", [((2,), (1, 2)), ((), (5, 0)), ((2, 3), (2**40 + 3, -7))], ids=str
)
def test_rounds_are_tffs(tff, shape, seed):
    theirs = tff.learning.algorithms.build_fed_kmeans(3, shape, seed)
    ours = fb.algorithms.fed_kmeans(3, shape, seed, non_finite=fb.keep_non_finite)
    start = theirs.initialize().global_model_weights
    # TensorFlow's logarithm, sine and cosine: one or two values in a hundred are one bit apart.
    np.testing.assert_allclose(ours.initialize().global_model_weights, start, rtol=2e-7, atol=1e-7)
    rounds = [
        [_points(size, shape, 10 * number + place) for place, size in enumerate(sizes)]
        for number, sizes in enumerate(SIZES)
    ]
    error = compare_rounds(theirs, ours, rounds, _dataset, fb.Batches(4))
    print(f"k-means, {shape}: {error:.1e}")


def test_ties_go_to_the_first_centroid_and_nan_is_the_farthest(tff):
    """Set centroids: two of them alike, one NaN in between, points in the middle of others."""
    theirs = tff.learning.algorithms.build_fed_kmeans(5, (1,), (1, 2))
    ours = fb.algorithms.fed_kmeans(5, (1,), (1, 2), non_finite=fb.keep_non_finite)
    centroids = np.array([[3.0], [np.nan], [-1.0], [1.0], [1.0]], np.float32)
    data = {"x": np.array([[0.0], [2.0], [1.0], [-5.0], [np.inf]], np.float32)}
    state = theirs.set_model_weights(theirs.initialize(), centroids)
    expected = theirs.next(state, [_dataset(data)])
    before = ours.set_model_weights(ours.initialize(), centroids)
    cohort = fb.from_clients({"a": data}).cohort(["a"], fb.Batches(2))
    after, metrics = ours.next(before, cohort)
    np.testing.assert_array_equal(after.global_model_weights, expected.state.global_model_weights)
    np.testing.assert_array_equal(after.finalizer, expected.state.finalizer)
    assert metrics["client_work"]["num_examples"] == 5
