"""Models that stand for TFF's `FunctionalModel`s, so that states go from one to the other.

Reference: tensorflow_federated/python/learning/models/functional.py, and what is built of such a
model in learning/templates/model_delta_client_work.py.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import jax

from fedbridge.jax_core import (
    Batch,
    Forward,
    Metric,
    Model,
    ModelError,
    ModelWeights,
    check_argument,
    check_model,
)


def as_functional(model: Model, names: Sequence[str] = ()) -> Model:
    """A model as TFF trains a `FunctionalModel`, e.g. of `functional_model_from_keras`.

    Its weights are tuples, and so is what its metrics add up. Its objective is the loss alone,
    without the regularization of layers, since TFF calls the loss itself. FedAvg keeps no
    hyperparameters of the clients' optimizer in the state, so that `set_hparams` changes none.

    Args:
        model: A model whose weights are lists or tuples of arrays, e.g. of `from_keras`.
        names: Of its first metrics, the keys of TFF's `metrics_constructor`; there are no others.

    Raises:
        ArgumentError: Names that are a single text.
        ModelError: There are more names than metrics, or its weights are in something else.

    Example:
        >>> import numpy as np
        >>> import fedbridge as fb
        >>> def forward(weights, batch, mask, key, training):
        ...     errors = batch["x"] @ weights.trainable[0] - batch["y"]
        ...     loss = (errors**2).mean()
        ...     return fb.Forward(loss, errors, loss, len(errors))
        >>> model = fb.Model(fb.ModelWeights([np.zeros(2, "f")]), forward, {})
        >>> dict(fb.algorithms.fed_avg(model, fb.optimizers.sgdm(0.5)).initialize().client_work)
        {'learning_rate': Array(0.5, dtype=float32)}
        >>> model = as_functional(model)
        >>> state = fb.algorithms.fed_avg(model, fb.optimizers.sgdm(0.5)).initialize()
        >>> state.global_model_weights.trainable, state.client_work
        ((Array([0., 0.], dtype=float32),), ())
    """
    check_model(model)
    texts = not isinstance(names, str) and all(isinstance(name, str) for name in names)
    check_argument(texts, "names", names, "a list of texts, one for each metric")
    if len(names) > len(model.metrics):
        raise ModelError(
            f"as_functional has {len(names)} names for {len(model.metrics)} metrics: pass the model"
            " a metric for each."
        )

    def forward(
        weights: ModelWeights, batch: Batch, mask: Any, key: Any, training: bool
    ) -> Forward:
        found = model.forward(weights, batch, mask, key, training)
        return found._replace(objective=found.metric_loss, non_trainable=tuple(found.non_trainable))

    return model._replace(
        initial_weights=ModelWeights(*map(_as_tuple, model.initial_weights)),
        forward=forward,
        metrics=OrderedDict(zip(names, map(_in_tuple, model.metrics.values()), strict=False)),
        functional=True,
    )


def _in_tuple(metric: Metric) -> Metric:
    """The metric, its accumulator a tuple of variables (learning/metrics/keras_utils.py)."""
    structure = jax.tree.structure(metric.zero())
    pack = lambda sums: tuple(jax.tree.leaves(sums))
    unpack = lambda variables: jax.tree.unflatten(structure, variables)
    return Metric(
        zero=lambda: pack(metric.zero()),
        update=lambda sums, *given: pack(metric.update(unpack(sums), *given)),
        finalize=lambda sums: metric.finalize(unpack(sums)),
    )


def _as_tuple(weights: Any) -> tuple[Any, ...]:
    if not isinstance(weights, list | tuple):
        raise ModelError(
            f"as_functional has a model whose weights are in a {type(weights).__name__}: TFF's"
            " functional models have them in a tuple; pass a model with a list or tuple of arrays."
        )
    return tuple(weights)
