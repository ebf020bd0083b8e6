"""A model of which a part never leaves the client.

TFF's `ReconstructionModel` (learning/models/reconstruction_model.py): global weights, which the
server has, and local ones, which a client reconstructs from its data whenever it takes part.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, Key, PyTree

from fedbridge.jax_core._model import Batch, Forward, Metric, ModelWeights
from fedbridge.jax_core._steps import Client, Step, Visits, every_batch, over_steps


class ReconstructionForwardFn(Protocol):
    """Computes a model on one batch.

    Args:
        global_weights: The weights that the server has.
        local_weights: The client's own.
        batch: The features of the batch, `[batch, ...]` each.
        mask: Which rows are real; None where all of them are.
        key: For dropout and the like.
        training: Whether this is a training step (a Python bool, known at trace time).
    """

    def __call__(
        self,
        global_weights: ModelWeights,
        local_weights: ModelWeights,
        batch: Batch,
        mask: Bool[Array, " batch"] | None,
        key: Key[Array, ""],
        training: bool,
    ) -> Forward: ...


class ReconstructionModel(NamedTuple):
    """A model with global and local weights.

    Attributes:
        initial_weights: The global weights that training starts from.
        initial_local_weights: `key -> ModelWeights`: what a client starts to reconstruct from; the
            key is the client's own in this round.
        forward: What the model computes on a batch; its `non_trainable` is not used.
        metrics: Name to metric, in the order in which they are reported.
        masked: As in `Model`.
        check: As in `Model`.
    """

    initial_weights: ModelWeights
    initial_local_weights: Callable[[Key[Array, ""]], ModelWeights]
    forward: ReconstructionForwardFn
    metrics: Mapping[str, Metric]
    masked: bool = True
    check: Callable[[Any], None] = lambda cohort: None


def reconstruct(
    model: ReconstructionModel,
    optimizer: optax.GradientTransformation,
    visits: Callable[[Int[Any, ""]], Visits] = every_batch,
) -> Callable[[ModelWeights, Client], ModelWeights]:
    """Trains the local weights, fresh on every client, while the global ones stay.

    Args:
        model: The model.
        optimizer: Its state starts anew on every client.
        visits: The batches that are trained on.

    Returns:
        `(global weights, client) -> local weights`.
    """

    def reconstruct(global_weights: ModelWeights, client: Client) -> ModelWeights:
        start_key, steps_key = jax.random.split(client.key)
        local = jax.tree.map(jnp.asarray, model.initial_local_weights(start_key))

        def step(carry: tuple[PyTree, PyTree], step: Step) -> tuple[PyTree, PyTree]:
            trainable, state = carry

            def objective(trainable: PyTree) -> Array:
                own = local._replace(trainable=trainable)
                return model.forward(
                    global_weights, own, step.batch, step.mask, step.key, True
                ).objective

            updates, state = optimizer.update(jax.grad(objective)(trainable), state, trainable)
            return optax.apply_updates(trainable, updates), state

        if not jax.tree.leaves(local.trainable):
            return local
        start = local.trainable, optimizer.init(local.trainable)
        trainable, _ = over_steps(step, start, client._replace(key=steps_key), visits=visits)
        return local._replace(trainable=trainable)

    return reconstruct
