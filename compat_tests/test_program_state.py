"""States to and from the real TFF: in the process, and in its FileProgramStateManager's folders."""

import asyncio
from collections import OrderedDict
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedbridge as fb
import fedbridge.tff
from fedbridge import tff_io
from fedbridge.jax_core import named_leaves

# Softmax regression, a smooth model, for a few local steps: the bound of a whole round.
WHOLE_ROUND = 1e-6
ROWS, INPUTS, CLASSES = (9, 13, 1), 6, 3


@pytest.fixture(scope="module")
def task(tff):
    return Task(tff)


class Task:
    """One task on both sides: ragged clients, a model of Keras."""

    def __init__(self, tff):
        import tensorflow as tf

        self.tff, self.tf = tff, tf
        rng = np.random.default_rng(0)
        self.clients = {
            f"c{i}": OrderedDict(
                x=rng.random((rows, INPUTS), dtype=np.float32),
                y=rng.integers(0, CLASSES, rows).astype(np.int32),
            )
            for i, rows in enumerate(ROWS)
        }
        self.datasets = [
            tf.data.Dataset.from_tensor_slices(client).repeat(2).batch(4)
            for client in self.clients.values()
        ]
        data = fb.from_clients(self.clients)
        self.cohort = data.cohort(list(self.clients), fb.Batches(batch_size=4, num_epochs=2))
        self.start = self.keras_model().get_weights()
        self.model = fb.from_keras(self.keras_model(), tf.keras.losses.get(self.loss()))

    def loss(self):
        return self.tf.keras.losses.SparseCategoricalCrossentropy()

    def keras_model(self):
        keras = self.tf.keras
        glorot = keras.initializers.GlorotUniform(seed=1)
        dense = keras.layers.Dense(CLASSES, "softmax", kernel_initializer=glorot)
        return keras.Sequential([keras.layers.InputLayer(input_shape=(INPUTS,)), dense])

    def model_fn(self):
        return self.tff.learning.models.from_keras_model(
            self.keras_model(), loss=self.loss(), input_spec=self.datasets[0].element_spec
        )

    def manager(self, root, **kwargs):
        return self.tff.program.FileProgramStateManager(root, **kwargs)

    def fed_avg(self, name):
        """(TFF's process, fedbridge's process)"""
        theirs, ours = SERVERS[name]
        build = self.tff.learning.optimizers
        return (
            self.tff.learning.algorithms.build_weighted_fed_avg(
                self.model_fn, build.build_sgdm(0.1), theirs(build)
            ),
            fb.algorithms.fed_avg(self.model, fb.optimizers.sgdm(0.1), ours),
        )


# An epsilon that is not below the rounding of the mean update, or Adam divides by that.
SERVERS = {
    "momentum": (lambda tff: tff.build_sgdm(0.5, 0.9), fb.optimizers.sgdm(0.5, 0.9)),
    "adam": (
        lambda tff: tff.build_adam(0.05, epsilon=1e-3),
        fb.optimizers.adam(0.05, epsilon=1e-3),
    ),
}


def check_round(before, ours, theirs):
    """Whether a round of both sides, from one state, agrees; the norm is that of its update."""
    before, ours, theirs = (
        named_leaves(state.global_model_weights) for state in (before, ours, theirs)
    )
    moved = [np.asarray(theirs[name]) - np.asarray(before[name]) for name in before]
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in moved))
    off = max(np.max(np.abs(np.asarray(ours[name]) - np.asarray(theirs[name]))) for name in before)
    print(f"norm of the update {norm:.3g}, error {off / norm:.2g} of it")
    assert norm > 0.01
    assert off <= WHOLE_ROUND * norm


def check_same(ours, theirs):
    """Whether two states hold the same bits under the same names."""
    state = tff_io._tff_state
    ours, theirs = state.tff_leaves(state.as_in_tff(ours)), state.tff_leaves(theirs)
    assert ours.keys() == theirs.keys()
    for name, leaf in theirs.items():
        mine, leaf = tff_io._tff_state.as_array(ours[name]), tff_io._tff_state.as_array(leaf)
        assert mine.dtype == leaf.dtype, name
        np.testing.assert_array_equal(mine, leaf, err_msg=name)


