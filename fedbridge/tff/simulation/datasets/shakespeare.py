"""`tff.simulation.datasets.shakespeare`: the plays by character."""

from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import ClientData
from fedbridge.tff.simulation.datasets._files import splits


def load_data(cache_dir: str | None = None) -> tuple[ClientData, ...]:
    """(train, test): `snippets`, strings."""
    return splits("shakespeare", ("train", "test"), cache_dir)


__getattr__ = missing("tff.simulation.datasets.shakespeare")
