"""Keras models with global and local variables as `ReconstructionModel`s.

What TFF's `ReconstructionModel.from_keras_model_and_layers` and `..._and_variables` compute
(learning/models/reconstruction_model.py). The objective is the loss alone: TFF adds no layer's
regularization here, unlike in `from_keras_model`.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fedbridge.jax_core import (
    Batch,
    Forward,
    Metric,
    Model,
    ModelError,
    ModelWeights,
    ReconstructionModel,
    check_argument,
    metrics as fb_metrics,
)
from fedbridge.tff_io._keras_constraints import Constraints, refuse_constraints
from fedbridge.tff_io._keras_losses import Mask
from fedbridge.tff_io._keras_model import from_keras, from_keras_config
from fedbridge.tff_io._keras_objects import Spec


class Partition(NamedTuple):
    """Which variables of a Keras model are whose: their numbers in Keras' two lists of variables.

    Attributes:
        global_trainable: Of `keras_model.trainable_variables`.
        global_non_trainable: Of `keras_model.non_trainable_variables`.
        local_trainable: Of `keras_model.trainable_variables`.
        local_non_trainable: Of `keras_model.non_trainable_variables`.
    """

    global_trainable: Sequence[int]
    global_non_trainable: Sequence[int]
    local_trainable: Sequence[int]
    local_non_trainable: Sequence[int]


def from_keras_reconstruction(
    keras_model: Any,
    global_layers: Any,
    local_layers: Any,
    loss: Any,
    metrics: Sequence[Any] | None = (),
    *,
    constraints: Constraints = refuse_constraints,
) -> ReconstructionModel:
    """Makes a `ReconstructionModel` of a Keras model, as TFF's `from_keras_model_and_layers`.

    Args:
        keras_model: As in `from_keras`.
        global_layers: The layers whose weights the server has, in the order of its weights.
        local_layers: The layers whose weights each client reconstructs.
        loss: An instance of a Keras loss; TFF's `loss_fn` makes one.
        metrics: Instances of Keras metrics, or functions without arguments that make them; TFF's
            `metrics_fn` makes a list of them.
        constraints: As in `from_keras`.

    Returns:
        A model of batches with the features "x" and "y". Global weights start from those that the
        Keras model has, and so do a client's local ones, every time. (TFF draws those of
        initializers without a seed once for each process, and all clients start from them; for
        others of one's own replace `initial_local_weights`.) Its metrics are those given, then
        `loss`: the mean over batches, each counted once.

    Raises:
        ModelError: As `from_keras`; and for a variable that belongs to both kinds of layers, or to
            none.
        ArgumentError: One layer, or names, in place of a list of layers.
    """
    chosen = {
        "global": _layers("global_layers", global_layers),
        "local": _layers("local_layers", local_layers),
    }
    groups = {
        f"{whose}_{side}": [w for layer in layers for w in getattr(layer, f"{side}_weights")]
        for whose, layers in chosen.items()
        for side in ("trainable", "non_trainable")
    }
    return from_keras_reconstruction_variables(
        keras_model, groups, loss, metrics, constraints=constraints
    )


def from_keras_reconstruction_variables(
    keras_model: Any,
    groups: Mapping[str, Sequence[Any]],
    loss: Any,
    metrics: Sequence[Any] | None = (),
    *,
    constraints: Constraints = refuse_constraints,
) -> ReconstructionModel:
    """The same of single variables, as TFF's `from_keras_model_and_variables`.

    Args:
        keras_model: As in `from_keras`.
        groups: Which variables of the model are whose, by the fields of `Partition`.
        loss: As in `from_keras_reconstruction`.
        metrics: As there.
        constraints: As in `from_keras`.

    Raises:
        ModelError: As `from_keras`; and for a variable that belongs to two groups, or to none.
    """
    metrics = () if metrics is None else metrics
    model = from_keras(keras_model, loss, metrics, constraints=constraints)
    reported = _metrics_and_loss(model, len(metrics))
    return partly_local(model, partition_of(keras_model, groups), reported)


def partition_of(keras_model: Any, groups: Mapping[str, Sequence[Any]]) -> Partition:
    """The numbers of a Keras model's variables in its two lists.

    Args:
        keras_model: The model.
        groups: Which of its variables are whose, by the fields of `Partition`.

    Raises:
        ModelError: A variable belongs to two groups, or to none.
    """
    sides = {
        "trainable": list(keras_model.trainable_weights),
        "non_trainable": list(keras_model.non_trainable_weights),
    }
    _check_partition(groups, [*sides["trainable"], *sides["non_trainable"]])
    numbers = {
        group: _numbers(chosen, sides[group.partition("_")[2]]) for group, chosen in groups.items()
    }
    return Partition(**numbers)


def from_keras_reconstruction_config(
    class_name: str,
    config: Mapping[str, Any],
    *,
    loss: Spec,
    metrics: Sequence[Spec] = (),
    partition: Partition,
    global_weights: ModelWeights,
    local_weights: ModelWeights,
) -> ReconstructionModel:
    """Makes a `ReconstructionModel` of a Keras model's config; needs neither Keras nor TensorFlow.

    Args:
        class_name: As in `from_keras_config`.
        config: See there.
        loss: See there.
        metrics: See there.
        partition: Which weights are whose.
        global_weights: In the order of the partition.
        local_weights: In the order of the partition; every client starts from them.

    Raises:
        ModelError: As `from_keras_config`; and for a partition in which a number is missing.

    Example:
        >>> import numpy as np
        >>> dense = {"class_name": "Dense", "config": {"name": "dense", "units": 1}}
        >>> model = from_keras_reconstruction_config(
        ...     "Sequential",
        ...     {"name": "linear", "layers": [dense]},
        ...     loss={"class_name": "MeanSquaredError", "config": {}},
        ...     partition=Partition([0], [], [1], []),  # each client has a bias of its own
        ...     global_weights=ModelWeights([np.ones((2, 1))], []),
        ...     local_weights=ModelWeights([np.zeros(1)], []),
        ... )
        >>> model.initial_weights.trainable[0].shape, list(model.metrics)
        ((2, 1), ['loss'])
    """
    weights = _joined(partition, global_weights, local_weights)
    model = from_keras_config(class_name, config, loss=loss, metrics=metrics, weights=weights)
    return partly_local(model, partition, _metrics_and_loss(model, len(metrics)))


def partly_local(
    model: Model, partition: Partition, metrics: Mapping[str, Metric]
) -> ReconstructionModel:
    """A model whose weights are divided, and whose objective is the loss alone.

    Args:
        model: A model of all weights, in flat lists.
        partition: Which of them are whose.
        metrics: Of the model that is returned.
    """

    def forward(
        global_weights: ModelWeights,
        local_weights: ModelWeights,
        batch: Batch,
        mask: Mask,
        key: Any,
        training: bool,
    ) -> Forward:
        weights = _joined(partition, global_weights, local_weights)
        found = model.forward(weights, batch, mask, key, training)
        return found._replace(objective=found.metric_loss)

    pick = lambda side, which: [side[number] for number in which]
    start = model.initial_weights
    local = ModelWeights(
        pick(start.trainable, partition.local_trainable),
        pick(start.non_trainable, partition.local_non_trainable),
    )
    return ReconstructionModel(
        ModelWeights(
            pick(start.trainable, partition.global_trainable),
            pick(start.non_trainable, partition.global_non_trainable),
        ),
        lambda key: local,
        forward,
        metrics,
        model.masked,
        model.check,
    )


def check_names(names: Sequence[str]) -> None:
    """Refuses metrics that TFF's reconstruction cannot tell apart.

    Args:
        names: Of all metrics but the loss.

    Raises:
        ModelError: Two are the same, or one is "loss".
    """
    if len({*names, "loss"}) <= len(names):
        raise ModelError(
            'two metrics have the same name, or one is called "loss" like the loss itself; give'
            " every metric a name of its own"
        )


def _metrics_and_loss(model: Model, num_metrics: int) -> OrderedDict[str, Metric]:
    """The metrics given, then the loss as TFF's reconstruction reports it."""
    names = list(model.metrics)[:num_metrics]
    check_names(names)
    metrics = OrderedDict((name, model.metrics[name]) for name in names)
    metrics["loss"] = fb_metrics.mean_of_batches(lambda batch, forward, mask: forward.metric_loss)
    return metrics


