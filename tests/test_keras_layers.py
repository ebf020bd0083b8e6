"""Keras' layers one by one, against Keras 3 itself: outputs, gradients, padding, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedbridge.jax_core import ModelError, ModelWeights
from fedbridge.tff_io import (
    from_keras,
    from_keras_config,
    ignore_constraints,
    random_layers,
)

keras = pytest.importorskip("keras")
layers = keras.layers

# Keras 3 and the converted model run the same float32 operations, in an order of their own; the
# error is relative to the largest entry.
TOLERANCE = 3e-6
ROWS, STEPS = 12, 6


def words(rng):
    """Sentences of ids below 11, padded with 0: some empty, some with a hole, some full."""
    ids = rng.integers(1, 11, (ROWS, STEPS))
    ids[np.arange(STEPS) >= rng.integers(0, STEPS + 1, ROWS)[:, None]] = 0
    ids[3:6] = rng.integers(0, 3, (3, STEPS))
    ids[0], ids[1] = 7, 0
    return ids.astype(np.int32)


def filled(rng):
    """Sentences that begin with a word: from a given state Keras 3 begins otherwise."""
    ids = words(rng)
    ids[:, 0] = 5
    return ids


def steps(rng):
    x = rng.normal(size=(ROWS, STEPS, 3)).astype(np.float32)
    x[rng.random((ROWS, STEPS)) < 0.3] = 0.0
    return x


def embedded(*rest, **config):
    return [layers.Input((STEPS,)), layers.Embedding(11, 4, **config), *rest], words


def next_word():
    return embedded(layers.LSTM(5, return_sequences=True), layers.Dense(3), mask_zero=True)


def two_lstms():
    return embedded(
        layers.LSTM(5, return_sequences=True, go_backwards=True, recurrent_regularizer="l2"),
        layers.LSTM(4, "softplus", "softsign", use_bias=False, kernel_regularizer="l1"),
        mask_zero=True,
        embeddings_regularizer="l2",
    )


def masking():
    net = [
        layers.Input((STEPS, 3)),
        layers.Masking(),
        layers.LSTM(5, return_sequences=True, zero_output_for_mask=True, unroll=True),
        layers.Activation("tanh"),
        layers.LSTM(5),
    ]
    return net, steps


def grus():
    return embedded(
        layers.GRU(5, "hard_sigmoid", "hard_sigmoid", return_sequences=True, bias_regularizer="l2"),
        layers.GRU(4, reset_after=False, return_sequences=True, go_backwards=True),
        layers.GRU(4, "relu", "softsign", use_bias=False, return_sequences=True),
        layers.SimpleRNN(4, return_sequences=True, unroll=True),
        layers.SimpleRNN(3, activation="softsign", use_bias=False),
        mask_zero=True,
    )


def bidirectional():
    x = layers.Input((STEPS,))
    known = layers.Embedding(11, 4, mask_zero=True)(x)
    ahead, back = layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode=None)(known)
    mean = layers.Average()([ahead, back, layers.Dense(3)(known)])
    merged = layers.Bidirectional(
        layers.LSTM(4, return_sequences=True),
        merge_mode="mul",
        backward_layer=layers.LSTM(4, "softplus", return_sequences=True, go_backwards=True),
    )(mean)
    added = layers.Bidirectional(layers.SimpleRNN(4), merge_mode="sum")(merged)
    joined = layers.Bidirectional(layers.SimpleRNN(2))(merged)
    return keras.Model(x, layers.Concatenate()([added, joined])), words


def states():
    """An encoder and a decoder; each step of the decoder's output goes through one Dense."""
    x = layers.Input((STEPS,))
    known = layers.Embedding(11, 4, mask_zero=True)(x)
    encoded, h, c = layers.LSTM(3, return_sequences=True, return_state=True)(known)
    decoded = layers.LSTM(3, return_sequences=True)(known, initial_state=[h, c])
    gru = layers.GRU(3, return_sequences=True, zero_output_for_mask=True)(decoded, initial_state=h)
    out = layers.TimeDistributed(layers.Dense(2, "tanh", kernel_regularizer="l2"))(gru)
    return keras.Model(x, layers.Concatenate()([out, encoded])), filled


