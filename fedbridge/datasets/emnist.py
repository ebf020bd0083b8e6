"""Federated EMNIST, as TFF serves it.

Reference: TFF's simulation/datasets/emnist.py.
"""

import os

import numpy as np

from fedbridge.datasets._splits import load_splits
from fedbridge.datasets._synthetic import images
from fedbridge.jax_core import FederatedArrays, check_bool
from fedbridge.tff_io import from_clients


def load_data(
    only_digits: bool = True, cache_dir: str | os.PathLike[str] | None = None
) -> tuple[FederatedArrays, FederatedArrays]:
    """Loads handwritten characters by writer; the file is fetched where it is not there.

    Args:
        only_digits: The 10 digits only, or else all 62 characters.
        cache_dir: A folder that has the file, or gets it. None: the folder that FEDBRIDGE_DATA
            names, TFF's own cache, or the cache folder, whichever has it; the last one gets it.

    Returns:
        `(train, test)`.

    Raises:
        ClientDataError: As `fetch` and `from_sql`.
    """
    check_bool("only_digits", only_digits)
    kind = "digits_only" if only_digits else "all"
    splits, features = (f"{kind}_train", f"{kind}_test"), ("pixels", "label")
    train, test = load_splits("emnist", "emnist_all.sqlite", splits, features, cache_dir)
    return train, test


def get_synthetic() -> FederatedArrays:
    """Two writers with the digits 0 to 9 each, TFF's synthetic data."""
    digits = images("digits").astype(np.float32) / np.float32(9)
    client = {"label": np.arange(10, dtype=np.int32), "pixels": digits}
    return from_clients({"synthetic1": client, "synthetic2": client})
