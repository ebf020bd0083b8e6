"""Layers of Keras 2.14 beyond dense and convolutional nets, in TFF: outputs, gradients, padding."""

import jax
import numpy as np
import pytest
from test_keras_model import Converted, padded, reference_step, rows

from fedbridge.tff_io import from_keras

# Relative to the largest entry of an array. Both sides compute in float32 and add in their own
# order: at most 2.5e-6 was seen, in a gradient through four recurrent layers behind each other.
TOLERANCE = 5e-6
ROWS, STEPS = 24, 8


def words(rng):
    """Sentences of ids below 11, padded with 0: some empty, some with a hole, some full."""
    lengths = rng.integers(0, STEPS + 1, ROWS)
    ids = rng.integers(1, 11, (ROWS, STEPS))
    ids[np.arange(STEPS) >= lengths[:, None]] = 0
    ids[3:6] = rng.integers(0, 3, (3, STEPS))
    ids[0] = 7
    return ids.astype(np.int32)


def filled(rng):
    """Sentences without an empty one, whose mean is 0 / 0."""
    ids = words(rng)
    ids[:, 0] = 5
    return ids


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


def grus(layers):
    return [
        layers.Embedding(11, 4, mask_zero=True, input_length=STEPS),
        layers.GRU(5, "hard_sigmoid", "hard_sigmoid", return_sequences=True, bias_regularizer="l2"),
        layers.GRU(4, reset_after=False, return_sequences=True, go_backwards=True),
        layers.GRU(4, activation="softplus", use_bias=False, implementation=1),
    ], words


def simple_rnns(layers):
    return [
        layers.Masking(input_shape=(STEPS, 3)),
        layers.SimpleRNN(4, return_sequences=True, unroll=True),
        layers.SimpleRNN(3, activation="softsign", use_bias=False),
    ], steps


def bidirectional(layers):
    from tensorflow import keras

    x = layers.Input((STEPS,))
    known = layers.Embedding(11, 4, mask_zero=True)(x)
    ahead, back = layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode=None)(known)
    mean = layers.Average()([ahead, back, layers.Dense(3)(known)])
    merged = layers.Bidirectional(
        layers.LSTM(4, return_sequences=True),
        merge_mode="mul",
        backward_layer=layers.LSTM(4, "softplus", return_sequences=True, go_backwards=True),
    )(mean)
    # Unrolled, Keras takes the mask the wrong way round.
    unrolled = layers.Bidirectional(
        layers.SimpleRNN(4, return_sequences=True, unroll=True), merge_mode="ave"
    )(merged)
    added = layers.Bidirectional(layers.SimpleRNN(4), merge_mode="sum")(unrolled)
    joined = layers.Bidirectional(layers.SimpleRNN(2), trainable=False)(merged)
    return keras.Model(x, layers.Concatenate()([added, joined])), words


def states(layers):
    """An encoder and a decoder; each step of the decoder's output goes through one Dense."""
    from tensorflow import keras

    x = layers.Input((STEPS,))
    known = layers.Embedding(11, 4, mask_zero=True)(x)
    encoded, h, c = layers.LSTM(3, return_sequences=True, return_state=True)(known)
    decoded = layers.LSTM(3, return_sequences=True)(known, initial_state=[h, c])
    gru = layers.GRU(3, return_sequences=True, zero_output_for_mask=True)(decoded, initial_state=h)
    last = layers.RepeatVector(STEPS)(layers.GRU(2)(decoded, initial_state=layers.Dense(2)(c)))
    out = layers.TimeDistributed(layers.Dense(2, "tanh", kernel_regularizer="l2"))(gru)
    after = layers.LSTM(2, return_sequences=True)(out)
    return keras.Model(x, layers.Concatenate()([out, encoded, after, last])), words


def images(layers):
    return [
        layers.ZeroPadding2D(((1, 0), (2, 1)), input_shape=(6, 5, 3)),
        layers.DepthwiseConv2D(3, depth_multiplier=2, strides=2, padding="same"),
        layers.PReLU(shared_axes=[1]),
        layers.GroupNormalization(3, epsilon=1e-2),
        layers.SeparableConv2D(4, (3, 2), padding="same", activation="tanh", depth_multiplier=2),
        layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
        layers.UpSampling2D((1, 2)),
        layers.Cropping2D(((1, 0), (0, 2))),
        layers.LayerNormalization(axis=[1, 3], gamma_regularizer="l2"),
        layers.Conv2DTranspose(2, (2, 3), strides=(1, 2), use_bias=False),
        layers.Permute((3, 1, 2)),
        layers.LayerNormalization(center=False),
        layers.ThresholdedReLU(0.2),
        layers.Flatten(),
        layers.Dense(3),
    ], lambda rng: rng.normal(size=(ROWS, 6, 5, 3)).astype(np.float32)


