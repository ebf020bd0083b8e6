"""The baseline tasks beside TFF's: signatures, synthetic data, batches, one evaluation each.

Those of `fedbridge.tasks`, and those of `fedbridge.tff`, which scripts of TFF see.
"""

import inspect

import jax
import numpy as np
import pytest

import fedbridge as fb
import fedbridge.tff
from fedbridge.jax_core import sequential
from fedbridge.tasks.published import EXPERIMENTS

SPEC = (2, 3, 5, 1)  # epochs, batch size, at most so many elements, no shuffle
SEED = 5
NAMES = {"sparse_categorical_accuracy": "accuracy"}  # TFF's where fedbridge has another one
# An LSTM's sums over hundreds of units are rounded in other orders: relative 1e-5 in its outputs.
TOLERANCES = {"stackoverflow_word_prediction": 1e-4, "shakespeare_character_prediction": 1e-4}


def theirs_of(tff, name):
    """TFF's function of that task, or that of `fedbridge.tff`."""
    ours = EXPERIMENTS[name].create
    module = ours.__module__.rpartition(".")[2]
    return getattr(getattr(tff.simulation.baselines, module), ours.__name__)


@pytest.fixture(scope="module", params=EXPERIMENTS)
def both(request, tff):
    """A task's name, TFF's and ours, on synthetic data."""
    name = request.param
    spec = tff.simulation.baselines.ClientSpec(*SPEC)
    theirs = theirs_of(tff, name)(spec, use_synthetic_data=True)
    ours = EXPERIMENTS[name].create(fb.ClientSpec(*SPEC), use_synthetic_data=True)
    return name, theirs, ours


def script_task(name):
    """The task that a script of TFF gets from fedbridge, on synthetic data."""
    spec = fedbridge.tff.simulation.baselines.ClientSpec(*SPEC)
    return theirs_of(fedbridge.tff, name)(spec, use_synthetic_data=True)


def pairs(datasets):
    """The batches of data sets, one after the other."""
    return [pair for dataset in datasets for pair in dataset.as_numpy_iterator()]


def batches_of(cohort):
    """The batches of all clients, one after the other, cut to their real rows."""
    cohort = sequential.place(cohort)
    stream = jax.device_get(cohort.streams["train"])
    steps = int(stream.step_offsets[int(cohort.num_clients)])
    for rows, size in zip(stream.rows[:steps], stream.sizes[:steps], strict=True):
        batch = cohort.batch(rows)
        yield np.asarray(batch["x"])[:size], np.asarray(batch["y"])[:size]


def contents(batch):
    """What a batch is sorted by: its bytes."""
    return [array.tobytes() for array in batch]


def assert_same_batches(theirs, ours):
    """In any order: without a debug seed TFF's maps hand out whichever batch is ready first."""
    theirs, ours = (sorted(side, key=contents) for side in (theirs, ours))
    assert len(theirs) == len(ours) > 0
    for (x, y), (our_x, our_y) in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(our_x, x)
        np.testing.assert_array_equal(our_y, y)


def test_arguments_are_tffs(tff):
    """The first ones, by name, order and default; ours may have more, by keyword.

    Only the native task's `tag_vocab_size` is None, so that 500 that are asked for are no default.
    """
    for name, experiment in EXPERIMENTS.items():
        theirs = inspect.signature(theirs_of(tff, name)).parameters
        ours = inspect.signature(experiment.create).parameters
        shared = {k: p.default for k, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
        expected = {k: p.default for k, p in theirs.items()}
        script = inspect.signature(theirs_of(fedbridge.tff, name)).parameters
        assert [(k, p.default) for k, p in script.items()] == list(expected.items()), name
        if "tag_vocab_size" in expected:
            expected["tag_vocab_size"] = None
        assert list(shared.items()) == list(expected.items()), name


@pytest.mark.parametrize("name", ["emnist", "cifar100", "stackoverflow", "shakespeare"])
def test_synthetic_data_are_tffs(tff, name):
    theirs = fb.from_client_data(getattr(tff.simulation.datasets, name).get_synthetic())
    ours = getattr(fb.datasets, name).get_synthetic()
    assert ours.client_ids == theirs.client_ids
    for client_id in ours.client_ids:
        mine, other = ours.client(client_id), theirs.client(client_id)
        assert sorted(mine) == sorted(other)
        for feature, values in other.items():
            assert mine[feature].dtype == values.dtype
            np.testing.assert_array_equal(mine[feature], values)


def test_synthetic_counts_are_tffs(tff):
    theirs, ours = tff.simulation.datasets.stackoverflow, fb.datasets.stackoverflow
    for what in ("get_synthetic_word_counts", "get_synthetic_tag_counts"):
        assert list(getattr(ours, what)().items()) == list(getattr(theirs, what)().items())


def test_random_clients_have_tffs_batches(both):
    name, theirs, ours = both
    datasets = theirs.datasets.sample_train_clients(2, random_seed=SEED)
    cohort = ours.datasets.sample_train_clients(2, random_seed=SEED)
    expected = pairs(datasets)
    assert_same_batches(expected, batches_of(cohort))

    task = script_task(name)
    assert task.datasets.element_type_structure == theirs.datasets.element_type_structure
    seen = task.datasets.sample_train_clients(2, random_seed=SEED)
    assert_same_batches(expected, pairs(seen))
    lines, mine = [], []
    theirs.datasets.summary(lines.append)
    task.datasets.summary(mine.append)
    assert mine == lines


def test_an_evaluation_has_tffs_numbers(tff, both):
    name, theirs, ours = both
    test = theirs.datasets.get_centralized_test_data()
    process = tff.learning.algorithms.build_fed_eval(theirs.model_fn)
    weights = tff.learning.models.ModelWeights(list(ours.model.initial_weights.trainable), [])
    state = process.set_model_weights(process.initialize(), weights)
    expected = process.next(state, [test]).metrics["client_work"]["eval"]["current_round_metrics"]

    evaluate = fb.algorithms.fed_eval(ours.model)
    cohort = evaluate.place(ours.datasets.get_centralized_test_data())
    output = evaluate.next(evaluate.initialize(), cohort)
    found = output.metrics["client_work"]["eval"]["current_round_metrics"]
    assert list(found) == [NAMES.get(metric, metric) for metric in expected]

    task = script_task(name)
    process = fedbridge.tff.learning.algorithms.build_fed_eval(task.model_fn)
    state = process.set_model_weights(process.initialize(), weights)
    output = process.next(state, [task.datasets.get_centralized_test_data()])
    seen = output.metrics["client_work"]["eval"]["current_round_metrics"]
    assert list(seen) == list(expected)
    for metric, value in expected.items():
        rtol = TOLERANCES.get(name, 1e-5)
        for side in (found[NAMES.get(metric, metric)], seen[metric]):
            np.testing.assert_allclose(side, value, rtol=rtol, err_msg=metric)


def test_a_summary_is_tffs(both):
    name, theirs, ours = both
    lines, mine = [], []
    theirs.datasets.summary(lines.append)
    ours.datasets.summary(mine.append)
    assert mine == lines[: len(mine)]
