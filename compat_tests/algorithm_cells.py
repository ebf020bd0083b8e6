"""Small recordings of TFF's algorithms: each cell is a function, all run in one TFF process.

python compat_tests/algorithm_cells.py FOLDER [NAME ...]
"""

import collections
import functools
import hashlib
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

algorithms, optimizers = tff.learning.algorithms, tff.learning.optimizers
aggregators, models = tff.aggregators, tff.learning.models


def datasets(sizes=(9, 13, 1), epochs=2):
    rng = np.random.default_rng(0)

    def dataset(rows):
        x = rng.random((rows, 6), dtype=np.float32)
        y = rng.integers(0, 3, rows).astype(np.int32)
        slices = tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x, y=y))
        return slices.repeat(epochs).shuffle(8, seed=1).batch(4)

    return [dataset(rows) for rows in sizes]


SPEC = collections.OrderedDict(
    x=tf.TensorSpec((None, 6), tf.float32), y=tf.TensorSpec((None,), tf.int32)
)


def layers():
    glorot = tf.keras.initializers.GlorotUniform
    return [
        tf.keras.layers.InputLayer(input_shape=(6,)),
        tf.keras.layers.Dense(5, activation="tanh", kernel_initializer=glorot(seed=1)),
        tf.keras.layers.Dense(3, activation="softmax", kernel_initializer=glorot(seed=2)),
    ]