def _joined(
    partition: Partition, global_weights: ModelWeights, local_weights: ModelWeights
) -> ModelWeights:
    """All weights in Keras' order."""

    def side(which: Sequence[int], weights: Sequence[Any]) -> list[Any]:
        if sorted(which) != list(range(len(weights))):
            raise ModelError(
                f"the partition names the variables {sorted(which)}, and there are {len(weights)}"
                " weights: every variable belongs to one group"
            )
        return [weights[which.index(number)] for number in range(len(which))]

    return ModelWeights(
        side(
            [*partition.global_trainable, *partition.local_trainable],
            [*global_weights.trainable, *local_weights.trainable],
        ),
        side(
            [*partition.global_non_trainable, *partition.local_non_trainable],
            [*global_weights.non_trainable, *local_weights.non_trainable],
        ),
    )


def _layers(name: str, layers: Any) -> list[Any]:
    """The layers of an argument: a list of them, or another iterable."""
    several = isinstance(layers, Iterable) and not isinstance(layers, str)
    listed = list(layers) if several else []
    are_some = several and all(hasattr(one, "non_trainable_weights") for one in listed)
    check_argument(are_some, name, listed or layers, "a list of layers of the model")
    return listed


def _numbers(chosen: Sequence[Any], variables: Sequence[Any]) -> list[int]:
    places = {id(variable): number for number, variable in enumerate(variables)}
    return [places[id(variable)] for variable in chosen]


def _check_partition(groups: Mapping[str, Sequence[Any]], variables: Sequence[Any]) -> None:
    """Every variable of the model belongs to exactly one group."""
    owner: dict[int, str] = {}
    for group, chosen in groups.items():
        for variable in chosen:
            if id(variable) not in {id(one) for one in variables}:
                raise ModelError(
                    f"the variable {variable.name!r} of the {group} variables is not one of the"
                    " model: pass layers of the model itself"
                )
            if id(variable) in owner:
                raise ModelError(
                    f"the variable {variable.name!r} is among the {owner[id(variable)]} and the"
                    f" {group} variables: a layer is either global or local, and passed once"
                )
            owner[id(variable)] = group
    for variable in variables:
        if id(variable) not in owner:
            raise ModelError(
                f"the variable {variable.name!r} of the model is neither global nor local: pass its"
                " layer among global_layers or local_layers"
            )
