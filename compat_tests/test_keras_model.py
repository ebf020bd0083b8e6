"""Converted Keras models against TFF's own: forward pass, gradients, metrics, weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedbridge.jax_core import ModelError
from fedbridge.tff_io import from_keras, ignore_constraints, random_layers

# Both sides compute in float32 and add in their own order: a relative error of a few units in the
# last place (6e-8 each) per operation, at most some ten of them behind each other in these models.
TOLERANCE = 1e-6
ROWS = 24


def images(rng, rows=ROWS):
    return rng.integers(0, 256, (rows, 8, 8, 1)).astype(np.float32) / np.float32(255)


def classes(rng, rows=ROWS, number=5):
    return rng.integers(0, number, rows).astype(np.int32)


def softmax_output(keras, rng):
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(16, "relu"),
            layers.Dense(5, "softmax"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy()
    return model, loss, [keras.metrics.SparseCategoricalAccuracy()], images(rng), classes(rng)


def logits(keras, rng):
    layers = keras.layers
    model = keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(5)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="acc")]
    return model, loss, metrics, images(rng), classes(rng)[:, None]


def convolutions(keras, rng):
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Reshape((8, 8, 1), input_shape=(64,)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Conv2D(8, (3, 2), activation="relu", strides=(1, 2), groups=2),
            layers.Flatten(),
            layers.Dense(5),
            layers.Softmax(),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy()
    x = images(rng).reshape(ROWS, 64)
    return model, loss, [keras.metrics.SparseCategoricalAccuracy()], x, classes(rng)


def pools_with_ties(keras, rng):
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((9, 9, 1)),
            layers.Conv2D(4, 3, padding="same", dilation_rate=2),
            layers.MaxPooling2D(3, strides=2, padding="same"),
            layers.AveragePooling2D(2, padding="same"),
            layers.Conv2D(6, 1, use_bias=False),
            layers.GlobalMaxPooling2D(keepdims=True),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5),
        ]
    )
    # Large black areas: whole windows tie, and which pixel gets the gradient shows.
    x = (rng.random((ROWS, 9, 9, 1)) < 0.1).astype(np.float32)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    metrics = [keras.metrics.CategoricalAccuracy(), keras.metrics.CategoricalAccuracy("again")]
    return model, loss, metrics, x, np.eye(5, dtype=np.float32)[classes(rng)]


def multi_label(keras, rng):
    layers = keras.layers
    model = keras.Sequential([layers.Dense(7, "sigmoid", input_shape=(12,))])
    loss = keras.losses.BinaryCrossentropy(reduction=keras.losses.Reduction.SUM)
    y = (rng.random((ROWS, 7)) < 0.3).astype(np.float32)
    metrics = [keras.metrics.BinaryAccuracy(threshold=0.4), keras.metrics.Accuracy()]
    return model, loss, metrics, rng.normal(size=(ROWS, 12)).astype(np.float32), y


def one_label_without_a_dimension(keras, rng):
    """Labels [batch], predictions [batch, 1]: the mean over the last axis is over the batch."""
    layers = keras.layers
    model = keras.Sequential([layers.Dense(1, input_shape=(12,))])
    loss = keras.losses.BinaryCrossentropy(
        from_logits=True, label_smoothing=0.2, reduction=keras.losses.Reduction.SUM
    )
    metrics = [keras.metrics.BinaryAccuracy(), keras.metrics.MeanAbsoluteError()]
    return (
        model,
        loss,
        metrics,
        rng.normal(size=(ROWS, 12)).astype(np.float32),
        classes(rng, ROWS, 2),
    )


def regression(keras, rng):
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Dense(9, "tanh", input_shape=(12,)),
            layers.Dense(9, "elu"),
            layers.Dense(9, "selu"),
            layers.Dense(9, "gelu"),
            layers.Dense(9, "swish"),
            layers.Dense(9, "softplus"),
            layers.Dense(9, "softsign"),
            layers.Dense(9, layers.LeakyReLU()),
            layers.ELU(alpha=0.5),
            layers.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.05),
            layers.Activation("relu6"),
            layers.Dense(3, "exponential"),
        ]
    )
    metrics = [keras.metrics.MeanSquaredError(), keras.metrics.MeanAbsoluteError()]
    y = rng.normal(size=(ROWS, 3)).astype(np.float32)
    x = rng.normal(size=(ROWS, 12)).astype(np.float32)
    return model, keras.losses.MeanSquaredError(), metrics, x, y


def regularized(keras, rng):
    layers, regularizers = keras.layers, keras.regularizers
    model = keras.Sequential(
        [
            layers.Dense(8, "sigmoid", input_shape=(12,), kernel_regularizer=regularizers.L2(0.05)),
            layers.Dense(8, "relu6", kernel_regularizer=regularizers.L1(0.01), trainable=False),
            layers.Dense(
                5,
                kernel_regularizer=regularizers.L1L2(0.01, 0.02),
                bias_regularizer="l2",
                kernel_constraint="non_neg",
            ),
        ]
    )
    x = rng.normal(size=(ROWS, 12)).astype(np.float32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return model, loss, [], x, classes(rng)


def functional(keras, rng):
    layers = keras.layers
    first = layers.Input((12,), name="first")
    second = layers.Input((12,), name="second")
    inner = keras.Sequential([layers.Dense(6, "relu", input_shape=(12,)), layers.Dense(6)])
    shared = layers.Dense(12, "tanh", kernel_regularizer="l2")
    sum_ = layers.Add()([shared(first), shared(second), shared(shared(first))])
    joined = layers.Concatenate()([sum_, second, inner(sum_)])
    model = keras.Model([first, second], layers.Dense(5, "softmax")(layers.Rescaling(0.5)(joined)))
    x = {
        "second": rng.normal(size=(ROWS, 12)).astype(np.float32),
        "first": rng.normal(size=(ROWS, 12)).astype(np.float32),
    }
    loss = keras.losses.CategoricalCrossentropy()
    y = np.eye(5, dtype=np.float32)[classes(rng)]
    return model, loss, [keras.metrics.CategoricalAccuracy()], x, y


def labels_that_sum_to_two(keras, rng):
    """TensorFlow's gradient is softmax - labels, whatever the labels sum to."""
    layers = keras.layers
    model = keras.Sequential([layers.Dense(5, input_shape=(12,))])
    y = 2 * np.eye(5, dtype=np.float32)[classes(rng)]
    x = rng.normal(size=(ROWS, 12)).astype(np.float32)
    return model, keras.losses.CategoricalCrossentropy(from_logits=True), [], x, y


