"""Each metric against Keras 2.14's own, variables and values, and several through TFF."""

import json
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedbridge as fb
from fedbridge.bridge import model_sources
from fedbridge.jax_core import Forward
from fedbridge.tff_io._keras_metrics import METRICS, TFF_REFUSES, tff_metrics
from fedbridge.tff_io._keras_objects import describe_keras

# Counts agree exactly. Sums of float32 are added in another order: a few units in the last place,
# 6e-8 each, of sums of some hundred terms.
TOLERANCE = 1e-6
SIZES, ROWS, CLASSES = (7, 8, 1), 8, 5


def probabilities(rng, *shape):
    """Many ties, many on a threshold, some saturated, some out of range by rounding."""
    drawn = rng.integers(0, 11, shape) / 10
    fine = rng.random(shape)
    exact = rng.choice(
        [0.0, 0.5, 1.0, 3 / 199, 100 / 199, 0.3, np.nextafter(np.float32(1), 2)], shape
    )
    return np.choose(rng.integers(0, 3, shape), [drawn, fine, exact]).astype(np.float32)


def one_hot(rng, n):
    return np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, n)], _softmax(rng, n)


def distributions(rng, n):
    """No row of zeros, of which a cross-entropy is NaN on both sides."""
    labels, predictions = one_hot(rng, n)
    return labels, np.where(predictions.any(axis=1, keepdims=True), predictions, np.float32(0.2))


def sparse(rng, n):
    return rng.integers(0, CLASSES, n).astype(np.int32), _softmax(rng, n)


def sparse_column(rng, n):
    labels, predictions = sparse(rng, n)
    return labels[:, None].astype(np.int64), predictions


def tokens(rng, n):
    predictions = np.stack([_softmax(rng, n) for _ in range(3)], axis=1)
    return rng.integers(0, CLASSES, (n, 3)).astype(np.int64), predictions


def many_labels(rng, n):
    return (rng.random((n, CLASSES)) < 0.4).astype(np.float32), probabilities(rng, n, CLASSES)


def whole_labels(rng, n):
    return rng.integers(0, 2, (n, CLASSES)).astype(np.int32), probabilities(rng, n, CLASSES)


def binary(rng, n):
    return rng.integers(0, 2, n).astype(np.int32), probabilities(rng, n, 1)


def maps(rng, n):
    """A label and a prediction for each place of an image."""
    return (rng.random((n, 2, 3)) < 0.5).astype(np.float32), probabilities(rng, n, 2, 3)


def logits(rng, n):
    scale = rng.choice([0.0, 1.0, 100.0], (n, 1))
    return many_labels(rng, n)[0], (scale * rng.normal(size=(n, CLASSES))).astype(np.float32)


def hot_logits(rng, n):
    return one_hot(rng, n)[0], logits(rng, n)[1]


def sparse_logits(rng, n):
    return sparse(rng, n)[0], logits(rng, n)[1]


def regression(rng, n):
    def draw():
        return (rng.normal(size=(n, 3)) * rng.choice([0.0, 1.0, 30.0], (n, 1))).astype(np.float32)

    return draw(), draw()


def near(rng, n):
    """Predictions close to labels: log-cosh and logarithms cancel, down to their last place."""
    labels = regression(rng, n)[0]
    return labels, (labels + rng.normal(scale=0.1, size=labels.shape)).astype(np.float32)


def single(rng, n):
    """Labels [batch], predictions [batch, 1]: the mean over the last axis is over the batch."""
    labels, predictions = regression(rng, n)
    return labels[:, 0], predictions[:, :1]


def signs(rng, n):
    return rng.choice([-1.0, 1.0], (n, 3)).astype(np.float32), regression(rng, n)[1]


def counts(rng, n):
    return rng.poisson(2.0, (n, 3)).astype(np.int32), np.abs(regression(rng, n)[1])


def class_maps(rng, n):
    """Class numbers; predictions that are no whole numbers are cut off."""
    predictions = rng.integers(0, 3, (n, 4)) + rng.choice([0.0, 0.9], (n, 4))
    return rng.integers(0, 3, (n, 4)).astype(np.int32), predictions.astype(np.float32)


