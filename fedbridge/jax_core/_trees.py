"""Arithmetic on trees of arrays, and the names of their leaves."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from fedbridge.jax_core._errors import check_argument


def tree_sub(a: PyTree, b: PyTree) -> PyTree:
    """`a - b`, leaf by leaf."""
    return jax.tree.map(jnp.subtract, a, b)


def tree_add(a: PyTree, b: PyTree) -> PyTree:
    """`a + b`, leaf by leaf."""
    return jax.tree.map(jnp.add, a, b)


def tree_scale(factor: Any, tree: PyTree) -> PyTree:
    """`factor * leaf`, with the factor cast to the leaf's dtype."""
    return jax.tree.map(lambda leaf: jnp.asarray(factor).astype(leaf.dtype) * leaf, tree)


def tree_where(condition: Bool[Array, ""], a: PyTree, b: PyTree) -> PyTree:
    """`a` where the condition holds, else `b`; what is not chosen may be NaN."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def tree_zeros_like(tree: PyTree) -> PyTree:
    """A tree of zeros."""
    return jax.tree.map(jnp.zeros_like, tree)


def tree_all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether no entry of any leaf is NaN or infinite."""
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(finite)) if finite else jnp.asarray(True)


def tree_norm(tree: PyTree) -> Float[Array, ""]:
    """The L2 norm of all entries of all leaves together."""
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares)))


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their paths, as saved states and traces name them.

    Example:
        >>> from fedbridge.jax_core import ModelWeights
        >>> list(named_leaves({"w": ModelWeights([1.0, 2.0])}))
        ['w/trainable/0', 'w/trainable/1']
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(_key_name(key) for key in path): leaf for path, leaf in leaves}


def numpy_leaves(name: str, tree: PyTree, refused: str = "O") -> dict[str, np.ndarray]:
    """The leaves as a file can hold them, by their paths.

    Args:
        name: What errors call the tree.
        tree: Of arrays.
        refused: The kinds of NumPy's dtypes that are none for the file; "O" are objects.

    Raises:
        ArgumentError: A leaf is no array, e.g. a function.
    """
    arrays = {}
    for path, leaf in named_leaves(tree).items():
        plain = not jnp.issubdtype(getattr(leaf, "dtype", np.int8), jax.dtypes.prng_key)
        array = np.asarray(leaf if plain else None)
        shown = f"{name}, at {path!r}," if path else name
        check_argument(array.dtype.kind not in refused, shown, leaf, "an array of numbers")
        arrays[path] = array
    return arrays


def empty_containers(tree: PyTree) -> list[str]:
    """The containers that hold nothing, by their paths and `()`: they tell trees apart, too.

    Example:
        >>> empty_containers({"mean": (), "weights": [1.0]})
        ['mean()']
    """
    is_empty = lambda node: isinstance(node, tuple | list | Mapping) and not node
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_empty)
    return ["/".join(map(_key_name, path)) + "()" for path, leaf in leaves if is_empty(leaf)]


def from_named_leaves(template: PyTree, leaves: dict[str, Any]) -> PyTree:
    """The inverse of `named_leaves`: a tree of the template's structure.

    Raises:
        KeyError: A leaf of the template is not among the leaves.
    """
    paths = list(named_leaves(template))
    return jax.tree.unflatten(jax.tree.structure(template), [leaves[path] for path in paths])


def check_numbers(name: str, tree: PyTree) -> None:
    """Refuses a tree with a leaf that is neither a number nor an array, such as a text.

    Raises:
        ArgumentError: Of the first one, which it names.
    """
    for path, leaf in named_leaves(tree).items():
        number = isinstance(leaf, bool | int | float) or hasattr(leaf, "dtype")
        where = f"{name}, at {path!r}" if path else name
        check_argument(number, where, leaf, "a number or an array of numbers")


def _key_name(key: Any) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
