"""`tff.simulation.datasets.cifar100`: images in 500 + 100 made-up clients."""

from fedbridge import datasets
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import (
    ArraysClientData,
    ClientData,
    as_client_data,
)


def load_data(cache_dir: str | None = None) -> tuple[ClientData, ...]:
    """(train, test): `coarse_label`, `image` uint8[32, 32, 3], `label`."""
    return as_client_data(*datasets.cifar100.load_data(cache_dir))


def get_synthetic() -> ClientData:
    """Two clients with the same five images, TFF's synthetic data."""
    return ArraysClientData(datasets.cifar100.get_synthetic())


__getattr__ = missing("tff.simulation.datasets.cifar100")
