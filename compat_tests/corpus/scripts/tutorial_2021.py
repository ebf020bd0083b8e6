"""2021: a function that makes the federated data, an example data set, metrics printed whole."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

print(tff.federated_computation(lambda: "Hello, World!")())

NUM_CLIENTS = 3
NUM_EPOCHS = 2
BATCH_SIZE = 4
SHUFFLE_BUFFER = 6

rng = np.random.RandomState(11)
emnist_train = tff.simulation.datasets.TestClientData({
    f"f{i}": {
        "pixels": rng.rand(5 + 2 * i, 4, 4).astype("float32"),
        "label": rng.randint(0, 3, 5 + 2 * i).astype("int32"),
    }
    for i in range(5)
})  # fmt: skip
example_dataset = emnist_train.create_tf_dataset_for_client(emnist_train.client_ids[0])


def preprocess(dataset):
    def batch_format_fn(element):
        """Flatten a batch and return the features as an `OrderedDict`."""
        return collections.OrderedDict(
            x=tf.reshape(element["pixels"], [-1, 16]), y=tf.reshape(element["label"], [-1, 1])
        )

    return (
        dataset.repeat(NUM_EPOCHS)
        .shuffle(SHUFFLE_BUFFER, seed=1)
        .batch(BATCH_SIZE)
        .map(batch_format_fn)
        .prefetch(tf.data.experimental.AUTOTUNE)
    )


preprocessed_example_dataset = preprocess(example_dataset)


def make_federated_data(client_data, client_ids):
    return [preprocess(client_data.create_tf_dataset_for_client(x)) for x in client_ids]


sample_clients = emnist_train.client_ids[0:NUM_CLIENTS]
federated_train_data = make_federated_data(emnist_train, sample_clients)


def create_keras_model():
    return tf.keras.models.Sequential([
        tf.keras.layers.InputLayer(input_shape=(16,)),
        tf.keras.layers.Dense(3, kernel_initializer="zeros"),
        tf.keras.layers.Softmax(),
    ])  # fmt: skip


def model_fn():
    # We _must_ create a new model here, and _not_ capture it from an external scope.
    keras_model = create_keras_model()
    return tff.learning.from_keras_model(
        keras_model,
        input_spec=preprocessed_example_dataset.element_spec,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


iterative_process = tff.learning.build_federated_averaging_process(
    model_fn,
    client_optimizer_fn=lambda: tf.keras.optimizers.SGD(learning_rate=0.02),
    server_optimizer_fn=lambda: tf.keras.optimizers.SGD(learning_rate=1.0),
)
state = iterative_process.initialize()
state, metrics = iterative_process.next(state, federated_train_data)
print("round  1, loss={:.5f}".format(metrics["train"]["loss"]))
for round_num in range(2, 5):
    state, metrics = iterative_process.next(state, federated_train_data)
    print("round {:2d}, loss={:.5f}".format(round_num, metrics["train"]["loss"]))

evaluation = tff.learning.build_federated_evaluation(model_fn)
federated_test_data = make_federated_data(emnist_train, emnist_train.client_ids[3:])
test_metrics = evaluation(state.model, federated_test_data)
print("{:.5f}".format(float(test_metrics["sparse_categorical_accuracy"])))
