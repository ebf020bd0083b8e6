"""Metrics: definitions in NumPy, laws of sums, Keras 3 where the formula is the same, counters."""

import functools
from collections import OrderedDict

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from problems import clients

import fedbridge as fb
from fedbridge.jax_core import Forward, finalize_then_sample, make_cohort, make_stream
from fedbridge.tff_io._keras_losses import binary_crossentropy
from fedbridge.tff_io._keras_metrics import METRICS, TFF_REFUSES, tff_metrics
from fedbridge.tff_io._keras_objects import describe_keras

# float32 sums in another order; relative.
TOLERANCE = 2e-6
CLASSES, ROWS = 4, 6


def forward_of(predictions, real=1, loss=0.0):
    return Forward(jnp.zeros(()), jnp.asarray(predictions), jnp.float32(loss), jnp.int32(real))


def value_of(metric, *batches):
    """The metric of whole batches of (labels, predictions)."""

    @jax.jit
    def update(seen, labels, predictions):
        return metric.update(seen, {"y": labels}, forward_of(predictions), None)

    seen = metric.zero()
    for labels, predictions in batches:
        seen = update(seen, np.asarray(labels), np.asarray(predictions))
    return np.asarray(jax.jit(metric.finalize)(seen))


@functools.cache
def data(seed=0, rows=60):
    """Labels of several kinds and predictions in tenths, half way between AUC's thresholds."""
    rng = np.random.default_rng(seed)
    many = (rng.random((rows, CLASSES)) < 0.4).astype(np.float32)
    tenths = (rng.integers(0, 10, (rows, CLASSES)) / 10 + 0.05).astype(np.float32)
    return many, rng.integers(0, CLASSES, rows).astype(np.int32), tenths


# Definitions, written apart from the code.


@pytest.mark.parametrize("thresholds", [None, 0.35, [0.0, 0.5, 1.0], [0.9, 0.25]])
def test_precision_recall_and_counts(thresholds):
    labels, _, p = data()
    limits = [0.5] if thresholds is None else np.atleast_1d(thresholds)
    yes, truth = [p > limit for limit in limits], labels == 1
    tp = np.array([(y & truth).sum() for y in yes])
    expected = {
        "true_positives": tp,
        "false_positives": [(y & ~truth).sum() for y in yes],
        "true_negatives": [(~y & ~truth).sum() for y in yes],
        "false_negatives": [(~y & truth).sum() for y in yes],
    }
    for which, counts in expected.items():
        metric = fb.metrics.confusion_count(which, thresholds=thresholds)
        np.testing.assert_array_equal(value_of(metric, (labels, p)), np.squeeze(counts))
    found = value_of(fb.metrics.precision(thresholds=thresholds), (labels, p))
    predicted = np.array([y.sum() for y in yes])
    np.testing.assert_allclose(found, np.squeeze(tp / np.maximum(predicted, 1)), rtol=TOLERANCE)
    found = value_of(fb.metrics.recall(thresholds=thresholds), (labels, p))
    np.testing.assert_allclose(found, np.squeeze(tp / truth.sum()), rtol=TOLERANCE)


@pytest.mark.parametrize("k", [1, 2, CLASSES])
def test_recall_at_k_takes_the_first_of_equal_predictions(k):
    labels, _, p = data()
    first = np.argsort(-p, axis=1, kind="stable")[:, :k]
    hits = sum(labels[row, first[row]].sum() for row in range(len(labels)))
    found = value_of(fb.metrics.recall(top_k=k), (labels, p))
    np.testing.assert_allclose(found, hits / labels.sum(), rtol=TOLERANCE)
    of_class = [1 in first[row] and labels[row, 1] for row in range(len(labels))]
    found = value_of(fb.metrics.recall(top_k=k, class_id=1), (labels, p))
    np.testing.assert_allclose(found, np.sum(of_class) / labels[:, 1].sum(), rtol=TOLERANCE)


