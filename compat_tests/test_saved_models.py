"""Models that are saved and loaded, and functional models as ones with variables, beside TFF's."""

import numpy as np
import pytest

import fedbridge as fb
from fedbridge import tff as ours


def _keras_model(dropout=True):
    """Without dropout for what trains on both sides, which draw other masks."""
    import tensorflow as tf

    glorot, layers = tf.keras.initializers.GlorotUniform, tf.keras.layers
    return tf.keras.Sequential([
        layers.InputLayer(input_shape=(4,)),
        layers.Dense(5, "tanh", kernel_initializer=glorot(seed=1)),
        *([layers.Dropout(0.5, seed=1)] if dropout else []),
        layers.Dense(3, kernel_initializer=glorot(seed=2)),
    ])  # fmt: skip


def _loss():
    import tensorflow as tf

    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _spec():
    import tensorflow as tf

    return tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([None, 1], tf.int32)


def _batch(rows=5):
    rng = np.random.default_rng(rows)
    return rng.random((rows, 4), np.float32), rng.integers(0, 3, (rows, 1)).astype(np.int32)


def _accuracy():
    import tensorflow as tf

    return tf.keras.metrics.SparseCategoricalAccuracy()


def _variable_model(t):
    return t.learning.models.from_keras_model(_keras_model(), _loss(), _spec(), None, [_accuracy()])


def test_a_saved_model_is_the_model_and_is_served_as_tffs(tff, tmp_path):
    import tensorflow as tf

    seen = []
    for number, t in enumerate((tff, ours)):
        first, second = (str(tmp_path / f"{name}{number}") for name in ("first", "second"))
        t.learning.models.save(_variable_model(t), first)
        t.learning.models.save(t.learning.models.load(first), second)
        model = t.learning.models.load(second)
        outputs = [model.forward_pass(_batch(rows), training=False) for rows in (5, 2)]
        values = model.report_local_unfinalized_metrics()
        finalized = {name: one(values[name]) for name, one in model.metric_finalizers().items()}
        (served,) = (
            tf.saved_model.load(first)
            .signatures["serving_default"](tf.constant(_batch()[0]))
            .values()
        )
        model.reset_metrics()
        zeros = model.report_local_unfinalized_metrics()
        assert not any(np.any(leaf) for leaf in tf.nest.flatten(zeros))
        whole = (
            list(map(tuple, outputs)),
            values,
            finalized,
            served,
            model.predict_on_batch(_batch()[0], training=False),
        )
        seen.append([np.asarray(leaf) for leaf in tf.nest.flatten(whole)])
    for theirs, mine in zip(*seen, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def _rounds(t, model_fn):
    import tensorflow as tf

    sgdm = t.learning.optimizers.build_sgdm
    process = t.learning.algorithms.build_weighted_fed_avg(model_fn, sgdm(0.1), sgdm(1.0))
    state = process.initialize()
    data = [tf.data.Dataset.from_tensor_slices(_batch(rows)).batch(3) for rows in (5, 4, 7)]
    for _ in range(2):
        state, metrics = process.next(state, data)
    return process.get_model_weights(state), metrics["client_work"]


@pytest.mark.parametrize("saved", [False, True], ids=["made", "loaded"])
def test_a_functional_model_with_variables_trains_as_tffs(tff, tmp_path, saved):
    import tensorflow as tf

    def made(t):
        model = t.learning.models.functional_model_from_keras(
            _keras_model(dropout=False), _loss(), _spec()
        )
        if saved:
            t.learning.models.save_functional_model(model, str(tmp_path / t.__name__))
            model = t.learning.models.load_functional_model(str(tmp_path / t.__name__))
        return lambda: t.learning.models.model_from_functional(model, [_accuracy])

    theirs, mine = (_rounds(t, made(t)) for t in (tff, ours))
    for expected, found in zip(tf.nest.flatten(theirs), tf.nest.flatten(mine), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)  # sums in another order


def test_a_loaded_model_trains_as_the_model(tff, tmp_path):
    import tensorflow as tf

    path = str(tmp_path / "model")
    made = lambda: ours.learning.models.from_keras_model(
        _keras_model(dropout=False), _loss(), _spec()
    )
    ours.learning.models.save(made(), path)
    with pytest.warns(UserWarning, match="trains in"):
        loaded = _rounds(ours, lambda: ours.learning.models.load(path))
    for expected, found in zip(
        tf.nest.flatten(_rounds(ours, made)), tf.nest.flatten(loaded), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)  # sums in another order


def test_what_is_no_saved_model_is_refused(tff, tmp_path):
    models, file = ours.learning.models, tmp_path / "file"
    tff.learning.models.save(_variable_model(tff), str(tmp_path / "theirs"))
    file.write_text("")
    for load, path, words in (
        (models.load, tmp_path / "none", "no saved model is there"),
        (models.load_functional_model, tmp_path / "none", "no saved model is there"),
        (models.load, tmp_path / "theirs", "fedbridge.tff has not saved this"),
        (lambda path: models.save(_variable_model(ours), path), file / "in", "cannot be written"),
    ):
        with pytest.raises(fb.StateError, match=words):
            load(str(path))
    with pytest.raises(fb.ArgumentError, match="path is ''"):
        models.save(_variable_model(ours), "")
