"""2020: TFF's example simple_fedavg, whole: attr classes, a Keras wrapper, a weighted mean."""

import collections

import attr
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

ModelWeights = collections.namedtuple("ModelWeights", "trainable non_trainable")
ModelOutputs = collections.namedtuple("ModelOutputs", "loss")


class KerasModelWrapper(object):
    def __init__(self, keras_model, input_spec, loss):
        self.keras_model = keras_model
        self.input_spec = input_spec
        self.loss = loss

    def forward_pass(self, batch_input, training=True):
        preds = self.keras_model(batch_input["x"], training=training)
        return ModelOutputs(loss=self.loss(batch_input["y"], preds))

    @property
    def weights(self):
        return ModelWeights(
            trainable=self.keras_model.trainable_variables,
            non_trainable=self.keras_model.non_trainable_variables,
        )

    def from_weights(self, model_weights):
        tff.utils.assign(self.keras_model.trainable_variables, list(model_weights.trainable))
        tff.utils.assign(
            self.keras_model.non_trainable_variables, list(model_weights.non_trainable)
        )


@attr.s(eq=False, frozen=True, slots=True)
class ClientOutput(object):
    weights_delta = attr.ib()
    client_weight = attr.ib()
    model_output = attr.ib()


@attr.s(eq=False, frozen=True, slots=True)
class ServerState(object):
    model_weights = attr.ib()
    optimizer_state = attr.ib()
    round_num = attr.ib()


@attr.s(eq=False, frozen=True, slots=True)
class BroadcastMessage(object):
    model_weights = attr.ib()
    round_num = attr.ib()


@tf.function
def server_update(model, server_optimizer, server_state, weights_delta):
    model_weights = model.weights
    model.from_weights(server_state.model_weights)
    tff.utils.assign(server_optimizer.variables(), server_state.optimizer_state)
    grads_and_vars = [
        (x * -1.0, v) for x, v in zip(tf.nest.flatten(weights_delta), model_weights.trainable)
    ]
    server_optimizer.apply_gradients(grads_and_vars, name="server_update")
    return tff.utils.update_state(
        server_state,
        model_weights=model_weights,
        optimizer_state=server_optimizer.variables(),
        round_num=server_state.round_num + 1,
    )


@tf.function
def build_server_broadcast_message(server_state):
    return BroadcastMessage(
        model_weights=server_state.model_weights, round_num=server_state.round_num
    )


@tf.function
def client_update(model, dataset, server_message, client_optimizer):
    model_weights = model.weights
    initial_weights = server_message.model_weights
    model.from_weights(initial_weights)
    num_examples = tf.constant(0, dtype=tf.int32)
    loss_sum = tf.constant(0, dtype=tf.float32)
    for batch in iter(dataset):
        with tf.GradientTape() as tape:
            outputs = model.forward_pass(batch)
        grads = tape.gradient(outputs.loss, model_weights.trainable)
        client_optimizer.apply_gradients(zip(grads, model_weights.trainable))
        batch_size = tf.shape(batch["x"])[0]
        num_examples += batch_size
        loss_sum += outputs.loss * tf.cast(batch_size, tf.float32)
    weights_delta = tf.nest.map_structure(
        lambda a, b: a - b, model_weights.trainable, list(initial_weights.trainable)
    )
    client_weight = tf.cast(num_examples, tf.float32)
    return ClientOutput(weights_delta, client_weight, loss_sum / client_weight)


def _initialize_optimizer_vars(model, optimizer):
    model_weights = model.weights
    grads_and_vars = [(tf.zeros_like(v), v) for v in model_weights.trainable]
    optimizer.apply_gradients(grads_and_vars)


def build_federated_averaging_process(model_fn, server_optimizer_fn, client_optimizer_fn):
    example_model = model_fn()

    @tff.tf_computation
    def server_init_tf():
        model = model_fn()
        server_optimizer = server_optimizer_fn()
        _initialize_optimizer_vars(model, server_optimizer)
        return ServerState(
            model_weights=model.weights, optimizer_state=server_optimizer.variables(), round_num=0
        )

    server_state_type = server_init_tf.type_signature.result
    model_weights_type = server_state_type.model_weights

    @tff.tf_computation(server_state_type, model_weights_type.trainable)
    def server_update_fn(server_state, model_delta):
        model = model_fn()
        server_optimizer = server_optimizer_fn()
        _initialize_optimizer_vars(model, server_optimizer)
        return server_update(model, server_optimizer, server_state, model_delta)

    @tff.tf_computation(server_state_type)
    def server_message_fn(server_state):
        return build_server_broadcast_message(server_state)

    server_message_type = server_message_fn.type_signature.result
    tf_dataset_type = tff.SequenceType(example_model.input_spec)

    @tff.tf_computation(tf_dataset_type, server_message_type)
    def client_update_fn(tf_dataset, server_message):
        return client_update(model_fn(), tf_dataset, server_message, client_optimizer_fn())

    federated_server_state_type = tff.type_at_server(server_state_type)
    federated_dataset_type = tff.type_at_clients(tf_dataset_type)

    @tff.federated_computation(federated_server_state_type, federated_dataset_type)
    def run_one_round(server_state, federated_dataset):
        server_message = tff.federated_map(server_message_fn, server_state)
        server_message_at_client = tff.federated_broadcast(server_message)
        client_outputs = tff.federated_map(
            client_update_fn, (federated_dataset, server_message_at_client)
        )
        weight_denom = client_outputs.client_weight
        round_model_delta = tff.federated_mean(client_outputs.weights_delta, weight=weight_denom)
        server_state = tff.federated_map(server_update_fn, (server_state, round_model_delta))
        round_loss_metric = tff.federated_mean(client_outputs.model_output, weight=weight_denom)
        return server_state, round_loss_metric

    @tff.federated_computation
    def server_init_tff():
        return tff.federated_value(server_init_tf(), tff.SERVER)

    return tff.templates.IterativeProcess(initialize_fn=server_init_tff, next_fn=run_one_round)


rng = np.random.RandomState(1)


def client(n):
    data = collections.OrderedDict(
        x=rng.rand(n, 5).astype("float32"), y=rng.randint(0, 3, [n]).astype("int32")
    )
    return tf.data.Dataset.from_tensor_slices(data).shuffle(n, seed=2).repeat(2).batch(4)


train_data = [client(n) for n in (9, 6, 5)]


def create_model():
    keras_model = tf.keras.models.Sequential(
        [
            tf.keras.layers.InputLayer(input_shape=(5,)),
            tf.keras.layers.Dense(4, activation="tanh", kernel_initializer="ones"),
            tf.keras.layers.Dense(3, kernel_initializer="zeros"),
        ]
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return KerasModelWrapper(keras_model, train_data[0].element_spec, loss)


process = build_federated_averaging_process(
    create_model,
    server_optimizer_fn=lambda: tf.keras.optimizers.legacy.SGD(1.0, momentum=0.5),
    client_optimizer_fn=lambda: tf.keras.optimizers.legacy.SGD(0.2),
)
print(process.initialize.type_signature)
print(process.next.type_signature)
state = process.initialize()
for round_num in range(3):
    state, metrics = process.next(state, train_data)
    print(f"Round {round_num} loss {metrics:.5f}")
print(type(state).__name__, state.round_num, len(state.optimizer_state))
print(np.round(state.model_weights.trainable[-1], 5).tolist())