def _softmax(rng, n):
    drawn = np.exp(2 * rng.normal(size=(n, CLASSES)))
    drawn /= drawn.sum(axis=1, keepdims=True)
    hard = np.eye(CLASSES)[rng.integers(0, CLASSES, n)]
    ties = np.full((n, CLASSES), 1 / CLASSES)
    zeros = np.zeros((n, CLASSES))
    which = rng.choice(5, n)
    rounded = np.round(drawn, 1)
    return np.stack([drawn, hard, ties, zeros, rounded])[which, np.arange(n)].astype(np.float32)


def _auc(**config):
    return lambda keras: keras.metrics.AUC(**config)


def _of(class_name, *args, **config):
    return lambda keras: getattr(keras.metrics, class_name)(*args, **config)


EVEN, UNEVEN = [0.0, 0.25, 0.5, 0.75, 1.0], [0.9, 0.0, 0.3, 1.0]
WEIGHTS = [0.0, 1.0, 2.5, 0.3, 1.0]
CASES = [
    (data, _of(name, **config))
    for name in ("TruePositives", "TrueNegatives", "FalsePositives", "FalseNegatives")
    for data, config in [
        (many_labels, {}),
        (binary, {"thresholds": EVEN}),
        (maps, {"thresholds": UNEVEN}),
    ]
]
CASES += [
    (data, _of(name, **config))
    for name in ("Precision", "Recall")
    for data, config in [
        (many_labels, {}),
        (whole_labels, {"thresholds": 0.3}),
        (maps, {"thresholds": [0.0, 0.5]}),
        (binary, {"thresholds": EVEN}),
        (many_labels, {"thresholds": UNEVEN, "class_id": 2}),
        (many_labels, {"top_k": 2}),
        (one_hot, {"top_k": 3, "class_id": 1}),
        (logits, {"top_k": 2, "thresholds": EVEN}),
        (logits, {"thresholds": 0}),
        (one_hot, {"top_k": CLASSES}),
    ]
]
CASES += [
    (many_labels, _of("PrecisionAtRecall", 0.5)),
    (binary, _of("PrecisionAtRecall", 0.8, num_thresholds=1)),
    (one_hot, _of("RecallAtPrecision", 0.6, num_thresholds=11, class_id=2)),
    (binary, _of("RecallAtPrecision", 1.0)),
    (many_labels, _of("SensitivityAtSpecificity", 0.4, num_thresholds=2)),
    (maps, _of("SpecificityAtSensitivity", 0.7)),
]
CASES += [
    (data, _auc(curve=curve, summation_method=how, **config))
    for data, config in [
        (binary, {}),
        (many_labels, {"num_thresholds": 11}),
        (many_labels, {"thresholds": [0.5, 0.1, 0.3], "label_weights": WEIGHTS}),
    ]
    for curve in ("ROC", "PR")
    for how in ("interpolation", "minoring", "majoring")
]
CASES += [
    (many_labels, _auc(multi_label=True, num_labels=CLASSES, curve=curve, **config))
    for curve in ("ROC", "PR")
    for config in ({}, {"label_weights": WEIGHTS}, {"thresholds": [0.25, 0.5, 0.75]})
]
CASES += [(logits, _auc(from_logits=True)), (one_hot, _auc(num_thresholds=2)), (maps, _auc())]
CASES += [
    (whole_labels, _of("Accuracy")),
    (many_labels, _of("BinaryAccuracy", threshold=0.3)),
    (one_hot, _of("CategoricalAccuracy")),
    (sparse_column, _of("SparseCategoricalAccuracy")),
    (one_hot, _of("TopKCategoricalAccuracy", k=2)),
    (one_hot, _of("TopKCategoricalAccuracy", k=9)),
    (sparse, _of("SparseTopKCategoricalAccuracy", k=1)),
    (sparse_column, _of("SparseTopKCategoricalAccuracy", k=3)),
    (tokens, _of("SparseTopKCategoricalAccuracy", k=2)),
    (many_labels, _of("BinaryCrossentropy", label_smoothing=0.1)),
    (binary, _of("BinaryCrossentropy")),
    (logits, _of("BinaryCrossentropy", from_logits=True)),
    (distributions, _of("CategoricalCrossentropy")),
    (hot_logits, _of("CategoricalCrossentropy", from_logits=True, label_smoothing=0.2)),
    (sparse_column, _of("SparseCategoricalCrossentropy")),
    (sparse_logits, _of("SparseCategoricalCrossentropy", from_logits=True)),
    (tokens, _of("SparseCategoricalCrossentropy")),
    (one_hot, _of("KLDivergence")),
    (binary, _of("KLDivergence")),
    (counts, _of("Poisson")),
    (logits, _of("Hinge")),
    (signs, _of("Hinge")),
    (regression, _of("SquaredHinge")),
    (binary, _of("SquaredHinge")),
    (hot_logits, _of("CategoricalHinge")),
    (regression, _of("CosineSimilarity")),
    (single, _of("CosineSimilarity")),
    (tokens, lambda keras: _tokens("NumTokensCounter", [0, 3])),
    (tokens, lambda keras: _tokens("MaskedCategoricalAccuracy", [0, 3])),
    (sparse, lambda keras: _tokens("MaskedCategoricalAccuracy")),
    (class_maps, _of("MeanIoU", 3)),
    (class_maps, _of("IoU", 4, [3, 0], ignore_class=1)),
    (sparse, _of("MeanIoU", CLASSES, sparse_y_pred=False)),
    (one_hot, _of("OneHotIoU", CLASSES, [1, 2])),
    (one_hot, _of("OneHotMeanIoU", CLASSES)),
    (maps, _of("BinaryIoU", threshold=0.3)),
    (maps, _of("BinaryIoU", [1])),
]
CASES += [
    (data, _of(name))
    for name in (
        "MeanAbsoluteError",
        "MeanAbsolutePercentageError",
        "MeanSquaredError",
        "MeanSquaredLogarithmicError",
        "RootMeanSquaredError",
        "LogCoshError",
    )
    for data in (regression, near, single)
]


