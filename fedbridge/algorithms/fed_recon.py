"""Federated Reconstruction: partially local models, whose local part never leaves the client.

    each round t:
        each client k of the cohort, with the batches Sₖ for its support and Qₖ for its query:
            lₖ ← fresh local weights
            each batch b of Sₖ:  lₖ ← ReconOpt(lₖ, ∇ₗ ℓ(gₜ, lₖ; b))
            gₖ ← gₜ
            each batch b of Qₖ:  gₖ ← ClientOpt(gₖ, ∇ᵍ ℓ(gₖ, lₖ; b))
            Δₖ ← gₜ − gₖ,  nₖ ← number of examples of Qₖ
        Δ    ← Σ nₖ Δₖ / Σ nₖ
        gₜ₊₁ ← ServerOpt(gₜ, Δ)

References:
    Singhal et al., 2021, Algorithm 1. https://arxiv.org/abs/2102.03448
    TFF: learning/algorithms/{fed_recon,fed_recon_eval}.py
"""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Array, Float, Int, PyTree

from fedbridge.jax_core import (
    AnyAggregator,
    Client,
    ClientOutput,
    ClientResult,
    ClientWeight,
    ClientWork,
    Cohort,
    DatasetSplitFn,
    EvaluationAggregator,
    Execution,
    Forward,
    LearningProcess,
    MetricsAggregator,
    Model,
    ModelWeights,
    NonFinite,
    ReconstructionModel,
    Round,
    Step,
    Visits,
    apply_optimizer,
    build_dataset_split_fn,
    check_argument,
    check_function,
    check_metrics,
    check_of_steps,
    check_optimizer,
    check_weights_and_forward,
    compose_learning_process,
    default_execution,
    drop_non_finite,
    evaluation_process,
    local_training,
    num_examples,
    one_model,
    optimizers,
    over_steps,
    reconstruct,
    sum_over_rounds,
    sum_then_finalize,
    traced,
    train_metrics,
    update_metrics,
    weighted_mean,
    zero_metrics,
)


def fed_recon(
    model: ReconstructionModel,
    client_optimizer: optax.GradientTransformation | None = None,
    server_optimizer: optax.GradientTransformation | None = None,
    reconstruction_optimizer: optax.GradientTransformation | None = None,
    *,
    dataset_split_fn: DatasetSplitFn | None = None,
    client_weight: ClientWeight = num_examples,
    metrics_weight: Callable[[PyTree], Float[Array, ""]] | None = None,
    aggregator: AnyAggregator | None = None,
    metrics_aggregator: MetricsAggregator = sum_then_finalize,
    non_finite: NonFinite = drop_non_finite,
    execution: Execution = default_execution,
) -> LearningProcess:
    """Builds Federated Reconstruction.

    Args:
        model: The initial global weights g₀, how local weights start, and the objective ℓ.
        client_optimizer: ClientOpt, for the global weights; default SGD with the rate 0.1.
        server_optimizer: ServerOpt; default SGD with the rate 1.
        reconstruction_optimizer: ReconOpt, for the local weights; default SGD with the rate 0.1.
        dataset_split_fn: Sₖ and Qₖ; default `build_dataset_split_fn(split_dataset=True)`: every
            other batch each, beginning with Sₖ, so that a client with one batch trains nothing.
        client_weight: nₖ from the number of examples of Qₖ; `uniform` weights all clients alike.
        metrics_weight: nₖ from the accumulators of the client's metrics, instead.
        aggregator: Reduces the Δₖ, weighted by nₖ, to Δ; default `weighted_mean()`.
        metrics_aggregator: How the clients' metrics become the round's. They are those of Qₖ, each
            batch before the step that it makes.
        non_finite: Whether the metrics of a client whose update is not finite count:
            `keep_non_finite` is TFF's way.
        execution: How the clients run.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> import fedbridge as fb
        >>> def forward(ours, own, batch, mask, key, training):
        ...     errors = batch["x"] * ours.trainable + own.trainable - batch["y"]
        ...     loss = jnp.where(mask, errors**2, 0.0).sum() / mask.sum()
        ...     return fb.Forward(loss, errors, loss, mask.sum())
        >>> start = fb.ModelWeights(jnp.zeros(()))  # a slope that all share, an offset of one's own
        >>> model = ReconstructionModel(start, lambda key: start, forward, metrics={})
        >>> data = fb.from_clients({"a": {"x": np.ones(2, "f"), "y": np.full(2, 3, "f")}})
        >>> process = fed_recon(model, fb.optimizers.sgdm(0.25), None, fb.optimizers.sgdm(0.25))
        >>> cohort = data.cohort(["a"], fb.Batches(batch_size=1))
        >>> state, metrics = process.next(process.initialize(), cohort)
        >>> float(state.global_model_weights.trainable)  # the first batch gave the offset 1.5
        0.75
    """
    split = _split(dataset_split_fn)
    reconstruct_local, check_local = _reconstruction(model, reconstruction_optimizer, split)
    client_optimizer = optimizers.sgdm(0.1) if client_optimizer is None else client_optimizer

    def training(forward: Callable[..., Forward]) -> ClientWork:
        return local_training(
            Model(model.initial_weights, forward, model.metrics),
            client_optimizer,
            client_weight,
            metrics_weight=metrics_weight,
            visits=lambda num_batches: split(num_batches)[1],
            metrics_aggregator=metrics_aggregator,
            non_finite=non_finite,
        )

    # What is wrong is refused here, not in the first round.
    check_training = training(
        lambda weights, *rest: model.forward(weights, weights, *rest)
    ).check_cohort

    def check_cohort(cohort: Cohort) -> None:
        check_local(cohort)
        check_training(cohort)

    def client(
        state: PyTree, weights: ModelWeights, client: Client
    ) -> tuple[ClientResult, ClientOutput]:
        local_key, train_key = jax.random.split(client.key)
        local = reconstruct_local(weights, client._replace(key=local_key))

        def forward(weights: ModelWeights, *args: Any) -> Forward:
            found = model.forward(weights, local, *args)
            return found._replace(non_trainable=weights.non_trainable)

        return training(forward).client(state, weights, client._replace(key=train_key))

    def server(state: PyTree, sums: ClientOutput, round: Round) -> tuple[PyTree, PyTree]:
        return state, train_metrics(model.metrics, metrics_aggregator, sums, round)

    return compose_learning_process(
        model,
        ClientWork(lambda weights: (), client, server, check_cohort=check_cohort),
        weighted_mean() if aggregator is None else aggregator,
        apply_optimizer(optimizers.sgdm(1.0) if server_optimizer is None else server_optimizer),
        execution,
        name="fed_recon",
    )


