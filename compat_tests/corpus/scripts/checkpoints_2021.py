"""2021: tff.simulation's FileCheckpointManager, a start from the latest state, a mix of eras."""

import collections
import tempfile

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(60)
source = tff.simulation.datasets.TestClientData(
    {
        str(i): collections.OrderedDict(
            pixels=rng.rand(8 + i, 2, 2).astype("float32"),
            label=rng.randint(0, 2, 8 + i).astype("int32"),
        )
        for i in range(3)
    }
)


@tf.function
def flatten(element):
    return collections.OrderedDict(x=tf.reshape(element["pixels"], [-1, 4]), y=element["label"])


data = source.preprocess(
    lambda ds: ds.shuffle(9, seed=3).batch(4, drop_remainder=True).map(flatten)
)
spec = data.create_tf_dataset_for_client(data.client_ids[0]).element_spec


def tff_model_fn():
    keras_model = tf.keras.Sequential(
        [tf.keras.layers.Dense(2, input_shape=(4,), kernel_initializer="zeros")]
    )
    return tff.learning.from_keras_model(
        keras_model,
        input_spec=spec,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


process = tff.learning.algorithms.build_weighted_fed_prox(
    tff_model_fn, proximal_strength=0.5, client_optimizer_fn=lambda: tf.keras.optimizers.SGD(0.5)
)
with tempfile.TemporaryDirectory() as folder:
    manager = tff.simulation.FileCheckpointManager(folder)
    for start in range(2):
        state = process.initialize()
        state, first = manager.load_latest_checkpoint_or_default(state)
        for round_num in range(first, first + 2):
            clients = [data.create_tf_dataset_for_client(c) for c in data.client_ids]
            state, metrics = process.next(state, clients)
            manager.save_checkpoint(state, round_num + 1)
            print(start, round_num, "{:.4f}".format(metrics["client_work"]["train"]["loss"]))
print(np.round(process.get_model_weights(state).trainable[1], 4).tolist())
