"""Next words with Embedding and LSTM; sequences padded to one length."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(6)
clients = {str(i): rng.randint(1, 12, (6 + i, 7)) for i in range(3)}


def preprocess(dataset):
    split = lambda tokens: (tokens[:, :-1], tokens[:, 1:])
    return dataset.shuffle(4, seed=2).batch(4).map(split)


data = tff.simulation.datasets.TestClientData({i: (rows,) for i, rows in clients.items()})
data = data.preprocess(lambda dataset: preprocess(dataset.map(lambda rows: rows)))
datasets = [data.create_tf_dataset_for_client(i) for i in data.client_ids]


def model_fn():
    init = lambda seed: tf.keras.initializers.GlorotUniform(seed=seed)
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Embedding(12, 5, embeddings_initializer=init(1), input_length=6),
            tf.keras.layers.LSTM(
                6, return_sequences=True, kernel_initializer=init(2), recurrent_initializer=init(3)
            ),
            tf.keras.layers.Dense(12, kernel_initializer=init(4)),
        ]
    )
    return tff.learning.models.from_keras_model(
        model,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=data.element_type_structure,
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


process = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn, client_optimizer_fn=lambda: tf.keras.optimizers.SGD(0.3)
)
state = process.initialize()
for _ in range(3):
    state, metrics = process.next(state, datasets)
    print(metrics["client_work"]["train"])
