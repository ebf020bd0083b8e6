"""`tff.simulation.datasets.shakespeare`: the plays by character."""

from fedbridge import datasets
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import (
    ArraysClientData,
    ClientData,
    as_client_data,
)


def load_data(cache_dir: str | None = None) -> tuple[ClientData, ...]:
    """(train, test): `snippets`, strings; see `fb.datasets.shakespeare`."""
    return as_client_data(*datasets.shakespeare.load_data(cache_dir))


def get_synthetic() -> ClientData:
    """Three characters with thirteen snippets, TFF's synthetic data."""
    return ArraysClientData(datasets.shakespeare.get_synthetic())


__getattr__ = missing("tff.simulation.datasets.shakespeare")
