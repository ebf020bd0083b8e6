"""2023: the recommended aggregators one after the other: compression, zeroing, clipping, none."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(40)
train_data = [
    tf.data.Dataset.from_tensor_slices(
        collections.OrderedDict(
            x=rng.rand(n, 5).astype("float32"), y=rng.rand(n, 1).astype("float32")
        )
    ).batch(4)
    for n in (6, 7, 3)
]


def model_fn():
    inputs = tf.keras.Input(shape=(5,))
    outputs = tf.keras.layers.Dense(1, kernel_initializer="zeros")(inputs)
    return tff.learning.models.from_keras_model(
        tf.keras.Model(inputs, outputs),
        input_spec=train_data[0].element_spec,
        loss=tf.keras.losses.MeanSquaredError(),
    )


aggregators = {
    "compression": tff.learning.compression_aggregator(zeroing=False, clipping=False),
    "robust": tff.learning.robust_aggregator(zeroing=True, clipping=True),
    "mean": tff.aggregators.MeanFactory(),
}
for name, model_aggregator in aggregators.items():
    process = tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.2),
        model_aggregator=model_aggregator,
    )
    state = process.initialize()
    losses = []
    for _ in range(2):
        state, metrics = process.next(state, train_data)
        losses.append(metrics["client_work"]["train"]["loss"])
    print(name, np.round(losses, 4).tolist(), sorted(metrics["aggregator"]))
