"""fedbridge's models against those of TFF's baseline tasks: weights, outputs, gradients, metrics.

The weights go from TFF's Keras models to fedbridge's and back without any table.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from test_keras_model import ROWS, Converted, padded, reference_step, rows

import fedbridge as fb
from fedbridge.models import _resnet

REAL = 19  # of the rows of a batch, the others are padding
# Relative to the largest entry of an array; both sides compute in float32 and add in their own
# order.
TOLERANCE = 1e-5


class Case(NamedTuple):
    """TFF's model, loss and metrics; fedbridge's model; data.

    Attributes:
        keras: The Keras model, from TFF's own module.
        loss: Of TFF's task.
        metrics: Of TFF's task, under the names that fedbridge's model has for them.
        model: With TFF's loss and names of features.
        batch: Features "x" and "y", `[ROWS, ...]`.
        output: From fedbridge's predictions to those of the Keras model.
    """

    keras: Any
    loss: Any
    metrics: list[Any]
    model: fb.Model
    batch: dict[str, np.ndarray]
    output: Callable[[Any], Any]


def _characters(create: str, model: Callable[..., fb.Model]) -> Callable[[Any], Case]:
    def make(tf: Any) -> Case:
        from tensorflow_federated.python.simulation.baselines.emnist import emnist_models

        rng = np.random.default_rng(1)
        x = rng.random((ROWS, 28, 28, 1), np.float32)
        return Case(
            getattr(emnist_models, create)(only_digits=False),
            tf.keras.losses.SparseCategoricalCrossentropy(),
            [tf.keras.metrics.SparseCategoricalAccuracy("accuracy")],
            model(x="x", y="y", loss=fb.models.clipped_cross_entropy),
            {"x": x, "y": rng.integers(0, 62, ROWS).astype(np.int32)},
            jax.nn.softmax,
        )

    return make


def emnist_autoencoder(tf):
    from tensorflow_federated.python.simulation.baselines.emnist import emnist_models

    x = np.random.default_rng(1).random((ROWS, 784), np.float32)
    return Case(
        emnist_models.create_autoencoder_model(),
        tf.keras.losses.MeanSquaredError(),
        [tf.keras.metrics.MeanSquaredError(), tf.keras.metrics.MeanAbsoluteError()],
        fb.models.emnist_autoencoder(),
        {"x": x, "y": x},
        lambda predictions: predictions,
    )


def _sentences(num_ids: int) -> dict[str, np.ndarray]:
    """Tokens and the next ones, padded with 0; some have none, some a hole, some no padding."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(1, num_ids, (ROWS, 9))
    tokens[np.arange(9) >= rng.integers(0, 10, ROWS)[:, None]] = 0
    tokens[3:6] = rng.integers(0, 3, (3, 9))
    tokens = tokens.astype(np.int32)
    return {"x": tokens[:, :-1], "y": tokens[:, 1:]}


def _next_word(**options: Any) -> Callable[[Any], Case]:
    """Small, but for the layers."""

    def make(tf: Any) -> Case:
        from tensorflow_federated.python.simulation.baselines import keras_metrics
        from tensorflow_federated.python.simulation.baselines.stackoverflow import (
            word_prediction_models,
        )

        accuracy = keras_metrics.MaskedCategoricalAccuracy
        return Case(
            word_prediction_models.create_recurrent_model(
                vocab_size=40 + 5, embedding_size=12, lstm_size=30, **options
            ),
            tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            [
                keras_metrics.NumTokensCounter(masked_tokens=[0]),
                accuracy(name="accuracy", masked_tokens=[0]),
                accuracy(name="accuracy_without_out_of_vocab", masked_tokens=[0, 41, 42]),
                accuracy(
                    name="accuracy_without_out_of_vocab_or_end_of_sentence",
                    masked_tokens=[0, 44, 41, 42],
                ),
            ],
            fb.models.stackoverflow_lstm(
                40,
                12,
                30,
                num_out_of_vocab_buckets=2,
                loss=fb.models.mean_over_positions,
                mask_zero=True,
                **options,
            ),
            _sentences(45),
            lambda predictions: predictions,
        )

    return make


