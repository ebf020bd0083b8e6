"""TFF's `ClientData`: a `tf.data.Dataset` for each client id.

Written after simulation/datasets/client_data.py. What is read from a file is a `ClientData` over
packed arrays, and gives a client's rows without parsing anything again.
"""

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fedbridge.jax_core import ClientDataError, FederatedArrays
from fedbridge.tff._sequences import tensorflow
from fedbridge.tff._types import FunctionType, SequenceType, TensorType, to_type
from fedbridge.tff.learning._signatures import Typed
from fedbridge.tff_io._client_data import dataset_function, position_of

_DATA_SETS = "the data sets of a ClientData"


class ClientData(abc.ABC):
    """A data set by clients; scripts may derive from it, as from TFF's."""

    @property
    @abc.abstractmethod
    def client_ids(self) -> list[str]:
        """The ids, in a list of its own."""

    @property
    @abc.abstractmethod
    def serializable_dataset_fn(self) -> Callable[[Any], Any]:
        """From an id, also one that is a tensor, to a `tf.data.Dataset`."""

    @property
    @abc.abstractmethod
    def element_type_structure(self) -> Any:
        """The spec of an element."""

    @property
    def output_types(self) -> Any:
        """The dtypes of an element, as TFF 0.1 called them."""
        return _of_tensors(lambda spec: spec.dtype, self.element_type_structure)

    @property
    def output_shapes(self) -> Any:
        """The shapes of an element, as TFF 0.1 called them."""
        return _of_tensors(lambda spec: spec.shape, self.element_type_structure)

    @property
    def dataset_computation(self) -> Callable[[Any], Any]:
        """From an id to the client's data; in a computation of the script's, from a tensor."""
        signature = lambda: FunctionType(
            TensorType(np.str_), SequenceType(to_type(self.element_type_structure))
        )
        return Typed(self.create_tf_dataset_for_client, signature)

    def create_tf_dataset_for_client(self, client_id: Any) -> Any:
        """The client's data; of an id that is a tensor they are looked up when it is known.

        Raises:
            ClientDataError: There is no such client.
        """
        if isinstance(client_id, str) and client_id not in self.client_ids:
            raise ClientDataError(
                f"there is no client {client_id!r} in this ClientData; `client_ids` lists them."
            )
        return self.serializable_dataset_fn(client_id)

    def datasets(self, limit_count: int | None = None, seed: Any = None) -> Iterator[Any]:
        """The clients' data, in an order drawn with the seed."""
        for client_id in _shuffled(self.client_ids, seed)[:limit_count]:
            yield self.create_tf_dataset_for_client(client_id)

    def create_tf_dataset_from_all_clients(self, seed: Any = None) -> Any:
        """All elements, client after client in an order drawn with the seed."""
        ids = tensorflow(_DATA_SETS).data.Dataset.from_tensor_slices(
            _shuffled(self.client_ids, seed)
        )
        return ids.flat_map(self.serializable_dataset_fn)

    def preprocess(self, preprocess_fn: Callable[[Any], Any]) -> "ClientData":
        """The same clients, with `preprocess_fn` applied to the data of each."""
        return _Preprocessed(self, preprocess_fn)

    @classmethod
    def from_clients_and_tf_fn(
        cls, client_ids: Iterable[str], serializable_dataset_fn: Callable[[Any], Any]
    ) -> "ClientData":
        """Of a function from an id to its data."""
        return _FromFunction(client_ids, serializable_dataset_fn)

    @classmethod
    def from_clients_and_fn(
        cls, client_ids: Iterable[str], create_tf_dataset_for_client_fn: Callable[[str], Any]
    ) -> "ClientData":
        """The same, as TFF 0.1 to 0.19 called it."""
        return _FromFunction(client_ids, create_tf_dataset_for_client_fn)

    @classmethod
    def train_test_client_split(
        cls, client_data: "ClientData", num_test_clients: int, seed: Any = None
    ) -> tuple["ClientData", "ClientData"]:
        """Two parts, by clients; those of the second have data.

        Raises:
            ClientDataError: There are not as many clients with data.
        """
        train, test, empty = _shuffled(client_data.client_ids, seed), [], []
        if not 0 < num_test_clients < len(train):
            raise ClientDataError(
                f"{num_test_clients} test clients of {len(train)}; ask for at least one, and "
                "leave one."
            )
        while len(test) < num_test_clients:
            if not train:
                raise ClientDataError(f"only {len(test)} clients have data; ask for fewer.")
            client_id = train.pop()
            some = client_data.create_tf_dataset_for_client(client_id).take(1)
            (test if list(some) else empty).append(client_id)
        make = client_data.serializable_dataset_fn
        return cls.from_clients_and_tf_fn(train + empty, make), cls.from_clients_and_tf_fn(
            test, make
        )


