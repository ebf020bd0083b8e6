"""Constraints of Keras weights, which TFF's optimizers do not know: refused, or ignored on request.

Keras projects a weight after each step of its own optimizers. TFF's optimizers assign to the
variables, so that in federated training a constraint never acts, and nobody says so.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fedbridge.jax_core import ModelError


class Constraint(NamedTuple):
    """A constraint of a Keras model.

    Attributes:
        layer: The layer's name.
        argument: The layer's argument: "kernel_constraint", for example.
        name: The constraint's class, or the name of its function.
    """

    layer: str
    argument: str
    name: str


Constraints = Callable[[Constraint], None]
"""What becomes of a constraint of a model; it may raise."""


def refuse_constraints(found: Constraint) -> None:
    """Refuses a constraint.

    Raises:
        ModelError: Always.

    Example:
        >>> refuse_constraints(Constraint("dense", "kernel_constraint", "NonNeg"))
        Traceback (most recent call last):
        fedbridge.jax_core._errors.ModelError: layer "dense" has kernel_constraint=NonNeg, \
which does nothing in federated training: leave it out, or pass constraints=fb.ignore_constraints \
to train without it, as TFF does
    """
    raise ModelError(
        f'layer "{found.layer}" has {found.argument}={found.name}, which does nothing in federated'
        " training: leave it out, or pass constraints=fb.ignore_constraints to train without it,"
        " as TFF does"
    )


def ignore_constraints(found: Constraint) -> None:
    """Leaves a constraint out, as TFF does without a word: the weight moves freely.

    Example:
        >>> ignore_constraints(Constraint("dense", "kernel_constraint", "NonNeg"))
    """


def constraints_of(config: Any) -> Iterator[Constraint]:
    """The constraints of a model's config, of wrapped layers and nested models too.

    Example:
        >>> non_neg = {"class_name": "NonNeg", "config": {}}
        >>> dense = {"name": "dense", "kernel_constraint": non_neg, "bias_constraint": None}
        >>> list(constraints_of({"layers": [{"class_name": "Dense", "config": dense}]}))
        [Constraint(layer='dense', argument='kernel_constraint', name='NonNeg')]
    """
    if isinstance(config, list):
        for child in config:
            yield from constraints_of(child)
    elif isinstance(config, dict):
        for key, child in config.items():
            if key.endswith("_constraint") and child is not None:
                yield Constraint(config.get("name", "?"), key, _name(child))
            else:
                yield from constraints_of(child)


def _name(written: Any) -> str:
    """Keras writes a class with its config, and a function's name in the place of one."""
    if not isinstance(written, dict):
        return str(written)
    return str(written["config"] if written["class_name"] == "function" else written["class_name"])
