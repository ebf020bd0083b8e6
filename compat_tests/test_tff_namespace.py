"""`fedbridge.tff` beside the real TFF: client data, and the batches that a call of `next` sees."""

import collections

import jax
import numpy as np
import pytest

import fedbridge as fb
from fedbridge import tff as ours
from fedbridge.jax_core import ModelError
from fedbridge.tff import _pipelines
from fedbridge.tff._client_batches import batches, cohort
from fedbridge.tff.simulation.datasets._client_data import as_client_data

ROWS = {f"c{i}": np.arange(100 * i, 100 * i + n) for i, n in enumerate((7, 12, 3, 5))}


def packed(slices):
    """Client data as those that are read from a file."""
    return as_client_data(fb.from_clients(slices))[0]


def rows(dataset):
    """All elements, in order."""
    return [np.asarray(element).tolist() for element in dataset.as_numpy_iterator()]


@pytest.fixture(scope="module")
def both(tff):
    slices = {i: r.tolist() for i, r in ROWS.items()}
    return [t.simulation.datasets.TestClientData(slices) for t in (tff, ours)]


def test_client_data_has_the_same_clients_elements_and_orders(tff, both):
    theirs, mine = both
    assert mine.client_ids == theirs.client_ids
    assert mine.element_type_structure == theirs.element_type_structure
    for client_id in mine.client_ids:
        assert rows(mine.create_tf_dataset_for_client(client_id)) == rows(
            theirs.create_tf_dataset_for_client(client_id)
        )
        assert rows(mine.serializable_dataset_fn(client_id)) == rows(
            theirs.serializable_dataset_fn(client_id)
        )
    for seed in (0, 7):
        assert rows(mine.create_tf_dataset_from_all_clients(seed)) == rows(
            theirs.create_tf_dataset_from_all_clients(seed)
        )
        assert [rows(d) for d in mine.datasets(3, seed)] == [
            rows(d) for d in theirs.datasets(3, seed)
        ]
        parts = [
            [part.client_ids for part in type_.train_test_client_split(data, 2, seed)]
            for type_, data in (
                (tff.simulation.datasets.ClientData, theirs),
                (ours.simulation.datasets.ClientData, mine),
            )
        ]
        assert parts[0] == parts[1]


def test_types_and_shapes_as_tff_called_them_at_first(both):
    import tensorflow as tf

    _, mine = both
    pairs = mine.preprocess(
        lambda d: d.batch(2).map(lambda x: collections.OrderedDict(b=x, a=(x,)))
    )
    for data in (mine, pairs):
        dataset = data.create_tf_dataset_for_client("c0")
        assert data.output_types == tf.compat.v1.data.get_output_types(dataset)
        shapes = tf.compat.v1.data.get_output_shapes(dataset)
        assert str(data.output_shapes) == str(shapes)


def test_preprocessed_client_data(both):
    twice = lambda dataset: dataset.repeat(2).batch(4).map(lambda x: x + 1)
    theirs, mine = (data.preprocess(twice) for data in both)
    assert mine.element_type_structure == theirs.element_type_structure
    for client_id in mine.client_ids:
        assert rows(mine.create_tf_dataset_for_client(client_id)) == rows(
            theirs.create_tf_dataset_for_client(client_id)
        )
    assert rows(mine.create_tf_dataset_from_all_clients(3)) == rows(
        theirs.create_tf_dataset_from_all_clients(3)
    )


PIPELINES = {
    "seeded": lambda d: d.shuffle(4, seed=1).batch(3),
    "repeat then shuffle": lambda d: d.repeat(3).shuffle(5, seed=2).batch(4),
    "shuffle then repeat": lambda d: d.shuffle(5, seed=3).repeat(3).batch(4),
    "one order for all": lambda d: (
        d.shuffle(12, seed=4, reshuffle_each_iteration=False).repeat(2).batch(4)
    ),
    "two shuffles": lambda d: d.shuffle(4, seed=5).repeat(2).shuffle(6, seed=6).take(9).batch(2),
}


