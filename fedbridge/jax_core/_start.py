"""What a process knows of its model, and what becomes of a cohort before its round."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from fedbridge.jax_core._border import check_same_shapes
from fedbridge.jax_core._client_work import nothing_to_check
from fedbridge.jax_core._clients import Execution
from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._errors import ArgumentError, check_argument


@runtime_checkable
class Start(Protocol):
    """What a process must know of its model: a `Model`, or something like it.

    Attributes:
        initial_weights: The weights that the process starts from.
        masked: Whether it knows masks, see `Model`.
        check: `cohort -> None`, called before every round; raises where the model cannot use it.
    """

    @property
    def initial_weights(self) -> PyTree: ...
    @property
    def masked(self) -> bool: ...
    @property
    def check(self) -> Any: ...


def check_start(model: Any) -> None:
    """Refuses what is no model, and nothing like it."""
    is_one = isinstance(model, Start)
    check_argument(is_one, "model", model, "a model: one of fb.models, called, or fb.from_keras")


def own_array(leaf: Any, dtype: Any = None) -> Array:
    """An array that nobody else can change.

    jax copies one of NumPy's after `jnp.array` has returned, and would see what is written until
    then.
    """
    if isinstance(leaf, np.ndarray):
        return jnp.asarray(np.array(leaf, dtype))
    return jnp.array(leaf, dtype)


def check_weights(model: Start, weights: PyTree) -> None:
    """Refuses weights of other shapes than the model's."""
    check_same_shapes(model.initial_weights, weights)


def placing(
    model: Start, execution: Execution, check: Callable[[Cohort], None] = nothing_to_check
) -> Callable[[Cohort], Cohort]:
    """What checks a cohort, tells it what an opaque model must know, and places it."""
    process = object()

    def place(cohort: Cohort) -> Cohort:
        is_one = isinstance(cohort, Cohort)
        check_argument(is_one, "cohort", cohort, "a cohort: data.cohort(client_ids, batches)")
        if cohort.placed and cohort.placed_for is not process:
            raise ArgumentError(
                "the cohort was placed by another process, or by an execution; give this one the "
                "cohort that data.cohort(client_ids, batches) has made, or what its own place "
                "makes of that."
            )
        if cohort.placed:
            return cohort
        model.check(cohort)
        check(cohort)
        own = execution.place(cohort if model.masked else cohort.with_exact_sizes())
        return dataclasses.replace(own, placed_for=process)

    return place
