"""`tff.learning.reconstruction` of TFF 0.20 to 0.56: Federated Reconstruction by older names."""

from typing import Any

from fedbridge import jax_core as fc
from fedbridge.tff import _process
from fedbridge.tff._errors import missing
from fedbridge.tff.learning._fed_recon import build_fed_recon_eval, fed_recon
from fedbridge.tff.learning._reconstruction import (
    BatchOutput as BatchOutput,
    ReconstructionModel,
)
from fedbridge.tff.learning._signatures import typed_evaluation

Model = ReconstructionModel
build_dataset_split_fn = fc.build_dataset_split_fn
simple_dataset_split_fn = fc.simple_dataset_split_fn


def from_keras_model(
    keras_model: Any, *, global_layers: Any, local_layers: Any, input_spec: Any
) -> ReconstructionModel:
    """Of the layers that the server has, and of those that each client reconstructs."""
    return ReconstructionModel.from_keras_model_and_layers(
        keras_model, global_layers=global_layers, local_layers=local_layers, input_spec=input_spec
    )


def build_training_process(
    model_fn: Any,
    *,
    loss_fn: Any,
    metrics_fn: Any = None,
    server_optimizer_fn: Any = None,
    client_optimizer_fn: Any = None,
    reconstruction_optimizer_fn: Any = None,
    dataset_split_fn: Any = None,
    client_weighting: Any = None,
    broadcast_process: Any = None,
    aggregation_factory: Any = None,
    **others: Any,
) -> _process.LearningProcess:
    """`tff.learning.algorithms.build_fed_recon`; `next` gives metrics of that time."""
    process = fed_recon(
        model_fn, loss_fn, metrics_fn, server_optimizer_fn, client_optimizer_fn,
        reconstruction_optimizer_fn, dataset_split_fn, client_weighting, broadcast_process,
        aggregation_factory, None,
    )  # fmt: skip
    return _process.with_old_metrics(process)


def build_federated_evaluation(
    model_fn: Any,
    *,
    loss_fn: Any,
    metrics_fn: Any = None,
    reconstruction_optimizer_fn: Any = None,
    dataset_split_fn: Any = None,
    broadcast_process: Any = None,
) -> Any:
    """`build_fed_recon_eval`, as a function of (weights, data)."""
    process = build_fed_recon_eval(
        model_fn,
        loss_fn=loss_fn,
        metrics_fn=metrics_fn,
        reconstruction_optimizer_fn=reconstruction_optimizer_fn,
        dataset_split_fn=dataset_split_fn,
        model_distributor=broadcast_process,
    )
    return typed_evaluation(process)


__getattr__ = missing("tff.learning.reconstruction")