def stackoverflow_tag_prediction(tf):
    from tensorflow_federated.python.simulation.baselines.stackoverflow import tag_prediction_tasks

    rng = np.random.default_rng(1)
    x = rng.random((ROWS, 30), np.float32)
    return Case(
        tag_prediction_tasks._build_logistic_regression_model(30, 7),
        tf.keras.losses.BinaryCrossentropy(
            from_logits=False, reduction=tf.keras.losses.Reduction.SUM
        ),
        [
            tf.keras.metrics.Precision(name="precision"),
            tf.keras.metrics.Recall(top_k=5, name="recall_at_5"),
        ],
        fb.models.stackoverflow_tag_prediction(30, 7, loss=fb.models.clipped_binary_cross_entropy),
        {"x": x, "y": rng.integers(0, 3, (ROWS, 7)).astype(np.float32)},
        jax.nn.sigmoid,
    )


def shakespeare_lstm(tf):
    from tensorflow_federated.python.simulation.baselines import keras_metrics
    from tensorflow_federated.python.simulation.baselines.shakespeare import char_prediction_models

    return Case(
        char_prediction_models.create_recurrent_model(90, sequence_length=8),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        [
            keras_metrics.NumTokensCounter(masked_tokens=[0]),
            keras_metrics.MaskedCategoricalAccuracy(masked_tokens=[0]),
        ],
        fb.models.shakespeare_lstm(loss=fb.models.mean_over_positions, mask_zero=True),
        _sentences(90),
        lambda predictions: predictions,
    )


def _images(tf: Any, keras: Any, model: fb.Model) -> Case:
    """Of 8 by 8 pixels, for the time it takes."""
    rng = np.random.default_rng(1)
    return Case(
        keras,
        tf.keras.losses.SparseCategoricalCrossentropy(),
        [tf.keras.metrics.SparseCategoricalAccuracy("accuracy")],
        model,
        {
            "x": rng.normal(size=(ROWS, 8, 8, 3)).astype(np.float32),
            "y": rng.integers(0, 10, ROWS).astype(np.int32),
        },
        jax.nn.softmax,
    )


def resnet18(tf):
    from tensorflow_federated.python.simulation.models import resnet_models

    ours = fb.models.resnet18((8, 8, 3), 10, loss=fb.models.clipped_cross_entropy)
    return _images(tf, resnet_models.create_resnet18((8, 8, 3), 10), ours)


def resnet_with_bottlenecks(tf):
    """The blocks of a ResNet-50, 5 of 16: all of them take a minute to compile."""
    from tensorflow_federated.python.simulation.models import resnet_models

    keras = resnet_models.create_resnet((8, 8, 3), 10, repetitions=[1, 2, 1, 1])
    ours = _resnet._resnet(
        _resnet._ResNet(10, _resnet.BOTTLENECK, (1, 2, 1, 1)),
        input_shape=(8, 8, 3),
        l2=1e-4,
        loss=fb.models.clipped_cross_entropy,
        x="x",
        y="y",
        compute_dtype=np.float32,
        seed=0,
    )
    return _images(tf, keras, ours)


CASES = {
    "emnist_cnn": _characters("create_conv_dropout_model", fb.models.emnist_cnn),
    "emnist_original_fedavg_cnn": _characters(
        "create_original_fedavg_cnn_model", fb.models.emnist_original_fedavg_cnn
    ),
    "emnist_2nn": _characters("create_two_hidden_layer_model", fb.models.emnist_2nn),
    "emnist_autoencoder": emnist_autoencoder,
    "stackoverflow_lstm": _next_word(),
    "stackoverflow_lstm, more": _next_word(num_lstm_layers=2, shared_embedding=True),
    "stackoverflow_tag_prediction": stackoverflow_tag_prediction,
    "shakespeare_lstm": shakespeare_lstm,
    "resnet18": resnet18,
    "resnet with bottlenecks": resnet_with_bottlenecks,
}