def test_in_top_k_counts_ties_as_hits():
    _, labels, p = data()
    expected = [(p[row] > p[row, label]).sum() < 2 for row, label in enumerate(labels)]
    assert fb.metrics.in_top_k(jnp.asarray(labels), jnp.asarray(p), 2).tolist() == expected
    odd = jnp.asarray([[0.1, 0.2], [0.1, jnp.inf], [0.1, jnp.nan]])
    for label in (0, 1, 2, -1):
        found = fb.metrics.in_top_k(jnp.full(3, label), odd, 2).tolist()
        assert found == [label in (0, 1), False, False]


def test_area_under_the_roc_curve_is_the_chance_of_the_right_order():
    """Mann and Whitney: a positive's score is higher than a negative's, ties count half."""
    labels, _, p = data()

    def area(labels, p):
        positive, negative = p[labels == 1][:, None], p[labels == 0][None]
        return np.mean((positive > negative) + 0.5 * (positive == negative))

    # Eleven thresholds: one between any two scores that differ.
    expected = area(labels.ravel(), p.ravel())
    found = value_of(
        fb.metrics.auc(num_thresholds=11), (labels[:20], p[:20]), (labels[20:], p[20:])
    )
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
    inner = [n / 10 for n in range(1, 10)]
    found = value_of(fb.metrics.auc(thresholds=inner[::-1]), (labels, p))
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
    weights = np.array([1.0, 0.5, 0.0, 2.0])
    by_label = [area(labels[:, n], p[:, n]) for n in range(CLASSES)]
    metric = fb.metrics.auc(
        num_thresholds=11, multi_label=True, num_labels=CLASSES, label_weights=weights
    )
    expected = np.sum(by_label * weights) / weights.sum()
    np.testing.assert_allclose(value_of(metric, (labels, p)), expected, rtol=TOLERANCE)
    logits = np.log(p / (1 - p)).astype(np.float32)
    metric = fb.metrics.auc(num_thresholds=11, from_logits=True)
    expected = value_of(fb.metrics.auc(num_thresholds=11), (labels, p))
    np.testing.assert_allclose(value_of(metric, (labels, logits)), expected, rtol=TOLERANCE)


def test_area_under_the_precision_recall_curve_is_an_integral():
    """Davis and Goadrich: tp and fp move linearly from one threshold to the next."""
    labels, _, p = data()
    limits = np.linspace(1, 0, 11)
    tp = np.array([((p > limit) & (labels == 1)).sum() for limit in limits], float)
    fp = np.array([((p > limit) & (labels == 0)).sum() for limit in limits], float)
    total = 0.0
    for n in range(10):
        steps = (np.arange(100_000) + 0.5) / 100_000  # midpoints
        t, f = (side[n] + steps * (side[n + 1] - side[n]) for side in (tp, fp))
        total += np.mean(t / np.maximum(t + f, 1e-30)) * (tp[n + 1] - tp[n])
    found = value_of(fb.metrics.auc(num_thresholds=11, curve="PR"), (labels, p))
    np.testing.assert_allclose(found, total / labels.sum(), rtol=1e-5)  # the midpoint rule's error


def test_bounds_enclose_the_area():
    labels, _, p = data()
    areas = [
        value_of(fb.metrics.auc(num_thresholds=5, summation_method=how), (labels, p))
        for how in ("minoring", "interpolation", "majoring")
    ]
    assert areas[0] < areas[1] < areas[2]


def test_best_rate_at_another():
    labels, _, p = data()
    rates = []
    for limit in np.linspace(0, 1, 11):
        yes = p > limit
        rates.append(((yes & (labels == 1)).sum() / max(yes.sum(), 1), yes[labels == 1].mean()))
    best = max(precision for precision, recall in rates if recall >= 0.6)
    rate = (fb.metrics.precision_rate, fb.metrics.recall_rate)
    metric = fb.metrics.best_at(*rate, 0.6, num_thresholds=11)
    np.testing.assert_allclose(value_of(metric, (labels, p)), best, rtol=TOLERANCE)
    never = fb.metrics.best_at(*rate[::-1], 1.0, num_thresholds=3)
    assert value_of(never, (1 - (p > 0.3).astype(np.float32), p)) == 0


