"""`tff.simulation.datasets.shakespeare`: the plays by character."""

from fedbridge import datasets
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import ClientData, as_client_data


def load_data(cache_dir: str | None = None) -> tuple[ClientData, ...]:
    """(train, test): `snippets`, strings; see `fb.datasets.shakespeare`."""
    return as_client_data(*datasets.shakespeare.load_data(cache_dir))


__getattr__ = missing("tff.simulation.datasets.shakespeare")
