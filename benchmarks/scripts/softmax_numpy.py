"""`softmax.py` without TensorFlow: `fedbridge.tff`, Keras 3 and NumPy arrays alone.

As many clients, examples and batches; its data are numbers drawn here.
"""

import time

import keras
import numpy as np

from fedbridge import tff

print("imported", time.monotonic(), flush=True)

rng = np.random.default_rng(1)
examples = 198  # as many as a writer has on average


def batches():
    """Five epochs of a client's examples, shuffled, in batches of 20."""
    x = rng.random((examples, 784), np.float32)
    y = rng.integers(0, 62, examples, np.int32)
    order = np.concatenate([rng.permutation(examples) for _ in range(5)])
    return [{"x": x[rows], "y": y[rows]} for rows in np.split(order, range(20, len(order), 20))]


datasets = [batches() for _ in range(10)]


def model_fn():
    keras_model = keras.Sequential([
        keras.layers.Input((784,)),
        keras.layers.Dense(62, kernel_initializer="zeros"),
        keras.layers.Softmax(),
    ])  # fmt: skip
    return tff.learning.models.from_keras_model(
        keras_model,
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
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
