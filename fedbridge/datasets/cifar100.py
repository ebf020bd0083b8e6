"""Federated CIFAR-100, as TFF serves it.

Reference: TFF's simulation/datasets/cifar100.py.
"""

import os

import numpy as np

from fedbridge.datasets._splits import load_splits
from fedbridge.datasets._synthetic import images
from fedbridge.jax_core import FederatedArrays
from fedbridge.tff_io import from_clients


def load_data(
    cache_dir: str | os.PathLike[str] | None = None,
) -> tuple[FederatedArrays, FederatedArrays]:
    """Loads images, divided by Pachinko allocation; the file is fetched where it is not there.

    Args:
        cache_dir: A folder that has the file, or gets it. None: the folder that FEDBRIDGE_DATA
            names, TFF's own cache, or the cache folder, whichever has it; the last one gets it.

    Returns:
        `(train, test)`.

    Raises:
        ClientDataError: As `fetch` and `from_sql`.
    """
    features = ("image", "label")
    train, test = load_splits("cifar100", "cifar100.sqlite", ("train", "test"), features, cache_dir)
    return train, test


def get_synthetic() -> FederatedArrays:
    """Two clients with the same five images, TFF's synthetic data."""
    client = {
        "coarse_label": np.array([4, 4, 4, 8, 10]),
        "image": images("images"),
        "label": np.array([0, 51, 51, 88, 71]),
    }
    return from_clients({"synthetic1": client, "synthetic2": client})
