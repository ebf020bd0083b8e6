"""`tff.simulation.datasets.celeba`: faces by celebrity."""

from fedbridge import datasets
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import ClientData, as_client_data


def load_data(
    split_by_clients: bool = True, cache_dir: str | None = None
) -> tuple[ClientData, ...]:
    """(train, test): `image` int64[84, 84, 3], and 40 attributes, booleans."""
    return as_client_data(*datasets.celeba.load_data(split_by_clients, cache_dir))


__getattr__ = missing("tff.simulation.datasets.celeba")
