"""What one client does in a round: local training, or evaluation.

TFF's client works (learning/templates/model_delta_client_work.py, learning/algorithms/fed_eval.py).
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fedbridge.jax_core._clients import ClientOutput
from fedbridge.jax_core._cohort import TRAIN, Cohort
from fedbridge.jax_core._errors import check_argument, check_function, traced
from fedbridge.jax_core._metrics_aggregators import (
    MetricsAggregator,
    check_metrics_aggregator,
    sum_then_finalize,
    zero_metrics,
)
from fedbridge.jax_core._model import Forward, Metric, Model, ModelWeights, check_model
from fedbridge.jax_core._steps import Client, Step, Visits, every_batch, over_steps
from fedbridge.jax_core._trees import (
    check_numbers,
    named_leaves,
    tree_all_finite,
    tree_sub,
    tree_where,
    tree_zeros_like,
)
from fedbridge.jax_core.optimizers import get_hparams, set_hparams
from fedbridge.jax_core.optimizers._given import check_optimizer
from fedbridge.jax_core.optimizers._schedule import check_local_steps, has_schedule


class ClientResult(NamedTuple):
    """TFF's (learning/templates/client_works.py): an update and its weight."""

    update: PyTree
    update_weight: Float[Array, ""]


class Round(NamedTuple):
    """What the server knows of a round besides the clients' contributions.

    Attributes:
        num_clients: How many clients took part.
        key: The round's own.
    """

    num_clients: Int[Any, ""]
    key: Key[Any, ""]


def nothing_to_check(given: Any) -> None:
    """Any state, or cohort, will do."""


class ClientWork(NamedTuple):
    """The clients' part of a round.

    Attributes:
        initialize: `weights -> state`, kept by the server.
        client: `(state, weights, client) -> (ClientResult, ClientOutput(summed, kept))`, on one
            client: what goes to the aggregator, and what comes back to this client work.
        server: `(state, ClientOutput of all clients, round) -> (state, measurements)`.
        check: Called with the state before every round, outside of the program; raises where no
            round can start from it.
        check_cohort: The same with the cohort of a round, before it is placed.
    """

    initialize: Callable[[ModelWeights], PyTree]
    client: Callable[[PyTree, ModelWeights, Client], tuple[ClientResult, ClientOutput]]
    server: Callable[[PyTree, ClientOutput, Round], tuple[PyTree, PyTree]]
    check: Callable[[PyTree], None] = nothing_to_check
    check_cohort: Callable[[Cohort], None] = nothing_to_check


ClientWeight = Callable[[Int[Array, ""]], Float[Array, ""]]
"""From the number of examples that a client processed to its weight."""


def num_examples(count: Int[Any, ""]) -> Float[Array, ""]:
    """Weights a client by the examples it processed; TFF's `ClientWeighting.NUM_EXAMPLES`."""
    return jnp.asarray(count).astype(jnp.float32)


def uniform(count: Int[Any, ""]) -> Float[Array, ""]:
    """Weights all clients alike, also those without data; TFF's `ClientWeighting.UNIFORM`."""
    return jnp.ones((), jnp.float32)


def check_weight(name: str, weight: Any) -> None:
    """Refuses a client's weight that is no number; at the trace, of which the shape is known."""
    number = isinstance(weight, jax.Array | np.ndarray | np.number | float | int)
    check_argument(number and np.shape(weight) == (), name, weight, "one number")


def run_forward(model: Model, weights: Any, step: Step, training: bool) -> Forward:
    """The model's forward pass on a step's batch; what it raises has the batch as a note."""
    try:
        return model.forward(weights, step.batch, step.mask, step.key, training)
    except Exception as error:
        form = lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"
        features = [f"{name} {form(leaf)}" for name, leaf in named_leaves(step.batch).items()]
        error.add_note(f"In the model's forward pass, on a batch of {', '.join(features)}.")
        raise


Gradient = Callable[[ModelWeights, ModelWeights, Step], tuple[PyTree, Forward]]
"""`(server's weights, local weights, step) -> (gradient of the trainable ones, forward)`."""


def model_gradient(model: Model) -> Gradient:
    """The gradient of the model's objective on the step's batch."""
    check_model(model)

    def gradient(start: Any, local: ModelWeights, step: Step) -> tuple[PyTree, Forward]:
        def objective(trainable: PyTree) -> tuple[Float[Array, ""], Forward]:
            weights = ModelWeights(trainable, local.non_trainable)
            forward = run_forward(model, weights, step, True)
            _check_forward(weights, forward)
            return forward.objective, forward

        return jax.grad(objective, has_aux=True)(local.trainable)

    return gradient


