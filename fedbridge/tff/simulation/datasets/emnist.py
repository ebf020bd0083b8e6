"""`tff.simulation.datasets.emnist`: handwriting by writer."""

from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import ClientData
from fedbridge.tff.simulation.datasets._files import splits


def load_data(only_digits: bool = True, cache_dir: str | None = None) -> tuple[ClientData, ...]:
    """(train, test): `label` int32 and `pixels` float32[28, 28]."""
    part = "digits_only" if only_digits else "all"
    return splits("emnist_all", (f"{part}_train", f"{part}_test"), cache_dir)


__getattr__ = missing("tff.simulation.datasets.emnist")