def series(layers):
    return [
        layers.ZeroPadding1D((2, 1), input_shape=(STEPS, 3)),
        layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="tanh"),
        layers.SeparableConv1D(6, 3, padding="same"),
        layers.ELU(),
        layers.Conv1D(4, 2, strides=2, groups=2),
        layers.UpSampling1D(4),
        layers.MaxPooling1D(2, padding="same"),
        layers.AveragePooling1D(3, strides=1, padding="same"),
        layers.Cropping1D(1),
        layers.LayerNormalization(),
        layers.GlobalAveragePooling1D(),
        layers.RepeatVector(3),
        layers.Conv1D(2, 2),
        layers.GlobalMaxPooling1D(),
    ], steps


def merges(layers):
    from tensorflow import keras

    x = layers.Input((STEPS, 3))
    a, b, c = (layers.Dense(4, "tanh")(x) for _ in range(3))
    summed = layers.Add()([layers.Multiply()([a, b]), layers.Subtract()([b, c])])
    extremes = layers.Average()([layers.Maximum()([a, b, c, a]), layers.Minimum()([b, c, b])])
    similar = layers.Dot((2, 2), normalize=True)([summed, extremes])
    vector = layers.GlobalAveragePooling1D()(c)
    weighted = layers.Dot((1, 1))([similar, extremes])
    number = layers.Dot(1)([vector, layers.GlobalMaxPooling1D()(a)])
    scaled = layers.Multiply()([layers.GlobalMaxPooling1D()(weighted), number])
    out = layers.Concatenate(axis=1)([layers.Flatten()(weighted), scaled])
    return keras.Model(x, out), steps


def masks_of_several(layers):
    """A sum hides what one of its terms hides, and the mean is over what is shown."""
    from tensorflow import keras

    x = layers.Input((STEPS,))
    y = layers.Rescaling(0.125)(layers.Reshape((STEPS, 1))(x))
    known = layers.Embedding(11, 3, mask_zero=True)(x)
    other = layers.Masking(mask_value=0.875)(y)
    both = layers.Add()([known, layers.Dense(3)(other), layers.Dense(3)(y)])
    side = layers.Concatenate()([known, other, y])
    after = layers.Concatenate(axis=1)([known, layers.Dense(3)(other)])
    dropped = layers.LSTM(2)(layers.Reshape((STEPS, 3))(known))
    ends = [layers.LSTM(2)(both), layers.GRU(2)(side), layers.SimpleRNN(2)(after), dropped]
    means = layers.GlobalAveragePooling1D()(layers.Add()([known, layers.Dense(3)(y)]))
    return keras.Model(x, layers.Concatenate()([*ends, means])), filled


NETS = [
    next_word,
    two_lstms,
    unmasked_lstm,
    masking,
    grus,
    simple_rnns,
    bidirectional,
    states,
    images,
    series,
    merges,
    masks_of_several,
]


