"""TFF's structures (named tuples, dictionaries, lists, attrs classes) as arrays and as JSON."""

from collections.abc import Callable
from typing import Any

import numpy as np


def leaves(tree: Any, path: str = "") -> dict[str, np.ndarray]:
    """A TFF structure as a flat dictionary from path to array; empty structures leave no trace."""
    children = _children(tree)
    if children is None:
        return {path: np.asarray(tree)}
    return {
        name: leaf
        for key, child in children
        for name, leaf in leaves(child, f"{path}/{key}" if path else str(key)).items()
    }


def mapped(tree: Any, change: Callable[[str, Any], Any], path: str = "") -> Any:
    """A structure with its leaves changed: `change(path, leaf)`, the paths being those of `leaves`.

    >>> mapped({"a": (1, [2])}, lambda path, leaf: f"{path}={leaf}")
    {'a': ('a/0=1', ['a/1/0=2'])}
    """
    children = _children(tree)
    if children is None or _is_struct(tree):
        return change(path, tree) if children is None else tree
    new = [mapped(child, change, f"{path}/{key}" if path else str(key)) for key, child in children]
    if hasattr(tree, "_fields"):
        return type(tree)(*new)
    if isinstance(tree, list | tuple):
        return type(tree)(new)
    pairs = [(key, value) for (key, _), value in zip(children, new, strict=True)]
    return type(tree)(pairs) if isinstance(tree, dict) else type(tree)(**dict(pairs))


def plain(tree: Any) -> Any:
    """A TFF structure as JSON: dictionaries, lists and numbers; float32 keeps its value exactly."""
    children = _children(tree)
    if children is None:
        array = np.asarray(tree)
        return array.tolist() if array.dtype.kind in "biuf" else str(array)
    if isinstance(tree, list) or (isinstance(tree, tuple) and not hasattr(tree, "_fields")):
        return [plain(child) for _, child in children]
    return {str(key): plain(child) for key, child in children}


def _is_struct(tree: Any) -> bool:
    """Whether it is TFF's own container, or that of fedbridge.tff; it stays as it is."""
    return type(tree).__name__ == "Struct"


def _children(tree: Any) -> list[tuple[Any, Any]] | None:
    if hasattr(tree, "_fields"):
        return list(zip(tree._fields, tree, strict=True))
    if isinstance(tree, dict):
        return list(tree.items())
    if _is_struct(tree):
        return [(number, tree[number]) for number in range(len(tree))]
    if isinstance(tree, list | tuple):
        return list(enumerate(tree))
    if hasattr(type(tree), "__attrs_attrs__"):
        return [(field.name, getattr(tree, field.name)) for field in type(tree).__attrs_attrs__]
    return None
