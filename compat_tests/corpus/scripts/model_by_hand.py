"""The logistic regression of TFF's image tutorial, written by hand: variables, sums, finalizers."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(4)
PIXELS = 6
data = [
    tf.data.Dataset.from_tensor_slices(
        collections.OrderedDict(
            x=rng.rand(n, PIXELS).astype("float32"), y=rng.randint(0, 3, [n, 1]).astype("int32")
        )
    )
    .repeat(2)
    .batch(4)
    for n in (7, 5, 1)
]
MnistVariables = collections.namedtuple(
    "MnistVariables", "weights bias num_examples loss_sum accuracy_sum"
)


def create_mnist_variables():
    return MnistVariables(
        weights=tf.Variable(
            lambda: tf.zeros(dtype=tf.float32, shape=(PIXELS, 3)), name="weights", trainable=True
        ),
        bias=tf.Variable(
            lambda: tf.zeros(dtype=tf.float32, shape=(3,)), name="bias", trainable=True
        ),
        num_examples=tf.Variable(0.0, name="num_examples", trainable=False),
        loss_sum=tf.Variable(0.0, name="loss_sum", trainable=False),
        accuracy_sum=tf.Variable(0.0, name="accuracy_sum", trainable=False),
    )


def predict_on_batch(variables, x):
    return tf.nn.softmax(tf.matmul(x, variables.weights) + variables.bias)


def mnist_forward_pass(variables, batch):
    y = predict_on_batch(variables, batch["x"])
    predictions = tf.cast(tf.argmax(y, 1), tf.int32)
    flat_labels = tf.reshape(batch["y"], [-1])
    loss = -tf.reduce_mean(tf.reduce_sum(tf.one_hot(flat_labels, 3) * tf.math.log(y), axis=[1]))
    accuracy = tf.reduce_mean(tf.cast(tf.equal(predictions, flat_labels), tf.float32))
    num_examples = tf.cast(tf.size(batch["y"]), tf.float32)
    variables.num_examples.assign_add(num_examples)
    variables.loss_sum.assign_add(loss * num_examples)
    variables.accuracy_sum.assign_add(accuracy * num_examples)
    return loss, predictions


class MnistModel(tff.learning.models.VariableModel):
    def __init__(self):
        self._variables = create_mnist_variables()

    @property
    def trainable_variables(self):
        return [self._variables.weights, self._variables.bias]

    @property
    def non_trainable_variables(self):
        return []

    @property
    def local_variables(self):
        return [
            self._variables.num_examples, self._variables.loss_sum, self._variables.accuracy_sum
        ]  # fmt: skip

    @property
    def input_spec(self):
        return collections.OrderedDict(
            x=tf.TensorSpec([None, PIXELS], tf.float32), y=tf.TensorSpec([None, 1], tf.int32)
        )

    @tf.function
    def predict_on_batch(self, x, training=True):
        return predict_on_batch(self._variables, x)

    @tf.function
    def forward_pass(self, batch, training=True):
        loss, predictions = mnist_forward_pass(self._variables, batch)
        num_examples = tf.shape(batch["x"])[0]
        return tff.learning.models.BatchOutput(
            loss=loss, predictions=predictions, num_examples=num_examples
        )

    @tf.function
    def report_local_unfinalized_metrics(self):
        v = self._variables
        return collections.OrderedDict(
            num_examples=[v.num_examples],
            loss=[v.loss_sum, v.num_examples],
            accuracy=[v.accuracy_sum, v.num_examples],
        )

    def metric_finalizers(self):
        return collections.OrderedDict(
            num_examples=tf.function(func=lambda x: x[0]),
            loss=tf.function(func=lambda x: x[0] / x[1]),
            accuracy=tf.function(func=lambda x: x[0] / x[1]),
        )

    @tf.function
    def reset_metrics(self):
        for variable in self.local_variables:
            variable.assign(tf.zeros_like(variable))


process = tff.learning.algorithms.build_weighted_fed_avg(
    MnistModel, client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.5)
)
evaluation = tff.learning.algorithms.build_fed_eval(MnistModel)
state = process.initialize()
for round_num in range(1, 5):
    state, metrics = process.next(state, data[: 1 + round_num % 3])
    print("round", round_num, metrics["client_work"]["train"])
evaluation_state = evaluation.set_model_weights(
    evaluation.initialize(), process.get_model_weights(state)
)
print(evaluation.next(evaluation_state, data).metrics["client_work"]["eval"])
print(np.round(process.get_model_weights(state).trainable[0], 4).tolist())
