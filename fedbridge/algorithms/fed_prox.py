"""FedProx: clients that are drawn back to the server's weights.

    each round t:
        each client k of the cohort:
            wₖ ← wₜ
            each batch b of client k:  wₖ ← ClientOpt(wₖ, ∇ℓ(wₖ; b) + μ (wₖ − wₜ))
            Δₖ ← wₜ − wₖ,  nₖ ← number of examples of client k
        Δ    ← Σ nₖ Δₖ / Σ nₖ
        wₜ₊₁ ← ServerOpt(wₜ, Δ)

References:
    Li et al., 2020, Algorithm 2. https://arxiv.org/abs/1812.06127
    TFF: learning/algorithms/fed_prox.py, learning/templates/proximal_client_work.py
"""

from collections.abc import Callable

import optax
from jaxtyping import PyTree

from fedbridge.jax_core import (
    AnyAggregator,
    ClientWeight,
    Execution,
    Forward,
    LearningProcess,
    MetricsAggregator,
    Model,
    ModelWeights,
    NonFinite,
    Step,
    apply_optimizer,
    check_function,
    check_like_weights,
    check_not_negative,
    compose_learning_process,
    default_execution,
    drop_non_finite,
    local_training,
    model_gradient,
    num_examples,
    optimizers,
    sum_then_finalize,
    tree_add,
    tree_scale,
    tree_sub,
    weighted_mean,
)

Pull = Callable[[PyTree, PyTree], PyTree]
"""`(local weights, server's weights) -> the direction that μ scales`, added to the gradient."""


def toward_server(local: PyTree, server: PyTree) -> PyTree:
    """`w − wₜ`, the gradient of the paper's ½‖w − wₜ‖²: a step leads back to wₜ."""
    return tree_sub(local, server)


def away_from_server(local: PyTree, server: PyTree) -> PyTree:
    """`wₜ − w`, what TFF 0.87.0 computes: the sign is reversed, a step leads away from wₜ."""
    return tree_sub(server, local)


def fed_prox(
    model: Model,
    proximal_strength: float,
    client_optimizer: optax.GradientTransformation,
    server_optimizer: optax.GradientTransformation | None = None,
    *,
    pull: Pull = toward_server,
    aggregator: AnyAggregator | None = None,
    client_weight: ClientWeight = num_examples,
    metrics_aggregator: MetricsAggregator = sum_then_finalize,
    non_finite: NonFinite = drop_non_finite,
    execution: Execution = default_execution,
) -> LearningProcess:
    """Builds FedProx.

    Args:
        model: The initial weights w₀ and the objective ℓ.
        proximal_strength: μ, at least 0; with 0 this is FedAvg, bit for bit.
        client_optimizer: ClientOpt; its state starts anew on every client.
        server_optimizer: ServerOpt; default SGD with the rate 1.
        pull: The direction of the proximal term: `toward_server` as in the paper, or
            `away_from_server` as in TFF 0.87.0.
        aggregator: Reduces the Δₖ, weighted by nₖ, to Δ; default `weighted_mean()`.
        client_weight: nₖ; `uniform` weights all clients alike.
        metrics_aggregator: How the clients' metrics become the round's.
        non_finite: Whether the metrics of a client whose update is not finite count:
            `keep_non_finite` is TFF's way.
        execution: How the clients run.

    Raises:
        ArgumentError: A proximal strength that is negative or not finite.

    Example:
        >>> import fedbridge as fb
        >>> model = fb.models.softmax_regression((2,), 3, x="x", y="y")
        >>> process = fed_prox(model, 0.1, fb.optimizers.sgdm(0.1))
    """
    check_not_negative("proximal_strength", proximal_strength)
    check_function("pull", pull, "(local weights, server's weights)")
    plain = model_gradient(model)

    def gradient(server: ModelWeights, local: ModelWeights, step: Step) -> tuple[PyTree, Forward]:
        of_objective, forward = plain(server, local, step)
        direction = pull(local.trainable, server.trainable)
        check_like_weights("pull(local weights, server's weights)", direction, local.trainable)
        return tree_add(of_objective, tree_scale(proximal_strength, direction)), forward

    work = local_training(
        model,
        client_optimizer,
        client_weight,
        gradient=gradient if proximal_strength else plain,
        metrics_aggregator=metrics_aggregator,
        non_finite=non_finite,
    )
    return compose_learning_process(
        model,
        work._replace(initialize=lambda weights: ()),  # as in TFF: no hyperparameters to set
        weighted_mean() if aggregator is None else aggregator,
        apply_optimizer(optimizers.sgdm(1.0) if server_optimizer is None else server_optimizer),
        execution,
        name="fed_prox",
    )