def _tokens(class_name, masked_tokens=None):
    from tensorflow_federated.python.simulation.baselines import keras_metrics

    return getattr(keras_metrics, class_name)(masked_tokens)


def padded(rng, array):
    """To `ROWS` rows, with rows that would count: NaN where it can be."""
    more = np.repeat(array[:1], ROWS - len(array), axis=0)
    junk = np.full_like(more, np.nan) if array.dtype == np.float32 else more
    return np.concatenate([array, junk])


def forward_of(predictions, real):
    return Forward(jnp.zeros(()), jnp.asarray(predictions), jnp.zeros(()), jnp.asarray(real))


def assert_variables(ours, theirs, atol):
    """The same arrays in the same order, but counts are int32 until they reach the border."""
    for mine, variable in zip(jax.tree.leaves(ours), theirs, strict=True):
        expected = variable.numpy()
        dtype = np.int32 if expected.dtype == np.int64 else expected.dtype
        assert (mine.shape, mine.dtype) == (expected.shape, dtype)
        if np.all(expected == np.round(expected)) and np.all(np.abs(expected) < 2**20):
            np.testing.assert_array_equal(mine, expected)  # counts
        np.testing.assert_allclose(mine, expected, rtol=TOLERANCE, atol=atol)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
@pytest.mark.parametrize("padding", [False, True], ids=["exact", "padded"])
def test_variables_and_value_are_kerass(tff, case, padding):
    import tensorflow as tf

    data, make = case
    # What cancels keeps the last place of numbers of size 1, once a row.
    atol = ROWS * len(SIZES) * 1.2e-7 if data is near else 0.0
    metric = make(tf.keras)
    converted, rng = tff_metrics([describe_keras(metric)])[metric.name], np.random.default_rng(5)
    update = jax.jit(converted.update)
    seen = converted.zero()
    for size in SIZES:
        labels, predictions = data(rng, size)
        metric.update_state(y_true=tf.constant(labels), y_pred=tf.constant(predictions))
        mask = None
        if padding:
            labels, predictions = padded(rng, labels), padded(rng, predictions)
            mask = jnp.arange(ROWS) < size
        seen = update(seen, {"y": jnp.asarray(labels)}, forward_of(predictions, size), mask)
        assert_variables(seen, metric.variables, atol)
    value, expected = converted.finalize(seen), metric.result().numpy()
    assert np.shape(value) == np.shape(expected) and np.isfinite(expected).all()
    np.testing.assert_allclose(value, expected, rtol=TOLERANCE, atol=atol)


