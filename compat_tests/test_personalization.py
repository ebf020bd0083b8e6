"""Personalization against TFF: each client's baseline and what a strategy makes of it."""

import collections

import jax
import numpy as np
import pytest

import fedbridge as fb
from fedbridge.algorithms import personalization_eval, personalize

SIZES = [9, 5, 1, 13, 0, 7]  # one without data; the last one has a NaN
EPOCHS, RATE = 3, 0.2


def _clients():
    rng = np.random.default_rng(0)
    data = {
        f"c{i}": {
            "x": rng.random((size, 6), dtype=np.float32),
            "y": rng.integers(0, 3, size).astype(np.int32),
        }
        for i, size in enumerate(SIZES)
    }
    data[f"c{len(SIZES) - 1}"]["x"][3] = np.nan
    return data


def _keras_model():
    import tensorflow as tf

    dense, glorot = tf.keras.layers.Dense, tf.keras.initializers.GlorotUniform
    penalty = tf.keras.regularizers.L2(0.1)
    return tf.keras.Sequential([
        tf.keras.layers.InputLayer(input_shape=(6,)),
        dense(5, "tanh", kernel_initializer=glorot(seed=1), kernel_regularizer=penalty),
        dense(3, kernel_initializer=glorot(seed=2)),
    ])  # fmt: skip


def _loss():
    import tensorflow as tf

    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _metrics():
    import tensorflow as tf

    return [tf.keras.metrics.SparseCategoricalAccuracy()]


def _datasets():
    import tensorflow as tf

    return [
        tf.data.Dataset.from_tensor_slices(collections.OrderedDict(client))
        for client in _clients().values()
    ]


def _model_fn(tff):
    spec = _datasets()[0].batch(4).element_spec
    return lambda: tff.learning.models.from_keras_model(
        _keras_model(), _loss(), spec, metrics=_metrics()
    )


def _build_personalize_fn():
    """TFF's example of a strategy, without its shuffle: SGD, batches of 4, looks at two epochs."""
    import tensorflow as tf

    @tf.function
    def personalize_fn(model, train_data, test_data):
        def train(seen, batch):
            with tf.GradientTape() as tape:
                output = model.forward_pass(batch)
            gradients = tape.gradient(output.loss, model.trainable_variables)
            for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
                variable.assign_sub(RATE * gradient)
            return seen + tf.cast(output.num_examples, tf.int64)

        seen, reported = tf.constant(0, tf.int64), collections.OrderedDict()
        for epoch in range(1, EPOCHS + 1):
            seen = train_data.batch(4).reduce(seen, train)
            if epoch % 2 == 0 or epoch == EPOCHS:
                reported[f"epoch_{epoch}"] = _evaluate_fn(model, test_data)
        reported["num_train_examples"] = seen
        return reported

    return personalize_fn


def _evaluate_fn(model, dataset):
    model.reset_metrics()

    def evaluate(seen, batch):
        return seen + model.forward_pass(batch, training=False).num_examples

    dataset.batch(5).reduce(0, evaluate)
    finalizers = model.metric_finalizers()
    return collections.OrderedDict(
        (name, finalizers[name](variables))
        for name, variables in model.report_local_unfinalized_metrics().items()
    )


def test_each_client_is_tffs(tff):
    import tensorflow as tf

    compute = tff.learning.algorithms.build_personalization_eval_computation(
        _model_fn(tff),
        collections.OrderedDict(tune=_build_personalize_fn),
        tf.function(_evaluate_fn),
    )
    weights = tff.learning.models.ModelWeights.from_model(_model_fn(tff)())
    expected = compute(
        weights.convert_variables_to_arrays(),
        [collections.OrderedDict(train_data=d, test_data=d) for d in _datasets()],
    )

    model = fb.from_keras(_keras_model(), _loss(), _metrics())
    strategy = personalize(fb.optimizers.sgdm(RATE), EPOCHS, num_epochs_per_eval=2)
    evaluate = personalization_eval(model, {"tune": strategy})
    streams = {"train": fb.Batches(4), "test": fb.Batches(5)}
    cohort = fb.from_clients(_clients()).cohort([f"c{i}" for i in range(len(SIZES))], streams)
    found = evaluate(model.initial_weights, cohort)

    assert list(found) == list(expected)
    by_size = lambda metrics: np.argsort(metrics["baseline_metrics"]["num_examples"])
    theirs = jax.tree.map(lambda leaf: np.asarray(leaf)[by_size(expected)], expected)
    ours = jax.tree.map(lambda leaf: leaf[by_size(found)], found)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        # Losses after up to twelve steps: float32 sums in another order.
        np.testing.assert_allclose(a, b, rtol=2e-6)

    # Of nobody.
    theirs = compute(weights.convert_variables_to_arrays(), [])
    ours = evaluate(model.initial_weights, fb.from_clients(_clients()).cohort([], streams))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (np.shape(b), np.asarray(b).dtype) == ((0,), a.dtype)


def test_names_and_numbers_that_tff_refuses(tff):
    build = tff.learning.algorithms.build_personalization_eval_computation
    base = collections.OrderedDict(baseline_metrics=_build_personalize_fn)
    with pytest.raises(ValueError, match="baseline_metrics"):
        build(_model_fn(tff), base, _evaluate_fn)
    with pytest.raises(ValueError, match="positive"):
        build(_model_fn(tff), collections.OrderedDict(), _evaluate_fn, max_num_clients=0)
