"""TFF's learning processes around those of the core: data sets in, TFF's objects out."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from fedbridge import jax_core as fc
from fedbridge.bridge.old_metrics import (
    Metrics,
    Version,
    old_evaluation_metrics,
    old_training_metrics,
)
from fedbridge.tff._client_batches import Clients, batches, cohort, same
from fedbridge.tff_io import weights_to_keras


class ModelWeights(fc.ModelWeights):
    """TFF's weights of a model: `trainable` and `non_trainable`."""

    __slots__ = ()

    @classmethod
    def from_model(cls, model: Any) -> "ModelWeights":
        """Those of a Keras model, or of one of `tff.learning.models`."""
        if isinstance(model, fc.Model):
            return cls(*model.initial_weights)
        return cls(model.trainable_variables, model.non_trainable_variables)

    def assign_weights_to(self, model: Any) -> None:
        """Puts them into a Keras model of the same layers, or into one of `tff.learning.models`."""
        if hasattr(model, "trainable_weights"):
            weights_to_keras(self, model)
            return
        variables = [*model.trainable_variables, *model.non_trainable_variables]
        for variable, value in zip(variables, jax.tree.leaves(tuple(self)), strict=True):
            variable.assign(value)

    def convert_variables_to_arrays(self) -> "ModelWeights":
        """The same weights as NumPy arrays, a scalar as a NumPy number."""
        return ModelWeights(*jax.tree.map(lambda leaf: np.asarray(leaf)[()], tuple(self)))


class LearningAlgorithmState(fc.LearningAlgorithmState):
    """TFF's state; the properties are what older scripts call its parts."""

    __slots__ = ()

    @property
    def model(self) -> Any:
        """`global_model_weights`."""
        return self.global_model_weights

    @property
    def optimizer_state(self) -> Any:
        """`finalizer`."""
        return self.finalizer

    @property
    def delta_aggregate_state(self) -> Any:
        """`aggregator`."""
        return self.aggregator

    @property
    def model_broadcast_state(self) -> Any:
        """`distributor`."""
        return self.distributor


LearningProcessOutput = fc.LearningProcessOutput


class LearningProcess:
    """TFF's learning process on the JAX core.

    Args:
        process: Of `fedbridge.algorithms`.
        metrics: From TFF 0.87.0's tree of metrics to that of the builder's time.
        read: From what a script passes to the clients' batches.

    Attributes:
        nobody: Gives the features of a batch, without rows, for a round of no clients.
    """

    def __init__(
        self,
        process: fc.LearningProcess,
        metrics: Callable[[Mapping], Mapping] = lambda m: m,
        read: Callable[[Any], Clients] = batches,
    ):
        self._process, self._metrics, self._read = process, metrics, read
        self.nobody: Callable[[], dict[str, np.ndarray]] = _unknown
        self._calls = itertools.count(1)
        self._last: tuple[Clients, fc.Cohort] | None = None

    def reading(self, first: Callable[[Any], Any]) -> "LearningProcess":
        """The process that makes its data of what it is given."""
        read = lambda given: self._read(first(given))
        process = LearningProcess(self._process, self._metrics, read)
        process.nobody = self.nobody
        return process

    def initialize(self) -> LearningAlgorithmState:
        """The state before the first round."""
        return as_tff(self._process.initialize())

    def next(self, state: Any, client_data: Any) -> LearningProcessOutput:
        """A round.

        Args:
            state: The state before it.
            client_data: One data set a client, see `fedbridge.tff._client_batches`.

        Raises:
            FedbridgeError: Data or a state that the process cannot take.
        """
        clients = self._cohort(self._read(client_data), next(self._calls))
        output = self._process.next(as_core(state), clients)
        return LearningProcessOutput(as_tff(output.state), self._metrics(output.metrics))

    def _cohort(self, clients: Clients, number: int) -> fc.Cohort:
        """The cohort of a call; the last one again while a script passes the same data sets."""
        if self._last is None or not same(clients, self._last[0]):
            self._last = None  # its memory first: the two may not fit side by side
            made = cohort(clients, number, self.nobody)
            self._last = clients, self._process.place(made)
        return self._last[1].at_round(number)

    def get_model_weights(self, state: Any) -> Any:
        """The model's weights as NumPy arrays: `ModelWeights`, of k-means the centroids."""
        weights = self._process.get_model_weights(as_core(state))
        if not isinstance(weights, fc.ModelWeights):
            return np.asarray(weights)
        return ModelWeights(*weights).convert_variables_to_arrays()

    def set_model_weights(self, state: Any, model_weights: Any) -> LearningAlgorithmState:
        """The state with other weights."""
        weights = model_weights
        if hasattr(weights, "trainable"):
            weights = fc.ModelWeights(*map(like, state.global_model_weights, tuple(weights)))
        return as_tff(self._process.set_model_weights(as_core(state), weights))

    def get_hparams(self, state: Any) -> Any:
        """The hyperparameters that the state holds, as NumPy numbers."""
        found = self._process.get_hparams(as_core(state))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[()], found)

    def set_hparams(self, state: Any, hparams: Mapping[str, Any]) -> LearningAlgorithmState:
        """The state with other hyperparameters."""
        return as_tff(self._process.set_hparams(as_core(state), hparams))


def like(old: Any, new: Any) -> Any:
    """Weights in the containers of others: TFF's are lists, those of functional models tuples."""
    return jax.tree.unflatten(jax.tree.structure(old), jax.tree.leaves(new))


def _unknown() -> NoReturn:
    raise fc.ClientDataError(
        "no client takes part in the round, and nothing tells what a batch looks like; pass "
        "input_spec to the model."
    )


def with_old_metrics(process: fc.LearningProcess) -> LearningProcess:
    """A process whose metrics have the shapes of TFF 0.1 to 0.27."""
    version = _version()
    return LearningProcess(process, lambda metrics: old_training_metrics(metrics, version))


def evaluation(process: LearningProcess) -> Callable[[Any, Any], Metrics]:
    """`build_federated_evaluation`'s function of (weights or state, data)."""
    version = _version()

    def evaluate(server_model_weights: Any, federated_dataset: Any) -> Metrics:
        weights = getattr(server_model_weights, "global_model_weights", server_model_weights)
        state = process.set_model_weights(process.initialize(), weights)
        metrics = process.next(state, federated_dataset).metrics
        current = metrics["client_work"]["eval"]["current_round_metrics"]
        return old_evaluation_metrics(current, version)

    return evaluate


def _version() -> Version | None:
    """The TFF that the script was written for; None for the one that the namespace follows."""
    from fedbridge import tff  # as it is when a process is built

    version = tuple(int(part) for part in tff.__version__.split(".")[:2])
    return version if version < (0, 28) else None


def as_tff(state: fc.LearningAlgorithmState) -> LearningAlgorithmState:
    """A state of the core as scripts see it."""
    weights = state.global_model_weights
    if isinstance(weights, fc.ModelWeights):
        state = state._replace(global_model_weights=ModelWeights(*weights))
    return LearningAlgorithmState(*state)


def as_core(state: Any) -> fc.LearningAlgorithmState:
    """A state of a script as the core takes it."""
    weights = state.global_model_weights
    if isinstance(weights, ModelWeights):
        weights = fc.ModelWeights(*weights)
    return fc.LearningAlgorithmState(weights, *state[1:])
