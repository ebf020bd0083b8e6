"""The batches of a script's `tf.data` pipelines, as TFF reads them in a call of `next`.

TFF restarts a seeded pipeline in every call and draws an unseeded one anew. Iterating the script's
own object does neither, so its graph is built a second time in every call, as TFF does (its data
sets travel as graphs). A pipeline that gives the same batches in every call is read once, also if
the script makes it anew in every round: it is known by its graph.
"""

import hashlib
import importlib
import itertools
import weakref
from collections import OrderedDict
from typing import Any

import numpy as np

from fedbridge.tff_io._client_data import leaves_by_name

Columns = dict[str, np.ndarray]

_CALLS = itertools.count()
_ROOM = 1 << 30


class _Cache:
    """Batches by their pipelines, those used last, up to a size in bytes."""

    def __init__(self, room: int):
        self._room, self._used = room, 0
        self._batches: OrderedDict[bytes, tuple[int, list[Columns]]] = OrderedDict()

    def get(self, key: bytes) -> list[Columns] | None:
        if key not in self._batches:
            return None
        self._batches.move_to_end(key)
        return self._batches[key][1]

    def put(self, key: bytes, batches: list[Columns]) -> None:
        size = sum(column.nbytes for batch in batches for column in batch.values())
        self._batches[key] = size, batches
        self._used += size
        while self._used > self._room:
            _, (size, _) = self._batches.popitem(last=False)
            self._used -= size


_CACHE = _Cache(_ROOM)
# A data set never changes: its graph need not be written again to be known.
_KEYS: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()


def is_dataset(value: Any) -> bool:
    """Whether it is a `tf.data.Dataset`; TensorFlow need not be there to ask."""
    return hasattr(value, "element_spec") and hasattr(value, "_variant_tensor")


def read(dataset: Any, structure: Any) -> list[Columns]:
    """The batches that a call of `next` sees.

    Args:
        dataset: A `tf.data.Dataset`.
        structure: Of its elements, with the names of the features for leaves.

    Returns:
        Feature name to values, for each batch. The arrays may be shared between calls.
    """
    key = _KEYS.get(dataset)
    if key is not None and (found := _CACHE.get(key)) is not None:
        return found
    graph, handles = _graph(dataset)
    if _is_fixed(graph):
        key = _KEYS[dataset] = _key(graph)
        if (found := _CACHE.get(key)) is not None:
            return found
    batches = [
        {name: np.asarray(value) for name, value in leaves_by_name(structure, batch)}
        for batch in _made(graph, handles, dataset).as_numpy_iterator()
    ]
    if key is not None:
        _CACHE.put(key, batches)
    return batches


def restarted(dataset: Any) -> Any:
    """The data set as a computation of TFF's gets it: from its beginning, or drawn anew."""
    return _made(*_graph(dataset), dataset) if is_dataset(dataset) else dataset


def _graph(dataset: Any) -> tuple[Any, list[Any]]:
    """A pipeline as a graph, and what counts the iterations of its shuffles."""
    import tensorflow as tf

    written = tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor).numpy()
    graph = tf.compat.v1.GraphDef.FromString(written)
    handles = [
        handle
        for node in graph.node
        if node.op == "Const"
        for handle in node.attr["value"].tensor.resource_handle_val
        if _counts(handle)
    ]
    numbers: dict[str, int] = {}
    for handle in handles:
        handle.name = f"generator {numbers.setdefault(handle.name, len(numbers))}"
    return graph, handles


def _made(graph: Any, handles: list[Any], dataset: Any) -> Any:
    """The data set of a graph, a copy of this one."""
    import tensorflow as tf

    call = next(_CALLS)
    for handle in handles:
        # The script's generator has counted its iterations so far. A name that is not known yet
        # makes the shuffle start one of its own, as in TFF's worker, another process.
        handle.name = f"{handle.name} of call {call}"
    variant = tf.raw_ops.DatasetFromGraph(graph_def=graph.SerializeToString())
    return tf.data.experimental.from_variant(variant, dataset.element_spec)


def _key(graph: Any) -> bytes:
    """The same for graphs that compute the same, whenever they and their functions were made."""
    copy = type(graph).FromString(graph.SerializeToString())
    functions = {function.signature.name: function for function in copy.library.function}
    names: dict[str, str] = {}

    def rename(nodes: Any) -> None:
        """Functions are numbered as the nodes call them."""
        for node in nodes:
            node.op = renamed(node.op)
            node.attr.pop("metadata", None)  # the names of data sets, which are counted
            for attribute in node.attr.values():
                called = [attribute.func] if attribute.HasField("func") else attribute.list.func
                for function in called:
                    function.name = renamed(function.name)

    def renamed(name: str) -> str:
        if name in functions and name not in names:
            names[name] = f"function {len(names)}"
            functions[name].signature.name = names[name]
            rename(functions[name].node_def)
        return names.get(name, name)

    rename(copy.node)
    library = [functions[name].SerializeToString(deterministic=True) for name in names]
    copy.ClearField("library")
    return hashlib.sha256(b"".join([copy.SerializeToString(deterministic=True), *library])).digest()


def _is_fixed(graph: Any) -> bool:
    """Whether a pipeline gives the same batches whenever it is restarted.

    Its shuffles have seeds, and nothing else in it keeps or draws anything: no operation that
    TensorFlow calls stateful, and no resource, such as a table, whose content the graph hides.
    """
    registry: Any = importlib.import_module("tensorflow.python.framework.op_def_registry")
    constants = {n.name: n.attr["value"].tensor for n in graph.node if n.op == "Const"}
    functions = {function.signature.name for function in graph.library.function}
    for node in _nodes(graph):
        if "Shuffle" in node.op:
            seeds = [constants.get(name) for name in node.input[2:4]]
            if not any(seed is not None and _integer(seed) for seed in seeds):
                return False
        elif "Dataset" not in node.op and node.op != "_Retval":
            known = node.op in functions or registry.get(node.op)
            if not known or (known is not True and known.is_stateful):
                return False
        if "Generator" in node.op or "Sample" in node.op or "Random" in node.op:
            return False
        tensor = node.attr["value"].tensor if node.op == "Const" else None
        if tensor is not None and not all(map(_counts, tensor.resource_handle_val)):
            return False
    return True


def _counts(handle: Any) -> bool:
    """Whether a resource is what counts the iterations of a shuffle."""
    return "SeedGenerator" in handle.maybe_type_name


def _nodes(graph: Any) -> list[Any]:
    """All of them, those of its functions too."""
    inner = [node for function in graph.library.function for node in function.node_def]
    return [*graph.node, *inner]


def _integer(tensor: Any) -> int:
    return next(iter(tensor.int64_val), 0) or int.from_bytes(tensor.tensor_content, "little")
