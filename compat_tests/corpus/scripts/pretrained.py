"""Weights set in model_fn, which TFF loses; then put into the state, where they stay."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(21)
batches = [
    collections.OrderedDict(x=rng.rand(4, 2).astype("float32"), y=rng.rand(4, 1).astype("float32"))
    for _ in range(3)
]
pretrained = [np.full((2, 1), 0.5, np.float32), np.full(1, 0.25, np.float32)]


def create_keras_model():
    return tf.keras.Sequential(
        [tf.keras.layers.Dense(1, input_shape=(2,), kernel_initializer="ones")]
    )


def model_fn():
    keras_model = create_keras_model()
    keras_model.set_weights(pretrained)
    return tff.learning.models.from_keras_model(
        keras_model,
        loss=tf.keras.losses.MeanSquaredError(),
        input_spec=collections.OrderedDict(
            x=tf.TensorSpec([None, 2], tf.float32), y=tf.TensorSpec([None, 1], tf.float32)
        ),
    )


process = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn, client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1)
)
state = process.initialize()
print([weight.tolist() for weight in process.get_model_weights(state).trainable])
weights = tff.learning.models.ModelWeights(trainable=pretrained, non_trainable=[])
state = process.set_model_weights(state, weights)
for _ in range(2):
    state, metrics = process.next(state, [batches[:2], batches[2:]])
    print(np.round(metrics["client_work"]["train"]["loss"], 5))
print([np.round(weight, 5).tolist() for weight in process.get_model_weights(state).trainable])
