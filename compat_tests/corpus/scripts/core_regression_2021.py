"""2021: gradient descent as sequence_reduce, after "Custom federated algorithms, part 2"."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(3)


def batches(n):
    return [
        collections.OrderedDict(
            x=rng.rand(4, 6).astype("float32"), y=rng.randint(0, 3, [4]).astype("int32")
        )
        for _ in range(n)
    ]


federated_train_data = [batches(n) for n in (3, 1, 2)]

BATCH_SPEC = collections.OrderedDict(
    x=tf.TensorSpec(shape=[None, 6], dtype=tf.float32),
    y=tf.TensorSpec(shape=[None], dtype=tf.int32),
)
BATCH_TYPE = tff.to_type(BATCH_SPEC)
MODEL_SPEC = collections.OrderedDict(
    weights=tf.TensorSpec(shape=[6, 3], dtype=tf.float32),
    bias=tf.TensorSpec(shape=[3], dtype=tf.float32),
)
MODEL_TYPE = tff.to_type(MODEL_SPEC)
print(BATCH_TYPE, MODEL_TYPE)


@tf.function
def forward_pass(model, batch):
    predicted_y = tf.nn.softmax(tf.matmul(batch["x"], model["weights"]) + model["bias"])
    one_hot = tf.one_hot(batch["y"], 3)
    return -tf.reduce_mean(tf.reduce_sum(one_hot * tf.math.log(predicted_y), axis=[1]))


@tff.tf_computation(MODEL_TYPE, BATCH_TYPE)
def batch_loss(model, batch):
    return forward_pass(model, batch)


print(batch_loss.type_signature)
initial_model = collections.OrderedDict(
    weights=np.zeros([6, 3], dtype=np.float32), bias=np.zeros([3], dtype=np.float32)
)
sample_batch = federated_train_data[0][-1]
print(batch_loss(initial_model, sample_batch))


@tff.tf_computation(MODEL_TYPE, BATCH_TYPE, tf.float32)
def batch_train(initial_model, batch, learning_rate):
    # Variables of their own in every call.
    model_vars = collections.OrderedDict(
        (name, tf.Variable(name=name, initial_value=value)) for name, value in initial_model.items()
    )
    optimizer = tf.keras.optimizers.SGD(learning_rate)

    @tf.function
    def _train_on_batch(model_vars, batch):
        with tf.GradientTape() as tape:
            loss = forward_pass(model_vars, batch)
        grads = tape.gradient(loss, list(model_vars.values()))
        optimizer.apply_gradients(zip(grads, model_vars.values()))
        return model_vars

    return _train_on_batch(model_vars, batch)


print(batch_train.type_signature)
model = initial_model
for _ in range(3):
    model = batch_train(model, sample_batch, 0.1)
    print(type(model).__name__, batch_loss(model, sample_batch))

LOCAL_DATA_TYPE = tff.SequenceType(BATCH_TYPE)


@tff.federated_computation(MODEL_TYPE, LOCAL_DATA_TYPE)
def local_train(initial_model, all_batches):
    @tff.federated_computation(MODEL_TYPE, BATCH_TYPE)
    def batch_fn(model, batch):
        return batch_train(model, batch, 0.1)

    return tff.sequence_reduce(all_batches, initial_model, batch_fn)


print(local_train.type_signature)
local_model = local_train(initial_model, federated_train_data[0])
print(np.round(local_model["weights"][0], 5).tolist())

SERVER_MODEL_TYPE = tff.type_at_server(MODEL_TYPE)
CLIENT_DATA_TYPE = tff.type_at_clients(LOCAL_DATA_TYPE)


@tff.tf_computation(MODEL_TYPE, LOCAL_DATA_TYPE)
def local_eval(model, all_batches):
    return all_batches.reduce(0.0, lambda total, batch: total + forward_pass(model, batch))


@tff.federated_computation(SERVER_MODEL_TYPE, CLIENT_DATA_TYPE)
def federated_eval(model, data):
    return tff.federated_mean(tff.federated_map(local_eval, [tff.federated_broadcast(model), data]))


@tff.federated_computation(SERVER_MODEL_TYPE, CLIENT_DATA_TYPE)
def federated_train(model, data):
    return tff.federated_mean(
        tff.federated_map(local_train, [tff.federated_broadcast(model), data])
    )


print(federated_train.type_signature)
model = initial_model
for round_num in range(3):
    model = federated_train(model, federated_train_data)
    print("round", round_num, "loss", federated_eval(model, federated_train_data))
