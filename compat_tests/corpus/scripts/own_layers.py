"""A Keras model with a layer, a loss and a metric of the script's own, and a subclassed model."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(9)
data = [
    tf.data.Dataset.from_tensor_slices(
        collections.OrderedDict(
            x=rng.rand(n, 4).astype("float32"), y=rng.randint(0, 2, [n, 1]).astype("float32")
        )
    ).batch(4)
    for n in (9, 6)
]


class Scale(tf.keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        return tf.math.sinh(inputs * self.scale)


class FocalLoss(tf.keras.losses.Loss):
    def call(self, y_true, y_pred):
        p = tf.clip_by_value(tf.sigmoid(y_pred), 1e-6, 1 - 1e-6)
        right = y_true * p + (1 - y_true) * (1 - p)
        return tf.reduce_mean(-((1 - right) ** 2) * tf.math.log(right), axis=-1)


class PositiveRate(tf.keras.metrics.Mean):
    def __init__(self, name="positive_rate", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(tf.cast(y_pred > 0, tf.float32))


class Net(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = tf.keras.layers.Dense(
            3, "tanh", kernel_initializer=tf.keras.initializers.GlorotUniform(seed=1)
        )
        self.out = tf.keras.layers.Dense(1, kernel_initializer="zeros")

    def call(self, inputs, training=None):
        return self.out(self.hidden(inputs))


def own_layer():
    return tf.keras.Sequential([
        tf.keras.layers.InputLayer(input_shape=(4,)),
        Scale(),
        tf.keras.layers.Dense(
            1, kernel_initializer="zeros", kernel_regularizer=tf.keras.regularizers.L2(0.01)
        ),
    ])  # fmt: skip


def subclassed():
    model = Net()
    model.build((None, 4))
    return model


for make in (own_layer, subclassed):

    def model_fn():
        return tff.learning.models.from_keras_model(
            make(),
            loss=FocalLoss(),
            input_spec=data[0].element_spec,
            metrics=[tf.keras.metrics.BinaryAccuracy(threshold=0.0), PositiveRate()],
        )

    process = tff.learning.algorithms.build_weighted_fed_avg(
        model_fn, client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.5)
    )
    state = process.initialize()
    for round_num in range(3):
        state, metrics = process.next(state, data)
        print(round_num, metrics["client_work"]["train"])
    print([np.round(w, 4).tolist() for w in process.get_model_weights(state).trainable])
