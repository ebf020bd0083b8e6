"""A task: data that are preprocessed, how they become batches, and the model that learns them.

Reference: TFF's simulation/baselines/{baseline_task,task_data}.py.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fedbridge.jax_core import (
    ClientDataError,
    Cohort,
    FederatedArrays,
    Model,
    Pipeline,
    check_argument,
    check_whole,
    is_whole,
)
from fedbridge.preprocessing import ClientSpec

_SPLITS = {"train_data": "Train", "test_data": "Test", "validation_data": "Validation"}


class BaselineTaskDatasets(NamedTuple):
    """The data of a task. They are preprocessed already; TFF's are not, and have a function.

    Attributes:
        train_data: For training.
        test_data: For the final metrics.
        validation_data: For metrics on the way, where a data set has such a split.
        train_batches: How a client's examples become batches in training.
        eval_batches: How they do in an evaluation.
    """

    train_data: FederatedArrays
    test_data: FederatedArrays
    validation_data: FederatedArrays | None
    train_batches: Pipeline
    eval_batches: Pipeline

    def sample_train_clients(
        self, num_clients: int, replace: bool = False, random_seed: int | None = None
    ) -> Cohort:
        """A cohort of random clients; a seed draws those that TFF draws.

        In a loop `fb.train` with a sampler does better: its rounds have numbers, to which the order
        of a client's examples belongs.

        Args:
            num_clients: How many.
            replace: Whether a client may come several times.
            random_seed: Of the draw, and of the order of the clients' examples.

        Raises:
            ClientDataError: There are fewer clients.
            ArgumentError: A number of clients or a seed that is none.
        """
        check_whole("num_clients", num_clients, 0)
        seeded = random_seed is None or (is_whole(random_seed, 0) and random_seed < 2**32)
        check_argument(seeded, "random_seed", random_seed, "a whole number below 2**32, or None")
        ids = self.train_data.client_ids
        if not replace and num_clients > len(ids):
            raise ClientDataError(
                f"sample_train_clients: {num_clients} clients of {len(ids)} there are; ask for "
                "fewer, or pass replace=True."
            )
        state = np.random.RandomState(random_seed)
        chosen = state.choice(len(ids), size=num_clients, replace=replace)
        seed = int(state.randint(1 << 31))
        return self.train_data.cohort([ids[i] for i in chosen], self.train_batches, seed=seed)

    def get_centralized_test_data(self) -> Cohort:
        """The test data of all clients as those of one, for `fb.algorithms.fed_eval`."""
        pooled = self.test_data.pooled()
        return pooled.cohort(pooled.client_ids, self.eval_batches)

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Prints the splits: name, type, number of clients, as a table.

        Args:
            print_fn: Called with each line.
        """
        lines = [("Split", "Dataset Type", "Number of Clients")]
        for field, name in _SPLITS.items():
            data = getattr(self, field)
            if data is not None:
                lines.append((name, "Federated", str(data.num_clients)))
        print_table(lines, print_fn)


class BaselineTask(NamedTuple):
    """A task, ready for `fb.algorithms` and `fb.train`.

    Attributes:
        datasets: Its data.
        model: Its model. TFF has a `model_fn` here: a function, as Keras models hold their weights.
    """

    datasets: BaselineTaskDatasets
    model: Model


def print_table(lines: Sequence[Sequence[str]], print_fn: Callable[[str], object]) -> None:
    """Prints a table, line by line, the first one its head, as TFF's tasks print theirs."""
    widths = [max(map(len, column)) + 1 for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        print_fn("".join(f"{text:<{w}}|" for text, w in zip(line, widths, strict=True)))
        if number == 0:
            print_fn("=" * (sum(widths) + len(widths)))
    print_fn("_" * (sum(widths) + len(widths)))


def pipelines(
    data_set: str,
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None,
    eval_batch_size: int,
    debug_seed: int | None = None,
) -> tuple[Pipeline, Pipeline]:
    """For training and for evaluation, which by default does not shuffle."""
    specs = {"train_client_spec": train_client_spec, "eval_client_spec": eval_client_spec}
    for name, spec in specs.items():
        right = isinstance(spec, ClientSpec) or (spec is None and name == "eval_client_spec")
        check_argument(right, name, spec, "a fb.ClientSpec, e.g. fb.ClientSpec(1, batch_size=20)")
    evaluation = eval_client_spec or ClientSpec(1, eval_batch_size, shuffle_buffer_size=1)
    train = train_client_spec.pipeline(data_set, debug_seed)
    return train, evaluation.pipeline(data_set, debug_seed)


def check_model_id(model_id: str, known: Iterable[str]) -> None:
    """Refuses another model than these.

    Raises:
        ArgumentError: It is another one.
    """
    known = list(known)
    check_argument(model_id in known, "model_id", model_id, f"one of {', '.join(map(repr, known))}")
