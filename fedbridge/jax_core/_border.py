"""What passes the border of a process: weights in, metrics and counts out.

Checked on the host, before and after the compiled round, never inside it.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fedbridge.jax_core._errors import ArgumentError, ClientDataError, StateError, enough_memory
from fedbridge.jax_core._metrics_aggregators import PerClient
from fedbridge.jax_core._trees import named_leaves


def check_step(ran_over: Any) -> None:
    """Refuses a server's step that made finite weights and a finite update into what is not.

    Args:
        ran_over: Whether it did; of several rounds, for each.

    Raises:
        ArgumentError: It did.
    """
    if np.asarray(ran_over).any():
        raise ArgumentError(
            "server_optimizer: its step made weights that are not finite of weights and an update "
            "that are; its learning rate, or what its schedule gives for this round, is NaN, "
            "infinite or far too large, or it divides by zero (a beta of 1, an epsilon of 0)."
        )


def metrics_at_border(metrics: Mapping[str, PyTree]) -> OrderedDict[str, PyTree]:
    """The metrics of a round, in NumPy already, with TFF's dtypes.

    What clients counted is int64; what the aggregator and the finalizer counted is int32.

    Raises:
        ClientDataError: Clients counted more than int32 holds, see `check_counts`.
    """
    at_border = OrderedDict(
        (part, _at_border(tree, part == "client_work")) for part, tree in metrics.items()
    )
    check_counts(at_border["client_work"])
    return at_border


def check_counts(measured: PyTree) -> None:
    """Refuses a count that has gone past int32 inside the program: it is negative there.

    Args:
        measured: What the clients of a round measured, at the border. Its integers are counts.

    Raises:
        ClientDataError: One of them is negative.
    """
    negative = lambda leaf: leaf.dtype.kind == "i" and (leaf < 0).any()
    if not any(negative(np.asarray(leaf)) for leaf in jax.tree.leaves(measured)):
        return  # before anything is named
    for name, leaf in named_leaves(measured).items():
        value = np.asarray(leaf)
        if negative(value):
            raise ClientDataError(
                f"metric {name!r} of this round is {value.min()}: more was counted in one round "
                f"than the {2**31 - 1} of an int32; take fewer clients a round, or make a metric "
                "that may be negative a float32."
            )


def to_numpy(tree: PyTree) -> PyTree:
    """A tree of what a program counted and measured, at the border: NumPy, integers as int64.

    Args:
        tree: Arrays; of a `PerClient` the real clients' values remain.
    """
    with enough_memory():
        found = jax.device_get(tree)
    return _at_border(found, wide=True)


def _at_border(tree: PyTree, wide: bool) -> PyTree:
    def convert(leaf: Any) -> Any:
        if isinstance(leaf, PerClient):
            real = jax.tree.map(lambda all: np.asarray(all)[: int(leaf.count)], leaf.values)
            return _at_border(real, wide)
        value = np.asarray(leaf)
        return value.astype(np.int64 if wide and value.dtype.kind in "iu" else value.dtype)[()]

    return jax.tree.map(convert, tree, is_leaf=lambda node: isinstance(node, PerClient))


def check_same_kinds(expected: PyTree, given: PyTree) -> None:
    """Refuses whole numbers where the model has real ones, and the reverse, as TFF's rounds do."""
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    kind_of = lambda leaf: [jnp.issubdtype(leaf.dtype, kind) for kind in kinds]
    wanted = named_leaves(expected)
    for path, leaf in named_leaves(given).items():
        like, array = jnp.asarray(wanted[path]), np.asarray(leaf)
        if kind_of(array) != kind_of(like):
            weight = f"weight {path!r}" if path else "the weights"
            raise StateError(
                f"{weight}: the model has {like.dtype}, but {array.dtype} was given; cast it with "
                f"`.astype({str(like.dtype)!r})`."
            )


def check_like_weights(name: str, given: PyTree, weights: PyTree) -> None:
    """Refuses what is added to weights and has other shapes; at the trace, where they are known."""
    shapes = lambda tree: {path: np.shape(leaf) for path, leaf in named_leaves(tree).items()}
    want, have = shapes(weights), shapes(given)
    path = next((p for p in {**want, **have} if want.get(p) != have.get(p)), None)
    if path is not None:
        where = f"{name}, at {path!r}," if path else name
        raise ArgumentError(
            f"{where} has shape {have.get(path, 'no such leaf')}, but the trainable weights "
            f"have {want.get(path, 'no such weight')}; it must be a tree of arrays of their shapes."
        )


def check_same_shapes(expected: PyTree, given: PyTree) -> None:
    """Refuses weights of other names or shapes."""
    want = {path: np.shape(leaf) for path, leaf in named_leaves(expected).items()}
    have = {path: np.shape(leaf) for path, leaf in named_leaves(given).items()}
    if want != have:
        path = next(p for p in {**want, **have} if want.get(p) != have.get(p))
        weight = f"weight {path!r}" if path else "the weights"
        raise StateError(
            f"{weight}: the model has shape {want.get(path, 'no such weight')}, but "
            f"{have.get(path, 'nothing')} was given; take the weights from a state of the same "
            "model."
        )
