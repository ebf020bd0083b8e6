"""`tff.simulation`: data sets, samplers of clients, the loop around."""

from collections.abc import Callable, Sequence
from typing import Any

from fedbridge import samplers
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation import _compose, baselines as baselines, datasets as datasets
from fedbridge.tff.simulation._checkpoint_manager import (
    FileCheckpointManager as FileCheckpointManager,
)
from fedbridge.tff.simulation._training_loop import (
    EVALUATION_METRICS_PREFIX as EVALUATION_METRICS_PREFIX,
    EVALUATION_TIME_KEY as EVALUATION_TIME_KEY,
    ROUND_NUMBER_KEY as ROUND_NUMBER_KEY,
    TRAINING_TIME_KEY as TRAINING_TIME_KEY,
    run_training_process as run_training_process,
)
from fedbridge.tff.simulation.datasets import (
    ClientData as ClientData,
    HDF5ClientData as HDF5ClientData,
    SqlClientData as SqlClientData,
    TestClientData,
)

compose_dataset_computation_with_computation = _compose.computation_of_ids
compose_dataset_computation_with_iterative_process = _compose.iterative_process_of_ids
compose_dataset_computation_with_learning_process = _compose.learning_process_of_ids
FromTensorSlicesClientData = TestClientData


def build_uniform_sampling_fn(
    sample_range: Sequence[Any], replace: bool = False, random_seed: int | None = None
) -> Callable[[int, int], list[Any]]:
    """TFF's sampler: the same seed and range give TFF's own draws.

    Example:
        >>> build_uniform_sampling_fn(range(100), random_seed=1)(0, 5)
        [19, 78, 96, 16, 57]
    """

    def sample(round_num: int, size: int) -> list[Any]:
        draw = samplers.uniform(size, seed=random_seed, replace=replace)
        places = [str(place) for place in range(len(sample_range))]
        return [sample_range[int(place)] for place in draw(round_num, places)]

    return sample


__getattr__ = missing("tff.simulation")
