"""Metrics without names (two AUCs), precision and recall, in training and federated evaluation."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(12)


def dataset(n):
    x = rng.randn(n, 5).astype("float32")
    y = (x[:, :1] + 0.5 * rng.randn(n, 1) > 0).astype("int32")
    return tf.data.Dataset.from_tensor_slices((x, y)).repeat(2).batch(8)


train, test = [dataset(n) for n in (20, 13, 9)], [dataset(n) for n in (17, 6)]


def model_fn():
    return tff.learning.models.from_keras_model(
        tf.keras.Sequential([
            tf.keras.layers.Dense(1, "sigmoid", input_shape=(5,), kernel_initializer="zeros")
        ]),
        loss=tf.keras.losses.BinaryCrossentropy(),
        input_spec=train[0].element_spec,
        metrics=[
            tf.keras.metrics.BinaryAccuracy(),
            tf.keras.metrics.AUC(),
            tf.keras.metrics.AUC(curve="PR"),
            tf.keras.metrics.Precision(),
            tf.keras.metrics.Recall(),
        ],
    )  # fmt: skip


process = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn, client_optimizer_fn=tff.learning.optimizers.build_adagrad(0.2)
)
evaluation = tff.learning.algorithms.build_fed_eval(model_fn)
state, evaluation_state = process.initialize(), evaluation.initialize()
for round_num in range(3):
    output = process.next(state, train)
    state = output.state
    print(dict(output.metrics["client_work"]["train"]))
    evaluation_state = evaluation.set_model_weights(
        evaluation_state, process.get_model_weights(state)
    )
    evaluated = evaluation.next(evaluation_state, test)
    evaluation_state = evaluated.state
    print(evaluated.metrics["client_work"]["eval"]["total_rounds_metrics"])
