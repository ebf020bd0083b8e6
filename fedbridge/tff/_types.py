"""Types: what a value is made of and where it is, printed as TFF 0.87.0 prints it.

Types are written with NumPy's dtypes or TensorFlow's, with `tf.TensorSpec` and the `element_spec`
of a data set, in the spellings of all eras. TensorFlow itself is not imported.
"""

import abc
import enum
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fedbridge.tff import structure
from fedbridge.tff._dtypes import ArrayShape, dtype_of, is_dtype, is_shape, shape_of
from fedbridge.tff._type_errors import (
    FederatedTypeError,
    TypeNotAssignableError,
    TypesNotEquivalentError,
    TypesNotIdenticalError,
)
from fedbridge.tff._type_text import joined, struct_lines


class TypeRelation(enum.Enum):
    """How two types may be related."""

    EQUIVALENT = "equivalent"
    IDENTICAL = "identical"
    ASSIGNABLE = "assignable"


class Placement(NamedTuple):
    """Where a federated value is.

    Attributes:
        name: As it is printed.
        default_all_equal: Whether its members are one and the same if nothing is said.
    """

    name: str
    default_all_equal: bool

    def __str__(self) -> str:
        return self.name


CLIENTS = Placement("CLIENTS", False)
SERVER = Placement("SERVER", True)


class Type(abc.ABC):
    """What all types can do."""

    def _key(self) -> Any:
        """What two types of one kind have to have in common to be equal."""
        return ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Type) and type(self) is type(other) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((type(self), self._key()))

    def children(self) -> Iterator["Type"]:
        """The types that it is made of."""
        return iter(())

    def compact_representation(self) -> str:
        """On one line, which is also what `str` gives."""
        return "".join(self.lines(formatted=False))

    def formatted_representation(self) -> str:
        """On several lines, an element on each."""
        return "\n".join(line.rstrip() for line in self.lines(formatted=True))

    @abc.abstractmethod
    def lines(self, formatted: bool) -> list[str]:
        """The lines of its text; one where nothing is broken."""

    def __str__(self) -> str:
        return self.compact_representation()

    def is_assignable_from(self, source_type: "Type") -> bool:
        """Whether values of another type can be taken as values of this one."""
        return self == source_type

    def is_equivalent_to(self, other: "Type") -> bool:
        """Whether two types can take each other's values."""
        return self.is_assignable_from(other) and other.is_assignable_from(self)

    def is_identical_to(self, other: "Type") -> bool:
        """Whether two types are the same, containers included."""
        return self == other

    def check_assignable_from(self, source_type: "Type") -> None:
        """Raises TypeNotAssignableError where values of the other type cannot be taken."""
        if not self.is_assignable_from(source_type):
            text = type_mismatch_error_message(source_type, self, TypeRelation.ASSIGNABLE)
            raise TypeNotAssignableError(text)

    def check_equivalent_to(self, other: "Type") -> None:
        """Raises TypesNotEquivalentError."""
        if not self.is_equivalent_to(other):
            text = type_mismatch_error_message(self, other, TypeRelation.EQUIVALENT)
            raise TypesNotEquivalentError(text)

    def check_identical_to(self, other: "Type") -> None:
        """Raises TypesNotIdenticalError."""
        if not self.is_identical_to(other):
            text = type_mismatch_error_message(self, other, TypeRelation.IDENTICAL)
            raise TypesNotIdenticalError(text)


class TensorType(Type):
    """An array of a dtype and a shape, None for a size that is not known.

    Example:
        >>> str(TensorType(np.float32, [None, 10]))
        'float32[?,10]'
    """

    def __init__(self, dtype: Any, shape: Any = ()):
        self.dtype = dtype_of(dtype)
        self.shape: ArrayShape = shape_of(shape)

    def lines(self, formatted: bool) -> list[str]:
        """As TFF prints it."""
        if self.shape is None:
            return [f"{self.dtype.name!r}(shape=None)"]
        sizes = ",".join("?" if size is None else str(size) for size in self.shape)
        return [f"{self.dtype.name}[{sizes}]" if self.shape else self.dtype.name]

    def __repr__(self) -> str:
        dtype = f"np.{self.dtype.type.__name__}"
        return f"TensorType({dtype})" if self.shape == () else f"TensorType({dtype}, {self.shape})"

    def _key(self) -> tuple[np.dtype, ArrayShape]:
        return self.dtype, self.shape

    def is_assignable_from(self, source_type: Type) -> bool:
        """Of the same dtype; a size that is not known takes any."""
        if not isinstance(source_type, TensorType) or self.dtype != source_type.dtype:
            return False
        mine, other = self.shape, source_type.shape
        if mine is None or other is None:
            return mine is None
        sizes = len(mine) == len(other)
        return sizes and all(m in (None, o) for m, o in zip(mine, other, strict=True))


