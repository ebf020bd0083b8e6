"""Aggregators of one's own, as in TFF's tutorial: factories around TFF's, alone and in FedAvg."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff


class DecayingMeanFactory(tff.aggregators.WeightedAggregationFactory):
    """The weighted mean, times a factor that the state holds and halves."""

    def __init__(self, factor):
        self._factor = factor
        self._mean = tff.aggregators.MeanFactory()

    def create(self, value_type, weight_type):
        mean = self._mean.create(value_type, weight_type)
        factor = self._factor

        @tff.tensorflow.computation
        def initial_factor():
            return tf.constant(factor, tf.float32)

        @tff.federated_computation
        def initialize():
            return tff.federated_zip(
                (mean.initialize(), tff.federated_eval(initial_factor, tff.SERVER))
            )

        @tff.tensorflow.computation
        def scaled(value, by):
            return tf.nest.map_structure(lambda leaf: leaf * by, value)

        @tff.tensorflow.computation(tf.float32)
        def halved(by):
            return by / 2

        @tff.federated_computation(
            initialize.type_signature.result,
            tff.FederatedType(value_type, tff.CLIENTS),
            tff.FederatedType(weight_type, tff.CLIENTS),
        )
        def next_fn(state, value, weight):
            inner_state, by = state
            output = mean.next(inner_state, value, weight)
            return tff.templates.MeasuredProcessOutput(
                tff.federated_zip((output.state, tff.federated_map(halved, by))),
                tff.federated_map(scaled, (output.result, by)),
                tff.federated_zip(collections.OrderedDict(mean=output.measurements, factor=by)),
            )

        return tff.templates.AggregationProcess(initialize, next_fn)


class LargestFactory(tff.aggregators.UnweightedAggregationFactory):
    """The largest of the clients' values, entry by entry."""

    def create(self, value_type):
        @tff.federated_computation
        def initialize():
            return tff.federated_value((), tff.SERVER)

        @tff.tensorflow.computation
        def lowest():
            return tf.fill(value_type.shape, np.float32(-np.inf))

        @tff.tensorflow.computation
        def larger(a, b):
            return tf.maximum(a, b)

        @tff.federated_computation(
            initialize.type_signature.result, tff.FederatedType(value_type, tff.CLIENTS)
        )
        def next_fn(state, value):
            largest = tff.federated_aggregate(
                value, lowest(), larger, larger, tff.tensorflow.computation(lambda a: a, value_type)
            )
            return tff.templates.MeasuredProcessOutput(
                state, largest, tff.federated_value((), tff.SERVER)
            )

        return tff.templates.AggregationProcess(initialize, next_fn)


vectors = [np.float32([1, -2]), np.float32([0.5, 4]), np.float32([-3, 0])]
largest = LargestFactory().create(tff.TensorType(np.float32, [2]))
print(largest.next.type_signature)
print(largest.next(largest.initialize(), vectors).result)
clipped = tff.aggregators.clipping_factory(2.0, tff.aggregators.SumFactory())
process = clipped.create(tff.TensorType(np.float32, [2]))
output = process.next(process.initialize(), vectors)
print(np.round(output.result, 4).tolist(), list(output.measurements))

rng = np.random.RandomState(4)
clients = [
    tf.data.Dataset.from_tensor_slices(
        collections.OrderedDict(
            x=rng.rand(size, 5).astype("float32"), y=rng.randint(0, 3, size).astype("int32")
        )
    ).batch(4)
    for size in (11, 6, 9)
]


def model_fn():
    model = tf.keras.Sequential(
        [tf.keras.layers.Dense(3, kernel_initializer="zeros", input_shape=(5,))]
    )
    return tff.learning.models.from_keras_model(
        model,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=clients[0].element_spec,
    )


training = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn,
    client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.5),
    server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
    model_aggregator=DecayingMeanFactory(2.0),
)
state = training.initialize()
for _ in range(3):
    state, metrics = training.next(state, clients)
    print(metrics["client_work"], metrics["aggregator"])
print(np.round(training.get_model_weights(state).trainable[1], 5).tolist())
