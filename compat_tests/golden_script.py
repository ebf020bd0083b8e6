"""The TFF script behind tests/traces/: FedAvg on four ragged clients, one of them empty.

fedbridge record compat_tests/golden_script.py -o tests/traces/momentum -- --client_momentum 0.9
"""

import argparse
import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

parser = argparse.ArgumentParser()
parser.add_argument("--builder", default="weighted", choices=["weighted", "unweighted"])
parser.add_argument("--client", default="sgdm")
parser.add_argument("--server", default="sgdm")
parser.add_argument("--client_momentum", type=float)
parser.add_argument("--uniform", action="store_true")
flags = parser.parse_args()

rng = np.random.default_rng(0)


def dataset(rows: int) -> tf.data.Dataset:
    x = rng.random((rows, 6), dtype=np.float32)
    y = rng.integers(0, 3, rows).astype(np.int32)
    slices = tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x, y=y))
    return slices.repeat(2).shuffle(8, seed=1).batch(4)


datasets = [dataset(rows) for rows in (9, 13, 0, 1)]


def model_fn():
    glorot = tf.keras.initializers.GlorotUniform
    layers = [
        tf.keras.layers.InputLayer(input_shape=(6,)),
        tf.keras.layers.Dense(5, activation="tanh", kernel_initializer=glorot(seed=1)),
        tf.keras.layers.Dense(3, activation="softmax", kernel_initializer=glorot(seed=2)),
    ]
    return tff.learning.models.from_keras_model(
        tf.keras.Sequential(layers),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        input_spec=datasets[0].element_spec,
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


def optimizer(name: str, momentum=None):
    if name == "keras_nesterov":
        return lambda: tf.keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
    if name == "keras_rmsprop":
        return lambda: tf.keras.optimizers.RMSprop(0.05)
    optimizers = tff.learning.optimizers
    if name == "sgdm":
        return optimizers.build_sgdm(0.1, momentum)
    return getattr(optimizers, f"build_{name}")(0.05)


arguments = {}
if flags.uniform:
    arguments["client_weighting"] = tff.learning.ClientWeighting.UNIFORM
build = getattr(tff.learning.algorithms, f"build_{flags.builder}_fed_avg")
process = build(
    model_fn,
    optimizer(flags.client, flags.client_momentum),
    optimizer(flags.server, 0.5 if flags.server == "sgdm" else None),
    **arguments,
)
evaluation = tff.learning.algorithms.build_fed_eval(model_fn)
state = process.initialize()
for _ in range(3):
    state, metrics = process.next(state, datasets)
    print(metrics)
evaluated = evaluation.initialize()
evaluated = evaluation.set_model_weights(evaluated, process.get_model_weights(state))
print(evaluation.next(evaluated, datasets[:2]).metrics)
