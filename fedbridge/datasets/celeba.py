"""Federated CelebA, as TFF serves it.

Reference: TFF's simulation/datasets/celeba.py.
"""

import os

from fedbridge.jax_core import FederatedArrays
from fedbridge.tff_io import find_file, from_sql


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
    path = find_file("celeba", "celeba.sqlite", cache_dir)
    kind = "split_by_clients" if split_by_clients else "split_by_examples"
    return from_sql(path, f"{kind}_train"), from_sql(path, f"{kind}_test")
