"""2024: client data from a function, preprocessed as a whole, a sampler, FedProx."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(13)
rows = {f"user {i}": rng.randn(3 + i, 4).astype("float32") for i in range(5)}


def make_dataset(client_id):
    return tf.data.Dataset.from_tensor_slices({"features": rows[client_id]})


client_data = tff.simulation.datasets.ClientData.from_clients_and_tf_fn(sorted(rows), make_dataset)


def preprocess(dataset):
    def to_pair(element):
        return {"x": element["features"] * 2.0, "y": tf.reshape(element["features"][0], [1])}

    return dataset.map(to_pair).shuffle(10, seed=2).batch(2)


train = client_data.preprocess(preprocess)


def model_fn():
    keras_model = tf.keras.Sequential(
        [tf.keras.layers.Dense(1, input_shape=(4,), kernel_initializer="zeros")]
    )
    return tff.learning.models.from_keras_model(
        keras_model, tf.keras.losses.MeanSquaredError(), input_spec=train.element_type_structure
    )


process = tff.learning.algorithms.build_weighted_fed_prox(
    model_fn,
    proximal_strength=0.2,
    client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.05),
    server_optimizer_fn=tff.learning.optimizers.build_adagrad(0.1),
)
sample = tff.simulation.build_uniform_sampling_fn(train.client_ids, random_seed=9)
state = process.initialize()
for number in range(3):
    ids = sample(number, 3)
    state, metrics = process.next(state, [train.create_tf_dataset_for_client(i) for i in ids])
    print(sorted(ids), "{:.5f}".format(float(metrics["client_work"]["train"]["loss"])))
