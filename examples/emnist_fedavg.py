"""Federated averaging on EMNIST, written for TensorFlow Federated (TFF) and nothing else.

    python examples/emnist_fedavg.py                    # a convolutional network, 62 characters
    python examples/emnist_fedavg.py --model softmax    # softmax regression

`fedbridge check examples/emnist_fedavg.py` runs this file, as it is, under TFF and on JAX.
"""

import argparse
import collections
import os

import tensorflow as tf
import tensorflow_federated as tff


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["cnn", "softmax"], default="cnn")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--num_clients", type=int, default=10)
    parser.add_argument("--only_digits", action="store_true", help="10 digits, not 62 characters")
    parser.add_argument("--unseeded", action="store_true", help="shuffle anew in every round")
    return parser.parse_args()


def preprocess(dataset, seed):
    def to_batch(element):
        return collections.OrderedDict(
            x=tf.expand_dims(element["pixels"], -1),
            y=element["label"],
        )

    shuffled = dataset.repeat(5).shuffle(100, seed=seed)
    return shuffled.batch(20).map(to_batch).prefetch(tf.data.AUTOTUNE)


def create_keras_model(name, num_classes):
    def glorot(seed):
        return tf.keras.initializers.GlorotUniform(seed=seed)

    if name == "softmax":
        return tf.keras.Sequential([
            tf.keras.layers.Flatten(input_shape=(28, 28, 1)),
            tf.keras.layers.Dense(num_classes, activation="softmax", kernel_initializer=glorot(1)),
        ])  # fmt: skip
    return tf.keras.Sequential([
        tf.keras.layers.Conv2D(
            32, 3, activation="relu", input_shape=(28, 28, 1), kernel_initializer=glorot(1)
        ),
        tf.keras.layers.Conv2D(64, 3, activation="relu", kernel_initializer=glorot(2)),
        tf.keras.layers.MaxPool2D(2),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(128, activation="relu", kernel_initializer=glorot(3)),
        tf.keras.layers.Dense(num_classes, activation="softmax", kernel_initializer=glorot(4)),
    ])  # fmt: skip


def main():
    arguments = parse_arguments()
    train, _ = tff.simulation.datasets.emnist.load_data(
        only_digits=arguments.only_digits, cache_dir=os.environ.get("FEDBRIDGE_DATA")
    )
    client_ids = train.client_ids[0 : arguments.num_clients]
    seed = None if arguments.unseeded else 1
    datasets = [
        preprocess(train.create_tf_dataset_for_client(client_id), seed) for client_id in client_ids
    ]

    def model_fn():
        return tff.learning.models.from_keras_model(
            create_keras_model(arguments.model, 10 if arguments.only_digits else 62),
            loss=tf.keras.losses.SparseCategoricalCrossentropy(),
            input_spec=datasets[0].element_spec,
            metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
        )

    process = tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=0.02),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=1.0),
    )
    state = process.initialize()
    for round_number in range(1, arguments.rounds + 1):
        result = process.next(state, datasets)
        state = result.state
        train_metrics = result.metrics["client_work"]["train"]
        print(f"round {round_number:2d}", dict(train_metrics))


if __name__ == "__main__":
    main()