class StructType(structure.Struct, Type):
    """Elements with or without names.

    Example:
        >>> str(StructType([("a", np.int32), ("b", (np.float32, [10]))]))
        '<a=int32,b=float32[10]>'
    """

    def __init__(self, elements: Any, *, convert: bool = True):
        super().__init__(_named_types(elements))

    @property
    def python_container(self) -> type | None:
        """The class that holds such values in Python; None where any does."""
        return None

    def children(self) -> Iterator[Type]:
        """The types of its elements."""
        return iter(self)

    def lines(self, formatted: bool) -> list[str]:
        """As TFF prints it."""
        pairs = structure.iter_elements(self)
        return struct_lines(((name, type_.lines(formatted)) for name, type_ in pairs), formatted)

    def __repr__(self) -> str:
        pairs = structure.iter_elements(self)
        members = (
            repr(type_) if name is None else f"({name!r}, {type_!r})" for name, type_ in pairs
        )
        return f"StructType([{', '.join(members)}])"

    def __str__(self) -> str:
        return self.compact_representation()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StructType) and structure.Struct.__eq__(self, other) is True

    def __hash__(self) -> int:
        return structure.Struct.__hash__(self)

    def is_assignable_from(self, source_type: Type) -> bool:
        """Elements that are; one without a name may be taken for one with."""
        if not isinstance(source_type, StructType) or len(self) != len(source_type):
            return False
        pairs = zip(
            structure.iter_elements(self), structure.iter_elements(source_type), strict=True
        )
        return all(
            other_name in (None, name) and mine.is_assignable_from(other)
            for (name, mine), (other_name, other) in pairs
        )


class StructWithPythonType(StructType):
    """The same, held by a class of Python."""

    def __init__(self, elements: Any, container_type: type):
        super().__init__(elements)
        self._container = container_type

    @property
    def python_container(self) -> type:
        """The class."""
        return self._container

    def __repr__(self) -> str:
        return f"{super().__repr__()} as {self._container.__name__}"

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, StructWithPythonType) and self._container is other._container
        return same and structure.Struct.__eq__(self, other) is True

    def __hash__(self) -> int:
        return hash((structure.Struct.__hash__(self), self._container))


class SequenceType(Type):
    """Elements one after the other: a data set.

    Example:
        >>> str(SequenceType({"x": (np.float32, [None, 784]), "y": (np.int32, [None])}))
        '<x=float32[?,784],y=int32[?]>*'
    """

    def __init__(self, element: Any):
        self.element = _tuples_for_lists(to_type(element))
        if contains(
            self.element, lambda t: isinstance(t, FederatedType | FunctionType | SequenceType)
        ):
            raise ValueError(f"a sequence cannot be made of {self.element}.")

    def children(self) -> Iterator[Type]:
        """The type of an element."""
        yield self.element

    def lines(self, formatted: bool) -> list[str]:
        """As TFF prints it."""
        return joined(self.element.lines(formatted), ["*"])

    def __repr__(self) -> str:
        return f"SequenceType({self.element!r})"

    def _key(self) -> Type:
        return self.element

    def is_assignable_from(self, source_type: Type) -> bool:
        """Sequences whose elements are."""
        is_one = isinstance(source_type, SequenceType)
        return is_one and self.element.is_assignable_from(source_type.element)


class FunctionType(Type):
    """From one parameter, or none, to a result."""

    def __init__(self, parameter: Any, result: Any):
        self.parameter = None if parameter is None else to_type(parameter)
        self.result = to_type(result)

    def children(self) -> Iterator[Type]:
        """The types of the parameter and of the result."""
        return (t for t in (self.parameter, self.result) if t is not None)

    def lines(self, formatted: bool) -> list[str]:
        """As TFF prints it."""
        parameter = [""] if self.parameter is None else self.parameter.lines(formatted)
        return joined(["("], parameter, [" -> "], self.result.lines(formatted), [")"])

    def __repr__(self) -> str:
        return f"FunctionType({self.parameter!r}, {self.result!r})"

    def _key(self) -> tuple[Type | None, Type]:
        return self.parameter, self.result

    def is_assignable_from(self, source_type: Type) -> bool:
        """Functions that take what this one takes, with a result that is."""
        if not isinstance(source_type, FunctionType):
            return False
        mine, other = self.parameter, source_type.parameter
        if mine is None or other is None:
            return mine is other and self.result.is_assignable_from(source_type.result)
        takes = other.is_assignable_from(mine)
        return takes and self.result.is_assignable_from(source_type.result)


