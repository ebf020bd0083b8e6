"""`tff.simulation.run_training_process` (simulation/training_loop.py)."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

ROUND_NUMBER_KEY = "round_number"
TRAINING_TIME_KEY = "training_time_in_seconds"
EVALUATION_METRICS_PREFIX = "evaluation/"
EVALUATION_TIME_KEY = "evaluation_time_in_seconds"


def run_training_process(
    training_process: Any,
    training_selection_fn: Callable[[int], Any],
    total_rounds: int,
    evaluation_fn: Callable[[Any, Any], MutableMapping[str, Any]] | None = None,
    evaluation_selection_fn: Callable[[int], Any] | None = None,
    rounds_per_evaluation: int = 1,
    program_state_manager: Any = None,
    rounds_per_saving_program_state: int = 1,
    metrics_managers: Iterable[Any] | None = None,
) -> Any:
    """Runs the rounds of a process, evaluates, saves its state, releases its metrics.

    Args:
        training_process: With `initialize` and `next`.
        training_selection_fn: From the number of a round to its data.
        total_rounds: The last round; it goes on behind a state that was saved.
        evaluation_fn: From a state and data to metrics.
        evaluation_selection_fn: From the number of a round to the data of its evaluation.
        rounds_per_evaluation: How often; also before the first round.
        program_state_manager: Keeps the states.
        rounds_per_saving_program_state: How often; also before the first round.
        metrics_managers: Get the metrics of every round.

    Returns:
        The last state.
    """
    managers = list(metrics_managers or ())
    state, done = None, 0
    if program_state_manager is not None:
        structure = training_process.initialize()
        state, done = _wait_for(program_state_manager.load_latest(structure))

    def evaluated(number: int) -> OrderedDict[str, Any]:
        if evaluation_fn is None or evaluation_selection_fn is None:
            return OrderedDict()
        start = time.time()
        metrics = OrderedDict(evaluation_fn(state, evaluation_selection_fn(number)))
        metrics[EVALUATION_TIME_KEY] = time.time() - start
        return OrderedDict((EVALUATION_METRICS_PREFIX + k, v) for k, v in metrics.items())

    if state is None:
        state = training_process.initialize()
        if metrics := evaluated(0):
            for manager in managers:
                _wait_for(manager.release(metrics, key=0))
        if program_state_manager is not None:
            _wait_for(program_state_manager.save(state, 0))
    for number in range(done + 1, total_rounds + 1):
        start = time.time()
        state, metrics = training_process.next(state, training_selection_fn(number))
        metrics = OrderedDict(metrics)
        metrics[TRAINING_TIME_KEY], metrics[ROUND_NUMBER_KEY] = time.time() - start, number
        if number % rounds_per_evaluation == 0:
            metrics |= evaluated(number)
        for manager in managers:
            _wait_for(manager.release(metrics, key=number))
        if program_state_manager is not None and number % rounds_per_saving_program_state == 0:
            _wait_for(program_state_manager.save(state, number))
    return state


def _wait_for(result: Any) -> Any:
    """What a coroutine gives; a script may bring managers of its own."""

    async def wait() -> Any:
        return await result

    return asyncio.run(wait())
