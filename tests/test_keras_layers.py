"""Keras' layers one by one, against Keras 3 itself: outputs, gradients, padding, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedbridge.jax_core import ModelWeights
from fedbridge.tff_io import from_keras, from_keras_config

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


NETS = [next_word, two_lstms, masking]


class Case:
    """A Keras 3 model with random vectors, its conversion, and a batch."""

    def __init__(self, net):
        keras.utils.set_random_seed(3)
        rng = np.random.default_rng(5)
        parts, inputs = net()
        model = parts if isinstance(parts, keras.Model) else keras.Sequential(parts)
        for weight in model.weights:
            if len(weight.shape) == 1:
                weight.assign(weight + rng.normal(scale=0.3, size=weight.shape))
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


def assert_close(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= TOLERANCE * max(np.abs(theirs).max(), 1e-30)


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
    gradients, forward = case.step(case.trainable, batch, None)
    assert_close(forward.predictions, predictions)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert_close(ours, theirs)


def test_padding_changes_nothing(case):
    rng = np.random.default_rng(0)
    alone = jax.tree.map(lambda leaf: leaf[:5], case.batch)
    repeat = np.concatenate([np.arange(5), rng.integers(0, ROWS, ROWS - 5)])
    padded = jax.tree.map(lambda leaf: leaf[repeat], case.batch)
    expected_gradients, expected = case.step(case.trainable, alone, None)
    gradients, forward = case.step(case.trainable, padded, jnp.arange(ROWS) < 5)
    assert_close(forward.objective, expected.objective)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("net", [two_lstms], ids=lambda net: net.__name__)
def test_clients_side_by_side_and_in_a_loop(net):
    """`vmap` over weights and rows, inside a loop, gives what single steps give."""
    with jax.numpy_rank_promotion("allow"):
        case = Case(net)
    clients = jax.tree.map(lambda leaf: jnp.stack([leaf[:6], leaf[6:]]), case.batch)

    def train(trainable, batch):
        def body(_, trainable):
            gradients, _ = case.step(trainable, batch, None)
            return jax.tree.map(lambda w, g: w - 0.1 * g, trainable, gradients)

        return jax.lax.fori_loop(0, 2, body, trainable)

    start = jax.tree.map(jnp.asarray, case.trainable)
    together = jax.jit(jax.vmap(train, (None, 0)))(start, clients)
    for client in range(2):
        alone = start
        for _ in range(2):
            gradients, _ = case.step(alone, {k: leaf[client] for k, leaf in clients.items()}, None)
            alone = jax.tree.map(lambda w, g: w - 0.1 * g, alone, gradients)
        for ours, theirs in zip(together, alone, strict=True):
            assert_close(ours[client], theirs)


# ---- single questions ----


def identity_of(*specs, weights=()):
    """A converted Sequential model of layers' configs."""
    specs = [{"class_name": name, "config": {"name": name, **config}} for name, config in specs]
    return from_keras_config(
        "Sequential",
        {"name": "model", "layers": specs},
        loss={"class_name": "MeanSquaredError", "config": {}},
        weights=ModelWeights(list(weights), []),
    )


@pytest.mark.parametrize("word", [-1, 11])
def test_a_word_that_is_no_row_gives_nan(word):
    model = identity_of(
        ("Embedding", {"input_dim": 11, "output_dim": 2}), weights=[np.ones((11, 2))]
    )
    batch = {"x": np.array([[1, word]]), "y": np.zeros((1, 2, 2))}

    def objective(weights):
        return model.forward(weights, batch, None, None, False).objective

    value, gradients = jax.value_and_grad(objective)(model.initial_weights)
    assert np.isnan(value)
    assert np.isnan(gradients.trainable[0]).any()
