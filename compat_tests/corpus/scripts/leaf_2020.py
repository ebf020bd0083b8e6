"""2020: users in LEAF's JSON, from_clients_and_tf_fn, all clients' data at once for the tests."""

import collections
import json

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(50)
sizes = {"f0044_12": 7, "f1979_42": 5, "f2101_08": 9, "f0550_07": 4}
text = json.dumps(
    {
        "users": list(sizes),
        "num_samples": list(sizes.values()),
        "user_data": {
            user: {
                "x": rng.rand(n, 9).round(3).tolist(),
                "y": rng.randint(0, 4, n).tolist(),
            }
            for user, n in sizes.items()
        },
    }
)
leaf = json.loads(text)
longest = max(leaf["num_samples"])
xs = np.zeros([len(leaf["users"]), longest, 9], np.float32)
ys = np.zeros([len(leaf["users"]), longest], np.int32)
for i, user in enumerate(leaf["users"]):
    n = leaf["num_samples"][i]
    xs[i, :n], ys[i, :n] = leaf["user_data"][user]["x"], leaf["user_data"][user]["y"]
users, counts = np.array(leaf["users"]), np.array(leaf["num_samples"])


def create_tf_dataset_for_client_fn(client_id):
    i = tf.argmax(tf.cast(tf.equal(users, client_id), tf.int32))
    return tf.data.Dataset.from_tensor_slices(
        collections.OrderedDict(x=tf.gather(xs, i), y=tf.gather(ys, i))
    ).take(tf.gather(counts, i))


train = tff.simulation.datasets.ClientData.from_clients_and_tf_fn(
    client_ids=leaf["users"], serializable_dataset_fn=create_tf_dataset_for_client_fn
)
print(len(train.client_ids), train.element_type_structure["x"].shape)


def preprocess(dataset):
    return dataset.shuffle(10, seed=1).batch(4)


def model_fn():
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Reshape((3, 3, 1), input_shape=(9,)),
            tf.keras.layers.Conv2D(2, 2, kernel_initializer="ones"),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(4, kernel_initializer="zeros"),
        ]
    )
    return tff.learning.from_keras_model(
        model,
        input_spec=preprocess(train.create_tf_dataset_for_client(train.client_ids[0])).element_spec,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


process = tff.learning.build_federated_averaging_process(
    model_fn, client_optimizer_fn=lambda: tf.keras.optimizers.SGD(0.1, momentum=0.9)
)
evaluate = tff.learning.build_federated_evaluation(model_fn)
state = process.initialize()
for round_num in range(3):
    chosen = [train.client_ids[round_num], train.client_ids[-1]]
    data = [preprocess(train.create_tf_dataset_for_client(c)) for c in chosen]
    state, metrics = process.next(state, data)
    print(round_num, metrics["train"])
    print("   ", evaluate(state.model, data))
print(sum(1 for _ in train.create_tf_dataset_from_all_clients(seed=2)))