def sequences(keras, rng):
    """A prediction for every place of a sequence."""
    layers = keras.layers
    model = keras.Sequential([layers.Dense(5, "softmax", input_shape=(4, 6))])
    x = rng.normal(size=(ROWS, 4, 6)).astype(np.float32)
    y = rng.integers(0, 5, (ROWS, 4)).astype(np.int64)
    loss = keras.losses.SparseCategoricalCrossentropy()
    return model, loss, [keras.metrics.SparseCategoricalAccuracy()], x, y


def sequences_with_places_that_do_not_count(keras, rng):
    model, _, _, x, y = sequences(keras, rng)
    y[:, 2:] = y[3] = -1
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    return model, loss, [], x, y


def saturated(keras, rng):
    """Logits of 60: probabilities are clipped, the loss ends at 16.1, the gradient is 0."""
    layers = keras.layers
    model = keras.Sequential([layers.Dense(5, "softmax", input_shape=(5,))])
    kernel = rng.normal(size=(5, 5)).astype(np.float32)
    kernel[:3] += 60 * np.eye(5, dtype=np.float32)[:3]
    model.layers[0].kernel.assign(kernel)
    x = np.eye(5, dtype=np.float32)[np.arange(ROWS) % 5]
    loss = keras.losses.SparseCategoricalCrossentropy()
    return model, loss, [keras.metrics.SparseCategoricalAccuracy], x, classes(rng)