def _check_forward(weights: ModelWeights, forward: Forward) -> None:
    """Refuses what a model returns in another form than its weights; at the trace."""
    scalar = jnp.shape(forward.objective) == ()
    check_argument(scalar, "Forward.objective of the model", forward.objective, "one number")
    before, after = (_forms(tree.non_trainable) for tree in (weights, forward))
    allowed = f"of the form of the weights, {before or 'none'}"
    check_argument(before == after, "Forward.non_trainable of the model", after, allowed)


NonFinite = Callable[[Bool[Array, ""], PyTree, PyTree], PyTree]
"""`(finite, values, zeros) -> values` of a client whose update may not be finite."""


def drop_non_finite(finite: Bool[Array, ""], values: PyTree, zeros: PyTree) -> PyTree:
    """A client whose update is not finite has no metrics (nor full gradient) either."""
    return tree_where(finite, values, zeros)


def keep_non_finite(finite: Bool[Array, ""], values: PyTree, zeros: PyTree) -> PyTree:
    """They count, NaN or not, as in TFF's FedProx, FedSGD, MimeLite and FedRecon."""
    return values


def check_non_finite(non_finite: Any) -> None:
    """Refuses what is no function of this kind, e.g. "keep"."""
    check_function("non_finite", non_finite, "(finite, values, zeros), e.g. fb.keep_non_finite")


def client_result(
    update: PyTree, weight: Float[Array, ""], metrics: PyTree, zeros: PyTree, non_finite: NonFinite
) -> tuple[ClientResult, PyTree]:
    """A client's update, zeros of weight zero where it is not finite, and its metrics."""
    finite = tree_all_finite(update)
    update = tree_where(finite, update, tree_zeros_like(update))
    result = ClientResult(update, jnp.where(finite, weight, 0.0))
    return result, non_finite(finite, metrics, zeros)


class LocalState(NamedTuple):
    """What goes from local step to local step."""

    weights: ModelWeights
    optimizer: PyTree
    metrics: PyTree
    num_examples: Int[Array, ""]


def update_metrics(
    metrics: Mapping[str, Metric], accumulators: PyTree, step: Step, forward: Forward
) -> OrderedDict[str, PyTree]:
    """The accumulators after one more batch.

    Raises:
        ArgumentError: One of them is of another form than before.
    """
    updated = OrderedDict()
    for name, metric in metrics.items():
        with traced(f"update(...) of the metric {name!r}"):
            updated[name] = metric.update(accumulators[name], step.batch, forward, step.mask)
    for name, found in updated.items():
        check_numbers(f"what the metric {name!r} has seen", found)
        before, after = (_forms(tree) for tree in (accumulators[name], found))
        fits = before == after
        allowed = f"of the form of its zero(), {before}"
        check_argument(fits, f"update(...) of the metric {name!r}", after, allowed)
    return updated


def _forms(tree: PyTree) -> str:
    """The shapes and kinds of numbers of a tree's leaves."""
    leaves = named_leaves(tree).items()
    kind = lambda leaf: "int" if jnp.issubdtype(jnp.result_type(leaf), jnp.integer) else "float"
    form = lambda leaf: f"{kind(leaf)}{list(jnp.shape(leaf))}"
    return ", ".join(f"{name}: {form(leaf)}" if name else form(leaf) for name, leaf in leaves)


def train_metrics(
    metrics: Mapping[str, Metric], aggregator: MetricsAggregator, sums: ClientOutput, round: Round
) -> OrderedDict[str, PyTree]:
    """The measurements of a client work that trains: TFF's `{"train": ...}`."""
    return OrderedDict(train=aggregator.server(metrics, sums, round.num_clients, round.key))


