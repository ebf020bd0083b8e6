"""Data sets of federated computations as the bytes of their graphs, which is how TFF sends them.

So a seeded pipeline restarts in every call, and an unseeded one is drawn anew.
"""

import importlib.util
import itertools
from typing import Any

import numpy as np

from fedbridge.jax_core import ScriptError
from fedbridge.tff._type_errors import FederatedTypeError
from fedbridge.tff._types import SequenceType, to_type
from fedbridge.tff.types import type_to_tf_tensor_specs


def tensorflow(what: str = "tff.tf_computation and data sets in federated computations") -> Any:
    """TensorFlow.

    Args:
        what: What runs in it, for the error.

    Raises:
        ScriptError: It is not installed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ScriptError(
            f"{what} run in TensorFlow, which is not installed; install it beside fedbridge, "
            "`pip install tensorflow`."
        )
    import tensorflow as tf

    return tf


def session(graph: Any) -> Any:
    """A session of a graph, which cannot change any more.

    TFF runs graphs as they are written; TensorFlow elsewhere writes them anew, with other rounding
    (it makes (1 + 1e-7) - p of 1 - p + 1e-7).
    """
    tf = tensorflow()
    graph.finalize()
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.compat.v1.Session(graph=graph, config=config)


def written(dataset: Any, type_spec: SequenceType) -> bytes:
    """A data set as the bytes of its graph.

    Raises:
        FederatedTypeError: It is none, or its elements are of another type.
    """
    tf = tensorflow()
    if not hasattr(dataset, "element_spec"):
        raise FederatedTypeError(
            f"a value of type {type_spec} is a tf.data.Dataset or a list of its elements, not "
            f"{type(dataset).__name__}."
        )
    type_spec.check_assignable_from(to_type(dataset))
    return tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor).numpy()


def read(graph: bytes, type_spec: SequenceType) -> Any:
    """The data set of a graph's bytes."""
    tf = tensorflow()
    variant = tf.raw_ops.DatasetFromGraph(graph_def=graph)
    return tf.data.experimental.from_variant(variant, element_spec(type_spec))


def of_elements(elements: list[list[Any]], type_spec: SequenceType) -> Any:
    """A data set of elements in memory.

    Args:
        elements: The arrays of each. Those of one shape in a row are kept in one array.
        type_spec: The type of the data set.
    """
    tf = tensorflow()
    spec = element_spec(type_spec)

    def slices(columns: list[Any]) -> Any:
        found = tf.data.Dataset.from_tensor_slices(tuple(columns))
        return found.map(lambda *leaves: _of_spec(tf, leaves, spec))

    def shapes(leaves: list[Any]) -> list[Any]:
        return [np.shape(leaf) for leaf in leaves]

    empty = [
        tf.zeros([0, *(size or 0 for size in leaf.shape)], leaf.dtype)
        for leaf in tf.nest.flatten(spec)
    ]
    joined = None
    for _, alike in itertools.groupby(elements, shapes):
        piece = slices([np.stack(column) for column in zip(*alike, strict=True)])
        joined = piece if joined is None else joined.concatenate(piece)
    return slices(empty) if joined is None else joined


def element_spec(type_spec: SequenceType) -> Any:
    """The `tf.TensorSpec`s of an element."""
    return type_to_tf_tensor_specs(type_spec.element)


def _of_spec(tf: Any, leaves: Any, spec: Any) -> Any:
    """An element whose sizes are as little known as the type says."""
    loosened = [
        tf.compat.v1.placeholder_with_default(leaf, wanted.shape)
        for leaf, wanted in zip(leaves, tf.nest.flatten(spec), strict=True)
    ]
    return tf.nest.pack_sequence_as(spec, loosened)