class FederatedType(Type):
    """Members at a placement: one at the server, one on each client.

    Example:
        >>> str(FederatedType(np.float32, CLIENTS)), str(FederatedType(np.float32, SERVER))
        ('{float32}@CLIENTS', 'float32@SERVER')
    """

    def __init__(self, member: Any, placement: Placement, all_equal: bool | None = None):
        self.member = to_type(member)
        self.placement = placement
        self.all_equal = placement.default_all_equal if all_equal is None else all_equal
        if contains(self.member, lambda t: isinstance(t, FederatedType | FunctionType)):
            raise ValueError(f"a federated value cannot be made of {self.member}.")

    def children(self) -> Iterator[Type]:
        """The type of a member."""
        yield self.member

    def lines(self, formatted: bool) -> list[str]:
        """As TFF prints it."""
        member, place = self.member.lines(formatted), [f"@{self.placement}"]
        return joined(member, place) if self.all_equal else joined(["{"], member, ["}"], place)

    def __repr__(self) -> str:
        return f"FederatedType({self.member!r}, {self.placement}, {self.all_equal})"

    def _key(self) -> tuple[Type, Placement, bool]:
        return self.member, self.placement, self.all_equal

    def is_assignable_from(self, source_type: Type) -> bool:
        """Members that are, at the same place; equal ones may be taken for any."""
        return (
            isinstance(source_type, FederatedType)
            and self.member.is_assignable_from(source_type.member)
            and (not self.all_equal or source_type.all_equal)
            and self.placement is source_type.placement
        )


class AbstractType(Type):
    """A type that stands for any."""

    def __init__(self, label: str):
        self.label = label

    def lines(self, formatted: bool) -> list[str]:
        """As TFF prints it."""
        return [self.label]

    def __repr__(self) -> str:
        return f"AbstractType({self.label!r})"

    def _key(self) -> str:
        return self.label


class PlacementType(Type):
    """The type of a placement."""

    def lines(self, formatted: bool) -> list[str]:
        """As TFF prints it."""
        return ["placement"]

    def __repr__(self) -> str:
        return "PlacementType()"


def at_clients(type_spec: Any, all_equal: bool = False) -> FederatedType:
    """The type of members on the clients, as TFF 0.16 to 0.67 wrote it."""
    return FederatedType(type_spec, CLIENTS, all_equal)


def at_server(type_spec: Any) -> FederatedType:
    """The type of a member at the server."""
    return FederatedType(type_spec, SERVER)


# --------------------------------------------------------------------------- from other objects


def to_type(obj: Any) -> Type:
    """The type that an object describes.

    Args:
        obj: A type; a dtype of NumPy or TensorFlow, alone or with a shape in a pair; a
            `tf.TensorSpec`, `tf.data.DatasetSpec`; or a container of such.

    Raises:
        FederatedTypeError: It describes none.

    Example:
        >>> str(to_type([("a", np.int32), ("b", (np.float32, [2]))]))
        '<a=int32,b=float32[2]>'
    """
    if isinstance(obj, Type):
        return obj
    if is_dtype(obj):
        return TensorType(obj)
    if isinstance(obj, tuple) and len(obj) == 2 and is_dtype(obj[0]) and is_shape(obj[1]):
        return TensorType(*obj)
    spec: Any = obj
    if hasattr(spec, "element_spec"):
        return SequenceType(spec.element_spec)
    if hasattr(spec, "dtype") and hasattr(spec, "shape") and hasattr(spec, "is_compatible_with"):
        return TensorType(spec.dtype, spec.shape)
    if structure.parts(obj) is None:
        raise FederatedTypeError(
            f"{obj!r} describes no type of TFF; write a dtype such as np.float32, a pair "
            "(np.float32, [10]), a tf.TensorSpec or a structure of these."
        )
    if isinstance(obj, structure.Struct):
        return StructType(structure.to_elements(obj))
    if isinstance(obj, list | tuple) and any(_is_pair(element) for element in obj):
        return StructType(obj)
    return StructWithPythonType(obj, type(obj))


def type_mismatch_error_message(
    first: Type, second: Type, relation: TypeRelation, second_is_expected: bool = False
) -> str:
    """What is said of two types that do not fit."""
    shown = (str, repr)[str(first) == str(second)]
    expected = "expected " if second_is_expected else ""
    return f"type {shown(first)} is not {relation.value} to {expected}type {shown(second)}."


def contains(type_signature: Type, predicate: Callable[[Type], bool]) -> bool:
    """Whether a type, or one that it is made of, fulfils a condition."""
    return predicate(type_signature) or any(
        contains(child, predicate) for child in type_signature.children()
    )


# --------------------------------------------------------------------------- conversion


def _is_pair(element: Any, name: Any = str) -> bool:
    return isinstance(element, tuple) and len(element) == 2 and isinstance(element[0], name)


def _named_types(elements: Any) -> list[tuple[str | None, Type]]:
    if _is_pair(elements):
        elements = [elements]
    elif not isinstance(elements, list | tuple) or structure.is_named_tuple(elements):
        elements = structure.parts(elements) or elements
    named: Iterable[Any] = (e if _is_pair(e, str | None) else (None, e) for e in elements)
    return [(name, to_type(element)) for name, element in named]


def _tuples_for_lists(type_spec: Type) -> Type:
    """The elements of a data set are in tuples, never in lists."""
    if not isinstance(type_spec, StructType):
        return type_spec
    elements = [(n, _tuples_for_lists(t)) for n, t in structure.iter_elements(type_spec)]
    kind = type_spec.python_container
    if kind is None:
        return StructType(elements)
    return StructWithPythonType(elements, tuple if kind is list else kind)
