"""2024: "Building your own federated learning algorithm", with NumPy types and plain Keras."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(5)


def client(n):
    data = collections.OrderedDict(
        pixels=rng.rand(n, 2, 3).astype("float32"), label=rng.randint(0, 4, [n]).astype("int32")
    )
    return tf.data.Dataset.from_tensor_slices(data)


def preprocess(dataset):
    def batch_format_fn(element):
        return (tf.reshape(element["pixels"], [-1, 6]), tf.reshape(element["label"], [-1, 1]))

    return dataset.batch(4).map(batch_format_fn)


federated_train_data = [preprocess(client(n)) for n in (10, 3, 7)]


def create_keras_model():
    initializer = tf.keras.initializers.GlorotNormal(seed=0)
    return tf.keras.models.Sequential([
        tf.keras.layers.Input(shape=(6,)),
        tf.keras.layers.Dense(4, kernel_initializer=initializer),
        tf.keras.layers.Softmax(),
    ])  # fmt: skip


loss_fn = tf.keras.losses.SparseCategoricalCrossentropy()


@tf.function
def client_update(model, dataset, server_weights, client_optimizer):
    """Performs training (using the server model weights) on the client's dataset."""
    client_weights = model.trainable_variables
    tf.nest.map_structure(lambda x, y: x.assign(y), client_weights, server_weights)
    for batch in dataset:
        with tf.GradientTape() as tape:
            x, y = batch
            loss = loss_fn(y, model(x, training=True))
        grads = tape.gradient(loss, client_weights)
        client_optimizer.apply_gradients(zip(grads, client_weights))
    return client_weights


@tf.function
def server_update(model, mean_client_weights):
    model_weights = model.trainable_variables
    tf.nest.map_structure(lambda x, y: x.assign(y), model_weights, mean_client_weights)
    return model_weights


@tff.tensorflow.computation
def server_init():
    model = create_keras_model()
    return model.trainable_variables


@tff.federated_computation
def initialize_fn():
    return tff.federated_eval(server_init, tff.SERVER)


tf_dataset_type = tff.SequenceType(
    tff.types.tensorflow_to_type(federated_train_data[0].element_spec)
)
print(str(tf_dataset_type))
model_weights_type = server_init.type_signature.result
print(str(model_weights_type))


@tff.tensorflow.computation(tf_dataset_type, model_weights_type)
def client_update_fn(tf_dataset, server_weights):
    model = create_keras_model()
    client_optimizer = tf.keras.optimizers.SGD(learning_rate=0.1)
    return client_update(model, tf_dataset, server_weights, client_optimizer)


@tff.tensorflow.computation(model_weights_type)
def server_update_fn(mean_client_weights):
    model = create_keras_model()
    return server_update(model, mean_client_weights)


federated_server_type = tff.FederatedType(model_weights_type, tff.SERVER)
federated_dataset_type = tff.FederatedType(tf_dataset_type, tff.CLIENTS)


@tff.federated_computation(federated_server_type, federated_dataset_type)
def next_fn(server_weights, federated_dataset):
    server_weights_at_client = tff.federated_broadcast(server_weights)
    client_weights = tff.federated_map(
        client_update_fn, (federated_dataset, server_weights_at_client)
    )
    mean_client_weights = tff.federated_mean(client_weights)
    server_weights = tff.federated_map(server_update_fn, mean_client_weights)
    return server_weights


federated_algorithm = tff.templates.IterativeProcess(initialize_fn=initialize_fn, next_fn=next_fn)
print(str(federated_algorithm.initialize.type_signature))
print(federated_algorithm.next.type_signature.formatted_representation())


def evaluate(server_state):
    keras_model = create_keras_model()
    keras_model.compile(
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )
    keras_model.set_weights(server_state)
    central = federated_train_data[0].concatenate(federated_train_data[2])
    loss, accuracy = keras_model.evaluate(central, verbose=0)
    print(f"loss {loss:.4f} accuracy {accuracy:.4f}")


server_state = federated_algorithm.initialize()
evaluate(server_state)
for _ in range(5):
    server_state = federated_algorithm.next(server_state, federated_train_data)
evaluate(server_state)
print(np.round(server_state[1], 5).tolist())
