"""What draws random numbers, on both sides the same tests of what was drawn.

No two frameworks draw the same numbers; so the distributions are compared. Each test is passed by
TensorFlow's or TFF's own draws as by fedbridge's: counts by exact binomial tests, shapes by
Kolmogorov-Smirnov, variances by χ², independence by the counts of pairs or by correlations. One
test rejects an honest generator with a probability of less than 1e-6 (`RARE`), for TFF's noise
cannot be seeded; where seeds can be given they are fixed.
"""

import math
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fedbridge as fb
from fedbridge.jax_core import aggregators
from fedbridge.tff_io import from_keras

RARE = 1e-6
RATE, ROWS, COLUMNS, CALLS = 0.3, 40, 250, 10

both = pytest.mark.parametrize("source", ["theirs", "ours"])


def assert_chance(kept, chance):
    """As many as there should be: an exact binomial test."""
    assert stats.binomtest(int(np.sum(kept)), np.size(kept), chance).pvalue > RARE


def pairs(drawn):
    """Neighbours along every axis, each draw in one pair at most: calls, rows, columns, ..."""
    for axis in range(drawn.ndim):
        size = drawn.shape[axis] // 2
        if size:
            even, odd = (np.arange(size) * 2 + k for k in (0, 1))
            yield np.take(drawn, even, axis), np.take(drawn, odd, axis)


def assert_independent_coins(kept, chance):
    """The share that is kept, and that of pairs that are both kept: chance²."""
    assert_chance(kept, chance)
    for one, other in pairs(kept):
        assert_chance(one & other, chance**2)


def assert_independent_normal(drawn):
    """N(0, 1), and no correlation of neighbours: r √n is nearly normal, and 5 of it are rare."""
    flat = drawn.ravel().astype(float)
    assert stats.kstest(flat, "norm").pvalue > RARE
    tail = stats.chi2(len(flat)).cdf(np.sum(flat**2))
    assert RARE / 2 < tail < 1 - RARE / 2
    for one, other in pairs(drawn):
        correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(correlation) * math.sqrt(one.size) < 5


# --- layers ---


def trained_on(source, layers, x, weights=None):
    """`[calls, ...]`: what a model gives for a batch in training, call after call."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(5)
    model = tf.keras.Sequential([tf.keras.layers.InputLayer(x.shape[1:]), *layers])
    if weights is not None:
        model.set_weights(weights)
    if source == "theirs":
        return np.stack([model(x, training=True).numpy() for _ in range(CALLS)])
    ours = from_keras(model, tf.keras.losses.MeanSquaredError())
    batch = {"x": x, "y": np.zeros((len(x), *model.output_shape[1:]), np.float32)}

    @jax.jit
    def predict(key):
        return ours.forward(ours.initial_weights, batch, None, key, True).predictions

    return np.stack([predict(jax.random.key(call)) for call in range(CALLS)])


def some(*shape):
    """Inputs of which none is zero."""
    return np.random.default_rng(3).uniform(0.5, 2.0, shape).astype(np.float32)


@both
def test_dropout(tff, source):
    import tensorflow as tf

    x = some(ROWS, COLUMNS)
    drawn = trained_on(source, [tf.keras.layers.Dropout(RATE)], x)
    kept = drawn != 0
    # One rounding of the factor and one of the product.
    scaled = np.broadcast_to(x / np.float32(1 - RATE), drawn.shape)
    np.testing.assert_allclose(drawn[kept], scaled[kept], rtol=2.4e-7)
    assert_independent_coins(kept, 1 - RATE)


@both
def test_two_dropouts_draw_apart(tff, source):
    import tensorflow as tf

    layers = [tf.keras.layers.Dropout(RATE), tf.keras.layers.Dropout(0.5)]
    drawn = trained_on(source, layers, some(ROWS, COLUMNS))
    assert_independent_coins(drawn != 0, (1 - RATE) * 0.5)


@both
@pytest.mark.parametrize("name, places", [("SpatialDropout1D", (4,)), ("SpatialDropout2D", (2, 3))])
def test_spatial_dropout_drops_whole_channels(tff, source, name, places):
    import tensorflow as tf

    x = some(ROWS, *places, COLUMNS)
    kept = trained_on(source, [getattr(tf.keras.layers, name)(RATE)], x) != 0
    kept = kept.reshape(CALLS, ROWS, -1, COLUMNS)
    assert (kept == kept[:, :, :1]).all()
    assert_independent_coins(kept[:, :, 0], 1 - RATE)


@both
def test_gaussian_noise(tff, source):
    import tensorflow as tf

    x = some(ROWS, COLUMNS)
    added = trained_on(source, [tf.keras.layers.GaussianNoise(0.7)], x).astype(float) - x
    assert_independent_normal(added / 0.7)


@both
def test_gaussian_dropout(tff, source):
    import tensorflow as tf

    x = some(ROWS, COLUMNS)
    factors = trained_on(source, [tf.keras.layers.GaussianDropout(RATE)], x).astype(float) / x
    assert_independent_normal((factors - 1) / math.sqrt(RATE / (1 - RATE)))


@both
def test_dropout_of_a_simple_rnn_is_one_draw_for_all_steps(tff, source):
    import tensorflow as tf

    rnn = tf.keras.layers.SimpleRNN(
        1, activation="linear", use_bias=False, dropout=RATE, return_sequences=True
    )
    weights = [np.ones((1, 1)), np.zeros((1, 1))]
    kept = trained_on(source, [rnn], some(1000, 4, 1), weights)[..., 0] != 0
    assert (kept == kept[:, :, :1]).all()
    assert_independent_coins(kept[:, :, 0], 1 - RATE)


@both
@pytest.mark.parametrize("recurrent", [0.0, 0.5], ids=["fused", "recurrent_dropout"])
def test_dropout_of_an_lstm(tff, source, recurrent):
    """Keras' fused LSTM draws in every step; with `recurrent_dropout` once for all of them."""
    import tensorflow as tf

    lstm = tf.keras.layers.LSTM(1, dropout=RATE, recurrent_dropout=recurrent, return_sequences=True)
    # The input and output gates are open, the forget gate is shut: tanh of the input is left.
    weights = [np.array([[0.0, 0.0, 1.0, 0.0]]), np.zeros((1, 4)), np.array([9.0, -99, 0, 9])]
    kept = trained_on(source, [lstm], some(1000, 4, 1), weights)[..., 0] > 0.1
    if recurrent:
        assert (kept == kept[:, :, :1]).all()
        kept = kept[:, :, 0]
    assert_independent_coins(kept, 1 - RATE)


