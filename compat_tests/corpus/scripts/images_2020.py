"""2020: from_clients_and_fn, printed metrics, evaluation of the state's weights, Keras weights."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(1)
images = {str(i): rng.rand(9 + i, 6, 6).astype("float32") for i in range(4)}
labels = {str(i): rng.randint(0, 4, 9 + i).astype("int32") for i in range(4)}


def create_tf_dataset_for_client_fn(client_id):
    return tf.data.Dataset.from_tensor_slices(
        collections.OrderedDict(pixels=images[client_id], label=labels[client_id])
    )


client_data = tff.simulation.ClientData.from_clients_and_fn(
    client_ids=list(images), create_tf_dataset_for_client_fn=create_tf_dataset_for_client_fn
)


def preprocess(dataset):
    def batch_format_fn(element):
        return collections.OrderedDict(
            x=tf.reshape(element["pixels"], [-1, 36]), y=tf.reshape(element["label"], [-1, 1])
        )

    return dataset.repeat(3).shuffle(10, seed=3).batch(5).map(batch_format_fn).prefetch(2)


def create_keras_model():
    return tf.keras.models.Sequential(
        [
            tf.keras.layers.InputLayer(input_shape=(36,)),
            tf.keras.layers.Dense(4, kernel_initializer="zeros"),
            tf.keras.layers.Softmax(),
        ]
    )


train = [preprocess(client_data.create_tf_dataset_for_client(i)) for i in client_data.client_ids]


def model_fn():
    return tff.learning.from_keras_model(
        create_keras_model(),
        input_spec=train[0].element_spec,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


iterative_process = tff.learning.build_federated_averaging_process(
    model_fn,
    client_optimizer_fn=lambda: tf.keras.optimizers.SGD(learning_rate=0.02),
    server_optimizer_fn=lambda: tf.keras.optimizers.SGD(learning_rate=1.0),
)
state = iterative_process.initialize()
for round_num in range(1, 4):
    state, metrics = iterative_process.next(state, train)
    print("round {:2d}, metrics={}".format(round_num, metrics["train"]))
evaluation = tff.learning.build_federated_evaluation(model_fn)
test_metrics = evaluation(state.model, train[:2])
print(test_metrics["eval"]["loss"], test_metrics["sparse_categorical_accuracy"])

keras_model = create_keras_model()
tff.learning.assign_weights_to_keras_model(keras_model, state.model)
print(np.round(keras_model.predict(images["0"].reshape(-1, 36)[:2], verbose=0), 5).tolist())