def test_language_metrics():
    rng = np.random.default_rng(1)
    y, p = rng.integers(0, 4, (5, 3)), rng.random((5, 3, 4)).astype(np.float32)
    counting = (y != 0) & (y != 2)
    tokens = fb.metrics.num_tokens_counter(masked_tokens=[0, 2])
    assert value_of(tokens, (y, p)) == counting.sum()
    expected = (p.argmax(-1) == y)[counting].mean()
    accuracy = fb.metrics.masked_accuracy(masked_tokens=[0, 2])
    np.testing.assert_allclose(value_of(accuracy, (y, p)), expected, rtol=TOLERANCE)
    only_masked = np.zeros((5, 3), np.int32)
    assert value_of(accuracy, (only_masked, p)) == 0


def test_scores_by_class_and_by_output():
    labels, _, p = data()
    yes, truth = p > 0.5, labels == 1
    precision = (yes & truth).sum(0) / yes.sum(0)
    recall = (yes & truth).sum(0) / truth.sum(0)
    expected = 2 * precision * recall / (precision + recall)
    found = value_of(fb.metrics.f_beta_score(CLASSES, threshold=0.5), (labels, p))
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
    # Scores near 0 lose digits to 1 minus a ratio near 1.
    y = labels.astype(float)
    expected = 1 - ((y - p) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
    found = value_of(fb.metrics.r2_score(CLASSES, class_aggregation=None), (labels, p))
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_metric_of_ones_own():
    """A pair of functions; the mask is an array also where the model knows none."""

    def terms(batch, forward, mask):
        return {"largest": jnp.where(mask, batch["y"], 0).sum(), "rows": mask.sum()}

    own = fb.metrics.sum_of(terms, lambda s: s["largest"] / s["rows"], {"largest": 0.0, "rows": 0})
    assert value_of(own, ([1, 2], [0.0, 0.0]), ([6], [0.0])) == 3
    zero = own.zero()
    assert (zero["largest"].dtype, zero["rows"].dtype) == (np.float32, np.int32)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(zero))


def test_saturated_crossentropy_keeps_its_digits_when_compiled():
    """XLA made (1 + 1e-7) - p of 1 - p + 1e-7: 15.25 where TFF has 15.33."""
    p = np.array([1.0, 0.999999, 0.9999, 0.5, 0.0], np.float32)
    one, epsilon = np.float32(1), np.float32(1e-7)
    inside = np.clip(p, epsilon, np.float32(1 - 1e-7))
    expected, clipped_not = (one - inside) + epsilon, p == inside

    def loss(p):
        return binary_crossentropy()(jnp.zeros_like(p), p, None)

    p = jnp.asarray(p)[:, None]
    for wrap in (jax.jit, lambda compute: compute):
        np.testing.assert_allclose(wrap(loss)(p), -np.log(expected), 1e-6, 2e-7)
        slopes = wrap(jax.grad(lambda p: loss(p).sum()))(p)[:, 0]
        np.testing.assert_allclose(slopes, clipped_not / expected, rtol=1e-6)


# Laws: batches, padding and the order of clients change nothing.


def spec(class_name, **config):
    return {"class_name": class_name, "config": {"name": class_name, **config}}


