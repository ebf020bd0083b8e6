"""Rows of docs/differences.md that no other live test holds; each fails when one is not true."""

import asyncio
import collections
import inspect
import itertools
import math

import jax
import numpy as np
import pytest

import fedbridge as fb
from fedbridge import tff_io
from fedbridge.jax_core import aggregators, build_dataset_split_fn
from fedbridge.tff_io import from_keras_reconstruction

WEIGHTS = np.float32([[1.0, 2.0], [3.0, 4.0]])


def _keras_model(initializer="zeros"):
    import tensorflow as tf

    dense = tf.keras.layers.Dense
    return tf.keras.Sequential(
        [
            tf.keras.layers.InputLayer((2,)),
            dense(3, kernel_initializer=initializer),
            dense(2, kernel_initializer="ones"),
        ]
    )


def _dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((WEIGHTS, np.int32([0, 1]))).batch(1)


def _loss():
    import tensorflow as tf

    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _model_fn(tff):
    spec = _dataset().element_spec
    return lambda: tff.learning.models.from_keras_model(_keras_model(), _loss(), spec)


def test_keras_optimizers_are_refused(tff):
    import tensorflow as tf

    build = tff.learning.algorithms.build_weighted_fed_avg
    for given in (lambda: tf.keras.optimizers.SGD(0.1), tf.keras.optimizers.SGD(0.1)):
        with pytest.raises(AttributeError, match="has no attribute 'initialize'"):
            build(_model_fn(tff), given)
    build(_model_fn(tff), tff.learning.optimizers.build_sgdm(0.1))


def test_adafactor_stops_on_a_client_and_on_the_server(tff):
    """`KeyError` and `TypeError` in TFF; here it runs, on both sides."""
    adafactor = tff.learning.optimizers.build_adafactor(0.1)
    sgd = tff.learning.optimizers.build_sgdm(0.1)
    build = tff.learning.algorithms.build_weighted_fed_avg
    with pytest.raises(KeyError):
        build(_model_fn(tff), adafactor)
    with pytest.raises(TypeError):
        build(_model_fn(tff), sgd, adafactor)
    model = fb.from_keras(_keras_model(), _loss())
    own = fb.optimizers.adafactor(0.1)
    data = fb.from_clients({"a": {"x": WEIGHTS, "y": np.int32([0, 1])}})
    cohort = data.cohort(["a"], fb.Batches(batch_size=1))
    for process in (
        fb.algorithms.fed_avg(model, own),
        fb.algorithms.fed_avg(model, fb.optimizers.sgdm(0.1), own),
    ):
        state, metrics = process.next(process.initialize(), cohort)
        assert metrics["finalizer"]["update_non_finite"] == 0
        assert all(np.isfinite(w).all() for w in jax.tree.leaves(state.global_model_weights))


@pytest.mark.parametrize("quantile", [0.0, 1.0])
def test_quantiles_at_the_bounds_are_accepted(tff, quantile):
    tff.aggregators.PrivateQuantileEstimationProcess.no_noise(1.0, quantile, 0.1)
    tff.aggregators.DifferentiallyPrivateFactory.gaussian_adaptive(
        0.1, 10, target_unclipped_quantile=quantile
    )
    with pytest.raises(fb.ArgumentError, match="target_quantile"):
        aggregators.quantile_estimation(1.0, quantile, 0.1)
    with pytest.raises(fb.ArgumentError, match="target_unclipped_quantile"):
        aggregators.gaussian_adaptive(0.1, 10, target_unclipped_quantile=quantile)


@pytest.mark.parametrize("clip", [0.0, -1.0])
def test_clips_of_zero_or_less_are_accepted(tff, clip):
    tff.aggregators.clipping_factory(clip, tff.aggregators.SumFactory())
    tff.aggregators.zeroing_factory(clip, tff.aggregators.SumFactory())
    for make in (aggregators.clipping, aggregators.zeroing):
        with pytest.raises(fb.ArgumentError, match="number above 0"):
            make(clip, aggregators.sum_())


