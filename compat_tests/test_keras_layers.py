"""Layers of Keras 2.14 beyond dense and convolutional nets, in TFF: outputs, gradients, padding."""

import jax
import numpy as np
import pytest
from test_keras_model import Converted, padded, reference_step, rows

from fedbridge.tff_io import from_keras

# Relative to the largest entry of an array. Both sides compute in float32 and add in their own
# order; eight steps through a recurrent cell amplify that more than a feed-forward net does.
TOLERANCE = 2e-6
ROWS, STEPS = 24, 8


def words(rng):
    """Sentences of ids below 11, padded with 0: some empty, some with a hole, some full."""
    lengths = rng.integers(0, STEPS + 1, ROWS)
    ids = rng.integers(1, 11, (ROWS, STEPS))
    ids[np.arange(STEPS) >= lengths[:, None]] = 0
    ids[3:6] = rng.integers(0, 3, (3, STEPS))
    ids[0] = 7
    return ids.astype(np.int32)


def steps(rng):
    x = rng.normal(size=(ROWS, STEPS, 3)).astype(np.float32)
    x[rng.random((ROWS, STEPS)) < 0.3] = 0.0
    return x


def next_word(layers):
    """The model of TFF's Stack Overflow task, but small; `build` is lazy, so it knows no length."""
    return [
        layers.Embedding(11, 4, mask_zero=True, input_length=STEPS),
        layers.LSTM(5, return_sequences=True, kernel_initializer="he_normal"),
        layers.Dense(4),
        layers.Dense(3),
    ], words


def two_lstms(layers):
    return [
        layers.Embedding(11, 4, mask_zero=True, embeddings_regularizer="l2", input_length=STEPS),
        layers.LSTM(5, return_sequences=True, go_backwards=True, recurrent_regularizer="l2"),
        layers.LSTM(4, activation="softplus", recurrent_activation="softsign", use_bias=False),
    ], words


def unmasked_lstm(layers):
    return [
        layers.Embedding(11, 4, input_length=STEPS),
        layers.LSTM(5, unit_forget_bias=False, implementation=1, unroll=True),
    ], words


def masking(layers):
    return [
        layers.Masking(input_shape=(STEPS, 3)),
        layers.LSTM(5, return_sequences=True, zero_output_for_mask=True),
        layers.Activation("tanh"),
        layers.LSTM(5, zero_output_for_mask=True),
    ], steps


NETS = [next_word, two_lstms, unmasked_lstm, masking]


@pytest.fixture(scope="module", params=NETS, ids=lambda net: net.__name__)
def case(request, tff):
    """A Keras model with random vectors, TFF's model of it, the converted one, and a batch."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(7)
    rng = np.random.default_rng(11)
    parts, inputs = request.param(tf.keras.layers)
    model = parts if isinstance(parts, tf.keras.Model) else tf.keras.Sequential(parts)
    for weight in model.weights:  # the forget gate's bias of 1 and zeros are not enough
        if weight.shape.rank == 1:
            weight.assign(weight + rng.normal(scale=0.3, size=weight.shape))
    x = inputs(rng)
    y = rng.normal(size=(ROWS, *model.output_shape[1:])).astype(np.float32)
    loss, metrics = tf.keras.losses.MeanSquaredError(), [tf.keras.metrics.MeanAbsoluteError()]
    converted = Converted(from_keras(model, loss, metrics))
    spec = tf.nest.map_structure(
        lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), {"x": x, "y": y}
    )
    reference = tff.learning.models.from_keras_model(model, loss, spec, metrics=metrics)
    return model, reference, converted, {"x": x, "y": y}


def assert_close(ours, theirs, what):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30)
    print(f"{what}: {error:.1e}")
    assert error <= TOLERANCE


def test_weights_come_in_keras_order(case):
    model, _, converted, _ = case
    ours = converted.model.initial_weights
    theirs = (*model.trainable_variables, *model.non_trainable_variables)
    for mine, weight in zip((*ours.trainable, *ours.non_trainable), theirs, strict=True):
        np.testing.assert_array_equal(mine, weight.numpy())


@pytest.mark.parametrize("real", [ROWS, 10])
def test_outputs_and_gradients(case, real):
    """Of a full batch, and of one that is padded with repeated rows."""
    _, reference, converted, batch = case
    output, expected = reference_step(reference, rows(batch, 0, real))
    forward, gradients = converted.step(*((batch,) if real == ROWS else padded(batch, real)))
    assert_close(forward.predictions[:real], output.predictions.numpy(), "predictions")
    assert_close(forward.objective, output.loss.numpy(), "objective")
    assert int(forward.num_examples) == real
    for ours, theirs in zip(gradients, expected, strict=True):
        assert_close(ours, _dense(theirs), "gradient")


def _dense(gradient):
    import tensorflow as tf

    return tf.convert_to_tensor(gradient).numpy()


def test_metrics_see_no_mask(case):
    _, reference, converted, batch = case
    reference.reset_metrics()
    reference_step(reference, batch)
    theirs = {metric.name: metric.result().numpy() for metric in reference.get_metrics()}
    forward, _ = converted.step(batch)
    for name, metric in converted.model.metrics.items():
        seen = metric.update(metric.zero(), batch, forward, None)
        assert_close(metric.finalize(seen), theirs[name], name)


@pytest.mark.parametrize("word", [-1, 11])
def test_a_word_that_is_no_row(tff, word):
    """TensorFlow stops with an error; the JAX core gives NaN, so that the client does not count."""
    import tensorflow as tf

    layers = tf.keras.layers
    model = tf.keras.Sequential([layers.Embedding(11, 2, input_length=3), layers.Flatten()])
    loss = tf.keras.losses.MeanSquaredError()
    batch = {"x": np.array([[1, word, 2]], np.int32), "y": np.ones((1, 6), np.float32)}
    spec = {"x": tf.TensorSpec((None, 3), tf.int32), "y": tf.TensorSpec((None, 6), tf.float32)}
    reference = tff.learning.models.from_keras_model(model, loss, spec)
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not in"):
        reference_step(reference, batch)
    forward, gradients = Converted(from_keras(model, loss)).step(batch)
    assert np.isnan(forward.objective)
    assert all(np.isnan(gradient).any() for gradient in jax.tree.leaves(gradients))
