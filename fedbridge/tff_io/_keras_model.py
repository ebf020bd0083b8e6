"""Keras models as `Model`s: the same weights in the same order, TFF's losses, TFF's metrics.

What TFF's `tff.learning.models.from_keras_model` computes (learning/models/keras_utils.py): the
objective is the loss plus the layers' regularization, the reported loss is without it.
"""

import dataclasses
import functools
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from fedbridge.jax_core import (
    Batch,
    Cohort,
    Forward,
    Model,
    ModelError,
    ModelWeights,
    check_labels,
)
from fedbridge.tff_io._keras_activations import of_keras_3
from fedbridge.tff_io._keras_constraints import (
    Constraints,
    constraints_of,
    refuse_constraints,
)
from fedbridge.tff_io._keras_graph import Graph, read_graph
from fedbridge.tff_io._keras_loss_table import loss_function
from fedbridge.tff_io._keras_losses import LossFn, Mask
from fedbridge.tff_io._keras_metrics import tff_metrics
from fedbridge.tff_io._keras_objects import Spec, describe_keras
from fedbridge.tff_io._keras_parts import Training, fits


def from_keras(
    keras_model: Any,
    loss: Any,
    metrics: Sequence[Any] = (),
    *,
    loss_weights: Sequence[float] | None = None,
    constraints: Constraints = refuse_constraints,
) -> Model:
    """Makes a `Model` of a Keras model, as `tff.learning.models.from_keras_model` does.

    Args:
        keras_model: A Sequential or functional model of Keras 2 or Keras 3 that has its weights.
        loss: An instance of a Keras loss, or a list with one for each output of the model.
        metrics: Instances of Keras metrics, or functions without arguments that make them.
        loss_weights: For a list of losses, what each is multiplied with.
        constraints: What becomes of each constraint of a weight, which would do nothing: it is
            refused. `fb.ignore_constraints` is TFF's way.

    Returns:
        A model of batches with the features "x" and "y", which starts from the Keras model's
        weights. Its metrics are those given, then `loss`, `num_examples` and `num_batches`.

    Raises:
        ModelError: For a layer, loss, metric or argument that fedbridge does not compute; it names
            what is supported. Also for a weight with a constraint, which TFF never applies.

    Warns:
        UserWarning: The model has batch normalization, as `from_keras_model` warns.
    """
    try:
        written = json.loads(keras_model.to_json())
        weights = ModelWeights(
            [np.asarray(weight) for weight in keras_model.trainable_weights],
            [np.asarray(weight) for weight in keras_model.non_trainable_weights],
        )
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model {type(keras_model).__name__} cannot be read ({_first_line(error)}); pass a"
            " Sequential or functional Keras model whose input shape is known"
        ) from error
    if not str(written.get("keras_version", "3")).startswith("2"):  # Keras 3 writes no version
        written = of_keras_3(written)
    if '"BatchNormalization"' in json.dumps(written):
        warnings.warn(
            "the model has BatchNormalization, whose moving statistics are never updated in"
            " federated training, as in TFF; GroupNormalization has none",
            stacklevel=2,
        )
    for constraint in constraints_of(written):
        constraints(constraint)
    losses = loss if isinstance(loss, list | tuple) else [loss]
    specs = [describe_keras(one) for one in losses]
    return from_keras_config(
        written["class_name"],
        written["config"],
        loss=specs if isinstance(loss, list | tuple) else specs[0],
        metrics=[describe_keras(_instance(metric)) for metric in metrics],
        weights=weights,
        loss_weights=loss_weights,
    )