@pytest.mark.parametrize("epochs", [-1, None])
def test_epochs_without_a_number_never_end(tff, epochs):
    split = tff.learning.models.ReconstructionModel.build_dataset_split_fn(recon_epochs=epochs)
    support, _ = split(_dataset())
    assert len(list(itertools.islice(support, 50))) == 50  # of two batches
    with pytest.raises(fb.ArgumentError, match="recon_epochs"):
        inspect.unwrap(build_dataset_split_fn)(recon_epochs=epochs)


def test_unseeded_local_layers_are_drawn_once_for_each_process(tff):
    """All clients of all rounds start from the same values, those of another process from others.

    Here it is the Keras model's own values that they start from.
    """
    spec = _dataset().element_spec

    def model_fn():
        keras_model = _keras_model("glorot_uniform")
        local, last = keras_model.layers
        return tff.learning.models.ReconstructionModel.from_keras_model_and_layers(
            keras_model, global_layers=[last], local_layers=[local], input_spec=spec
        )

    def losses(sizes):
        """Of the rounds of one process, with so many clients of the same data each."""
        process = tff.learning.algorithms.build_fed_recon_eval(
            model_fn,
            loss_fn=_loss,
            reconstruction_optimizer_fn=tff.learning.optimizers.build_sgdm(0.0),
        )
        state = process.initialize()
        # Equal columns would hide the local layer; large numbers would saturate the loss, at 0.
        kernel = np.float32([[1, 2], [3, 5], [8, 13]]) / 20
        weights = process.get_model_weights(state)
        weights = weights._replace(trainable=(kernel, np.zeros(2, np.float32)))
        state = process.set_model_weights(state, weights)
        rounds = [process.next(state, [_dataset()] * size).metrics for size in sizes]
        return [m["client_work"]["eval"]["current_round_metrics"]["loss"] for m in rounds]

    one, again, three = losses([1, 1, 3])
    assert one == again == pytest.approx(three, rel=1e-6)
    others = [losses([1])[0] for _ in range(3)]
    assert max(abs(one - other) for other in others) > 1e-3

    keras_model = _keras_model("glorot_uniform")
    local, last = keras_model.layers
    ours = from_keras_reconstruction(keras_model, [last], [local], _loss())
    for key in (0, 1):
        start = ours.initial_local_weights(jax.random.key(key)).trainable[0]
        np.testing.assert_array_equal(start, local.kernel.numpy())


def test_an_iou_label_that_is_no_class_is_an_error(tff):
    """fedbridge, which cannot stop inside of a program, gives NaN: tests/test_metrics.py."""
    import tensorflow as tf

    metric = tf.keras.metrics.MeanIoU(num_classes=2)
    with pytest.raises(tf.errors.InvalidArgumentError):
        metric.update_state([0, 2], [0, 1])


def test_a_manager_that_keeps_one_state_and_the_first_deletes_it(tff, tmp_path):
    manager = tff.program.FileProgramStateManager(
        tmp_path, keep_total=1, keep_first=True, keep_every_k=1
    )
    asyncio.run(manager.save(np.float32(1), 1))
    asyncio.run(manager.save(np.float32(2), 2))
    assert list(asyncio.run(manager.get_versions()) or []) == [1]
    with pytest.raises(fb.StateError, match="keep_total=1 with keep_first=True"):
        tff_io.save_program_state(tmp_path, np.float32(3), 3, keep_total=1)


def test_a_client_whose_update_is_not_finite_counts_in_unweighted_means(tff):
    """One NaN client of two: the mean update is halved, on both sides."""
    build = tff.learning.algorithms.build_unweighted_fed_avg
    process = build(_model_fn(tff), tff.learning.optimizers.build_sgdm(0.1))
    start = process.initialize()
    nan = _dataset().map(lambda x, y: (x * math.nan, y))
    of = lambda data: process.next(start, data).state.global_model_weights.trainable
    alone, both = of([_dataset()]), of([_dataset(), nan])
    initial = start.global_model_weights.trainable
    moved = lambda after: np.concatenate(
        [np.ravel(a - b) for a, b in zip(after, initial, strict=True)]
    )
    assert np.abs(moved(alone)).max() > 1e-3
    np.testing.assert_allclose(moved(both), moved(alone) / 2, rtol=0, atol=1e-7)
    assert collections.Counter(np.isfinite(moved(both)))[False] == 0
