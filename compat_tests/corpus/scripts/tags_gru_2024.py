"""2024: tags of short texts, several a text: Embedding, GRU, sigmoids; Adagrad on the clients."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(70)
VOCABULARY, LENGTH, TAGS = 9, 5, 4


def texts(n):
    tokens = rng.randint(0, VOCABULARY, (n, LENGTH))
    tags = (tokens[:, :, None] % TAGS == np.arange(TAGS)).any(1)
    return collections.OrderedDict(tokens=tokens.astype("int64"), tags=tags.astype("float32"))


clients = tff.simulation.datasets.TestClientData({f"user{i}": texts(7 + i) for i in range(3)})


def preprocess(dataset):
    batched = dataset.take(9).shuffle(9, seed=6).repeat(2).batch(4)
    return batched.map(lambda e: (e["tokens"], e["tags"]), num_parallel_calls=tf.data.AUTOTUNE)


federated_data = [preprocess(clients.create_tf_dataset_for_client(c)) for c in clients.client_ids]


def model_fn():
    init = lambda seed: tf.keras.initializers.GlorotUniform(seed=seed)
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Embedding(
                VOCABULARY, 4, input_length=LENGTH, embeddings_initializer=init(1)
            ),
            tf.keras.layers.GRU(5, kernel_initializer=init(2), recurrent_initializer=init(3)),
            tf.keras.layers.Dense(TAGS, activation="sigmoid", kernel_initializer=init(4)),
        ]
    )
    return tff.learning.models.from_keras_model(
        model,
        loss=tf.keras.losses.BinaryCrossentropy(),
        input_spec=federated_data[0].element_spec,
        metrics=[tf.keras.metrics.BinaryAccuracy(), tf.keras.metrics.Recall(name="recall")],
    )


trainer = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn,
    client_optimizer_fn=tff.learning.optimizers.build_adagrad(0.1),
    server_optimizer_fn=tff.learning.optimizers.build_yogi(0.1, epsilon=1e-3),
)
state = trainer.initialize()
for round_num in range(3):
    result = trainer.next(state, federated_data)
    state, metrics = result.state, result.metrics["client_work"]["train"]
    print(round_num, {name: f"{value:.4f}" for name, value in metrics.items()})