@pytest.mark.parametrize("server", SERVERS)
def test_a_run_of_tff_goes_on_here(task, tmp_path, server):
    theirs, ours = task.fed_avg(server)
    state = theirs.initialize()
    for _ in range(2):
        state = theirs.next(state, task.datasets).state
    asyncio.run(task.manager(tmp_path).save(state, 2))

    loaded, version = tff_io.load_latest_program_state(tmp_path, like=ours.initialize())
    assert version == 2
    check_same(loaded, state)
    check_same(tff_io.from_tff_state(state, like=ours.initialize()), state)
    after, metrics = ours.next(loaded, task.cohort)
    expected = theirs.next(state, task.datasets)
    check_round(state, after, expected.state)
    for name in ("num_examples", "num_batches"):
        assert (
            metrics["client_work"]["train"][name] == expected.metrics["client_work"]["train"][name]
        )


@pytest.mark.parametrize("server", SERVERS)
def test_a_run_of_ours_goes_on_in_tff(task, tmp_path, server):
    theirs, ours = task.fed_avg(server)
    state = ours.initialize()
    for _ in range(2):
        state = ours.next(state, task.cohort).state
    folder = tff_io.save_program_state(tmp_path, state, 2)

    structure = theirs.initialize()
    loaded, version = asyncio.run(task.manager(tmp_path).load_latest(structure))
    assert version == 2
    assert type(loaded) is type(structure)
    check_same(loaded, state)
    check_same(tff_io.to_tff_state(state, like=structure), state)
    check_same(task.tf.saved_model.load(str(folder))(), state)
    reader = task.tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    for name, leaf in named_leaves(state).items():
        stored = reader.get_tensor(f"_value/{name}/.ATTRIBUTES/VARIABLE_VALUE")
        np.testing.assert_array_equal(stored, np.asarray(leaf))

    expected = theirs.next(loaded, task.datasets).state
    check_round(state, ours.next(state, task.cohort).state, expected)
    # TFF saves what it loaded, and the file is ours again.
    asyncio.run(task.manager(tmp_path).save(expected, 3))
    again = tff_io.load_program_state(tmp_path, 3, like=ours.initialize())
    check_same(again, expected)
    # In the process, without a file.
    handed_over = theirs.next(tff_io.to_tff_state(state, like=structure), task.datasets).state
    check_same(handed_over, expected)


ALGORITHMS = {
    "fed_prox": (
        lambda a, o, m: a.build_weighted_fed_prox(m, 0.1, o.build_sgdm(0.1), o.build_yogi(0.1)),
        lambda m: fb.algorithms.fed_prox(
            m,
            0.1,
            fb.optimizers.sgdm(0.1),
            fb.optimizers.yogi(0.1),
            pull=fb.algorithms.away_from_server,
        ),
    ),
    "fed_sgd": (
        lambda a, o, m: a.build_fed_sgd(m, o.build_adagrad(0.1)),
        lambda m: fb.algorithms.fed_sgd(m, fb.optimizers.adagrad(0.1)),
    ),
    "fed_avg_with_schedule": (
        lambda a, o, m: a.build_weighted_fed_avg_with_optimizer_schedule(
            m, lambda round: 0.1, o.build_sgdm, o.build_rmsprop(0.1)
        ),
        lambda m: fb.algorithms.fed_avg_with_schedule(
            m, lambda round: 0.1, fb.optimizers.sgdm, fb.optimizers.rmsprop(0.1)
        ),
    ),
    "mime_lite": (
        lambda a, o, m: a.build_weighted_mime_lite(m, o.build_sgdm(0.1, 0.9)),
        lambda m: fb.algorithms.mime_lite(m, fb.optimizers.sgdm(0.1, 0.9)),
    ),
    "mime_lite_with_schedule": (
        lambda a, o, m: a.build_mime_lite_with_optimizer_schedule(
            m, lambda round: 0.1, o.build_sgdm(0.1, 0.9)
        ),
        lambda m: fb.algorithms.mime_lite_with_schedule(
            m, lambda round: 0.1, fb.optimizers.sgdm(0.1, 0.9)
        ),
    ),
    "fed_eval": (
        lambda a, o, m: a.build_fed_eval(m),
        lambda m: fb.algorithms.fed_eval(m),
    ),
}
# Named tuples that are called otherwise in TFF; events of privacy, which hold texts.
AGGREGATORS = {
    "robust": (
        lambda tff: tff.learning.robust_aggregator(),
        lambda: fb.aggregators.robust_aggregator(),
    ),
    "compression": (
        lambda tff: tff.learning.compression_aggregator(),
        lambda: fb.aggregators.compression_aggregator(),
    ),
    "dp_fixed": (
        lambda tff: tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(0.5, 3.0, 1.0),
        lambda: fb.aggregators.gaussian_fixed(0.5, 3.0, 1.0),
    ),
    "dp_adaptive": (
        lambda tff: tff.aggregators.DifferentiallyPrivateFactory.gaussian_adaptive(0.5, 20.0),
        lambda: fb.aggregators.gaussian_adaptive(0.5, 20.0),
    ),
    "dp_aggregator": (
        lambda tff: tff.learning.dp_aggregator(0.5, 20.0),
        lambda: fb.aggregators.dp_aggregator(0.5, 20.0),
    ),
}


