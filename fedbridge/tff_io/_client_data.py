"""Client data from NumPy dictionaries, `tf.data` and TFF's own objects, and back to TFF.

An element of a data set is a row. The features of a dictionary keep their names; the elements of a
tuple `(x, y)` become the features "x" and "y", as Keras models name them; nested structures join
their names with "/". TensorFlow is imported inside the functions that hand data back to it.
"""

import dataclasses
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fedbridge.jax_core import ClientDataError, FederatedArrays
from fedbridge.jax_core._columns import (
    Fraction255,
    Ragged,
    decode_column,
    encode_column,
)

_BATCH = 1024


def from_clients(clients: Mapping[Any, Any]) -> FederatedArrays:
    """Packs clients that are dictionaries of arrays.

    Args:
        clients: Client id to feature name to rows: an array `[rows, ...]`, or strings. Every
            client has the same features, of one shape and dtype; a client may have no rows.

    Raises:
        ClientDataError: No clients; or a client whose features differ from those of the first
            client, in name, shape or dtype, or from each other in their number of rows.

    Example:
        >>> clients = {"a": {"y": [1, 2]}, "b": {"y": [3]}}
        >>> from_clients(clients)
        FederatedArrays(2 clients, 3 examples: y int64[])
    """
    if not isinstance(clients, Mapping):
        raise ClientDataError(
            f"clients: expected a dictionary of clients, got {type(clients).__name__}; give each "
            "one an id, as {'a': {'x': ..., 'y': ...}}."
        )
    arrays = {}
    for client_id, features in clients.items():
        if not isinstance(features, Mapping):
            raise ClientDataError(
                f"client {client_id!r}: expected a dictionary of features, got "
                f"{type(features).__name__}; give the arrays names, as {{'x': ..., 'y': ...}}."
            )
        arrays[_client_id(client_id)] = {
            str(name): _array(rows, client_id, name) for name, rows in features.items()
        }
    if len(arrays) < len(clients):
        raise ClientDataError("two client ids are the same text; give every client its own id.")
    return _pack(arrays)


def from_datasets(datasets: Mapping[str, Any]) -> FederatedArrays:
    """Reads a `tf.data.Dataset` per client, element for element.

    Args:
        datasets: Client id to a finite, unbatched dataset; all of one element spec.

    Raises:
        ClientDataError: A dataset that never ends or is batched, or elements that are no dense
            tensors.
    """
    return _read_datasets((client_id, lambda d=d: d) for client_id, d in datasets.items())


def from_client_data(client_data: Any) -> FederatedArrays:
    """Reads a `tff.simulation.datasets.ClientData`, element for element.

    Args:
        client_data: Any object with `client_ids` and `create_tf_dataset_for_client`, so also one
            that `preprocess` made. Its order of clients is kept.

    Raises:
        ClientDataError: As `from_datasets`; also duplicate client ids.
    """
    ids = list(client_data.client_ids)
    return _read_datasets((i, lambda i=i: client_data.create_tf_dataset_for_client(i)) for i in ids)


def to_client_data(data: FederatedArrays) -> Any:
    """A `tff.simulation.datasets.ClientData` with the same clients and elements (needs TFF).

    The elements have the structure of the data set that the arrays came from, or else are ordered
    dictionaries of the features, as those of TFF's data sets. `decode` is not applied.
    """
    import tensorflow_federated as tff

    return tff.simulation.datasets.ClientData.from_clients_and_tf_fn(
        list(data.client_ids), dataset_function(data)
    )


def dataset_function(data: FederatedArrays) -> Callable[[Any], Any]:
    """From a client's id to its `tf.data.Dataset`; inside a graph the id may be a tensor.

    Raises:
        ClientDataError: The elements have become several rows each.
    """
    structure = data.structure
    if structure is None:
        structure = OrderedDict(zip(data.features, data.features, strict=True))
    if data.element_offsets is not None:
        raise ClientDataError(
            "these elements have become several rows each, and cannot be put together again; use "
            "the client data they came from."
        )

    def dataset_fn(client_id: Any) -> Any:
        import tensorflow as tf

        if tf.executing_eagerly():
            if not isinstance(client_id, str):
                client_id = client_id.numpy().decode()
            rows = data.client(client_id)
            columns = {name: _tensor(tf, rows[name]) for name in rows}
            return tf.data.Dataset.from_tensor_slices(_fill(structure, columns))
        # Inside a TFF computation the id is a tensor: the rows of all clients become constants.
        client = position_of(client_id, data.client_ids)
        offsets = tf.constant(data.offsets)
        columns = {name: _constant(tf, column) for name, column in data.features.items()}
        rows = tf.data.Dataset.range(offsets[client], offsets[client + 1])
        return rows.map(
            lambda row: _fill(structure, {name: column(row) for name, column in columns.items()})
        )

    return dataset_fn


