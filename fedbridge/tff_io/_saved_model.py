"""The `saved_model.pb` of a program state: an object graph, and a function that returns its values.

What TFF's `FileProgramStateManager` writes with `tf.saved_model.save`, of a module

    class _ValueModule(tf.Module):
        def __call__(self): return self._value         # every leaf a tf.Variable

reduced to what `tf.saved_model.load` reads: the graph of objects (containers and variables), the
library with the one function, which reads every variable, and the structure of what it returns. The
save and restore functions, the graph and the op list that TensorFlow 1 would want are left out, and
so is `fingerprint.pb`, which is optional.

Reference: tensorflow_federated/python/program/file_utils.py;
tensorflow/core/protobuf/{saved_object_graph,trackable_object_graph,struct,meta_graph}.proto;
tensorflow/core/framework/{function,op_def,node_def,attr_value}.proto.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fedbridge.jax_core import StateError
from fedbridge.tff_io._proto import mapping, message, repeated
from fedbridge.tff_io._tensor_bundle import dtype_number, shape_proto
from fedbridge.tff_io._tff_state import as_array

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_FUNCTION = "__inference___call___0"
_RESOURCE = 20  # the dtype of a variable's handle


class ProgramState(NamedTuple):
    """A program state as TensorFlow keeps it.

    Attributes:
        saved_model: The content of `saved_model.pb`.
        tensors: What its bundle holds: the variables, and the graph of objects once more.
    """

    saved_model: bytes
    tensors: dict[str, np.ndarray]


class _Object(NamedTuple):
    """A node of the graph of objects: a container, a variable, a function."""

    saved: tuple[int, bytes]  # which of SavedObject's kinds it is, and that
    children: list[tuple[str, int]]  # local name, and number of the node
    key: str = ""  # of a variable: its name in the bundle


def variable_key(*path: str) -> str:
    """The name of a variable in a bundle.

    Example:
        >>> variable_key("_value", "global_model_weights", "trainable", "0")
        '_value/global_model_weights/trainable/0/.ATTRIBUTES/VARIABLE_VALUE'
    """
    escaped = (name.replace(".", "..").replace("/", ".S") for name in path)
    return "/".join([*escaped, ".ATTRIBUTES/VARIABLE_VALUE"])


def variable_path(key: str) -> str | None:
    """The path that `variable_key` made a name of; None where it is no variable's name.

    Example:
        >>> variable_path(variable_key("_value", "client_work", "learning_rate"))
        '_value/client_work/learning_rate'
    """
    path, found, _ = key.partition("/.ATTRIBUTES/VARIABLE_VALUE")
    return (
        re.sub(r"\.(.)", lambda escape: "/" if escape[1] == "S" else escape[1], path)
        if found
        else None
    )


def program_state(value: Any) -> ProgramState:
    """A structure of arrays as TFF's `FileProgramStateManager` saves it.

    Args:
        value: Named tuples, dictionaries with names as keys, lists and tuples of arrays.

    Raises:
        StateError: It holds another container, or a leaf of a dtype that TensorFlow lacks.
    """
    call = _Object((6, message((1, _FUNCTION), (2, _NO_ARGUMENTS))), [])
    objects = [_Object(_user_object("_generic_user_object"), []), call]
    objects.append(_Object(_user_object("signature_map"), []))
    objects[0].children.extend([("__call__", 1), ("signatures", 2)])
    tensors: dict[str, np.ndarray] = {}
    number = _add(value, ("_value",), objects, tensors)
    if number is not None:
        objects[0].children.insert(0, ("_value", number))
    numbers = {node.key: number for number, node in enumerate(objects) if node.key}
    tensors[OBJECT_GRAPH] = as_array(message(*repeated(1, map(_trackable_object, objects))))
    returned = _returned_keys(value, ("_value",))
    return ProgramState(
        _saved_model(
            objects=[_saved_object(node) for node in objects],
            returned=[(numbers[key], tensors[key]) for key in returned],
            structure=_structure(value),
        ),
        tensors,
    )


# The graph of objects.


def _add(
    value: Any, path: tuple[str, ...], objects: list[_Object], tensors: dict[str, np.ndarray]
) -> int | None:
    """Adds a value with all that is in it to the graph; None where TensorFlow tracks nothing."""
    number = len(objects)
    kind = _kind(value, path)
    if kind is None:
        key, array = variable_key(*path), as_array(value)
        dtype = dtype_number(array)
        if dtype is None:
            raise StateError(
                f"the state's {_text(path)} is {array.dtype}, which TensorFlow has no such dtype "
                "for; keep numbers, truth values or bytes there."
            )
        variable = message((1, dtype), (2, shape_proto(array.shape)), (3, 1), (6, "Variable"))
        objects.append(_Object((7, variable), [], key))
        tensors[key] = array
        return number
    node = _Object(_user_object(f"trackable_{kind}_wrapper"), [])
    objects.append(node)
    children = [
        (name, _add(child, (*path, name), objects, tensors)) for name, child in _children(value)
    ]
    tracked = [(name, child) for name, child in children if child is not None]
    if kind == "tuple" and not tracked:
        objects.pop()  # a tuple of nothing stays a value of Python's
        return None
    node.children.extend(tracked)
    if hasattr(value, "_fields"):  # TensorFlow finds the fields of a named tuple by number too
        names = list(value._fields)
        node.children.extend((str(names.index(name)), child) for name, child in tracked)
    return number


def _kind(value: Any, path: tuple[str, ...]) -> str | None:
    """The kind of a container; None for a leaf."""
    if value is None or isinstance(value, tuple):
        return "tuple"
    if isinstance(value, list):
        return "list"
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise StateError(
                f"the state's {_text(path)} is a dictionary with keys that are no texts, which "
                "TensorFlow does not save; make them texts."
            )
        return "dict"
    if hasattr(value, "__array__") or isinstance(value, int | float | complex | str | bytes):
        return None
    raise StateError(
        f"the state's {_text(path)} is a {type(value).__name__}, which TensorFlow does not save; "
        "make it a NamedTuple."
    )


def _children(value: Any) -> list[tuple[str, Any]]:
    if value is None:
        return []
    if hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, Mapping):
        return list(value.items())
    return [(str(number), child) for number, child in enumerate(value)]


def _user_object(identifier: str) -> tuple[int, bytes]:
    return 4, message((1, identifier), (2, message((1, 1), (2, 1))))


def _references(node: _Object) -> list[tuple[int, Any]]:
    return repeated(1, (message((1, number), (2, name)) for name, number in node.children))


def _saved_object(node: _Object) -> bytes:
    return message(*_references(node), node.saved)


def _trackable_object(node: _Object) -> bytes:
    """The same node in the checkpoint's own graph."""
    attribute = [(2, message((1, "VARIABLE_VALUE"), (2, "Variable"), (3, node.key)))]
    return message(*_references(node), *(attribute if node.key else []))


