"""Keras models with global and local layers: the same weights, divided, and TFF's rules."""

import jax
import numpy as np
import pytest

from fedbridge.jax_core import ModelError, ModelWeights
from fedbridge.tff_io import (
    Partition,
    describe_keras,
    from_keras,
    from_keras_reconstruction,
    from_keras_reconstruction_config,
    ignore_constraints,
)

keras = pytest.importorskip("keras")
layers = keras.layers


def network():
    return keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(5, "tanh", kernel_regularizer=keras.regularizers.L2(0.05)),
            layers.Dense(6, "tanh", trainable=False),
            layers.Dense(3),
        ]
    )


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def accuracy():
    return keras.metrics.SparseCategoricalAccuracy()


def batch():
    rng = np.random.default_rng(0)
    return {
        "x": rng.random((7, 4), dtype=np.float32),
        "y": rng.integers(0, 3, 7).astype(np.int32),
    }


def divided():
    """The last layers on the server, the first on the clients; also the Keras model."""
    keras_model = network()
    first, frozen, last = keras_model.layers
    model = from_keras_reconstruction(keras_model, [last, frozen], [first], loss(), [accuracy])
    return model, keras_model


def test_it_is_the_same_model_without_the_penalties():
    model, keras_model = divided()
    last = keras_model.layers[2]
    local = model.initial_local_weights(jax.random.key(0))
    given = [np.asarray(weight) for weight in (last.kernel, last.bias)]
    for ours, theirs in zip(model.initial_weights.trainable, given, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [np.shape(w) for w in model.initial_weights.non_trainable] == [(5, 6), (6,)]
    assert [np.shape(w) for w in local.trainable] == [(4, 5), (5,)]
    assert local.non_trainable == []
    whole = from_keras(keras_model, loss(), [accuracy])
    expected = whole.forward(whole.initial_weights, batch(), None, None, False)
    found = model.forward(model.initial_weights, local, batch(), None, None, False)
    assert found.objective == found.metric_loss == expected.metric_loss
    assert expected.objective > expected.metric_loss  # that one has the penalty
    np.testing.assert_array_equal(found.predictions, expected.predictions)
    assert found.num_examples == 7
    assert list(model.metrics) == ["sparse_categorical_accuracy", "loss"]


def test_the_loss_counts_batches_not_examples():
    model, _ = divided()
    local = model.initial_local_weights(jax.random.key(0))
    metric, losses = model.metrics["loss"], []
    seen = metric.zero()
    for rows in (slice(0, 6), slice(6, 7)):
        part = {name: array[rows] for name, array in batch().items()}
        found = model.forward(model.initial_weights, local, part, None, None, False)
        losses.append(float(found.metric_loss))
        seen = metric.update(seen, part, found, None)
    np.testing.assert_allclose(metric.finalize(seen), np.mean(losses), rtol=1e-6)


def test_from_a_config_and_the_weights_of_each_side():
    model, keras_model = divided()
    written = from_keras_reconstruction_config(
        "Sequential",
        keras_model.get_config(),
        loss=describe_keras(loss()),
        metrics=[describe_keras(accuracy())],
        partition=Partition([2, 3], [0, 1], [0, 1], []),
        global_weights=model.initial_weights,
        local_weights=model.initial_local_weights(jax.random.key(0)),
    )
    key = jax.random.key(1)
    a, b = (
        m.forward(m.initial_weights, m.initial_local_weights(key), batch(), None, None, False)
        for m in (model, written)
    )
    assert a.objective == b.objective
    assert list(written.metrics) == list(model.metrics)


def test_variables_belong_to_one_side():
    keras_model = network()
    first, frozen, last = keras_model.layers
    refused = [
        ([first, frozen], [first, last], "among the global_trainable and the local_trainable"),
        ([first, first, frozen], [last], "among the global_trainable and the global_trainable"),
        ([first, frozen], [], "of the model is neither global nor local"),
        ([first, frozen, network().layers[0]], [last], "is not one of the model"),
    ]
    for ours, own, words in refused:
        with pytest.raises(ModelError, match=words):
            from_keras_reconstruction(keras_model, ours, own, loss())


def test_constraints_are_refused_unless_ignored():
    first = keras.layers.Dense(3, "softmax", kernel_constraint="non_neg", name="first")
    keras_model = keras.Sequential([keras.layers.Input((4,)), first])
    with pytest.raises(ModelError, match='layer "first" has kernel_constraint=NonNeg'):
        from_keras_reconstruction(keras_model, [first], [], loss())
    ignored = from_keras_reconstruction(
        keras_model, [first], [], loss(), constraints=ignore_constraints
    )
    assert len(ignored.initial_weights.trainable) == 2


def test_names_of_metrics_are_their_own():
    keras_model = network()
    first, *others = keras_model.layers
    accuracies = [keras.metrics.SparseCategoricalAccuracy(name="same") for _ in range(2)]
    for metrics in (accuracies, [keras.metrics.MeanSquaredError(name="loss")]):
        with pytest.raises(ModelError, match="give every metric a name of its own"):
            from_keras_reconstruction(keras_model, others, [first], loss(), metrics)


def test_a_partition_names_every_weight_once():
    dense = {"class_name": "Dense", "config": {"name": "dense", "units": 1}}
    with pytest.raises(ModelError, match=r"names the variables \[0, 0\], and there are 2 weights"):
        from_keras_reconstruction_config(
            "Sequential",
            {"name": "linear", "layers": [dense]},
            loss={"class_name": "MeanSquaredError", "config": {}},
            partition=Partition([0], [], [0], []),
            global_weights=ModelWeights([np.ones((2, 1))], []),
            local_weights=ModelWeights([np.zeros(1)], []),
        )
