"""Federated Stack Overflow, as TFF serves it.

Reference: TFF's simulation/datasets/stackoverflow.py.
"""

import os

from fedbridge.datasets._splits import load_splits
from fedbridge.datasets._synthetic import texts
from fedbridge.jax_core import FederatedArrays
from fedbridge.tff_io import (
    find_file,
    from_clients,
    read_tag_counts,
    read_word_counts,
)


def load_data(
    cache_dir: str | os.PathLike[str] | None = None,
) -> tuple[FederatedArrays, FederatedArrays, FederatedArrays]:
    """Loads questions and answers by user; the file is fetched where it is not there.

    Args:
        cache_dir: A folder that has the file, or gets it. None: the folder that FEDBRIDGE_DATA
            names, TFF's own cache, or the cache folder, whichever has it; the last one gets it.

    Returns:
        `(train, heldout, test)`.

    Raises:
        ClientDataError: As `fetch` and `from_sql`.
    """
    splits, features = ("train", "heldout", "test"), ("tokens",)
    train, heldout, test = load_splits(
        "stackoverflow", "stackoverflow.sqlite", splits, features, cache_dir
    )
    return train, heldout, test


def load_word_counts(
    cache_dir: str | os.PathLike[str] | None = None, vocab_size: int | None = None
) -> dict[str, int]:
    """Loads words and how many users wrote them, the most frequent first.

    Args:
        cache_dir: As in `load_data`.
        vocab_size: Only so many words.

    Raises:
        ClientDataError: As `fetch` and `read_word_counts`.
    """
    path = find_file("stackoverflow", "stackoverflow.word_count", cache_dir)
    return read_word_counts(path, vocab_size)


def load_tag_counts(
    cache_dir: str | os.PathLike[str] | None = None, vocab_size: int | None = None
) -> dict[str, int]:
    """Loads tags and their counts, the most frequent first.

    Args:
        cache_dir: As in `load_data`.
        vocab_size: Only so many tags.

    Raises:
        ClientDataError: As `fetch` and `read_tag_counts`.
    """
    path = find_file("stackoverflow", "stackoverflow.tag_count", cache_dir)
    return read_tag_counts(path, vocab_size)


def get_synthetic() -> FederatedArrays:
    """Three users with eight sentences, TFF's synthetic data."""
    return from_clients(texts()["stackoverflow"])


def get_synthetic_word_counts() -> dict[str, int]:
    """The words of TFF's synthetic data, and how often they are there."""
    return dict(texts()["stackoverflow_word_counts"])


def get_synthetic_tag_counts() -> dict[str, int]:
    """The tags of TFF's synthetic data, and how often they are there."""
    return dict(texts()["stackoverflow_tag_counts"])