def images():
    net = [
        layers.Input((6, 5, 3)),
        layers.ZeroPadding2D(((1, 0), (2, 1))),
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
        layers.Flatten(),
        layers.Dense(3),
    ]
    return net, lambda rng: rng.normal(size=(ROWS, 6, 5, 3)).astype(np.float32)


def series():
    net = [
        layers.Input((STEPS, 3)),
        layers.ZeroPadding1D((2, 1)),
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
    ]
    return net, steps


def merges():
    x = layers.Input((STEPS, 3))
    a, b, c = (layers.Dense(4, "tanh")(x) for _ in range(3))
    summed = layers.Add()([layers.Multiply()([a, b]), layers.Subtract()([b, c])])
    extremes = layers.Average()([layers.Maximum()([a, b, c]), layers.Minimum()([b, c])])
    similar = layers.Dot((2, 2), normalize=True)([summed, extremes])
    vector = layers.GlobalAveragePooling1D()(c)
    weighted = layers.Dot((1, 1))([similar, extremes])
    number = layers.Dot(1)([vector, layers.GlobalMaxPooling1D()(a)])
    scaled = layers.Multiply()([layers.GlobalMaxPooling1D()(weighted), number])
    out = layers.Concatenate(axis=1)([layers.Flatten()(weighted), scaled])
    return keras.Model(x, out), steps


NETS = [next_word, two_lstms, masking, grus, bidirectional, states, images, series, merges]


class Case:
    """A Keras 3 model with random vectors, its conversion, and a batch."""

    def __init__(self, net):
        keras.utils.set_random_seed(3)
        rng = np.random.default_rng(5)
        parts, inputs = net()
        model = parts if isinstance(parts, keras.Model) else keras.Sequential(parts)
        for weight in model.weights:  # zeros and ones tell nothing apart
            weight.assign(weight + rng.normal(scale=0.2, size=weight.shape))
        self.loss = keras.losses.MeanSquaredError()
        self.keras_model, self.model = model, from_keras(model, self.loss)
        y = rng.normal(size=(ROWS, *model.output_shape[1:])).astype(np.float32)
        self.batch = {"x": inputs(rng), "y": y}

        def step(trainable, batch, mask):
            def objective(trainable):
                weights = self.model.initial_weights._replace(trainable=trainable)
                forward = self.model.forward(weights, batch, mask, jax.random.key(0), True)
                return forward.objective, forward

            return jax.grad(objective, has_aux=True)(trainable)

        self.step = jax.jit(step)
        self.trainable = self.model.initial_weights.trainable


@pytest.fixture(scope="module", params=NETS, ids=lambda net: net.__name__)
def case(request):
    with jax.numpy_rank_promotion("allow"):  # Keras adds a bias to a matrix
        return Case(request.param)


def assert_close(ours, theirs, scale=0.0):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= TOLERANCE * max(np.abs(theirs).max(), scale, 1e-30)


def gradients_of(case, rows, batch=None):
    """The gradients and the result for the first or last rows of a batch, the others masked."""
    return case.step(case.trainable, batch or case.batch, jnp.asarray(rows))


def test_outputs_and_gradients_are_keras(case):
    model, batch = case.keras_model, case.batch
    frozen = [variable.value for variable in model.non_trainable_variables]

    @jax.jit
    def keras_step(trainable):
        def objective(trainable):
            predictions, _, penalties = model.stateless_call(
                trainable, frozen, batch["x"], training=False, return_losses=True
            )
            # Not Keras' loss, which looks for a mask: TFF's has none.
            return jnp.mean((predictions - batch["y"]) ** 2) + sum(penalties), predictions

        return jax.grad(objective, has_aux=True)(trainable)

    with jax.numpy_rank_promotion("allow"):
        expected, predictions = keras_step([w.value for w in model.trainable_weights])
    gradients, forward = gradients_of(case, np.ones(ROWS, bool))
    assert_close(forward.predictions, predictions)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert_close(ours, theirs)


