"""An autoencoder whose labels are its inputs; unweighted; resumed from weights in an npz file."""

import collections
import os
import tempfile

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(5)
data = {str(i): rng.rand(8 + i, 10).astype("float32") for i in range(3)}
datasets = [
    tf.data.Dataset.from_tensor_slices(rows)
    .batch(4)
    .map(lambda element: collections.OrderedDict(x=element, y=element))
    for rows in data.values()
]


def create_keras_model():
    init = lambda seed: tf.keras.initializers.GlorotNormal(seed=seed)
    return tf.keras.models.Sequential(
        [
            tf.keras.layers.Dense(
                4, activation="tanh", input_shape=(10,), kernel_initializer=init(1)
            ),
            tf.keras.layers.Dense(10, activation="sigmoid", kernel_initializer=init(2)),
        ]
    )


def model_fn():
    return tff.learning.models.from_keras_model(
        create_keras_model(),
        loss=tf.keras.losses.MeanSquaredError(),
        input_spec=datasets[0].element_spec,
    )


def build():
    return tff.learning.algorithms.build_unweighted_fed_avg(
        model_fn, client_optimizer_fn=tff.learning.optimizers.build_adagrad(0.1, 0.1)
    )


process = build()
state = process.initialize()
for _ in range(2):
    state, metrics = process.next(state, datasets)
    print(metrics["client_work"]["train"]["loss"])
path = os.path.join(tempfile.mkdtemp(), "weights.npz")
np.savez(path, *process.get_model_weights(state).trainable)

again = build()
loaded = np.load(path)
weights = tff.learning.models.ModelWeights([loaded[name] for name in loaded.files], [])
state = again.set_model_weights(again.initialize(), weights)
for _ in range(2):
    state, metrics = again.next(state, datasets)
    print(metrics["client_work"]["train"])
