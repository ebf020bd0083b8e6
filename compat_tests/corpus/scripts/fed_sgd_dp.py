"""FedSGD; then FedAvg with the DP aggregator, its noise turned off; an empty client."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(7)
datasets = [
    tf.data.Dataset.from_tensor_slices(
        collections.OrderedDict(
            x=rng.rand(n, 3).astype("float32"), y=rng.randint(0, 2, n).astype("int64")
        )
    ).batch(4)
    for n in (9, 0, 5)
]


def model_fn():
    model = tf.keras.Sequential(
        [tf.keras.layers.Dense(2, input_shape=(3,), kernel_initializer="zeros")]
    )
    return tff.learning.models.from_keras_model(
        model,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=datasets[0].element_spec,
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


fed_sgd = tff.learning.algorithms.build_fed_sgd(
    model_fn, server_optimizer_fn=tff.learning.optimizers.build_sgdm(0.5, momentum=0.9)
)
state = fed_sgd.initialize()
for _ in range(3):
    state, metrics = fed_sgd.next(state, datasets)
    print(metrics["client_work"]["train"])

private = tff.learning.algorithms.build_unweighted_fed_avg(
    model_fn,
    client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1),
    model_aggregator=tff.learning.dp_aggregator(0.0, clients_per_round=3),
)
state = private.initialize()
for _ in range(3):
    output = private.next(state, datasets)
    state = output.state
    print(output.metrics["client_work"]["train"], sorted(output.metrics["aggregator"]))
