"""`tff.learning.algorithms`: TFF's builders, with their arguments, defaults and numbers.

Where TFF departs from the paper (FedProx pulls away from the server; what is not finite is summed
up in all but FedAvg) these do as TFF, see docs/differences.md. `loop_implementation` changes
nothing.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fedbridge import algorithms, jax_core as fc
from fedbridge.tff import _arguments as arguments
from fedbridge.tff._client_batches import points, without_rows
from fedbridge.tff._errors import missing, note
from fedbridge.tff._process import LearningProcess
from fedbridge.tff._schedules import schedule
from fedbridge.tff._types import TensorType
from fedbridge.tff.learning._fed_recon import (
    build_fed_recon as build_fed_recon,
    build_fed_recon_eval as build_fed_recon_eval,
)
from fedbridge.tff.learning._personalization import (
    build_personalization_eval_computation as build_personalization_eval_computation,
)
from fedbridge.tff.learning._signatures import typed, with_types
from fedbridge.tff.learning._weighting import ClientWeighting, client_weight


@typed
def build_weighted_fed_avg(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = None,
    *,
    client_weighting: Any = ClientWeighting.NUM_EXAMPLES,
    model_distributor: Any = None,
    model_aggregator: Any = None,
    metrics_aggregator: Any = None,
    loop_implementation: Any = None,
) -> LearningProcess:
    """FedAvg, weighted by the clients' numbers of examples."""
    return LearningProcess(
        fed_avg(
            model_fn, client_optimizer_fn, server_optimizer_fn, client_weighting,
            model_distributor, arguments.aggregator(model_aggregator, fc.weighted_mean),
            metrics_aggregator,
        )
    )  # fmt: skip


@typed
def build_unweighted_fed_avg(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = None,
    model_distributor: Any = None,
    model_aggregator: Any = None,
    metrics_aggregator: Any = None,
    loop_implementation: Any = None,
) -> LearningProcess:
    """FedAvg with all clients alike."""
    return LearningProcess(
        fed_avg(
            model_fn, client_optimizer_fn, server_optimizer_fn, ClientWeighting.UNIFORM,
            model_distributor, arguments.aggregator(model_aggregator, fc.unweighted_mean),
            metrics_aggregator,
        )
    )  # fmt: skip


def fed_avg(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any,
    client_weighting: Any,
    model_distributor: Any,
    model_aggregator: Any,
    metrics_aggregator: Any,
) -> fc.LearningProcess:
    """The process of the core behind both builders, and behind their older names."""
    arguments.no_distributor(model_distributor)
    return algorithms.fed_avg(
        arguments.model(model_fn),
        arguments.optimizer(client_optimizer_fn, "client_optimizer_fn"),
        arguments.optimizer_or(server_optimizer_fn, "server_optimizer_fn", arguments.sgd),
        aggregator=model_aggregator,
        client_weight=client_weight(client_weighting),
        metrics_aggregator=arguments.metrics_aggregator(metrics_aggregator),
    )


@typed
def build_weighted_fed_avg_with_optimizer_schedule(
    model_fn: Any,
    client_learning_rate_fn: Any,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = None,
    model_distributor: Any = None,
    model_aggregator: Any = None,
    metrics_aggregator: Any = None,
    loop_implementation: Any = None,
) -> LearningProcess:
    """FedAvg whose clients' rate follows a schedule over rounds, from 0."""
    arguments.no_distributor(model_distributor)
    return LearningProcess(
        algorithms.fed_avg_with_schedule(
            arguments.model(model_fn),
            schedule(client_learning_rate_fn, "client_learning_rate_fn"),
            arguments.optimizer_of_rate(client_optimizer_fn, "client_optimizer_fn"),
            arguments.optimizer_or(server_optimizer_fn, "server_optimizer_fn", arguments.sgd),
            aggregator=arguments.aggregator(model_aggregator, fc.weighted_mean),
            metrics_aggregator=arguments.metrics_aggregator(metrics_aggregator),
        )
    )


