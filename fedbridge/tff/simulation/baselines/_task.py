"""A task: client data, what is done to a client's data set, and a function that makes a model.

Written after TFF's simulation/baselines/{baseline_task,task_data}.py. The models are those of
`fedbridge.tasks`, which TFF's equal, on batches `(x, y)`.
"""

import dataclasses
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np

from fedbridge import jax_core as fc
from fedbridge.preprocessing import ClientSpec
from fedbridge.tff._errors import MissingNameError
from fedbridge.tff.learning._variable_model import VariableModel
from fedbridge.tff.simulation.datasets import ClientData

Preprocess = Callable[[Any], Any]
"""From a client's data set, of single examples, to one of batches."""


class BaselineTaskDatasets:
    """The data of a task, raw, and what makes batches of them.

    Args:
        train_data: For training.
        test_data: For the final metrics: client data, or a `tf.data.Dataset`.
        validation_data: For metrics on the way; also None.
        train_preprocess_fn: Applied to a client's data in training; None leaves them as they are.
        eval_preprocess_fn: Applied to those of an evaluation.

    Raises:
        ClientDataError: Validation data with other elements than the test data.
    """

    def __init__(
        self,
        train_data: ClientData,
        test_data: Any,
        validation_data: Any = None,
        train_preprocess_fn: Preprocess | None = None,
        eval_preprocess_fn: Preprocess | None = None,
    ):
        for name, given in {
            "train_preprocess_fn": train_preprocess_fn,
            "eval_preprocess_fn": eval_preprocess_fn,
        }.items():
            fc.check_argument(given is None or callable(given), name, given, "a function, or None")
        if validation_data is not None and _spec(validation_data) != _spec(test_data):
            raise fc.ClientDataError(
                f"the elements of the validation data are {_spec(validation_data)}, those of the "
                f"test data {_spec(test_data)}; give both the same structure."
            )
        self.train_data, self.test_data = train_data, test_data
        self.validation_data = validation_data
        self.train_preprocess_fn = train_preprocess_fn
        self.eval_preprocess_fn = eval_preprocess_fn
        preprocess = train_preprocess_fn
        self._prepared = train_data if preprocess is None else train_data.preprocess(preprocess)

    @property
    def element_type_structure(self) -> Any:
        """The spec of a batch."""
        return self._prepared.element_type_structure

    def sample_train_clients(
        self, num_clients: int, replace: bool = False, random_seed: int | None = None
    ) -> list[Any]:
        """The preprocessed data sets of random clients; a seed draws those that TFF draws.

        Raises:
            ClientDataError: There are fewer clients.
        """
        ids = self._prepared.client_ids
        if not replace and num_clients > len(ids):
            raise fc.ClientDataError(
                f"sample_train_clients: {num_clients} clients of {len(ids)} there are; ask for "
                "fewer, or pass replace=True."
            )
        chosen = np.random.RandomState(random_seed).choice(len(ids), num_clients, replace)
        return [self._prepared.create_tf_dataset_for_client(ids[place]) for place in chosen]

    def get_centralized_test_data(self) -> Any:
        """The test data of all clients as one data set, preprocessed."""
        data = self.test_data
        if isinstance(data, ClientData):
            data = data.create_tf_dataset_from_all_clients()
        return data if self.eval_preprocess_fn is None else self.eval_preprocess_fn(data)

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Prints the splits as a table, and whether there is preprocessing."""
        from fedbridge.tasks._baseline_task import print_table

        lines = [("Split", "Dataset Type", "Number of Clients"), _line("Train", self.train_data)]
        lines.append(_line("Test", self.test_data))
        if self.validation_data is not None:
            lines.append(_line("Validation", self.validation_data))
        print_table(lines, print_fn)
        print_fn(f"Train Preprocess Function: {self.train_preprocess_fn is not None}")
        print_fn(f"Eval Preprocess Function: {self.eval_preprocess_fn is not None}")


@dataclasses.dataclass(frozen=True)
class BaselineTask:
    """A task, ready for the builders of `tff.learning.algorithms`.

    Attributes:
        datasets: Its data.
        model_fn: Makes its model; the weights are drawn anew in every call.

    Raises:
        ClientDataError: The model is made for other batches than the data give.
    """

    datasets: BaselineTaskDatasets
    model_fn: Callable[[], Any]

    def __post_init__(self):
        batches, wanted = self.datasets.element_type_structure, self.model_fn().input_spec
        if batches != wanted:
            raise fc.ClientDataError(
                f"the batches of the task are {batches}, and its model's input_spec is {wanted}; "
                "give the model `datasets.element_type_structure`."
            )


class TaskModel(VariableModel):
    """A model of a task; it is made when it is first used.

    Args:
        make: From a seed of the initial weights to the model.
        input_spec: Of a batch.
        seed: None draws one.
    """

    def __init__(self, make: Callable[[int], fc.Model], input_spec: Any, seed: int | None):
        self.input_spec, self._make = input_spec, make
        self._seed = secrets.randbelow(1 << 31) if seed is None else seed
        self._core: fc.Model | None = None

    def core_model(self) -> fc.Model:
        """The model as the builders of this namespace take it."""
        if self._core is None:
            self._core = self._make(self._seed)
        return self._core

    @property
    def trainable_variables(self) -> list[Any]:
        """The initial weights, in TFF's order, as NumPy arrays."""
        return list(self.core_model().initial_weights.trainable)

    @property
    def non_trainable_variables(self) -> list[Any]:
        """There are none."""
        return []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise MissingNameError(
            f"the model of a baseline task has no {name} here: it is computed on JAX, in a "
            "process; pass model_fn to one of tff.learning.algorithms."
        )


def as_tff_names(model: fc.Model) -> fc.Model:
    """The model whose accuracy is called as Keras' metric is."""
    named = {"accuracy": "sparse_categorical_accuracy"}
    metrics = {named.get(name, name): metric for name, metric in model.metrics.items()}
    return model._replace(metrics=metrics)


def task(
    data: tuple[ClientData, Any, Any],
    preprocess: Callable[[ClientSpec], Preprocess],
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None,
    eval_batch_size: int,
    make: Callable[[int], fc.Model],
    seed: int | None = None,
    preprocess_test: Callable[[ClientSpec], Preprocess] | None = None,
) -> BaselineTask:
    """The task of these data and this model.

    Args:
        data: For training, test and validation.
        preprocess: What makes batches, for a `ClientSpec`.
        train_client_spec: That of training.
        eval_client_spec: That of an evaluation; None: batches in order.
        eval_batch_size: Of these.
        make: From a seed of the initial weights to the model.
        seed: Of the initial weights; None draws one for every model.
        preprocess_test: `preprocess` for an evaluation, where it is another one.
    """
    evaluation = eval_client_spec or ClientSpec(1, eval_batch_size, shuffle_buffer_size=1)
    datasets = BaselineTaskDatasets(
        *data, preprocess(train_client_spec), (preprocess_test or preprocess)(evaluation)
    )
    spec = datasets.element_type_structure
    return BaselineTask(datasets, lambda: TaskModel(make, spec, seed))


def _spec(data: Any) -> Any:
    return data.element_type_structure if isinstance(data, ClientData) else data.element_spec


def _line(name: str, data: Any) -> tuple[str, str, str]:
    if isinstance(data, ClientData):
        return name, "Federated", str(len(data.client_ids))
    return name, "Centralized", "N/A"
