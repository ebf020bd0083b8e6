"""The first pass: every round is written down.

The batches come from TFF itself, through an identity computation on each data set: TFF restarts a
seeded shuffle in every call and redraws an unseeded one, eager iteration does neither. The round
then runs on these batches, so that what is recorded is what was computed.
"""

import functools
import hashlib
import itertools
import platform
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge._version import __version__
from fedbridge.bridge import trace, trace_writer
from fedbridge.bridge.computations import packed
from fedbridge.bridge.describe import Schedule, is_adaptive, with_values
from fedbridge.bridge.structures import leaves, plain
from fedbridge.bridge.watch import Watch
from fedbridge.jax_core import TraceError

EMPTY_CLIENT = (
    "an empty client counts as a zero update in the unweighted mean, as in TFF: "
    "see docs/differences"
)
_MOST_VALUES = 100_000
# Where the states of TFF's processes count rounds.
_COUNTERS = (
    "client_work", "client_work/0", "client_work/0/round_num", "finalizer/round_num",
)  # fmt: skip
# An optimizer that starts anew on every client counts local steps.
_PER_STEP = ("reconstruction_optimizer",)


class Recording(Watch):
    """Writes the calls of one script, or of one Python function, to a trace.

    Args:
        events: as for every watch.
        rounds: likewise.
        out: where the trace will lie.
    """

    def __init__(self, events: Path | None, rounds: int | None, out: Path):
        super().__init__(events, rounds)
        self.writer = trace_writer.Writer(out)
        self.identities: dict[str, Callable[[Any], Any]] = {}
        self.rounds_reached: dict[int, int] = {}
        self.steps_reached: dict[int, int] = {}

    def keep(self, leaves: dict[str, Any]) -> int:
        return self.writer.state(leaves)

    def step(self, number: int, next_fn: Any, state: Any, data: Any) -> tuple[Any, float]:
        process = self.processes[number]
        before = leaves(state)
        clients, batches = data, None
        if not isinstance(data, list) or not all(map(_is_client, data)):
            self.refuse("the clients are not data sets of dense tensors, nor lists of batches.")
        else:
            clients = [self.drawn(client) for client in data]
            batches = self.batches(process, clients)
        given = clients if batches is None else list(map(_as_taken, clients))
        started = time.perf_counter()
        output = next_fn(state, given)
        seconds = time.perf_counter() - started
        probes = []
        if process.kind == "training" and batches and not self.not_replayable:
            probes = [next_fn(state, [client[:steps] for client in clients]) for steps in (1, 2)]
        after = leaves(output.state)
        self.look(number, before, after, output.metrics, batches)
        self.writer.call(
            number,
            batches,
            num_clients=len(clients) if isinstance(clients, list) else 0,
            state_before=self.writer.state(before),
            state_after=self.writer.state(after),
            metrics=plain(output.metrics),
            probes=[_weights(probe.state) for probe in probes],
            probe_metrics=[plain(probe.metrics) for probe in probes],
            server_step=self.server_step(number, state, output.state),
        )
        return output, seconds

    def drawn(self, client: Any) -> list[Any]:
        """One client's batches, as TFF draws them in this call; iterated exactly once."""
        import tensorflow as tf
        import tensorflow_federated as tff

        if isinstance(client, list):
            return client
        spec = client.element_spec
        if str(spec) not in self.identities:
            sequence = tff.types.SequenceType(tff.types.tensorflow_to_type(spec))
            self.identities[str(spec)] = tff.tensorflow.computation(lambda data: data, sequence)
        return [
            tf.nest.map_structure(lambda tensor: tensor.numpy(), batch)
            for batch in self.identities[str(spec)](client)
        ]

    def batches(
        self, process: trace.Process, clients: list[list[Any]]
    ) -> trace_writer.Batches | None:
        """The clients' batches, written down; None, and a refusal, where they cannot be."""
        if any(not client for client in clients) and "unweighted" in process.builder:
            self.note(EMPTY_CLIENT)
        features = point if process.builder.endswith("kmeans") else rows
        try:
            return self.writer.batches([list(map(features, client)) for client in clients])
        except TraceError as error:
            self.refuse(f"the client data cannot be recorded: {error}.")
            return None

    def look(
        self,
        number: int,
        before: dict[str, np.ndarray],
        after: dict[str, np.ndarray],
        metrics: Any,
        batches: trace_writer.Batches | None,
    ) -> None:
        """What a round tells of its process: dtypes, how far its schedules got, NaN for ever."""
        process = self.processes[number]
        if process.metrics_dtypes is None:
            dtypes = {path: str(leaf.dtype) for path, leaf in leaves(metrics).items()}
            self.processes[number] = process._replace(metrics_dtypes=dtypes)
        counted = [int(after[path]) for path in _COUNTERS if path in after]
        self.rounds_reached[number] = max(self.rounds_reached.get(number, 0), *counted, 0)
        if batches is not None:
            steps = int(np.diff(batches.step_offsets).max(initial=0)) * _epochs(process)
            self.steps_reached[number] = max(self.steps_reached.get(number, 0), steps)
        for part, words in (
            ("aggregator/", "a norm estimate"), ("client_work/", "MimeLite's optimizer state")
        ):  # fmt: skip
            if process.kind == "training" and not _has_nan(before, part) and _has_nan(after, part):
                self.note(
                    f"{words} turns NaN in round {self.counts[number] + 1} and stays so, as in "
                    "TFF: see docs/differences"
                )

    def server_step(self, number: int, state: Any, after: Any) -> dict[str, np.ndarray]:
        """What TFF's own server optimizer makes of one update, from the state before the round.

        The update is how far the round moved the weights. Only for adaptive optimizers, which
        amplify the rounding of the clients' updates.
        """
        import tensorflow as tf

        optimizer = self.server_optimizers[number]
        if optimizer is None or not is_adaptive(self.processes[number].server_optimizer):
            return {}
        weights = state.global_model_weights.trainable
        delta = tf.nest.map_structure(
            lambda old, new: np.asarray(old) - np.asarray(new),
            weights,
            after.global_model_weights.trainable,
        )
        tensors = tf.nest.map_structure(tf.convert_to_tensor, (state.finalizer, weights, delta))
        new_state, new_weights = optimizer.next(*tensors)
        return {
            **_under("delta", leaves(delta)),
            **_under("weights", leaves(new_weights)),
            **_under("finalizer", leaves(new_state)),
        }

    def values(self, number: int, schedule: Schedule, per_step: bool) -> list[float]:
        """A schedule at 0, 1, … as far as the recorded rounds or steps of a process went."""
        import tensorflow as tf

        count = 1 + (self.steps_reached if per_step else self.rounds_reached).get(number, 0)
        if count > _MOST_VALUES:
            self.refuse(f"a schedule goes on for {count} rounds or steps, too many to write down.")
            return []
        function = tf.function(
            lambda k: tf.cast(schedule.function(k), tf.float32),
            input_signature=[tf.TensorSpec((), tf.int32)],
            autograph=False,
        )
        return [float(function(tf.constant(k, tf.int32))) for k in range(count)]

    def write(self, script: dict[str, Any]) -> None:
        """Finishes the trace.

        Args:
            script: what ran, as in the manifest: name, arguments, sha256.
        """
        written = []
        for number, process in enumerate(self.processes):
            per_round, per_step = (
                lambda schedule, number=number, per_step=per_step: self.values(
                    number, schedule, per_step
                )
                for per_step in (False, True)
            )
            found = process.arguments or {}
            written.append(
                process._replace(
                    client_optimizer=with_values(process.client_optimizer, per_step),
                    server_optimizer=with_values(process.server_optimizer, per_round),
                    arguments={
                        key: with_values(value, per_step if key in _PER_STEP else per_round)
                        for key, value in found.items()
                    },
                )
            )
        self.writer.processes = written
        if self.computations:
            self.writer.computations(packed(self.computations))
        self.writer.close(
            versions={
                name.replace("-", "_"): metadata.version(name)
                for name in ("tensorflow-federated", "tensorflow", "keras", "numpy")
            }
            | {"python": platform.python_version(), "fedbridge": __version__},
            script=script,
            adapted=self.adapted,
            notes=self.notes,
            not_replayable=self.not_replayable,
        )


