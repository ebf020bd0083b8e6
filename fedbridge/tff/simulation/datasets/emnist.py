"""`tff.simulation.datasets.emnist`: handwriting by writer."""

from fedbridge import datasets
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import (
    ArraysClientData,
    ClientData,
    as_client_data,
)


def load_data(only_digits: bool = True, cache_dir: str | None = None) -> tuple[ClientData, ...]:
    """(train, test): `label` int32 and `pixels` float32[28, 28]; see `fb.datasets.emnist`."""
    return as_client_data(*datasets.emnist.load_data(only_digits, cache_dir))


def get_synthetic() -> ClientData:
    """Two writers with the digits 0 to 9 each, TFF's synthetic data."""
    return ArraysClientData(datasets.emnist.get_synthetic())


__getattr__ = missing("tff.simulation.datasets.emnist")