@pytest.mark.parametrize("name", AGGREGATORS)
def test_states_of_aggregators_go_both_ways(task, tmp_path, name):
    private = name.startswith("dp")
    builders = task.tff.learning.algorithms
    build = builders.build_unweighted_fed_avg if private else builders.build_weighted_fed_avg
    theirs = build(
        task.model_fn,
        client_optimizer_fn=task.tff.learning.optimizers.build_sgdm(0.1),
        model_aggregator=AGGREGATORS[name][0](task.tff),
    )
    ours = fb.algorithms.fed_avg(
        task.model,
        fb.optimizers.sgdm(0.1),
        aggregator=AGGREGATORS[name][1](),
        client_weight=fb.uniform if private else fb.num_examples,
    )
    # What a process starts from, defaults of the aggregator included, are TFF's to the last bits.
    first, mine = theirs.initialize().aggregator, ours.initialize().aggregator
    mine = tff_io.to_tff_state(mine, like=first)
    for a, b in zip(task.tf.nest.flatten(mine), task.tf.nest.flatten(first), strict=True):
        if isinstance(b, bytes):
            assert a == b
        else:
            np.testing.assert_allclose(a, b, rtol=2e-7)  # an ulp or two of exp and log

    state = theirs.next(theirs.initialize(), task.datasets).state
    manager = task.manager(tmp_path)
    asyncio.run(manager.save(state, 1))
    loaded = tff_io.load_program_state(tmp_path, 1, like=ours.initialize())
    check_same(loaded, state)
    check_same(tff_io.from_tff_state(state, like=ours.initialize()), state)
    after = ours.next(loaded, task.cohort).state
    folder = tff_io.save_program_state(tmp_path, after, 2)
    check_same(after, asyncio.run(manager.load(2, theirs.initialize())))
    check_same(after, tff_io.to_tff_state(after, like=state))
    check_same(after, task.tf.saved_model.load(str(folder))())
    theirs.next(asyncio.run(manager.load(2, theirs.initialize())), task.datasets)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_states_of_every_algorithm_go_both_ways(task, tmp_path, name):
    """The trees are TFF's, so its manager takes ours; counters keep their int64."""
    learning = task.tff.learning
    theirs = ALGORITHMS[name][0](learning.algorithms, learning.optimizers, task.model_fn)
    ours = ALGORITHMS[name][1](task.model)
    state = theirs.next(theirs.initialize(), task.datasets).state
    manager = task.manager(tmp_path)
    asyncio.run(manager.save(state, 1))
    loaded = tff_io.load_program_state(tmp_path, 1, like=ours.initialize())
    check_same(loaded, state)
    tff_io.save_program_state(tmp_path, loaded, 2)
    back = asyncio.run(manager.load(2, theirs.initialize()))
    check_same(back, state)
    check_same(theirs.next(back, task.datasets).state, theirs.next(state, task.datasets).state)


