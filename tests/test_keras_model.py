"""Keras models as `Model`s: against Keras 3 itself, against NumPy, and configs of Keras 2.14."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fedbridge.jax_core import ArgumentError, ModelError, ModelWeights
from fedbridge.tff_io import (
    as_functional,
    describe_keras,
    from_keras,
    from_keras_config,
    random_layers,
)

keras = pytest.importorskip("keras")
layers = keras.layers

# Keras 3 and the converted model run the same float32 operations, in an order of their own.
TOLERANCE = {"rtol": 2e-6, "atol": 2e-6}
ROWS = 12
CONFIGS = Path(__file__).parent / "keras_2_14"


@pytest.fixture(autouse=True)
def _keras_broadcasts():
    """Keras adds a bias to a matrix; the converted models, in `strict`, do without."""
    with jax.numpy_rank_promotion("allow"):
        yield


def strict(function):
    """The function, with ranks never promoted."""

    def strictly(*args):
        with jax.numpy_rank_promotion("raise"):
            return function(*args)

    return strictly


def dense_net():
    model = keras.Sequential(
        [
            layers.Input((6, 6, 1)),
            layers.Flatten(),
            layers.Dense(8, "relu", kernel_regularizer=keras.regularizers.L2(0.05)),
            layers.Dense(4, "softmax", bias_regularizer=keras.regularizers.L1L2(0.02, 0.03)),
        ]
    )
    return model, (6, 6, 1)


def convolutional_net():
    model = keras.Sequential(
        [
            layers.Input((36,)),
            layers.Reshape((6, 6, 1)),
            layers.Rescaling(2.0, offset=-1.0),
            layers.Conv2D(4, 3, padding="same", kernel_regularizer=keras.regularizers.L1(0.01)),
            layers.MaxPooling2D(3, strides=2, padding="same"),
            layers.ReLU(max_value=6.0),
            layers.Dropout(0.5),
            layers.Conv2D(4, (2, 1), groups=2, strides=(1, 2), activation="tanh"),
            layers.AveragePooling2D((2, 1), padding="same"),
            layers.GlobalAveragePooling2D(),
            keras.Sequential([layers.Dense(4, use_bias=False), layers.Softmax()]),
        ]
    )
    return model, (36,)


def functional_net():
    x = layers.Input((5,))
    shared = layers.Dense(5, "tanh", kernel_regularizer="l2")
    inner = keras.Model(x, layers.Dense(5, layers.LeakyReLU(), trainable=False)(x))
    total = layers.Add()([shared(x), shared(shared(x)), inner(x)])
    joined = layers.Concatenate()([total, layers.Activation("swish")(x)])
    return keras.Model(x, layers.Dense(4, "softmax")(joined)), (5,)


NETS = [dense_net, convolutional_net, functional_net]


class Case:
    """A Keras 3 model with random biases, and its conversion."""

    def __init__(self, net):
        keras.utils.set_random_seed(3)
        rng = np.random.default_rng(5)
        self.keras_model, shape = net()
        for weight in self.keras_model.weights:
            if len(weight.shape) == 1:
                weight.assign(rng.normal(scale=0.1, size=weight.shape))
        self.loss = keras.losses.SparseCategoricalCrossentropy()
        metrics = [keras.metrics.SparseCategoricalAccuracy(name="acc")]
        self.model = from_keras(self.keras_model, self.loss, metrics)
        self.batch = {
            "x": rng.normal(size=(ROWS, *shape)).astype(np.float32),
            "y": rng.integers(0, 4, ROWS).astype(np.int32),
        }

        def step(trainable, batch, mask):
            def objective(trainable):
                weights = self.model.initial_weights._replace(trainable=trainable)
                forward = self.model.forward(weights, batch, mask, jax.random.key(0), False)
                return forward.objective, forward

            return jax.grad(objective, has_aux=True)(trainable)

        self.step = strict(jax.jit(step))

    @property
    def trainable(self):
        return self.model.initial_weights.trainable


@pytest.fixture(scope="module", params=NETS, ids=lambda net: net.__name__)
def case(request):
    return Case(request.param)


def test_weights_keep_keras_order(case):
    converted = case.model.initial_weights
    for ours, theirs in (
        (converted.trainable, case.keras_model.trainable_weights),
        (converted.non_trainable, case.keras_model.non_trainable_weights),
    ):
        for array, weight in zip(ours, theirs, strict=True):
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, np.asarray(weight.value))


def test_predictions_loss_and_gradients_are_keras(case):
    model, batch = case.keras_model, case.batch
    trainable = [weight.value for weight in model.trainable_weights]
    frozen = [variable.value for variable in model.non_trainable_variables]

    @jax.jit
    @jax.grad
    def keras_gradient(trainable):
        predictions, _, losses = model.stateless_call(
            trainable, frozen, batch["x"], training=False, return_losses=True
        )
        return case.loss(batch["y"], predictions) + sum(losses)

    gradients, forward = case.step(case.trainable, batch, None)
    predictions = model(batch["x"], training=False)
    np.testing.assert_allclose(forward.predictions, predictions, **TOLERANCE)
    np.testing.assert_allclose(forward.metric_loss, case.loss(batch["y"], predictions), **TOLERANCE)
    penalty = sum((float(loss) for loss in model.losses), 0.0)
    assert float(forward.objective - forward.metric_loss) == pytest.approx(penalty, rel=1e-5)
    for ours, theirs in zip(gradients, keras_gradient(trainable), strict=True):
        np.testing.assert_allclose(ours, theirs, **TOLERANCE)


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_padding_changes_nothing(case, data):
    """A padded batch with its mask is the batch, in objective, loss, metrics and gradient."""
    real = data.draw(st.sampled_from([1, 5, ROWS - 1]), label="real")  # each compiles
    rows = np.array(data.draw(st.permutations(range(ROWS)), label="order"))
    repeat = np.concatenate([rows[:real], rows[np.arange(ROWS - real) % real]])
    mask = jnp.arange(ROWS) < real
    alone = jax.tree.map(lambda leaf: leaf[rows[:real]], case.batch)
    padded = jax.tree.map(lambda leaf: leaf[repeat], case.batch)
    expected_gradients, expected = case.step(case.trainable, alone, None)
    gradients, forward = case.step(case.trainable, padded, mask)
    np.testing.assert_allclose(forward.objective, expected.objective, **TOLERANCE)
    np.testing.assert_allclose(forward.metric_loss, expected.metric_loss, **TOLERANCE)
    assert int(forward.num_examples) == int(expected.num_examples) == real
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, **TOLERANCE)
    for metric in case.model.metrics.values():
        with_padding = metric.update(metric.zero(), padded, forward, mask)
        without = metric.update(metric.zero(), alone, expected, None)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), with_padding, without
        )


def test_a_batch_of_nothing_but_padding_counts_for_nothing(case):
    gradients, forward = case.step(case.trainable, case.batch, jnp.zeros(ROWS, bool))
    assert forward.metric_loss == 0
    assert forward.num_examples == 0
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    for metric in case.model.metrics.values():
        seen = metric.update(metric.zero(), case.batch, forward, jnp.zeros(ROWS, bool))
        jax.tree.map(np.testing.assert_array_equal, seen, metric.zero())
        assert metric.finalize(seen) == 0


def test_metrics_come_in_tffs_order(case):
    assert list(case.model.metrics) == ["acc", "loss", "num_examples", "num_batches"]


def test_the_users_counters_are_not_doubled():
    model = keras.Sequential([layers.Input((2,)), layers.Dense(1)])
    mine = keras.metrics.MeanAbsoluteError(name="num_batches")
    converted = from_keras(model, keras.losses.MeanSquaredError(), [mine])
    assert list(converted.metrics) == ["num_batches", "loss", "num_examples"]


def test_dropout_draws_only_in_training():
    model = keras.Sequential([layers.Input((1000,)), layers.Dropout(0.25, name="drop")])
    converted = from_keras(model, keras.losses.MeanSquaredError())
    batch = {"x": np.ones((8, 1000), np.float32), "y": np.ones((8, 1000), np.float32)}

    def predictions(seed, training):
        key = jax.random.key(seed)
        return converted.forward(converted.initial_weights, batch, None, key, training).predictions

    np.testing.assert_array_equal(predictions(0, False), batch["x"])
    once = predictions(0, True)
    assert set(np.unique(once)) == {np.float32(0.0), np.float32(1 / 0.75)}
    assert np.mean(once == 0) == pytest.approx(0.25, abs=0.03)  # 8000 draws: 6 deviations
    np.testing.assert_array_equal(once, predictions(0, True))
    assert (np.asarray(once) != np.asarray(predictions(1, True))).any()
    assert random_layers(model.get_config()) == ["drop"]


def test_two_dropouts_draw_for_themselves():
    model = keras.Sequential([layers.Input((64,)), layers.Dropout(0.5), layers.Dropout(0.5)])
    converted = from_keras(model, keras.losses.MeanSquaredError())
    batch = {"x": np.ones((64, 64), np.float32), "y": np.ones((64, 64), np.float32)}
    out = converted.forward(converted.initial_weights, batch, None, jax.random.key(0), True)
    assert np.mean(np.asarray(out.predictions) == 0) == pytest.approx(0.75, abs=0.05)


# ---- configs of Keras 2.14, written by it, with its own predictions ----


@pytest.mark.parametrize("name", ["sequential", "functional"])
def test_a_config_of_keras_2_14_needs_no_keras(name):
    recorded = json.loads((CONFIGS / f"{name}.json").read_text())
    weights = ModelWeights([np.asarray(w, np.float32) for w in recorded["trainable"]], [])
    model = from_keras_config(**recorded["model"], loss=recorded["loss"], weights=weights)
    x = [np.asarray(one, np.float32) for one in recorded["x"]]
    batch = {"x": x if len(x) > 1 else x[0], "y": np.asarray(recorded["y"])}
    forward = strict(model.forward)(model.initial_weights, batch, None, jax.random.key(0), False)
    np.testing.assert_allclose(forward.predictions, recorded["predictions"], **TOLERANCE)
    np.testing.assert_allclose(forward.metric_loss, recorded["loss_value"], **TOLERANCE)


def test_several_inputs_by_order_name_or_flat_feature():
    recorded = json.loads((CONFIGS / "functional.json").read_text())
    weights = ModelWeights([np.asarray(w, np.float32) for w in recorded["trainable"]], [])
    model = from_keras_config(**recorded["model"], loss=recorded["loss"], weights=weights)
    a, b = (np.asarray(one, np.float32) for one in recorded["x"])
    y = np.asarray(recorded["y"])

    def loss(batch):
        return model.forward(model.initial_weights, batch, None, None, False).metric_loss

    for batch in (
        {"x": [a, b], "y": y},
        {"x": {"b": b, "a": a}, "y": y},
        {"x/b": b, "x/a": a, "y": y},
        {"x/1": b, "x/0": a, "y": y},
    ):
        np.testing.assert_allclose(loss(batch), recorded["loss_value"], **TOLERANCE)
    with pytest.raises(ModelError, match='"x" holds 1 arrays; the model takes a, b'):
        loss({"x": a, "y": y})
    with pytest.raises(ModelError, match='no "y".*map_batches'):
        loss({"x": [a, b], "label": y})


# ---- losses against a transcription in NumPy ----

EPSILON = np.float64(np.float32(1e-7))
ONE = np.float64(np.float32(1) - np.float32(1e-7))


def numpy_sparse(y, out, from_logits):
    logits = out if from_logits else np.log(np.clip(out, EPSILON, ONE))
    logits = logits - logits.max(-1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(logs, y[..., None], -1)[..., 0]


def numpy_categorical(y, out, from_logits, smoothing=0.0):
    y = y * (1 - smoothing) + smoothing / y.shape[-1]
    if from_logits:
        logits = out - out.max(-1, keepdims=True)
        return -(y * (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))).sum(-1)
    return -(y * np.log(np.clip(out / out.sum(-1, keepdims=True), EPSILON, ONE))).sum(-1)


def numpy_binary(y, out, from_logits, smoothing=0.0):
    y = y * (1 - smoothing) + smoothing / 2
    if from_logits:
        return (np.maximum(out, 0) - out * y + np.log1p(np.exp(-np.abs(out)))).mean(-1)
    p = np.clip(out, EPSILON, ONE)
    return -(y * np.log(p + 1e-7) + (1 - y) * np.log(1 - p + 1e-7)).mean(-1)


def loss_of(loss, y, predictions, mask=None):
    """The loss of a model that hands its input on."""
    identity = {"class_name": "Activation", "config": {"name": "out", "activation": "linear"}}
    model = from_keras_config(
        "Sequential",
        {"name": "identity", "layers": [identity]},
        loss=describe_keras(loss),
        weights=ModelWeights([], []),
    )
    batch = {"x": np.asarray(predictions, np.float32), "y": y}
    return strict(model.forward)(model.initial_weights, batch, mask, None, False).objective


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_losses_against_numpy(from_logits, scale):
    rng = np.random.default_rng(2)
    logits = scale * rng.normal(size=(9, 4)).astype(np.float32)
    y = rng.integers(0, 4, 9)
    one_hot = np.eye(4)[y]
    softmax = np.asarray(jax.nn.softmax(logits)).astype(np.float64)
    sigmoid = np.asarray(jax.nn.sigmoid(logits)).astype(np.float64)
    out, binary_out = (logits, logits) if from_logits else (softmax, sigmoid)
    losses = keras.losses
    close = {"rtol": 3e-6}
    np.testing.assert_allclose(
        loss_of(losses.SparseCategoricalCrossentropy(from_logits=from_logits), y, out),
        numpy_sparse(y, out, from_logits).mean(),
        **close,
    )
    for smoothing in (0.0, 0.1):
        arguments = {"from_logits": from_logits, "label_smoothing": smoothing}
        np.testing.assert_allclose(
            loss_of(losses.CategoricalCrossentropy(**arguments, reduction="sum"), one_hot, out),
            numpy_categorical(one_hot, out, from_logits, smoothing).sum(),
            **close,
        )
        np.testing.assert_allclose(
            loss_of(losses.BinaryCrossentropy(**arguments), one_hot, binary_out),
            numpy_binary(one_hot, binary_out, from_logits, smoothing).mean(),
            **close,
        )


def test_saturated_probabilities_have_no_gradient():
    """The loss is capped at -log(1e-7); the right and the wrong row both have a gradient of 0."""
    loss = keras.losses.SparseCategoricalCrossentropy()

    def of_logits(logits):
        return loss_of_jax(loss, np.array([0, 1]), jax.nn.softmax(logits))

    logits = jnp.array([[60.0, 0.0, 0.0], [60.0, 0.0, 0.0]])
    value, gradient = jax.value_and_grad(of_logits)(logits)
    assert float(value) == pytest.approx(-np.log(1e-7) / 2, rel=1e-5)
    np.testing.assert_array_equal(gradient, 0.0)


def loss_of_jax(loss, y, predictions):
    from fedbridge.tff_io._keras_loss_table import loss_function

    return loss_function(describe_keras(loss))(jnp.asarray(y), predictions, None)


@pytest.mark.parametrize("label", [-1, 4])
@pytest.mark.parametrize("from_logits", [False, True])
def test_a_label_that_is_no_class_gives_nan(label, from_logits):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    y, out = np.array([0, label]), jnp.full((2, 4), 0.25)
    value, gradient = jax.value_and_grad(lambda out: loss_of_jax(loss, y, out))(out)
    assert np.isnan(value)
    assert np.isnan(gradient).any()


@pytest.mark.parametrize(
    ("labels", "predictions", "fits"),
    [
        ((6,), (6, 1), True),
        ((6, 1), (6, 1), True),
        ((6, 1), (6,), True),
        ((6, 1), (6, 3), True),
        ((6, 3), (6, 3), True),
        ((6,), (6, 3), False),
        ((6, 2), (6, 3), False),
    ],
)
def test_shapes_of_labels(labels, predictions, fits):
    """Keras drops a last dimension of 1 and broadcasts; anything else is refused."""
    rng = np.random.default_rng(4)
    y, out = rng.normal(size=labels), rng.normal(size=predictions)
    loss = keras.losses.MeanSquaredError()
    if not fits:
        with pytest.raises(ModelError, match=r"labels of shape .* do not fit predictions"):
            loss_of(loss, y, out)
        return
    expected = np.mean((y.reshape(6, -1) - out.reshape(6, -1)) ** 2)
    np.testing.assert_allclose(loss_of(loss, y, out), expected, rtol=1e-6)
    mask = jnp.arange(6) < 4
    expected = np.mean((y[:4].reshape(4, -1) - out[:4].reshape(4, -1)) ** 2)
    np.testing.assert_allclose(loss_of(loss, y, out, mask), expected, rtol=1e-6)


# ---- refusals ----


def dense(**config):
    return {"class_name": "Dense", "config": {"name": "dense", "units": 2, **config}}


def layer_spec(class_name, **config):
    return {"class_name": class_name, "config": {"name": "it", **config}}


MSE = {"class_name": "MeanSquaredError", "config": {"name": "mse"}}


def build(*specs, loss=MSE, metrics=(), weights=None):
    weights = weights or ModelWeights([np.zeros((3, 2)), np.zeros(2)], [])
    config = {"name": "m", "layers": list(specs)}
    return from_keras_config("Sequential", config, loss=loss, metrics=metrics, weights=weights)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (layer_spec("ConvLSTM2D"), r'layer "it" .*ConvLSTM2D.*supported: Activation, Add'),
        (dense() | {"module": "my.code"}, r'layer "dense" .*custom class Dense'),
        (dense() | {"registered_name": "mine>Dense"}, "custom class Dense"),
        (dense(activation="sparsemax"), r'"dense" \(Dense\).*sparsemax.*supported: elu'),
        (dense(activation={"class_name": "function", "config": "f"}), "activation 'f'"),
        (dense(kernel_regularizer=layer_spec("OrthogonalRegularizer")), "OrthogonalReg.*L1, L1L2"),
        (dense(activity_regularizer={"class_name": "L2", "config": {}}), "activity_regularizer=L2"),
        (dense(lora_rank=4), "lora_rank=4.*supported arguments: activation"),
        (dense(dtype="mixed_float16"), "computes in mixed_float16; supported: float32"),
        (layer_spec("MaxPooling2D", data_format="channels_first"), "channels_first.*channels_last"),
        (layer_spec("MaxPooling2D", padding="causal"), "padding='causal'"),
        (layer_spec("Dropout", rate=0.5, noise_shape=[1, 2]), "noise_shape"),
        (layer_spec("InputLayer", batch_shape=[None, 3], ragged=True), "ragged"),
        (layer_spec("InputLayer", batch_shape=[None, 3], dtype="float64"), "float64"),
    ],
)
def test_layers_that_are_refused_by_name(spec, words):
    with pytest.raises(ModelError, match=words):
        build(spec)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (layer_spec("CTC"), 'loss "it" .*CTC.*BinaryCrossentropy, Categorical'),
        (layer_spec("MeanSquaredError", reduction="none"), "reduction='none'.*supported: auto"),
        (layer_spec("MeanSquaredError", reduction=None), "reduction=None"),
        (layer_spec("CategoricalCrossentropy", axis=1), "axis=1"),
        (layer_spec("BinaryCrossentropy", ignore_class=0), "ignore_class=0"),
    ],
)
def test_losses_that_are_refused(loss, words):
    with pytest.raises(ModelError, match=words):
        build(dense(), loss=loss)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (layer_spec("MeanRelativeError"), 'metric "it" .*MeanRelativeError.*supported: AUC'),
        (layer_spec("Accuracy", dtype="float64"), "float64"),
        (layer_spec("Accuracy") | {"module": "__main__"}, "custom class Accuracy"),
    ],
)
def test_metrics_that_are_refused(metric, words):
    with pytest.raises(ModelError, match=words):
        build(dense(), metrics=[metric])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ([np.zeros((3, 2))], "2 trainable weights, but 1"),
        ([np.zeros(2), np.zeros((3, 2))], 'kernel of layer "dense" has the shape'),
        ([np.zeros((3, 4)), np.zeros(4)], "kernel of layer"),
    ],
)
def test_weights_that_do_not_fit(arrays, words):
    with pytest.raises(ModelError, match=words):
        build(dense(), weights=ModelWeights(arrays, []))


def test_a_batch_of_another_shape_is_refused():
    model = build(layer_spec("InputLayer", batch_shape=[None, 3]), dense())
    batch = {"x": np.zeros((4, 7), np.float32), "y": np.zeros((4, 2))}
    with pytest.raises(ModelError, match=r"shape \(4, 7\); the model's input is \(None, 3\)"):
        model.forward(model.initial_weights, batch, None, None, False)


def test_functional_models_that_are_refused():
    model = build(layer_spec("InputLayer", batch_shape=[None, 3]), dense())
    with pytest.raises(ArgumentError, match="names is 'hits'"):
        as_functional(model, "hits")
    with pytest.raises(ModelError, match="4 names for 3 metrics"):
        as_functional(model, ["a", "b", "c", "d"])
    with pytest.raises(ModelError, match="weights are in a dict"):
        as_functional(model._replace(initial_weights=ModelWeights({})))


def test_models_that_are_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    loss = keras.losses.MeanSquaredError()
    with pytest.raises(ModelError, match="Sequential"):
        from_keras(Own(), loss)
    with pytest.raises(ModelError, match="2 trainable weights, but 0"):
        from_keras(keras.Sequential([layers.Dense(2)]), loss)
    with pytest.raises(ModelError, match="no Keras object with a config"):
        from_keras(keras.Sequential([layers.Input((3,)), layers.Dense(2)]), "mse")
    x = layers.Input((3,))
    with pytest.raises(ModelError, match='"it" is called with training=True'):
        from_keras(keras.Model(x, layers.Dropout(0.5, name="it")(x, training=True)), loss)
    inner = keras.Model(x, layers.Dense(3)(x), name="inner")
    with pytest.raises(ModelError, match='inner model "inner" is called 2 times'):
        from_keras(keras.Model(x, inner(inner(x))), loss)
    two = keras.Model(x, [layers.Dense(1)(x), layers.Dense(2)(x)])
    with pytest.raises(ModelError, match="1 losses .* 2 outputs"):
        from_keras(two, loss)
    with pytest.raises(ModelError, match="loss_weights go with a list"):
        from_keras(inner, loss, loss_weights=[1.0])