@pytest.fixture(scope="module", params=NETS, ids=lambda net: net.__name__)
def case(request, tff):
    """A Keras model with random vectors, TFF's model of it, the converted one, and a batch."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(7)
    rng = np.random.default_rng(11)
    parts, inputs = request.param(tf.keras.layers)
    model = parts if isinstance(parts, tf.keras.Model) else tf.keras.Sequential(parts)
    for weight in model.weights:  # zeros and ones tell nothing apart
        weight.assign(weight + rng.normal(scale=0.2, size=weight.shape))
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


@pytest.mark.filterwarnings("ignore:.*(moving statistics|Batch Normalization)")
@pytest.mark.parametrize("real", [ROWS, 10])
@pytest.mark.parametrize("training", [True, False])
def test_batch_normalization(tff, training, real):
    """Of images (fused), vectors, and sequences with a mask; one layer is frozen."""
    import tensorflow as tf

    keras, layers, rng = tf.keras, tf.keras.layers, np.random.default_rng(3)
    tf.keras.utils.set_random_seed(5)
    x = layers.Input((STEPS, 3))
    images = layers.BatchNormalization(axis=1)(layers.Reshape((4, 2, 3))(x))
    images = layers.BatchNormalization(scale=False)(layers.Conv2D(2, 2)(images))
    sequences = layers.BatchNormalization(epsilon=0.01)(layers.Masking()(x))
    distributed = layers.TimeDistributed(layers.BatchNormalization())(layers.Dense(2)(x))
    vectors = layers.BatchNormalization(trainable=False)(layers.GRU(3)(sequences))
    parts = [layers.Flatten()(images), layers.BatchNormalization()(vectors)]
    model = keras.Model(x, layers.Concatenate()([*parts, layers.Flatten()(distributed)]))
    for weight in model.weights:
        weight.assign(weight + np.abs(rng.normal(scale=0.2, size=weight.shape)))
    batch = {"x": steps(rng), "y": rng.normal(size=(ROWS, *model.output_shape[1:]))}
    batch["y"] = batch["y"].astype(np.float32)
    loss = keras.losses.MeanSquaredError()
    spec = {name: tf.TensorSpec((None, *a.shape[1:]), a.dtype) for name, a in batch.items()}
    converted = from_keras(model, loss)
    for mine, weight in zip(
        (*converted.initial_weights.trainable, *converted.initial_weights.non_trainable),
        (*model.trainable_variables, *model.non_trainable_variables),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, weight.numpy())
    reference = tff.learning.models.from_keras_model(model, loss, spec)
    with tf.GradientTape() as tape:
        seen = tf.nest.map_structure(tf.constant, rows(batch, 0, real))
        output = reference.forward_pass(seen, training=training)
    expected = tape.gradient(output.loss, reference.trainable_variables)
    given, mask = (batch, None) if real == ROWS else padded(batch, real)

    def objective(trainable):
        weights = converted.initial_weights._replace(trainable=trainable)
        forward = converted.forward(weights, given, mask, None, training)
        return forward.objective, forward

    gradients, forward = jax.grad(objective, has_aux=True)(converted.initial_weights.trainable)
    assert_close(forward.predictions[:real], output.predictions.numpy(), "predictions")
    assert_close(forward.objective, output.loss.numpy(), "objective")
    largest = max(np.abs(gradient).max() for gradient in expected)
    for ours, theirs in zip(gradients, expected, strict=True):
        # A bias before a batch normalization has no gradient but rounding.
        np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE * largest)


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


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("CategoricalHinge", {}),
        ("CosineSimilarity", {}),
        ("Hinge", {}),
        ("Huber", {"delta": 0.3}),
        ("KLDivergence", {}),
        ("LogCosh", {}),
        ("MeanAbsoluteError", {}),
        ("MeanAbsolutePercentageError", {}),
        ("MeanSquaredLogarithmicError", {}),
        ("Poisson", {}),
        ("SquaredHinge", {}),
    ],
)
@pytest.mark.parametrize("reduction", ["auto", "sum"])
def test_losses(tff, name, arguments, reduction):
    """Values and gradients in TFF, with rows on the kinks: equal, zero, on the margin."""
    import tensorflow as tf

    rng = np.random.default_rng(2)
    x = rng.normal(size=(ROWS, 3)).astype(np.float32)
    x[0] = 0.0
    y = rng.integers(0, 2, (ROWS, 3)) if "Hinge" in name else np.abs(rng.normal(size=(ROWS, 3)))
    y = y.astype(np.float32)
    x[1] = y[1]
    if name != "MeanAbsolutePercentageError":  # where 1 / 1e-7 would hide the rest
        y[2] = 0.0
    x[3] = 2.0 * y[3] - 1.0
    keras = tf.keras
    positive = name in ("Poisson", "KLDivergence")
    scale = keras.layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer="ones")
    net = [keras.layers.Reshape((1, 1, 3), input_shape=(3,)), scale, keras.layers.Reshape((3,))]
    end = [keras.layers.Activation("softplus")] if positive else []
    model = keras.Sequential([*net, *end])
    loss = getattr(keras.losses, name)(**arguments, reduction=reduction)
    spec = {"x": tf.TensorSpec((None, 3), tf.float32), "y": tf.TensorSpec((None, 3), tf.float32)}
    reference = tff.learning.models.from_keras_model(model, loss, spec)
    output, (expected,) = reference_step(reference, {"x": x, "y": y})
    forward, (gradient,) = Converted(from_keras(model, loss)).step({"x": x, "y": y})
    assert_close(forward.objective, output.loss.numpy(), "loss")
    assert_close(gradient, expected.numpy(), "gradient")


def test_l1_of_a_weight_of_zero(tff):
    """`tf.abs` has no slope at 0, where biases start."""
    import tensorflow as tf

    keras = tf.keras
    layer = keras.layers.Dense(2, bias_regularizer=keras.regularizers.L1(0.5), input_shape=(3,))
    model = keras.Sequential([layer])
    batch = {"x": np.zeros((4, 3), np.float32), "y": np.zeros((4, 2), np.float32)}
    spec = {name: tf.TensorSpec((None, *a.shape[1:]), a.dtype) for name, a in batch.items()}
    loss = keras.losses.MeanAbsoluteError()
    reference = tff.learning.models.from_keras_model(model, loss, spec)
    _, expected = reference_step(reference, batch)
    _, gradients = Converted(from_keras(model, loss)).step(batch)
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())
