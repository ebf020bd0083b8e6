"""2021: a CSV file read with pandas, a client for each value of a column, a regression."""

import collections
import io

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(12)
rows = ["house,rooms,area,age,price"]
for i in range(36):
    rooms, area, age = rng.randint(1, 7), rng.randint(30, 200), rng.randint(0, 90)
    price = 20 * rooms + 3 * area - age + rng.randint(0, 30)
    rows.append(f"{'abc'[i * i % 3]},{rooms},{area},{age},{price}")
df = pd.read_csv(io.StringIO("\n".join(rows)))

features = ["rooms", "area", "age"]
df[features] = (df[features] - df[features].mean()) / df[features].std()
df["price"] = df["price"] / df["price"].max()
client_ids = sorted(df["house"].unique())
print(client_ids, df.groupby("house").size().tolist())


def make_client(client_id):
    frame = df[df["house"] == client_id]
    return tf.data.Dataset.from_tensor_slices(
        collections.OrderedDict(
            x=frame[features].to_numpy().astype("float32"),
            y=frame[["price"]].to_numpy().astype("float32"),
        )
    )


train = [make_client(c).repeat(2).shuffle(50, seed=4).batch(5) for c in client_ids]


def model_fn():
    model = tf.keras.models.Sequential(
        [
            tf.keras.layers.Dense(
                4,
                activation="sigmoid",
                input_dim=3,
                kernel_initializer=tf.keras.initializers.GlorotUniform(seed=1),
            ),
            tf.keras.layers.Dense(1, kernel_initializer="zeros"),
        ]
    )
    return tff.learning.from_keras_model(
        model,
        input_spec=train[0].element_spec,
        loss=tf.keras.losses.MeanSquaredError(),
        metrics=[tf.keras.metrics.MeanAbsoluteError()],
    )


trainer = tff.learning.build_federated_averaging_process(
    model_fn, client_optimizer_fn=lambda: tf.keras.optimizers.SGD(learning_rate=0.1)
)
state = trainer.initialize()
history = []
for i in range(4):
    state, metrics = trainer.next(state, train)
    history.append(metrics["train"]["mean_absolute_error"])
    print("round {}, loss={:.4f}".format(i + 1, metrics["train"]["loss"]))
print(np.round(history, 4).tolist())
