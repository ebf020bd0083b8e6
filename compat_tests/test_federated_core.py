"""Federated Core under `fedbridge.tff` and under the real TFF: the same programs, the same bits."""

import collections

import numpy as np
import pytest

from fedbridge import tff as ours
from fedbridge.tff._errors import Note

RNG = np.random.default_rng(0)
WIDE = (10.0 ** RNG.integers(-4, 5, [12, 3]) * RNG.standard_normal([12, 3])).astype(np.float32)
WEIGHTS = RNG.random(12).astype(np.float32)


def means(t, tf):
    """Values of nine decades, whose sums depend on their order."""
    member = collections.OrderedDict(w=(np.float32, [3]), b=[np.float64, np.float32])
    values = [collections.OrderedDict(w=row, b=[np.float64(row[0]), row[1]]) for row in WIDE]

    @t.federated_computation(
        t.FederatedType(member, t.CLIENTS),
        t.FederatedType(np.float32, t.CLIENTS),
        t.FederatedType(np.int32, t.CLIENTS),
    )
    def compute(x, w, n):
        extremes = t.federated_min(x), t.federated_max(x)
        sums = t.federated_sum(x), t.federated_sum(n)
        return sums, t.federated_mean(x), t.federated_mean(x, w), t.federated_mean(x, n), extremes

    counts = [np.int32(i) for i in range(12)]
    return [compute(values, list(WEIGHTS), counts), compute(values[:1], [WEIGHTS[0]], counts[1:2])]


def data_sets(t, tf):
    """Pipelines restart in every call, whatever the script did with them; lists may be ragged."""
    rows = t.SequenceType(np.int64)

    @t.tensorflow.computation(rows)
    def read(dataset):
        return dataset.reduce(tf.zeros([0], tf.int64), lambda held, x: tf.concat([held, [x]], 0))

    everywhere = t.FederatedType(rows, t.CLIENTS)
    read_all = t.federated_computation(lambda x: t.federated_map(read, x), everywhere)
    seeded = tf.data.Dataset.range(12).shuffle(12, seed=5).repeat(2)
    fixed = tf.data.Dataset.range(9).shuffle(4, seed=3, reshuffle_each_iteration=False).repeat(2)
    orders = [read_all([seeded, fixed])]
    list(seeded)
    orders += [read_all([seeded, seeded]), read([5, 7]), read([])]

    @t.tensorflow.computation(t.SequenceType({"x": t.TensorType(np.float32, [None, 2])}))
    def shapes(batches):
        sizes = batches.map(lambda batch: tf.shape(batch["x"])[0])
        return batches.map(lambda batch: batch["x"] + 1.0), sizes.reduce(0, lambda a, b: 10 * a + b)

    batches = [{"x": np.full([n, 2], n, np.float32)} for n in (3, 3, 2)]
    added, sizes = shapes(batches)
    return orders, [np.asarray(batch) for batch in added], sizes, str(shapes.type_signature)


def state(t, tf):
    """Variables and tables start anew in every call, in computations within computations too."""

    @t.tensorflow.computation(np.float32)
    def counted(x):
        calls = tf.Variable(0.0)
        keys, values = tf.constant(["a", "b"]), tf.constant([1.0, 2.0])
        table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1.0)
        with tf.control_dependencies([calls.assign_add(1.0)]):
            return tf.ensure_shape(calls.read_value() * x + table.lookup(tf.constant("b")), [])

    @t.tensorflow.computation(np.float32)
    def twice(x):
        return counted(counted(x)), tf.random.stateless_normal([2], seed=[1, 2])

    @t.tensorflow.computation
    def layers():
        model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,))])
        return model.trainable_variables

    same = all(np.array_equal(a, b) for a, b in zip(layers(), layers(), strict=True))
    return [counted(2.0), counted(2.0), twice(3.0), same, str(layers.type_signature)]


