"""Whether a state is one of this process: the same names, shapes and kinds of numbers.

Checked on the host before every round, so it looks at shapes and dtypes only, never at numbers.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from fedbridge.jax_core._errors import ArgumentError, StateError, check_argument
from fedbridge.jax_core._trees import empty_containers, named_leaves

_KINDS = jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating


class LeafForm(NamedTuple):
    """What a leaf of a state is.

    Attributes:
        shape: Its shape. A leaf that starts with no rows grows, e.g. a sample of the clients.
        dtype: Its dtype, of which only the kind counts.
        weak: Whether it is a number of Python, or takes its dtype from what it is combined with.
    """

    shape: tuple[int, ...]
    dtype: Any
    weak: bool


class StateForm(NamedTuple):
    """What tells the states of a process from those of others.

    Attributes:
        structure: Of the tree.
        leaves: In the order of the tree.
        names: The names of leaves and of empty containers: a sum's state is `()`, a mean's two.
    """

    structure: Any
    leaves: list[LeafForm]
    names: list[str]


def form_of_states(initialize: Callable[[], PyTree]) -> Callable[[], StateForm]:
    """What the states of a process are like; found out once."""
    return functools.cache(lambda: _state_form(initialize()))


def check_state(own: StateForm, state: Any) -> None:
    """Refuses a state of another algorithm or model.

    Args:
        own: What `form_of_states` found.
        state: What a round is to start from.

    Raises:
        StateError: It has other leaves, or a leaf has another shape or kind of numbers.
    """
    check_is_state(state)
    leaves, structure = jax.tree.flatten(state)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        raise ArgumentError(
            "state is traced; call the process outside of jax.jit, vmap and grad: it compiles its "
            "rounds itself, and looks at states and cohorts before."
        )
    # The usual case, before anything is named.
    if structure == own.structure and all(map(_fits, map(_leaf_form, leaves), own.leaves)):
        return
    given = _state_form(state)
    if odd := set(given.names) ^ set(own.names):
        # A leaf says more than an empty container, and what is deeper more than what is around it.
        name = min(odd, key=lambda name: (name.endswith("()"), -name.count("/"), name))
        raise StateError(
            f"the state {'has' if name in given.names else 'lacks'} "
            f"{name.removesuffix('()')!r}, unlike those of this "
            "process: it is of another algorithm, optimizer or aggregator; to go on with its "
            "weights, `process.set_model_weights(process.initialize(), weights)`."
        )
    wanted = dict(zip(own.names, own.leaves, strict=False))
    for name, leaf in zip(given.names, given.leaves, strict=False):
        if not _fits(leaf, wanted[name]):
            raise StateError(
                f"the state's {name!r} is {_described(leaf)}, and {_described(wanted[name])} in "
                "this process; go on from a state of this process, e.g. process.initialize()."
            )


def check_is_state(state: Any) -> None:
    """Refuses what is no state at all, e.g. weights."""
    is_one = hasattr(state, "global_model_weights")
    check_argument(is_one, "state", state, "a state of this process, e.g. process.initialize()")


def fits_shape(given: tuple[int, ...], own: tuple[int, ...]) -> bool:
    """Whether a leaf of a state has its shape at the start, or has grown from one without rows."""
    grown = own[:1] == (0,) and given[:1] != () and given[1:] == own[1:]
    return given == own or grown


def _state_form(state: PyTree) -> StateForm:
    leaves = named_leaves(state)
    forms = [_leaf_form(leaf) for leaf in leaves.values()]
    return StateForm(jax.tree.structure(state), forms, [*leaves, *empty_containers(state)])


def _leaf_form(leaf: Any) -> LeafForm:
    if hasattr(leaf, "dtype"):
        return LeafForm(leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False))
    array = np.asarray(leaf)
    return LeafForm(array.shape, array.dtype, True)


def _fits(given: LeafForm, own: LeafForm) -> bool:
    if not fits_shape(given.shape, own.shape):
        return False
    kind, own_kind = _kind(given.dtype), _kind(own.dtype)
    return kind == own_kind or own.weak or (given.weak and kind < own_kind)


@functools.cache
def _kind(dtype: Any) -> int:
    """The later of two takes numbers of the earlier; keys and texts come last."""
    return next((n for n, kind in enumerate(_KINDS) if jnp.issubdtype(dtype, kind)), len(_KINDS))


def _described(leaf: LeafForm) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