# --- dropout in rounds ---

INPUTS = 20_000
SLOW = 0.1 / INPUTS


def weights_after(tff, source, targets):
    """The weights of a linear model behind a dropout after a round with batches of one example.

    They start from zero and every input is 1: a step with the target y moves a weight by
    2 (y - prediction) · SLOW / (1 - RATE) if its input was kept.

    Args:
        tff: TFF.
        source: Who trains.
        targets: For each client, of each of its batches.
    """
    import tensorflow as tf

    def keras_model():
        return tf.keras.Sequential(
            [
                tf.keras.layers.InputLayer((INPUTS,)),
                tf.keras.layers.Dropout(RATE),
                tf.keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros"),
            ]
        )

    loss = tf.keras.losses.MeanSquaredError()
    spec = OrderedDict(
        x=tf.TensorSpec((None, INPUTS), tf.float32), y=tf.TensorSpec((None, 1), tf.float32)
    )
    clients = {
        f"c{i}": OrderedDict(x=np.ones((len(ys), INPUTS), np.float32), y=np.float32(ys)[:, None])
        for i, ys in enumerate(targets)
    }
    if source == "theirs":
        process = tff.learning.algorithms.build_weighted_fed_avg(
            lambda: tff.learning.models.from_keras_model(keras_model(), loss, spec),
            tff.learning.optimizers.build_sgdm(SLOW),
        )
        datasets = [tf.data.Dataset.from_tensor_slices(c).batch(1) for c in clients.values()]
        state = process.next(process.initialize(), datasets).state
    else:
        process = fb.algorithms.fed_avg(from_keras(keras_model(), loss), fb.optimizers.sgdm(SLOW))
        cohort = fb.from_clients(clients).cohort(list(clients), fb.Batches(batch_size=1))
        state = process.next(process.initialize(), cohort).state
    return np.asarray(state.global_model_weights.trainable[0], float)[:, 0]


def assert_two_draws(weights, one, other):
    """Each weight was moved by `one`, by `other`, by both or by neither: a χ² test."""
    levels = np.array([0.0, one, other, one + other])
    assert np.diff(np.sort(levels)).min() > 0.05 * one
    which = np.argmin(np.abs(weights[:, None] - levels), axis=1)
    np.testing.assert_allclose(weights, levels[which], rtol=1e-3, atol=1e-3 * one)
    keep = 1 - RATE
    expected = np.array([RATE**2, keep * RATE, keep * RATE, keep**2]) * len(weights)
    assert stats.chisquare(np.bincount(which, minlength=4), expected).pvalue > RARE


STEP = 2 * SLOW / (1 - RATE)


@both
def test_two_steps_of_a_client_drop_apart(tff, source):
    weights = weights_after(tff, source, [[1.0, 1.0]])
    # After the first step the prediction is that of the inputs kept twice.
    assert_two_draws(weights, STEP, STEP - STEP * twice_kept(weights) * STEP / (1 - RATE))


def twice_kept(weights):
    """How many were moved by both steps: by more than the first one alone moves them."""
    return np.sum(weights > 1.2 * STEP)


@both
def test_two_clients_drop_apart(tff, source):
    """The mean of two clients of one example each, whose targets are 1 and 0.5."""
    weights = weights_after(tff, source, [[1.0], [0.5]])
    assert_two_draws(weights, STEP / 2, STEP / 4)


