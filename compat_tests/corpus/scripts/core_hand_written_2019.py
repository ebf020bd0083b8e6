"""2019: FedAvg by hand in the names of its time: NamedTupleType, federated_apply, tff.utils."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

tf.compat.v1.enable_v2_behavior()
tff.framework.set_default_executor(tff.framework.local_executor_factory())

Server = collections.namedtuple("Server", "model step")
Client = collections.namedtuple("Client", "delta weight loss")

np.random.seed(6)
x = [np.random.rand(n, 3).astype("float32") for n in (11, 6, 4)]
y = [np.random.rand(n).astype("float32") for n in (11, 6, 4)]
data = [
    tf.data.Dataset.from_tensor_slices((x[i], y[i])).shuffle(20, seed=i).repeat(2).batch(4)
    for i in range(3)
]
BATCHES = tff.SequenceType(data[0].element_spec)
MODEL = tff.NamedTupleType([("w", tff.TensorType(tf.float32, [3])), ("b", tf.float32)])


@tff.tf_computation
def init_model():
    return Server(model={"w": tf.zeros([3]), "b": 0.0}, step=tf.constant(0))


SERVER = init_model.type_signature.result


@tff.tf_computation(MODEL, BATCHES)
def train(model, batches):
    w, b = tf.Variable(model.w), tf.Variable(model.b)

    @tf.function
    def loop():
        rows, total = tf.constant(0.0), tf.constant(0.0)
        for features, labels in batches:
            with tf.GradientTape() as tape:
                errors = tf.linalg.matvec(features, w) + b - labels
                loss = tf.reduce_mean(tf.square(errors))
            dw, db = tape.gradient(loss, [w, b])
            w.assign_sub(0.1 * dw)
            b.assign_sub(0.1 * db)
            n = tf.cast(tf.shape(labels)[0], tf.float32)
            rows, total = rows + n, total + n * loss
        delta = collections.OrderedDict([("w", w - model.w), ("b", b - model.b)])
        return Client(delta, rows, total / rows)

    return loop()


@tff.tf_computation(SERVER, MODEL)
def move(server, delta):
    model = {"w": server.model["w"] + delta.w, "b": server.model["b"] + delta.b}
    return Server(model, server.step + 1)


@tff.tf_computation(SERVER)
def model_of(server):
    return collections.OrderedDict([("w", server.model["w"]), ("b", server.model["b"])])


@tff.federated_computation
def initialize():
    return tff.federated_value(init_model(), tff.SERVER)


@tff.federated_computation(
    tff.FederatedType(SERVER, tff.SERVER, True), tff.FederatedType(BATCHES, tff.CLIENTS)
)
def next_fn(server, batches):
    model = tff.federated_broadcast(tff.federated_apply(model_of, server))
    clients = tff.federated_map(train, [model, batches])
    delta = tff.federated_mean(clients.delta, clients.weight)
    server = tff.federated_apply(move, [server, delta])
    return server, tff.federated_mean(clients.loss, clients.weight), clients.loss


process = tff.utils.IterativeProcess(initialize, next_fn)
print(process.next.type_signature)
state = process.initialize()
for round_num in range(1, 4):
    state, loss, per_client = process.next(state, data)
    print(round_num, loss, np.round(per_client, 5).tolist())
print(type(state).__name__, sorted(state.model), np.round(state.model["w"], 5).tolist(), state.step)
# A seeded pipeline restarts in every call: the same data, the same numbers.
once, again = (train(model_of(state), data[0]) for _ in range(2))
print(once.loss == again.loss, once.weight, np.round(once.delta["w"], 5).tolist())
