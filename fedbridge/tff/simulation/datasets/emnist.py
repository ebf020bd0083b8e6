"""`tff.simulation.datasets.emnist`: handwriting by writer."""

from fedbridge import datasets
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import ClientData, as_client_data


def load_data(only_digits: bool = True, cache_dir: str | None = None) -> tuple[ClientData, ...]:
    """(train, test): `label` int32 and `pixels` float32[28, 28]; see `fb.datasets.emnist`."""
    return as_client_data(*datasets.emnist.load_data(only_digits, cache_dir))


__getattr__ = missing("tff.simulation.datasets.emnist")