@typed
def build_weighted_fed_prox(
    model_fn: Any,
    proximal_strength: float,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = None,
    client_weighting: Any = ClientWeighting.NUM_EXAMPLES,
    model_distributor: Any = None,
    model_aggregator: Any = None,
    metrics_aggregator: Any = None,
    loop_implementation: Any = None,
) -> LearningProcess:
    """FedProx as TFF computes it, its proximal term with the sign reversed."""
    arguments.no_distributor(model_distributor)
    note("proximal term as in TFF, sign reversed: see docs/differences")
    return LearningProcess(
        algorithms.fed_prox(
            arguments.model(model_fn),
            proximal_strength,
            arguments.optimizer(client_optimizer_fn, "client_optimizer_fn"),
            arguments.optimizer_or(server_optimizer_fn, "server_optimizer_fn", arguments.sgd),
            pull=algorithms.away_from_server,
            client_weight=client_weight(client_weighting),
            non_finite=fc.keep_non_finite,
            aggregator=arguments.aggregator(model_aggregator, fc.weighted_mean),
            metrics_aggregator=arguments.metrics_aggregator(metrics_aggregator),
        )
    )


@typed
def build_unweighted_fed_prox(
    model_fn: Any,
    proximal_strength: float,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = None,
    model_distributor: Any = None,
    model_aggregator: Any = None,
    metrics_aggregator: Any = None,
    loop_implementation: Any = None,
) -> LearningProcess:
    """The same with all clients alike."""
    return build_weighted_fed_prox(
        model_fn, proximal_strength, client_optimizer_fn, server_optimizer_fn,
        ClientWeighting.UNIFORM, model_distributor,
        arguments.aggregator(model_aggregator, fc.unweighted_mean), metrics_aggregator,
    )  # fmt: skip


@typed
def build_fed_sgd(
    model_fn: Any,
    server_optimizer_fn: Any = None,
    model_distributor: Any = None,
    model_aggregator: Any = None,
    metrics_aggregator: Any = None,
    loop_implementation: Any = None,
) -> LearningProcess:
    """One gradient a client, over all its examples, and one step on the server."""
    return LearningProcess(
        fed_sgd(model_fn, server_optimizer_fn, model_distributor, model_aggregator,
                metrics_aggregator)
    )  # fmt: skip


def fed_sgd(
    model_fn: Any,
    server_optimizer_fn: Any,
    model_distributor: Any,
    model_aggregator: Any,
    metrics_aggregator: Any,
) -> fc.LearningProcess:
    """The process of the core behind the builder, and behind its older name."""
    arguments.no_distributor(model_distributor)
    return algorithms.fed_sgd(
        arguments.model(model_fn),
        arguments.optimizer_or(server_optimizer_fn, "server_optimizer_fn", arguments.slow_sgd),
        non_finite=fc.keep_non_finite,
        aggregator=arguments.aggregator(model_aggregator, fc.weighted_mean),
        metrics_aggregator=arguments.metrics_aggregator(metrics_aggregator),
    )


@typed
def build_weighted_mime_lite(
    model_fn: Any,
    base_optimizer: Any,
    server_optimizer: Any = None,
    client_weighting: Any = ClientWeighting.NUM_EXAMPLES,
    model_distributor: Any = None,
    model_aggregator: Any = None,
    full_gradient_aggregator: Any = None,
    metrics_aggregator: Any = None,
    loop_implementation: Any = None,
) -> LearningProcess:
    """MimeLite, weighted by the clients' numbers of examples."""
    return LearningProcess(
        _mime_lite(
            algorithms.mime_lite, model_fn, base_optimizer, server_optimizer, client_weighting,
            model_distributor, model_aggregator, full_gradient_aggregator, metrics_aggregator,
        )
    )  # fmt: skip


