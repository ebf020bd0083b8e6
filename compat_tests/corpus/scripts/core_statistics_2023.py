"""2023: what clients know of themselves: sums, extremes, values per client, text, dictionaries."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

tff.backends.native.set_sync_local_cpp_execution_context()

Stats = collections.namedtuple("Stats", ["total", "count"])
READINGS = tff.SequenceType(np.float32)


@tff.tensorflow.computation(READINGS)
def local_stats(readings):
    total, count = readings.reduce(
        (tf.constant(0.0), tf.constant(0)), lambda held, x: (held[0] + x, held[1] + 1)
    )
    return Stats(total, count)


@tff.tensorflow.computation
def over(stats, threshold):  # takes its types from what it is called with
    mean = stats.total / tf.cast(stats.count, tf.float32)
    return collections.OrderedDict(mean=mean, over=mean > threshold)


@tff.tensorflow.computation
def describe(mean):
    return tf.strings.join(["mean ", tf.strings.as_string(mean, precision=3)])


@tff.federated_computation(
    tff.FederatedType(READINGS, tff.CLIENTS), tff.FederatedType(np.float32, tff.SERVER)
)
def survey(readings, threshold):
    stats = tff.federated_map(local_stats, readings)
    marks = tff.federated_map(over, (stats, tff.federated_broadcast(threshold)))
    mean = tff.federated_mean(marks.mean)
    weighted = tff.federated_mean(marks.mean, weight=stats.count)
    return collections.OrderedDict(
        sums=tff.federated_sum(stats),
        least=tff.federated_min(marks["mean"]),
        most=tff.federated_max(stats.count),
        means=tff.federated_zip([mean, weighted]),
        marks=marks,
        text=tff.federated_map(describe, mean),
        version=tff.federated_value(7, tff.SERVER),
        at_clients=tff.federated_zip((stats[1], marks.over)),
    )


print(local_stats.type_signature)
print(survey.type_signature.formatted_representation())
# Sums of small and large numbers: their order shows in the last digits.
rng = np.random.RandomState(2)
clients = [
    list((10.0 ** rng.randint(-3, 4, n) * rng.rand(n)).astype(np.float32)) for n in (3, 8, 1, 40)
]
found = survey(clients, 30.0)
for name, value in found.items():
    if name == "marks":
        value = [(float(m["mean"]), bool(m["over"])) for m in value]
    elif name == "at_clients":
        value = [(int(count), bool(mark)) for count, mark in value]
    elif name == "means":
        value = [float(mean) for mean in value]
    print(name, type(found[name]).__name__, value)


@tff.tensorflow.computation
def identity_of_nothing():
    return tf.constant([1, 2, 3]), {"name": b"client", "flag": True}


print(identity_of_nothing.type_signature)
one, other = identity_of_nothing()
print(one.tolist(), one.dtype, other["name"], bool(other["flag"]))


@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def count(x):
    ones = tff.federated_eval(tff.tensorflow.computation(lambda: tf.constant(1)), tff.CLIENTS)
    return tff.federated_sum(ones), tff.federated_sum(x)


print(count.type_signature, [int(n) for n in count([5, 6, 7])], [int(n) for n in count([])])
