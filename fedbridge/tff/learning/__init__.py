"""`tff.learning`: today's packages, and what scripts of 2019 to 2023 call by older names."""

import functools
from collections.abc import Iterable
from typing import Any

from fedbridge import jax_core as fc
from fedbridge.bridge import old_keras
from fedbridge.tff import _arguments as arguments, _process
from fedbridge.tff._errors import missing
from fedbridge.tff.aggregators import factory
from fedbridge.tff.learning import (
    algorithms as algorithms,
    metrics as metrics,
    models as models,
    optimizers as optimizers,
    programs as programs,
    reconstruction as reconstruction,
    templates as templates,
)
from fedbridge.tff.learning._reported_model import model_and_evaluation, model_and_training
from fedbridge.tff.learning._signatures import typed, typed_evaluation
from fedbridge.tff.learning._weighting import (
    ClientWeighting as ClientWeighting,
    LoopImplementation as LoopImplementation,
)
from fedbridge.tff.learning.models import (
    BatchOutput as BatchOutput,
    ModelWeights as ModelWeights,
    VariableModel,
)

_nan = fc.aggregators.nan_as_tff
_as_tff = lambda make: factory(functools.partial(make, empty_round=_nan))
robust_aggregator = _as_tff(fc.aggregators.robust_aggregator)
dp_aggregator = _as_tff(fc.aggregators.dp_aggregator)
compression_aggregator = _as_tff(fc.aggregators.compression_aggregator)
add_debug_measurements = factory(fc.aggregators.add_debug_measurements)
add_debug_measurements_with_mixed_dtype = factory(
    fc.aggregators.add_debug_measurements_with_mixed_dtype
)

# ------------------------------------------------------------------------------- older names

Model = VariableModel
build_personalization_eval = algorithms.build_personalization_eval_computation
from_keras_model = functools.partial(old_keras.from_keras_model, models.from_keras_model)
from_compiled_keras_model = functools.partial(
    old_keras.from_compiled_keras_model, models.from_keras_model
)


@typed
def build_federated_averaging_process(
    model_fn: Any,
    client_optimizer_fn: Any = None,
    server_optimizer_fn: Any = None,
    client_weight_fn: None = None,
    *,
    client_weighting: Any = None,
    model_update_aggregation_factory: Any = None,
    metrics_aggregator: Any = None,
    use_experimental_simulation_loop: Any = None,
    **retired: Any,
) -> _process.LearningProcess:
    """FedAvg of TFF 0.1 to 0.27; `next` gives metrics of that time.

    Raises:
        ScriptError: An argument that has no counterpart in TFF 0.87.0.
    """
    for name, value in {"client_weight_fn": client_weight_fn, **retired}.items():
        if value is not None:
            raise fc.ScriptError(
                f"build_federated_averaging_process({name}=...) has no counterpart in TFF 0.87.0; "
                "leave it out, or use tff.learning.algorithms.build_weighted_fed_avg."
            )
    sgd = functools.partial(fc.optimizers.sgdm, 0.01)  # Keras' default
    model, own_metrics = model_and_training(model_fn)
    return _process.with_old_metrics(
        algorithms.fed_avg(
            model,
            arguments.optimizer_or(client_optimizer_fn, "client_optimizer_fn", sgd),
            server_optimizer_fn,
            client_weighting,
            None,
            arguments.aggregator(model_update_aggregation_factory, fc.weighted_mean),
            metrics_aggregator or own_metrics,
        )
    )


@typed
def build_federated_sgd_process(
    model_fn: Any, server_optimizer_fn: Any = None, **retired: Any
) -> _process.LearningProcess:
    """FedSGD of the same time."""
    model, own_metrics = model_and_training(model_fn)
    process = algorithms.fed_sgd(model, server_optimizer_fn, None, None, own_metrics)
    return _process.with_old_metrics(process)


def build_federated_evaluation(model_fn: Any, *retired: Any, **others: Any) -> Any:
    """The evaluation of TFF 0.1 to 0.79: a function of (weights, data)."""
    return typed_evaluation(_fed_eval(model_fn))


@typed
def _fed_eval(model_fn: Any) -> _process.LearningProcess:
    model, aggregator = model_and_evaluation(model_fn)
    return _process.LearningProcess(algorithms.fed_eval(model, aggregator))


def assign_weights_to_keras_model(keras_model: Any, tff_weights: Any) -> None:
    """Puts weights, or those of a state, into a Keras model."""
    weights = getattr(tff_weights, "global_model_weights", tff_weights)
    ModelWeights(*weights).assign_weights_to(keras_model)


def keras_weights_from_tff_weights(tff_weights: Any) -> list[Any]:
    """Weights as one list."""
    return [*tff_weights.trainable, *tff_weights.non_trainable]


def state_with_new_model_weights(
    server_state: Any, trainable_weights: Iterable[Any], non_trainable_weights: Iterable[Any]
) -> Any:
    """The state with other weights."""
    weights = ModelWeights(list(trainable_weights), list(non_trainable_weights))
    return server_state._replace(global_model_weights=weights)


__getattr__ = missing("tff.learning")