# Schedules replace the client work of models of both kinds, and what is in it.
FUNCTIONAL = {
    "fed_avg": (
        lambda a, o, m: a.build_weighted_fed_avg(m, o.build_sgdm(0.1, 0.9), o.build_adagrad(0.1)),
        lambda m: fb.algorithms.fed_avg(
            m, fb.optimizers.sgdm(0.1, 0.9), fb.optimizers.adagrad(0.1)
        ),
    ),
    **{name: both for name, both in ALGORITHMS.items() if "schedule" not in name},
}


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_states_of_functional_models_go_both_ways(task, tmp_path, name):
    """Weights in tuples, no hyperparameters of clients; TFF compares containers when it loads."""
    build, accuracy = task.tff.learning, task.tf.keras.metrics.SparseCategoricalAccuracy
    functional_model = lambda learning: learning.models.functional_model_from_keras(
        task.keras_model, task.loss(), task.datasets[0].element_spec, OrderedDict(hits=accuracy)
    )
    theirs = FUNCTIONAL[name][0](build.algorithms, build.optimizers, functional_model(build))
    model = fb.from_keras(task.keras_model(), task.loss(), [accuracy()])
    ours = FUNCTIONAL[name][1](fb.as_functional(model, ["hits"]))
    structure, manager = theirs.initialize(), task.manager(tmp_path)
    state = theirs.next(structure, task.datasets).state
    asyncio.run(manager.save(state, 1))
    loaded = fb.load_program_state(tmp_path, 1, like=ours.initialize())
    check_same(loaded, state)
    after, expected = ours.next(loaded, task.cohort), theirs.next(state, task.datasets)
    if name != "fed_eval":
        check_round(state, after.state, expected.state)
    assert dict(after.metrics["client_work"]) == dict(expected.metrics["client_work"])
    fb.save_program_state(tmp_path, after.state, 2)
    check_same(after.state, asyncio.run(manager.load(2, structure)))
    check_same(after.state, fb.to_tff_state(after.state, like=structure))

    in_script = fedbridge.tff.learning
    namespace = FUNCTIONAL[name][0](
        in_script.algorithms, in_script.optimizers, functional_model(in_script)
    )
    first = namespace.initialize()
    asyncio.run(fedbridge.tff.program.FileProgramStateManager(tmp_path).save(first, 3))
    check_same(first, asyncio.run(manager.load(3, structure)))


class Pair(NamedTuple):
    first: object
    second: object = ()


def kinds():
    """A leaf of every dtype, and containers of every kind."""
    return OrderedDict(
        float16=np.float16([1, 2]),
        float32=np.float32(1),
        float64=np.float64([[1.5]]),
        int8=np.int8(-3),
        int16=np.int16(-3),
        int32=np.zeros(0, np.int32),
        int64=np.int64([[1, 2**40]]),
        uint8=np.uint8(200),
        uint16=np.uint16(60000),
        uint32=np.uint32(2**31),
        uint64=np.uint64(2**63),
        bool=np.array([True, False]),
        bfloat16=np.asarray(jnp.asarray([1.5, 2.5], jnp.bfloat16)),
        complex64=np.complex64(1 + 2j),
        text="text",
        bytes=b"bytes\x00\xff\x00",
        texts=np.array([[b"a", b"", b"c" * 300]], object),
        empty=np.zeros((0, 3), np.float32),
        containers=[(), [], {}, (np.float32(1), ((),)), Pair(np.float32(2)), Pair((), [()])],
        **{"odd/na.me": np.int32(7)},
    )


