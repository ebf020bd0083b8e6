"""`tff.simulation.datasets.stackoverflow`: questions and answers by user."""

from fedbridge import datasets
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import ClientData, as_client_data

load_tag_counts = datasets.stackoverflow.load_tag_counts
load_word_counts = datasets.stackoverflow.load_word_counts


def load_data(cache_dir: str | None = None) -> tuple[ClientData, ...]:
    """(train, held out, test): strings; `score` is int64; see `fb.datasets.stackoverflow`."""
    return as_client_data(*datasets.stackoverflow.load_data(cache_dir))


__getattr__ = missing("tff.simulation.datasets.stackoverflow")
