"""Federated SGD: one gradient a round, over all examples of the cohort.

    each round t:
        each client k of the cohort:
            gₖ ← the mean of ∇ℓ(wₜ; ·) over its nₖ examples
        g    ← Σ nₖ gₖ / Σ nₖ
        wₜ₊₁ ← ServerOpt(wₜ, g)

References:
    McMahan et al., 2017, section 2. https://arxiv.org/abs/1602.05629
    TFF: learning/algorithms/fed_sgd.py
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from fedbridge.jax_core import (
    AnyAggregator,
    Client,
    ClientOutput,
    ClientResult,
    ClientWork,
    Execution,
    LearningProcess,
    MetricsAggregator,
    Model,
    ModelWeights,
    NonFinite,
    Round,
    Step,
    apply_optimizer,
    check_metrics_aggregator,
    check_non_finite,
    client_result,
    compose_learning_process,
    default_execution,
    drop_non_finite,
    model_gradient,
    optimizers,
    over_steps,
    sum_then_finalize,
    train_metrics,
    tree_add,
    tree_scale,
    tree_zeros_like,
    update_metrics,
    weighted_mean,
    zero_metrics,
)


def fed_sgd(
    model: Model,
    server_optimizer: optax.GradientTransformation | None = None,
    *,
    aggregator: AnyAggregator | None = None,
    metrics_aggregator: MetricsAggregator = sum_then_finalize,
    non_finite: NonFinite = drop_non_finite,
    execution: Execution = default_execution,
) -> LearningProcess:
    """Builds FedSGD.

    Args:
        model: The initial weights w₀ and the objective ℓ.
        server_optimizer: ServerOpt; default SGD with the rate 0.1.
        aggregator: Reduces the gₖ, weighted by nₖ, to g; default `weighted_mean()`.
        metrics_aggregator: How the clients' metrics become the round's.
        non_finite: Whether the metrics of a client whose gradient is not finite count:
            `keep_non_finite` is TFF's way.
        execution: How the clients run.

    Example:
        >>> import fedbridge as fb
        >>> process = fed_sgd(fb.models.softmax_regression((2,), 3), fb.optimizers.adam(0.01))
    """
    return compose_learning_process(
        model,
        full_gradient_work(model, metrics_aggregator, non_finite),
        weighted_mean() if aggregator is None else aggregator,
        apply_optimizer(optimizers.sgdm(0.1) if server_optimizer is None else server_optimizer),
        execution,
        name="fed_sgd",
    )


class _Seen(NamedTuple):
    gradient_sum: PyTree
    num_examples: Float[Array, ""]
    metrics: PyTree


def full_gradient_work(
    model: Model, metrics_aggregator: MetricsAggregator, non_finite: NonFinite
) -> ClientWork:
    """The mean gradient over the client's examples, at the server's weights."""
    gradient = model_gradient(model)
    check_metrics_aggregator(metrics_aggregator)
    check_non_finite(non_finite)

    def client(
        state: PyTree, weights: ModelWeights, client: Client
    ) -> tuple[ClientResult, ClientOutput]:
        def step(seen: _Seen, step: Step) -> _Seen:
            of_batch, forward = gradient(weights, weights, step)
            count = jnp.asarray(forward.num_examples).astype(jnp.float32)
            return _Seen(
                tree_add(seen.gradient_sum, tree_scale(count, of_batch)),
                seen.num_examples + count,
                update_metrics(model.metrics, seen.metrics, step, forward),
            )

        zeros = zero_metrics(model.metrics)
        start = _Seen(tree_zeros_like(weights.trainable), jnp.zeros((), jnp.float32), zeros)
        end = over_steps(step, start, client)
        # Without examples 0/0: not finite, so that the client has the weight zero.
        mean = jax.tree.map(lambda total: total / end.num_examples, end.gradient_sum)
        result, metrics = client_result(mean, end.num_examples, end.metrics, zeros, non_finite)
        return result, metrics_aggregator.client(model.metrics, metrics)

    def server(state: PyTree, sums: ClientOutput, round: Round) -> tuple[PyTree, PyTree]:
        return state, train_metrics(model.metrics, metrics_aggregator, sums, round)

    return ClientWork(lambda weights: (), client, server)