def containers(t, tf):
    """What comes in and goes out, with names and without."""
    Pair = collections.namedtuple("Pair", "x y")
    struct = t.types.StructType([("a", np.int32), ("b", t.types.StructType([("c", np.float32)]))])

    @t.tensorflow.computation(struct)
    def whole(arg):
        return Pair(arg.a, [arg.b.c, {"z": arg[0]}]), type(arg).__name__

    @t.tensorflow.computation(struct, Pair(np.int32, np.float32))
    def two(one, other):
        return type(other).__name__, other.y, one.b.c, (one.a, ("text", True))

    @t.tensorflow.computation
    def untyped(x, y):
        return {"sum": x["p"] + y, "kind": type(x).__name__}

    argument = collections.OrderedDict(a=1, b=collections.OrderedDict(c=2.0))
    made = [whole(argument), two(argument, Pair(3, 4.0)), untyped({"p": 1}, 2)]
    types = [str(c.type_signature) for c in (whole, two)]
    return made, types, repr(two.type_signature.result)


def aggregates(t, tf):
    """A fold whose order shows, and its report."""
    pair = t.to_type((np.float32, np.int32))

    @t.tensorflow.computation(pair, np.float32)
    def accumulate(held, value):
        return held[0] * 0.5 + value, held[1] + 1

    @t.tensorflow.computation(pair, pair)
    def merge(a, b):
        return a[0] + b[0], a[1] + b[1]

    @t.tensorflow.computation(pair)
    def report(held):
        return collections.OrderedDict(value=held[0], count=held[1])

    @t.federated_computation(t.FederatedType(np.float32, t.CLIENTS))
    def fold(x):
        return t.federated_aggregate(x, (1.0, 0), accumulate, merge, report)

    op = t.tensorflow.computation(lambda a, b: a * 0.5 + b, (np.float32, np.float32))

    @t.federated_computation(t.SequenceType(np.float32))
    def reduced(sequence):
        return t.sequence_reduce(sequence, np.float32(1.0), op)

    return fold(list(WIDE[:, 0])), fold([]), reduced(list(WIDE[:, 1])), str(fold.type_signature)


def flat(value):
    """Leaves with the names of their classes and containers; data sets in order."""
    if isinstance(value, dict):
        return [type(value).__name__, [(name, flat(part)) for name, part in value.items()]]
    if isinstance(value, list | tuple):
        return [type(value).__name__, [flat(part) for part in value]]
    if isinstance(value, np.ndarray | np.generic):
        return [
            str(value.dtype),
            value.shape,
            value.tobytes() if value.dtype != object else value.tolist(),
        ]
    return value


def selection(t, tf):
    """Each client gets the rows that it asks for, in its order, and sums them up."""

    @t.tensorflow.computation(t.TensorType(np.float32, [4, 2]), np.int32)
    def row(table, key):
        return tf.gather(table, key)

    @t.tensorflow.computation(t.SequenceType(t.TensorType(np.float32, [2])))
    def total(rows):
        return rows.reduce(tf.zeros([2]), lambda held, one: 2 * held + one)

    @t.federated_computation(
        t.FederatedType(t.TensorType(np.int32, [3]), t.CLIENTS),
        t.FederatedType(t.TensorType(np.float32, [4, 2]), t.SERVER),
    )
    def compute(keys, table):
        most = t.federated_value(3, t.SERVER)
        return t.federated_map(total, t.federated_select(keys, most, table, row))

    keys = [np.array(k, np.int32) for k in ([0, 3, 1], [2, 2, 0])]
    return compute(keys, WIDE[:4, :2]), str(compute.type_signature)


