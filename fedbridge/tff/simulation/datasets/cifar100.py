"""`tff.simulation.datasets.cifar100`: images in 500 + 100 made-up clients."""

from fedbridge import datasets
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import ClientData, as_client_data


def load_data(cache_dir: str | None = None) -> tuple[ClientData, ...]:
    """(train, test): `coarse_label`, `image` uint8[32, 32, 3], `label`."""
    return as_client_data(*datasets.cifar100.load_data(cache_dir))


__getattr__ = missing("tff.simulation.datasets.cifar100")
