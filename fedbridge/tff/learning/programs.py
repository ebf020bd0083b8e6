"""`tff.learning.programs`: a training program that saves, resumes, evaluates and releases.

As TFF's learning/programs/, in coroutines; an evaluation runs in steps between those of the
training, and what is released and saved is so before the program goes on.
"""

import asyncio
import copy
import datetime
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedbridge import jax_core as fc
from fedbridge.tff._errors import missing

MODEL_METRICS_PREFIX = "model_metrics"
_EVALUATION = "evaluation_of_train_round_{:05d}"
_MOST = 256
_EVAL = ("client_work", "eval")


class ProgramState(NamedTuple):
    """What is saved after a round; the data sources of fedbridge have no state of their own."""

    state: Any
    round_number: int
    next_evaluation_timestamp_seconds: int | None
    data_iterator: Any


async def train_model(
    *,
    train_process: Any,
    initial_train_state: Any = None,
    train_data_source: Any,
    train_per_round_clients: int,
    train_total_rounds: int,
    should_discard_round: Callable[[Any], bool] | None = None,
    program_state_manager: Any,
    model_output_manager: Any,
    train_metrics_manager: Any = None,
    evaluation_manager: "EvaluationManager | None" = None,
    evaluation_periodicity: int | datetime.timedelta = 1,
) -> None:
    """Trains for some rounds, from the latest saved state on if there is one.

    Args:
        train_process: A learning process.
        initial_train_state: What it starts from where nothing is saved; default its own.
        train_data_source: One of `tff.program`.
        train_per_round_clients: How many clients are drawn a round.
        train_total_rounds: Counted from the first round, before any interruption.
        should_discard_round: Of a round's output: whether the round is made again.
        program_state_manager: Gets a `ProgramState` after every round, and before the first.
        model_output_manager: Gets the state after every tenth round and the last, under
            "training_checkpoint_round_10".
        train_metrics_manager: Gets the metrics of every round, "model_metrics" those of the model.
        evaluation_manager: Starts evaluations.
        evaluation_periodicity: Rounds, or time, from one evaluation to the next; the last round is
            evaluated too.
    """
    if evaluation_manager is not None:
        await evaluation_manager.resume_from_previous_state()
    iterator = train_data_source.iterator()
    state = initial_train_state if initial_train_state is not None else train_process.initialize()
    saved, _ = await program_state_manager.load_latest(ProgramState(state, 0, 0, ()))
    if saved is None:
        done, due = 0, 0
        await program_state_manager.save(ProgramState(state, 0, 0, ()), version=0)
    else:
        state, done, due = saved.state, int(saved.round_number), int(saved[2])
    round_num = done + 1
    while round_num <= train_total_rounds:
        output = train_process.next(state, iterator.select(train_per_round_clients))
        if should_discard_round is not None and should_discard_round(output):
            continue
        state, now = output.state, datetime.datetime.now()
        last = round_num == train_total_rounds
        if isinstance(evaluation_periodicity, int):
            turn = round_num % evaluation_periodicity == 0
        else:
            turn = due < now.timestamp()
            if turn and not last:
                due = int((now + evaluation_periodicity).timestamp())
        if evaluation_manager is not None and (turn or last):
            weights = train_process.get_model_weights(state)
            await evaluation_manager.start_evaluation(round_num, int(now.timestamp()), weights)
        await program_state_manager.save(ProgramState(state, round_num, due, ()), version=round_num)
        if train_metrics_manager is not None:
            found = extract_and_rewrap_metrics(output.metrics, path=("client_work", "train"))
            await train_metrics_manager.release(found, key=round_num)
        if round_num % 10 == 0 or last:
            key = f"training_checkpoint_round_{round_num}"
            await model_output_manager.release(state, key=key)
        round_num += 1
        await asyncio.sleep(0)  # evaluations go on
    if evaluation_manager is not None:
        await evaluation_manager.wait_for_evaluations_to_finish()


