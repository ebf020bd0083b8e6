"""`build_fed_recon` and its evaluation: TFF's arguments, defaults and numbers."""

from typing import Any

from fedbridge import algorithms, jax_core as fc
from fedbridge.tff import _arguments as arguments
from fedbridge.tff._process import LearningProcess
from fedbridge.tff.learning._reconstruction_core import core_model
from fedbridge.tff.learning._signatures import typed
from fedbridge.tff.learning._weighting import client_weight, metrics_weight


@typed
def build_fed_recon(
    model_fn: Any,
    *,
    loss_fn: Any,
    metrics_fn: Any = None,
    server_optimizer_fn: Any = None,
    client_optimizer_fn: Any = None,
    reconstruction_optimizer_fn: Any = None,
    dataset_split_fn: Any = None,
    client_weighting: Any = None,
    model_distributor: Any = None,
    model_aggregator_factory: Any = None,
    metrics_aggregator: Any = None,
) -> LearningProcess:
    """Federated Reconstruction of models with local variables."""
    return LearningProcess(
        fed_recon(
            model_fn, loss_fn, metrics_fn, server_optimizer_fn, client_optimizer_fn,
            reconstruction_optimizer_fn, dataset_split_fn, client_weighting, model_distributor,
            model_aggregator_factory, metrics_aggregator,
        )
    )  # fmt: skip


def fed_recon(
    model_fn: Any,
    loss_fn: Any,
    metrics_fn: Any,
    server_optimizer_fn: Any,
    client_optimizer_fn: Any,
    reconstruction_optimizer_fn: Any,
    dataset_split_fn: Any,
    client_weighting: Any,
    model_distributor: Any,
    model_aggregator: Any,
    metrics_aggregator: Any,
) -> fc.LearningProcess:
    """The process of the core behind the builder, and behind its older name."""
    arguments.no_distributor(model_distributor)
    local = "reconstruction_optimizer_fn"
    return algorithms.fed_recon(
        core_model(model_fn, loss_fn, metrics_fn),
        arguments.optimizer_or(client_optimizer_fn, "client_optimizer_fn", arguments.slow_sgd),
        arguments.optimizer_or(server_optimizer_fn, "server_optimizer_fn", arguments.sgd),
        arguments.optimizer_or(reconstruction_optimizer_fn, local, arguments.slow_sgd),
        dataset_split_fn=dataset_split_fn,
        client_weight=client_weight(None if callable(client_weighting) else client_weighting),
        metrics_weight=metrics_weight(client_weighting),
        non_finite=fc.keep_non_finite,
        aggregator=arguments.aggregator(model_aggregator, fc.weighted_mean),
        metrics_aggregator=arguments.metrics_aggregator(metrics_aggregator),
    )


@typed
def build_fed_recon_eval(
    model_fn: Any,
    *,
    loss_fn: Any,
    metrics_fn: Any = None,
    reconstruction_optimizer_fn: Any = None,
    dataset_split_fn: Any = None,
    model_distributor: Any = None,
    metrics_aggregation_process: Any = None,
) -> LearningProcess:
    """Its evaluation: the local variables are reconstructed first."""
    arguments.no_distributor(model_distributor)
    model = core_model(model_fn, loss_fn, metrics_fn)
    local = "reconstruction_optimizer_fn"
    return LearningProcess(
        algorithms.fed_recon_eval(
            model,
            arguments.optimizer_or(reconstruction_optimizer_fn, local, arguments.slow_sgd),
            dataset_split_fn=dataset_split_fn,
            metrics_aggregator=arguments.reconstruction_aggregator(
                metrics_aggregation_process, model.metrics
            ),
        )
    )
