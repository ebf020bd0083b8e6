"""The FedAdam experiments of Adaptive Federated Optimization, one for each task.

Client SGD for one epoch, the mean of the updates weighted by examples, and on the server FedAdam
with β₁ = 0.9 and β₂ = 0.99 (the paper's section 5; no bias correction, as in its Algorithm 2).

References:
    Reddi et al., 2021. https://arxiv.org/abs/2003.00295
    The numbers of the table: the authors' code, github.com/google-research/federated,
    optimization/docs/hyperparameters.md, "Default values" and "Best hyperparameters", FedAdam.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fedbridge.algorithms.fed_avg import fed_avg
from fedbridge.jax_core import (
    Execution,
    FederatedArrays,
    LearningProcess,
    Model,
    default_execution,
    optimizers,
)
from fedbridge.preprocessing import ClientSpec
from fedbridge.tasks import cifar100, emnist, shakespeare, stackoverflow
from fedbridge.tasks._baseline_task import BaselineTask


class Experiment(NamedTuple):
    """A task, and how it was trained.

    Attributes:
        create: Makes the task; called with a `ClientSpec` and the names of its other arguments.
        data_set: Which data it needs.
        file: Of those, the file that has the clients.
        vocabularies: The files that are needed beside it.
        rounds: How many.
        clients: In each round.
        batch_size: Of the clients.
        client_rate: The clients' learning rate, as its logarithm to the base 10.
        server_rate: The server's, as its logarithm.
        epsilon: FedAdam's τ, as its logarithm.
        max_elements: The most examples of a client.
        evaluation_examples: About how many of the test data an evaluation takes; None: all.
        arguments: Of `create`, beside the usual ones.
    """

    create: Callable[..., BaselineTask]
    data_set: str
    file: str
    rounds: int
    clients: int
    batch_size: int
    client_rate: float
    server_rate: float
    epsilon: float
    max_elements: int | None = None
    evaluation_examples: int | None = None
    vocabularies: tuple[str, ...] = ()
    arguments: dict[str, Any] = {}  # noqa: RUF012 -- of a tuple, and never changed

    def client_spec(self) -> ClientSpec:
        """How a client's examples become batches."""
        return ClientSpec(1, self.batch_size, self.max_elements)

    def evaluation_data(self, task: BaselineTask, seed: int) -> FederatedArrays:
        """The test data, or so many random clients of them as have enough examples."""
        data, enough = task.datasets.test_data, self.evaluation_examples
        if enough is None or int(data.offsets[-1]) <= enough:
            return data
        order = np.random.default_rng(seed).permutation(data.num_clients)
        reached = np.cumsum(np.diff(data.offsets)[order])
        chosen = order[: int(np.searchsorted(reached, enough)) + 1]
        return data.select([data.client_ids[i] for i in np.sort(chosen)])

    def process(self, model: Model, execution: Execution = default_execution) -> LearningProcess:
        """FedAdam with the rates of this experiment."""
        return fed_avg(
            model,
            optimizers.sgdm(10**self.client_rate),
            optimizers.fed_adam(10**self.server_rate, 0.9, 0.99, epsilon=10**self.epsilon),
            execution=execution,
        )


EXPERIMENTS = {
    "emnist_character_recognition": Experiment(
        emnist.create_character_recognition_task,
        data_set="emnist",
        file="emnist_all.sqlite",
        rounds=1500,
        clients=10,
        batch_size=20,
        client_rate=-1.5,
        server_rate=-2.5,
        epsilon=-4,
    ),
    "emnist_autoencoder": Experiment(
        emnist.create_autoencoder_task,
        data_set="emnist",
        file="emnist_all.sqlite",
        rounds=3000,
        clients=10,
        batch_size=20,
        client_rate=1,
        server_rate=-1.5,
        epsilon=-3,
    ),
    "stackoverflow_word_prediction": Experiment(
        stackoverflow.create_word_prediction_task,
        data_set="stackoverflow",
        file="stackoverflow.sqlite",
        rounds=1500,
        clients=50,
        batch_size=16,
        client_rate=-0.5,
        server_rate=-2,
        epsilon=-5,
        max_elements=1000,
        evaluation_examples=10_000,
        vocabularies=("stackoverflow.word_count",),
    ),
    "stackoverflow_tag_prediction": Experiment(
        stackoverflow.create_tag_prediction_task,
        data_set="stackoverflow",
        file="stackoverflow.sqlite",
        rounds=1500,
        clients=10,
        batch_size=100,
        client_rate=2,
        server_rate=-0.5,
        epsilon=-5,
        max_elements=1000,
        evaluation_examples=10_000,
        vocabularies=("stackoverflow.word_count", "stackoverflow.tag_count"),
    ),
    "shakespeare_character_prediction": Experiment(
        shakespeare.create_character_prediction_task,
        data_set="shakespeare",
        file="shakespeare.sqlite",
        rounds=1200,
        clients=10,
        batch_size=4,
        client_rate=0,
        server_rate=-2,
        epsilon=-3,
    ),
    "cifar100_image_classification": Experiment(
        cifar100.create_image_classification_task,
        data_set="cifar100",
        file="cifar100.sqlite",
        rounds=4000,
        clients=10,
        batch_size=20,
        client_rate=-1.5,
        server_rate=0,
        epsilon=-1,
        arguments={"distort_train_images": True},
    ),
}
"""Of `fedbridge train`, by the name of the task."""
