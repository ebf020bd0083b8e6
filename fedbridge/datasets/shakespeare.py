"""Federated Shakespeare, as TFF serves it.

Reference: TFF's simulation/datasets/shakespeare.py.
"""

import os

from fedbridge.datasets._splits import load_splits
from fedbridge.datasets._synthetic import texts
from fedbridge.jax_core import FederatedArrays
from fedbridge.tff_io import from_clients


def load_data(
    cache_dir: str | os.PathLike[str] | None = None,
) -> tuple[FederatedArrays, FederatedArrays]:
    """Loads lines of plays by character; the file is fetched where it is not there.

    Args:
        cache_dir: A folder that has the file, or gets it. None: the folder that FEDBRIDGE_DATA
            names, TFF's own cache, or the cache folder, whichever has it; the last one gets it.

    Returns:
        `(train, test)`.

    Raises:
        ClientDataError: As `fetch` and `from_sql`.
    """
    splits = ("train", "test")
    train, test = load_splits("shakespeare", "shakespeare.sqlite", splits, ("snippets",), cache_dir)
    return train, test


def get_synthetic() -> FederatedArrays:
    """Three characters with thirteen snippets, TFF's synthetic data.

    Example:
        >>> get_synthetic().client("THE_TAMING_OF_THE_SHREW_CUPID")["snippets"].tolist()
        [b'Hail to thee, worthy Timon, and to all']
    """
    return from_clients(texts()["shakespeare"])
