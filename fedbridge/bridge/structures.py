"""TFF's structures (named tuples, dictionaries, lists, attrs classes) as arrays and as JSON."""

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


def plain(tree: Any) -> Any:
    """A TFF structure as JSON: dictionaries, lists and numbers; float32 keeps its value exactly."""
    children = _children(tree)
    if children is None:
        array = np.asarray(tree)
        return array.tolist() if array.dtype.kind in "biuf" else str(array)
    if isinstance(tree, list) or (isinstance(tree, tuple) and not hasattr(tree, "_fields")):
        return [plain(child) for _, child in children]
    return {str(key): plain(child) for key, child in children}


def _children(tree: Any) -> list[tuple[Any, Any]] | None:
    if hasattr(tree, "_fields"):
        return list(zip(tree._fields, tree, strict=True))
    if isinstance(tree, dict):
        return list(tree.items())
    if isinstance(tree, list | tuple):
        return list(enumerate(tree))
    if hasattr(type(tree), "__attrs_attrs__"):
        return [(field.name, getattr(tree, field.name)) for field in type(tree).__attrs_attrs__]
    return None
