"""Federated Averaging with a server optimizer.

    each round t:
        each client k of the cohort:
            wₖ ← wₜ
            each batch b of client k:  wₖ ← ClientOpt(wₖ, ∇ℓ(wₖ; b))
            Δₖ ← wₜ − wₖ,  nₖ ← number of examples of client k
        Δ    ← Σ nₖ Δₖ / Σ nₖ
        wₜ₊₁ ← ServerOpt(wₜ, Δ)

References:
    McMahan et al., 2017, Algorithm 1. https://arxiv.org/abs/1602.05629
    Reddi et al., 2021, Algorithm 1.   https://arxiv.org/abs/2003.00295
    TFF: learning/algorithms/fed_avg.py
"""

import optax

from fedbridge.jax_core import (
    AnyAggregator,
    ClientWeight,
    Execution,
    LearningProcess,
    MetricsAggregator,
    Model,
    apply_optimizer,
    compose_learning_process,
    default_execution,
    local_training,
    num_examples,
    optimizers,
    sum_then_finalize,
    weighted_mean,
)


def fed_avg(
    model: Model,
    client_optimizer: optax.GradientTransformation,
    server_optimizer: optax.GradientTransformation | None = None,
    *,
    aggregator: AnyAggregator | None = None,
    client_weight: ClientWeight = num_examples,
    metrics_aggregator: MetricsAggregator = sum_then_finalize,
    execution: Execution = default_execution,
) -> LearningProcess:
    """Builds FedAvg; by default, the algorithm of McMahan et al.

    Args:
        model: The initial weights w₀ and the objective ℓ.
        client_optimizer: ClientOpt; its state starts anew on every client.
        server_optimizer: ServerOpt; takes Δ as a gradient. The default, SGD with the rate 1, makes
            wₜ₊₁ the mean of the wₖ.
        aggregator: Reduces the Δₖ, weighted by nₖ, to Δ; default `weighted_mean()`. With
            `unweighted_mean()` this is TFF's `build_unweighted_fed_avg`.
        client_weight: nₖ; `uniform` weights all clients alike.
        metrics_aggregator: How the clients' metrics become the round's.
        execution: How the clients run.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> import fedbridge as fb
        >>> def forward(weights, batch, mask, key, training):
        ...     errors = jnp.where(mask, (batch["x"] * weights.trainable - batch["y"]) ** 2, 0.0)
        ...     loss = errors.sum() / mask.sum()
        ...     return fb.Forward(loss, errors, loss, mask.sum())
        >>> model = fb.Model(fb.ModelWeights(jnp.zeros(())), forward, metrics={})
        >>> data = fb.from_clients({"a": {"x": np.ones(4, "f"), "y": np.full(4, 3, "f")}})
        >>> process = fed_avg(model, optax.sgd(0.5))
        >>> cohort = data.cohort(["a"], fb.Batches(batch_size=4))
        >>> state, metrics = process.next(process.initialize(), cohort)
        >>> float(state.global_model_weights.trainable)
        3.0
    """
    work = local_training(
        model, client_optimizer, client_weight, metrics_aggregator=metrics_aggregator
    )
    return compose_learning_process(
        model,
        work,
        weighted_mean() if aggregator is None else aggregator,
        apply_optimizer(optimizers.sgdm(1.0) if server_optimizer is None else server_optimizer),
        execution,
        name="fed_avg",
    )