def assert_close(ours, theirs, what):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30)
    print(f"{what}: {error:.1e}")
    assert error <= TOLERANCE, what


def moved(variable, rng):
    """A weight near TFF's first one, but no bias is zero, and no ReLU near its kink where many are.

    The gradients of fifty normalized ReLUs behind each other are as good as their signs: from
    TFF's first weights a ResNet-50's were off by 1e-2, since rounding sends one or two of two
    million to the other side. Here a normalized channel is wholly on or wholly off.
    """
    if "gamma" in variable.name:
        return 0.1 + 0.02 * rng.random(variable.shape)
    if "beta" in variable.name:
        return rng.choice([-1.0, 1.0], variable.shape)
    return variable.numpy() + rng.normal(scale=0.02, size=variable.shape)


@pytest.mark.parametrize(
    "name, convolutions", [("resnet34", _resnet.BASIC), ("resnet50", _resnet.BOTTLENECK)]
)
def test_weights_of_large_resnets_come_in_keras_order(name, convolutions, tff):
    from tensorflow_federated.python.simulation.models import resnet_models

    keras = getattr(resnet_models, f"create_{name}")((24, 24, 3), 100)
    module = _resnet._ResNet(100, convolutions, (3, 4, 6, 3))
    images = np.zeros((1, 24, 24, 3), np.float32)

    def made(key):
        return OrderedDict(flatten_dict(module.init(key, images, train=False)))

    ours = jax.eval_shape(made, jax.random.key(0))
    assert [leaf.shape for leaf in ours.values()] == [
        tuple(variable.shape) for variable in keras.trainable_variables
    ]


@pytest.mark.parametrize("name", CASES)
def test_equals_tff(name, tff):
    """From TFF's weights, moved, to fedbridge and back: a padded batch here, its rows there."""
    import tensorflow as tf

    case = CASES[name](tf)
    rng = np.random.default_rng(2)
    for variable in case.keras.weights:
        variable.assign(moved(variable, rng).astype(np.float32))
    weights = fb.weights_from_keras(case.keras)
    first = case.model.initial_weights
    assert jax.tree.map(np.shape, weights) == jax.tree.map(np.shape, first)

    real = rows(case.batch, 0, REAL)
    spec = tf.nest.map_structure(lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), real)
    reference = tff.learning.models.from_keras_model(
        case.keras, case.loss, spec, metrics=case.metrics
    )
    # To make graphs of a hundred layers takes TensorFlow long. Without a graph the loss sees the
    # logits, which is the same where no probability saturates.
    tf.config.run_functions_eagerly(name.startswith("resnet"))
    try:
        output, expected = reference_step(reference, real)
    finally:
        tf.config.run_functions_eagerly(False)
    batch, mask = padded(case.batch, REAL)
    step = Converted(case.model)
    forward, gradients = step.from_weights(weights.trainable, batch, mask)
    predictions = case.output(forward.predictions[:REAL])
    assert_close(predictions, output.predictions, "predictions")
    assert_close(forward.objective, output.loss, "objective")
    for variable, ours, theirs in zip(
        reference.trainable_variables, gradients, expected, strict=True
    ):
        assert_close(ours, tf.convert_to_tensor(theirs), f"gradient of {variable.name}")
    theirs = {metric.name: metric.result().numpy() for metric in reference.get_metrics()}
    for metric_name, metric in case.model.metrics.items():
        value = metric.finalize(metric.update(metric.zero(), batch, forward, mask))
        assert_close(value, theirs.pop(metric_name), metric_name)
    assert not theirs

    fb.weights_to_keras(first, case.keras)
    forward, _ = step.step(batch, mask)
    predictions = case.output(forward.predictions[:REAL])
    assert_close(predictions, case.keras(real["x"], training=False), "of fedbridge's first weights")