def build_mime_lite_with_optimizer_schedule(
    model_fn: Any,
    learning_rate_fn: Any,
    base_optimizer: Any,
    server_optimizer: Any = None,
    client_weighting: Any = ClientWeighting.NUM_EXAMPLES,
    model_distributor: Any = None,
    model_aggregator: Any = None,
    full_gradient_aggregator: Any = None,
    metrics_aggregator: Any = None,
    loop_implementation: Any = None,
) -> LearningProcess:
    """MimeLite whose base optimizer's rate follows a schedule over rounds, from 0."""
    rate = schedule(learning_rate_fn, "learning_rate_fn")
    build = lambda model, *rest, **others: algorithms.mime_lite_with_schedule(
        model, rate, *rest, **others
    )
    return LearningProcess(
        _mime_lite(
            build, model_fn, base_optimizer, server_optimizer, client_weighting,
            model_distributor, model_aggregator, full_gradient_aggregator, metrics_aggregator,
        )
    )  # fmt: skip


def _mime_lite(
    build: Callable[..., fc.LearningProcess],
    model_fn: Any,
    base_optimizer: Any,
    server_optimizer: Any,
    client_weighting: Any,
    model_distributor: Any,
    model_aggregator: Any,
    full_gradient_aggregator: Any,
    metrics_aggregator: Any,
) -> fc.LearningProcess:
    arguments.no_distributor(model_distributor)
    return build(
        arguments.model(model_fn),
        arguments.optimizer(base_optimizer, "base_optimizer"),
        arguments.optimizer_or(server_optimizer, "server_optimizer", arguments.sgd),
        client_weight=client_weight(client_weighting),
        full_gradient_aggregator=arguments.aggregator(full_gradient_aggregator, fc.weighted_mean),
        non_finite=fc.keep_non_finite,
        aggregator=arguments.aggregator(model_aggregator, fc.weighted_mean),
        metrics_aggregator=arguments.metrics_aggregator(metrics_aggregator),
    )


@typed
def build_unweighted_mime_lite(
    model_fn: Any,
    base_optimizer: Any,
    server_optimizer: Any = None,
    model_distributor: Any = None,
    model_aggregator: Any = None,
    full_gradient_aggregator: Any = None,
    metrics_aggregator: Any = None,
    loop_implementation: Any = None,
) -> LearningProcess:
    """The same with all clients alike."""
    return build_weighted_mime_lite(
        model_fn, base_optimizer, server_optimizer, ClientWeighting.UNIFORM, model_distributor,
        arguments.aggregator(model_aggregator, fc.unweighted_mean),
        arguments.aggregator(full_gradient_aggregator, fc.unweighted_mean), metrics_aggregator,
    )  # fmt: skip


@typed
def build_fed_eval(
    model_fn: Any,
    model_distributor: Any = None,
    metrics_aggregation_process: Any = None,
    loop_implementation: Any = None,
) -> LearningProcess:
    """Federated evaluation: the weights in the state are evaluated, and stay."""
    arguments.no_distributor(model_distributor)
    aggregator = arguments.evaluation_aggregator(metrics_aggregation_process, model_fn)
    return LearningProcess(fed_eval(model_fn, aggregator))


def fed_eval(model_fn: Any, aggregator: fc.EvaluationAggregator) -> fc.LearningProcess:
    """The process of the core behind the builder, and behind its older name."""
    return algorithms.fed_eval(arguments.model(model_fn), metrics_aggregator=aggregator)


def build_fed_kmeans(
    num_clusters: int,
    data_shape: tuple[int, ...],
    random_seed: tuple[int, int] | None = None,
    distributor: Any = None,
    sum_aggregator: fc.Aggregator | None = None,
) -> LearningProcess:
    """k-means over the clients' points, which are single elements of their data sets."""
    arguments.no_distributor(distributor)
    process = algorithms.fed_kmeans(
        num_clusters,
        tuple(data_shape),
        random_seed,
        sum_aggregator=sum_aggregator,
        non_finite=fc.keep_non_finite,
    )
    point = TensorType(np.float32, tuple(data_shape))
    made = with_types(LearningProcess(process, read=points), lambda: point)
    made.nobody = lambda: without_rows(np.zeros((1, *data_shape), np.float32))
    return made


__getattr__ = missing("tff.learning.algorithms")
