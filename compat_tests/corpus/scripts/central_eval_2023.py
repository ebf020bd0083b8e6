"""2023: the weights go into a central Keras model after each round, which is evaluated there."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.default_rng(30)
centers = rng.normal(size=(3, 4)).astype(np.float32)


def draw(n):
    y = rng.integers(0, 3, n).astype(np.int32)
    return (centers[y] + 0.3 * rng.normal(size=(n, 4))).astype(np.float32), y


clients = [draw(n) for n in (12, 9, 15)]
x_test, y_test = draw(30)
train_data = [
    tf.data.Dataset.from_tensor_slices(pair).repeat(3).shuffle(30, seed=5).batch(6)
    for pair in clients
]


def create_keras_model():
    return tf.keras.models.Sequential(
        [
            tf.keras.layers.Dense(
                6, "tanh", input_shape=(4,), kernel_initializer=tf.keras.initializers.HeNormal(2)
            ),
            tf.keras.layers.Dense(3, kernel_initializer="zeros"),
        ]
    )


def model_fn():
    return tff.learning.models.from_keras_model(
        create_keras_model(),
        input_spec=train_data[0].element_spec,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


process = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn,
    client_optimizer_fn=lambda: tf.keras.optimizers.SGD(0.1),
    server_optimizer_fn=lambda: tf.keras.optimizers.SGD(1.0),
)
central = create_keras_model()
central.compile(
    loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
)
state = process.initialize()
for number in range(1, 4):
    result = process.next(state, train_data)
    state = result.state
    process.get_model_weights(state).assign_weights_to(central)
    loss, accuracy = central.evaluate(x_test, y_test, verbose=0)
    print(f"{number}: loss {loss:.4f} accuracy {accuracy:.4f}")
print(np.argmax(central.predict(x_test[:6], verbose=0), axis=1).tolist(), y_test[:6].tolist())
