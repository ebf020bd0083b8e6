"""A program that stops and resumes, DP FedProx, its weights in a central Keras model at the end."""

import collections
import tempfile

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(13)
clients = {
    f"user_{i}": collections.OrderedDict(
        x=rng.rand(8 + i, 4).astype("float32"), y=rng.randint(0, 3, [8 + i, 1]).astype("int32")
    )
    for i in range(4)
}
data = tff.simulation.datasets.TestClientData(clients)
datasets = [data.create_tf_dataset_for_client(i).batch(4) for i in data.client_ids]
root = tempfile.mkdtemp()


def create_keras_model():
    return tf.keras.Sequential([
        tf.keras.layers.InputLayer(input_shape=(4,)),
        tf.keras.layers.Dense(3, kernel_initializer=tf.keras.initializers.GlorotNormal(seed=1)),
        tf.keras.layers.Softmax(),
    ])  # fmt: skip


def model_fn():
    return tff.learning.models.from_keras_model(
        create_keras_model(),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        input_spec=datasets[0].element_spec,
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


def run(rounds):
    aggregator = tff.learning.dp_aggregator(noise_multiplier=0.0, clients_per_round=4)
    process = tff.learning.algorithms.build_unweighted_fed_prox(
        model_fn,
        proximal_strength=0.1,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.3),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0, momentum=0.9),
        model_aggregator=aggregator,
    )
    manager = tff.program.FileProgramStateManager(root_dir=root, prefix="round_", keep_total=2)
    initial = process.initialize()
    state, last = tf_loop(manager.load_latest(initial))
    if state is None:
        state, last = initial, 0
    for round_num in range(last + 1, last + rounds + 1):
        output = process.next(state, datasets)
        state = output.state
        tf_loop(manager.save(state, round_num))
        print(round_num, output.metrics["client_work"]["train"])
    print(tf_loop(manager.get_versions()))
    return process.get_model_weights(state)


def tf_loop(coroutine):
    import asyncio

    return asyncio.new_event_loop().run_until_complete(coroutine)


run(2)
weights = run(2)
keras_model = create_keras_model()
weights.assign_weights_to(keras_model)
keras_model.compile(
    loss=tf.keras.losses.SparseCategoricalCrossentropy(),
    metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
)
central = data.create_tf_dataset_from_all_clients(seed=1).batch(100).map(lambda e: (e["x"], e["y"]))
print(np.round(keras_model.evaluate(central, verbose=0), 4).tolist())
