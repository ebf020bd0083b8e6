"""MimeLite; a notebook-like order, an unseeded shuffle whose metrics do not depend on it."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

np.random.seed(8)
x = [np.random.rand(n, 4).astype("float32") for n in (6, 8)]
y = [np.random.rand(n, 1).astype("float32") for n in (6, 8)]


def make(i):
    rows = tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x[i], y=y[i]))
    return rows.shuffle(100).batch(20)  # one batch: the order of its rows does not matter


def model_fn():
    return tff.learning.models.from_keras_model(
        tf.keras.Sequential(
            [tf.keras.layers.Dense(1, input_shape=(4,), kernel_initializer="zeros")]
        ),
        loss=tf.keras.losses.MeanSquaredError(),
        input_spec=make(0).element_spec,
    )


process = tff.learning.algorithms.build_weighted_mime_lite(
    model_fn, base_optimizer=tff.learning.optimizers.build_adam(0.01, epsilon=0.01)
)
state = process.initialize()
for number in range(4):
    output = process.next(state, [make(0), make(1)])
    state = output.state
    print(number, np.round(output.metrics["client_work"]["train"]["loss"], 5))
