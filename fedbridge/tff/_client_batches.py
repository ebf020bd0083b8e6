"""The data that a script passes to `process.next`, as a cohort.

A client is a `tf.data.Dataset` of batches, or a list of them. TFF restarts a seeded pipeline in
every call and draws an unseeded one anew. Iterating the script's own object does neither, so its
graph is built a second time in every call, as TFF does (its data sets travel as graphs).
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedbridge.jax_core import ClientDataError, Cohort, make_cohort, make_stream
from fedbridge.jax_core._cohort import TRAIN, batch_matrix, narrow
from fedbridge.tff_io._client_data import leaves_by_name, name_leaves

Columns = dict[str, np.ndarray]


def cohort(client_data: Any, round: int) -> Cohort:
    """The cohort of a call of `next`.

    Args:
        client_data: One entry a client: a `tf.data.Dataset` of batches, or a sequence of batches,
            which are dictionaries or tuples of arrays `[rows, ...]`.
        round: Which call it is; what is random in the core depends on it.

    Raises:
        ClientDataError: It is no list of clients; batches of different structure, or whose features
            differ in their number of rows.

    Example:
        >>> batch = {"x": np.ones((2, 3), "f"), "y": np.zeros(2, "i4")}
        >>> cohort([[batch, batch], [batch]], 1).streams["train"].sizes[:3].tolist()
        [2, 2, 2]
    """
    if isinstance(client_data, Mapping | str) or not hasattr(client_data, "__iter__"):
        raise ClientDataError(
            f"federated data must be a list with one entry a client, not "
            f"{type(client_data).__name__}; pass [dataset, ...]."
        )
    if _is_dataset(client_data):
        raise ClientDataError(
            "federated data must be a list with one tf.data.Dataset a client, not one dataset; "
            "pass [dataset]."
        )
    clients = [_read(one, f"client {number}") for number, one in enumerate(client_data)]
    names = next((list(batches[0]) for batches, _ in clients if batches), None)
    if names is None:  # nobody has a batch: the specs alone say what there is
        empty = next((columns for _, columns in clients if columns), {})
        columns = dict(empty)
    else:
        columns = _concatenated(clients, names)
    sizes = np.array(
        [len(next(iter(batch.values()))) for batches, _ in clients for batch in batches], np.int32
    )
    offsets = np.cumsum([0, *(len(batches) for batches, _ in clients)])
    rows = np.arange(int(sizes.sum()), dtype=np.int32)
    matrix = batch_matrix(rows, sizes, int(sizes.max(initial=1)))
    stream = make_stream(matrix, sizes, offsets)
    ids = [f"client {number}" for number in range(len(clients))]
    return make_cohort(columns, {TRAIN: stream}, ids, round=round)


def _concatenated(clients: Sequence[tuple[list[Columns], Columns]], names: list[str]) -> Columns:
    columns: Columns = {}
    for name in names:
        pieces = [batch[name] for batches, _ in clients for batch in batches]
        shapes = {piece.shape[1:] for piece in pieces}
        if len(shapes) > 1:
            a, b = sorted(shapes)[:2]
            raise ClientDataError(
                f"the batches of feature {name!r} have rows of the shapes {list(a)} and "
                f"{list(b)}; bring them to one shape, e.g. with `padded_batch`."
            )
        columns[name] = narrow(np.concatenate(pieces))
    return columns


def _read(client: Any, where: str) -> tuple[list[Columns], Columns]:
    """The batches of a client, and its features without rows, as far as they are known."""
    if _is_dataset(client):
        structure = name_leaves(client.element_spec)
        empty = {
            name: np.zeros([n or 0 for n in spec.shape][1:], spec.dtype.as_numpy_dtype)[None][:0]
            for name, spec in leaves_by_name(structure, client.element_spec)
        }
        batches = _restarted(client).as_numpy_iterator()
    else:
        empty, batches, structure = {}, iter(client), None
    found: list[Columns] = []
    for number, batch in enumerate(batches, 1):
        structure = name_leaves(batch) if structure is None else structure
        try:
            named = {k: np.asarray(v) for k, v in leaves_by_name(structure, batch)}
        except (KeyError, TypeError, ValueError):
            raise ClientDataError(
                f"{where}, batch {number}: it has another structure than the first; give all "
                "batches the same features."
            ) from None
        _check_rows(named, f"{where}, batch {number}")
        found.append(named)
    return found, empty


def _check_rows(batch: Columns, where: str) -> None:
    rows = {name: len(values) if values.ndim else None for name, values in batch.items()}
    if None in rows.values() or len(set(rows.values())) > 1:
        raise ClientDataError(
            f"{where}: its features have the numbers of rows {rows}; batch the data set with "
            "`.batch(size)`."
        )


def _is_dataset(value: Any) -> bool:
    """Whether it is a `tf.data.Dataset`; TensorFlow need not be there to ask."""
    return hasattr(value, "element_spec") and hasattr(value, "_variant_tensor")


def _restarted(dataset: Any) -> Any:
    """The same pipeline, built anew from its graph, with its seeds at their beginning."""
    import tensorflow as tf

    written = tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor).numpy()
    graph = tf.compat.v1.GraphDef.FromString(written)
    for node in graph.node:
        for handle in node.attr["value"].tensor.resource_handle_val if node.op == "Const" else ():
            # The generator that has counted the iterations so far. A name that is not known yet
            # makes the shuffle start one of its own, as in TFF's worker, another process.
            handle.name = f"{handle.name} of call {next(_CALLS)}"
    variant = tf.raw_ops.DatasetFromGraph(graph_def=graph.SerializeToString())
    return tf.data.experimental.from_variant(variant, dataset.element_spec)


_CALLS = itertools.count()
