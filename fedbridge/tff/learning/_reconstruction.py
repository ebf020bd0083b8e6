"""`tff.learning.models.ReconstructionModel`: Keras models of which a part stays on the client."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedbridge import jax_core as fc
from fedbridge.tff import _arguments as arguments
from fedbridge.tff._errors import note_constraint
from fedbridge.tff._process import ModelWeights
from fedbridge.tff_io import Partition, from_keras_reconstruction_variables


class ReconstructionModel:
    """TFF's model with global and local variables, made of a Keras model."""

    simple_dataset_split_fn = staticmethod(fc.simple_dataset_split_fn)
    build_dataset_split_fn = staticmethod(fc.build_dataset_split_fn)

    def __init__(self, keras_model: Any, groups: Mapping[str, Sequence[Any]], input_spec: Any):
        self.keras_model, self.groups, self.input_spec = keras_model, groups, input_spec

    @classmethod
    def from_keras_model_and_layers(
        cls,
        keras_model: Any,
        *,
        global_layers: Iterable[Any],
        local_layers: Iterable[Any],
        input_spec: Any = None,
    ) -> "ReconstructionModel":
        """Of the layers that the server has, and of those that each client reconstructs."""
        layers = {
            "global": arguments.listed("global_layers", global_layers),
            "local": arguments.listed("local_layers", local_layers),
        }
        of = lambda whose, side: [w for layer in layers[whose] for w in getattr(layer, side)]
        groups = {group: of(*_of_layer(group)) for group in Partition._fields}
        return cls(keras_model, groups, input_spec)

    @classmethod
    def from_keras_model_and_variables(
        cls,
        keras_model: Any,
        *,
        global_trainable_variables: Iterable[Any],
        global_non_trainable_variables: Iterable[Any],
        local_trainable_variables: Iterable[Any],
        local_non_trainable_variables: Iterable[Any],
        input_spec: Any = None,
    ) -> "ReconstructionModel":
        """The same by single variables."""
        variables = (
            global_trainable_variables, global_non_trainable_variables,
            local_trainable_variables, local_non_trainable_variables,
        )  # fmt: skip
        groups = {
            group: arguments.listed(f"{group}_variables", given)
            for group, given in zip(Partition._fields, variables, strict=True)
        }
        return cls(keras_model, groups, input_spec)

    @staticmethod
    def get_global_variables(model: "ReconstructionModel") -> ModelWeights:
        """What the server has."""
        return ModelWeights(model.global_trainable_variables, model.global_non_trainable_variables)

    @staticmethod
    def get_local_variables(model: "ReconstructionModel") -> ModelWeights:
        """What a client reconstructs."""
        return ModelWeights(model.local_trainable_variables, model.local_non_trainable_variables)

    @staticmethod
    def has_only_global_variables(model: "ReconstructionModel") -> bool:
        """Whether no variable is local."""
        return not (model.local_trainable_variables or model.local_non_trainable_variables)

    def __getattr__(self, name: str) -> Any:
        group = name.removesuffix("_variables")
        if group == name or group not in Partition._fields:
            raise AttributeError(name)
        return self.groups[group]


def _of_layer(group: str) -> tuple[str, str]:
    """Whose it is, and a layer's `non_trainable_weights`, say."""
    whose, _, side = group.partition("_")
    return whose, f"{side}_weights"


def core_model(model_fn: Any, loss_fn: Any, metrics_fn: Any) -> fc.ReconstructionModel:
    """The model that the builders of the core take.

    Args:
        model_fn: A function that makes a `ReconstructionModel`.
        loss_fn: A function that makes a Keras loss.
        metrics_fn: A function that makes a list of Keras metrics, or None.

    Raises:
        ModelError: It makes something else.
    """
    made = arguments.made_by(model_fn)
    if type(made) is not ReconstructionModel:
        raise fc.ModelError(
            f"model_fn returned {type(made).__name__}: fedbridge reconstructs Keras models; return "
            "tff.learning.models.ReconstructionModel.from_keras_model_and_layers(...)."
        )
    loss = loss_fn() if callable(loss_fn) and not hasattr(loss_fn, "reduction") else loss_fn
    metrics = metrics_fn() if metrics_fn else []
    return from_keras_reconstruction_variables(
        made.keras_model, made.groups, loss, metrics, constraints=note_constraint
    )
