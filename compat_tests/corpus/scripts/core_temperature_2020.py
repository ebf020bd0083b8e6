"""2020: averages of temperatures, after the tutorial "Custom federated algorithms, part 1"."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

tf.compat.v1.enable_v2_behavior()

federated_float_on_clients = tff.FederatedType(tf.float32, tff.CLIENTS)
print(federated_float_on_clients.member, federated_float_on_clients.placement)
print(federated_float_on_clients, tff.FederatedType(tf.float32, tff.CLIENTS, all_equal=True))
model_type = tff.NamedTupleType([("a", tf.float32), ("b", (tf.float32, [10]))])
print(model_type, tff.FederatedType(model_type, tff.SERVER), tff.to_type((tf.int32, [None, 2])))


@tff.federated_computation(tff.FederatedType(tf.float32, tff.CLIENTS))
def get_average_temperature(sensor_readings):
    print("Getting traced, the argument is", type(sensor_readings).__name__)
    return tff.federated_mean(sensor_readings)


print(str(get_average_temperature.type_signature))
print(get_average_temperature([68.5, 70.3, 69.8]))
print(get_average_temperature([68.5]))


@tff.tf_computation(tf.float32)
def add_half(x):
    return tf.add(x, 0.5)


@tff.federated_computation(tff.FederatedType(tf.float32, tff.CLIENTS))
def add_half_on_clients(x):
    return tff.federated_map(add_half, x)


print(add_half.type_signature, add_half_on_clients.type_signature)
print([float(x) for x in add_half_on_clients([1.0, 3.0, 2.0])])


@tff.tf_computation(tff.SequenceType(tf.float32))
def get_local_temperature_average(local_temperatures):
    sum_and_count = local_temperatures.reduce((0.0, 0), lambda x, y: (x[0] + y, x[1] + 1))
    return sum_and_count[0] / tf.cast(sum_and_count[1], tf.float32)


print(get_local_temperature_average.type_signature)
print(get_local_temperature_average([68.5, 70.3, 69.8]))


@tff.tf_computation(tff.SequenceType(collections.OrderedDict([("A", tf.int32), ("B", tf.int32)])))
def foo(ds):
    return ds.reduce(np.int32(0), lambda total, x: total + x["A"] * x["B"])


print(foo.type_signature, foo([{"A": 2, "B": 3}, {"A": 4, "B": 5}]))


@tff.federated_computation(tff.FederatedType(tff.SequenceType(tf.float32), tff.CLIENTS))
def get_global_temperature_average(sensor_readings):
    return tff.federated_mean(tff.federated_map(get_local_temperature_average, sensor_readings))


print(get_global_temperature_average.type_signature)
print(get_global_temperature_average([[68.0, 70.0], [71.0], [68.0, 72.0, 70.0]]))
