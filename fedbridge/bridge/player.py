"""A trace's processes on the JAX core: any round of it, or a part of one, from any state of it."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from fedbridge import jax_core as fc
from fedbridge.bridge.rebuild import evaluates, rebuild, server_finalizer
from fedbridge.bridge.trace import FRACTION255, WEIGHTS, Trace
from fedbridge.jax_core._cohort import TRAIN, batch_matrix, narrow

_WEIGHTS = "global_model_weights"
# Evaluations keep what their metrics have accumulated: client_work is (state, accumulators).
_ACCUMULATORS = "client_work/1/"


class Replayed(NamedTuple):
    """What one call of `next` gave: weights and the rest of the state by path, metrics, seconds."""

    state: fc.LearningAlgorithmState
    weights: dict[str, np.ndarray]
    others: dict[str, np.ndarray]
    metrics: PyTree
    seconds: float


class Player:
    """The trace's processes on the JAX core, with its rows on the device.

    All cohorts of a trace (whole rounds, probes, perturbed rounds) have one shape, so that every
    process compiles one program.
    """

    def __init__(self, trace: Trace):
        self.trace = trace
        stored = trace.rows()
        encoded = {
            name: fc.Fraction255(stored[name])
            if feature.encoding == FRACTION255
            else feature.decode(stored[name])
            for name, feature in trace.features.items()
        }
        self.features = jax.device_put({k: narrow(v) for k, v in encoded.items()})
        arrays = [trace.call(number) for number in range(len(trace.calls))]
        self.batches = [(a["rows"], a["batch_sizes"], a["step_offsets"]) for a in arrays]
        self.min_steps = max((len(sizes) for _, sizes, _ in self.batches), default=1)
        self.min_clients = max((len(offsets) - 1 for _, _, offsets in self.batches), default=1)
        self.batch_size = max((int(s.max(initial=1)) for _, s, _ in self.batches), default=1)
        started = time.perf_counter()
        self.processes = {number: rebuild(trace, number) for number in trace.called()}
        self.seconds_build = time.perf_counter() - started
        self.finalizers: dict[int, Callable[..., fc.MeasuredProcessOutput]] = {}

    def cohort(self, number: int, limit: int | None = None) -> fc.Cohort:
        """The cohort of a call; with a limit, only each client's first batches."""
        rows, sizes, offsets = self.batches[number]
        matrix = batch_matrix(rows, sizes, self.batch_size)
        if limit is not None:
            counts = np.minimum(np.diff(offsets), limit)
            kept = [np.arange(s, s + c) for s, c in zip(offsets[:-1], counts, strict=True)]
            chosen = np.concatenate([np.arange(0), *kept]).astype(int)
            matrix, sizes = matrix[chosen], sizes[chosen]
            offsets = np.cumsum([0, *counts])
        stream = fc.make_stream(
            matrix, sizes, offsets, min_steps=self.min_steps, min_clients=self.min_clients
        )
        ids = [f"client {i}" for i in range(len(offsets) - 1)]
        return fc.make_cohort(self.features, {TRAIN: stream}, ids, round=number + 1)

    def state(self, process: int, number: int) -> fc.LearningAlgorithmState:
        """TFF's recorded state, as a state of the JAX core."""
        template = self.processes[process].initialize()
        names = _names(template, evaluates(self.trace.processes[process]))
        recorded = _numbers(self.trace.state(number))
        missing = sorted(set(names) ^ set(recorded))
        if missing:
            raise fc.TraceError(
                f"{self.trace.path}: state {number} and the process that the trace describes "
                f"disagree about {missing[0]!r}; record the script again."
            )
        structure = jax.tree.structure(template)
        state = jax.tree.unflatten(structure, [recorded[name] for name in names])
        return jax.tree.map(_like, state, template)

    def initial(self, process: int) -> dict[str, np.ndarray]:
        """What a process starts from, but for the model, by the paths of TFF's state."""
        state = self.processes[process].initialize()
        names = _names(state, evaluates(self.trace.processes[process]))
        return split(dict(zip(names, jax.tree.leaves(state), strict=True)))[1]

    def server_step(self, number: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The server optimizer alone on the update of `server_step`: weights and its state."""
        call = self.trace.calls[number]
        state = self.state(call.process, call.state_before)
        weights = state.global_model_weights
        recorded = model_weights(self.trace.call(number), "server_step/delta/")
        delta = fc.from_named_leaves(weights.trainable, recorded)
        if call.process not in self.finalizers:
            finalizer = server_finalizer(self.trace.processes[call.process])
            self.finalizers[call.process] = jax.jit(finalizer.next)
        output = self.finalizers[call.process](state.finalizer, weights, delta)
        arrays = lambda tree: {k: np.asarray(v) for k, v in fc.named_leaves(tree).items()}
        return arrays(output.result.trainable), arrays(output.state)

    def play(
        self, process: int, state: fc.LearningAlgorithmState, make_cohort: Callable[[], fc.Cohort]
    ) -> Replayed:
        """One call of `next`, timed with the making of its cohort."""
        started = time.perf_counter()
        output = jax.block_until_ready(self.processes[process].next(state, make_cohort()))
        seconds = time.perf_counter() - started
        names = _names(output.state, evaluates(self.trace.processes[process]))
        leaves = dict(zip(names, map(np.asarray, jax.tree.leaves(output.state)), strict=True))
        return Replayed(output.state, *split(leaves), output.metrics, seconds)


def split(
    leaves: Mapping[str, Any],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A state's leaves as those of the model, by their paths there, and all others but text."""
    numbers = _numbers(leaves)
    others = {k: v for k, v in numbers.items() if not k.startswith(_WEIGHTS)}
    return model_weights(numbers), others


def _numbers(leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Without what is text: TFF writes the class names of DP events into its states."""
    arrays = {path: np.asarray(leaf) for path, leaf in leaves.items()}
    return {path: array for path, array in arrays.items() if array.dtype.kind not in "SUO"}


def _names(state: fc.LearningAlgorithmState, of_evaluation: bool) -> list[str]:
    """The paths of a state's leaves in TFF, where a metric's accumulator is a list of variables."""
    names = list(fc.named_leaves(state))
    counts: dict[str, int] = {}
    for place, name in enumerate(names):
        if of_evaluation and name.startswith(_ACCUMULATORS):
            metric = "/".join(name.split("/")[:3])
            names[place] = f"{metric}/{counts.get(metric, 0)}"
            counts[metric] = counts.get(metric, 0) + 1
    return names


def _like(leaf: Any, like: Any) -> Any:
    """A recorded leaf in the dtype that the JAX core has for it, on the same side of the border."""
    if isinstance(like, np.ndarray | np.generic):
        return np.asarray(leaf, like.dtype)
    return jax.numpy.asarray(leaf, like.dtype)


def model_weights(
    leaves: Mapping[str, np.ndarray], prefix: str = "global_model_weights/"
) -> dict[str, np.ndarray]:
    """The model's weights among the leaves of a state or of a call, by their paths in the model."""
    if (alone := prefix.rstrip("/")) in leaves:
        return {WEIGHTS: leaves[alone]}
    return {k.removeprefix(prefix): v for k, v in leaves.items() if k.startswith(prefix)}


def one_ulp_off(state: fc.LearningAlgorithmState, seed: int) -> fc.LearningAlgorithmState:
    """The state with every trainable weight moved by one ulp, up or down at random."""
    rng = np.random.default_rng(seed)

    def move(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        towards = np.where(rng.integers(0, 2, leaf.shape), np.inf, -np.inf).astype(leaf.dtype)
        return np.nextafter(leaf, towards)

    weights = state.global_model_weights
    if isinstance(weights, fc.ModelWeights):
        moved = weights._replace(trainable=jax.tree.map(move, weights.trainable))
    else:
        moved = jax.tree.map(move, weights)
    return state._replace(global_model_weights=moved)