def test_padding_changes_nothing(case):
    """What stands in masked rows is all the same, and two parts of a batch make the whole."""
    first = np.arange(ROWS) < 5
    here, forward = gradients_of(case, first)
    again = np.where(first, np.arange(ROWS), 11 - np.arange(ROWS))
    other, repeated = gradients_of(case, first, {k: leaf[again] for k, leaf in case.batch.items()})
    assert_close(repeated.objective, forward.objective)
    there, _ = gradients_of(case, ~first)
    whole, _ = gradients_of(case, np.ones(ROWS, bool))
    for ours, same, rest, both in zip(here, other, there, whole, strict=True):
        assert_close(same, ours)
        assert_close((5 * ours + 7 * rest) / 12, both, scale=np.abs(ours).max())


def test_clients_side_by_side_and_in_a_loop():
    """`vmap` over weights and rows, inside a loop, gives what single steps give."""
    with jax.numpy_rank_promotion("allow"):
        case = Case(two_lstms)
    clients = {name: jnp.stack([leaf[:6], leaf[6:]]) for name, leaf in case.batch.items()}

    def step(trainable, batch):
        gradients, _ = case.step(trainable, batch, None)
        return jax.tree.map(lambda w, g: w - 0.1 * g, trainable, gradients)

    def train(trainable, batch):
        return jax.lax.fori_loop(0, 2, lambda _, trainable: step(trainable, batch), trainable)

    start = jax.tree.map(jnp.asarray, case.trainable)
    together = jax.jit(jax.vmap(train, (None, 0)))(start, clients)
    for client in range(2):
        batch = {name: leaf[client] for name, leaf in clients.items()}
        for ours, theirs in zip(together, step(step(start, batch), batch), strict=True):
            assert_close(ours[client], theirs)


# ---- single questions ----


def normalized():
    """A model with batch normalization, and a batch of it."""
    rng = np.random.default_rng(4)
    specs = [
        {"class_name": "Dense", "config": {"name": "dense", "units": 3}},
        {"class_name": "BatchNormalization", "config": {"name": "norm", "epsilon": 0.01}},
        {
            "class_name": "BatchNormalization",
            "config": {"name": "frozen", "trainable": False, "scale": False},
        },
    ]
    trainable = [rng.normal(size=shape) for shape in ((4, 3), 3, 3, 3)]
    fixed = [*rng.normal(size=(2, 3)) ** 2, *rng.normal(size=(3, 3)) ** 2]
    model = from_keras_config(
        "Sequential",
        {"name": "model", "layers": specs},
        loss={"class_name": "MeanSquaredError", "config": {}},
        weights=ModelWeights(trainable, fixed),
    )
    batch = {"x": rng.normal(size=(6, 4)), "y": rng.normal(size=(6, 3))}
    return model, jax.tree.map(np.float32, batch)


def test_batch_normalization_against_numpy():
    """In training by the batch, in evaluation and where it is frozen by the fixed statistics."""
    model, batch = normalized()
    kernel, bias, gamma, beta = model.initial_weights.trainable
    mean, variance, frozen_beta, frozen_mean, frozen_variance = model.initial_weights.non_trainable
    x = batch["x"] @ kernel + bias
    for training, center, spread in ((True, x.mean(0), x.var(0)), (False, mean, variance)):
        out = (x - center) / np.sqrt(spread + 0.01) * gamma + beta
        out = (out - frozen_mean) / np.sqrt(frozen_variance + 1e-3) + frozen_beta
        forward = model.forward(model.initial_weights, batch, None, None, training)
        np.testing.assert_allclose(forward.predictions, out, rtol=1e-4, atol=1e-5)
        for ours, before in zip(
            forward.non_trainable, model.initial_weights.non_trainable, strict=True
        ):
            np.testing.assert_array_equal(ours, before)


