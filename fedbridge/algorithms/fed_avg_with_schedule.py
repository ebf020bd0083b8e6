"""Federated Averaging whose clients' learning rate follows a schedule over rounds.

    each round t, from 0:
        ClientOpt ← the client optimizer with the rate η(t)
        a round of FedAvg

References:
    Reddi et al., 2021. https://arxiv.org/abs/2003.00295
    TFF: learning/algorithms/fed_avg_with_optimizer_schedule.py
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from fedbridge.jax_core import (
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
    Round,
    apply_optimizer,
    check_function,
    check_optimizer,
    check_rate,
    check_schedule,
    compose_learning_process,
    default_execution,
    local_training,
    num_examples,
    optimizers,
    sum_then_finalize,
    traced,
    weighted_mean,
)


def fed_avg_with_schedule(
    model: Model,
    client_learning_rate_fn: Callable[[Int[Array, ""]], Float[Array, ""]],
    client_optimizer_fn: Callable[[Any], optax.GradientTransformation],
    server_optimizer: optax.GradientTransformation | None = None,
    *,
    client_weight: ClientWeight = num_examples,
    aggregator: AnyAggregator | None = None,
    metrics_aggregator: MetricsAggregator = sum_then_finalize,
    execution: Execution = default_execution,
) -> LearningProcess:
    """Builds FedAvg with a schedule; the state of its client work is the number of the round.

    Args:
        model: The initial weights and the objective.
        client_learning_rate_fn: η, from the number of the round, traced, to a rate.
        client_optimizer_fn: From a rate to the clients' optimizer, e.g. `fb.optimizers.sgdm`.
        server_optimizer: ServerOpt; default SGD with the rate 1.
        client_weight: From the examples that a client processed to its weight.
        aggregator: Reduces the clients' updates; default `weighted_mean()`.
        metrics_aggregator: How the clients' metrics become the round's.
        execution: How the clients run.

    Returns:
        A process that reports the rate in `client_work/client_learning_rate`.

    Raises:
        ArgumentError: A schedule whose first value is no learning rate, or something that makes no
            optimizer of it. A later value that is none is refused when its round begins.

    Example:
        >>> import fedbridge as fb
        >>> process = fed_avg_with_schedule(
        ...     fb.models.softmax_regression((2,), 3), lambda t: 0.1 * 0.99**t, fb.optimizers.sgdm
        ... )
        >>> process.initialize().client_work.tolist()
        0
    """
    name = "client_learning_rate_fn"
    check_schedule(client_learning_rate_fn, name)
    check_function("client_optimizer_fn", client_optimizer_fn, "(a rate)")
    first = client_optimizer_fn(client_learning_rate_fn(jnp.zeros((), jnp.int32)))
    check_optimizer(first, "client_optimizer_fn(learning rate)")

    def work(round_num: Any) -> ClientWork:
        rate = client_learning_rate_fn(round_num)
        with traced("client_optimizer_fn(learning rate)"):
            optimizer = client_optimizer_fn(rate)
        return local_training(
            model, optimizer, client_weight, metrics_aggregator=metrics_aggregator
        )

    # What is wrong is refused here, not in the first round.
    check_cohort = work(jnp.zeros((), jnp.int32)).check_cohort
    jax.eval_shape(lambda number: work(number).initialize(model.initial_weights), 0)

    def client(
        round_num: Any, weights: ModelWeights, client: Client
    ) -> tuple[ClientResult, ClientOutput]:
        return work(round_num).client((), weights, client)

    def server(round_num: Any, sums: ClientOutput, round: Round) -> tuple[Any, PyTree]:
        _, measured = work(round_num).server((), sums, round)
        rate = jnp.asarray(client_learning_rate_fn(round_num), jnp.float32)
        return round_num + 1, OrderedDict(**measured, client_learning_rate=rate)

    check = lambda round_num: check_rate(client_learning_rate_fn, name, round_num)
    return compose_learning_process(
        model,
        ClientWork(lambda weights: jnp.zeros((), jnp.int32), client, server, check, check_cohort),
        weighted_mean() if aggregator is None else aggregator,
        apply_optimizer(optimizers.sgdm(1.0) if server_optimizer is None else server_optimizer),
        execution,
        name="fed_avg_with_schedule",
    )
