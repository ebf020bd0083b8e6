"""MimeLite: clients that imitate the server's optimizer, whose state is frozen while they train.

    each round t:
        each client k of the cohort:
            gₖ ← the mean of ∇ℓ(wₜ; ·) over its nₖ examples
            wₖ ← wₜ
            each batch b of client k:  wₖ ← Base(wₖ, ∇ℓ(wₖ; b); sₜ)        (sₜ stays)
            Δₖ ← wₜ − wₖ
        wₜ₊₁ ← ServerOpt(wₜ, Σ nₖ Δₖ / Σ nₖ)
        sₜ₊₁ ← Base's next state after sₜ, with the gradient Σ nₖ gₖ / Σ nₖ

References:
    Karimireddy et al., 2021, Algorithm 1 (MimeLite). https://arxiv.org/abs/2008.03606
    TFF: learning/algorithms/mime.py
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from fedbridge.jax_core import (
    Aggregator,
    AnyAggregator,
    Client,
    ClientOutput,
    ClientResult,
    ClientWeight,
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
    check_aggregator,
    check_has_learning_rate,
    check_optimizer,
    check_rate,
    check_schedule,
    compose_learning_process,
    default_execution,
    drop_non_finite,
    local_training,
    metrics,
    model_gradient,
    num_examples,
    optimizers,
    over_steps,
    sum_then_finalize,
    tree_add,
    tree_all_finite,
    tree_scale,
    tree_zeros_like,
    weighted_mean,
)


def mime_lite(
    model: Model,
    base_optimizer: optax.GradientTransformation,
    server_optimizer: optax.GradientTransformation | None = None,
    *,
    client_weight: ClientWeight = num_examples,
    aggregator: AnyAggregator | None = None,
    full_gradient_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator = sum_then_finalize,
    non_finite: NonFinite = drop_non_finite,
    execution: Execution = default_execution,
) -> LearningProcess:
    """Builds MimeLite.

    Args:
        model: The initial weights w₀ and the objective ℓ.
        base_optimizer: Base; without momentum or the like this is FedAvg with a second pass.
        server_optimizer: ServerOpt; default SGD with the rate 1.
        client_weight: nₖ; `uniform` weights all clients alike.
        aggregator: Reduces the Δₖ, weighted by nₖ; default `weighted_mean()`.
        full_gradient_aggregator: Reduces the gₖ, weighted by nₖ; default `weighted_mean()`.
        metrics_aggregator: How the clients' metrics become the round's.
        non_finite: By default, what is not finite changes neither the metrics nor s. TFF's way is
            `keep_non_finite`: one NaN, or one round without examples, makes s NaN for ever.
        execution: How the clients run.

    Example:
        >>> import fedbridge as fb
        >>> model = fb.models.softmax_regression((2,), 3)
        >>> process = mime_lite(model, fb.optimizers.sgdm(0.1, momentum=0.9))
    """
    work = _client_work(
        model,
        base_optimizer,
        client_weight,
        weighted_mean() if full_gradient_aggregator is None else full_gradient_aggregator,
        metrics_aggregator,
        non_finite,
    )
    return compose_learning_process(
        model,
        work,
        weighted_mean() if aggregator is None else aggregator,
        apply_optimizer(optimizers.sgdm(1.0) if server_optimizer is None else server_optimizer),
        execution,
        name="mime_lite",
    )


def mime_lite_with_schedule(
    model: Model,
    learning_rate_fn: Callable[[Int[Array, ""]], Float[Array, ""]],
    base_optimizer: optax.GradientTransformation,
    server_optimizer: optax.GradientTransformation | None = None,
    *,
    client_weight: ClientWeight = num_examples,
    aggregator: AnyAggregator | None = None,
    full_gradient_aggregator: Aggregator | None = None,
    metrics_aggregator: MetricsAggregator = sum_then_finalize,
    non_finite: NonFinite = drop_non_finite,
    execution: Execution = default_execution,
) -> LearningProcess:
    """Builds MimeLite whose base optimizer has the rate `learning_rate_fn(t)` in round t, from 0.

    Args:
        model: As in `mime_lite`.
        learning_rate_fn: From the number of the round, traced, to a learning rate.
        base_optimizer: One with a `learning_rate` in its state: one of `fb.optimizers`.
        server_optimizer: As in `mime_lite`, like all that follows.
        client_weight: See there.
        aggregator: See there.
        full_gradient_aggregator: See there.
        metrics_aggregator: See there.
        non_finite: See there.
        execution: See there.

    Raises:
        ArgumentError: A base optimizer without a learning rate in its state, or a schedule whose
            first value is no learning rate. A later value that is none is refused when its round
            begins.
    """
    check_has_learning_rate(base_optimizer, "base_optimizer")
    check_schedule(learning_rate_fn, "learning_rate_fn")
    work = _client_work(
        model,
        base_optimizer,
        client_weight,
        weighted_mean() if full_gradient_aggregator is None else full_gradient_aggregator,
        metrics_aggregator,
        non_finite,
    )
    return compose_learning_process(
        model,
        _scheduled(work, learning_rate_fn),
        weighted_mean() if aggregator is None else aggregator,
        apply_optimizer(optimizers.sgdm(1.0) if server_optimizer is None else server_optimizer),
        execution,
        name="mime_lite_with_schedule",
    )


def _client_work(
    model: Model,
    base_optimizer: optax.GradientTransformation,
    client_weight: ClientWeight,
    gradients: Aggregator,
    metrics_aggregator: MetricsAggregator,
    non_finite: NonFinite,
) -> ClientWork:
    """Its state is (Base's state, the state of the aggregator of full gradients)."""
    check_optimizer(base_optimizer, "base_optimizer")
    check_aggregator("full_gradient_aggregator", gradients)
    gradient = model_gradient(model)

    def training(base_state: PyTree) -> ClientWork:
        # Local steps start from s every time, and what Base makes of it is dropped.
        frozen = optax.GradientTransformation(
            lambda params: (),
            lambda updates, state, params=None: (
                base_optimizer.update(updates, base_state, params)[0],
                (),
            ),
        )
        return local_training(
            model,
            frozen,
            client_weight,
            metrics_aggregator=metrics_aggregator,
            non_finite=non_finite,
        )

    training(())  # what is wrong is refused here, not in the first round

    def full_gradient(weights: ModelWeights, client: Client) -> PyTree:
        def step(seen: tuple[PyTree, Any], step: Step) -> tuple[PyTree, Any]:
            of_batch, forward = gradient(weights, weights, step)
            count = jnp.asarray(forward.num_examples).astype(jnp.float32)
            return tree_add(seen[0], tree_scale(count, of_batch)), seen[1] + count

        start = tree_zeros_like(weights.trainable), jnp.zeros((), jnp.float32)
        total, count = over_steps(step, start, client)
        return jax.tree.map(lambda leaf: metrics.divide_no_nan(leaf, count), total)

    def initialize(weights: ModelWeights) -> tuple[PyTree, PyTree]:
        trainable = weights.trainable
        return base_optimizer.init(trainable), gradients.initialize(trainable)

    def client(
        state: tuple[PyTree, PyTree], weights: ModelWeights, client: Client
    ) -> tuple[ClientResult, ClientOutput]:
        base_state, aggregator_state = state
        train_key, gradient_key, contribution_key = jax.random.split(client.key, 3)
        full = full_gradient(weights, client._replace(key=gradient_key))
        result, output = training(base_state).client((), weights, client._replace(key=train_key))
        finite = tree_all_finite(full)
        full = non_finite(finite, full, tree_zeros_like(full))
        weight = non_finite(finite, result.update_weight, jnp.zeros(()))
        contribution = gradients.client(aggregator_state, full, weight, contribution_key)
        return result, output._replace(summed=(output.summed, contribution))

    def server(
        state: tuple[PyTree, PyTree], sums: ClientOutput, round: Round
    ) -> tuple[tuple[PyTree, PyTree], PyTree]:
        base_state, aggregator_state = state
        summed_metrics, contributions = sums.summed
        metrics_key, gradient_key = jax.random.split(round.key)
        mean = gradients.server(aggregator_state, contributions, gradient_key)
        _, new = base_optimizer.update(mean.result, base_state, tree_zeros_like(mean.result))
        new = non_finite(tree_all_finite(mean.result), new, base_state)
        _, measured = training(base_state).server(
            (), sums._replace(summed=summed_metrics), round._replace(key=metrics_key)
        )
        return (new, mean.state), measured

    return ClientWork(initialize, client, server)


def _scheduled(work: ClientWork, rate: Callable[[Any], Any]) -> ClientWork:
    """The same with the number of the round in the state, and its rate in Base's state."""

    def with_rate(state: tuple[PyTree, PyTree], round_num: Any) -> tuple[PyTree, PyTree]:
        base_state, aggregator_state = state
        hparams = {"learning_rate": rate(round_num)}
        return optimizers.set_hparams(base_state, hparams), aggregator_state

    def initialize(weights: ModelWeights) -> tuple[Any, PyTree]:
        start = jnp.zeros((), jnp.int32)
        return start, with_rate(work.initialize(weights), start)

    def server(state: tuple[Any, PyTree], sums: ClientOutput, round: Round) -> tuple[Any, PyTree]:
        round_num, inner = state
        inner, measured = work.server(inner, sums, round)
        return (round_num + 1, with_rate(inner, round_num + 1)), measured

    client = lambda state, weights, client: work.client(state[1], weights, client)
    check = lambda state: check_rate(rate, "learning_rate_fn", state[0])
    return ClientWork(initialize, client, server, check)
