"""What the cells of the parity matrix are made of, under the real TFF: one table a dimension.

The models are smooth (all but one) and tiny, and no client takes more than three local steps, so
that two float32 implementations agree to rounding: see `fedbridge.bridge.judge`.
"""

import collections
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedbridge.bridge import recorder

# Before anything is taken from TFF: what its builders make must be watched.
CURRENT = recorder.install()
algorithms, optimizers = tff.learning.algorithms, tff.learning.optimizers
aggregators, models = tff.aggregators, tff.learning.models
layers, losses, metrics = tf.keras.layers, tf.keras.losses, tf.keras.metrics

CASES = {  # the clients' sizes; a minus marks a client with a NaN among its features
    "ragged": [9, 5, 12, 1],
    "empty client": [9, 0, 12],
    "one example": [1],
    "NaN client": [9, -5, 12],
    "only NaN clients": [-9, -5],
    "zero clients": [],
}
BATCH = 4


def init(seed):
    return tf.keras.initializers.GlorotUniform(seed=seed)


def dense(units, seed, **kwargs):
    return layers.Dense(units, kernel_initializer=init(seed), **kwargs)


def convolutional(activation, pooling):
    convolution = layers.Conv2D(2, 3, activation=activation, kernel_initializer=init(1))
    return [convolution, pooling(2), layers.Flatten(), dense(3, 2)]


def recurrent():
    embedding = tf.keras.initializers.RandomUniform(seed=1)
    lstm = layers.LSTM(
        3, return_sequences=True, kernel_initializer=init(2), recurrent_initializer=init(3)
    )
    return [layers.Embedding(12, 3, embeddings_initializer=embedding), lstm, dense(12, 4)]


def columns(rng, rows):
    return rng.random((rows, 6), dtype=np.float32), rng.integers(0, 3, rows).astype(np.int32)


def images(rng, rows):
    pixels = rng.integers(0, 256, (rows, 6, 6, 1)).astype(np.float32) / np.float32(255)
    return pixels, rng.integers(0, 3, rows).astype(np.int32)


def sentences(rng, rows):
    words = rng.integers(0, 12, (rows, 6)).astype(np.int32)
    return words[:, :-1], words[:, 1:]


def targets(rng, rows):
    x = rng.random((rows, 6), dtype=np.float32)
    return x, x.sum(axis=1, keepdims=True)


def crossentropy():
    return losses.SparseCategoricalCrossentropy(from_logits=True)


class Kind(NamedTuple):
    """A model, and how it is trained.

    Where its gradients are small, a larger rate moves the weights by more than a few ulp, and a
    larger epsilon keeps an adaptive optimizer from dividing what is all rounding by itself.
    """

    build: Callable
    data: Callable
    loss: Callable
    metric: Callable
    functional: bool = False
    rate: float = 1.0
    given: dict = {}

    def layers(self):
        shape = self.data(np.random.default_rng(0), 1)[0].shape[1:]
        return [layers.InputLayer(input_shape=shape), *self.build()]


classified = crossentropy, metrics.SparseCategoricalAccuracy
MODELS = {
    "softmax regression": Kind(lambda: [dense(3, 1)], columns, *classified),
    "smooth CNN": Kind(lambda: convolutional("tanh", layers.AveragePooling2D), images, *classified),
    "ReLU CNN": Kind(lambda: convolutional("relu", layers.MaxPool2D), images, *classified),
    "LSTM": Kind(recurrent, sentences, *classified, rate=5.0, given={"epsilon": 1e-3}),
    "functional linear": Kind(
        lambda: [dense(1, 1)], targets, losses.MeanSquaredError, metrics.MeanAbsoluteError, True
    ),
}


def clients(model, case, seed):
    """The data sets of one round."""
    rng = np.random.default_rng(seed)

    def dataset(size):
        x, y = MODELS[model].data(rng, abs(size))
        if size < 0:
            x.reshape(len(x), -1)[len(x) // 2, 1] = np.nan
        arrays = collections.OrderedDict(x=x, y=y)
        return tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH)

    return [dataset(size) for size in CASES[case]]


