"""What a computation works on: arrays, tuples of them, data sets as bytes, lists of clients.

`taken` makes it of what a script passes, `given` makes of it what a script gets back: TFF's
containers with NumPy's values. A value at the server is its member, one at the clients the list of
theirs.
"""

from typing import Any

import numpy as np

from fedbridge.tff import _sequences, structure
from fedbridge.tff._type_errors import FederatedTypeError
from fedbridge.tff._types import (
    CLIENTS,
    FederatedType,
    FunctionType,
    SequenceType,
    StructType,
    TensorType,
    Type,
)


def number_of_clients(value: Any, type_spec: Type | None) -> int | None:
    """How many clients there are in an argument; None where it does not say.

    Raises:
        FederatedTypeError: It says different numbers.
    """
    if isinstance(type_spec, FederatedType):
        counts = type_spec.placement is CLIENTS and not type_spec.all_equal
        return len(_clients(value, type_spec)) if counts else None
    if not isinstance(type_spec, StructType):
        return None
    numbers = {
        number_of_clients(part, child)
        for (_, child), part in zip(
            structure.iter_elements(type_spec), elements(value, type_spec), strict=True
        )
    } - {None}
    if len(numbers) > 1:
        raise FederatedTypeError(
            f"the arguments are for different numbers of clients: "
            f"{', '.join(str(number) for number in sorted(n or 0 for n in numbers))}."
        )
    return numbers.pop() if numbers else None


def taken(value: Any, type_spec: Type, clients: int) -> Any:
    """A value of a script's, to compute with.

    Args:
        value: Of that type; numbers are cast where nothing but precision can be lost.
        type_spec: The type.
        clients: How many clients there are.

    Raises:
        FederatedTypeError: It is of another type.
    """
    if isinstance(type_spec, TensorType):
        return _array(value, type_spec)
    if isinstance(type_spec, StructType):
        children = structure.iter_elements(type_spec)
        pairs = zip(children, elements(value, type_spec), strict=True)
        return tuple(taken(part, child, clients) for (_, child), part in pairs)
    if isinstance(type_spec, FederatedType):
        if type_spec.placement is not CLIENTS:
            return taken(value, type_spec.member, clients)
        if type_spec.all_equal:
            return [taken(value, type_spec.member, clients)] * clients
        return [taken(one, type_spec.member, clients) for one in _clients(value, type_spec)]
    if isinstance(type_spec, SequenceType):
        if isinstance(value, list | tuple):
            rows = [leaves(taken(e, type_spec.element, 0), type_spec.element) for e in value]
            value = _sequences.of_elements(rows, type_spec)
        return _sequences.written(value, type_spec)
    raise FederatedTypeError(f"a value of type {type_spec} cannot be passed to a computation.")


def given(value: Any, type_spec: Type) -> Any:
    """What was computed, as a script gets it.

    Raises:
        FederatedTypeError: A value that is equal on all clients, of which there are none.
    """
    if isinstance(type_spec, StructType):
        pairs = zip(structure.iter_elements(type_spec), value, strict=True)
        inner = [(name, given(part, child)) for (name, child), part in pairs]
        return structure.rebuilt(type_spec.python_container, inner)
    if isinstance(type_spec, FederatedType):
        if type_spec.placement is not CLIENTS:
            return given(value, type_spec.member)
        if not type_spec.all_equal:
            return [given(one, type_spec.member) for one in value]
        if not value:
            raise FederatedTypeError(
                f"the value of type {type_spec} is on no client, since no argument says how many "
                "there are; return it from the server."
            )
        return given(value[0], type_spec.member)
    if isinstance(type_spec, SequenceType):
        return _sequences.read(value, type_spec)
    if isinstance(type_spec, FunctionType):
        raise FederatedTypeError("a computation cannot be the result of another one.")
    return value[()] if isinstance(value, np.ndarray) and not value.shape else value


def leaves(value: Any, type_spec: Type) -> list[Any]:
    """The arrays and data sets of a value that was taken."""
    if not isinstance(type_spec, StructType):
        return [value]
    pairs = zip(value, type_spec, strict=True)
    return [leaf for part, child in pairs for leaf in leaves(part, child)]


def elements(value: Any, type_spec: StructType) -> list[Any]:
    """The parts of a container, in the order of its type.

    Raises:
        FederatedTypeError: It has others.
    """
    found = structure.parts(value)
    if found is None and isinstance(value, np.ndarray):
        found = [(None, part) for part in value]
    names = structure.name_list_with_nones(type_spec)
    if found is None or len(found) != len(names):
        raise FederatedTypeError(f"{_shown(value)} is not of type {type_spec}.")
    by_name = dict(found)
    if all(name in by_name for name in names) and None not in names:
        return [by_name[name] for name in names]
    if any(name is not None for name, _ in found):
        raise FederatedTypeError(
            f"elements named {[name for name, _ in found]} are not of type {type_spec}."
        )
    return [part for _, part in found]


def _clients(value: Any, type_spec: FederatedType) -> Any:
    if not isinstance(value, list | tuple):
        raise FederatedTypeError(
            f"a value of type {type_spec} is a list with one entry a client, not {_shown(value)}."
        )
    return value


def _array(value: Any, type_spec: TensorType) -> Any:
    array = np.asarray(value)
    if type_spec.dtype.kind == "U":
        array = np.asarray(array, object)
        text = all(isinstance(part, str | bytes) for part in array.flat)
        encoded = np.array([_encoded(part) for part in array.flat] if text else [], object)
        fits = text
        array = encoded.reshape(array.shape) if text else array
    else:
        from_python = isinstance(value, bool | int | float)
        kind = "same_kind" if from_python or array.dtype.kind != "b" else "no"
        fits = np.can_cast(array.dtype, type_spec.dtype, kind)
        array = array.astype(type_spec.dtype) if fits else array
    sizes = type_spec.shape
    if sizes is not None and (
        len(sizes) != array.ndim
        or any(size not in (None, n) for size, n in zip(sizes, array.shape, strict=True))
    ):
        fits = False
    if not fits:
        raise FederatedTypeError(f"{_shown(value)} is not of type {type_spec}.")
    return array


def _encoded(part: str | bytes) -> bytes:
    return part.encode() if isinstance(part, str) else part


def _shown(value: Any) -> str:
    if hasattr(value, "dtype") and getattr(value, "shape", ()) != ():
        return f"an array {value.dtype}{list(value.shape)}"
    text = repr(value)
    return text if len(text) < 60 else f"a value of Python's type {type(value).__name__}"
