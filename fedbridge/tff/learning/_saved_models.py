"""`tff.learning.models.save` and `load`: models in TensorFlow's SavedModel format.

As in TFF (learning/models/serialization.py), a folder holds the variables, the functions of the
model, and `predict_on_batch` as the default serving signature, which TensorFlow Serving and TFLite
take. TFF describes the functions' results in messages of its own; here TensorFlow does, so that
each of the two loads what it has saved itself.
"""

import functools
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedbridge import jax_core as fc
from fedbridge.tff.learning._functional_model import FunctionalModel
from fedbridge.tff.learning._variable_model import BatchOutput, VariableModel

_PARTS = BatchOutput._fields


def save(model: Any, path: Any, input_type: Any = None) -> None:
    """Saves a model; TensorFlow loads and serves it without fedbridge.

    Args:
        model: A model with variables, of Keras or by hand.
        path: The folder; an existing one is replaced.
        input_type: What `predict_on_batch` takes; default the "x" of the model's `input_spec`, or
            its first part.

    Raises:
        ArgumentError: Something else than such a model, or no path.
        StateError: The folder cannot be written.
    """
    fc.check_argument(isinstance(model, VariableModel), "model", model, "a VariableModel")
    _write(model.module if isinstance(model, _Loaded) else _module(model, input_type), path)


def _module(model: Any, input_type: Any) -> Any:
    import tensorflow as tf

    spec = model.input_spec
    fc.check_argument(spec is not None, "input_spec", spec, "given where the model is made")
    if input_type is None:
        input_type = spec["x"] if isinstance(spec, Mapping) else spec[0]
    module: Any = tf.Module()
    module.tff_trainable_variables = list(map(_variable, model.trainable_variables))
    module.tff_non_trainable_variables = list(map(_variable, model.non_trainable_variables))
    module.tff_local_variables = list(map(_variable, model.local_variables))
    for way, training in (("training", True), ("inference", False)):
        forward = functools.partial(_forward, model, training=training)
        predict = functools.partial(model.predict_on_batch, training=training)
        _add(module, f"forward_pass_{way}", forward, spec)
        _add(module, f"predict_on_batch_{way}", predict, input_type)
    _add(module, "report_local_unfinalized_metrics", model.report_local_unfinalized_metrics)
    values = tf.nest.map_structure(
        lambda value: tf.TensorSpec.from_tensor(tf.convert_to_tensor(value)),
        model.report_local_unfinalized_metrics(),
    )
    finalizers = model.metric_finalizers()
    for number, (name, finalizer) in enumerate(finalizers.items()):
        _add(module, f"finalizer_{number}", finalizer, values[name])
    _add(module, "reset_metrics", functools.partial(_reset, model))
    module.fedbridge_metrics = tf.Variable(
        tf.constant(json.dumps(list(finalizers))), trainable=False
    )
    return module


def load(path: Any) -> VariableModel:
    """Loads a model that `save` saved, in this namespace.

    Raises:
        ArgumentError: No path.
        StateError: There is no saved model; or one that TFF saved, or another program.
    """
    return _Loaded(_read(path, "fedbridge_metrics", "save"))


def save_functional_model(functional_model: Any, path: Any) -> None:
    """Saves a functional model, as in TFF without its metrics.

    Args:
        functional_model: By hand, or of Keras.
        path: The folder; an existing one is replaced.

    Raises:
        ArgumentError: Something else than such a model, or no path.
        StateError: The folder cannot be written.
    """
    is_one = isinstance(functional_model, FunctionalModel)
    fc.check_argument(is_one, "functional_model", functional_model, "a FunctionalModel")
    import tensorflow as tf

    module: Any = tf.Module()
    weights = tuple(tuple(map(tf.constant, side)) for side in functional_model.initial_weights)
    module.fedbridge_trainable, module.fedbridge_rest = (list(map(tf.Variable, w)) for w in weights)
    specs = tf.nest.map_structure(tf.TensorSpec.from_tensor, weights)
    spec = functional_model.input_spec
    x, y = (spec["x"], spec["y"]) if isinstance(spec, Mapping) else spec
    for way, training in (("training", True), ("inference", False)):
        predict = functools.partial(functional_model.predict_on_batch, training=training)
        _add(module, f"predict_on_batch_{way}", predict, specs, x)
    outputs = tf.nest.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype),
        module.predict_on_batch_training.get_concrete_function().structured_outputs,
    )
    _add(module, "loss", functional_model.loss, outputs, y)
    _add(module, "batch", lambda batch: tf.nest.flatten(batch)[0], spec)  # for its spec alone
    _write(module, path)