def points(case, seed):
    """The data sets of one round of k-means."""
    rng = np.random.default_rng(seed)

    def dataset(size):
        x = rng.normal(size=(abs(size), 2)).astype(np.float32)
        if size < 0:
            x[len(x) // 2, 1] = np.nan
        return tf.data.Dataset.from_tensor_slices(x)

    return [dataset(size) for size in CASES[case]]


def made(model):
    """The model as the builders take it: a function, or a functional model."""
    kind, spec = MODELS[model], clients(model, "one example", 0)[0].element_spec
    if kind.functional:
        return models.functional_model_from_keras(
            lambda: tf.keras.Sequential(kind.layers()),
            kind.loss(),
            spec,
            metrics_constructor=collections.OrderedDict(metric=kind.metric),
        )
    return lambda: models.from_keras_model(
        tf.keras.Sequential(kind.layers()), kind.loss(), spec, metrics=[kind.metric()]
    )


def reconstruction_model():
    hidden = dense(4, 1, activation="tanh")
    model = tf.keras.Sequential([layers.InputLayer(input_shape=(6,)), hidden, dense(3, 2)])
    spec = clients("softmax regression", "one example", 0)[0].element_spec
    return models.ReconstructionModel.from_keras_model_and_layers(
        model, global_layers=model.layers[:1], local_layers=model.layers[1:], input_spec=spec
    )


def rate(round_num):
    return 0.1 / tf.cast(round_num + 1, tf.float32)


# From a learning rate, and an epsilon where it has one, to the optimizer.
OPTIMIZERS = {
    "sgd": lambda rate, **_: optimizers.build_sgdm(rate),
    "momentum": lambda rate, **_: optimizers.build_sgdm(rate, 0.9),
    "adagrad": optimizers.build_adagrad,
    "adam": optimizers.build_adam,
    "adamw": optimizers.build_adamw,
    "rmsprop": optimizers.build_rmsprop,
    "yogi": optimizers.build_yogi,
    "adafactor": lambda rate, **_: optimizers.build_adafactor(rate),
}
RATES = {"sgd": 0.1, "momentum": 0.1, "adagrad": 0.1}


def optimizer(name, model):
    """An optimizer of the clients by name, with a rate that suits it."""
    kind = MODELS[model]
    if name == "scheduled":
        return optimizers.schedule_learning_rate(OPTIMIZERS["momentum"](0.1), rate)
    return OPTIMIZERS[name](kind.rate * RATES.get(name, 0.02), **kind.given)


def server_optimizer(name, model):
    """One of the server."""
    if name in ("sgd", "scheduled"):
        return OPTIMIZERS[name](1.0) if name == "sgd" else optimizer(name, model)
    return OPTIMIZERS[name](RATES.get(name, 0.02), **MODELS[model].given)


def encoded(**kwargs):
    return aggregators.EncodedSumFactory.quantize_above_threshold(4, 10, **kwargs)


norm = functools.partial(
    aggregators.PrivateQuantileEstimationProcess.no_noise,
    learning_rate=0.5, multiplier=1.5, secure_estimation=False,
)  # fmt: skip
dp = aggregators.DifferentiallyPrivateFactory
# Those that weigh clients, and those that cannot.
WEIGHTED = {
    "mean": aggregators.MeanFactory,
    "mean, no NaN": lambda: aggregators.MeanFactory(no_nan_division=True),
    "clipping, fixed": lambda: aggregators.clipping_factory(0.05, aggregators.MeanFactory()),
    "clipping, adaptive": lambda: aggregators.clipping_factory(
        norm(0.05, 0.5), aggregators.MeanFactory()
    ),
    "zeroing, fixed": lambda: aggregators.zeroing_factory(0.08, aggregators.MeanFactory()),
    "zeroing, adaptive": lambda: aggregators.zeroing_factory(
        norm(0.03, 0.9), aggregators.MeanFactory(), norm_order=2.0
    ),
    "robust": tff.learning.robust_aggregator,
    "robust, debug": lambda: tff.learning.robust_aggregator(
        debug_measurements_fn=tff.learning.add_debug_measurements
    ),
    "compression": lambda: aggregators.MeanFactory(encoded(stochastic=False)),
    "compression, random": lambda: aggregators.MeanFactory(encoded(stochastic=True)),
}
UNWEIGHTED = {
    "sum": aggregators.SumFactory,
    "unweighted mean": aggregators.UnweightedMeanFactory,
    "DP, fixed": lambda: dp.gaussian_fixed(0.0, 4.0, 0.05),
    "DP, adaptive": lambda: dp.gaussian_adaptive(0.0, 4.0),
    "DP, recommended": lambda: tff.learning.dp_aggregator(0.0, 4.0),
    "DP, noise": lambda: dp.gaussian_fixed(0.5, 4.0, 0.05),
}
AGGREGATORS = {**WEIGHTED, **UNWEIGHTED}


def aggregator(name):
    """An aggregator by name; None, the builder's own, for `default`."""
    return None if name == "default" else AGGREGATORS[name]()


def _schedule(model, client, server, given):
    return algorithms.build_weighted_fed_avg_with_optimizer_schedule(
        made(model), rate, OPTIMIZERS[client], server_optimizer_fn=server, model_aggregator=given
    )


def _of_optimizers(build, *more):
    return lambda model, client, server, given: build(
        made(model), *more, optimizer(client, model), server, model_aggregator=given
    )


def _fed_recon(model, client, server, given):
    return algorithms.build_fed_recon(
        reconstruction_model,
        loss_fn=crossentropy,
        metrics_fn=lambda: [metrics.SparseCategoricalAccuracy()],
        client_optimizer_fn=optimizer(client, model),
        server_optimizer_fn=server,
        reconstruction_optimizer_fn=optimizer(client, model),
        model_aggregator_factory=given,
    )


# (name of the model, name of the client optimizer, server optimizer, aggregator) -> process
ALGORITHMS = {
    "weighted FedAvg": _of_optimizers(algorithms.build_weighted_fed_avg),
    "unweighted FedAvg": _of_optimizers(algorithms.build_unweighted_fed_avg),
    "FedAvg, schedule": _schedule,
    "weighted FedProx": _of_optimizers(algorithms.build_weighted_fed_prox, 0.5),
    "unweighted FedProx": _of_optimizers(algorithms.build_unweighted_fed_prox, 0.5),
    "FedSGD": lambda model, client, server, given: algorithms.build_fed_sgd(
        made(model), server, model_aggregator=given
    ),
    "weighted MimeLite": _of_optimizers(algorithms.build_weighted_mime_lite),
    "unweighted MimeLite": _of_optimizers(algorithms.build_unweighted_mime_lite),
    "MimeLite, schedule": lambda model, client, server, given: (
        algorithms.build_mime_lite_with_optimizer_schedule(
            made(model),
            rate,
            optimizer(client, model),
            server_optimizer=server,
            model_aggregator=given,
        )
    ),
    "FedRecon": _fed_recon,
}