# The function, and what it returns.


def _returned_keys(value: Any, path: tuple[str, ...]) -> list[str]:
    """The variables in the order of tf.nest: a dictionary's keys are sorted."""
    if _kind(value, path) is None:
        return [variable_key(*path)]
    children = _children(value)
    if isinstance(value, Mapping):
        children.sort()
    return [key for name, child in children for key in _returned_keys(child, (*path, name))]


def _structure(value: Any) -> bytes:
    """A StructuredValue: containers, and a TensorSpec for each leaf."""
    if value is None:
        return message((1, b""))
    if isinstance(value, Mapping):
        fields = {name: _structure(child) for name, child in value.items()}
        return message((53, message(*mapping(1, fields))))
    if hasattr(value, "_fields"):
        pairs = {name: _structure(child) for name, child in _children(value)}
        return message((54, message((1, type(value).__name__), *mapping(2, pairs))))
    if isinstance(value, list | tuple):
        kind = 51 if isinstance(value, list) else 52
        return message((kind, message(*repeated(1, map(_structure, value)))))
    array = as_array(value)
    dtype = dtype_number(array)
    assert dtype is not None
    return message((33, message((2, shape_proto(array.shape)), (3, dtype))))


def _empty_structure(kind: int) -> bytes:
    return message((kind, b""))


_NONE, _LIST, _TUPLE, _DICT = map(_empty_structure, (1, 51, 52, 53))
_FULL_ARG_SPEC = {
    "args": _LIST,
    "varargs": _NONE,
    "varkw": _NONE,
    "defaults": _NONE,
    "kwonlyargs": _LIST,
    "kwonlydefaults": _NONE,
    "annotations": _DICT,
}
_NO_ARGUMENTS = message(
    (1, message((54, message((1, "FullArgSpec"), *mapping(2, _FULL_ARG_SPEC))))), (5, _TUPLE)
)
_NO_INPUTS = message((52, message(*repeated(1, [_TUPLE, _DICT]))))


def _function(variables: list[np.ndarray]) -> bytes:
    """A FunctionDef that takes the handles of variables and returns their values."""
    arguments, results, reads, returns = [], [], [], {}
    for i, array in enumerate(variables):
        dtype = dtype_number(array)
        assert dtype is not None
        handle = message((1, dtype), (2, shape_proto(array.shape)))
        arguments.append(message((1, f"variable_{i}"), (3, _RESOURCE), (7, handle)))
        results.append(message((1, f"value_{i}"), (3, dtype)))
        attributes = mapping(5, {"dtype": message((6, dtype))})
        reads.append(
            message((1, f"read_{i}"), (2, "ReadVariableOp"), (3, f"variable_{i}"), *attributes)
        )
        returns[f"value_{i}"] = f"read_{i}:value:0".encode()
    stateful = (17, 1)
    signature = message((1, _FUNCTION), *repeated(2, arguments), *repeated(3, results), stateful)
    return message((1, signature), *repeated(3, reads), *mapping(4, returns))


def _saved_model(
    objects: list[bytes], returned: list[tuple[int, np.ndarray]], structure: bytes
) -> bytes:
    library = message((1, _function([array for _, array in returned])))
    function = message(
        *repeated(2, (number for number, _ in returned)), (3, _NO_INPUTS), (4, structure)
    )
    graph_of_objects = message(*repeated(1, objects), *mapping(2, {_FUNCTION: function}))
    meta_graph = message(
        (1, message((4, "serve"))), (2, message((2, library))), (7, graph_of_objects)
    )
    return message((1, 1), (2, meta_graph))


def _text(path: tuple[str, ...]) -> str:
    return repr("/".join(path[1:]))