def from_keras_config(
    class_name: str,
    config: Mapping[str, Any],
    *,
    loss: Spec | Sequence[Spec],
    metrics: Sequence[Spec] = (),
    weights: ModelWeights,
    loss_weights: Sequence[float] | None = None,
) -> Model:
    """Makes a `Model` of a Keras model's config; needs neither Keras nor TensorFlow.

    Args:
        class_name: `"Sequential"` or `"Functional"`, as in `keras_model.to_json()`.
        config: What `keras_model.get_config()` gives in Keras 2.14 or Keras 3; constraints in it do
            nothing, as in TFF. `hard_sigmoid` is that of Keras 2.
        loss: `{"class_name": ..., "config": ...}` of the loss, or a list with one for each output.
        metrics: The same of each metric.
        weights: In the order of `keras_model.trainable_variables` and `non_trainable_variables`.
        loss_weights: For a list of losses, what each is multiplied with.

    Raises:
        ModelError: As `from_keras`; and for weights that do not fit the layers.

    Example:
        >>> import numpy as np
        >>> dense = {"class_name": "Dense", "config": {"name": "dense", "units": 1}}
        >>> model = from_keras_config(
        ...     "Sequential",
        ...     {"name": "linear", "layers": [dense]},
        ...     loss={"class_name": "MeanSquaredError", "config": {}},
        ...     weights=ModelWeights([np.ones((2, 1)), np.zeros(1)]),
        ... )
        >>> batch = {"x": np.asarray([[1.0, 2.0]]), "y": np.asarray([[1.0]])}
        >>> float(model.forward(model.initial_weights, batch, None, None, False).objective)
        4.0
        >>> list(model.metrics)
        ['loss', 'num_examples', 'num_batches']
    """
    graph = read_graph(class_name, config)
    specs = [loss] if isinstance(loss, Mapping) else list(loss)
    several = not isinstance(loss, Mapping)
    total_loss = _total_loss(
        [loss_function(spec) for spec in specs], loss_weights, several, len(graph.outputs)
    )
    if metrics and len(graph.outputs) > 1:
        raise ModelError(
            f"metrics of a model with {len(graph.outputs)} outputs are not supported; pass none"
        )

    def forward(
        weights: ModelWeights, batch: Batch, mask: Mask, key: Any, training: bool
    ) -> Forward:
        inputs = _inputs(graph, _feature(batch, "x"))
        outputs = graph.apply(weights, inputs, Training(key, mask) if training else None)
        labels = jax.tree.map(jnp.asarray, _feature(batch, "y"))
        metric_loss = total_loss(labels, outputs, mask)
        rows = inputs[0].shape[0] if mask is None else jnp.sum(mask)
        return Forward(
            objective=_plus_penalties(metric_loss, graph, weights),
            predictions=outputs if len(outputs) > 1 else outputs[0],
            metric_loss=metric_loss,
            num_examples=jnp.asarray(rows, jnp.int32),
            non_trainable=weights.non_trainable,
        )

    fitting = _fitting(weights, graph)

    def num_classes(batch: Batch) -> int:
        """The size of the output's last axis; traced, not computed."""
        apply = lambda x: graph.apply(fitting, _inputs(graph, x), None)[0]
        return jax.eval_shape(apply, _feature(batch, "x")).shape[-1]

    def check(cohort: Cohort) -> None:
        if several or specs[0]["class_name"] != "SparseCategoricalCrossentropy":
            return
        ignored = (specs[0].get("config") or {}).get("ignore_class")
        if ignored is not None:
            cohort = dataclasses.replace(cohort, decode=_that_count(cohort.decode, ignored))
        check_labels(cohort, "y", num_classes)

    return Model(fitting, forward, tff_metrics(metrics), check=check)


@functools.lru_cache(maxsize=64)
def _that_count(decode: Callable[[Batch], Batch], ignored: int) -> Callable[[Batch], Batch]:
    """A decoder of the labels that count; 0 for the others."""

    def counting(rows: Batch) -> Batch:
        batch = decode(rows)
        if "y" not in batch:
            return batch
        return {**batch, "y": jnp.where(batch["y"] == ignored, 0, batch["y"])}

    return counting