def in_tff(tff, dataset):
    """The rows that a computation of TFF's reads from a data set, in order."""
    import tensorflow as tf

    spec = tff.SequenceType(tff.types.tensorflow_to_type(dataset.element_spec))

    @tff.tensorflow.computation(spec)
    def read(batches):
        join = lambda read, batch: tf.concat([read, batch], 0)
        return batches.reduce(tf.zeros([0], tf.int64), join)

    return read(dataset).tolist()


def in_cohort(dataset, round=1):
    found = cohort(batches([dataset.map(lambda x: collections.OrderedDict(x=x))]), round)
    stream = found.streams["train"]
    sizes = stream.sizes[: stream.step_offsets[1]]
    order = [row for step, size in zip(stream.rows, sizes, strict=False) for row in step[:size]]
    return np.asarray(found.features["x"])[order].tolist()


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_call_sees_the_batches_that_it_sees_under_tff(tff, pipeline):
    import tensorflow as tf

    dataset = PIPELINES[pipeline](tf.data.Dataset.range(12))
    first = in_cohort(dataset)
    assert first == in_tff(tff, dataset)
    # Neither calls before nor iterations of the script's own change what a call sees.
    assert len(rows(dataset)) > 0
    assert in_cohort(dataset) == in_tff(tff, dataset) == first


def test_an_unseeded_pipeline_is_drawn_anew_in_every_call():
    import tensorflow as tf

    dataset = tf.data.Dataset.range(50).shuffle(50).batch(10)
    drawn = [in_cohort(dataset) for _ in range(3)]
    assert sorted(drawn[0]) == sorted(drawn[1]) == list(range(50))
    assert len({tuple(order) for order in drawn}) == 3
    noisy = tf.data.Dataset.range(50).map(lambda x: x + 100 * tf.random.uniform([], 0, 9, tf.int64))
    assert in_cohort(noisy.batch(10)) != in_cohort(noisy.batch(10))


def test_the_sampler_draws_the_same_clients(tff):
    for replace in (False, True):
        pair = [
            t.simulation.build_uniform_sampling_fn(list(range(30)), replace, random_seed=5)
            for t in (tff, ours)
        ]
        assert [pair[0](r, 4) for r in range(6)] == [pair[1](r, 4) for r in range(6)]


def test_a_fixed_pipeline_is_read_once_and_is_known_when_it_is_made_again(monkeypatch):
    import tensorflow as tf

    cache = _pipelines._Cache(1 << 20)
    monkeypatch.setattr(_pipelines, "_CACHE", cache)
    steps = {
        "map": lambda d: d.map(lambda x: x + 1),
        "filter": lambda d: d.filter(lambda x: x % 2 == 0),
        "other numbers": lambda d: d.map(lambda x: x + 2),
    }
    orders = {}
    for name, step in steps.items():
        make = lambda step=step: step(tf.data.Dataset.range(12)).shuffle(5, seed=1).batch(4)
        orders[name] = in_cohort(make())
        size = len(cache._batches)
        assert in_cohort(make()) == orders[name]
        assert len(cache._batches) == size, name
    # `in_cohort` appends a map of its own; what differs is known apart.
    assert len(cache._batches) == len(steps)
    assert len({tuple(order) for order in orders.values()}) == len(steps)

    def looked_up(factor):
        """By a table, whose content the graph does not show."""
        keys = tf.range(9, dtype=tf.int64)
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(keys, keys * factor), -1
        )
        return table.lookup

    def numbered(x):
        calls.append(int(x))
        return x + len(calls)

    assert in_cohort(tf.data.Dataset.range(4).map(looked_up(2)).batch(4)) == [0, 2, 4, 6]
    assert in_cohort(tf.data.Dataset.range(4).map(looked_up(3)).batch(4)) == [0, 3, 6, 9]
    calls = []
    for changing in (
        tf.data.Dataset.range(50).shuffle(50),
        tf.data.Dataset.range(50).map(lambda x: x + tf.random.uniform([], 0, 99, tf.int64)),
        tf.data.Dataset.range(50).map(lambda x: tf.numpy_function(numbered, [x], tf.int64)),
    ):
        batches = changing.map(lambda x: tf.reshape(x, [])).batch(10)
        assert in_cohort(batches) != in_cohort(batches)
    assert len(cache._batches) == len(steps)


