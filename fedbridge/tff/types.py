"""`tff.types`: the types, the types of values, and questions about types."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from fedbridge.tff import structure
from fedbridge.tff._dtypes import ArrayShape as ArrayShape
from fedbridge.tff._errors import missing
from fedbridge.tff._type_errors import (
    FederatedTypeError as FederatedTypeError,
    TypeNotAssignableError as TypeNotAssignableError,
    TypesNotEquivalentError as TypesNotEquivalentError,
    TypesNotIdenticalError as TypesNotIdenticalError,
    UnexpectedTypeError as UnexpectedTypeError,
)
from fedbridge.tff._types import (
    AbstractType as AbstractType,
    FederatedType as FederatedType,
    FunctionType as FunctionType,
    Placement as Placement,
    PlacementType as PlacementType,
    SequenceType as SequenceType,
    StructType as StructType,
    StructWithPythonType as StructWithPythonType,
    TensorType as TensorType,
    Type as Type,
    TypeRelation as TypeRelation,
    at_clients as at_clients,
    at_server as at_server,
    contains as contains,
    to_type as to_type,
    type_mismatch_error_message as type_mismatch_error_message,
)

tensorflow_to_type = to_type


def infer_type(value: Any) -> Type:
    """The type of a value: what has a type, arrays, tensors, data sets, numbers, containers.

    Raises:
        FederatedTypeError: It has none.

    Example:
        >>> str(infer_type({"a": 1, "b": [2.0, "c"]}))
        '<a=int32,b=<float32,str>>'
    """
    known = getattr(value, "type_signature", None)
    if isinstance(known, Type):
        return known
    if hasattr(value, "element_spec"):
        return SequenceType(value.element_spec)
    if isinstance(value, bool | int | float | complex | str | bytes):
        return TensorType(_python_dtype(value))
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return TensorType(value.dtype, value.shape)
    elements = structure.parts(value)
    if elements is None:
        raise FederatedTypeError(
            f"{type(value).__name__} is no value of TFF's; give arrays, numbers, text, data sets "
            "or containers of these."
        )
    inferred = [(name, infer_type(element)) for name, element in elements]
    if isinstance(value, structure.Struct):
        return StructType(inferred)
    return StructWithPythonType(inferred, type(value))


def type_from_tensors(tensors: Any) -> Type:
    """The type of a structure of tensors, as older scripts asked for it."""
    return infer_type(tensors)


def contains_only(type_signature: Type, predicate: Callable[[Type], bool]) -> bool:
    """Whether a type and all that it is made of fulfil a condition."""
    return not contains(type_signature, lambda t: not predicate(t))


def count(type_signature: Type, predicate: Callable[[Type], bool]) -> int:
    """How many types, of itself and what it is made of, fulfil a condition."""
    inner = sum(count(child, predicate) for child in type_signature.children())
    return inner + bool(predicate(type_signature))


def is_structure_of_tensors(type_spec: Type) -> bool:
    """Whether it is an array or a structure of arrays."""
    return contains_only(type_spec, lambda t: isinstance(t, TensorType | StructType))


def is_tensorflow_compatible_type(type_spec: Type | None) -> bool:
    """Whether TensorFlow can take such values: arrays, structures, sequences."""
    kinds = TensorType | StructType | SequenceType
    return type_spec is None or contains_only(type_spec, lambda t: isinstance(t, kinds))


def _structure_of(kind: type[np.generic]) -> Callable[[Type], bool]:
    def is_structure(type_spec: Type) -> bool:
        inner = type_spec.member if isinstance(type_spec, FederatedType) else type_spec
        return is_structure_of_tensors(inner) and contains_only(
            inner, lambda t: not isinstance(t, TensorType) or np.issubdtype(t.dtype, kind)
        )

    return is_structure


is_structure_of_floats = _structure_of(np.floating)
is_structure_of_integers = _structure_of(np.integer)


def is_shape_fully_defined(shape: ArrayShape) -> bool:
    """Whether all sizes are known."""
    return shape is not None and None not in shape


def num_elements_in_shape(shape: ArrayShape) -> int | None:
    """How many elements an array of that shape has; None where that is not known."""
    if not is_shape_fully_defined(shape):
        return None
    return functools.reduce(operator.mul, shape or (), 1)  # type: ignore[arg-type]


def structure_from_tensor_type_tree(fn: Callable[[TensorType], Any], type_spec: Any) -> Any:
    """What a function makes of the arrays' types, in the containers of the type."""
    type_spec = to_type(type_spec)
    if isinstance(type_spec, StructType):
        pairs = structure.iter_elements(type_spec)
        inner = [(name, structure_from_tensor_type_tree(fn, child)) for name, child in pairs]
        return structure.rebuilt(type_spec.python_container, inner)
    if not isinstance(type_spec, TensorType):
        raise ValueError(f"a structure of arrays is needed, not {type_spec}.")
    return fn(type_spec)


def type_to_tf_tensor_specs(type_spec: Any) -> Any:
    """The `tf.TensorSpec`s of a structure of arrays."""
    import tensorflow as tf

    def spec(leaf: TensorType) -> Any:
        dtype = tf.string if leaf.dtype.kind == "U" else tf.as_dtype(leaf.dtype)
        return tf.TensorSpec(tf.TensorShape(leaf.shape), dtype)  # type: ignore[arg-type]

    return structure_from_tensor_type_tree(spec, type_spec)


def _python_dtype(value: Any) -> type[np.generic]:
    """As TFF takes a number of Python's: in 32 bits where it fits."""
    if isinstance(value, bool):
        return np.bool_
    if isinstance(value, int):
        return np.int32 if -(2**31) <= value < 2**31 else np.int64
    if isinstance(value, float):
        return np.float32
    return np.complex64 if isinstance(value, complex) else np.str_


__getattr__ = missing("tff.types")
