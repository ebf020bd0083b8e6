"""`tff.structure`: TFF's own container, elements with or without names, and what is done with it.

`parts` and `rebuilt` are how the rest of the namespace takes Python's containers apart and puts
them together again: mappings, named tuples, attrs classes, dataclasses, lists and tuples.
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from fedbridge.tff._errors import missing


class Struct:
    """Elements by their place and, where they have one, by their name.

    Args:
        elements: Pairs of a name, or None, and a value.

    Example:
        >>> struct = Struct([("a", 1), (None, 2)])
        >>> struct.a, struct[1], len(struct), str(struct)
        (1, 2, 2, '<a=1,2>')
    """

    def __init__(self, elements: Iterable[tuple[str | None, Any]]):
        pairs = tuple(elements)
        self._names = tuple(name for name, _ in pairs)
        self._values = tuple(value for _, value in pairs)
        named = name_list(self)
        if len(set(named)) < len(named):
            raise ValueError(f"a Struct cannot have two elements of one name: {named}.")

    @classmethod
    def named(cls, **elements: Any) -> "Struct":
        """Of elements with names."""
        return cls(elements.items())

    @classmethod
    def unnamed(cls, *elements: Any) -> "Struct":
        """Of elements without."""
        return cls((None, element) for element in elements)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __dir__(self) -> list[str]:
        return name_list(self)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return getattr(self, key)
        if isinstance(key, int) and not 0 <= key < len(self):
            raise IndexError(f"element {key} of a Struct of {len(self)} elements.")
        return self._values[key]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.__dict__.get("_names", ()):
            raise AttributeError(f"no element {name!r} among {name_list(self)}.")
        return self._values[self._names.index(name)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Struct):
            return NotImplemented
        return (self._names, self._values) == (other._names, other._values)

    def __hash__(self) -> int:
        return hash((self._names, self._values))

    def __repr__(self) -> str:
        return f"Struct([{', '.join(map(repr, iter_elements(self)))}])"

    def __str__(self) -> str:
        pairs = (value if name is None else f"{name}={value}" for name, value in _pairs(self))
        return f"<{','.join(map(str, pairs))}>"

    def _asdict(self, recursive: bool = False) -> collections.OrderedDict[str, Any]:
        return to_odict(self, recursive)


def _pairs(struct: Struct) -> Iterator[tuple[str | None, Any]]:
    return zip(struct._names, struct._values, strict=True)


# --------------------------------------------------------------------------- Python's containers


def is_named_tuple(value: Any) -> bool:
    """Whether it is a named tuple, or the class of one."""
    return hasattr(value, "_fields") and hasattr(value, "_asdict")


def is_attrs(kind: type) -> bool:
    """Whether it is a class of attrs, or a dataclass."""
    return hasattr(kind, "__attrs_attrs__") or dataclasses.is_dataclass(kind)


def parts(value: Any) -> list[tuple[str | None, Any]] | None:
    """The elements of a container with their names; None for what is no container.

    Example:
        >>> parts({"a": 1}), parts((1, 2)), parts(1)
        ([('a', 1)], [(None, 1), (None, 2)], None)
    """
    if isinstance(value, Struct):
        return list(_pairs(value))
    if isinstance(value, Mapping):
        return [(str(name), element) for name, element in value.items()]
    if is_named_tuple(value):
        return list(value._asdict().items())
    if isinstance(value, list | tuple):
        return [(None, element) for element in value]
    if is_attrs(type(value)):
        attributes = getattr(type(value), "__attrs_attrs__", None)
        found: Any = dataclasses.fields(value) if attributes is None else attributes
        return [(field.name, getattr(value, field.name)) for field in found]
    return None


def rebuilt(kind: Any, elements: list[tuple[Any, Any]]) -> Any:
    """A container of elements; without a class a dictionary where they have names, else a tuple.

    Example:
        >>> rebuilt(list, [(None, 1)]), rebuilt(None, [(None, 1)]), rebuilt(dict, [("a", 1)])
        ([1], (1,), {'a': 1})
    """
    named = [name for name, _ in elements if name is not None]
    if named and len(named) < len(elements):
        raise TypeError(
            f"elements with names ({', '.join(named)}) beside elements without fit into no "
            "container of Python; give all of them names, or none."
        )
    if kind is None:
        kind = collections.OrderedDict if named else tuple
    if is_named_tuple(kind) or is_attrs(kind):
        return kind(**dict(elements))
    if issubclass(kind, Mapping):
        return kind(elements)  # type: ignore[call-arg]
    return kind(value for _, value in elements)


# --------------------------------------------------------------------------- TFF's functions


def name_list(struct: Struct) -> list[str]:
    """The names that there are."""
    return [name for name in struct._names if name is not None]


def name_list_with_nones(struct: Struct) -> list[str | None]:
    """The names, None for an element without."""
    return list(struct._names)


def to_elements(struct: Struct) -> list[tuple[str | None, Any]]:
    """The elements with their names."""
    return list(_pairs(struct))


def iter_elements(struct: Struct) -> Iterator[tuple[str | None, Any]]:
    """The same, one after the other."""
    return _pairs(struct)


def has_field(structure: Struct, field: str) -> bool:
    """Whether there is an element of that name."""
    return field in structure._names


def name_to_index_map(structure: Struct) -> dict[str, int]:
    """The places of the elements that have names."""
    return {name: place for place, name in enumerate(structure._names) if name is not None}


def to_odict(struct: Struct, recursive: bool = False) -> collections.OrderedDict[str, Any]:
    """As a dictionary; all elements must have names."""
    if len(name_list(struct)) < len(struct):
        raise ValueError(f"a Struct with elements without names is no dictionary: {struct}.")
    inner = to_odict if recursive else lambda value, _: value
    return collections.OrderedDict(
        (name, inner(value, True) if isinstance(value, Struct) else value)
        for name, value in iter_elements(struct)
    )  # type: ignore[arg-type]


def to_odict_or_tuple(struct: Struct, recursive: bool = True) -> Any:
    """As a dictionary where the elements have names, else as a tuple."""
    elements = [
        (name, to_odict_or_tuple(value) if recursive and isinstance(value, Struct) else value)
        for name, value in iter_elements(struct)
    ]
    return rebuilt(None, elements)


def flatten(struct: Any) -> list[Any]:
    """The leaves, in order."""
    inner = parts(struct)
    if inner is None:
        return [struct]
    return list(itertools.chain.from_iterable(flatten(value) for _, value in inner))


def pack_sequence_as(structure: Struct, flat_sequence: Iterable[Any]) -> Any:
    """Leaves in the shape of a structure."""
    leaves = iter(flat_sequence)

    def pack(part: Any) -> Any:
        if not isinstance(part, Struct):
            return next(leaves)
        return Struct((name, pack(value)) for name, value in iter_elements(part))

    return pack(structure)


def is_same_structure(a: Any, b: Any) -> bool:
    """Whether two have the same elements of the same names, leaves aside."""
    one, other = parts(a), parts(b)
    if one is None or other is None:
        return one is other
    return [name for name, _ in one] == [name for name, _ in other] and all(
        is_same_structure(x, y) for (_, x), (_, y) in zip(one, other, strict=True)
    )


def map_structure(fn: Callable[..., Any], *structures: Any) -> Any:
    """A function of the leaves of one or several structures, in the first one's shape."""
    if not all(is_same_structure(structures[0], other) for other in structures[1:]):
        raise TypeError("map_structure needs structures of the same elements.")
    if isinstance(structures[0], Struct):
        leaves = zip(*map(flatten, structures), strict=True)
        return pack_sequence_as(structures[0], [fn(*leaf) for leaf in leaves])
    inner = [parts(structure) for structure in structures]
    if inner[0] is None:
        return fn(*structures)
    elements: Any = zip(*inner, strict=True)  # type: ignore[arg-type]
    return rebuilt(
        type(structures[0]),
        [(same[0][0], map_structure(fn, *(value for _, value in same))) for same in elements],
    )


def from_container(value: Any, recursive: bool = False) -> Any:
    """A container of Python's as a Struct."""
    elements = parts(value)
    if elements is None:
        raise TypeError(f"{type(value).__name__} is no container that a Struct can be made of.")

    def convert(inner: Any) -> Any:
        return from_container(inner, True) if recursive and parts(inner) is not None else inner

    return Struct((name, convert(inner)) for name, inner in elements)


def update_struct(structure: Any, **kwargs: Any) -> Any:
    """The same container with some of its named elements replaced.

    Example:
        >>> update_struct({"a": 1, "b": 2}, b=3)
        {'a': 1, 'b': 3}
    """
    elements = parts(structure)
    names = [name for name, _ in elements or ()]
    if elements is None or None in names:
        raise TypeError(
            f"update_struct needs a structure with named elements, not {type(structure).__name__}."
        )
    if unknown := [name for name in kwargs if name not in names]:
        raise KeyError(f"the structure has no element {', '.join(unknown)}, but {names}")
    changed = [(name, kwargs.get(name or "", value)) for name, value in elements]
    return rebuilt(type(structure), changed) if type(structure) is not Struct else Struct(changed)


__getattr__ = missing("tff.structure")
