"""Values inside the body of a `@tff.federated_computation`.

The body is run once, when it is decorated, with values that know their type and how they are
computed from the argument of a call: TFF's own way, so that a `print` in it prints once.
"""

from collections.abc import Callable, Iterator
from typing import Any

from fedbridge.tff import structure
from fedbridge.tff._representations import taken
from fedbridge.tff._type_errors import FederatedTypeError, MissingElementError
from fedbridge.tff._types import (
    CLIENTS,
    FederatedType,
    Placement,
    StructType,
    StructWithPythonType,
    Type,
)
from fedbridge.tff.types import infer_type


class Run:
    """One call: what the parameters are, how many clients there are, what is computed already."""

    def __init__(self, clients: int, bound: dict[int, Any]):
        self.clients, self.bound = clients, bound
        self._known: dict[int, Any] = {}

    def of(self, value: "Value") -> Any:
        """What a value is in this call."""
        key = id(value)
        if key not in self._known:
            self._known[key] = value._compute(self)
        return self._known[key]


Compute = Callable[[Run], Any]


class Value:
    """A value of which the type is known; the elements of a structure are attributes and items.

    Args:
        type_signature: Its type.
        compute: What it is in a call.
        parts: Its elements, where they are values by themselves.
    """

    def __init__(self, type_signature: Type, compute: Compute, parts: list[Any] | None = None):
        self.type_signature = type_signature
        self._compute, self._parts = compute, parts

    def __dir__(self) -> list[str]:
        return ["type_signature", *structure.name_list(self._struct())]

    def __getattr__(self, name: str) -> "Value":
        if name.startswith("_"):
            raise AttributeError(name)
        names = self._names()
        if name not in names:
            raise MissingElementError(
                f"a value of type {self.type_signature} has no element {name!r}; in the body of a "
                "federated computation values can only be passed on, mapped and aggregated."
            )
        return selected(self, names.index(name))

    def __getitem__(self, key: int | str | slice) -> Any:
        if isinstance(key, str):
            return getattr(self, key)
        places = range(len(self))
        if isinstance(key, slice):
            return as_value([selected(self, place) for place in places[key]])
        if not 0 <= key < len(places):
            raise IndexError(f"element {key} of a value of type {self.type_signature}.")
        return selected(self, key)

    def __len__(self) -> int:
        return len(self._struct())

    def __iter__(self) -> Iterator["Value"]:
        return (selected(self, place) for place in range(len(self)))

    def __bool__(self) -> bool:
        raise FederatedTypeError(
            "a value in the body of a federated computation is neither true nor false; decide in "
            "a tff.tf_computation, with tf.cond."
        )

    def _names(self) -> list[str | None]:
        inner = _member(self.type_signature)
        is_struct = isinstance(inner, StructType)
        return structure.name_list_with_nones(inner) if is_struct else []

    def _struct(self) -> StructType:
        inner = _member(self.type_signature)
        if not isinstance(inner, StructType):
            raise FederatedTypeError(f"a value of type {self.type_signature} has no elements.")
        return inner


def parameter(type_signature: Type) -> Value:
    """The parameter of a body, which a call binds."""
    made = Value(type_signature, lambda run: run.bound[id(made)])
    return made


def of_parts(type_signature: StructType, parts: list[Value]) -> Value:
    """A structure of values."""
    return Value(type_signature, lambda run: tuple(run.of(part) for part in parts), parts)


def selected(value: Value, place: int) -> Value:
    """An element of a structure, or of what is at a placement."""
    if value._parts is not None:
        return value._parts[place]
    signature: Any = value.type_signature
    if not isinstance(signature, FederatedType):
        return Value(signature[place], lambda run: run.of(value)[place])
    inner: Any = signature.member
    chosen = FederatedType(inner[place], signature.placement, signature.all_equal)
    return Value(chosen, lambda run: each(lambda one: one[place], chosen, run.of(value)))


