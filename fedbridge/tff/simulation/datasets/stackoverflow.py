"""`tff.simulation.datasets.stackoverflow`: questions and answers by user."""

from collections import OrderedDict

from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import ClientData
from fedbridge.tff.simulation.datasets._files import find, splits
from fedbridge.tff_io import read_tag_counts, read_word_counts


def load_data(cache_dir: str | None = None) -> tuple[ClientData, ...]:
    """(train, held out, test): strings; `score` is int64."""
    return splits("stackoverflow", ("train", "heldout", "test"), cache_dir)


def load_word_counts(
    cache_dir: str | None = None, vocab_size: int | None = None
) -> OrderedDict[str, int]:
    """Words and the numbers of users that wrote them, the most frequent first."""
    return OrderedDict(read_word_counts(_find("word_count", cache_dir), vocab_size))


def load_tag_counts(cache_dir: str | None = None) -> OrderedDict[str, int]:
    """Tags and their counts, the most frequent first."""
    counts = read_tag_counts(_find("tag_count", cache_dir))
    return OrderedDict(sorted(counts.items(), key=lambda item: item[1], reverse=True))


def _find(name: str, cache_dir: str | None):
    file = f"stackoverflow.{name}"
    return find((file, f"{file}.tar.bz2"), cache_dir)


__getattr__ = missing("tff.simulation.datasets.stackoverflow")
