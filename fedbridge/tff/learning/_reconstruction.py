"""`tff.learning.models.ReconstructionModel`: models of which a part stays on the client."""

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fedbridge import jax_core as fc
from fedbridge.tff import _arguments as arguments
from fedbridge.tff._process import ModelWeights
from fedbridge.tff.learning._variable_model import x_and_y
from fedbridge.tff_io import Partition


class BatchOutput(NamedTuple):
    """What a forward pass computes: predictions, their labels, and how many examples."""

    predictions: Any = None
    labels: Any = None
    num_examples: Any = None


class ReconstructionModel(abc.ABC):
    """TFF's model with global and local variables: of a Keras model, or a subclass's own."""

    simple_dataset_split_fn = staticmethod(fc.simple_dataset_split_fn)
    build_dataset_split_fn = staticmethod(fc.build_dataset_split_fn)

    @property
    @abc.abstractmethod
    def global_trainable_variables(self) -> Iterable[Any]:
        """What the server trains."""

    @property
    @abc.abstractmethod
    def global_non_trainable_variables(self) -> Iterable[Any]:
        """What the server has besides."""

    @property
    @abc.abstractmethod
    def local_trainable_variables(self) -> Iterable[Any]:
        """What a client reconstructs."""

    @property
    @abc.abstractmethod
    def local_non_trainable_variables(self) -> Iterable[Any]:
        """What a client has besides."""

    @property
    @abc.abstractmethod
    def input_spec(self) -> Any:
        """The structure of a batch, with `tf.TensorSpec`s."""

    @abc.abstractmethod
    def forward_pass(self, batch_input: Any, training: bool = True) -> Any:
        """The predictions, labels and number of examples of a batch, as attributes."""

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
        return KerasReconstructionModel(keras_model, groups, input_spec)

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
        return KerasReconstructionModel(keras_model, groups, input_spec)

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


class KerasReconstructionModel(ReconstructionModel):
    """What is made of a Keras model."""

    global_trainable_variables: Any = None
    global_non_trainable_variables: Any = None
    local_trainable_variables: Any = None
    local_non_trainable_variables: Any = None
    input_spec: Any = None

    def __init__(self, keras_model: Any, groups: Mapping[str, Sequence[Any]], input_spec: Any):
        self.keras_model, self.groups, self.input_spec = keras_model, groups, input_spec
        for group, variables in groups.items():
            setattr(self, f"{group}_variables", variables)

    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        """Keras' predictions."""
        import tensorflow as tf

        x, y = x_and_y(batch_input)
        predictions = self.keras_model(x, training=training)
        return BatchOutput(predictions, y, tf.shape(tf.nest.flatten(x)[0])[0])


def _of_layer(group: str) -> tuple[str, str]:
    """Whose it is, and a layer's `non_trainable_weights`, say."""
    whose, _, side = group.partition("_")
    return whose, f"{side}_weights"