class EvaluationManager:
    """Runs evaluations beside a training, and resumes them.

    Args:
        data_source: Whose clients are drawn.
        aggregated_metrics_manager: Gets the metrics of all rounds of an evaluation, at its end.
        create_state_manager_fn: From a name to a manager of states.
        create_process_fn: From a name to an evaluation process, and to what gets its rounds'
            metrics, or None.
        cohort_size: How many clients are drawn a round.
        duration: For how long an evaluation goes on; it has one round at least.
    """

    def __init__(
        self,
        data_source: Any,
        aggregated_metrics_manager: Any,
        create_state_manager_fn: Callable[[str], Any],
        create_process_fn: Callable[[str], tuple[Any, Any]],
        cohort_size: int,
        duration: datetime.timedelta = datetime.timedelta(hours=24),
    ):
        self.data_source, self.aggregated_metrics_manager = data_source, aggregated_metrics_manager
        self.create_state_manager_fn, self.create_process_fn = (
            create_state_manager_fn, create_process_fn
        )  # fmt: skip
        self.cohort_size, self.duration = cohort_size, duration
        self._own, self._version = create_state_manager_fn("eval_manager"), 0
        self._running: dict[int, int] = {}
        self._tasks: set[asyncio.Task] = set()

    async def resume_from_previous_state(self) -> None:
        """Goes on with the evaluations that were running."""
        found, version = await self._own.load_latest(self._written())
        self._version = version + 1
        if found is not None:
            both = zip(*(part.tolist() for part in found), strict=True)
            self._running = {train_round: start for train_round, start in both if train_round}
            for train_round, start in self._running.items():
                self._start(train_round, start)

    async def start_evaluation(
        self, train_round: int, start_timestamp_seconds: int, model_weights: Any
    ) -> None:
        """Starts to evaluate weights."""
        self._running[train_round] = start_timestamp_seconds
        name = _EVALUATION.format(train_round)
        process, _ = self.create_process_fn(name)
        state = process.set_model_weights(process.initialize(), model_weights)
        await self.create_state_manager_fn(name).save(state, version=0)
        self._start(train_round, start_timestamp_seconds)
        await self._save()

    async def record_evaluations_finished(self, train_round: int) -> None:
        """Forgets an evaluation.

        Raises:
            ArgumentError: It was not running.
        """
        running = train_round in self._running
        fc.check_argument(running, "train_round", train_round, f"one of {list(self._running)}")
        del self._running[train_round]
        await self._save()

    async def wait_for_evaluations_to_finish(self) -> None:
        """Waits for all of them."""
        await asyncio.gather(*self._tasks)

    def _start(self, train_round: int, start: int) -> None:
        task = asyncio.create_task(self._run(train_round, start))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, train_round: int, start: int) -> None:
        name = _EVALUATION.format(train_round)
        states, (process, per_round) = (
            self.create_state_manager_fn(name), self.create_process_fn(name)
        )  # fmt: skip
        state, version = await states.load_latest(process.initialize())
        iterator = self.data_source.iterator()
        end = datetime.datetime.fromtimestamp(start) + self.duration
        while True:
            output = process.next(state, iterator.select(self.cohort_size))
            state = output.state
            if per_round is not None:
                path = (*_EVAL, "current_round_metrics")
                found = extract_and_rewrap_metrics(output.metrics, path=path)
                await per_round.release(found, key=train_round + version)
            version += 1
            await states.save(state, version=version)
            await asyncio.sleep(0)  # the training goes on
            if datetime.datetime.now() >= end:
                break
        if self.aggregated_metrics_manager is not None:
            path = (*_EVAL, "total_rounds_metrics")
            found = extract_and_rewrap_metrics(output.metrics, path=path)
            await self.aggregated_metrics_manager.release(found, key=train_round)
        await self.record_evaluations_finished(train_round)
        await states.remove_all()

    def _written(self) -> tuple[np.ndarray, np.ndarray]:
        """Rounds and times, in arrays of a fixed size: what is loaded must have a known shape."""
        few = len(self._running) <= _MOST
        fc.check_argument(few, "evaluations at a time", len(self._running), f"at most {_MOST}")
        arrays = np.zeros((2, _MOST), np.int32)
        arrays[:, : len(self._running)] = [*self._running], [*self._running.values()]
        return arrays[0], arrays[1]

    async def _save(self) -> None:
        await self._own.save(self._written(), version=self._version)
        self._version += 1


def extract_and_rewrap_metrics(
    metrics_structure: Mapping[str, Any], *, path: Sequence[str]
) -> Mapping[str, Any]:
    """The metrics, with those under the path moved to "model_metrics".

    Raises:
        ArgumentError: The path is empty.
        KeyError: There is no such path.

    Example:
        >>> extract_and_rewrap_metrics({"a": {"b": {"loss": 1}, "c": 2}}, path=("a", "b"))
        {'a': {'c': 2}, 'model_metrics': {'loss': 1}}
    """
    fc.check_argument(len(path) > 0, "path", path, "at least one name")
    whole: Any = copy.copy(metrics_structure)
    inner: MutableMapping[str, Any] = whole
    for name in path[:-1]:
        inner[name] = copy.copy(inner[name])
        inner = inner[name]
    whole[MODEL_METRICS_PREFIX] = inner.pop(path[-1])
    return whole


__getattr__ = missing("tff.learning.programs")
