"""Models of TFF before 0.20, whose metrics a federated computation makes of clients' reports."""

import collections

import numpy as np
import pytest

import fedbridge as fb
from fedbridge import tff

PIXELS, RNG = 4, np.random.RandomState(0)
# Mean losses of clients weigh each client's; the examples' mean would be another number.
CLIENTS = [
    [
        collections.OrderedDict(
            x=RNG.rand(rows, PIXELS).astype("f4"), y=RNG.randint(0, 3, [rows, 1]).astype("i4")
        )
        for rows in sizes
    ]
    for sizes in ([4, 2], [1], [3, 3, 3])
]
TOLERANCE = 1e-6  # sums of at most 16 losses, in another order


def model_class(base, aggregate):
    """The model of TFF's tutorial of 2019, with its metrics as `aggregate` makes them."""
    import tensorflow as tf

    class Mnist(base):
        def __init__(self):
            self.weights = tf.Variable(tf.zeros([PIXELS, 3]))
            self.bias = tf.Variable(tf.zeros([3]))
            self.loss_sum, self.num_examples = tf.Variable(0.0), tf.Variable(0)

        trainable_variables = property(lambda self: [self.weights, self.bias])
        non_trainable_variables = property(lambda self: [])
        local_variables = property(lambda self: [self.num_examples, self.loss_sum])
        input_spec = property(
            lambda self: collections.OrderedDict(
                x=tf.TensorSpec([None, PIXELS], tf.float32), y=tf.TensorSpec([None, 1], tf.int32)
            )
        )

        @tf.function
        def forward_pass(self, batch, training=True):
            logits = tf.matmul(batch["x"], self.weights) + self.bias
            labels = tf.reshape(batch["y"], [-1])
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
            rows = tf.shape(batch["x"])[0]
            self.num_examples.assign_add(rows)
            self.loss_sum.assign_add(loss * tf.cast(rows, tf.float32))
            return tff.learning.BatchOutput(loss=loss, predictions=logits, num_examples=rows)

        @tf.function
        def report_local_outputs(self):
            return collections.OrderedDict(
                num_examples=self.num_examples,
                loss=self.loss_sum / tf.cast(self.num_examples, tf.float32),
            )

        federated_output_computation = property(lambda self: aggregate)

    return Mnist


@tff.federated_computation
def unweighted(outputs):
    return collections.OrderedDict(
        examples=tff.federated_sum(outputs.num_examples),
        loss=tff.federated_mean(outputs.loss),
        largest=tff.federated_max(outputs.loss),
    )


def losses(weights):
    """Of each client, by NumPy."""
    kernel, bias = map(np.asarray, weights.trainable)
    found = []
    for batches in CLIENTS:
        x, y = (np.concatenate([batch[name] for batch in batches]) for name in "xy")
        logits = x.astype(float) @ kernel + bias
        picked = logits[np.arange(len(y)), y[:, 0]]
        found.append(np.mean(np.log(np.exp(logits).sum(1)) - picked))
    return np.array(found)


@pytest.mark.parametrize("ids", [[0, 1, 2], [2]])
def test_the_metrics_are_what_the_computation_makes_of_the_clients_reports(ids):
    model_fn = model_class(tff.learning.Model, unweighted)
    data = [CLIENTS[i] for i in ids]
    process = tff.learning.build_federated_averaging_process(
        model_fn, client_optimizer_fn=lambda: fb.optimizers.sgdm(0.5)
    )
    evaluate = tff.learning.build_federated_evaluation(model_fn)
    state = process.initialize()
    for _ in range(2):
        state, metrics = process.next(state, data)
    evaluated = evaluate(state.model, data)
    expected = losses(state.model)[ids]
    assert list(evaluated.eval) == list(metrics.train) == ["examples", "loss", "largest"]
    assert (
        evaluated.examples
        == metrics.train.examples
        == sum(len(batch["y"]) for batches in data for batch in batches)
    )
    np.testing.assert_allclose(evaluated.loss, expected.mean(), rtol=TOLERANCE)
    np.testing.assert_allclose(evaluated.largest, expected.max(), rtol=TOLERANCE)
    assert metrics.train.loss > evaluated.loss  # of the weights before


def test_fed_sgd_measures_the_weights_it_is_given():
    process = tff.learning.build_federated_sgd_process(
        model_class(tff.learning.Model, unweighted), lambda: fb.optimizers.sgdm(0.5)
    )
    state = process.initialize()
    before = losses(state.model)
    state, metrics = process.next(state, CLIENTS)
    np.testing.assert_allclose(metrics.train.loss, before.mean(), rtol=TOLERANCE)


def test_a_round_of_nobody():
    model_fn = model_class(tff.learning.Model, unweighted)
    process = tff.learning.build_federated_averaging_process(
        model_fn, client_optimizer_fn=lambda: fb.optimizers.sgdm(0.5)
    )
    state, metrics = process.next(process.initialize(), [])
    assert metrics.train.examples == 0
    assert np.isnan(metrics.train.loss)  # a mean of nothing


def test_later_builders_tell_what_to_write():
    model_fn = model_class(tff.learning.Model, unweighted)
    with pytest.raises(fb.ModelError, match="Mnist has no metric_finalizers"):
        tff.learning.algorithms.build_weighted_fed_avg(model_fn, fb.optimizers.sgdm(0.5))


def test_a_report_of_something_else_than_a_computation():
    model_fn = model_class(tff.learning.Model, {"loss": "mean"})
    process = tff.learning.build_federated_averaging_process(
        model_fn, client_optimizer_fn=lambda: fb.optimizers.sgdm(0.5)
    )
    with pytest.raises(fb.FedbridgeError, match="federated_output_computation needs a computation"):
        process.next(process.initialize(), CLIENTS)