SPECS = {
    "many": [
        spec("AUC", num_thresholds=7),
        spec("AUC", name="pr", curve="PR", thresholds=[0.4, 0.2], label_weights=[1, 0, 2, 0.5]),
        spec("AUC", name="by_label", multi_label=True, num_labels=CLASSES),
        spec("BinaryAccuracy"),
        spec("BinaryCrossentropy"),
        spec("BinaryIoU"),
        spec("CategoricalAccuracy"),
        spec("CategoricalCrossentropy"),
        spec("CategoricalHinge"),
        spec("CosineSimilarity"),
        spec("FalseNegatives", thresholds=[0.1, 0.9]),
        spec("FalsePositives"),
        spec("Hinge"),
        spec("KLDivergence"),
        spec("LogCoshError"),
        spec("MeanAbsoluteError"),
        spec("MeanSquaredError"),
        spec("MeanSquaredLogarithmicError"),
        spec("OneHotMeanIoU", num_classes=CLASSES),
        spec("Poisson"),
        spec("Precision", thresholds=[0.2, 0.8]),
        spec("PrecisionAtRecall", recall=0.5, num_thresholds=5),
        spec("Recall", top_k=2),
        spec("RootMeanSquaredError"),
        spec("SpecificityAtSensitivity", sensitivity=0.5, num_thresholds=5),
        spec("TopKCategoricalAccuracy", k=2),
        spec("TrueNegatives"),
        spec("TruePositives"),
    ],
    "sparse": [
        spec("MaskedCategoricalAccuracy", masked_tokens=[0]),
        spec("MeanIoU", num_classes=CLASSES, sparse_y_pred=False),
        spec("NumTokensCounter", masked_tokens=[1]),
        spec("SparseCategoricalAccuracy"),
        spec("SparseCategoricalCrossentropy"),
        spec("SparseTopKCategoricalAccuracy", k=2),
    ],
}


@functools.cache
def compiled(kind):
    """The metrics of a kind, and one program for their update with a batch of `ROWS` rows."""
    metrics = tff_metrics(SPECS[kind])

    def update(seen, labels, predictions, mask):
        forward = forward_of(predictions, mask.sum())
        batch = {"y": labels}
        return OrderedDict((n, m.update(seen[n], batch, forward, mask)) for n, m in metrics.items())

    return metrics, jax.jit(update)


def accumulate(kind, sizes):
    """Each row of the data once, in batches of these sizes, padded with rows of NaN."""
    metrics, update = compiled(kind)
    many, numbers, predictions = data(rows=sum(sizes))
    labels = many if kind == "many" else numbers
    seen = OrderedDict((name, metric.zero()) for name, metric in metrics.items())
    start = 0
    for size in sizes:
        y = np.zeros((ROWS, *labels.shape[1:]), labels.dtype)
        p = np.full((ROWS, CLASSES), np.nan, np.float32)
        y[:size], p[:size] = labels[start : start + size], predictions[start : start + size]
        seen = update(seen, y, p, np.arange(ROWS) < size)
        start += size
    return seen


def assert_same(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=1e-7)