def learning_process(t, tf):
    """A learning process by hand, whose metrics TFF's own computation adds up."""
    templates, rows = t.learning.templates, t.SequenceType(np.float32)
    state_type = t.to_type(collections.OrderedDict(w=np.float32, round=np.int32))
    finalizers = collections.OrderedDict(mean=lambda pair: pair[0] / pair[1])

    @t.tensorflow.computation
    def start():
        return collections.OrderedDict(w=1.5, round=0)

    @t.tensorflow.computation(rows, np.float32)
    def local(dataset, w):
        total, count = dataset.reduce((0.0, 0.0), lambda held, x: (held[0] + x, held[1] + 1.0))
        return total * w, collections.OrderedDict(mean=[total, count])

    @t.tensorflow.computation(state_type, np.float32)
    def moved(state, update):
        return collections.OrderedDict(w=state["w"] + update, round=state["round"] + 1)

    @t.federated_computation
    def initialize():
        return t.federated_eval(start, t.SERVER)

    @t.federated_computation(
        t.FederatedType(state_type, t.SERVER), t.FederatedType(rows, t.CLIENTS)
    )
    def following(state, data):
        updates, unfinalized = t.federated_map(local, (data, t.federated_broadcast(state.w)))
        metrics = t.learning.metrics.sum_then_finalize(finalizers)(unfinalized)
        new = t.federated_map(moved, (state, t.federated_mean(updates)))
        return templates.LearningProcessOutput(new, metrics)

    get = t.tensorflow.computation(lambda state: state["w"], state_type)
    put = t.tensorflow.computation(
        lambda state, w: collections.OrderedDict(w=w, round=state["round"]), state_type, np.float32
    )
    process = templates.LearningProcess(initialize, following, get, put)
    assert isinstance(process, templates.LearningProcess)
    assert isinstance(process, t.templates.IterativeProcess)
    state = process.set_model_weights(process.initialize(), 0.25)
    output = process.next(state, [[1.0, 2.0], [0.5, 4.0, 8.0], []])
    found = [output.state, output.metrics, process.get_model_weights(output.state)]
    with pytest.raises(Exception, match="get_model_weights"):
        templates.LearningProcess(initialize, following, put, get)
    return found, dict(process.get_hparams(output.state)), str(process.next.type_signature)