def load_functional_model(path: Any) -> FunctionalModel:
    """Loads a functional model that `save_functional_model` saved, in this namespace.

    Raises:
        ArgumentError: No path.
        StateError: There is no saved model; or one that TFF saved, or another program.
    """
    import tensorflow as tf

    module = _read(path, "fedbridge_trainable", "save_functional_model")
    ways = {True: module.predict_on_batch_training, False: module.predict_on_batch_inference}
    sides = module.fedbridge_trainable, module.fedbridge_rest
    trainable, rest = (tuple(variable.numpy() for variable in side) for side in sides)

    def predict(model_weights: Any, x: Any, training: bool = True) -> Any:
        pack = lambda side: tuple(map(tf.convert_to_tensor, side))
        return ways[training](tuple(map(pack, model_weights)), x)

    model = FunctionalModel(
        initial_weights=(trainable, rest),
        predict_on_batch_fn=predict,
        loss_fn=lambda output, label, sample_weight=None: module.loss(output, label),
        input_spec=_spec_of(module.batch),
    )
    vars(model)["module"] = module  # its variables live as long as the model
    return model


class _Loaded(VariableModel):
    """What `load` gives."""

    def __init__(self, module: Any):
        self.module = module
        self.trainable_variables = list(module.tff_trainable_variables)
        self.non_trainable_variables = list(module.tff_non_trainable_variables)
        self.local_variables = list(module.tff_local_variables)
        self.input_spec = _spec_of(module.forward_pass_training)
        self._names = json.loads(module.fedbridge_metrics.numpy())

    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        """The loss of a batch; the metrics are updated."""
        run = self.module.forward_pass_training if training else self.module.forward_pass_inference
        return BatchOutput(**run(batch_input))

    def predict_on_batch(self, x: Any, training: bool = True) -> Any:
        """The predictions."""
        module = self.module
        run = module.predict_on_batch_training if training else module.predict_on_batch_inference
        return run(x)

    def report_local_unfinalized_metrics(self) -> OrderedDict[str, Any]:
        """The values of the metrics' variables."""
        values = self.module.report_local_unfinalized_metrics()
        return OrderedDict((name, values[name]) for name in self._names)

    def metric_finalizers(self) -> OrderedDict[str, Callable[[Any], Any]]:
        """From those values to the metrics."""
        of = lambda number: getattr(self.module, f"finalizer_{number}")
        return OrderedDict((name, of(number)) for number, name in enumerate(self._names))

    def reset_metrics(self) -> None:
        """The metrics start anew."""
        self.module.reset_metrics()


def _forward(model: Any, batch: Any, training: bool) -> dict[str, Any]:
    output: Any = model.forward_pass(batch, training=training)
    parts = {part: getattr(output, part) for part in _PARTS}
    return {part: value for part, value in parts.items() if value is not None}


def _reset(model: Any) -> None:
    for variable in model.local_variables:
        variable.assign(variable * 0)


def _variable(variable: Any) -> Any:
    """TensorFlow's; Keras 3 has its own around it."""
    import tensorflow as tf

    return variable if isinstance(variable, tf.Variable) else variable.value


def _add(module: Any, name: str, function: Callable[..., Any], *specs: Any) -> None:
    """A function of the module, and the variables that it reads."""
    import tensorflow as tf

    traced = tf.function(function, input_signature=specs)
    variables = list(traced.get_concrete_function().graph.variables)
    setattr(module, name, traced)
    setattr(module, f"variables_of_{name}", variables)


def _spec_of(function: Any) -> Any:
    """The structure of its first argument."""
    ((first, *_), _) = function.concrete_functions[0].structured_input_signature
    return first


def _write(module: Any, path: Any) -> None:
    import tensorflow as tf

    _check_path(path)
    target = Path(path)
    serve = module.predict_on_batch_inference.get_concrete_function()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            new, old = Path(scratch, "new"), Path(scratch, "old")
            tf.saved_model.save(module, str(new), signatures=serve)
            if target.exists():
                os.replace(target, old)
            os.replace(new, target)
    except OSError as error:
        raise fc.StateError(
            f"{path}: it cannot be written there ({error.strerror}); name another folder."
        ) from None


def _read(path: Any, mark: str, by: str) -> Any:
    _check_path(path)
    import tensorflow as tf

    try:
        module = tf.saved_model.load(path)
    except (OSError, ValueError):
        raise fc.StateError(f"{path}: no saved model is there; give a folder of `{by}`.") from None
    if not hasattr(module, mark):
        raise fc.StateError(
            f"{path}: `{by}` of fedbridge.tff has not saved this; a model that the real TFF saved "
            "is one for tf.saved_model.load, or for TFF."
        )
    return module


def _check_path(path: Any) -> None:
    fc.check_argument(isinstance(path, str) and path != "", "path", path, "the name of a folder")