# --- noise of differential privacy ---

SHAPES = OrderedDict(large=(100, 200), small=(7,))


def zeros():
    return OrderedDict((name, np.zeros(shape, np.float32)) for name, shape in SHAPES.items())


def private_rounds(tff, source, build, rounds):
    """Results and states of rounds in which three clients give zeros: nothing but noise."""
    values = [zeros()] * 3
    if source == "theirs":
        factory = build(tff.aggregators.DifferentiallyPrivateFactory)
        value_type = tff.to_type(
            OrderedDict((name, (np.float32, shape)) for name, shape in SHAPES.items())
        )
        process = factory.create(value_type)
        state = process.initialize()
        for _ in range(rounds):
            output = process.next(state, values)
            state = output.state
            yield output.result, state
        return
    aggregator = build(aggregators)
    state = aggregator.initialize(zeros())

    @jax.jit
    def next(state, key):
        told = aggregator.client(state, zeros(), jnp.float32(1), key)
        return aggregator.server(state, jax.tree.map(lambda leaf: 3 * leaf, told), key)

    for number in range(rounds):
        output = next(state, jax.random.key(number))
        state = output.state
        yield output.result, state


@both
def test_noise_of_a_fixed_clip(tff, source):
    """40,014 entries of two rounds: of deviation z·clip / clients, independent everywhere."""
    build = lambda s: s.gaussian_fixed(0.7, 5, 3.0)
    results = [result for result, _ in private_rounds(tff, source, build, 2)]
    deviation = 0.7 * 3.0 / 5
    assert_independent_normal(np.stack([r["large"] for r in results]) / deviation)
    small = np.concatenate([r["small"] for r in results]) / deviation
    assert stats.kstest(small, "norm").pvalue > RARE
    # No leaf's noise is another's once more.
    assert not np.isin(small, np.stack([r["large"] for r in results])).any()


def test_their_noise_and_ours_are_of_one_distribution(tff):
    build = lambda s: s.gaussian_adaptive(0.8, 40, 0.5, 0.5, 0.2)
    drawn = [
        np.concatenate([np.ravel(r["large"]) for r, _ in private_rounds(tff, source, build, 2)])
        for source in ("theirs", "ours")
    ]
    assert stats.ks_2samp(*drawn).pvalue > RARE


@both
def test_noise_of_an_adaptive_clip_and_of_its_count(tff, source):
    """z' on the values in units of each round's clip; s on the count, seen in the next clip."""
    z, expected_clients, clip, quantile, rate = 0.8, 40, 0.5, 0.5, 0.2
    s = 0.05 * expected_clients
    own = (z**-2 - (2 * s) ** -2) ** -0.5
    build = lambda made: made.gaussian_adaptive(z, expected_clients, clip, quantile, rate)
    noise, values = [], []
    for result, state in private_rounds(tff, source, build, 60):
        values.append(np.asarray(result["large"][:5], float) / (own * clip / expected_clients))
        after = float(state.query_state.numerator_state.sum_state.l2_norm_clip)
        # Three clients of norm 0 are below it: (3/2 + noise) / expected + ½ of them.
        below = quantile - math.log(after / clip) / rate
        noise.append(((below - 0.5) * expected_clients - 1.5) / s)
        clip = after
    assert_independent_normal(np.stack(values))
    assert_independent_normal(np.array(noise))


# --- stochastic quantization ---


@both
def test_stochastic_rounding_tosses_a_coin_for_each_entry(tff, source):
    """30 entries between two levels, rounded up with the chance of what is left of each.

    A leaf of 30,000 entries that repeats them 1,000 times; neighbours are independent.
    """
    low, levels = -1.0, 15
    exact = np.linspace(0.1, 13.9, 30)  # in units of the step between levels
    times = 1000
    value = np.tile(low + exact * (2.0 / levels), (times, 1)).astype(np.float32)
    value[0, 0], value[0, 1] = low, low + 2.0  # the extremes
    if source == "theirs":
        factory = tff.aggregators.EncodedSumFactory.quantize_above_threshold(4, 1000)
        process = factory.create(tff.to_type((np.float32, value.shape)))
        result = process.next(process.initialize(), [value]).result
    else:
        aggregator = aggregators.quantize_above_threshold(4, 1000)
        state = aggregator.initialize(value)
        told = aggregator.client(state, value, jnp.float32(1), jax.random.key(0))
        result = aggregator.server(state, told, jax.random.key(1)).result
    taken = (np.asarray(result, float)[1:] - low) / (2.0 / levels)
    up = np.round(taken) - np.floor(exact)
    assert np.abs(taken - np.round(taken)).max() < 1e-4
    assert np.isin(up, [0, 1]).all()
    for entry, chance in enumerate(exact - np.floor(exact)):
        assert_chance(up[:, entry], chance)
        one, other = up[0:-1:2, entry], up[1::2, entry]
        assert_chance(one * other, chance**2)
