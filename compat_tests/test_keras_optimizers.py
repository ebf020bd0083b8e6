"""Optimizers that a script of TFF's gives from Keras, or writes in TensorFlow itself."""

import collections

import jax
import numpy as np
import pytest

from fedbridge import tff as ours
from fedbridge.tff._errors import Note
from fedbridge.tff._keras_optimizers import from_keras


def _schedules(tf):
    schedules = tf.keras.optimizers.schedules
    return {
        "exponential": schedules.ExponentialDecay(0.1, 3, 0.5),
        "polynomial": schedules.PolynomialDecay(0.1, 5, 0.01, power=2.0),
        "steps": schedules.PiecewiseConstantDecay([2, 6], [0.1, 0.05, 0.01]),
        "cosine": schedules.CosineDecay(0.1, 8),
    }


IN_JAX = [
    ("SGD", {"clipnorm": 0.5}),
    ("SGD", {"clipnorm": 100.0, "momentum": 0.9}),
    ("SGD", {"clipvalue": 0.3}),
    ("Adam", {"global_clipnorm": 0.5, "beta_2": 0.9}),
    ("SGD", {"learning_rate": "exponential"}),
    ("Adam", {"learning_rate": "polynomial", "beta_2": 0.9}),
    ("Adagrad", {"learning_rate": "cosine", "clipnorm": 1.0}),
    ("SGD", {"learning_rate": "steps"}),
]
IN_TENSORFLOW = [
    ("Adam", {"amsgrad": True}),
    ("RMSprop", {"momentum": 0.5}),
    ("RMSprop", {"centered": True, "clipnorm": 1.0}),
    ("Adamax", {}),
    ("Adadelta", {}),
    ("Nadam", {}),
    ("Ftrl", {"learning_rate": "exponential"}),
    ("SGD", {"learning_rate": "steps", "momentum": 0.9}),
]
ONLY_NEW = [
    ("SGD", {"weight_decay": 0.1}),
    ("AdamW", {"weight_decay": 0.1}),
    ("Lion", {}),
]
ONLY_LEGACY = [("SGD", {"decay": 0.3}), ("SGD", {"clipvalue": 0.3, "clipnorm": 0.5})]


@pytest.mark.parametrize(
    ("home", "name", "arguments"),
    [
        *(("", *case) for case in [*IN_JAX, *IN_TENSORFLOW, *ONLY_NEW]),
        *(("legacy.", *case) for case in [*IN_JAX, *IN_TENSORFLOW, *ONLY_LEGACY]),
        ("legacy.", "SGD", {"learning_rate": "steps", "decay": 0.3}),
    ],
)
@pytest.mark.filterwarnings("ignore::fedbridge.tff._errors.Note")
def test_keras_optimizers_step_as_keras_does(tff, home, name, arguments):
    import tensorflow as tf

    rate = arguments.get("learning_rate", 0.1)
    rate = _schedules(tf).get(rate, rate)
    make = getattr(tf.keras.optimizers.legacy if home else tf.keras.optimizers, name)
    keras, given = (make(**{**arguments, "learning_rate": rate}) for _ in range(2))
    rng = np.random.default_rng(1)
    start = [rng.standard_normal(shape).astype(np.float32) for shape in ((4, 3), (3,))]
    variables = [tf.Variable(leaf) for leaf in start]
    apply = keras.apply_gradients
    if not home:  # as in TFF: the new Nadam counts in Python
        keras.build(variables)
        apply = tf.function(apply)
    optimizer = from_keras(given)
    weights, state = start, optimizer.init(start)
    step = jax.jit(optimizer.update)
    for _ in range(10):
        gradients = [rng.standard_normal(leaf.shape).astype(np.float32) for leaf in start]
        apply(list(zip(map(tf.constant, gradients), variables, strict=True)))
        moves, state = step(gradients, state, weights)
        weights = jax.tree.map(lambda w, move: w + move, weights, moves)
    for found, expected in zip(weights, variables, strict=True):
        # A different formula is off by 1e-2 here; float32 sums of ten steps agree to about 1e-6.
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=4e-6)


@pytest.mark.filterwarnings("ignore::fedbridge.tff._errors.Note")
def test_one_optimizer_steps_on_weights_of_several_shapes(tff):
    import tensorflow as tf

    optimizer = from_keras(tf.keras.optimizers.Adamax(0.1))
    weights = [[np.ones((2, 3), np.float32)], [np.ones(4, np.float32), np.ones(1, np.float32)]]
    states = [optimizer.init(some) for some in weights]
    for some, state in [*zip(weights, states, strict=True)] * 2:
        moves, _ = optimizer.update(some, state, some)
        for move in moves:  # a first step is the learning rate
            np.testing.assert_allclose(move, -0.1, rtol=1e-5)


