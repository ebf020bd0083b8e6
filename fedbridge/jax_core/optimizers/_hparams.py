"""The form of TFF's optimizers: a state that holds the hyperparameters beside the slots."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, PyTree

from fedbridge.jax_core._errors import ArgumentError, as_scalar, check_argument

Scalar = Any
"""A hyperparameter: a number of Python or NumPy, or an array of shape (), traced or not."""

Slots = Mapping[str, PyTree]

_Range = tuple[str, Callable[[Any], Any]]
_FROM_0: _Range = "a number of at least 0", lambda x: x >= 0
_FROM_0_TO_1: _Range = "a number from 0 to 1", lambda x: (x >= 0) & (x <= 1)

# What TFF accepts, plus that it is finite; and, for Adafactor, where TFF looks at the rate only,
# what its formula can use.
_ALLOWED: Mapping[str, _Range] = {
    "learning_rate": _FROM_0,
    "momentum": _FROM_0_TO_1,
    "beta_1": _FROM_0_TO_1,
    "beta_2": _FROM_0_TO_1,
    "epsilon": _FROM_0,
    "decay": _FROM_0_TO_1,
    "weight_decay": _FROM_0,
    "initial_preconditioner_value": _FROM_0,
    "beta_2_decay": ("a number of at most 0", lambda x: x <= 0),
    "epsilon_1": _FROM_0,
    "epsilon_2": _FROM_0,
    "clip_threshold": ("a number above 0", lambda x: x > 0),
    "relative_step": ("True or False", lambda x: (x == 0) | (x == 1)),
}


def check_hparam(name: str, value: Scalar, shown: str | None = None) -> None:
    """Refuses what a hyperparameter cannot be. Of a traced value only shape and dtype are known.

    Args:
        name: Which hyperparameter.
        value: Its value; an int is a fine number, a bool is none.
        shown: What the error calls it, if not by its name.

    Raises:
        ArgumentError: Not one real number, not finite, or out of its range.

    Example:
        >>> check_hparam("beta_1", 1.5)
        Traceback (most recent call last):
        fedbridge.jax_core._errors.ArgumentError: beta_1 is 1.5; it must be a number from 0 to 1.
    """
    allowed, holds = _ALLOWED[name]
    traced = isinstance(value, Tracer)
    array = value if traced else as_scalar(value)
    kinds = [jnp.floating, jnp.integer, *([jnp.bool_] if name == "relative_step" else [])]
    right = array.ndim == 0 and any(jnp.issubdtype(array.dtype, kind) for kind in kinds)
    if right and not traced:
        with np.errstate(over="ignore"):
            number = array.astype(np.float32)
        if np.isinf(number):
            allowed += ", and finite as a float32"
        right = bool(np.isfinite(number) and holds(number))
    check_argument(right, shown or name, value, allowed)


def as_hparam(name: str, value: Scalar) -> Array:
    """A hyperparameter as a state holds it: float32, but `relative_step` a bool."""
    return jnp.asarray(value, jnp.bool_ if name == "relative_step" else jnp.float32)


def get_hparams(state: PyTree) -> OrderedDict[str, Any]:
    """The hyperparameters in an optimizer's state; empty for optimizers that keep none there.

    Example:
        >>> from fedbridge.jax_core.optimizers import sgdm
        >>> dict(get_hparams(sgdm(0.5, momentum=0.75).init(jnp.zeros(3))))
        {'learning_rate': Array(0.5, dtype=float32), 'momentum': Array(0.75, dtype=float32)}
    """
    if not isinstance(state, OrderedDict):
        return OrderedDict()
    home = state.get("hparams", state)  # Adafactor's have a place of their own
    return OrderedDict((name, home[name]) for name in home if name in _ALLOWED)


def set_hparams(state: PyTree, hparams: Mapping[str, Scalar], shown: str = "hparams") -> PyTree:
    """The state with other hyperparameters; those that are not named stay.

    Args:
        state: Of an optimizer.
        hparams: Name to value.
        shown: What errors call `hparams`.

    Raises:
        ArgumentError: The state has no hyperparameter of that name, or cannot have that value.
    """
    check_argument(isinstance(hparams, Mapping), shown, hparams, "a mapping of names to values")
    if not hparams:
        return state
    known = get_hparams(state)
    for name, value in hparams.items():
        if name not in known:
            raise ArgumentError(
                f"{shown} has {name!r}, but this optimizer's state has "
                f"{', '.join(known) or 'no hyperparameters'}; build the optimizer with it."
            )
        check_hparam(name, value, f"{shown}[{name!r}]")
    new = {name: as_hparam(name, value) for name, value in hparams.items()}
    if "hparams" in state:
        return OrderedDict({**state, "hparams": OrderedDict({**state["hparams"], **new})})
    return OrderedDict({**state, **new})


def with_hparams(
    hparams: Mapping[str, Scalar],
    slots: Callable[[PyTree], Slots],
    step: Callable[[PyTree, OrderedDict, PyTree], tuple[PyTree, Slots]],
) -> optax.GradientTransformation:
    """An optimizer in TFF's form: its state holds the hyperparameters, then the slots.

    Args:
        hparams: Name to value; float32 in the state.
        slots: `weights -> {name: tree}`, what it starts from.
        step: `(gradients, state, weights) -> (what is added to the weights, the new slots)`; the
            weights may be None, see `required`.

    Raises:
        ArgumentError: A hyperparameter is no number, or out of its range.
    """
    for name, value in hparams.items():
        check_hparam(name, value)

    def init(params: PyTree) -> OrderedDict:
        values = {name: as_hparam(name, value) for name, value in hparams.items()}
        return OrderedDict({**values, **slots(params)})

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, OrderedDict]:
        moves, new_slots = step(updates, state, params)
        return moves, OrderedDict({**state, **new_slots})

    return optax.GradientTransformation(init, update)


def required(weights: PyTree) -> PyTree:
    """The weights, where a step depends on them.

    Raises:
        ArgumentError: They are None: `update` was called without them.
    """
    if weights is None:
        raise ArgumentError(
            "params is None, but this optimizer's step depends on the weights; call "
            "update(gradients, state, weights)."
        )
    return weights
