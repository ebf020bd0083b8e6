"""Functional models: a regression by hand, and one of a Keras model with penalties and metrics."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(7)
data = [
    tf.data.Dataset.from_tensor_slices(
        (rng.rand(n, 3).astype("float32"), rng.rand(n, 1).astype("float32"))
    ).batch(4)
    for n in (9, 6, 2)
]
spec = data[0].element_spec


@tf.function
def initialize():
    return collections.OrderedDict(loss_sum=0.0, count=0.0)


@tf.function
def update(state, labels, batch_output, sample_weight=None):
    count = tf.cast(tf.shape(labels)[0], tf.float32)
    return collections.OrderedDict(
        loss_sum=state["loss_sum"] + batch_output.loss * count, count=state["count"] + count
    )


@tf.function
def finalize(state):
    return collections.OrderedDict(
        loss=state["loss_sum"] / state["count"], num_examples=state["count"]
    )


@tf.function
def predict_on_batch(model_weights, x, training):
    (w, b), _ = model_weights
    return tf.matmul(x, w, transpose_b=True) + b


def loss(output, label, sample_weight=None):
    return tf.math.reduce_mean(tf.math.pow(output - label, 2.0))


by_hand = tff.learning.models.FunctionalModel(
    initial_weights=((np.zeros([1, 3], np.float32), np.zeros([1], np.float32)), ()),
    predict_on_batch_fn=predict_on_batch,
    loss_fn=loss,
    metrics_fns=(initialize, update, finalize),
    input_spec=spec,
)
of_keras = tff.learning.models.functional_model_from_keras(
    lambda: tf.keras.Sequential([
        tf.keras.layers.InputLayer(input_shape=(3,)),
        tf.keras.layers.Dense(
            1, kernel_initializer="ones", kernel_regularizer=tf.keras.regularizers.L2(0.1)
        ),
    ]),
    loss_fn=tf.keras.losses.MeanSquaredError(),
    input_spec=spec,
    metrics_constructor=collections.OrderedDict(
        mae=lambda: tf.keras.metrics.MeanAbsoluteError(),
        batches=lambda: tff.learning.metrics.NumBatchesCounter(),
    ),
)  # fmt: skip
for model in (by_hand, of_keras):
    process = tff.learning.algorithms.build_weighted_fed_avg(
        model, client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1, momentum=0.5)
    )
    state = process.initialize()
    for round_num in range(3):
        state, metrics = process.next(state, data[: 1 + round_num])
        print(round_num, metrics["client_work"]["train"])
    weights = process.get_model_weights(state)
    print([np.round(w, 4).tolist() for w in weights.trainable])
    print(process.get_hparams(state))