@pytest.mark.parametrize("kind", SPECS)
@settings(max_examples=15, deadline=None)  # compiles once
@given(sizes=st.lists(st.integers(0, ROWS), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_batches_and_padding_change_nothing(kind, sizes, seed):
    metrics, _ = compiled(kind)
    seen = accumulate(kind, sizes)
    total = sum(sizes)
    whole = accumulate(kind, [ROWS] * (total // ROWS) + [total % ROWS])
    for name in seen:
        if name != "num_batches":
            assert_same(seen[name], whole[name])
            assert_same(metrics[name].finalize(seen[name]), metrics[name].finalize(whole[name]))
    # What two clients have seen adds up to what one would have, in either order.
    split = seed % (len(sizes) + 1)
    first, both = accumulate(kind, sizes[:split]), seen
    rest = jax.tree.map(lambda b, f: b - f, both, first)
    assert_same(jax.tree.map(jnp.add, rest, first), both)


@pytest.mark.parametrize("kind", SPECS)
def test_nothing_seen_is_no_nan_and_clients_finalize_apart(kind):
    metrics, update = compiled(kind)
    nothing = accumulate(kind, [0])
    for name, metric in metrics.items():
        jax.tree.map(np.testing.assert_array_equal, nothing[name], metric.zero())
        assert not np.any(metric.finalize(nothing[name]))
    one, other = accumulate(kind, [6, 2]), accumulate(kind, [1])
    for name, metric in metrics.items():
        stacked = jax.tree.map(lambda *a: jnp.stack(a), one[name], other[name])
        each = jax.vmap(metric.finalize)(stacked)
        assert_same(each[0], metric.finalize(one[name]))
        assert_same(each[1], metric.finalize(other[name]))


def model_of(metrics, examples=None):
    """A model that predicts its inputs; or that says how many examples a batch has."""

    def forward(weights, batch, mask, key, training):
        real = mask.sum() if examples is None else jnp.where(mask.any(), examples, 0)
        loss = jnp.where(mask, batch["y"], 0).sum() * weights.trainable / mask.sum()
        return Forward(loss, jax.nn.sigmoid(batch["x"]), loss, real.astype(jnp.int32), ())

    return fb.Model(fb.ModelWeights(np.float32(1)), forward, metrics)


@pytest.mark.parametrize("aggregated", [True, False], ids=["summed", "per client"])
def test_in_a_round(aggregated):
    metrics = OrderedDict(
        auc=fb.metrics.auc(of_first, num_thresholds=5),
        precision=fb.metrics.precision(of_first, thresholds=[0.3, 0.6]),
    )
    people = clients([5, 3, 9])
    data = fb.from_clients(people)
    batches = fb.Batches(batch_size=4)

    def expected(rows):
        p = np.float32(1) / (1 + np.exp(-np.concatenate([c["x"] for c in rows])[:, 0]))
        y = np.concatenate([c["y"] for c in rows]) == 1
        return [value_of(fb.metrics.precision(thresholds=[0.3, 0.6]), (y, p))]

    if aggregated:
        process = fb.algorithms.fed_eval(model_of(metrics))
        for order in (["c0", "c1", "c2"], ["c2", "c0", "c1"]):
            cohort = data.cohort(order, batches)
            found = process.next(process.initialize(), cohort).metrics["client_work"]["eval"]
            found = found["current_round_metrics"]["precision"]
            np.testing.assert_allclose(found, expected(people.values())[0], rtol=TOLERANCE)
        return
    work = finalize_then_sample()
    process = fb.algorithms.fed_avg(
        model_of(metrics), fb.optimizers.sgdm(0.0), metrics_aggregator=work
    )
    cohort = data.cohort(list(people), batches)
    found = process.next(process.initialize(), cohort).metrics["client_work"]["train"]["precision"]
    wanted = [expected([person])[0] for person in people.values()]
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(wanted, axis=0), rtol=TOLERANCE)


def of_first(batch, forward):
    return batch["y"] == 1, forward.predictions[:, 0]


# Counters: int32 in a round, int64 after it.


def test_a_counter_passes_two_to_the_31():
    """Three rounds of 2^30 examples each; a float32 count would be exact here only by chance."""
    counts = OrderedDict(num_examples=fb.metrics.num_examples_counter())
    process = fb.algorithms.fed_eval(model_of(counts, examples=2**30 + 1))
    cohort = fb.from_clients(clients([3])).cohort(["c0"], fb.Batches(batch_size=4))
    state = process.initialize()
    for round in (1, 2, 3):
        state, metrics = process.next(state, cohort)
        found = metrics["client_work"]["eval"]
        assert found["current_round_metrics"]["num_examples"] == 2**30 + 1
        total = found["total_rounds_metrics"]["num_examples"]
        assert (total, total.dtype) == (round * (2**30 + 1), np.int64)
    kept = jax.tree.leaves(state.client_work)
    assert kept == [3 * (2**30 + 1)] and kept[0] > 2**31


def test_the_counter_of_a_saved_state_goes_on(tmp_path):
    counts = OrderedDict(num_examples=fb.metrics.num_examples_counter())
    process = fb.algorithms.fed_eval(model_of(counts, examples=2**30 + 1))
    cohort = fb.from_clients(clients([3])).cohort(["c0"], fb.Batches(batch_size=4))
    state = process.initialize()
    for _ in range(2):
        state, _ = process.next(state, cohort)
    fb.save(tmp_path / "state", state)
    loaded = fb.load(tmp_path / "state", like=process.initialize())
    found = process.next(loaded, cohort).metrics["client_work"]["eval"]
    assert found["total_rounds_metrics"]["num_examples"] == 3 * (2**30 + 1)


@pytest.mark.parametrize("through", ["a file", "TFF's state"])
def test_a_sample_of_the_clients_that_has_grown_is_loaded(tmp_path, through):
    counts = OrderedDict(num_examples=fb.metrics.num_examples_counter())
    sample = fb.sample_over_rounds(5)
    process = fb.algorithms.fed_eval(model_of(counts), metrics_aggregator=sample)
    data = fb.from_clients(clients([3, 2]))
    start = process.initialize()
    state, _ = process.next(start, data.cohort(["c0"], fb.Batches(batch_size=4)))
    if through == "a file":
        fb.save(tmp_path / "state", state)
        loaded = fb.load(tmp_path / "state", like=start)
    else:
        loaded = fb.from_tff_state(fb.to_tff_state(state, like=start), like=start)
    _, metrics = process.next(loaded, data.cohort(["c1"], fb.Batches(batch_size=4)))
    total = metrics["client_work"]["eval"]["total_rounds_metrics"]
    np.testing.assert_array_equal(total["num_examples"], [3, 2])


@pytest.mark.parametrize(
    "build, where",
    [
        (fb.algorithms.fed_eval, "eval/current_round_metrics"),
        (lambda model: fb.algorithms.fed_avg(model, fb.optimizers.sgdm(0.1)), "train"),
        (
            lambda model: fb.algorithms.fed_eval(
                model, metrics_aggregator=fb.sample_over_rounds(5)
            ),
            "eval/current_round_metrics",
        ),
        (
            lambda model: fb.algorithms.fed_avg(
                model, fb.optimizers.sgdm(0.1), metrics_aggregator=fb.per_client
            ),
            "train",
        ),
    ],
    ids=["evaluation", "training", "sample of clients", "every client"],
)
def test_a_round_that_counts_past_two_to_the_31_is_an_error(build, where):
    """Two steps of 2^30 examples: int32 turns negative, and no plausible number is reported."""
    counts = OrderedDict(num_examples=fb.metrics.num_examples_counter())
    process = build(model_of(counts, examples=2**30))
    data = fb.from_clients(clients([8, 3]))
    words = rf"metric '{where}/num_examples' of this round is -\d+: .* the 2147483647 of an int32"
    with pytest.raises(fb.ClientDataError, match=words):
        process.next(process.initialize(), data.cohort(["c1", "c0"], fb.Batches(batch_size=4)))
    process.next(process.initialize(), data.cohort(["c1"], fb.Batches(batch_size=4)))


def test_a_cohort_of_more_examples_than_a_round_counts_is_refused():
    """Before the round, and also past 2^32, where int32 would be positive again."""
    row = {"x": np.zeros((1, 4), np.float32)}
    stream = lambda steps: make_stream(
        np.zeros((steps, 1), np.int32), np.full(steps, 2**30, np.int32), np.array([0, steps])
    )
    make_cohort(row, {"train": stream(1)}, ["a"])
    for steps, examples in ((2, 2**31), (5, 5 * 2**30)):
        words = (
            f"stream 'train' of the cohort: it has {examples} examples, more than the 2147483647"
        )
        with pytest.raises(fb.ClientDataError, match=words):
            make_cohort(row, {"train": stream(steps)}, ["a"])


def test_float_counts_end_at_two_to_the_24():
    """As Keras' own float32 variables do."""
    metric = fb.metrics.mean_of(lambda batch, forward, mask: batch["y"])
    full = fb.metrics.MeanAccumulator(jnp.float32(2**24), jnp.float32(2**24))
    seen = metric.update(full, {"y": jnp.ones(1)}, forward_of([0.0]), None)
    assert float(seen.count) == 2**24


# Keras 3: other configs of the same metrics.

SOME = {
    "many": [
        keras.metrics.AUC(num_thresholds=9),
        keras.metrics.AUC(curve="PR", thresholds=[0.3, 0.35]),
        keras.metrics.AUC(multi_label=True, num_labels=CLASSES, label_weights=[1.0, 2.0, 0.0, 1.0]),
        keras.metrics.BinaryAccuracy(threshold=0.3),
        keras.metrics.BinaryCrossentropy(label_smoothing=0.1),
        keras.metrics.CategoricalCrossentropy(from_logits=True),
        keras.metrics.CategoricalHinge(),
        keras.metrics.CosineSimilarity(),
        keras.metrics.FalsePositives(thresholds=[0.1, 0.2]),
        keras.metrics.Hinge(),
        keras.metrics.KLDivergence(),
        keras.metrics.LogCoshError(),
        keras.metrics.MeanAbsolutePercentageError(),
        keras.metrics.MeanSquaredLogarithmicError(),
        keras.metrics.Poisson(),
        keras.metrics.Precision(top_k=2),
        keras.metrics.Recall(thresholds=[0.2, 0.6], class_id=1),
        keras.metrics.RecallAtPrecision(0.4),
        keras.metrics.RootMeanSquaredError(),
        keras.metrics.SensitivityAtSpecificity(0.4, num_thresholds=7),
        keras.metrics.SquaredHinge(),
        keras.metrics.TopKCategoricalAccuracy(k=2),
    ],
    "sparse": [
        keras.metrics.SparseCategoricalAccuracy(),
        keras.metrics.SparseCategoricalCrossentropy(),
        keras.metrics.SparseTopKCategoricalAccuracy(k=2),
    ],
}


@pytest.mark.parametrize(
    ("kind", "metric"),
    [(kind, metric) for kind, metrics in SOME.items() for metric in metrics],
    ids=lambda value: getattr(value, "name", ""),
)
def test_keras_3(kind, metric):
    many, numbers, p = data()
    labels = many if kind == "many" else numbers
    converted = tff_metrics([describe_keras(metric)])[metric.name]
    batches = [(labels[rows], p[rows]) for rows in (slice(0, 30), slice(30, 60))]
    metric.reset_state()
    with jax.numpy_rank_promotion("allow"):
        for batch in batches:
            metric.update_state(*batch)
        expected = np.asarray(metric.result())
    np.testing.assert_allclose(value_of(converted, *batches), expected, rtol=5e-6, atol=1e-7)


def test_keras_3_counts_classes_in_whole_numbers():
    """Its dtype is read, its epsilons are not: 2.14's formula."""
    numbers = data()[1]
    for make in (keras.metrics.MeanIoU, keras.metrics.OneHotMeanIoU):
        metric = make(num_classes=CLASSES)
        converted = tff_metrics([describe_keras(metric)])[metric.name]
        labels = numbers if make is keras.metrics.MeanIoU else np.eye(CLASSES)[numbers]
        assert value_of(converted, (labels, labels.astype(np.float32))) == 1.0


# What is refused.


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (spec("Precision", thresholds=[0.5, 1.5]), r"thresholds is \[0.5, 1.5\].*\[0, 1\]"),
        (spec("AUC", curve="PRGAIN"), "curve is 'PRGAIN'; it must be ROC or PR"),
        (spec("AUC", summation_method="simpson"), "summation_method is 'simpson'.*minoring"),
        (spec("AUC", multi_label=True), "num_labels is None.*multi_label=True"),
        (spec("AUC", num_labels=3), "num_labels is 3.*multi_label=True"),
        (
            spec("AUC", num_thresholds=1),
            "num_thresholds is 1; it must be a whole number of at least 2",
        ),
        (spec("AUC", label_weights=[1.0, -1.0]), "label_weights is .*none negative"),
        (spec("AUC", buckets=3), "AUC.* has buckets=3.*supported arguments: curve"),
        (spec("PrecisionAtRecall", recall=2.0), "at_least is 2.0.*a number from 0 to 1"),
        (spec("SparseCategoricalCrossentropy", ignore_class=0), "ignore_class=0"),
        (spec("CosineSimilarity", axis=0), "axis=0"),
        (spec("IoU", num_classes=2, target_class_ids=[2]), "target_class_ids.*0 to 1"),
        (spec("MeanIoU", num_classes=2, axis=1), "axis is 1"),
        (spec("MeanIoU", num_classes=2, dtype="float16"), "accumulates float16.*float32, int32"),
        (spec("Recall", dtype="float64"), "accumulates float64; supported: float32"),
        (spec("NumTokensCounter", dtype="float32"), "accumulates float32; supported: int64"),
        (spec("F1Score"), r'"F1Score".*TFF cannot use it.*fb\.metrics\.f_beta_score'),
        (spec("Mean"), r"TFF cannot use it.*fb\.metrics\.mean_of"),
    ],
)
def test_metrics_that_are_refused(wrong, words):
    with pytest.raises(fb.ModelError, match=words):
        tff_metrics([wrong])


TOP_K = "SparseTopKCategoricalAccuracy"


def test_natives_of_what_tff_refuses_exist():
    for reason in TFF_REFUSES.values():
        assert hasattr(fb.metrics, reason.rpartition(".")[2])
    assert not set(TFF_REFUSES) & set(METRICS)


@pytest.mark.parametrize(
    ("metric", "labels", "words"),
    [
        (fb.metrics.precision(), np.zeros(3), r"\(3,\) do not fit.*\(3, 4\).*one-hot"),
        (fb.metrics.precision(top_k=5), np.zeros((3, 4)), "top_k=5, but there are 4 classes"),
        (fb.metrics.recall(class_id=4), np.zeros((3, 4)), "class_id=4, but there are 4 classes"),
        (fb.metrics.auc(label_weights=[1.0]), np.zeros((3, 4)), "label for each of label_weights"),
        (fb.metrics.f_beta_score(3), np.zeros((3, 4)), r"are not \[batch, 3\] both"),
        (tff_metrics([spec("MeanIoU", num_classes=4)])["MeanIoU"], np.zeros(3), "sparse_y_pred=F"),
        (
            tff_metrics([spec("TopKCategoricalAccuracy")]).popitem(False)[1],
            np.zeros(2),
            "do not fit",
        ),
    ],
    ids=["shape", "top_k", "class_id", "weights", "f", "iou", "in_top_k"],
)
def test_labels_that_do_not_fit(metric, labels, words):
    with pytest.raises(fb.ModelError, match=words):
        value_of(metric, (labels, np.zeros((3, 4), np.float32)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: fb.metrics.f_beta_score(3, beta=0.0),
        lambda: fb.metrics.f_beta_score(3, average="median"),
        lambda: fb.metrics.f_beta_score(3, threshold=1.5),
        lambda: fb.metrics.r2_score(3, class_aggregation="sum"),
        lambda: fb.metrics.r2_score(3, num_regressors=-1),
        lambda: fb.metrics.best_at(
            fb.metrics.recall_rate, fb.metrics.recall_rate, 0.5, num_thresholds=0
        ),
    ],
)
def test_arguments_out_of_range(make):
    with pytest.raises(fb.jax_core.ArgumentError, match="it must be"):
        make()


def test_a_class_out_of_range_is_seen():
    metric = tff_metrics([spec("MeanIoU", num_classes=2)])["MeanIoU"]
    assert np.isnan(value_of(metric, ([0, 2], [0.0, 1.0])))
    assert np.isnan(value_of(metric, ([0, 1], [0.0, -1.0])))


@pytest.mark.parametrize("algorithm", ["fed_avg", "fed_sgd", "mime_lite"])
def test_samples_of_clients_of_a_model_without_metrics_are_empty(algorithm):
    optimizer = [] if algorithm == "fed_sgd" else [fb.optimizers.sgdm(0.1)]
    process = getattr(fb.algorithms, algorithm)(
        model_of(OrderedDict()), *optimizer, metrics_aggregator=finalize_then_sample(3)
    )
    cohort = fb.from_clients(clients([4, 2])).cohort(["c0", "c1"], fb.Batches(batch_size=4))
    assert process.next(process.initialize(), cohort).metrics["client_work"] == {"train": {}}


def test_samples_over_rounds_of_a_model_without_metrics_are_empty():
    process = fb.algorithms.fed_eval(
        model_of(OrderedDict()), metrics_aggregator=fb.sample_over_rounds(3)
    )
    cohort = fb.from_clients(clients([4, 2])).cohort(["c0", "c1"], fb.Batches(batch_size=4))
    state, _ = process.next(process.initialize(), cohort)
    found = process.next(state, cohort).metrics["client_work"]["eval"]
    assert found == {"current_round_metrics": {}, "total_rounds_metrics": {}}