def _momentum(tff):
    """SGD with momentum, in TFF's form."""
    import tensorflow as tf

    class Momentum(tff.learning.optimizers.Optimizer):
        def initialize(self, specs):
            zeros = tf.nest.map_structure(lambda s: tf.zeros(s.shape, s.dtype), specs)
            return collections.OrderedDict(a=zeros, steps=tf.constant(0, tf.int64))

        def next(self, state, weights, gradients):
            a = tf.nest.map_structure(lambda a, g: 0.5 * a + g, state["a"], gradients)
            rate = 0.1 / (1.0 + tf.cast(state["steps"], tf.float32))
            new = tf.nest.map_structure(lambda w, a: w - rate * a, weights, a)
            return collections.OrderedDict(a=a, steps=state["steps"] + 1), new

    return Momentum()


def _process(t, client_optimizer, server_optimizer):
    import tensorflow as tf

    spec = (tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([None, 1], tf.int32))

    def model_fn():
        return t.learning.models.from_keras_model(
            tf.keras.Sequential([
                tf.keras.layers.InputLayer(input_shape=(4,)),
                tf.keras.layers.Dense(3, kernel_initializer="ones"),
            ]),
            tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            spec,
        )  # fmt: skip

    build = t.learning.algorithms.build_weighted_fed_avg
    return build(model_fn, client_optimizer, server_optimizer)


def _rounds(process, tf):
    rng = np.random.default_rng(2)
    clients = [
        tf.data.Dataset.from_tensor_slices(
            (rng.random((n, 4), np.float32), rng.integers(0, 3, (n, 1)).astype(np.int32))
        ).batch(2)
        for n in (5, 3)
    ]
    state = process.initialize()
    for _ in range(2):
        state, metrics = process.next(state, clients)
        yield process.get_model_weights(state).trainable, metrics
    assert metrics["client_work"]["train"]["num_examples"] == 8


@pytest.mark.filterwarnings("ignore::fedbridge.tff._errors.Note")
def test_an_optimizer_of_ones_own_trains_as_in_tff(tff):
    import tensorflow as tf

    both = ([*_rounds(_process(t, _momentum(t), _momentum(t)), tf)] for t in (tff, ours))
    for (expected, _), (found, _) in zip(*both, strict=True):
        for a, b in zip(expected, found, strict=True):
            # Some ten steps of a softmax regression: the last digits of float32.
            np.testing.assert_allclose(b, a, rtol=2e-6, atol=1e-7)


def test_every_client_starts_anew_and_the_server_goes_on(tff):
    """Against Keras itself: TFF 0.87.0 refuses its optimizers."""
    import tensorflow as tf

    home = tf.keras.optimizers
    client = lambda: home.SGD(home.schedules.ExponentialDecay(0.5, 1, 0.5), clipnorm=0.2)
    server = lambda: home.Adamax(0.1)
    with pytest.warns(Note, match=r"Adamax\(learning_rate=0.1\) steps in TensorFlow"):
        process = _process(ours, client, server)
    theirs = _by_hand(tf, client, server)
    for (found, _), expected in zip(_rounds(process, tf), theirs, strict=True):
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_allclose(b, a, rtol=2e-6, atol=1e-7)


def _by_hand(tf, client, server):
    """The same two rounds."""
    rng = np.random.default_rng(2)
    data = [
        (rng.random((n, 4), np.float32), rng.integers(0, 3, (n, 1)).astype(np.int32))
        for n in (5, 3)
    ]
    weights = [tf.Variable(tf.ones([4, 3])), tf.Variable(tf.zeros([3]))]
    optimizer = server()
    loss_fn = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for _ in range(2):
        start = [weight.numpy() for weight in weights]
        sums = [np.zeros_like(leaf) for leaf in start]
        for x, y in data:
            own, steps = [tf.Variable(leaf) for leaf in start], client()
            for first in range(0, len(x), 2):
                with tf.GradientTape() as tape:
                    loss = loss_fn(y[first : first + 2], x[first : first + 2] @ own[0] + own[1])
                steps.apply_gradients(zip(tape.gradient(loss, own), own, strict=True))
            for total, old, new in zip(sums, start, own, strict=True):
                total += len(x) * (new.numpy() - old)
        update = [tf.constant(-total / 8) for total in sums]
        optimizer.apply_gradients(zip(update, weights, strict=True))
        yield [weight.numpy() for weight in weights]
