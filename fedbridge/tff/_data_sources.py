"""Data sources of `tff.program`: clients drawn at random, none twice in a round."""

import random
from collections.abc import Sequence
from typing import Any

from fedbridge import jax_core as fc


class FederatedDataSource:
    """The base of a script's own."""


class FederatedDataSourceIterator:
    """The base of a script's own."""


class _Drawing(FederatedDataSourceIterator):
    def __init__(self, clients: Sequence[Any], federated_type: Any = None):
        some = len(clients) > 0
        fc.check_argument(some, "the data source", clients, "made of at least one client")
        self._clients, self.federated_type = clients, federated_type

    def select(self, k: int | None = None) -> list[Any]:
        """So many clients, in a random order.

        Raises:
            ArgumentError: More than there are.
        """
        right = isinstance(k, int) and 0 <= k <= len(self._clients)
        fc.check_argument(right, "k", k, f"a whole number up to {len(self._clients)}")
        return random.sample(self._clients, k or 0)


class DatasetDataSourceIterator(_Drawing):
    """Draws data sets."""


class ClientIdDataSourceIterator(_Drawing):
    """Draws client ids."""


class DatasetDataSource(FederatedDataSource):
    """A data set a client; a `ClientData` has `datasets()`."""

    def __init__(self, datasets: Sequence[Any]):
        self._iterator = DatasetDataSourceIterator(datasets)

    def iterator(self) -> DatasetDataSourceIterator:
        """What draws from it."""
        return self._iterator


class ClientIdDataSource(FederatedDataSource):
    """Ids of clients, for computations that make their data sets."""

    def __init__(self, client_ids: Sequence[str]):
        self._iterator = ClientIdDataSourceIterator(client_ids)

    def iterator(self) -> ClientIdDataSourceIterator:
        """What draws from it."""
        return self._iterator
