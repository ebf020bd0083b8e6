"""What one client does in a round: local training, or evaluation.

TFF's client works (learning/templates/model_delta_client_work.py, learning/algorithms/fed_eval.py).
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from fedbridge.jax_core._model import Metric, Model, ModelWeights
from fedbridge.jax_core._steps import Client, Step, over_steps
from fedbridge.jax_core._trees import tree_all_finite, tree_sub, tree_where, tree_zeros_like
from fedbridge.jax_core.optimizers import get_hparams, set_hparams


class ClientResult(NamedTuple):
    """TFF's (learning/templates/client_works.py): an update and its weight."""

    update: PyTree
    update_weight: Float[Array, ""]


class ClientWork(NamedTuple):
    """The clients' part of a round.

    Attributes:
        initialize: `() -> state`, kept by the server.
        client: `(state, weights, client) -> (ClientResult, metric accumulators)`, on one client.
        server: `(state, summed accumulators) -> (state, measurements)`, at the round's end.
    """

    initialize: Callable[[], PyTree]
    client: Callable[[PyTree, ModelWeights, Client], tuple[ClientResult, PyTree]]
    server: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]


ClientWeight = Callable[[Int[Array, ""]], Float[Array, ""]]
"""From the number of examples that a client processed to its weight."""


def num_examples(count: Int[Any, ""]) -> Float[Array, ""]:
    """Weights a client by the examples it processed; TFF's `ClientWeighting.NUM_EXAMPLES`."""
    return jnp.asarray(count).astype(jnp.float32)


def uniform(count: Int[Any, ""]) -> Float[Array, ""]:
    """Weights all clients alike, also those without data; TFF's `ClientWeighting.UNIFORM`."""
    return jnp.ones((), jnp.float32)


class LocalState(NamedTuple):
    """What goes from local step to local step."""

    weights: ModelWeights
    optimizer: PyTree
    metrics: PyTree
    num_examples: Int[Array, ""]


def zero_metrics(metrics: Mapping[str, Metric]) -> OrderedDict[str, PyTree]:
    """The accumulators of a client that has seen nothing."""
    return OrderedDict(
        (name, jax.tree.map(jnp.asarray, metric.zero())) for name, metric in metrics.items()
    )


def update_metrics(
    metrics: Mapping[str, Metric], accumulators: PyTree, step: Step, forward: Any
) -> OrderedDict[str, PyTree]:
    """The accumulators after one more batch."""
    return OrderedDict(
        (name, metric.update(accumulators[name], step.batch, forward, step.mask))
        for name, metric in metrics.items()
    )


def finalize_metrics(metrics: Mapping[str, Metric], accumulators: PyTree) -> OrderedDict[str, Any]:
    """The values of the metrics, in the model's order."""
    return OrderedDict((name, m.finalize(accumulators[name])) for name, m in metrics.items())


def local_training(
    model: Model,
    client_optimizer: optax.GradientTransformation,
    client_weight: ClientWeight = num_examples,
) -> ClientWork:
    """Trains on the client's batches and returns how far the weights moved.

        w ← server weights;  for each batch b:  w ← ClientOpt(w, ∇ℓ(w; b))
        update ← server weights − w;  weight ← client_weight(examples processed)

    As in TFF: the optimizer's state starts anew on every client, with the hyperparameters of the
    server's state; a client whose update is not finite contributes zeros, the weight zero and no
    metrics.
    """

    def initialize() -> PyTree:
        return get_hparams(client_optimizer.init(jnp.zeros((), jnp.float32)))

    def step(local: LocalState, step: Step) -> LocalState:
        def objective(trainable: PyTree) -> tuple[Float[Array, ""], Any]:
            weights = ModelWeights(trainable, local.weights.non_trainable)
            forward = model.forward(weights, step.batch, step.mask, step.key, True)
            return forward.objective, forward

        trainable = local.weights.trainable
        gradients, forward = jax.grad(objective, has_aux=True)(trainable)
        updates, optimizer = client_optimizer.update(gradients, local.optimizer, trainable)
        weights = ModelWeights(optax.apply_updates(trainable, updates), forward.non_trainable)
        metrics = update_metrics(model.metrics, local.metrics, step, forward)
        seen = local.num_examples + forward.num_examples
        return LocalState(weights, optimizer, metrics, seen)

    def client(state: PyTree, weights: ModelWeights, client: Client) -> tuple[ClientResult, PyTree]:
        optimizer = set_hparams(client_optimizer.init(weights.trainable), state)
        zeros = zero_metrics(model.metrics)
        start = LocalState(weights, optimizer, zeros, jnp.zeros((), jnp.int32))
        end = over_steps(step, start, client)
        update = tree_sub(weights.trainable, end.weights.trainable)
        finite = tree_all_finite(update)
        update = tree_where(finite, update, tree_zeros_like(update))
        weight = jnp.where(finite, client_weight(end.num_examples), 0.0)
        return ClientResult(update, weight), tree_where(finite, end.metrics, zeros)

    def server(state: PyTree, accumulators: PyTree) -> tuple[PyTree, PyTree]:
        return state, OrderedDict(train=finalize_metrics(model.metrics, accumulators))

    return ClientWork(initialize, client, server)


def local_evaluation(model: Model) -> Callable[[ModelWeights, Client], PyTree]:
    """Evaluates the server's weights on the client's batches: the metric accumulators."""

    def evaluate(weights: ModelWeights, client: Client) -> PyTree:
        def step(metrics: PyTree, step: Step) -> PyTree:
            forward = model.forward(weights, step.batch, step.mask, step.key, False)
            return update_metrics(model.metrics, metrics, step, forward)

        return over_steps(step, zero_metrics(model.metrics), client)

    return evaluate