def test_what_a_trace_says_of_a_metric_makes_the_same_metric(tff):
    """Through JSON, in which arrays are lists: all arguments, and with arrays all values."""
    import tensorflow as tf

    with_arrays = 0
    for data, make in CASES:
        metric = make(tf.keras)
        written = model_sources._config(metric)
        if not any(isinstance(value, np.ndarray) for value in metric.get_config().values()):
            assert written["config"] == json.loads(json.dumps(describe_keras(metric)["config"]))
            continue
        with_arrays += 1
        labels, predictions = data(np.random.default_rng(5), 8)
        values = []
        for spec in (written, describe_keras(metric)):
            made = tff_metrics([spec])[metric.name]
            forward = forward_of(predictions, 8)
            values.append(made.finalize(made.update(made.zero(), {"y": labels}, forward, None)))
        np.testing.assert_array_equal(*values)
    assert with_arrays == 8  # AUC with label_weights


@pytest.mark.parametrize(
    ("data", "make"),
    [
        (one_hot, _of("F1Score", average="macro")),
        (many_labels, _of("F1Score", threshold=0.4)),
        (one_hot, _of("FBetaScore", beta=2.0, average="micro")),
        (many_labels, _of("FBetaScore", beta=0.5, average="weighted", threshold=0.5)),
        (regression, _of("R2Score")),
        (near, _of("R2Score", class_aggregation=None)),
        (regression, _of("R2Score", "variance_weighted_average", num_regressors=4)),
        (regression, _of("R2Score", num_regressors=60)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_scores_that_tff_cannot_use(tff, data, make):
    """The native ones have Keras' variables and values all the same."""
    import tensorflow as tf

    metric = make(tf.keras)
    config = {k: v for k, v in metric.get_config().items() if k not in ("name", "dtype")}
    native = fb.metrics.f_beta_score if "average" in config else fb.metrics.r2_score
    rng = np.random.default_rng(5)
    converted = native(data(rng, 1)[0].shape[1], **config)
    seen = converted.zero()
    for size in SIZES:
        labels, predictions = data(rng, size)
        metric.update_state(tf.constant(labels), tf.constant(predictions))
        labels, predictions = padded(rng, labels), padded(rng, predictions)
        mask = jnp.arange(ROWS) < size
        seen = converted.update(seen, {"y": labels}, forward_of(predictions, size), mask)
    assert_variables(seen, metric.variables, 0.0)
    value, expected = converted.finalize(seen), metric.result().numpy()
    # R2 is 1 minus a ratio of sums.
    np.testing.assert_allclose(value, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_loss_of_reconstruction(tff):
    """`MeanMetricWrapper` of a loss that is reduced already: each batch counts once."""
    import tensorflow as tf

    loss = tf.keras.losses.MeanSquaredError()
    metric = tf.keras.metrics.MeanMetricWrapper(loss, name="loss")
    converted = fb.metrics.mean_of_batches(lambda batch, forward, mask: forward.metric_loss)
    seen, rng = converted.zero(), np.random.default_rng(5)
    for size in SIZES:
        labels, predictions = regression(rng, size)
        metric.update_state(y_true=tf.constant(labels), y_pred=tf.constant(predictions))
        value = jnp.asarray(loss(labels, predictions).numpy())
        forward = forward_of(predictions, size)._replace(metric_loss=value)
        seen = converted.update(seen, {"y": labels}, forward, jnp.arange(size) >= 0)
    assert_variables(seen, metric.variables, 0.0)
    np.testing.assert_allclose(converted.finalize(seen), metric.result(), rtol=TOLERANCE)


def test_every_metric_of_the_table_is_compared(tff):
    import tensorflow as tf

    compared = {type(make(tf.keras)).__name__ for _, make in CASES}
    assert set(METRICS) - compared == {"NumBatchesCounter", "NumExamplesCounter"}


def _evaluation(tff, metrics):
    """TFF's federated evaluation of a small model with many labels, and its Keras model."""
    import tensorflow as tf

    def keras_model():
        dense = tf.keras.layers.Dense(3, "sigmoid", input_shape=(4,), kernel_initializer="ones")
        return tf.keras.Sequential([dense])

    spec = OrderedDict(
        x=tf.TensorSpec((None, 4), tf.float32), y=tf.TensorSpec((None, 3), tf.float32)
    )
    loss = tf.keras.losses.BinaryCrossentropy()

    def model_fn():
        return tff.learning.models.from_keras_model(
            keras_model(), loss, spec, metrics=[make() for make in metrics]
        )

    own = fb.from_keras(keras_model(), loss, metrics)
    return tff.learning.algorithms.build_fed_eval(model_fn), own


def test_through_tff(tff):
    """Names and their order, dtypes, the state tree and all numbers over two rounds."""
    import tensorflow as tf

    keras = tf.keras.metrics
    process, model = _evaluation(
        tff,
        [
            lambda: keras.Precision(thresholds=[0.3, 0.5], name="zzz"),
            lambda: keras.Recall(top_k=2, name="recall_at_2"),
            lambda: keras.AUC(multi_label=True, num_labels=3, label_weights=[1, 0, 2], name="auc"),
            lambda: keras.AUC(curve="PR", num_thresholds=20, name="pr"),
            lambda: keras.FalseNegatives(name="misses"),
            keras.CosineSimilarity,
            keras.RootMeanSquaredError,
            lambda: keras.OneHotMeanIoU(3, name="iou"),
            keras.BinaryCrossentropy,
            lambda: keras.TopKCategoricalAccuracy(k=2),
            lambda: keras.SensitivityAtSpecificity(0.5, num_thresholds=9, name="sensitivity"),
        ],
    )
    rng = np.random.default_rng(3)
    clients = {
        f"c{i}": OrderedDict(
            # Some are saturated, none nearly: there the last place of a prediction is enlarged.
            x=np.where(
                rng.random((n, 1)) < 0.5,
                rng.choice([-40.0, 0.0, 40.0], (n, 4)),
                rng.normal(scale=0.5, size=(n, 4)),
            ).astype(np.float32),
            y=rng.integers(0, 2, (n, 3)).astype(np.float32),
        )
        for i, n in enumerate((7, 0, 5, 1))
    }
    datasets = [tf.data.Dataset.from_tensor_slices(c).batch(4) for c in clients.values()]
    data = fb.from_clients(clients)
    own = fb.algorithms.fed_eval(model)
    state, own_state = process.initialize(), own.initialize()
    for _ in range(2):
        state, theirs = process.next(state, datasets)
        own_state, ours = own.next(own_state, data.cohort(list(clients), fb.Batches(batch_size=4)))
    theirs, ours = (part["client_work"]["eval"] for part in (theirs, ours))
    for name in ("current_round_metrics", "total_rounds_metrics"):
        assert list(ours[name]) == list(theirs[name])
        for key, value in theirs[name].items():
            mine, value = np.asarray(ours[name][key]), np.asarray(value)
            assert (mine.shape, mine.dtype) == (value.shape, value.dtype), key
            np.testing.assert_allclose(mine, value, rtol=TOLERANCE, atol=0, err_msg=key)
    _, totals = state.client_work
    assert list(own_state.client_work[1]) == list(totals)
    for key, variables in totals.items():
        mine = jax.tree.leaves(own_state.client_work[1][key])
        for array, variable in zip(mine, variables, strict=True):
            variable = np.asarray(variable)
            assert (array.shape, array.dtype) == (variable.shape, variable.dtype), key
            np.testing.assert_allclose(array, variable, rtol=TOLERANCE, atol=0, err_msg=key)


@pytest.mark.parametrize("class_name", ["F1Score", "Mean"])
def test_what_tff_refuses(tff, class_name):
    """One of each reason; if TFF learns to use them, so should we."""
    import tensorflow as tf

    make = getattr(tf.keras.metrics, class_name)
    assert class_name in TFF_REFUSES
    with pytest.raises(fb.ModelError, match=r"TFF cannot use it.*fb\.metrics\."):
        tff_metrics([describe_keras(make())])
    words = {"F1Score": "has no attribute 'true_positives'", "Mean": "unexpected keyword"}
    with pytest.raises((AttributeError, TypeError), match=words[class_name]):
        _evaluation_of_one(tff, make)


def _evaluation_of_one(tff, make):
    import tensorflow as tf

    spec = (tf.TensorSpec((None, 2), tf.float32), tf.TensorSpec((None, 2), tf.float32))

    def model_fn():
        model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(2,))])
        loss = tf.keras.losses.MeanSquaredError()
        return tff.learning.models.from_keras_model(model, loss, spec, metrics=[make()])

    tff.learning.algorithms.build_fed_eval(model_fn)
