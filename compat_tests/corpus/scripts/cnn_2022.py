"""2022: weighted FedAvg, Keras Adam on the server, weights into a Keras model, central evaluation."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

tff.backends.native.set_local_python_execution_context()
rng = np.random.RandomState(2)
clients = {
    f"client_{i}": collections.OrderedDict(
        pixels=rng.rand(n, 8, 8).astype("float32"), label=rng.randint(0, 3, n).astype("int32")
    )
    for i, n in enumerate((11, 6, 14))
}
client_data = tff.simulation.datasets.TestClientData(clients)


def preprocess(dataset):
    to_batch = lambda e: (tf.expand_dims(e["pixels"], -1), e["label"])
    return dataset.shuffle(8, seed=5).batch(4, drop_remainder=False).map(to_batch)


train = client_data.preprocess(preprocess)
datasets = [train.create_tf_dataset_for_client(i) for i in train.client_ids]


def create_keras_model():
    init = lambda seed: tf.keras.initializers.GlorotUniform(seed=seed)
    return tf.keras.Sequential([
        tf.keras.layers.Conv2D(4, 3, activation="relu", input_shape=(8, 8, 1), kernel_initializer=init(1)),
        tf.keras.layers.MaxPooling2D(2),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(3, kernel_initializer=init(2)),
    ])  # fmt: skip


def model_fn():
    return tff.learning.models.from_keras_model(
        keras_model=create_keras_model(),
        input_spec=train.element_type_structure,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy("accuracy")],
    )


process = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn,
    client_optimizer_fn=lambda: tf.keras.optimizers.SGD(learning_rate=0.05, momentum=0.9),
    server_optimizer_fn=lambda: tf.keras.optimizers.Adam(learning_rate=0.01, epsilon=0.001),
)
state = process.initialize()
for round_num in range(3):
    result = process.next(state, datasets)
    state = result.state
    print(round_num, result.metrics["client_work"]["train"])

model = create_keras_model()
model.compile(
    loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
)
process.get_model_weights(state).assign_weights_to(model)
central = client_data.create_tf_dataset_from_all_clients(seed=1)
central = central.map(lambda e: (tf.expand_dims(e["pixels"], -1), e["label"])).batch(8)
print(np.round(model.evaluate(central, verbose=0), 4).tolist())
