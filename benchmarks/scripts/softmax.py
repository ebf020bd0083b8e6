"""Softmax regression on EMNIST in TFF's words, ten rounds: what `benchmarks.script` times.

Ordinary, but that it says when its imports and its rounds were done.
"""

import collections
import time

import tensorflow as tf
import tensorflow_federated as tff

print("imported", time.monotonic(), flush=True)

train, _ = tff.simulation.datasets.emnist.load_data(only_digits=False, cache_dir="data")


def preprocess(dataset):
    def to_batch(element):
        return collections.OrderedDict(
            x=tf.reshape(element["pixels"], [-1, 784]), y=element["label"]
        )

    return dataset.repeat(5).shuffle(100, seed=1).batch(20).map(to_batch).prefetch(10)


datasets = [preprocess(train.create_tf_dataset_for_client(c)) for c in train.client_ids[:10]]


def model_fn():
    keras_model = tf.keras.Sequential([
        tf.keras.layers.InputLayer(input_shape=(784,)),
        tf.keras.layers.Dense(62, kernel_initializer="zeros"),
        tf.keras.layers.Softmax(),
    ])  # fmt: skip
    return tff.learning.models.from_keras_model(
        keras_model,
        input_spec=datasets[0].element_spec,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


process = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn,
    client_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=0.02),
    server_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=1.0),
)
state = process.initialize()
for _ in range(10):
    result = process.next(state, datasets)
    state = result.state
print("loss", result.metrics["client_work"]["train"]["loss"])
print("done", time.monotonic(), flush=True)
