"""2022: a DP aggregator with adaptive clipping, its noise off, whose clipping norm is printed."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(21)


def client(n):
    return tf.data.Dataset.from_tensor_slices(
        collections.OrderedDict(
            x=rng.rand(n, 4).astype("float32"), y=rng.randint(0, 3, (n, 1)).astype("int32")
        )
    ).batch(3)


train_data = [client(n) for n in (5, 8, 6, 4)]


def model_fn():
    model = tf.keras.models.Sequential(
        [tf.keras.layers.Dense(3, input_shape=(4,), kernel_initializer="zeros")]
    )
    return tff.learning.models.from_keras_model(
        model,
        input_spec=train_data[0].element_spec,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


def train(rounds, noise_multiplier, clients_per_round, target_unclipped_quantile):
    aggregation_factory = tff.aggregators.DifferentiallyPrivateFactory.gaussian_adaptive(
        noise_multiplier,
        clients_per_round,
        initial_l2_norm_clip=0.3,
        target_unclipped_quantile=target_unclipped_quantile,
        learning_rate=0.5,
        clipped_count_stddev=0.0,
    )
    learning_process = tff.learning.algorithms.build_unweighted_fed_avg(
        model_fn,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.3),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0, momentum=0.9),
        model_aggregator=aggregation_factory,
    )
    state = learning_process.initialize()
    for round in range(rounds):
        output = learning_process.next(state, train_data)
        state = output.state
        print(f"Round {round:3d}: {output.metrics['client_work']['train']}")
    return learning_process.get_model_weights(state)


for quantile in (0.5, 0.75):
    weights = train(2, 0.0, len(train_data), quantile)
    print(quantile, np.round(weights.trainable[0][0], 4).tolist())