def test_batch_normalization_sees_real_rows_only():
    model, batch = normalized()

    def step(batch, mask):
        def objective(trainable):
            weights = model.initial_weights._replace(trainable=trainable)
            return model.forward(weights, batch, mask, None, True).objective

        return jax.value_and_grad(objective)(model.initial_weights.trainable)

    alone = step({name: leaf[:4] for name, leaf in batch.items()}, None)
    padded = step(batch, jnp.arange(6) < 4)
    jax.tree.map(lambda ours, theirs: assert_close(ours, theirs, scale=1.0), padded, alone)
    nothing = step(batch, jnp.zeros(6, bool))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(nothing))


def test_batch_normalization_warns():
    with jax.numpy_rank_promotion("allow"):
        model = keras.Sequential([layers.Input((3,)), layers.BatchNormalization()])
    with pytest.warns(UserWarning, match="never updated in federated training, as in TFF"):
        converted_model = from_keras(model, keras.losses.MeanSquaredError())
    assert [len(side) for side in converted_model.initial_weights] == [2, 2]


def test_constraints_are_refused_unless_ignored():
    def clipped(weight):
        return jnp.clip(weight, 0, 1)

    dense = layers.Dense(1, name="out", kernel_constraint="non_neg")
    for layer, shape, words in [
        (dense, (3,), 'layer "out" has kernel_constraint=NonNeg'),
        (
            layers.Bidirectional(layers.GRU(2, recurrent_constraint=keras.constraints.MaxNorm(2))),
            (4, 3),
            "has recurrent_constraint=MaxNorm, which does nothing in federated training: leave it",
        ),
        (layers.Dense(1, bias_constraint=clipped, name="own"), (3,), "bias_constraint=clipped"),
    ]:
        with jax.numpy_rank_promotion("allow"):
            model = keras.Sequential([layers.Input(shape), layer])
        with pytest.raises(ModelError, match=words):
            from_keras(model, keras.losses.MeanSquaredError())
    with pytest.raises(ModelError, match=r"or pass constraints=fb\.ignore_constraints to train"):
        from_keras(model, keras.losses.MeanSquaredError())
    ignored = from_keras(model, keras.losses.MeanSquaredError(), constraints=ignore_constraints)
    assert len(ignored.initial_weights.trainable) == 2


def converted(*specs, weights=()):
    """A converted Sequential model of layers' configs."""
    specs = [{"class_name": name, "config": {"name": name, **config}} for name, config in specs]
    return from_keras_config(
        "Sequential",
        {"name": "model", "layers": specs},
        loss={"class_name": "MeanSquaredError", "config": {}},
        weights=ModelWeights(list(weights), []),
    )


def test_hard_sigmoid_of_a_config_is_that_of_keras_2():
    kernel = np.eye(5, dtype=np.float32)
    spec = {"units": 5, "activation": "hard_sigmoid", "use_bias": False}
    x = np.float32([[-3.0, -2.0, 0.0, 1.0, 3.0]])
    shape = ("InputLayer", {"batch_input_shape": [None, 5]})
    old = predict(converted(shape, ("Dense", spec), weights=[kernel]), x)
    np.testing.assert_allclose(old, [[0.0, 0.1, 0.5, 0.7, 1.0]], atol=1e-6)
    with jax.numpy_rank_promotion("allow"):
        keras_3 = keras.Sequential([layers.Input((5,)), layers.Dense(**spec)])
    keras_3.set_weights([kernel])
    new = predict(from_keras(keras_3, keras.losses.MeanSquaredError()), x)
    np.testing.assert_allclose(new, [[0.0, 1 / 6, 0.5, 2 / 3, 1.0]], atol=1e-6)


def predict(model, x, key=None):
    """Predictions, in training where there is a key."""
    batch = {"x": np.asarray(x), "y": np.zeros((len(x), *(1,) * (np.ndim(x) - 1)), np.float32)}
    trainable = jax.tree.map(jnp.asarray, model.initial_weights)
    return model.forward(trainable, batch, None, key, key is not None).predictions


@pytest.mark.parametrize("word", [-1, 11])
def test_a_word_that_is_no_row_gives_nan(word):
    table = ("Embedding", {"input_dim": 11, "output_dim": 2})
    model = converted(table, weights=[np.ones((11, 2))])
    batch = {"x": np.array([[1, word]]), "y": np.zeros((1, 2, 2))}

    def objective(weights):
        return model.forward(weights, batch, None, None, False).objective

    value, gradients = jax.value_and_grad(objective)(model.initial_weights)
    assert np.isnan(value)
    assert np.isnan(gradients.trainable[0]).any()


