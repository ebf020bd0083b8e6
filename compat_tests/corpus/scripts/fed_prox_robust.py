"""FedProx with a robust aggregator; batches in lists, not data sets."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(4)
clients = [
    [
        collections.OrderedDict(
            x=rng.rand(4, 5).astype("float32"), y=rng.randint(0, 2, (4, 1)).astype("float32")
        )
        for _ in range(batches)
    ]
    for batches in (3, 1, 2)
]
spec = collections.OrderedDict(
    x=tf.TensorSpec([None, 5], tf.float32), y=tf.TensorSpec([None, 1], tf.float32)
)


def model_fn():
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Dense(
                1, activation="sigmoid", input_shape=(5,), kernel_initializer="zeros"
            )
        ]
    )
    return tff.learning.models.from_keras_model(
        model,
        loss=tf.keras.losses.BinaryCrossentropy(),
        input_spec=spec,
        metrics=[tf.keras.metrics.BinaryAccuracy(), tf.keras.metrics.Precision()],
    )


process = tff.learning.algorithms.build_weighted_fed_prox(
    model_fn,
    proximal_strength=0.1,
    client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.2),
    model_aggregator=tff.learning.robust_aggregator(zeroing=False),
)
state = process.initialize()
for _ in range(3):
    state, metrics = process.next(state, clients)
    print(metrics["client_work"]["train"])
    print(metrics["aggregator"])