PROGRAMS = [
    selection,
    means,
    data_sets,
    state,
    containers,
    aggregates,
    learning_process,
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_computes_the_same(tff, program):
    import tensorflow as tf

    theirs, mine = (flat(program(t, tf)) for t in (tff, ours))
    assert mine == theirs


def test_variables_start_after_those_that_they_start_from():
    """A scheduled Keras optimizer's rate starts from its iterations; TFF does it by luck."""
    import tensorflow as tf

    rows = [WIDE[i : i + 2] / 1e4 for i in (0, 2, 4)]

    def training():
        weights = tf.Variable(tf.ones([3]))
        rate = tf.keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
        optimizer = tf.keras.optimizers.SGD(rate, clipnorm=0.5)
        optimizer.build([weights])

        @tf.function
        def steps(batches):
            for batch in batches:
                with tf.GradientTape() as tape:
                    loss = tf.reduce_sum(tf.square(batch - weights))
                optimizer.apply_gradients([(tape.gradient(loss, weights), weights)])
            return weights.read_value()

        return steps

    @ours.tf_computation(ours.SequenceType(ours.TensorType(np.float32, [None, 3])))
    def train(batches):
        return training()(batches)

    # Three steps of float32, in JAX or in TensorFlow.
    np.testing.assert_allclose(train(rows), training()(rows).numpy(), rtol=1e-6)


def test_an_unseeded_pipeline_is_drawn_anew_in_every_call():
    import tensorflow as tf

    read = ours.tf_computation(
        lambda d: d.batch(50).reduce(tf.zeros([50], tf.int64), lambda _, x: x),
        ours.SequenceType(np.int64),
    )
    dataset = tf.data.Dataset.range(50).shuffle(50)
    drawn = [read(dataset).tolist() for _ in range(2)]
    assert sorted(drawn[0]) == sorted(drawn[1]) == list(range(50))
    assert drawn[0] != drawn[1]


def client_update(t, tf, passes):
    """Local SGD with momentum, as `passes` has it go through the batches."""
    spec = collections.OrderedDict(
        x=tf.TensorSpec([None, 3], tf.float32), y=tf.TensorSpec([None], tf.int32)
    )
    weights = collections.OrderedDict(w=(np.float32, [3, 4]), b=(np.float32, [4]))

    @t.tensorflow.computation(t.SequenceType(t.types.tensorflow_to_type(spec)), weights)
    def update(batches, given):
        variables = [tf.Variable(given["w"]), tf.Variable(given["b"])]
        optimizer = tf.keras.optimizers.legacy.SGD(0.5, momentum=0.9, nesterov=True)
        optimizer._create_all_weights(variables)

        def step(batch):
            with tf.GradientTape() as tape:
                logits = tf.nn.relu(tf.matmul(batch["x"], variables[0])) + variables[1]
                loss = tf.keras.losses.sparse_categorical_crossentropy(batch["y"], logits, True)
                loss = tf.reduce_mean(loss) + 0.01 * tf.nn.l2_loss(variables[0])
            gradients = tape.gradient(loss, variables)
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return tf.shape(batch["y"], tf.int64)[0]

        @tf.function
        def train():
            rows = passes(tf, batches, step)
            return [v - old for v, old in zip(variables, given.values(), strict=True)], rows

        return train()

    return update


def for_loop(tf, batches, step):
    rows = tf.constant(0, tf.int64)
    for batch in batches:
        rows += step(batch)
    return rows


def iterator(tf, batches, step):
    rows = tf.constant(0, tf.int64)
    for batch in iter(batches):
        rows += step(batch)
    return rows


def reduction(tf, batches, step):
    return batches.reduce(tf.constant(0, tf.int64), lambda rows, batch: rows + step(batch))


def twice(tf, batches, step):
    return for_loop(tf, batches, step) + for_loop(tf, batches, step)


def from_the_second(tf, batches, step):
    return for_loop(tf, batches.skip(1), step)


def broken_off(tf, batches, step):
    rows = tf.constant(0, tf.int64)
    for batch in batches:
        rows += step(batch)
        if rows > 6:
            break
    return rows


def client(tf, rows):
    x = RNG.standard_normal([rows, 3]).astype(np.float32)
    data = collections.OrderedDict(x=x, y=RNG.integers(0, 4, rows).astype(np.int32))
    return tf.data.Dataset.from_tensor_slices(data).shuffle(rows, seed=1).repeat(3).batch(4)


START = {"w": np.full([3, 4], 0.1, np.float32), "b": np.zeros(4, np.float32)}


def test_a_client_update_runs_on_jax_and_computes_what_it_does_under_tff(tff):
    import tensorflow as tf

    # No batch; more steps than one call of a program takes; a last batch of its own size.
    clients = [client(tf, 8).take(0), *(client(tf, rows) for rows in (7, 30, 6))]
    reference = client_update(tff, tf, for_loop)
    theirs = [reference(one, START) for one in clients]
    for passes in (for_loop, iterator, reduction):
        update = client_update(ours, tf, passes)
        with pytest.warns(Note, match=r"update \(line \d+\) runs on JAX"):
            mine = [update(one, START) for one in clients]
        for (delta, rows), (expected, number) in zip(mine, theirs, strict=True):
            assert (type(rows), rows) == (type(number), number)
            norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in expected))
            for one, other in zip(delta, expected, strict=True):
                # The bound of `fedbridge check`, and the last bits of weights around 1.
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * norm + 2**-22)


@pytest.mark.parametrize(
    ("passes", "reason"),
    [
        (twice, "a second pass over the data set"),
        (from_the_second, "a data set made within the function|SkipDataset"),
        (broken_off, "a branch that depends on the data|TakeWhile"),
    ],
)
def test_what_jax_would_compute_otherwise_stays_in_tensorflow(passes, reason):
    import tensorflow as tf

    update = client_update(ours, tf, passes)
    with pytest.warns(Note, match=rf"runs in TensorFlow, not on JAX: ({reason}).* has no rule"):
        update(client(tf, 3), START)


def test_a_client_on_jax_stops_where_tensorflow_does():
    """A label out of range is no number on JAX, and TensorFlow's own error for the script."""
    import tensorflow as tf

    data = {"x": np.ones([4, 3], np.float32), "y": np.array([0, 1, 2, 3], np.int32)}
    batches = tf.data.Dataset.from_tensor_slices(data).batch(2)
    update = client_update(ours, tf, for_loop)
    with pytest.warns(Note, match="runs on JAX"):
        update(batches, START)
    with pytest.raises(tf.errors.InvalidArgumentError, match="label value of 7 which is outside"):
        update(batches.map(lambda row: {**row, "y": row["y"] + 6}), START)
