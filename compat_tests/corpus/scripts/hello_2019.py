"""2019: contexts, the first computation, a compiled Keras model, flat metrics."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

tf.compat.v1.enable_v2_behavior()
tff.framework.set_default_executor(tff.framework.local_executor_factory())
print(tff.federated_computation(lambda: "Hello, World!")())

rng = np.random.RandomState(0)
data = [
    collections.OrderedDict(
        x=rng.rand(n, 4).astype("float32"), y=rng.randint(0, 3, [n, 1]).astype("int32")
    )
    for n in (7, 12, 3)
]
federated_train_data = [
    tf.data.Dataset.from_tensor_slices(d).repeat(2).shuffle(5, seed=1).batch(4) for d in data
]
sample_batch = tf.nest.map_structure(lambda x: x.numpy(), iter(federated_train_data[0]).next())


def model_fn():
    keras_model = tf.keras.models.Sequential([
        tf.keras.layers.Dense(3, activation=tf.nn.softmax, kernel_initializer="zeros", input_shape=(4,))
    ])  # fmt: skip
    keras_model.compile(
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        optimizer=tf.keras.optimizers.SGD(learning_rate=0.1),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )
    return tff.learning.from_compiled_keras_model(keras_model, sample_batch)


process = tff.learning.build_federated_averaging_process(
    model_fn, client_optimizer_fn=lambda: tf.keras.optimizers.SGD(0.1)
)
state = process.initialize()
for round_num in range(1, 4):
    state, metrics = process.next(state, federated_train_data)
    print("round", round_num, metrics.loss, metrics.sparse_categorical_accuracy)
print(np.round(state.model.trainable[0], 4).tolist())