def test_the_cache_keeps_to_its_room():
    cache = _pipelines._Cache(100)
    for key in (b"a", b"b", b"c"):
        cache.put(key, [{"x": np.zeros(5)}])
        cache.get(b"a")
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None
    assert cache.get(b"c") is not None


def composed(t, tf):
    """Two rounds of a process that is composed of its parts, of either kind of model."""
    spec = (tf.TensorSpec([None, 3]), tf.TensorSpec([None], tf.int64))
    keras_model = lambda: tf.keras.Sequential(
        [tf.keras.layers.Dense(2, kernel_initializer="zeros", input_shape=(3,))]
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model_fn = lambda: t.learning.models.from_keras_model(keras_model(), loss, spec)
    functional = t.learning.models.functional_model_from_keras(
        keras_model,
        loss,
        spec,
        metrics_constructor=collections.OrderedDict(
            hits=tf.keras.metrics.SparseCategoricalAccuracy
        ),
    )
    templates, weighting = t.learning.templates, t.learning.ClientWeighting.NUM_EXAMPLES
    sgd = t.learning.optimizers.build_sgdm
    clipped = t.aggregators.clipping_factory(0.1, t.aggregators.MeanFactory())
    random = np.random.default_rng(0)
    data = [[(random.normal(size=(n, 3)).astype("f"), random.integers(0, 2, n))] for n in (4, 3)]

    @t.tensorflow.computation
    def of_model():
        return t.learning.models.ModelWeights.from_model(model_fn())

    @t.tensorflow.computation
    def of_functional():
        parts = (tuple(map(tf.convert_to_tensor, part)) for part in functional.initial_weights)
        return t.learning.models.ModelWeights(*parts)

    works = {
        of_model: templates.build_model_delta_client_work(model_fn, sgd(0.1, 0.9), weighting),
        of_functional: templates.build_functional_model_delta_client_work(
            model=functional, optimizer=sgd(0.1), client_weighting=weighting
        ),
    }
    for initial, work in works.items():
        type_ = initial.type_signature.result
        process = templates.compose_learning_process(
            initial,
            templates.build_broadcast_process(type_),
            work,
            clipped.create(type_.trainable, t.TensorType(np.float32)),
            templates.build_apply_optimizer_finalizer(sgd(1.0), type_),
        )
        state, seen = process.initialize(), []
        for _ in range(2):
            state, metrics = process.next(state, data)
            seen.append(metrics)
        yield process.get_model_weights(state), process.get_hparams(state), seen

    def rate(k):
        k = k.astype(np.float32) if hasattr(k, "astype") else tf.cast(k, tf.float32)
        return 0.1 / (1.0 + k)

    @t.tensorflow.computation
    def largest(result):
        return collections.OrderedDict(largest=tf.reduce_max(result[0]), bias=result[1])

    # The schedule of the clients' optimizer decides alone; the one of the rounds is reported.
    process = t.learning.algorithms.build_weighted_fed_avg_with_optimizer_schedule(
        model_fn,
        lambda k: 2.0 * rate(k),
        lambda given: t.learning.optimizers.schedule_learning_rate(sgd(given, 0.9), rate),
        model_aggregator=t.aggregators.add_measurements(
            t.aggregators.MeanFactory(),
            server_measurement_fn=lambda result: t.federated_map(largest, result),
        ),
    )
    with tf.Graph().as_default():
        model = model_fn()
        values = model.report_local_unfinalized_metrics()
        factory = t.learning.metrics.SumThenFinalizeFactory(model.metric_finalizers())
        kinds = tf.nest.map_structure(lambda v: t.TensorType(v.dtype.as_numpy_dtype), values)
    sums = factory.create(t.StructWithPythonType(kinds, collections.OrderedDict))
    evaluation = t.learning.algorithms.build_fed_eval(model_fn, metrics_aggregation_process=sums)
    for made in (process, evaluation):
        state, metrics = made.next(made.initialize(), data)
        yield made.get_model_weights(state), metrics


def test_composed_processes_compute_tffs_rounds(tff):
    import tensorflow as tf

    for theirs, mine in zip(composed(tff, tf), composed(ours, tf), strict=True):
        assert str(jax.tree.structure(mine[1:])) == str(jax.tree.structure(theirs[1:]))
        pairs = zip(tf.nest.flatten(theirs), tf.nest.flatten(mine), strict=True)
        for expected, found in pairs:
            # Two steps of a softmax regression: the last digits of float32.
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_an_optimizer_of_ones_own_in_tensorflow(tff):
    import tensorflow as tf

    weights, other = [tf.zeros([3, 2])], [tf.zeros([2])]
    slices = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([1]), tf.constant([3, 2]))
    for t in (tff, ours):
        optimizers = t.learning.optimizers
        assert isinstance(optimizers.build_sgdm(0.1), optimizers.Optimizer)
        optimizers.check_weights_gradients_match(weights, [None])
        dense = optimizers.handle_indexed_slices_gradients([slices])
        optimizers.check_weights_gradients_match(weights, dense)
        assert dense[0].numpy().tolist() == [[0, 0], [1, 1], [0, 0]]
        for gradients in (other, [weights], [*weights, *weights]):
            with pytest.raises(ValueError, match="same structure"):
                optimizers.check_weights_gradients_match(weights, gradients)


