"""`tff.simulation.datasets.stackoverflow`: questions and answers by user."""

from fedbridge import datasets
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import (
    ArraysClientData,
    ClientData,
    as_client_data,
)

load_tag_counts = datasets.stackoverflow.load_tag_counts
get_synthetic_tag_counts = datasets.stackoverflow.get_synthetic_tag_counts
get_synthetic_word_counts = datasets.stackoverflow.get_synthetic_word_counts
load_word_counts = datasets.stackoverflow.load_word_counts


def load_data(cache_dir: str | None = None) -> tuple[ClientData, ...]:
    """(train, held out, test): strings; `score` is int64; see `fb.datasets.stackoverflow`."""
    return as_client_data(*datasets.stackoverflow.load_data(cache_dir))


def get_synthetic() -> ClientData:
    """Three users with eight sentences, TFF's synthetic data."""
    return ArraysClientData(datasets.stackoverflow.get_synthetic())


__getattr__ = missing("tff.simulation.datasets.stackoverflow")
