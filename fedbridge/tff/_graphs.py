"""TensorFlow functions as TFF runs them: traced once into a graph, variables new in every call."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fedbridge.tff import structure
from fedbridge.tff._client_updates import Placed, on_jax
from fedbridge.tff._computations import TENSORFLOW, Compiled, apply, body, not_none
from fedbridge.tff._representations import elements, leaves
from fedbridge.tff._sequences import element_spec, session, tensorflow
from fedbridge.tff._type_errors import FederatedTypeError
from fedbridge.tff._types import (
    FunctionType,
    SequenceType,
    StructType,
    StructWithPythonType,
    TensorType,
    Type,
)
from fedbridge.tff.types import is_tensorflow_compatible_type, type_to_tf_tensor_specs
from fedbridge.tff_io._graph_in_jax import Graph


def compile_tensorflow(
    function: Callable[..., Any], parameter_type: Type | None, unpack: bool | None
) -> Compiled:
    """The computation whose body is a function of tensors.

    Raises:
        FederatedTypeError: Its parameter is not made of tensors and data sets.
        ScriptError: TensorFlow is not installed.
    """
    tf = tensorflow()
    if not is_tensorflow_compatible_type(parameter_type):
        raise FederatedTypeError(
            f"a tff.tf_computation takes tensors, data sets and structures of them, not "
            f"{parameter_type}; a tff.federated_computation takes what is at clients and server."
        )

    def traced(leaf: Callable[[Type], Any]) -> Any:
        given = parameter_type
        if given is None:
            return not_none(function(), function)
        whole = lambda: _argument(given, leaf)
        parts = lambda: _arguments(given, leaf)
        return not_none(apply(function, given, whole, parts, unpack), function)

    feeds: list[Any] = []
    places: list[Placed] = []
    variables: list[Any] = []

    def placeholder(type_spec: Type) -> Any:
        if isinstance(type_spec, SequenceType):
            feeds.append(tf.compat.v1.placeholder(tf.string, ()))
            places.append(Placed(feeds[-1].op.name, type_spec))
            variant = tf.raw_ops.DatasetFromGraph(graph_def=feeds[-1])
            return tf.data.experimental.from_variant(variant, element_spec(type_spec))
        spec = type_to_tf_tensor_specs(type_spec)
        feeds.append(tf.compat.v1.placeholder(spec.dtype, spec.shape))
        return feeds[-1]

    def recording(next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        variables.append(next_creator(**kwargs))
        return variables[-1]

    with tf.Graph().as_default() as graph, body(TENSORFLOW):
        with tf.variable_creator_scope(recording):
            made = traced(placeholder)
        fetches: list[Any] = []
        result_type = _captured(tf, made, fetches)
        tables = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS)
        # What starts from other variables, as a Keras optimizer's scheduled rate, comes after them.
        later = [variable.initializer for variable in variables if _starts_from_others(variable)]
        first = [variable.initializer for variable in variables]
        first = [operation for operation in first if operation not in later]
        initial = [tf.group(*first, *tables), *later]
    opened = session(graph)

    def in_session(fed: Mapping[str, Any]) -> list[Any]:
        feed = {placeholder: fed[placeholder.op.name] for placeholder in feeds}
        if variables or tables:
            for operation in initial:
                opened.run(operation, feed)
        return opened.run(fetches, feed)

    results = in_session
    if len(places) == 1 and not tables:
        starts = {
            variable.handle.op.name: variable.initializer.inputs[1].name for variable in variables
        }
        in_jax = Graph(graph.as_graph_def(), [tensor.name for tensor in fetches], starts)
        if in_jax.trains():
            results = on_jax(in_jax, places[0], in_session, function)

    def compute(argument: Any, run: Any) -> Any:
        fed = [] if parameter_type is None else leaves(argument, parameter_type)
        names = [placeholder.op.name for placeholder in feeds]
        return _packed(iter(results(dict(zip(names, fed, strict=True)))), result_type)

    def inline(argument: Any) -> Any:
        """Traced once more, as part of the graph that is being traced."""
        given = iter(_tensors(tf, argument, parameter_type))
        made = traced(lambda type_spec: next(given))
        return structure.map_structure(
            lambda part: part.read_value() if hasattr(part, "read_value") else part, made
        )

    return Compiled(FunctionType(parameter_type, result_type), compute, inline)


def _starts_from_others(variable: Any) -> bool:
    """Whether the initial value of a variable in a graph is computed from other variables."""
    seen, waiting = set(), [variable.initializer.inputs[1].op]
    while waiting:
        operation = waiting.pop()
        if operation.type == "ReadVariableOp":
            return True
        if operation.name not in seen:
            seen.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs]
    return False


# --------------------------------------------------------------------------- parameter and result


def _argument(type_spec: Type, leaf: Callable[[Type], Any]) -> Any:
    """The argument of a function: in the container of its type, in a Struct where it names none."""
    if isinstance(type_spec, StructType) and type_spec.python_container is None:
        return _in_structs(type_spec, leaf)
    return _in_containers(type_spec, leaf)


def _arguments(type_spec: Any, leaf: Callable[[Type], Any]) -> list[Any]:
    """Its elements as arguments; one without a name always in Python's containers."""
    return [
        _in_containers(child, leaf) if name is None else _argument(child, leaf)
        for name, child in structure.iter_elements(type_spec)
    ]


