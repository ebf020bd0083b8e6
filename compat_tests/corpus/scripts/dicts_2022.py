"""2022: own data in dictionaries, renamed features, an adaptive server, counts of each client."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

np.random.seed(3)
tf.random.set_seed(3)

samples, labels = np.random.rand(48, 6), np.random.randint(0, 4, 48)
order = np.random.permutation(48)
train_set_dict = {}
for number, part in enumerate(np.split(order, [10, 24, 41])):
    train_set_dict[f"client_{number}"] = collections.OrderedDict(
        (("label", labels[part].astype(np.int32)), ("image", samples[part].astype(np.float32)))
    )
client_data = tff.simulation.datasets.TestClientData(train_set_dict)
print(client_data.client_ids, [len(d["label"]) for d in train_set_dict.values()])


def preprocess(dataset):
    batch_format_fn = lambda element: collections.OrderedDict(
        x=element["image"], y=element["label"]
    )
    return dataset.shuffle(20, seed=8, reshuffle_each_iteration=True).batch(6).map(batch_format_fn)


federated = [
    preprocess(client_data.create_tf_dataset_for_client(c)) for c in client_data.client_ids
]


def create_keras_model():
    return tf.keras.Sequential(
        [
            tf.keras.layers.InputLayer(input_shape=(6,)),
            tf.keras.layers.Dense(5, activation="elu", kernel_initializer="ones"),
            tf.keras.layers.Dense(4, activation="softmax", kernel_initializer="zeros"),
        ]
    )


def model_fn():
    return tff.learning.from_keras_model(
        keras_model=create_keras_model(),
        input_spec=federated[0].element_spec,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy(name="acc")],
    )


process = tff.learning.algorithms.build_unweighted_fed_avg(
    model_fn,
    client_optimizer_fn=lambda: tf.keras.optimizers.SGD(0.2),
    server_optimizer_fn=lambda: tf.keras.optimizers.Adam(0.05, epsilon=0.001),
)
server_state = process.initialize()
for number in range(3):
    server_state, metrics = process.next(server_state, federated[number : number + 2])
    train_metrics = metrics["client_work"]["train"]
    print(f"{number}: acc {train_metrics['acc']:.4f} loss {train_metrics['loss']:.4f}")
weights = process.get_model_weights(server_state)
print([w.shape for w in weights.trainable], np.round(weights.trainable[-1], 4).tolist())