def position_of(client_id: Any, client_ids: Sequence[str]) -> Any:
    """Where an id that is a tensor stands among all of them; TensorFlow's error where nowhere."""
    import tensorflow as tf

    same = tf.equal(client_id, list(client_ids))
    said = ["there is no such client in this ClientData:", client_id]
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_any(same), said)]):
        return tf.argmax(same)


# --- structures -------------------------------------------------------------------------------


def name_leaves(spec: Any, prefix: str = "") -> Any:
    """The structure of an element, with the names of its features for leaves."""
    make: Any = type(spec)
    if isinstance(spec, Mapping):
        return make(
            (key, name_leaves(value, _join(prefix, str(key)))) for key, value in spec.items()
        )
    if isinstance(spec, tuple | list):
        names = ("x", "y") if len(spec) == 2 and not prefix else map(str, range(len(spec)))
        leaves = [name_leaves(s, _join(prefix, n)) for n, s in zip(names, spec, strict=True)]
        return make(*leaves) if hasattr(spec, "_fields") else make(leaves)
    return prefix or "x"


def _join(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name


def leaves_by_name(structure: Any, element: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of an element, with their names."""
    if isinstance(structure, Mapping):
        for key, inner in structure.items():
            yield from leaves_by_name(inner, element[key])
    elif isinstance(structure, tuple | list):
        for inner, value in zip(structure, element, strict=True):
            yield from leaves_by_name(inner, value)
    else:
        yield structure, element


def _fill(structure: Any, columns: Mapping[str, Any]) -> Any:
    """The structure, with the named columns for leaves."""
    make: Any = type(structure)
    if isinstance(structure, Mapping):
        return make((key, _fill(inner, columns)) for key, inner in structure.items())
    if isinstance(structure, tuple | list):
        filled = [_fill(inner, columns) for inner in structure]
        return make(*filled) if hasattr(structure, "_fields") else make(filled)
    return columns[structure]


# --- reading ----------------------------------------------------------------------------------


def _read_datasets(datasets: Any) -> FederatedArrays:
    clients: dict[str, dict[str, np.ndarray]] = {}
    first_id, first_spec, structure = "", None, None
    for client_id, make in datasets:
        client_id = _client_id(client_id)
        if client_id in clients:
            raise ClientDataError(
                f"client {client_id!r}: this id occurs more than once; give every client its own."
            )
        dataset = make()
        if structure is None:
            structure = name_leaves(dataset.element_spec)
            first_id, first_spec = client_id, dataset.element_spec
            names = [name for name, _ in leaves_by_name(structure, dataset.element_spec)]
            if len(set(names)) < len(names):
                raise ClientDataError(
                    f"client {client_id!r}: two features of an element are both called "
                    f"{max(names, key=names.count)!r}; rename one with `dataset.map(...)`."
                )
        elif name_leaves(dataset.element_spec) != structure:
            raise ClientDataError(
                f"client {client_id!r}: its elements are {dataset.element_spec}, those of client "
                f"{first_id!r} are {first_spec}; bring them to one structure with "
                "`dataset.map(...)`."
            )
        clients[client_id] = _read_dataset(dataset, structure, client_id)
    data = _pack(clients)
    return dataclasses.replace(data, structure=structure)


def _read_dataset(dataset: Any, structure: Any, client_id: str) -> dict[str, np.ndarray]:
    """All elements of a dataset, one array per feature."""
    specs = dict(leaves_by_name(structure, dataset.element_spec))
    for name, spec in specs.items():
        if type(spec).__name__ != "TensorSpec" or spec.shape.rank is None:
            raise ClientDataError(
                f"client {client_id!r}, feature {name!r}: expected a dense tensor of known rank, "
                f"got {spec}; make it one with `dataset.map(...)`."
            )
    if int(dataset.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise ClientDataError(
            f"client {client_id!r}: the dataset never ends; leave out `.repeat()` and give the "
            "number of epochs to the pipeline of batches."
        )
    known = all(spec.shape.is_fully_defined() for spec in specs.values())
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in specs}
    # Elements of one shape are fetched many at a time, which changes nothing but the speed.
    for element in (dataset.batch(_BATCH) if known else dataset).as_numpy_iterator():
        for name, value in leaves_by_name(structure, element):
            pieces[name].append(np.asarray(value) if known else np.asarray(value)[None])
    columns = {}
    for name, spec in specs.items():
        shapes = {piece.shape[1:] for piece in pieces[name]}
        if len(shapes) > 1:
            a, b = sorted(shapes)[:2]
            raise ClientDataError(
                f"client {client_id!r}, feature {name!r}: its elements have the shapes {list(a)} "
                f"and {list(b)}; if the dataset is batched, pass `dataset.unbatch()`."
            )
        if not shapes:  # a client without data is a valid client
            shape = tuple(n or 0 for n in spec.shape.as_list())
            pieces[name] = [np.zeros((0, *shape), _numpy_dtype(spec))]
        columns[name] = np.concatenate(pieces[name])
    return columns


def _numpy_dtype(spec: Any) -> np.dtype:
    return np.dtype(spec.dtype.as_numpy_dtype)


def _client_id(client_id: Any) -> str:
    return client_id.decode() if isinstance(client_id, bytes) else str(client_id)


def _array(rows: Any, client_id: Any, name: Any) -> np.ndarray:
    try:
        array = np.asarray(rows)
    except ValueError as error:  # rows of various shapes
        raise ClientDataError(
            f"client {client_id!r}, feature {name!r}: its rows differ in shape ({error}); give "
            "all rows one shape."
        ) from None
    if array.dtype.kind in "SU" and not isinstance(rows, np.ndarray):
        array = np.array(rows, object)  # NumPy's own strings drop zero bytes at the end
    if array.ndim == 0:
        raise ClientDataError(
            f"client {client_id!r}, feature {name!r}: it is one value; give an array [rows, ...]."
        )
    return array


# --- packing ----------------------------------------------------------------------------------


def _pack(clients: Mapping[str, Mapping[str, np.ndarray]]) -> FederatedArrays:
    """Checks that the clients fit together and packs them."""
    if not clients:
        raise ClientDataError("there are no clients; give at least one, which may be empty.")
    ids = tuple(clients)
    names = list(clients[ids[0]])
    sizes = []
    for client_id, features in clients.items():
        _same_names(client_id, features, ids[0], clients[ids[0]])
        rows = {name: len(features[name]) for name in names}
        if len(set(rows.values())) > 1:
            raise ClientDataError(
                f"client {client_id!r}: its features have different numbers of rows, {rows}; give "
                "them one row per example each."
            )
        sizes.append(next(iter(rows.values()), 0))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
    columns = {
        name: _pack_column(name, {client_id: clients[client_id][name] for client_id in ids})
        for name in names
    }
    return FederatedArrays(ids, offsets, columns)


def _same_names(client_id: str, features: Any, first_id: str, first: Any) -> None:
    import difflib

    for lacks, has, there, other in (
        (client_id, features, first, first_id),
        (first_id, first, features, client_id),
    ):
        for name in there:
            if name not in has:
                near = difflib.get_close_matches(name, has, 1)
                hint = f" (it has {near[0]!r})" if near else ""
                raise ClientDataError(
                    f"client {lacks!r}: it has no feature {name!r}{hint}, which client {other!r} "
                    "has; give all clients the same features."
                )


def _pack_column(name: str, pieces: Mapping[str, np.ndarray]) -> Any:
    filled = {client_id: piece for client_id, piece in pieces.items() if len(piece)}
    if not filled:
        filled = dict(itertools.islice(pieces.items(), 1))
    (first_id, first), *others = filled.items()
    for client_id, piece in others:
        strings = piece.dtype.kind in "OSU" and first.dtype.kind in "OSU"
        alike = strings or piece.dtype == first.dtype
        if piece.shape[1:] != first.shape[1:] or not alike:
            raise ClientDataError(
                f"client {client_id!r}, feature {name!r}: its rows are {piece.dtype}"
                f"{list(piece.shape[1:])}, those of client {first_id!r} are {first.dtype}"
                f"{list(first.shape[1:])}; give all clients the same shape and dtype."
            )
    if first.dtype.kind not in "OSU":
        return encode_column(np.concatenate(list(filled.values())))
    rows: list[bytes] = []
    for client_id, piece in filled.items():
        for row in piece.tolist():
            if not isinstance(row, str | bytes):
                raise ClientDataError(
                    f"client {client_id!r}, feature {name!r}: expected one string a row, got "
                    f"{type(row).__name__}; give numbers or strings of one shape."
                )
            rows.append(row.encode() if isinstance(row, str) else row)
    return Ragged.from_rows(rows)


# --- handing back -----------------------------------------------------------------------------


def _tensor(tf: Any, rows: np.ndarray) -> Any:
    return tf.constant(rows, tf.string) if rows.dtype == object else rows


def _constant(tf: Any, column: Any) -> Any:
    """A function from a row number to the value of that row, of constants of the graph."""
    if isinstance(column, Fraction255):
        numerators, table = tf.constant(column.numerators), tf.constant(_all_255ths())
        return lambda row: tf.gather(table, tf.cast(tf.gather(numerators, row), tf.int32))
    values = decode_column(column)
    values = tf.constant(values, tf.string) if values.dtype == object else tf.constant(values)
    return lambda row: tf.gather(values, row)


def _all_255ths() -> np.ndarray:
    return Fraction255(np.arange(256, dtype=np.uint8)).decode()
