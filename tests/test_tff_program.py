"""`tff.program` and the training loop: what is saved, released, and where a run goes on."""

import asyncio
import csv
import datetime
import functools
from collections import OrderedDict

import jax
import numpy as np
import pytest
from test_tff_namespace import CLIENTS, process as new_process

import fedbridge as fb
from fedbridge import tff

process = functools.cache(new_process)  # compiled once


def equal(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


def states(count):
    """The states before and after each round."""
    found = [process().initialize()]
    for _ in range(count):
        found.append(process().next(found[-1], CLIENTS).state)
    return found


def test_states_are_saved_and_loaded(tmp_path):
    manager = tff.program.FileProgramStateManager(tmp_path / "new", keep_total=2, keep_first=True)
    first, second, third = states(2)
    assert tuple(manager.load_latest(first)) == (None, 0)
    assert asyncio.run(manager.get_versions()) is None
    for version, state in enumerate((first, second, third)):
        manager.save(state, version)
    found, version = manager.load_latest(first)
    assert version == 2
    assert equal(found, third)
    assert isinstance(found, tff.learning.templates.LearningAlgorithmState)
    assert asyncio.run(manager.get_versions()) == [0, 2]
    assert equal(asyncio.run(manager.load(0, third)), first)
    # Another program of fedbridge's, or TFF itself, reads the same folder.
    expected, _ = fb.load_latest_program_state(
        tmp_path / "new", like=process()._process.initialize()
    )
    assert equal(expected, third)
    with pytest.raises(tff.program.ProgramStateNotFoundError, match="there is no version 1"):
        manager.load(1, first)
    with pytest.raises(tff.program.ProgramStateExistsError, match="a version 2 already"):
        manager.save(first, 2)


class InMemory(tff.program.ProgramStateManager[tff.program.ProgramStateStructure]):
    """A state manager of a script's own."""

    def __init__(self):
        self.states = {}

    async def get_versions(self):
        return list(self.states) or None

    async def load(self, version, structure):
        if version not in self.states:
            raise tff.program.ProgramStateNotFoundError(version)
        return self.states[version]

    async def save(self, program_state, version):
        self.states[version] = program_state

    async def remove_all(self):
        self.states.clear()


def test_a_state_manager_of_ones_own():
    manager = InMemory()
    assert isinstance(manager, tff.program.ProgramStateManager)
    assert asyncio.run(manager.load_latest(None)) == (None, 0)
    for version in (1, 3):
        asyncio.run(manager.save(f"state {version}", version))
    assert asyncio.run(manager.load_latest(None)) == ("state 3", 3)
    with pytest.raises(TypeError, match="abstract"):
        tff.program.ProgramStateManager()
    # What TFF's own programs annotate with.
    assert tff.program.ReleaseManager[tff.program.ReleasableStructure, int]


def test_the_checkpoint_manager_of_old(tmp_path):
    manager = tff.simulation.FileCheckpointManager(tmp_path, step=2, keep_total=1)
    before = states(4)
    state, round_num = manager.load_latest_checkpoint_or_default(before[0])
    assert state is before[0]
    assert round_num == 0
    for number in range(1, 5):
        manager.save_checkpoint(before[number], number)
    state, round_num = manager.load_latest_checkpoint(before[0])
    assert round_num == 4
    assert equal(state, before[4])
    assert equal(manager.load_checkpoint(before[0], 0), before[0])
    assert fb.program_state_versions(tmp_path, prefix="ckpt_") == [0, 4]


def test_a_result_is_a_coroutine_that_is_done():
    async def both():
        return await asyncio.gather(tff.program.Done(1), tff.program.Done(2))

    assert asyncio.run(both()) == [1, 2]
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(tff.program.Done((3, 4))) == (3, 4)
    loop.close()


def test_a_csv_file_has_a_line_for_each_key(tmp_path):
    path = tmp_path / "logs" / "metrics.csv"
    manager = tff.program.CSVFileReleaseManager(path, key_fieldname="round_num")
    manager.release({"train": OrderedDict(loss=np.float32(0.5)), "none": ()}, key=1)
    manager.release({"train": OrderedDict(loss=np.float32(0.25)), "list": [1, np.ones(2)]}, key=2)
    manager.release({"train": OrderedDict(loss=np.float32(0.125))}, key=2)
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines == [
        {"round_num": "1", "train/loss": "0.5", "list/0": "", "list/1": ""},
        {"round_num": "2", "train/loss": "0.125", "list/0": "", "list/1": ""},
    ]
    assert [p.name for p in path.parent.iterdir()] == ["metrics.csv"]
    again = tff.program.CSVFileReleaseManager(path, key_fieldname="round_num")
    again.release({"x": 1}, key=1)
    assert path.read_text().splitlines() == ["round_num,x", "1,1"]
    again.release(OrderedDict(z=0.5, b=None, a=OrderedDict(d=[1, "t"], c=2)), key=2)
    assert path.read_text().splitlines() == [
        "round_num,x,a/c,a/d/0,a/d/1,b,z",  # a new line's keys are sorted, as in TFF
        "1,1,,,,,",
        "2,,2,1,t,,0.5",
    ]
    with pytest.raises(fb.ArgumentError, match="has no column 'key'"):
        tff.program.CSVFileReleaseManager(path)


def test_logged_and_remembered(caplog):
    memory = tff.program.MemoryReleaseManager()
    memory.release({"a": 1}, 0)
    assert memory.values() == {0: {"a": 1}}
    memory.remove_all()
    assert not memory.values()
    with caplog.at_level("INFO", "fedbridge.tff"):
        tff.program.LoggingReleaseManager().release(2.5, key=3)
    assert [record.getMessage() for record in caplog.records] == [
        "Releasing", "  value: 2.5", "  key: 3"
    ]  # fmt: skip


def loop(rounds, folder, seen):
    memory = tff.program.MemoryReleaseManager()
    state = tff.simulation.run_training_process(
        process(),
        lambda number: seen.append(number) or CLIENTS,
        rounds,
        evaluation_fn=lambda state, data: OrderedDict(first=len(data)),
        evaluation_selection_fn=lambda number: CLIENTS[:1],
        rounds_per_evaluation=2,
        program_state_manager=tff.program.FileProgramStateManager(folder),
        rounds_per_saving_program_state=2,
        metrics_managers=[memory],
    )
    return state, memory.values()


def test_the_training_loop_goes_on_where_it_stopped(tmp_path):
    seen = []
    state, metrics = loop(5, tmp_path / "whole", seen)
    assert seen == [1, 2, 3, 4, 5]
    assert list(metrics) == [0, 1, 2, 3, 4, 5]
    assert list(metrics[0]) == ["evaluation/first", "evaluation/evaluation_time_in_seconds"]
    assert "evaluation/first" in metrics[4]
    assert "evaluation/first" not in metrics[5]
    assert metrics[3][tff.simulation.ROUND_NUMBER_KEY] == 3
    assert tff.simulation.TRAINING_TIME_KEY in metrics[3]
    assert equal(state, states(5)[-1])

    seen = []
    loop(3, tmp_path / "parts", seen)  # the last state that is saved is that of round 2
    resumed, metrics = loop(5, tmp_path / "parts", seen)
    assert seen == [1, 2, 3, 3, 4, 5]
    assert list(metrics) == [3, 4, 5]
    assert equal(resumed, state)


class Kept(tff.program.ReleaseManager):
    """Keeps what is released, by a coroutine as scripts write it."""

    def __init__(self):
        self.keys, self.values = [], []

    async def release(self, value, key):
        self.keys.append(key)
        self.values.append(value)


def test_release_managers_that_pass_on():
    kept = [Kept() for _ in range(4)]
    value = OrderedDict(a={"b": 1, "c": 2}, d=[3, (4, 5)])
    group = tff.program.GroupingReleaseManager(
        [
            tff.program.FilteringReleaseManager(
                kept[0], lambda path: path in {("a", "c"), ("d", 0)}
            ),
            tff.program.FilteringReleaseManager(kept[1], lambda path: False),
            tff.program.PeriodicReleaseManager(kept[2], 2),
            tff.program.DelayedReleaseManager(kept[3], 3),
        ]
    )
    for key in range(1, 5):
        asyncio.run(group.release(value, key=key))
    assert kept[0].values[0] == OrderedDict(a={"c": 2}, d=[3])
    assert [len(one.values) for one in kept] == [4, 0, 2, 2]
    assert (kept[2].keys, kept[3].keys) == ([2, 4], [3, 4])
    some = tff.program.FilteringReleaseManager(kept[0], lambda path: path[-1] == "trainable")
    with pytest.raises(tff.program.NotFilterableError, match="cannot be left out one by one"):
        asyncio.run(some.release(fb.ModelWeights(1, 2), key=1))
    for make in (
        lambda: tff.program.GroupingReleaseManager([]),
        lambda: tff.program.PeriodicReleaseManager(kept[0], 0),
        lambda: tff.program.DelayedReleaseManager(kept[0], 0),
    ):
        with pytest.raises(fb.ArgumentError, match="at least"):
            make()


def test_data_sources_draw_without_repetition():
    iterator = tff.program.ClientIdDataSource(["a", "b", "c"]).iterator()
    assert sorted(iterator.select(3)) == ["a", "b", "c"]
    with pytest.raises(fb.ArgumentError, match="a whole number up to 3"):
        iterator.select(4)
    with pytest.raises(fb.ArgumentError, match="at least one client"):
        tff.program.DatasetDataSource([])


class Counting:
    """A process whose state is the number of its rounds, and whose metrics are TFF's trees."""

    def initialize(self):
        return np.int32(0)

    def next(self, state, clients):
        self.clients = sorted(clients)
        current = {"current_round_metrics": {"n": state + 1}, "total_rounds_metrics": {"n": 7}}
        metrics = {"client_work": {"train": {"n": state + 1}, "eval": current}}
        return tff.learning.templates.LearningProcessOutput(np.int32(state + 1), metrics)

    def get_model_weights(self, state):
        return state

    def set_model_weights(self, state, weights):
        return weights


def test_a_program_goes_on_where_it_was(tmp_path):
    trained, model, evaluated, rounds = (Kept() for _ in range(4))
    source = tff.program.ClientIdDataSource(["a", "b"])
    states = lambda name: tff.program.FileProgramStateManager(tmp_path / name, keep_total=0)

    def run(total):
        evaluations = tff.learning.programs.EvaluationManager(
            source, evaluated, states, lambda name: (Counting(), rounds), 1, datetime.timedelta()
        )
        asyncio.run(
            tff.learning.programs.train_model(
                train_process=Counting(),
                train_data_source=source,
                train_per_round_clients=2,
                train_total_rounds=total,
                program_state_manager=states("train"),
                model_output_manager=model,
                train_metrics_manager=trained,
                evaluation_manager=evaluations,
                evaluation_periodicity=2,
            )
        )

    run(2)
    run(5)
    run(5)  # done already
    assert trained.keys == [1, 2, 3, 4, 5]
    assert [value["model_metrics"]["n"] for value in trained.values] == trained.keys
    assert model.keys == ["training_checkpoint_round_2", "training_checkpoint_round_5"]
    # An evaluation starts from the weights of its round, and has one round in no time.
    assert rounds.keys == evaluated.keys == [2, 4, 5]
    assert [value["model_metrics"]["n"] for value in rounds.values] == [3, 5, 6]
    assert asyncio.run(states("train").get_versions()) == [0, 1, 2, 3, 4, 5]
    assert asyncio.run(states("evaluation_of_train_round_00002").get_versions()) is None


def test_processes_of_client_ids():
    compose = tff.simulation.compose_dataset_computation_with_learning_process
    ids = [str(number) for number in range(len(CLIENTS))]
    mine = compose(lambda client_id: CLIENTS[int(client_id)], process())
    expected = process().next(process().initialize(), CLIENTS)
    assert equal(mine.next(mine.initialize(), ids).state, expected.state)
    assert equal(mine.next(mine.initialize(), [i.encode() for i in ids]).state, expected.state)
    both = tff.simulation.compose_dataset_computation_with_computation(lambda i: [i], lambda *a: a)
    assert both("weights", [1, 2]) == ("weights", [["1"], ["2"]])
    again = compose(lambda number: ids[number], compose(lambda i: CLIENTS[int(i)], process()))
    assert isinstance(again, tff.templates.IterativeProcess)
    assert not isinstance(again, tff.templates.MeasuredProcess)
    twice = compose(
        lambda client_id: CLIENTS[int(client_id)], compose(lambda data: data, process())
    )
    assert equal(twice.next(twice.initialize(), ids).state, expected.state)