def saturated_sigmoid(keras, rng):
    layers = keras.layers
    model = keras.Sequential([layers.Dense(3, "sigmoid", input_shape=(12,))])
    model.layers[0].kernel.assign(model.layers[0].kernel * 60.0)
    x = rng.normal(size=(ROWS, 12)).astype(np.float32)
    y = (rng.random((ROWS, 3)) < 0.5).astype(np.float32)
    return model, keras.losses.BinaryCrossentropy(), [keras.metrics.BinaryAccuracy], x, y


CASES = [
    softmax_output,
    logits,
    convolutions,
    pools_with_ties,
    multi_label,
    one_label_without_a_dimension,
    regression,
    regularized,
    functional,
    labels_that_sum_to_two,
    sequences,
    sequences_with_places_that_do_not_count,
    saturated,
    saturated_sigmoid,
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.__name__)
def case(request, tff):
    """A Keras model with random biases, what it learns from, and TFF's model of it."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(7)
    rng = np.random.default_rng(11)
    model, loss, metrics, x, y = request.param(tf.keras, rng)
    for weight in model.weights:
        if weight.shape.rank == 1:
            weight.assign(rng.normal(scale=0.1, size=weight.shape))
    converted = from_keras(model, loss, metrics, constraints=ignore_constraints)
    spec = {"x": x, "y": y}
    spec = tf.nest.map_structure(lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), spec)
    reference = tff.learning.models.from_keras_model(model, loss, spec, metrics=metrics)
    return model, reference, Converted(converted), {"x": x, "y": y}


class Converted:
    """A converted model with its step compiled: objective, forward and gradients."""

    def __init__(self, model):
        self.model = model

        def step(trainable, batch, mask):
            def objective(trainable):
                weights = model.initial_weights._replace(trainable=trainable)
                forward = model.forward(weights, batch, mask, jax.random.key(0), False)
                return forward.objective, forward

            return jax.grad(objective, has_aux=True)(trainable)

        self._step = jax.jit(step)

    def step(self, batch, mask=None):
        return self.from_weights(self.model.initial_weights.trainable, batch, mask)

    def from_weights(self, trainable, batch, mask=None):
        gradients, forward = self._step(trainable, batch, mask)
        return forward, gradients


def rows(batch, start, stop):
    return jax.tree.map(lambda leaf: leaf[start:stop], batch)


def assert_close(ours, theirs):
    """The largest error against the norm of the whole array."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    scale = max(np.linalg.norm(theirs), 1e-30) / max(np.sqrt(theirs.size), 1.0)
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE * scale * 4)


def padded(batch, real):
    """The first rows of a batch, padded to its size with repeated rows, and the mask."""
    repeat = np.arange(ROWS) % real
    return jax.tree.map(lambda leaf: leaf[repeat], batch), jnp.arange(ROWS) < real


def reference_step(model, batch):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        output = model.forward_pass(tf.nest.map_structure(tf.constant, batch), training=False)
    return output, tape.gradient(output.loss, model.trainable_variables)


def test_weights_come_in_keras_order(case):
    model, _, converted, _ = case
    for ours, theirs in zip(
        (
            *converted.model.initial_weights.trainable,
            *converted.model.initial_weights.non_trainable,
        ),
        (*model.trainable_variables, *model.non_trainable_variables),
        strict=True,
    ):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs.numpy())


def test_forward_pass_and_gradients(case):
    _, reference, converted, batch = case
    output, expected = reference_step(reference, batch)
    forward, gradients = converted.step(batch)
    assert_close(forward.predictions, output.predictions.numpy())
    assert_close(forward.objective, output.loss.numpy())
    assert int(forward.num_examples) == int(output.num_examples)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert_close(ours, theirs.numpy())


def test_padded_rows_change_nothing(case):
    _, reference, converted, batch = case
    output, expected = reference_step(reference, rows(batch, 0, 10))
    forward, gradients = converted.step(*padded(batch, 10))
    assert_close(forward.objective, output.loss.numpy())
    assert int(forward.num_examples) == 10
    for ours, theirs in zip(gradients, expected, strict=True):
        assert_close(ours, theirs.numpy())