def test_an_estimate_of_a_quantile_runs_by_itself(tff):
    def estimates(t):
        make = t.aggregators.PrivateQuantileEstimationProcess.no_noise
        process = make(1.0, 0.5, 0.2, multiplier=2.0, increment=0.25)
        state = process.initialize()
        yield process.report(state)
        for values in ([1.0, 2.0, 3.0], [0.5, 7.0], [0.25]):
            state = process.next(state, values)
            yield process.report(state)

    # Equal, but for the last digit of an exponential.
    np.testing.assert_allclose([*estimates(ours)], [*estimates(tff)], rtol=2e-7)


def test_released_saved_models_go_both_ways(tff, tmp_path):
    import asyncio

    value = collections.OrderedDict(
        loss=np.float32(0.5), rounds=3, rate=0.1, name="a", w=[np.ones((2, 2)), (np.arange(3),)]
    )
    managers = [
        t.program.SavedModelFileReleaseManager(tmp_path / name)
        for t, name in ((tff, "theirs"), (ours, "mine"))
    ]
    for manager in managers:
        for released in ("the first one", value):
            asyncio.run(manager.release(released, key=1))
    (tmp_path / "theirs" / "release_1").rename(tmp_path / "mine" / "release_2")
    reader = tff.program.SavedModelFileReleaseManager(tmp_path / "mine")
    seen = [
        asyncio.run(manager.get_value(key)) for manager in (reader, managers[1]) for key in (1, 2)
    ]
    for read in seen:
        assert str(jax.tree.structure(read)) == str(jax.tree.structure(seen[1]))
        for one, other in zip(jax.tree.leaves(read), jax.tree.leaves(seen[1]), strict=True):
            assert np.asarray(one).dtype == np.asarray(other).dtype
            np.testing.assert_array_equal(one, other)
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["release_1", "release_2"]


