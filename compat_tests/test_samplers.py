"""Samplers and old HDF5 files beside TFF and tf.data."""

from collections import OrderedDict

import numpy as np
import pytest

from fedbridge import samplers
from fedbridge.tff_io import from_datasets, from_hdf5


@pytest.mark.parametrize("seed", [0, 1, 2**31])
@pytest.mark.parametrize("replace", [False, True])
def test_uniform_draws_as_tff_does(tff, seed, replace):
    ids = [f"f{i:04d}" for i in range(300)]
    theirs = tff.simulation.build_uniform_sampling_fn(ids, replace=replace, random_seed=seed)
    ours = samplers.uniform(10, seed=seed, replace=replace)
    for round in [*range(200), 10**6]:
        assert ours(round, ids) == list(theirs(round, 10))


def test_hdf5_reads_as_hdf5_client_data_did(tff, tmp_path):
    """TFF 0.87 has no HDF5ClientData any more; this is its body, in tf.data as it was."""
    import h5py
    import tensorflow as tf

    rng = np.random.default_rng(0)
    path = tmp_path / "stackoverflow_train.h5"
    with h5py.File(path, "w") as file:
        for client_id, size in (("b", 5), ("a", 12), ("00000001", 1)):
            group = file.create_group(f"examples/{client_id}")
            group["tokens"] = np.array([f"to be ü {i}" for i in range(size)], object)
            group["score"] = rng.integers(-9, 9, size)
            group["pixels"] = rng.random((size, 3, 2)).astype(np.float32)

    datasets = {}
    with h5py.File(path, "r") as file:
        for client_id in sorted(file["examples"].keys()):
            features = sorted(file["examples"][client_id].items())
            datasets[client_id] = tf.data.Dataset.from_tensor_slices(
                OrderedDict((name, values[()]) for name, values in features)
            )
    ours, theirs = from_hdf5(path, cache=False), from_datasets(datasets)
    assert ours.client_ids == theirs.client_ids
    assert list(ours.features) == list(theirs.features)
    for client_id in ours.client_ids:
        rows = ours.client(client_id)
        for name, values in theirs.client(client_id).items():
            assert rows[name].dtype == values.dtype
            np.testing.assert_array_equal(rows[name], values)