def test_metrics_over_two_batches(case):
    _, reference, converted, batch = case
    metrics = converted.model.metrics
    reference.reset_metrics()
    seen = {name: metric.zero() for name, metric in metrics.items()}
    for real, ours, mask in ((ROWS, batch, None), (10, *padded(batch, 10))):
        reference_step(reference, rows(batch, 0, real))
        forward, _ = converted.step(ours, mask)
        for name, metric in metrics.items():
            seen[name] = metric.update(seen[name], ours, forward, mask)
    unfinalized = reference.report_local_unfinalized_metrics()
    values = {metric.name: metric.result().numpy() for metric in reference.get_metrics()}
    assert list(metrics) == list(unfinalized)
    for name, theirs in unfinalized.items():
        ours = jax.tree.leaves(seen[name])
        for mine, variable in zip(ours, theirs, strict=True):
            assert_close(mine, variable.numpy())
        value = metrics[name].finalize(seen[name])
        assert_close(value, values[name])
    for name in ("num_examples", "num_batches"):
        assert int(seen[name]) == {"num_examples": ROWS + 10, "num_batches": 2}[name]


def test_dropout_is_the_only_random_layer(case):
    model, _, _, _ = case
    names = [layer.name for layer in model.layers if "Dropout" in type(layer).__name__]
    assert random_layers(model.get_config()) == names


@pytest.mark.parametrize("label", [-1, 5])
@pytest.mark.parametrize("from_logits", [False, True])
def test_a_label_that_is_no_class(tff, label, from_logits):
    """TensorFlow stops with an error; the JAX core gives NaN, so that the client does not count."""
    import tensorflow as tf

    keras = tf.keras
    model = keras.Sequential([keras.layers.Dense(5, "softmax", input_shape=(3,))])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    batch = {"x": np.ones((2, 3), np.float32), "y": np.array([1, label], np.int32)}
    spec = {"x": tf.TensorSpec((None, 3), tf.float32), "y": tf.TensorSpec((None,), tf.int32)}
    reference = tff.learning.models.from_keras_model(model, loss, spec)
    with pytest.raises(tf.errors.InvalidArgumentError, match="outside the valid range"):
        reference_step(reference, batch)
    forward, gradients = Converted(from_keras(model, loss)).step(batch)
    assert np.isnan(forward.objective)
    assert all(np.isnan(gradient).any() for gradient in gradients)


def test_a_subclassed_model_is_refused(tff):
    import tensorflow as tf

    class Own(tf.keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ModelError, match="Sequential"):
        from_keras(Own(), tf.keras.losses.MeanSquaredError())


def test_own_classes_are_refused_by_name(tff):
    import tensorflow as tf

    class Dense(tf.keras.layers.Dense):
        pass

    class Accuracy(tf.keras.metrics.Accuracy):
        pass

    own = tf.keras.Sequential([Dense(3, input_shape=(2,))])
    loss = tf.keras.losses.MeanSquaredError()
    with pytest.raises(ModelError, match="custom class Dense.*supported: Activation"):
        from_keras(own, loss)
    plain = tf.keras.Sequential([tf.keras.layers.Dense(3, input_shape=(2,))])
    with pytest.raises(ModelError, match="custom class Accuracy.*supported: AUC, Accuracy"):
        from_keras(plain, loss, [Accuracy()])


def test_a_loss_for_each_output(tff):
    import tensorflow as tf

    keras = tf.keras
    x = keras.Input((4,))
    model = keras.Model(x, [keras.layers.Dense(3)(x), keras.layers.Dense(2, "sigmoid")(x)])
    losses = [keras.losses.MeanSquaredError(), keras.losses.BinaryCrossentropy()]
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.normal(size=(6, 4)).astype(np.float32),
        "y": [rng.normal(size=(6, 3)).astype(np.float32), np.ones((6, 2), np.float32)],
    }
    spec = tf.nest.map_structure(lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), batch)
    reference = tff.learning.models.from_keras_model(model, losses, spec, loss_weights=[0.5, 2.0])
    output, expected = reference_step(reference, batch)
    converted = Converted(from_keras(model, losses, loss_weights=[0.5, 2.0]))
    forward, gradients = converted.step(batch)
    assert_close(forward.objective, output.loss.numpy())
    for ours, theirs in zip(gradients, expected, strict=True):
        assert_close(ours, theirs.numpy())