def _in_structs(type_spec: Type, leaf: Callable[[Type], Any]) -> Any:
    if not isinstance(type_spec, StructType):
        return leaf(type_spec)
    pairs = structure.iter_elements(type_spec)
    return structure.Struct((name, _in_structs(child, leaf)) for name, child in pairs)


def _in_containers(type_spec: Type, leaf: Callable[[Type], Any]) -> Any:
    if not isinstance(type_spec, StructType):
        return leaf(type_spec)
    pairs = structure.iter_elements(type_spec)
    inner = [(name, _in_containers(child, leaf)) for name, child in pairs]
    return structure.rebuilt(type_spec.python_container, inner)


def _captured(tf: Any, made: Any, fetches: list[Any]) -> Type:
    """The type of what a function returned; what is fetched for it is appended."""
    if isinstance(made, str | bytes | bool | int | float | np.generic | np.ndarray):
        made = tf.constant(made)
    if isinstance(made, tf.data.Dataset):
        variant = tf.data.experimental.to_variant(made)
        fetches.append(tf.raw_ops.DatasetToGraphV2(input_dataset=variant))
        return SequenceType(made.element_spec)
    if tf.is_tensor(made) and not isinstance(made, tf.RaggedTensor | tf.sparse.SparseTensor):
        made = made.read_value() if hasattr(made, "read_value") else tf.identity(made)
        fetches.append(made)
        return TensorType(made.dtype, made.shape)
    found = structure.parts(made)
    if found is None:
        raise FederatedTypeError(
            f"a tff.tf_computation cannot return {type(made).__name__}; return tensors, data sets "
            "or containers of them."
        )
    inner = [(name, _captured(tf, part, fetches)) for name, part in found]
    if isinstance(made, structure.Struct):
        return StructType(inner)
    return StructWithPythonType(inner, type(made))


def _packed(flat: Iterator[Any], type_spec: Type) -> Any:
    if not isinstance(type_spec, StructType):
        return next(flat)
    return tuple(_packed(flat, child) for child in type_spec)


def _tensors(tf: Any, argument: Any, type_spec: Type | None) -> list[Any]:
    """The leaves of an argument inside a graph."""
    if type_spec is None:
        return []
    if isinstance(type_spec, StructType):
        pairs = zip(elements(argument, type_spec), type_spec, strict=True)
        return [leaf for part, child in pairs for leaf in _tensors(tf, part, child)]
    if isinstance(type_spec, SequenceType):
        return [argument]
    return [tf.convert_to_tensor(argument, type_to_tf_tensor_specs(type_spec).dtype)]
