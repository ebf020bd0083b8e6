"""2023: another cohort in every round, an autoencoder's batches, evaluation on other clients."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

tff.backends.native.set_sync_local_cpp_execution_context()
rng = np.random.RandomState(12)
client_data = tff.simulation.datasets.TestClientData({
    f"{i}": {"pixels": rng.rand(4 + i, 5).astype("float32")} for i in range(6)
})  # fmt: skip
train_ids, test_ids = client_data.client_ids[:4], client_data.client_ids[4:]


def preprocess(dataset, epochs):
    dataset = dataset.shuffle(5, seed=3).repeat(epochs)
    dataset = dataset.take(7)
    to_pair = lambda element: (tf.cast(element["pixels"], tf.float32), 1.0 - element["pixels"])
    return dataset.batch(3, drop_remainder=True).map(to_pair)


def model_fn():
    model = tf.keras.Sequential([
        tf.keras.layers.Dense(2, activation="tanh", input_shape=(5,), kernel_initializer="ones"),
        tf.keras.layers.Dense(5, kernel_initializer="ones"),
    ])  # fmt: skip
    return tff.learning.models.from_keras_model(
        model,
        loss=tf.keras.losses.MeanSquaredError(),
        input_spec=(
            tf.TensorSpec([None, 5], tf.float32),
            tf.TensorSpec([None, 5], tf.float32),
        ),
        metrics=[tf.keras.metrics.MeanAbsoluteError()],
    )


process = tff.learning.algorithms.build_unweighted_fed_avg(
    model_fn,
    client_optimizer_fn=lambda: tf.keras.optimizers.SGD(0.02, momentum=0.5),
    server_optimizer_fn=lambda: tf.keras.optimizers.Adam(0.01, epsilon=0.001),
    model_aggregator=tff.learning.robust_aggregator(zeroing=False, weighted=False),
)
evaluation = tff.learning.algorithms.build_fed_eval(model_fn)
state = process.initialize()
for round_num in range(1, 4):
    ids = np.random.RandomState(round_num).choice(train_ids, size=2, replace=False)
    clients = [preprocess(client_data.create_tf_dataset_for_client(i), 2) for i in ids]
    result = process.next(state, clients)
    state = result.state
    loss = float(result.metrics["client_work"]["train"]["loss"])
    print(
        list(map(str, ids)),
        f"{loss:.5f}",
        int(result.metrics["client_work"]["train"]["num_examples"]),
    )
    tested = evaluation.set_model_weights(evaluation.initialize(), process.get_model_weights(state))
    output = evaluation.next(
        tested, [preprocess(client_data.create_tf_dataset_for_client(i), 1) for i in test_ids]
    )
    found = output.metrics["client_work"]["eval"]["current_round_metrics"]
    print(f"{float(found['mean_absolute_error']):.5f}")
