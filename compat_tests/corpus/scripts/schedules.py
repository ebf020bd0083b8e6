"""Learning rates that follow the rounds: FedAvg's in TensorFlow, MimeLite's in plain Python."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(2)
data = [
    tf.data.Dataset.from_tensor_slices(
        collections.OrderedDict(
            x=rng.rand(n, 4).astype("float32"), y=rng.randint(0, 3, n).astype("int32")
        )
    ).batch(4)
    for n in (9, 6)
]


def model_fn():
    return tff.learning.models.from_keras_model(
        tf.keras.Sequential(
            [tf.keras.layers.Dense(3, input_shape=(4,), kernel_initializer="zeros")]
        ),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=data[0].element_spec,
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


def learning_rate_fn(round_num):
    return tf.cond(tf.less(round_num, 2), lambda: 0.4, lambda: 0.1)


process = tff.learning.algorithms.build_weighted_fed_avg_with_optimizer_schedule(
    model_fn,
    client_learning_rate_fn=learning_rate_fn,
    client_optimizer_fn=lambda rate: tff.learning.optimizers.build_sgdm(rate, momentum=0.5),
    server_optimizer_fn=tff.learning.optimizers.build_adam(0.05, epsilon=0.01),
)
state = process.initialize()
for _ in range(4):
    state, metrics = process.next(state, data)
    print(dict(metrics["client_work"]["train"]), metrics["client_work"]["client_learning_rate"])

process = tff.learning.algorithms.build_mime_lite_with_optimizer_schedule(
    model_fn,
    learning_rate_fn=lambda round_num: 0.2 / tf.cast(round_num + 1, tf.float32),
    base_optimizer=tff.learning.optimizers.build_sgdm(0.3, momentum=0.9),
)
state = process.initialize()
for _ in range(3):
    state, metrics = process.next(state, data)
    print(metrics["client_work"]["train"]["loss"])
