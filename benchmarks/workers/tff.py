"""TFF's worker, in the reference environment: an ordinary simulation, data sets made beforehand.

Settings: "default" lets all clients of a round run at the same time, "cores" as many as there are
cores.
"""

import functools
import os
import signal
from typing import Any

from benchmarks import data
from benchmarks.workers.serve import Peer, serve


def open_peer(task: data.Task, setting: str) -> Peer:
    """The task in TFF: Keras models, seeded shuffles, TFF's own process and evaluation."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # TFF ends its worker with it
    import tensorflow as tf
    import tensorflow_federated as tff

    learning = tff.learning
    if setting == "cores":
        tff.backends.native.set_sync_local_cpp_execution_context(
            max_concurrent_computation_calls=os.cpu_count()
        )
    clients, test = data.clients(task), data.test_examples(task)

    def dataset(examples: dict[str, Any]) -> Any:
        x, y = examples.values()
        x = x[..., None] if task.model != "lstm" else x
        return tf.data.Dataset.from_tensor_slices((x, y))

    @functools.cache
    def train_data(client_id: str) -> Any:
        shuffled = dataset(clients[client_id]).shuffle(task.buffer, seed=1)
        return shuffled.batch(task.batch_size)

    # As many parts as can be evaluated at the same time.
    parts = os.cpu_count() or 1
    test_data = [
        dataset({name: rows[part::parts] for name, rows in test.items()}).batch(100)
        for part in range(parts)
    ]
    spec = train_data(data.cohort(task, 1)[0]).element_spec
    metrics = _metrics(task, tff)
    build: dict[str, Any] = {}

    def model_fn() -> Any:
        return learning.models.from_keras_model(
            _keras_model(task, tf, tff),
            loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            input_spec=spec,
            metrics=metrics(),
        )

    def start() -> Any:
        build["process"] = process = learning.algorithms.build_weighted_fed_avg(
            model_fn,
            client_optimizer_fn=learning.optimizers.build_sgdm(task.learning_rate),
            server_optimizer_fn=learning.optimizers.build_sgdm(1.0),
        )
        state = process.initialize()
        return process.set_model_weights(state, _initial(process.get_model_weights(state)))

    def train(state: Any, first: int, count: int) -> Any:
        for round in range(first, first + count):
            cohort = [train_data(client_id) for client_id in data.cohort(task, round)]
            state = build["process"].next(state, cohort).state
        return state

    def evaluate(state: Any) -> float:
        if "evaluation" not in build:
            build["evaluation"] = learning.algorithms.build_fed_eval(model_fn)
        evaluation = build["evaluation"]
        weights = build["process"].get_model_weights(state)
        state = evaluation.set_model_weights(evaluation.initialize(), weights)
        found = evaluation.next(state, test_data).metrics
        return found["client_work"]["eval"]["current_round_metrics"]["loss"]

    # The data sets exist before the first round, as do those of the other peers.
    for client_id in clients:
        train_data(client_id)
    versions = {"tensorflow_federated": tff.__version__, "tensorflow": tf.__version__}
    return Peer(versions, start, train, evaluate)


def _initial(weights: Any) -> Any:
    made = [data.initial_weight(weight.shape) for weight in weights.trainable]
    return weights.__class__(made, list(weights.non_trainable))


def _metrics(task: data.Task, tff: Any) -> Any:
    import tensorflow as tf

    if task.model != "lstm":
        return lambda: [tf.keras.metrics.SparseCategoricalAccuracy("accuracy")]
    # Those of TFF's Stack Overflow task (simulation/baselines/stackoverflow).
    from tensorflow_federated.python.simulation.baselines import keras_metrics

    accuracy = keras_metrics.MaskedCategoricalAccuracy
    unknown, end = data.VOCABULARY + 1, data.VOCABULARY + 3
    return lambda: [
        keras_metrics.NumTokensCounter(masked_tokens=[0]),
        accuracy(name="accuracy", masked_tokens=[0]),
        accuracy(name="accuracy_no_oov", masked_tokens=[0, unknown]),
        accuracy(name="accuracy_no_oov_or_eos", masked_tokens=[0, unknown, end]),
    ]


def _keras_model(task: data.Task, tf: Any, tff: Any) -> Any:
    layers = tf.keras.layers
    if task.model == "lstm":
        from tensorflow_federated.python.simulation.baselines.stackoverflow import (
            word_prediction_models,
        )

        return word_prediction_models.create_recurrent_model(data.VOCABULARY + 4)
    hidden = {
        "lr": [layers.Flatten(input_shape=(28, 28, 1))],
        "2nn": [
            layers.Flatten(input_shape=(28, 28, 1)),
            layers.Dense(200, activation="relu"),
            layers.Dense(200, activation="relu"),
        ],
        "cnn": [
            layers.Conv2D(32, 3, activation="relu", input_shape=(28, 28, 1)),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPool2D(2),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
        ],
    }[task.model]
    return tf.keras.Sequential([*hidden, layers.Dense(62)])


if __name__ == "__main__":
    serve(open_peer)
