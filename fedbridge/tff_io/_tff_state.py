"""TFF's states in the process: their leaves under the names that fedbridge's own states have.

A state of TFF and one of fedbridge hold the same leaves in other containers: lists of weights for
variable models and tuples for functional ones, TFF's named tuples, attrs classes. What is compared
is therefore the names, and what is converted is each leaf, to the dtype of the state that is wanted
and only where its value survives.
"""

import functools
from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fedbridge.jax_core import StateError, fits_shape, from_named_leaves, named_leaves

_Tree = TypeVar("_Tree")


def from_tff_state(tff_state: Any, like: _Tree) -> _Tree:
    """A state of TFF's as one of fedbridge's.

    Args:
        tff_state: What a process of TFF gave, e.g. a `LearningAlgorithmState`.
        like: A state of the same algorithm and model, e.g. `process.initialize()`.

    Returns:
        A state of the structure, shapes and dtypes of `like`.

    Raises:
        StateError: It is of another algorithm or model, or a number does not fit its dtype.

    Example:
        >>> tff_state = {"step": np.int32(3), "accumulator": (np.ones(2, np.float32),)}
        >>> like = {"step": np.int64(0), "accumulator": [np.zeros(2, np.float32)]}
        >>> from_tff_state(tff_state, like)["accumulator"]
        [array([1., 1.], dtype=float32)]
    """
    return fit_leaves(tff_leaves(tff_state), like, "TFF's state")


def to_tff_state(state: PyTree, like: _Tree) -> _Tree:
    """A state of fedbridge's as one of TFF's.

    Args:
        state: What a process of fedbridge gave.
        like: A state of the same algorithm of TFF's and the same model, e.g. TFF's
            `process.initialize()`.

    Returns:
        A state of the structure, shapes and dtypes of `like`, with NumPy leaves: what TFF's
        `process.next` takes.

    Raises:
        StateError: It is of another algorithm or model, or a number does not fit its dtype.
    """
    leaves = {name: jax.device_get(leaf) for name, leaf in named_leaves(as_in_tff(state)).items()}
    fitting = fit_leaves(leaves, tff_leaves(like), "fedbridge's state")
    return map_leaves(lambda name, leaf: fitting[name], like)


def as_in_tff(tree: PyTree) -> PyTree:
    """A state of fedbridge's with TFF's named tuples where they have other names, or more fields.

    Such a type of fedbridge's says so in its `tff_type` and `tff_constants`.
    """
    if hasattr(tree, "_fields"):
        children = dict(zip(tree._fields, map(as_in_tff, tree), strict=True))
        kind: Any = type(tree)
        if not hasattr(kind, "tff_type"):
            return kind(**children)
        children = {**getattr(kind, "tff_constants", {}), **children}
        return _named_tuple(kind.tff_type, tuple(children))(**children)
    if isinstance(tree, Mapping):
        make: Any = type(tree)
        return make((key, as_in_tff(child)) for key, child in tree.items())
    if isinstance(tree, list | tuple):
        return type(tree)(map(as_in_tff, tree))
    return tree


@functools.cache
def _named_tuple(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)


def tff_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a structure of TFF's by their paths; empty containers leave no trace."""
    found: dict[str, Any] = {}
    map_leaves(found.setdefault, tree)
    return found


def map_leaves(fn: Callable[[str, Any], Any], tree: Any, path: tuple[str, ...] = ()) -> Any:
    """A structure of the same containers with `fn(path, leaf)` for its leaves."""

    def child(key: Any, value: Any) -> Any:
        return map_leaves(fn, value, (*path, str(key)))

    if tree is None:
        return None
    make: Any = type(tree)
    if hasattr(tree, "_fields"):
        return make(*map(child, tree._fields, tree))
    if isinstance(tree, Mapping):
        return make((key, child(key, value)) for key, value in tree.items())
    if isinstance(tree, list | tuple):
        return make(map(child, range(len(tree)), tree))
    if hasattr(make, "__attrs_attrs__"):
        names = [field.name for field in make.__attrs_attrs__]
        return make(**{name: child(name, getattr(tree, name)) for name in names})
    return fn("/".join(path), tree)