def fed_recon_eval(
    model: ReconstructionModel,
    reconstruction_optimizer: optax.GradientTransformation | None = None,
    *,
    dataset_split_fn: DatasetSplitFn | None = None,
    metrics_aggregator: EvaluationAggregator = sum_over_rounds,
    execution: Execution = default_execution,
) -> LearningProcess:
    """Builds the evaluation of a partially local model: reconstruct on Sₖ, evaluate on Qₖ.

    Args:
        model: The model and its metrics.
        reconstruction_optimizer: As in `fed_recon`.
        dataset_split_fn: As in `fed_recon`.
        metrics_aggregator: As in `fed_eval`.
        execution: How the clients run.

    Returns:
        A process like that of `fed_eval`.
    """
    split = _split(dataset_split_fn)
    reconstruct_local, check_local = _reconstruction(model, reconstruction_optimizer, split)

    def evaluate(weights: ModelWeights, client: Client) -> PyTree:
        local_key, steps_key = jax.random.split(client.key)
        local = reconstruct_local(weights, client._replace(key=local_key))

        def step(metrics: PyTree, step: Step) -> PyTree:
            forward = model.forward(weights, local, step.batch, step.mask, step.key, False)
            return update_metrics(model.metrics, metrics, step, forward)

        zeros, query = zero_metrics(model.metrics), client._replace(key=steps_key)
        return over_steps(step, zeros, query, visits=lambda num_batches: split(num_batches)[1])

    report = one_model(model.metrics, metrics_aggregator)
    return evaluation_process(
        model, evaluate, report, execution, name="fed_recon_eval", check_cohort=check_local
    )


def _split(dataset_split_fn: DatasetSplitFn | None) -> DatasetSplitFn:
    if dataset_split_fn is None:
        return build_dataset_split_fn(split_dataset=True)
    check_function("dataset_split_fn", dataset_split_fn, "(the number of batches)")

    def split(num_batches: Int[Any, ""]) -> tuple[Visits, Visits]:
        shown = "dataset_split_fn(the number of batches)"
        with traced(shown):
            halves = dataset_split_fn(num_batches)
        two = isinstance(halves, tuple) and [type(half) for half in halves] == [Visits, Visits]
        check_argument(two, shown, halves, "two Visits, as fb.build_dataset_split_fn() gives them")
        return halves

    return split


def _reconstruction(
    model: ReconstructionModel,
    optimizer: optax.GradientTransformation | None,
    split: DatasetSplitFn,
) -> tuple[Callable[[ModelWeights, Client], ModelWeights], Callable[[Cohort], None]]:
    """What reconstructs, and what refuses a cohort in which its optimizer has no learning rate."""
    is_one = isinstance(model, ReconstructionModel)
    allowed = "a ReconstructionModel, e.g. of fb.from_keras_reconstruction"
    check_argument(is_one, "model", model, allowed)
    check_weights_and_forward(model, "(global weights, local weights, batch, mask, key, training)")
    check_function("initial_local_weights of the model", model.initial_local_weights, "(key)")
    check_metrics(model)
    support = lambda num_batches: split(num_batches)[0]
    optimizer = optimizers.sgdm(0.1) if optimizer is None else optimizer
    name = "reconstruction_optimizer"
    check_optimizer(optimizer, name)
    local = jax.eval_shape(model.initial_local_weights, jax.random.key(0))
    is_one = isinstance(local, ModelWeights)
    allowed = "fb.ModelWeights(trainable, non_trainable)"
    check_argument(is_one, "initial_local_weights(key) of the model", local, allowed)
    check = check_of_steps(optimizer, name, local.trainable, support)
    return reconstruct(model, optimizer, support), check
