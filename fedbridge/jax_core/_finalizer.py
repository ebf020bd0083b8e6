"""The server's step: the mean update goes through the server optimizer.

TFF's `build_apply_optimizer_finalizer` (learning/templates/apply_optimizer_finalizer.py).
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from fedbridge.jax_core._aggregators import MeasuredProcessOutput
from fedbridge.jax_core._border import check_like_weights
from fedbridge.jax_core._model import ModelWeights
from fedbridge.jax_core._trees import tree_all_finite, tree_where
from fedbridge.jax_core.optimizers._given import check_optimizer
from fedbridge.jax_core.optimizers._schedule import check_learning_rate


class Finalizer(NamedTuple):
    """What the server does with the aggregate.

    Attributes:
        initialize: `weights -> state`.
        next: `(state, weights, update) -> MeasuredProcessOutput(state, weights, measurements)`.
        check: Called with the state before every round, outside of the program; raises where no
            round can start from it.
    """

    initialize: Callable[[ModelWeights], PyTree]
    next: Callable[[PyTree, ModelWeights, PyTree], MeasuredProcessOutput]
    check: Callable[[PyTree], None] = lambda state: None


def apply_optimizer(server_optimizer: optax.GradientTransformation) -> Finalizer:
    """Applies an optimizer to the aggregate, taken as a gradient.

    An aggregate that is not finite (a NaN, or the mean over no client at all) changes nothing, the
    optimizer's state included, and is counted in `update_non_finite`.

    Raises:
        ArgumentError: A server optimizer that is none; in the first round, an aggregate of other
            shapes than the trainable weights.
    """
    check_optimizer(server_optimizer, "server_optimizer")

    def initialize(weights: ModelWeights) -> PyTree:
        return server_optimizer.init(weights.trainable)

    def next(state: PyTree, weights: ModelWeights, update: PyTree) -> MeasuredProcessOutput:
        check_like_weights("what the aggregator gives", update, weights.trainable)
        step, new_state = server_optimizer.update(update, state, weights.trainable)
        moved = optax.apply_updates(weights.trainable, step)
        finite = tree_all_finite(update)
        trainable = tree_where(finite, moved, weights.trainable)
        measured = OrderedDict(update_non_finite=jnp.where(finite, 0, 1).astype(jnp.int32))
        return MeasuredProcessOutput(
            tree_where(finite, new_state, state), weights._replace(trainable=trainable), measured
        )

    return Finalizer(initialize, next, check_learning_rate)