def test_every_dtype_and_container_goes_both_ways(task, tmp_path):
    manager = task.manager(tmp_path)
    asyncio.run(manager.save(kinds(), 1))
    check_same(tff_io.load_program_state(tmp_path, 1, like=kinds()), kinds())
    tff_io.save_program_state(tmp_path, kinds(), 2)
    ours = asyncio.run(manager.load(2, kinds()))
    check_same(ours, kinds())
    assert str(jax.tree.structure(ours)) == str(jax.tree.structure(kinds()))
    # A large tensor: the checksum of many bytes, and more than one read of TensorFlow's.
    large = {"w": np.random.default_rng(0).normal(size=(300, 4000)).astype(np.float32)}
    tff_io.save_program_state(tmp_path, large, 3)
    check_same(asyncio.run(manager.load(3, large)), large)
    asyncio.run(manager.save(large, 4))
    check_same(tff_io.load_program_state(tmp_path, 4, like=large), large)


def test_a_training_program_s_state_holds_the_process_s(task, tmp_path):
    """`tff.learning.programs.train_model` saves a structure with the state in it."""
    theirs, ours = task.fed_avg("momentum")
    state = theirs.initialize()
    asyncio.run(task.manager(tmp_path).save({"state": state, "round_number": 3, "it": b"\0"}, 3))
    check_same(tff_io.load_program_state(tmp_path, 3, ours.initialize(), part="state"), state)
    number = tff_io.load_program_state(tmp_path, 3, np.int64(0), part="round_number")
    assert number == 3


@pytest.mark.parametrize("keep_total", [0, 2, 3])
@pytest.mark.parametrize("keep_first", [True, False])
@pytest.mark.parametrize("keep_every_k", [1, 2])
def test_the_same_versions_stay(task, tmp_path, keep_total, keep_first, keep_every_k):
    keep = dict(keep_total=keep_total, keep_first=keep_first, keep_every_k=keep_every_k)
    manager = task.manager(tmp_path / "tff", **keep)
    value = np.float32(1)
    for version in (1, 2, 3, 4, 10, 11):
        asyncio.run(manager.save(value, version))
        tff_io.save_program_state(tmp_path / "ours", value, version, **keep)
        expected = asyncio.run(manager.get_versions())
        assert tff_io.program_state_versions(tmp_path / "ours") == expected
        assert tff_io.program_state_versions(tmp_path / "tff") == expected


def test_damaged_bytes_are_refused_or_read_as_tensorflow_does(task, tmp_path):
    """Flips and cuts at random places: an error here, or TensorFlow's own values."""
    load_checkpoint = task.tf.train.load_checkpoint
    asyncio.run(task.manager(tmp_path).save(kinds(), 1))
    prefix = tmp_path / "program_state_1" / "variables" / "variables"
    files = [prefix.with_name(f"variables.{end}") for end in ("index", "data-00000-of-00001")]
    rng = np.random.default_rng(0)
    refused = read = 0
    for file in files:
        whole = file.read_bytes()
        places = rng.choice(len(whole), 150, replace=False)
        damaged = [
            whole[:at] + bytes([whole[at] ^ 1 << rng.integers(8)]) + whole[at + 1 :]
            for at in places
        ]
        damaged += [whole[:at] for at in rng.choice(len(whole), 20, replace=False)]
        for content in damaged:
            file.write_bytes(content)
            try:
                ours = tff_io.load_program_state(tmp_path, 1, like=kinds())
            except fb.StateError:
                refused += 1
                continue
            read += 1
            reader = load_checkpoint(str(prefix))
            for name, leaf in tff_io._tff_state.tff_leaves(ours).items():
                name = name.replace("odd/na.me", "odd.Sna..me")
                stored = reader.get_tensor(f"_value/{name}/.ATTRIBUTES/VARIABLE_VALUE")
                np.testing.assert_array_equal(stored, leaf)
        file.write_bytes(whole)
    # What no checksum covers: the footer's padding, and the alignment of the data.
    assert refused > 300
    print(f"refused {refused}, read {read}")


def test_keras_models_take_and_give_weights(task):
    model = task.keras_model()
    weights = tff_io.weights_from_keras(model)
    check_same(weights, task.model.initial_weights)
    moved = jax.tree.map(lambda leaf: leaf + 1, weights)
    tff_io.weights_to_keras(moved, model)
    check_same(tff_io.weights_from_keras(model), moved)
    tff_weights = task.tff.learning.models.ModelWeights.from_model(model)
    check_same(tff_weights.convert_variables_to_arrays(), moved)