def test_dropout_in_recurrent_layers_is_random_and_named():
    """It draws in training alone; a `recurrent_dropout` or another activation fixes the draw."""
    x = np.ones((40, 5, 1), np.float32)
    run = {"units": 1, "activation": "linear", "use_bias": False, "return_sequences": True}
    inputs_only = [np.ones((1, 1)), np.zeros((1, 1))]
    model = converted(("SimpleRNN", {**run, "dropout": 0.5}), weights=inputs_only)
    np.testing.assert_array_equal(predict(model, x), x)
    drawn = np.asarray(predict(model, x, jax.random.key(0)))
    assert set(np.unique(drawn)) == {0.0, 2.0}
    assert (drawn == drawn[:, :1]).all()  # one draw for all steps
    recurrent_only = [np.ones((1, 1)), np.ones((1, 1))]
    model = converted(("SimpleRNN", {**run, "recurrent_dropout": 0.5}), weights=recurrent_only)
    drawn = np.asarray(predict(model, x, jax.random.key(0)))[:, :, 0]
    kept = drawn[:, 1] == 3.0
    np.testing.assert_array_equal(
        drawn[kept], np.tile([1.0, 3.0, 7.0, 15.0, 31.0], (kept.sum(), 1))
    )
    np.testing.assert_array_equal(drawn[~kept], 1.0)
    assert 8 < kept.sum() < 32


@pytest.mark.parametrize("config", [{}, {"recurrent_dropout": 0.5}, {"implementation": 1}])
def test_how_often_dropout_draws_in_an_lstm(config):
    """Fused, for each step; with `recurrent_dropout` for each gate, and the same in every step."""
    model = converted(
        ("LSTM", {"units": 1, "dropout": 0.5, "return_sequences": True, **config}),
        weights=[np.array([[0.0, 0.0, 1.0, 0.0]]), np.zeros((1, 4)), np.array([9.0, -99, 0, 9])],
    )
    drawn = np.asarray(predict(model, np.ones((60, 4, 1), np.float32), jax.random.key(1)))[:, :, 0]
    hidden = drawn < 0.1  # the new value's input was dropped
    assert 0.3 < hidden.mean() < 0.7
    assert (hidden == hidden[:, :1]).all() == ("recurrent_dropout" in config)


def test_random_layers_are_named():
    inner = {"class_name": "LSTM", "config": {"name": "in", "units": 2, "recurrent_dropout": 0.1}}
    dropped = {"class_name": "Dropout", "config": {"name": "in", "rate": 0.1}}
    configs = {
        "lstm": ("LSTM", {"dropout": 0.1}),
        "gru": ("GRU", {"dropout": 0.0, "recurrent_dropout": 0.1}),
        "both": ("Bidirectional", {"layer": inner}),
        "steps": ("TimeDistributed", {"layer": dropped}),
        "noise": ("GaussianNoise", {"stddev": 0.1}),
        "calm": ("LSTM", {"dropout": 0.0, "recurrent_dropout": 0.0}),
        "spatial": ("SpatialDropout1D", {"rate": 0.1}),
    }
    specs = [
        {"class_name": kind, "config": {"name": name, **config}}
        for name, (kind, config) in configs.items()
    ]
    assert random_layers({"layers": specs}) == ["lstm", "gru", "both", "steps", "noise", "spatial"]


