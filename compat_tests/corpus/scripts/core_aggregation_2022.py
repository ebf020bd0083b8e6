"""2022: a custom aggregation: clipped at the clients, folded by federated_aggregate, measured."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

VALUE = tff.to_type(collections.OrderedDict(w=(tf.float32, [2, 2]), b=(tf.float32, [2])))
STATE = tff.to_type(collections.OrderedDict(clip=tf.float32, rounds=tf.int32))


@tff.tf_computation(VALUE, tf.float32)
def clip(value, norm):
    clipped, global_norm = tf.clip_by_global_norm(tf.nest.flatten(value), norm)
    return tf.nest.pack_sequence_as(value, clipped), global_norm > norm


@tff.tf_computation
def zero():
    return tf.zeros([2]), tf.zeros([2, 2]), tf.constant(0)


ACCUMULATOR = zero.type_signature.result
print(zero.type_signature, clip.type_signature)


@tff.tf_computation(ACCUMULATOR, VALUE)
def accumulate(accumulator, value):
    b, w, count = accumulator
    return b + value["b"], w + value["w"], count + 1


@tff.tf_computation(ACCUMULATOR, ACCUMULATOR)
def merge(a, b):
    return tuple(x + y for x, y in zip(a, b))


@tff.tf_computation(ACCUMULATOR)
def report(accumulator):
    b, w, count = accumulator
    divisor = tf.cast(count, tf.float32)
    return collections.OrderedDict(w=w / divisor, b=b / divisor)


@tff.tf_computation(STATE, tf.int32, tf.int32)
def next_state(state, clipped, clients):
    factor = tf.where(2 * clipped > clients, 1.25, 0.8)
    return collections.OrderedDict(clip=state["clip"] * factor, rounds=state["rounds"] + 1)


@tff.tf_computation
def initial_state():
    return collections.OrderedDict(clip=1.0, rounds=0)


@tff.federated_computation()
def initialize():
    return tff.federated_eval(initial_state, tff.SERVER)


@tff.federated_computation(tff.type_at_server(STATE), tff.type_at_clients(VALUE))
def next_fn(state, values):
    norms = tff.federated_broadcast(state.clip)
    clipped_values, was_clipped = tff.federated_map(clip, (values, norms))
    ones = tff.federated_map(
        tff.tf_computation(lambda x: tf.cast(x, tf.int32), tf.bool), was_clipped
    )
    clipped = tff.federated_sum(ones)
    clients = tff.federated_sum(tff.federated_value(1, tff.CLIENTS))
    mean = tff.federated_aggregate(clipped_values, zero(), accumulate, merge, report)
    return tff.templates.MeasuredProcessOutput(
        state=tff.federated_map(next_state, (state, clipped, clients)),
        result=mean,
        measurements=tff.federated_zip(collections.OrderedDict(clip=state.clip, clipped=clipped)),
    )


process = tff.templates.AggregationProcess(initialize, next_fn)
print(process.next.type_signature)
print(process.state_type, isinstance(process, tff.templates.MeasuredProcess))
rng = np.random.RandomState(4)
state = process.initialize()
for round_num in range(3):
    values = [
        collections.OrderedDict(
            w=rng.randn(2, 2).astype("float32") * size, b=rng.randn(2).astype("float32") * size
        )
        for size in (0.1, 1.0, 5.0, 0.5)
    ]
    output = process.next(state, values)
    state = output.state
    measured = output.measurements
    print(round_num, state["rounds"], np.round(output.result["w"], 5).tolist())
    print(type(output).__name__, type(measured).__name__, measured["clip"], measured["clipped"])


@tff.federated_computation(tff.type_at_server(STATE))
def report_fn(state):
    return state.clip


estimation = tff.templates.EstimationProcess(
    initialize, tff.federated_computation(lambda state: state, tff.type_at_server(STATE)), report_fn
)
print(estimation.report.type_signature, estimation.report(estimation.next(state)))