def model_fn():
    return models.from_keras_model(
        tf.keras.Sequential(layers()),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        input_spec=SPEC,
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


def functional_model(**metrics):
    return models.functional_model_from_keras(
        lambda: tf.keras.Sequential(layers()),
        tf.keras.losses.SparseCategoricalCrossentropy(),
        SPEC,
        metrics_constructor=collections.OrderedDict(metrics) or None,
    )


def reconstruction_model():
    model = tf.keras.Sequential(layers())
    return models.ReconstructionModel.from_keras_model_and_layers(
        model, global_layers=model.layers[:1], local_layers=model.layers[1:], input_spec=SPEC
    )


def run(process, data=None, rounds=3):
    state = process.initialize()
    for number in range(rounds):
        state, _ = process.next(state, data(number) if callable(data) else data or datasets())
    return state


def rate(round_num):
    return 0.1 / tf.cast(round_num + 1, tf.float32)


sgd = lambda *args: optimizers.build_sgdm(*args)
fed_avg = lambda **kwargs: algorithms.build_weighted_fed_avg(model_fn, sgd(0.1), **kwargs)
unweighted = lambda **kwargs: algorithms.build_unweighted_fed_avg(model_fn, sgd(0.1), **kwargs)
accuracy = lambda: tf.keras.metrics.SparseCategoricalAccuracy()


def nan_client(number):
    def dataset(x):
        arrays = collections.OrderedDict(x=x, y=np.zeros(len(x), np.int32))
        return tf.data.Dataset.from_tensor_slices(arrays).batch(4)

    bad = dataset(np.full((3, 6), np.nan, np.float32))
    return [*datasets(), bad] if number == 1 else datasets()


def fed_eval(model):
    evaluation = algorithms.build_fed_eval(model)
    run(evaluation, rounds=2)


def points(number):
    rng = np.random.default_rng(number)
    arrays = [rng.normal(size=(n, 2)).astype(np.float32) for n in (7, 4, 0)]
    return [tf.data.Dataset.from_tensor_slices(array) for array in arrays]


recon = dict(
    loss_fn=lambda: tf.keras.losses.SparseCategoricalCrossentropy(),
    metrics_fn=lambda: [tf.keras.metrics.SparseCategoricalAccuracy()],
)
split = lambda **kwargs: models.ReconstructionModel.build_dataset_split_fn(**kwargs)

CELLS = {
    "prox": lambda: run(algorithms.build_weighted_fed_prox(model_fn, 0.5, sgd(0.1))),
    "prox_nan": lambda: run(
        algorithms.build_unweighted_fed_prox(model_fn, 0.5, sgd(0.1)), nan_client
    ),
    "fed_sgd": lambda: run(algorithms.build_fed_sgd(model_fn)),
    "fed_sgd_nan": lambda: run(
        algorithms.build_fed_sgd(model_fn, optimizers.build_adam(0.01)), nan_client
    ),
    "schedule": lambda: run(
        algorithms.build_weighted_fed_avg_with_optimizer_schedule(
            model_fn, rate, lambda r: optimizers.build_adam(r)
        )
    ),
    "mime": lambda: run(algorithms.build_weighted_mime_lite(model_fn, sgd(0.1, 0.9))),
    "mime_nan": lambda: run(
        algorithms.build_unweighted_mime_lite(model_fn, optimizers.build_adam(0.05)), nan_client
    ),
    "mime_schedule": lambda: run(
        algorithms.build_mime_lite_with_optimizer_schedule(
            model_fn, rate, optimizers.build_adagrad(0.1)
        )
    ),
    "server_adamw": lambda: run(fed_avg(server_optimizer_fn=optimizers.build_adamw(0.02))),
    "server_yogi": lambda: run(fed_avg(server_optimizer_fn=optimizers.build_yogi(0.02))),
    "server_schedule": lambda: run(
        fed_avg(
            server_optimizer_fn=optimizers.schedule_learning_rate(optimizers.build_adam(0.1), rate)
        )
    ),
    "client_schedule": lambda: run(
        algorithms.build_weighted_fed_avg(
            model_fn, optimizers.schedule_learning_rate(sgd(0.1, 0.9), rate)
        )
    ),
    "robust": lambda: run(fed_avg(model_aggregator=tff.learning.robust_aggregator())),
    "robust_empty": lambda: run(
        fed_avg(model_aggregator=tff.learning.robust_aggregator()),
        lambda number: [] if number == 0 else datasets(),
    ),
    "clip": lambda: run(
        fed_avg(
            model_aggregator=aggregators.clipping_factory(
                0.05, aggregators.MeanFactory(no_nan_division=True)
            )
        )
    ),
    "zero_adaptive": lambda: run(
        unweighted(
            model_aggregator=aggregators.zeroing_factory(
                aggregators.PrivateQuantileEstimationProcess.no_noise(0.03, 0.9, 0.5, 2.0, 0.001),
                aggregators.UnweightedMeanFactory(),
                norm_order=2.0,
            )
        )
    ),
    "debug": lambda: run(
        fed_avg(
            model_aggregator=tff.learning.robust_aggregator(
                zeroing=False, debug_measurements_fn=tff.learning.add_debug_measurements
            )
        )
    ),
    "dp_fixed": lambda: run(
        unweighted(
            model_aggregator=aggregators.DifferentiallyPrivateFactory.gaussian_fixed(0.0, 3.0, 0.05)
        )
    ),
    "dp_adaptive": lambda: run(unweighted(model_aggregator=tff.learning.dp_aggregator(0.0, 3.0))),
    "dp_noise": lambda: run(unweighted(model_aggregator=tff.learning.dp_aggregator(0.1, 3.0))),
    "compression": lambda: run(
        fed_avg(
            model_aggregator=aggregators.MeanFactory(
                aggregators.EncodedSumFactory.quantize_above_threshold(8, 10, stochastic=False)
            )
        )
    ),
    "functional": lambda: run(
        algorithms.build_weighted_fed_avg(functional_model(accuracy=accuracy), sgd(0.1, 0.9))
    ),
    "functional_prox": lambda: run(
        algorithms.build_weighted_fed_prox(functional_model(), 0.5, sgd(0.1))
    ),
    "functional_sgd": lambda: run(
        algorithms.build_fed_sgd(
            functional_model(accuracy=accuracy, loss=tf.keras.metrics.SparseCategoricalCrossentropy)
        )
    ),
    "functional_eval": lambda: (
        run(algorithms.build_fed_sgd(functional_model(accuracy=accuracy)), rounds=1),
        fed_eval(functional_model(accuracy=accuracy)),
    ),
    "eval": lambda: (run(fed_avg(), rounds=1), fed_eval(model_fn)),
    "sample": lambda: run(fed_avg(metrics_aggregator=tff.learning.metrics.finalize_then_sample)),
    "recon": lambda: run(algorithms.build_fed_recon(reconstruction_model, **recon)),
    "recon_split": lambda: run(
        algorithms.build_fed_recon(
            reconstruction_model,
            **recon,
            dataset_split_fn=split(recon_epochs=2, recon_steps_max=3, post_recon_steps_max=2),
            client_weighting=tff.learning.ClientWeighting.UNIFORM,
        )
    ),
    "recon_eval": lambda: (
        run(algorithms.build_fed_recon(reconstruction_model, **recon), rounds=1),
        run(algorithms.build_fed_recon_eval(reconstruction_model, **recon), rounds=2),
    ),
    "kmeans": lambda: run(
        algorithms.build_fed_kmeans(num_clusters=3, data_shape=(2,), random_seed=(1, 2)), points
    ),
    # Not to be written down.
    "personal": lambda: (
        run(fed_avg(), rounds=1),
        algorithms.build_personalization_eval_computation(
            model_fn, collections.OrderedDict(), lambda model, data: collections.OrderedDict()
        ),
    ),
    "custom_measurement": lambda: run(
        unweighted(
            model_aggregator=aggregators.add_measurements(
                aggregators.UnweightedMeanFactory(),
                server_measurement_fn=lambda value: collections.OrderedDict(a=value[1]),
            )
        ),
        rounds=1,
    ),
    "scaled_rate": lambda: run(
        algorithms.build_weighted_fed_avg_with_optimizer_schedule(
            model_fn, rate, lambda r: sgd(2 * r)
        ),
        rounds=1,
    ),
    "recon_random": lambda: run(
        algorithms.build_fed_recon(
            functools.partial(
                lambda: models.ReconstructionModel.from_keras_model_and_layers(
                    (model := tf.keras.Sequential([*layers()[:2], tf.keras.layers.Dense(3)])),
                    global_layers=model.layers[:1],
                    local_layers=model.layers[1:],
                    input_spec=SPEC,
                )
            ),
            **recon,
        ),
        rounds=1,
    ),
}


def main(folder, names):
    import signal

    from fedbridge.bridge import recorder

    signal.signal(signal.SIGINT, signal.default_int_handler)
    current = recorder.install()
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    try:
        for name in names or CELLS:
            script = {"name": Path(__file__).name, "arguments": [name], "sha256": digest}
            recorder.record_function(current, CELLS[name], folder / name, script=script)
    finally:
        recorder._end_workers()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