@pytest.mark.parametrize(
    ("layer", "one_draw_for"),
    [
        (("SpatialDropout1D", {"rate": 0.5}), (1,)),
        (("SpatialDropout2D", {"rate": 0.5}), (1, 2)),
        (("GaussianDropout", {"rate": 0.5}), ()),
        (("GaussianNoise", {"stddev": 1.0}), ()),
    ],
)
def test_noise_in_training(layer, one_draw_for):
    """Mean 1 and deviation 1 of a one, and channels as a whole where they drop as a whole."""
    x = np.ones((100, 3, 10) if layer[0].endswith("1D") else (100, 3, 2, 10), np.float32)
    model = converted(layer)
    np.testing.assert_array_equal(predict(model, x), x)
    drawn = np.asarray(predict(model, x, jax.random.key(0)))
    assert drawn.mean() == pytest.approx(1.0, abs=0.2)  # 1000 draws or more: 6 deviations
    assert drawn.std() == pytest.approx(1.0, abs=0.2)
    first = drawn[:, :1, :1] if len(one_draw_for) == 2 else drawn[:, :1]
    assert (drawn == first).all() == bool(one_draw_for)


def test_softmax_and_group_normalization_behind_a_mask():
    """Keras 2.14 sets [batch, steps] against [batch, steps, channels], and fails."""
    table = ("Embedding", {"input_dim": 11, "output_dim": 4, "mask_zero": True})
    weights = [np.ones((11, 4))]
    with pytest.raises(ModelError, match=r"Softmax behind Keras' mask .*\(2, 3\).*\(2, 3, 4\)"):
        predict(converted(table, ("Softmax", {}), weights=weights), np.ones((2, 3)))
    group = ("GroupNormalization", {"groups": 2, "center": False, "scale": False})
    with pytest.raises(ModelError, match="GroupNormalization behind Keras' mask"):
        predict(converted(table, group, weights=weights), np.ones((2, 3)))


def test_a_mask_of_ones_own_is_refused():
    x = layers.Input((STEPS,))
    known = layers.Embedding(11, 4)(x)
    with jax.numpy_rank_promotion("allow"):
        out = layers.LSTM(3)(known, mask=keras.ops.not_equal(x, 3))
    model = from_keras(keras.Model(x, out), keras.losses.MeanSquaredError())
    with pytest.raises(ModelError, match='"lstm.*" is called with a mask of.*own, .*mask_zero'):
        predict(model, np.ones((2, STEPS)))


RUN = {"units": 3, "name": "it"}
INNER = {"class_name": "Sequential", "config": {}}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (("LSTM", {**RUN, "stateful": True}), 'layer "it" .*stateful and time_major'),
        (("GRU", {**RUN, "time_major": True}), "stateful and time_major"),
        (("LSTM", {**RUN, "dropout": 1.0}), "dropout=1.0 is not supported; .* 0 <= dropout < 1"),
        (("LSTM", {**RUN, "projection": 3}), "projection=3.*supported arguments: activation"),
        (("LSTM", {**RUN, "recurrent_activation": "sparsemax"}), "activation 'sparsemax'"),
        (
            ("LSTM", {**RUN, "activity_regularizer": {"class_name": "L2"}}),
            "activity_regularizer=L2",
        ),
        (("Embedding", {"input_dim": 3, "output_dim": 2, "sparse": True}), "sparse=True"),
        (("Lambda", {"name": "it", "function": "f"}), '"it" is a Lambda.*on the data'),
        (
            ("Bidirectional", {"layer": {"class_name": "Dense", "config": {}}}),
            "supported: GRU, LSTM",
        ),
        (
            ("TimeDistributed", {"layer": {"class_name": "Sequential", "config": {}}}),
            "Sequential is",
        ),
        (("Conv1D", {"filters": 2, "kernel_size": [3], "padding": "full"}), "padding='full'"),
        (("Conv1D", {"filters": 2, "kernel_size": [3, 3]}), "no size of 1 dimensions"),
        (
            ("Conv2DTranspose", {"filters": 2, "kernel_size": 3, "output_padding": 1}),
            "output_padding",
        ),
        (("DepthwiseConv2D", {"kernel_size": 3, "groups": 2}), "groups=2"),
        (("UpSampling2D", {"interpolation": "bilinear"}), "interpolation='bilinear'"),
        (("LayerNormalization", {"rms_scaling": True}), "rms_scaling"),
        (("ZeroPadding2D", {"data_format": "channels_first"}), "channels_first"),
    ],
)
def test_layers_that_are_refused(spec, words):
    with pytest.raises(ModelError, match=words):
        converted(spec)