def fit_leaves(leaves: Mapping[str, Any], like: _Tree, where: str) -> _Tree:
    """A tree of the structure, shapes and dtypes of another, from leaves by their paths.

    Args:
        leaves: Path to array; exactly those of `like`.
        like: The structure. Where its leaf is a jax array, so is the new one; else NumPy. One
            without rows, e.g. a sample of the clients, may have grown.
        where: What the leaves were found in, for errors.

    Raises:
        StateError: A leaf is missing, there is one too many, one has another shape, or one has a
            dtype in which its value would change.
    """
    wanted = named_leaves(as_in_tff(like))
    odd = [name for name in (*wanted, *leaves) if (name in wanted) != (name in leaves)]
    if odd:
        which = "lacks" if odd[0] in wanted else "holds"
        count = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        kind = " (for a functional one of TFF's: fb.as_functional)"
        raise StateError(
            f"{where} {which} {odd[0]!r}{count}, unlike the state that was given as `like`: it is "
            f"a state saved by another algorithm, or another model"
            f"{kind if odd[0].startswith('client_work/') else ''}; pass a state of the process "
            "that it was saved by."
        )
    return from_named_leaves(
        like, {name: _fit(leaves[name], leaf, name, where) for name, leaf in wanted.items()}
    )


def _fit(leaf: Any, like: Any, name: str, where: str) -> Any:
    value, wanted = as_array(leaf), as_array(like)
    if not fits_shape(value.shape, wanted.shape):
        raise StateError(
            f"{where}: {name!r} has the shape {list(value.shape)}, and the state that was given as "
            f"`like` has {list(wanted.shape)}; pass a state of the model that it was saved with."
        )
    if isinstance(like, bytes) and value != wanted:
        raise StateError(
            f"{where}: {name!r} is {value[()]!r}, and the state that was given as `like` has "
            f"{like!r}; pass a state of the process that it was saved by."
        )
    converted = _cast(value, wanted.dtype)
    if converted is None:
        raise StateError(
            f"{where}: {name!r} is {value.dtype}, and not every value of it is a {wanted.dtype}, "
            "which the state that was given as `like` has; pass a state of the process that it was "
            "saved by."
        )
    return jnp.asarray(converted) if isinstance(like, jax.Array) else converted[()]


def _cast(value: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    """The array in another dtype of the same kind; None where a value would change."""
    if value.dtype == dtype:
        return value
    if _kind(value.dtype) != _kind(dtype):
        return None
    if _kind(dtype) == "integers" and value.size:
        limits = np.iinfo(dtype)
        fits = limits.min <= int(value.min()) and int(value.max()) <= limits.max
        return value.astype(dtype) if fits else None
    with np.errstate(over="ignore"):
        converted = value.astype(dtype)
        same = (converted.astype(value.dtype) == value) | (value != value)
    return converted if same.all() else None


def _kind(dtype: np.dtype) -> str:
    if np.issubdtype(dtype, np.integer):
        return "integers"
    # bfloat16 is none of NumPy's own floats
    return "floats" if jnp.issubdtype(dtype, jnp.floating) else dtype.kind


def as_array(leaf: Any) -> np.ndarray:
    """A leaf as a NumPy array; texts and bytes as bytes objects, which NumPy would cut at zeros.

    Raises:
        StateError: It is no array, number or text.
    """
    if isinstance(leaf, str | bytes):
        array = np.empty((), object)
        array[()] = leaf.encode() if isinstance(leaf, str) else leaf
        return array
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        raise StateError(
            f"a state holds a random key ({leaf.dtype}), which TFF knows none of: keep "
            "`jax.random.key_data(key)` in its place."
        )
    array = np.asarray(leaf)
    if array.dtype.kind in "SU":
        texts = [text.encode() if isinstance(text, str) else text for text in array.ravel()]
        array = np.array(texts, object).reshape(array.shape)
    return array