def of_file(script: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """A script file, as the manifest names it."""
    return {
        "name": script.name,
        "arguments": list(arguments),
        "sha256": hashlib.sha256(script.read_bytes()).hexdigest(),
    }


def rows(batch: Any) -> dict[str, np.ndarray]:
    """A batch by feature: (x, y) and {"x": …, "y": …} alike, nested features as "x/name"."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        batch = {"x": batch[0], "y": batch[1]}
    return leaves(batch)


def point(element: Any) -> dict[str, np.ndarray]:
    """A single point of k-means, which knows no batches, as a batch of one."""
    return {"x": np.asarray(element)[None]}


def _as_taken(client: list[Any]) -> Any:
    """A client's batches as TFF takes them: a list where all but the last have one shape."""
    import tensorflow as tf

    shapes = lambda batch: [np.shape(leaf) for leaf in tf.nest.flatten(batch)]
    alike = [list(run) for _, run in itertools.groupby(client, shapes)]
    if len(alike) < 2 or (len(alike) == 2 and len(alike[1]) == 1):
        return client
    stacked = [tf.nest.map_structure(lambda *leaves: np.stack(leaves), *run) for run in alike]
    pieces = map(tf.data.Dataset.from_tensor_slices, stacked)
    return functools.reduce(lambda joined, piece: joined.concatenate(piece), pieces)


def _is_client(client: Any) -> bool:
    import tensorflow as tf

    if isinstance(client, tf.data.Dataset):
        return all(isinstance(spec, tf.TensorSpec) for spec in tf.nest.flatten(client.element_spec))
    return isinstance(client, list)


def _weights(state: Any) -> dict[str, np.ndarray]:
    """The weights of a state by their paths; a tensor alone, as the centroids are, by `WEIGHTS`."""
    weights = leaves(state.global_model_weights)
    return {path or trace.WEIGHTS: leaf for path, leaf in weights.items()}


def _under(prefix: str, tree: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}/{path}": leaf for path, leaf in tree.items()}


def _epochs(process: trace.Process) -> int:
    """How often a client's batches are gone through at most."""
    split = (process.arguments or {}).get("dataset_split_fn", {}).get("arguments", {})
    return max(1, split.get("recon_epochs", 1), split.get("post_recon_epochs", 1))


def _has_nan(state: dict[str, np.ndarray], part: str) -> bool:
    return any(
        np.isnan(leaf).any()
        for path, leaf in state.items()
        if path.startswith(part) and leaf.dtype.kind == "f"
    )
