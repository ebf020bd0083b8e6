"""Federated CelebA, as TFF serves it.

Reference: TFF's simulation/datasets/celeba.py.
"""

import os

from fedbridge.datasets._splits import load_splits
from fedbridge.jax_core import FederatedArrays, check_bool


def load_data(
    split_by_clients: bool = True, cache_dir: str | os.PathLike[str] | None = None
) -> tuple[FederatedArrays, FederatedArrays]:
    """Loads faces by celebrity; the file is fetched where it is not there.

    Args:
        split_by_clients: Whether test has celebrities of its own, or other images of the same.
        cache_dir: A folder that has the file, or gets it. None: the folder that FEDBRIDGE_DATA
            names, TFF's own cache, or the cache folder, whichever has it; the last one gets it.

    Returns:
        `(train, test)`.

    Raises:
        ClientDataError: As `fetch` and `from_sql`.
    """
    check_bool("split_by_clients", split_by_clients)
    kind = "split_by_clients" if split_by_clients else "split_by_examples"
    splits = (f"{kind}_train", f"{kind}_test")
    train, test = load_splits("celeba", "celeba.sqlite", splits, ("image",), cache_dir)
    return train, test