def test_rounds_of_no_clients_are_tffs(tff):
    import tensorflow as tf

    spec = collections.OrderedDict(
        x=tf.TensorSpec([None, 4], tf.float32), y=tf.TensorSpec([None, 1], tf.int32)
    )
    x, y = np.arange(20, dtype=np.float32).reshape(5, 4) / 20, np.arange(5, dtype=np.int32)[:, None]
    some = [tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x, y=y % 3)).batch(2)]

    def runs(t):
        def model_fn(loss=None):
            return t.learning.models.from_keras_model(
                tf.keras.Sequential([
                    tf.keras.layers.InputLayer(input_shape=(4,)),
                    tf.keras.layers.Dense(3, kernel_initializer="ones"),
                ]),
                loss or tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                spec,
            )  # fmt: skip

        build, sgdm = t.learning.algorithms, t.learning.optimizers.build_sgdm
        scheduled = t.learning.optimizers.schedule_learning_rate(
            sgdm(1.0), lambda step: 0.1 / (tf.cast(step, tf.float32) + 1.0)
        )
        for process in (
            build.build_weighted_fed_avg(model_fn, scheduled, sgdm(1.0)),
            build.build_weighted_mime_lite(model_fn, sgdm(0.1, 0.9)),
            build.build_unweighted_fed_prox(model_fn, 0.1, sgdm(0.1)),
            build.build_fed_eval(lambda: model_fn(tf.keras.losses.Hinge())),
        ):
            state = process.initialize()
            for clients in ([], some, []):
                state, metrics = process.next(state, clients)
                yield metrics, tuple(process.get_model_weights(state))
        process = build.build_fed_kmeans(2, (3,), random_seed=(1, 2))
        yield process.next(process.initialize(), []).metrics

    for theirs, mine in zip(runs(tff), runs(ours), strict=True):
        pairs = zip(tf.nest.flatten(theirs), tf.nest.flatten(mine), strict=True)
        for expected, found in pairs:
            # Three steps of a softmax regression: the last digits of float32.
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_a_computation_of_the_scripts_takes_client_ids(tff, both):
    def computation(t, data):
        twice = lambda x: jax.tree.map(lambda leaf: 2 * leaf, x)
        double = lambda client_id: data.dataset_computation(client_id).map(twice)
        return t.tensorflow.computation(double, np.str_)

    made = [computation(t, data) for t, data in zip((tff, ours), both, strict=True)]
    for doubled in made:
        assert [int(x) for x in doubled("c2")] == (2 * ROWS["c2"]).tolist()
    assert str(made[1].type_signature) == str(made[0].type_signature)
    types = [str(data.dataset_computation.type_signature) for data in both]
    assert types[1] == types[0]
    slices = {i: {"x": values} for i, values in ROWS.items()}
    for data in (both[1], ours.simulation.datasets.TestClientData(slices), packed(slices)):
        make = computation(ours, data)
        assert len(list(make("c2"))) == len(ROWS["c2"])
        with pytest.raises(Exception, match="there is no such client in this ClientData"):
            list(make("nobody"))


def test_named_weights_of_a_functional_model_are_refused():
    import tensorflow as tf

    spec = (tf.TensorSpec([None, 2], tf.float32), tf.TensorSpec([None, 2], tf.float32))
    model = ours.learning.models.FunctionalModel(
        initial_weights=(collections.OrderedDict(w=np.eye(2, dtype="f"), b=np.zeros(2, "f")), ()),
        predict_on_batch_fn=lambda weights, x, training: x @ weights[0]["w"] + weights[0]["b"],
        loss_fn=lambda output, label, sample_weight=None: tf.reduce_mean((output - label) ** 2),
        input_spec=spec,
    )
    with pytest.raises(ModelError, match="weights are in a OrderedDict"):
        model.core_model()


def test_a_loss_for_each_example_trains_and_counts_as_in_tff(tff):
    """Its gradient is that of the sum; in its mean a batch counts by the square of its size."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x, y = rng.random((17, 4), np.float32), rng.integers(0, 3, (17, 1)).astype(np.int32)
    whole = tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x, y=y))
    clients = [whole.take(10).batch(4), whole.skip(10).batch(4)]

    def run(t):
        def model_fn():
            return t.learning.models.from_keras_model(
                tf.keras.Sequential([tf.keras.layers.Dense(3, "softmax", input_shape=(4,))]),
                tf.keras.losses.SparseCategoricalCrossentropy(reduction="none"),
                clients[0].element_spec,
            )

        process = t.learning.algorithms.build_weighted_fed_avg(
            model_fn, t.learning.optimizers.build_sgdm(0.1)
        )
        kernel = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
        state = process.set_model_weights(
            process.initialize(), t.learning.models.ModelWeights([kernel, np.zeros(3, "f")], [])
        )
        state, metrics = process.next(state, clients)
        weights = process.get_model_weights(state).trainable
        return [*metrics["client_work"]["train"].values(), *weights]

    for mine, theirs in zip(run(ours), run(tff), strict=True):
        # Three steps of a softmax regression: the last digits of float32.
        np.testing.assert_allclose(mine, theirs, rtol=2e-6, atol=1e-7)
