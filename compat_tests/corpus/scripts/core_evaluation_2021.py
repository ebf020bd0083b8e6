"""2021: evaluation by hand with Keras metrics, hyperparameters from the server, a list per client."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

np.random.seed(9)


def client(n):
    features = np.random.rand(n, 4).astype("float32")
    labels = (features.sum(axis=1) > 2).astype("int64")
    return tf.data.Dataset.from_tensor_slices({"x": features, "y": labels}).batch(3)


datasets = [client(n) for n in (7, 5, 2)]


def build_model():
    return tf.keras.Sequential([
        tf.keras.layers.Dense(1, input_shape=(4,), kernel_initializer="ones", activation="sigmoid")
    ])  # fmt: skip


@tff.tf_computation
def weights_fn():
    return tuple(build_model().weights)


WEIGHTS = weights_fn.type_signature.result


@tff.tf_computation(WEIGHTS, tf.float32, tff.SequenceType(datasets[0].element_spec))
def evaluate(weights, threshold, dataset):
    model = build_model()
    metrics = [
        tf.keras.metrics.BinaryAccuracy(threshold=0.9, name="accuracy"),
        tf.keras.metrics.MeanSquaredError(name="mse"),
        tf.keras.metrics.Sum(name="above"),
    ]

    @tf.function
    def loop():
        tf.nest.map_structure(lambda v, t: v.assign(t), tuple(model.weights), weights)
        for batch in dataset:
            predictions = model(batch["x"], training=False)[:, 0]
            metrics[0].update_state(batch["y"][:, None], predictions[:, None])
            metrics[1].update_state(batch["y"], predictions)
            metrics[2].update_state(tf.cast(predictions > threshold, tf.float32))
        return collections.OrderedDict(
            (m.name, [v.read_value() for v in m.variables]) for m in metrics
        )

    return loop()


print(evaluate.type_signature.result)


@tff.tf_computation(evaluate.type_signature.result)
def finalize(sums):
    return collections.OrderedDict(
        accuracy=sums["accuracy"][0] / sums["accuracy"][1],
        mse=sums["mse"][0] / sums["mse"][1],
        above=tf.cast(sums["above"][0], tf.int32),
    )


@tff.federated_computation(
    tff.types.at_server(WEIGHTS),
    tff.types.at_server(tf.float32),
    tff.types.at_clients(tff.SequenceType(datasets[0].element_spec)),
)
def federated_evaluation(weights, threshold, data):
    at_clients = tff.federated_broadcast(tff.federated_zip((weights, threshold)))
    sums = tff.federated_map(evaluate, (at_clients[0], at_clients[1], data))
    everybody = tff.federated_map(finalize, tff.federated_sum(sums))
    return {"all": everybody, "each": tff.federated_map(finalize, sums)}


print(federated_evaluation.type_signature)
weights = weights_fn()
for threshold in (0.5, 0.9):
    found = federated_evaluation(weights, threshold, datasets)
    print(threshold, {name: round(float(value), 5) for name, value in found["all"].items()})
    for number, one in enumerate(found["each"]):
        print(" client", number, type(one).__name__, [round(float(v), 5) for v in one.values()])
# The weights as keyword arguments, another number of clients.
found = federated_evaluation(weights=weights, threshold=0.7, data=datasets[:1])
print(len(found["each"]), found["all"]["above"])