class ArraysClientData(ClientData):
    """Client data over packed arrays.

    Args:
        data: The arrays.
    """

    def __init__(self, data: FederatedArrays):
        self._function, self._ids = dataset_function(data), list(data.client_ids)

    @property
    def client_ids(self) -> list[str]:
        return list(self._ids)

    @property
    def serializable_dataset_fn(self) -> Callable[[Any], Any]:
        tensorflow(_DATA_SETS)
        return self._function

    @property
    def element_type_structure(self) -> Any:
        return self.serializable_dataset_fn(self._ids[0]).element_spec


def as_client_data(*data: FederatedArrays) -> tuple[ClientData, ...]:
    """Packed arrays as TFF's client data."""
    return tuple(map(ArraysClientData, data))


class _FromFunction(ClientData):
    def __init__(self, client_ids: Iterable[str], function: Callable[[Any], Any]):
        self._ids, self._function = list(client_ids), function
        if not self._ids:
            raise ClientDataError("a ClientData needs at least one client id.")
        self._spec = function(self._ids[0]).element_spec

    @property
    def client_ids(self) -> list[str]:
        return list(self._ids)

    @property
    def serializable_dataset_fn(self) -> Callable[[Any], Any]:
        return self._function

    @property
    def element_type_structure(self) -> Any:
        return self._spec


class _Preprocessed(_FromFunction):
    def __init__(self, inner: ClientData, preprocess_fn: Callable[[Any], Any]):
        self._inner, self._preprocess_fn = inner, preprocess_fn
        make = lambda client_id: preprocess_fn(inner.serializable_dataset_fn(client_id))
        super().__init__(inner.client_ids, make)

    def create_tf_dataset_for_client(self, client_id: Any) -> Any:
        return self._preprocess_fn(self._inner.create_tf_dataset_for_client(client_id))


class TestClientData(ClientData):
    """Client data of a dictionary: id to what `tf.data.Dataset.from_tensor_slices` takes."""

    __test__ = False  # pytest shall not take it for a class of tests

    def __init__(self, tensor_slices_dict: Mapping[str, Any]):
        self._slices = dict(tensor_slices_dict)
        if not self._slices:
            raise ClientDataError("a TestClientData needs at least one client.")

    @property
    def client_ids(self) -> list[str]:
        return list(self._slices)

    @property
    def serializable_dataset_fn(self) -> Callable[[Any], Any]:
        return self._dataset

    @property
    def element_type_structure(self) -> Any:
        return self._dataset(next(iter(self._slices))).element_spec

    def _dataset(self, client_id: Any) -> Any:
        tf = tensorflow(_DATA_SETS)
        make = tf.data.Dataset.from_tensor_slices
        if isinstance(client_id, str):
            return make(self._slices[client_id])
        # In a graph the id is a tensor: all clients become constants of it.
        every = [make(slices) for slices in self._slices.values()]
        position = position_of(client_id, list(self._slices))
        where = tf.data.Dataset.from_tensors(position)
        return where.flat_map(lambda at: tf.data.Dataset.choose_from_datasets(
            every, tf.data.Dataset.from_tensors(at).repeat(), stop_on_empty_dataset=True
        ))  # fmt: skip


def _of_tensors(function: Callable[[Any], Any], spec: Any) -> Any:
    return tensorflow(_DATA_SETS).nest.map_structure(function, spec)


def _shuffled(client_ids: Iterable[str], seed: Any) -> list[str]:
    ids = list(client_ids)
    np.random.RandomState(seed).shuffle(ids)
    return ids