def local_training(
    model: Model,
    client_optimizer: optax.GradientTransformation,
    client_weight: ClientWeight = num_examples,
    *,
    gradient: Gradient | None = None,
    metrics_weight: Callable[[PyTree], Float[Array, ""]] | None = None,
    visits: Callable[[Int[Any, ""]], Visits] = every_batch,
    metrics_aggregator: MetricsAggregator = sum_then_finalize,
    non_finite: NonFinite = drop_non_finite,
) -> ClientWork:
    """Trains on the client's batches and returns how far the weights moved.

        w ← server weights;  for each batch b:  w ← ClientOpt(w, ∇ℓ(w; b))
        update ← server weights − w;  weight ← client_weight(examples processed)

    As in TFF: the optimizer's state starts anew on every client, with the hyperparameters of the
    server's state, which has none of them for a functional model; a client whose update is not
    finite contributes zeros, the weight zero and no metrics.

    Args:
        model: What is trained.
        client_optimizer: ClientOpt.
        client_weight: From the number of examples processed.
        gradient: Stands in for ∇ℓ; default `model_gradient(model)`.
        metrics_weight: Stands in for `client_weight`: from the accumulators of the metrics.
        visits: Which of the client's batches, in which order.
        metrics_aggregator: How the clients' metrics become the round's.
        non_finite: What becomes of the metrics of a client whose update is not finite.

    Raises:
        ArgumentError: A client optimizer that is none.
    """
    check_optimizer(client_optimizer, "client_optimizer")
    check_model(model)
    check_function("client_weight", client_weight, "(the number of examples)")
    check_function("visits", visits, "(the number of batches)")
    if metrics_weight is not None:
        check_function("metrics_weight", metrics_weight, "(the accumulators of the metrics)")
    check_metrics_aggregator(metrics_aggregator)
    check_non_finite(non_finite)
    gradient = model_gradient(model) if gradient is None else gradient
    check_function("gradient", gradient, "(server's weights, local weights, step)")

    def initialize(weights: ModelWeights) -> PyTree:
        return () if model.functional else get_hparams(client_optimizer.init(weights.trainable))

    def client(
        state: PyTree, weights: ModelWeights, client: Client
    ) -> tuple[ClientResult, ClientOutput]:
        def step(local: LocalState, step: Step) -> LocalState:
            trainable = local.weights.trainable
            gradients, forward = gradient(weights, local.weights, step)
            updates, optimizer = client_optimizer.update(gradients, local.optimizer, trainable)
            new = ModelWeights(optax.apply_updates(trainable, updates), forward.non_trainable)
            metrics = update_metrics(model.metrics, local.metrics, step, forward)
            return LocalState(new, optimizer, metrics, local.num_examples + forward.num_examples)

        optimizer = set_hparams(client_optimizer.init(weights.trainable), state or {})
        zeros = zero_metrics(model.metrics)
        start = LocalState(weights, optimizer, zeros, jnp.zeros((), jnp.int32))
        end = over_steps(step, start, client, visits=visits)
        update = tree_sub(weights.trainable, end.weights.trainable)
        if metrics_weight is None:
            name = "client_weight(the number of examples)"
            with traced(name):
                weight = client_weight(end.num_examples)
        else:
            name = "metrics_weight(the accumulators of the metrics)"
            with traced(name):
                weight = metrics_weight(end.metrics)
        check_weight(name, weight)
        result, metrics = client_result(update, weight, end.metrics, zeros, non_finite)
        return result, metrics_aggregator.client(model.metrics, metrics)

    def server(state: PyTree, sums: ClientOutput, round: Round) -> tuple[PyTree, PyTree]:
        return state, train_metrics(model.metrics, metrics_aggregator, sums, round)

    check = check_of_steps(
        client_optimizer, "client_optimizer", model.initial_weights.trainable, visits
    )
    return ClientWork(initialize, client, server, check_cohort=check)


def check_of_steps(
    optimizer: optax.GradientTransformation,
    name: str,
    weights: PyTree,
    visits: Callable[[Int[Any, ""]], Visits] = every_batch,
    stream: str = TRAIN,
) -> Callable[[Cohort], None]:
    """What refuses a cohort in one of whose local steps a schedule gives no learning rate.

    Args:
        optimizer: What takes the steps.
        name: What the error calls it.
        weights: What it moves, or their shapes.
        visits: Which batches of the stream, and how often.
        stream: Of the cohort.
    """

    def check_cohort(cohort: Cohort) -> None:
        sizes = np.unique(np.diff(np.asarray(cohort.streams[stream].step_offsets)))
        counts = [int(visits(size).count) for size in sizes]
        check_local_steps(optimizer, name, max(counts, default=0))

    return check_cohort if has_schedule(optimizer, weights) else nothing_to_check


def local_evaluation(model: Model, stream: str = TRAIN) -> Callable[[ModelWeights, Client], PyTree]:
    """Evaluates weights on the client's batches of a stream: the metric accumulators."""

    def evaluate(weights: ModelWeights, client: Client) -> PyTree:
        def step(metrics: PyTree, step: Step) -> PyTree:
            forward = run_forward(model, weights, step, False)
            return update_metrics(model.metrics, metrics, step, forward)

        return over_steps(step, zero_metrics(model.metrics), client, stream=stream)

    return evaluate
