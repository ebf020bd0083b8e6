"""The data that a script passes to `process.next`, as a cohort.

A client is a `tf.data.Dataset` of batches, or a list of them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedbridge.jax_core import ClientDataError, Cohort, make_cohort, make_stream
from fedbridge.jax_core._cohort import TRAIN, batch_matrix, narrow
from fedbridge.tff._pipelines import Columns, is_dataset, read
from fedbridge.tff_io._client_data import leaves_by_name, name_leaves

Clients = list[tuple[list[Columns], Columns]]


def points(client_data: Any) -> Clients:
    """The clients whose data are single points, not batches: those of k-means.

    Raises:
        ClientDataError: As `batches`.
    """
    batched = lambda client: client.batch(_POINTS) if is_dataset(client) else list(_split(client))
    one = isinstance(client_data, Mapping | str) or is_dataset(client_data)
    return batches(client_data if one else [batched(client) for client in client_data])


_POINTS = 64


def _split(client: Any) -> Any:
    found = np.asarray(client)
    return (found[first : first + _POINTS] for first in range(0, len(found), _POINTS))


def batches(client_data: Any) -> Clients:
    """The data of a call of `next`, read.

    Args:
        client_data: One entry a client: a `tf.data.Dataset` of batches, or a sequence of batches,
            which are dictionaries or tuples of arrays `[rows, ...]`.

    Returns:
        Of each client its batches, the same list again where its pipeline is kept, and its features
        without rows, as far as they are known.

    Raises:
        ClientDataError: It is no list of clients; batches of different structure, or whose features
            differ in their number of rows.
    """
    if isinstance(client_data, Mapping | str) or not hasattr(client_data, "__iter__"):
        raise ClientDataError(
            f"federated data must be a list with one entry a client, not "
            f"{type(client_data).__name__}; pass [dataset, ...]."
        )
    if is_dataset(client_data):
        raise ClientDataError(
            "federated data must be a list with one tf.data.Dataset a client, not one dataset; "
            "pass [dataset]."
        )
    return [_read(one, f"client {number}") for number, one in enumerate(client_data)]


def cohort(
    clients: Clients, round: int, nobody: Callable[[], Columns] = dict[str, np.ndarray]
) -> Cohort:
    """The cohort of these clients.

    Args:
        clients: What `batches` read.
        round: Which call it is; what is random in the core depends on it.
        nobody: Gives the features without rows, where no client tells them.

    Raises:
        ClientDataError: Batches of one feature have rows of different shapes.

    Example:
        >>> batch = {"x": np.ones((2, 3), "f"), "y": np.zeros(2, "i4")}
        >>> clients = batches([[batch, batch], [batch]])
        >>> cohort(clients, 1).streams["train"].sizes[:3].tolist()
        [2, 2, 2]
    """
    names = next((list(found[0]) for found, _ in clients if found), None)
    if names is None:  # nobody has a batch: the specs alone say what there is
        columns = dict(next((columns for _, columns in clients if columns), None) or nobody())
    else:
        columns = _concatenated(clients, names)
    sizes = np.array(
        [len(next(iter(batch.values()))) for found, _ in clients for batch in found], np.int32
    )
    offsets = np.cumsum([0, *(len(found) for found, _ in clients)])
    rows = np.arange(int(sizes.sum()), dtype=np.int32)
    matrix = batch_matrix(rows, sizes, int(sizes.max(initial=1)))
    stream = make_stream(matrix, sizes, offsets)
    ids = [f"client {number}" for number in range(len(clients))]
    return make_cohort(columns, {TRAIN: stream}, ids, round=round)


def without_rows(batch: Any) -> Columns:
    """The features of a batch, and none of its rows."""
    (named,) = _named([batch], "the batch")
    return {name: values[:0] for name, values in named.items()}


def same(clients: Clients, others: Clients) -> bool:
    """Whether they were read once: the very same lists of batches, so the same rows."""
    return len(clients) == len(others) and all(
        mine is other for (mine, _), (other, _) in zip(clients, others, strict=True)
    )


def _concatenated(clients: Clients, names: list[str]) -> Columns:
    columns: Columns = {}
    for name in names:
        pieces = [batch[name] for found, _ in clients for batch in found]
        shapes = {piece.shape[1:] for piece in pieces}
        if len(shapes) > 1:
            a, b = sorted(shapes)[:2]
            raise ClientDataError(
                f"the batches of feature {name!r} have rows of the shapes {list(a)} and "
                f"{list(b)}; bring them to one shape, e.g. with `padded_batch` and one fixed "
                "length in `padded_shapes`."
            )
        columns[name] = narrow(np.concatenate(pieces))
    return columns


def _read(client: Any, where: str) -> tuple[list[Columns], Columns]:
    """The batches of a client, and its features without rows, as far as they are known."""
    empty: Columns = {}
    if is_dataset(client):
        structure = name_leaves(client.element_spec)
        for name, spec in leaves_by_name(structure, client.element_spec):
            shape = [size or 0 for size in spec.shape][1:]
            empty[name] = np.zeros((0, *shape), spec.dtype.as_numpy_dtype)
        found = read(client, structure)
    else:
        found = _named(list(client), where)
    for number, batch in enumerate(found, 1):
        _check_rows(batch, f"{where}, batch {number}")
    return found, empty


def _named(given: list[Any], where: str) -> list[Columns]:
    """Batches with names for their features."""
    structure = name_leaves(given[0]) if given else None
    found: list[Columns] = []
    for number, batch in enumerate(given, 1):
        try:
            named = {k: np.asarray(v) for k, v in leaves_by_name(structure, batch)}
        except (KeyError, TypeError, ValueError):
            raise ClientDataError(
                f"{where}, batch {number}: it has another structure than the first; give all "
                "batches the same features."
            ) from None
        found.append(named)
    return found


def _check_rows(batch: Columns, where: str) -> None:
    rows = {name: len(values) if values.ndim else None for name, values in batch.items()}
    if None in rows.values() or len(set(rows.values())) > 1:
        raise ClientDataError(
            f"{where}: its features have the numbers of rows {rows}; batch the data set with "
            "`.batch(size)`."
        )
