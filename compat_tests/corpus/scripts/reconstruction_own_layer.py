"""Matrix factorization with TFF's tutorial's own layer, and the same model written by hand."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

ITEMS, FACTORS = 7, 3
rng = np.random.RandomState(8)
init = lambda seed: tf.keras.initializers.RandomUniform(-0.5, 0.5, seed=seed)


def ratings(size):
    items = rng.randint(0, ITEMS, [size, 1]).astype("int64")
    stars = rng.randint(1, 6, [size, 1]).astype("float32")
    return tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=items, y=stars)).batch(3)


train, test = [ratings(n) for n in (14, 9, 4)], [ratings(n) for n in (8, 5)]


class UserEmbedding(tf.keras.layers.Layer):
    def __init__(self, num_latent_factors, **kwargs):
        super().__init__(**kwargs)
        self.num_latent_factors = num_latent_factors

    def build(self, input_shape):
        self.embedding = self.add_weight(
            shape=(1, self.num_latent_factors),
            initializer=init(3),
            dtype=tf.float32,
            name="UserEmbeddingKernel",
        )
        super().build(input_shape)

    def call(self, inputs):
        return self.embedding

    def compute_output_shape(self):
        return (1, self.num_latent_factors)


class RatingAccuracy(tf.keras.metrics.Mean):
    def __init__(self, name="rating_accuracy", **kwargs):
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true, y_pred, sample_weight=None):
        near = tf.cast(tf.abs(y_true - y_pred) <= 1.5, tf.float32)
        return super().update_state(near, sample_weight=sample_weight)


def of_keras():
    item_input = tf.keras.layers.Input(shape=[1], name="Item")
    items = tf.keras.layers.Embedding(ITEMS, FACTORS, embeddings_initializer=init(2))
    item_vec = tf.keras.layers.Flatten()(items(item_input))
    user = UserEmbedding(FACTORS)
    dot = tf.keras.layers.Dot(1, normalize=False)([user(item_input), item_vec])
    return tff.learning.models.ReconstructionModel.from_keras_model_and_layers(
        keras_model=tf.keras.Model(inputs=item_input, outputs=dot),
        global_layers=[items],
        local_layers=[user],
        input_spec=train[0].element_spec,
    )


Output = collections.namedtuple("Output", ["predictions", "labels", "num_examples"])


class ByHand(tff.learning.models.ReconstructionModel):
    def __init__(self):
        self.items = tf.Variable(init(2)([ITEMS, FACTORS]), name="items")
        self.user = tf.Variable(init(3)([1, FACTORS]), name="user")
        self.middle = tf.Variable(2.5, trainable=False, name="middle")

    global_trainable_variables = property(lambda self: [self.items])
    global_non_trainable_variables = property(lambda self: [self.middle])
    local_trainable_variables = property(lambda self: [self.user])
    local_non_trainable_variables = property(lambda self: [])
    input_spec = property(lambda self: train[0].element_spec)

    def forward_pass(self, batch_input, training=True):
        item_vec = tf.gather(self.items, batch_input["x"][:, 0])
        found = self.middle + tf.reduce_sum(self.user * item_vec, axis=1, keepdims=True)
        return Output(found, batch_input["y"], tf.shape(found)[0])


sgd = tff.learning.optimizers.build_sgdm
loss_fn = lambda: tf.keras.losses.MeanSquaredError()
metrics_fn = lambda: [RatingAccuracy(), tf.keras.metrics.RootMeanSquaredError()]
for model_fn in (of_keras, ByHand):
    process = tff.learning.algorithms.build_fed_recon(
        model_fn=model_fn,
        loss_fn=loss_fn,
        metrics_fn=metrics_fn,
        client_optimizer_fn=sgd(0.5),
        reconstruction_optimizer_fn=sgd(0.1),
    )
    evaluation = tff.learning.algorithms.build_fed_recon_eval(
        model_fn, loss_fn=loss_fn, metrics_fn=metrics_fn, reconstruction_optimizer_fn=sgd(0.1)
    )
    state, evaluation_state = process.initialize(), evaluation.initialize()
    for round_num in range(3):
        state, metrics = process.next(state, train)
        print(round_num, metrics["client_work"]["train"])
        weights = process.get_model_weights(state)
        evaluation_state = evaluation.set_model_weights(evaluation_state, weights)
        output = evaluation.next(evaluation_state, test)
        evaluation_state = output.state
        print(output.metrics["client_work"]["eval"]["current_round_metrics"])
    print(np.round(process.get_model_weights(state).trainable[0], 4).tolist())