def _total_loss(
    losses: Sequence[LossFn],
    loss_weights: Sequence[float] | None,
    several: bool,
    num_outputs: int,
) -> Callable[[PyTree, Sequence[Array], Mask], Float[Array, ""]]:
    if len(losses) != num_outputs or (loss_weights and len(loss_weights) != len(losses)):
        raise ModelError(
            f"{len(losses)} losses with {len(loss_weights or losses)} loss_weights do not fit a"
            f" model with {num_outputs} outputs: pass one for each"
        )
    if loss_weights is not None and not several:
        raise ModelError("loss_weights go with a list of losses: pass loss=[...]")

    def total(labels: PyTree, outputs: Sequence[Array], mask: Mask) -> Float[Array, ""]:
        if not several:
            return losses[0](labels, outputs[0], mask)
        result = jnp.zeros((), jnp.float32)
        for number, loss in enumerate(losses):
            scale = 1.0 if loss_weights is None else loss_weights[number]
            result = result + scale * loss(labels[number], outputs[number], mask)
        return result

    return total


def _plus_penalties(
    loss: Float[Array, ""], graph: Graph, weights: ModelWeights
) -> Float[Array, ""]:
    """Adds the layers' regularization, a layer that is called twice counted once."""
    for layer in graph.layers:
        own = layer.weights(weights)
        for weight, penalty in zip(own, layer.layer.penalties, strict=False):
            loss = loss if penalty is None else loss + penalty(weight)
    return loss


def _feature(batch: Batch, name: str) -> Any:
    """A feature, or the tree of the features "name/...": a dictionary, a list where numbered."""
    if name in batch:
        return batch[name]
    prefix = f"{name}/"
    parts = {key.removeprefix(prefix): batch[key] for key in batch if key.startswith(prefix)}
    if not parts:
        raise ModelError(
            f'the batch has the features {", ".join(map(repr, batch))} but no "{name}": a Keras'
            ' model takes "x" and "y", for example after `data.map_batches(...)`'
        )
    if all(part.isdigit() for part in parts):
        return [parts[part] for part in sorted(parts, key=int)]
    return parts


def _inputs(graph: Graph, x: Any) -> list[Array]:
    """The model's inputs from one array, a list in Keras' order, or a dictionary by name."""
    names = ", ".join(graph.input_names)
    if isinstance(x, Mapping):
        if not set(graph.input_names) <= set(x):
            raise ModelError(f'the batch\'s "x" holds {", ".join(x)}; the model takes {names}')
        x = [x[name] for name in graph.input_names]
    elif not isinstance(x, list | tuple):
        x = [x]
    if len(x) != len(graph.input_names):
        raise ModelError(f'the batch\'s "x" holds {len(x)} arrays; the model takes {names}')
    return [jnp.asarray(one) for one in x]


def _fitting(weights: ModelWeights, graph: Graph) -> ModelWeights:
    """The weights as lists of float32 arrays, each with the shape that its layer takes."""
    given = ModelWeights(*([np.asarray(w, np.float32) for w in side] for side in weights))
    for side, arrays in zip((True, False), given, strict=True):
        wanted = [
            (layer.name, name, shape)
            for layer in graph.layers
            for name, shape in layer.shapes(trainable=side)
        ]
        if len(wanted) != len(arrays):
            raise ModelError(
                f"the model has {len(wanted)} {'trainable' if side else 'non-trainable'} weights,"
                f" but {len(arrays)} were given: pass them in Keras' order"
            )
        for (layer, name, shape), array in zip(wanted, arrays, strict=True):
            if not fits(array.shape, shape):
                raise ModelError(
                    f'the {name} of layer "{layer}" has the shape {array.shape}, not {shape}: pass'
                    " the weights in Keras' order"
                )
    return given


def _instance(metric: Any) -> Any:
    """A metric, from itself or from a function that makes it."""
    is_maker = isinstance(metric, type) or not hasattr(metric, "get_config")
    return metric() if is_maker and callable(metric) else metric


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