def each(function: Callable[[Any], Any], federated: FederatedType, value: Any) -> Any:
    """A function of every member."""
    return [function(one) for one in value] if federated.placement is CLIENTS else function(value)


def as_value(made: Any) -> Value:
    """What the body of a federated computation made, as a value.

    Raises:
        FederatedTypeError: It is nothing that such a body may make.
    """
    if isinstance(made, Value):
        return made
    if isinstance(made, str | bytes | bool | int | float | complex) or _is_numpy(made):
        signature = infer_type(made)
        constant = taken(made, signature, 0)
        return Value(signature, lambda run: constant)
    found = structure.parts(made)
    if found is None:
        raise FederatedTypeError(
            f"{type(made).__name__} cannot stand in the body of a federated computation; "
            "put what TensorFlow or NumPy computes into a tff.tf_computation, and call that."
        )
    pairs = [(name, as_value(part)) for name, part in found]
    types = [(name, part.type_signature) for name, part in pairs]
    parts = [part for _, part in pairs]
    if isinstance(made, structure.Struct):
        return of_parts(StructType(types), parts)
    return of_parts(StructWithPythonType(types, type(made)), parts)


def zipped(value: Value) -> Value:
    """A structure of values at one placement as one value there.

    Raises:
        FederatedTypeError: They are at several placements, or not all are placed.
    """
    if isinstance(value.type_signature, FederatedType):
        return value
    placements: set[Placement] = set()
    member = _unplaced(value.type_signature, placements)
    if len(placements) != 1:
        raise FederatedTypeError(
            f"a value of type {value.type_signature} is not at one placement, as it has to be; "
            "zip values that are all at the clients, or all at the server."
        )
    (placement,) = placements
    if placement is not CLIENTS:
        # Members at the server are what they are: the structure of them is the structure.
        return Value(FederatedType(member, placement), lambda run: run.of(value))

    def compute(run: Run) -> list[Any]:
        whole = run.of(value)
        return [_of_client(whole, value.type_signature, i) for i in range(run.clients)]

    return Value(FederatedType(member, placement), compute)


def fitted(value: Value, type_spec: Type) -> Value:
    """A value as a parameter of a type, its parts zipped where the type has them so.

    Raises:
        TypeNotAssignableError: It does not fit.
    """
    if type_spec.is_assignable_from(value.type_signature):
        return value
    signature = value.type_signature
    if isinstance(type_spec, StructType) and isinstance(signature, StructType):
        if len(type_spec) == len(signature):
            parts = [fitted(selected(value, place), child) for place, child in enumerate(type_spec)]
            return of_parts(type_spec, parts)
    elif isinstance(type_spec, FederatedType) and isinstance(signature, StructType):
        one = zipped(value)
        type_spec.check_assignable_from(one.type_signature)
        return one
    type_spec.check_assignable_from(signature)
    return value


def _member(type_spec: Type) -> Type:
    return type_spec.member if isinstance(type_spec, FederatedType) else type_spec


def _unplaced(type_spec: Type, placements: set[Placement]) -> Type:
    if isinstance(type_spec, FederatedType):
        placements.add(type_spec.placement)
        return type_spec.member
    if not isinstance(type_spec, StructType):
        raise FederatedTypeError(
            f"a value of type {type_spec} is at no placement; place it with tff.federated_value "
            "or tff.federated_eval."
        )
    inner = [(n, _unplaced(t, placements)) for n, t in structure.iter_elements(type_spec)]
    kind = type_spec.python_container
    return StructType(inner) if kind is None else StructWithPythonType(inner, kind)


def _of_client(whole: Any, type_spec: Type, client: int) -> Any:
    if isinstance(type_spec, StructType):
        pairs = zip(whole, type_spec, strict=True)
        return tuple(_of_client(part, child, client) for part, child in pairs)
    return whole[client]


def _is_numpy(value: Any) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "dtype")
