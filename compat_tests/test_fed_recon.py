"""Federated reconstruction and its evaluation against TFF, round by round from TFF's states."""

import collections

import numpy as np
import pytest
from rounds import compare_rounds

import fedbridge as fb
from fedbridge import tff as our_tff
from fedbridge.jax_core import build_dataset_split_fn, simple_dataset_split_fn
from fedbridge.tff_io import from_keras_reconstruction

BATCHES = fb.Batches(4)
SIZES = [  # of the clients of each round; a minus marks a client with a NaN among its features
    [9, 5, 13, 1],
    [9, 0, 12],
    [1],
    [9, -5, 12],
    [-9, -5],
    [],
    [9, 5, 13, 1],
]
sgdm = fb.optimizers.sgdm


def _arrays(size, seed):
    rng = np.random.default_rng(seed)
    rows = abs(size)
    x = rng.random((rows, 6), dtype=np.float32)
    if size < 0:
        x[rows // 2, 1] = np.nan
    return {"x": x, "y": rng.integers(0, 3, rows).astype(np.int32)}


ROUNDS = [
    [_arrays(size, 10 * number + place) for place, size in enumerate(sizes)]
    for number, sizes in enumerate(SIZES)
]


def _keras_model():
    """A local layer between global ones, with penalties that TFF leaves out here."""
    import tensorflow as tf

    glorot = tf.keras.initializers.GlorotUniform
    dense, penalty = tf.keras.layers.Dense, tf.keras.regularizers.L2(0.1)
    return tf.keras.Sequential([
        tf.keras.layers.InputLayer(input_shape=(6,)),
        dense(5, "tanh", kernel_initializer=glorot(seed=1), kernel_regularizer=penalty),
        dense(4, "tanh", kernel_initializer=glorot(seed=2), kernel_regularizer=penalty,
              bias_initializer=tf.keras.initializers.Constant(0.1)),
        dense(4, kernel_initializer=glorot(seed=4), trainable=False),
        dense(3, kernel_initializer=glorot(seed=3)),
    ])  # fmt: skip


def _divided(keras_model):
    first, local, frozen, last = keras_model.layers
    return dict(global_layers=[last, first, frozen], local_layers=[local])


def _loss():
    import tensorflow as tf

    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _metrics():
    import tensorflow as tf

    return [tf.keras.metrics.SparseCategoricalAccuracy()]


def _dataset(arrays):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(collections.OrderedDict(arrays)).batch(4)


def _model_fn(tff):
    spec = _dataset(_arrays(1, 0)).element_spec

    def model_fn():
        keras_model = _keras_model()
        return tff.learning.models.ReconstructionModel.from_keras_model_and_layers(
            keras_model, **_divided(keras_model), input_spec=spec
        )

    return model_fn


def _model():
    keras_model = _keras_model()
    return from_keras_reconstruction(
        keras_model, **_divided(keras_model), loss=_loss(), metrics=_metrics()
    )


EPOCHS = dict(recon_epochs=2, recon_steps_max=3, post_recon_epochs=2, post_recon_steps_max=3)

# name -> (arguments for TFF's builder, from tff; arguments for fedbridge's)
CASES = {
    "defaults": (lambda tff: {}, {}),
    "epochs, uniform weights, momentum": (
        lambda tff: dict(
            dataset_split_fn=tff.learning.models.ReconstructionModel.build_dataset_split_fn(
                **EPOCHS
            ),
            client_weighting=tff.learning.ClientWeighting.UNIFORM,
            client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.2, 0.9),
            reconstruction_optimizer_fn=tff.learning.optimizers.build_sgdm(0.3, 0.5),
            server_optimizer_fn=tff.learning.optimizers.build_sgdm(0.7, 0.9),
        ),
        dict(
            dataset_split_fn=build_dataset_split_fn(**EPOCHS),
            client_weight=fb.uniform,
            client_optimizer=sgdm(0.2, 0.9),
            reconstruction_optimizer=sgdm(0.3, 0.5),
            server_optimizer=sgdm(0.7, 0.9),
        ),
    ),
    "the same batches twice, weights by the metrics": (
        lambda tff: dict(
            dataset_split_fn=tff.learning.models.ReconstructionModel.simple_dataset_split_fn,
            client_weighting=lambda metrics: metrics["loss"][1],
        ),
        dict(
            dataset_split_fn=simple_dataset_split_fn,
            metrics_weight=lambda metrics: metrics["loss"].count,
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rounds_are_tffs(tff, name):
    of_tff, of_ours = CASES[name]
    theirs = tff.learning.algorithms.build_fed_recon(
        _model_fn(tff), loss_fn=_loss, metrics_fn=_metrics, **of_tff(tff)
    )
    ours = fb.algorithms.fed_recon(_model(), non_finite=fb.keep_non_finite, **of_ours)
    error = compare_rounds(theirs, ours, ROUNDS, _dataset, BATCHES)
    print(f"fed_recon, {name}: {error:.1e}")


@pytest.mark.parametrize("split", [dict(split_dataset=True), EPOCHS], ids=["halves", "epochs"])
def test_evaluation_is_tffs(tff, split):
    build = tff.learning.models.ReconstructionModel.build_dataset_split_fn
    theirs = tff.learning.algorithms.build_fed_recon_eval(
        _model_fn(tff), loss_fn=_loss, metrics_fn=_metrics, dataset_split_fn=build(**split)
    )
    ours = fb.algorithms.fed_recon_eval(_model(), dataset_split_fn=build_dataset_split_fn(**split))
    usable = [clients for clients in ROUNDS if not any(np.isnan(c["x"]).any() for c in clients)]
    compare_rounds(theirs, ours, usable, _dataset, BATCHES)


def test_sums_that_a_script_names_are_tffs(tff):
    import tensorflow as tf

    def evaluated(t):
        metrics = [*_metrics(), tf.keras.metrics.MeanMetricWrapper(_loss(), name="loss")]
        make = t.learning.metrics.create_keras_metric_finalizer
        finalizers = collections.OrderedDict((metric.name, make(metric)) for metric in metrics)
        pair = t.types.to_type([np.float32, np.float32])
        kinds = collections.OrderedDict((name, pair) for name in finalizers)
        sums = t.learning.metrics.SumThenFinalizeFactory(finalizers).create(
            t.types.to_type(kinds) if t is tff else kinds
        )
        process = t.learning.algorithms.build_fed_recon_eval(
            _model_fn(t), loss_fn=_loss, metrics_fn=_metrics, metrics_aggregation_process=sums
        )
        state = process.initialize()
        for clients in ROUNDS[:2]:
            state, metrics = process.next(state, [_dataset(client) for client in clients])
        return metrics["client_work"]

    theirs, mine = evaluated(tff), evaluated(our_tff)
    for expected, found in zip(tf.nest.flatten(theirs), tf.nest.flatten(mine), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)  # sums of two rounds in float32


def test_weights_by_metrics_may_be_tensorflow_code(tff):
    import tensorflow as tf

    def trained(t):
        process = t.learning.algorithms.build_fed_recon(
            _model_fn(t),
            loss_fn=_loss,
            metrics_fn=_metrics,
            client_weighting=lambda seen: tf.sqrt(1.0 + tf.cast(seen["loss"][1], tf.float32)),
        )
        state = process.initialize()
        for clients in ROUNDS[:2]:
            state, _ = process.next(state, [_dataset(client) for client in clients])
        return process.get_model_weights(state).trainable

    for expected, found in zip(trained(tff), trained(our_tff), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)  # two rounds


def _own_layer(t, spec):
    """A local layer of the script's own, with a weight that no one trains, between global ones."""
    import tensorflow as tf

    class Own(tf.keras.layers.Layer):
        def build(self, shape):
            constant = tf.keras.initializers.Constant
            self.scale = self.add_weight(name="scale", shape=shape[-1:], initializer=constant(0.7))
            self.shift = self.add_weight(
                name="shift", shape=(), initializer=constant(0.2), trainable=False
            )

        def call(self, inputs):
            return tf.math.sinh(inputs * self.scale + self.shift)

    glorot, penalty = tf.keras.initializers.GlorotUniform, tf.keras.regularizers.L2(0.1)
    dense = tf.keras.layers.Dense
    first, local = dense(5, kernel_initializer=glorot(seed=1), kernel_regularizer=penalty), Own()
    last = dense(3, kernel_initializer=glorot(seed=2), bias_regularizer=penalty)
    keras_model = tf.keras.Sequential(
        [tf.keras.layers.InputLayer(input_shape=(6,)), first, local, last]
    )
    return t.learning.models.ReconstructionModel.from_keras_model_and_layers(
        keras_model, global_layers=[last, first], local_layers=[local], input_spec=spec
    )


def _by_hand(t, spec):
    """The same sorts of variables, in a class."""
    import tensorflow as tf

    output = collections.namedtuple("Output", ["predictions", "labels", "num_examples"])

    class ByHand(t.learning.models.ReconstructionModel):
        def __init__(self):
            self.kernel = tf.Variable(tf.keras.initializers.GlorotUniform(seed=1)([6, 3]))
            self.centre = tf.Variable(tf.fill([6], 0.4), trainable=False)
            self.bias = tf.Variable(tf.zeros([3]))
            self.scale = tf.Variable(1.5, trainable=False)

        global_trainable_variables = property(lambda self: [self.kernel])
        global_non_trainable_variables = property(lambda self: [self.centre])
        local_trainable_variables = property(lambda self: [self.bias])
        local_non_trainable_variables = property(lambda self: [self.scale])
        input_spec = property(lambda self: spec)

        def forward_pass(self, batch_input, training=True):
            x, y = batch_input["x"] - self.centre, batch_input["y"]
            return output(self.scale * (x @ self.kernel) + self.bias, y, tf.shape(y)[0])

    return ByHand()


@pytest.mark.filterwarnings("ignore::fedbridge.tff._errors.Note")
@pytest.mark.parametrize("reduction", ["auto", "none"])
@pytest.mark.parametrize("make", [_own_layer, _by_hand])
def test_models_with_code_of_their_own_are_tffs(tff, make, reduction):
    import tensorflow as tf

    spec = _dataset(_arrays(1, 0)).element_spec
    loss_fn = lambda: tf.keras.losses.SparseCategoricalCrossentropy(True, reduction=reduction)

    def found(t):
        model_fn = lambda: make(t, spec)
        given = dict(loss_fn=loss_fn, metrics_fn=_metrics)
        process = t.learning.algorithms.build_fed_recon(model_fn, **given)
        evaluation = t.learning.algorithms.build_fed_recon_eval(model_fn, **given)
        state, evaluated, metrics = process.initialize(), evaluation.initialize(), []
        for clients in (ROUNDS[0], ROUNDS[1], ROUNDS[-1]):
            data = [_dataset(client) for client in clients]
            state, trained = process.next(state, data)
            weights = process.get_model_weights(state)
            output = evaluation.next(evaluation.set_model_weights(evaluated, weights), data)
            evaluated = output.state
            metrics.append([trained["client_work"], output.metrics["client_work"]])
        return metrics, [list(weights.trainable), list(weights.non_trainable)]

    theirs, mine = found(tff), found(our_tff)
    for expected, one in zip(tf.nest.flatten(theirs), tf.nest.flatten(mine), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-6)  # three rounds


def test_the_converter_refuses_what_tff_refuses(tff):
    spec = _dataset(_arrays(1, 0)).element_spec
    convert = tff.learning.models.ReconstructionModel.from_keras_model_and_layers
    keras_model = _keras_model()
    first, local, frozen, last = keras_model.layers
    for ours, own, words, theirs in (
        ([first, local, frozen], [local, last], "is among the", "must be disjoint"),
        ([first, frozen], [local], "neither global nor local", "must include all"),
    ):
        with pytest.raises(ValueError, match=theirs):
            convert(keras_model, global_layers=ours, local_layers=own, input_spec=spec)
        with pytest.raises(fb.ModelError, match=words):
            from_keras_reconstruction(keras_model, ours, own, _loss())
