"""2022: the tutorial on own algorithms with a model of tff.learning, and the types of a builder's."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(7)


def client(n):
    data = collections.OrderedDict(
        x=rng.rand(n, 6).astype("float32"), y=rng.randint(0, 4, [n, 1]).astype("int32")
    )
    return tf.data.Dataset.from_tensor_slices(data).batch(4)


federated_train_data = [client(n) for n in (10, 3, 7)]


def model_fn():
    keras_model = tf.keras.models.Sequential([
        tf.keras.layers.InputLayer(input_shape=(6,)),
        tf.keras.layers.Dense(4, kernel_initializer="zeros"),
        tf.keras.layers.Softmax(),
    ])  # fmt: skip
    return tff.learning.from_keras_model(
        keras_model,
        input_spec=federated_train_data[0].element_spec,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


@tf.function
def client_update(model, dataset, server_weights, client_optimizer):
    client_weights = model.trainable_variables
    tf.nest.map_structure(lambda x, y: x.assign(y), client_weights, server_weights)
    loss = tf.constant(0.0)
    for batch in dataset:
        with tf.GradientTape() as tape:
            outputs = model.forward_pass(batch)
        loss = outputs.loss
        grads = tape.gradient(loss, client_weights)
        client_optimizer.apply_gradients(zip(grads, client_weights))
    return client_weights, loss


@tf.function
def server_update(model, mean_client_weights):
    model_weights = model.trainable_variables
    tf.nest.map_structure(lambda x, y: x.assign(y), model_weights, mean_client_weights)
    return model_weights


@tff.tf_computation
def server_init():
    return model_fn().trainable_variables


@tff.federated_computation
def initialize_fn():
    return tff.federated_value(server_init(), tff.SERVER)


whimsy_model = model_fn()
tf_dataset_type = tff.SequenceType(whimsy_model.input_spec)
model_weights_type = server_init.type_signature.result


@tff.tf_computation(tf_dataset_type, model_weights_type)
def client_update_fn(tf_dataset, server_weights):
    client_optimizer = tf.keras.optimizers.legacy.SGD(learning_rate=0.5)
    return client_update(model_fn(), tf_dataset, server_weights, client_optimizer)


@tff.tf_computation(model_weights_type)
def server_update_fn(mean_client_weights):
    return server_update(model_fn(), mean_client_weights)


@tff.federated_computation(
    tff.type_at_server(model_weights_type), tff.type_at_clients(tf_dataset_type)
)
def next_fn(server_weights, federated_dataset):
    at_clients = tff.federated_broadcast(server_weights)
    client_weights, losses = tff.federated_map(client_update_fn, (federated_dataset, at_clients))
    mean_client_weights = tff.federated_mean(client_weights)
    return tff.federated_map(server_update_fn, mean_client_weights), losses


process = tff.templates.IterativeProcess(initialize_fn, next_fn)
print(process.initialize.type_signature, process.next.type_signature)
state = process.initialize()
for round_num in range(3):
    state, losses = process.next(state, federated_train_data)
    print(round_num, np.round(losses, 5).tolist())
print(np.round(state[1], 5).tolist())

learned = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn, client_optimizer_fn=lambda: tf.keras.optimizers.SGD(0.5)
)
print(str(learned.initialize.type_signature))
print(learned.next.type_signature.formatted_representation())
