"""`tff.learning.models`: models as TFF makes them, of Keras or by hand."""

from collections.abc import Sequence
from typing import Any

from fedbridge.tff._errors import missing
from fedbridge.tff._process import ModelWeights as ModelWeights
from fedbridge.tff.learning._functional_model import (
    FunctionalModel as FunctionalModel,
    functional_model_from_keras as functional_model_from_keras,
)
from fedbridge.tff.learning._model_from_functional import (
    model_from_functional as model_from_functional,
)
from fedbridge.tff.learning._reconstruction import ReconstructionModel as ReconstructionModel
from fedbridge.tff.learning._saved_models import (
    load as load,
    load_functional_model as load_functional_model,
    save as save,
    save_functional_model as save_functional_model,
)
from fedbridge.tff.learning._signatures import weights_type_from_model as weights_type_from_model
from fedbridge.tff.learning._variable_model import (
    BatchOutput as BatchOutput,
    KerasModel,
    VariableModel as VariableModel,
)


def from_keras_model(
    keras_model: Any,
    loss: Any,
    input_spec: Any = None,
    loss_weights: Sequence[float] | None = None,
    metrics: Sequence[Any] | None = None,
) -> VariableModel:
    """A Keras model as TFF trains it (learning/models/keras_utils.py).

    Args:
        keras_model: A Sequential or functional model of Keras 2 or 3, not compiled.
        loss: A Keras loss, or a list with one for each output.
        input_spec: What a batch looks like; the batches themselves say it too.
        loss_weights: For a list of losses.
        metrics: Keras metrics, or functions that make them.
    """
    return KerasModel(keras_model, loss, input_spec, loss_weights, metrics or ())


__getattr__ = missing("tff.learning.models")
