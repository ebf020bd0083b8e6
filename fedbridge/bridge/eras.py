"""TFF's names by era: what each was called when, what it is in 0.87.0, what fedbridge does with it.

Plain data, read by `lint`, by the era layer that stands before the real TFF while recording, and by
`fedbridge.tff`. The life spans are git tags of TFF (92 of them, 0.1.0 to 0.89.0, and its head of
2026-08); `tff_names.txt` holds every public name of 0.87.0.
"""

import difflib
import functools
from pathlib import Path
from typing import NamedTuple

CHECKED = "checked"
"""Recorded under TFF, repeated on JAX, compared."""
ACCEPTED = "accepted"
"""Taken and dropped: it has no effect on what is computed."""
IGNORED = "ignored"
"""Runs under TFF as it is and plays no part in the check."""
NOT_YET = "not yet"
"""Runs under TFF, but what it computes cannot be repeated on JAX today."""
GONE = "gone"
"""Exists in no TFF that fedbridge can run; `becomes` names what to write instead."""


class Name(NamedTuple):
    """One public name of some TFF release.

    Attributes:
        name: As scripts write it, `tff.` first.
        first: The first tag that has it; "" where the history was not looked up.
        last: The last tag that has it; "HEAD" while it lives, "" for some tag before 0.87.0.
        becomes: The name in 0.87.0, itself where it is unchanged, "" where there is none.
        status: CHECKED, ACCEPTED, IGNORED, NOT_YET or GONE.
        note: A few words why.
    """

    name: str
    first: str
    last: str
    becomes: str
    status: str
    note: str = ""

    @property
    def era(self) -> str:
        """The life span in words: "0.1 to 0.27", "since 0.20", "in 0.87", "before 0.87"."""
        if self.last == "HEAD":
            return f"since {self.first}" if self.first else "in 0.87"
        return f"{self.first} to {self.last}" if self.first and self.last else "before 0.87"


_CORE = "Federated Core"
_CONTEXT = "execution contexts do not change results"
_LOCAL = "it runs here, and not on other machines; results are the same"
_EVAL = "called as evaluation(weights, data)"
_FED_AVG = "tff.learning.algorithms.build_weighted_fed_avg"
_FED_EVAL = "tff.learning.algorithms.build_fed_eval"
_MANAGER = "tff.program.FileProgramStateManager"
_WEIGHTS = "tff.learning.models.ModelWeights"
_KERAS = "tff.learning.models.from_keras_model"
_DATASETS = "tff.simulation.datasets."

_JPEG = "an archive of JPEG files: decode them to one size and give them to TestClientData"

# name without "tff.", first tag, last tag, the name in 0.87.0 ("=": the same), status, note
DECORATORS = ("federated_computation", "tf_computation", "tensorflow.computation")
"""What makes computations of a script's own, without "tff."."""

_TABLE: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("__version__", "", "HEAD", "=", IGNORED, ""),
    # models
    ("learning.models.from_keras_model", "0.49", "HEAD", "=", CHECKED, ""),
    ("learning.from_keras_model", "0.1", "0.52", _KERAS, CHECKED, ""),
    ("learning.from_compiled_keras_model", "0.1", "0.12", _KERAS, CHECKED, "its compiled loss"),
    ("learning.models.VariableModel", "0.49", "HEAD", "=", NOT_YET, "a model written by hand"),
    ("learning.Model", "0.1", "0.52", "tff.learning.models.VariableModel", NOT_YET,
     "a model written by hand"),
    ("learning.TrainableModel", "", "", "", GONE, "write a tff.learning.models model"),
    ("learning.models.BatchOutput", "0.49", "HEAD", "=", NOT_YET, "a model written by hand"),
    ("learning.BatchOutput", "0.1", "0.52", "tff.learning.models.BatchOutput", NOT_YET,
     "a model written by hand"),
    ("learning.models.ModelWeights", "0.38", "HEAD", "=", CHECKED, ""),
    ("learning.ModelWeights", "0.13", "0.52", _WEIGHTS, CHECKED, ""),
    ("learning.models.FunctionalModel", "", "HEAD", "=", NOT_YET, "a model written by hand"),
    ("learning.models.functional_model_from_keras", "0.20", "HEAD", "=", CHECKED, ""),
    ("learning.models.ReconstructionModel", "", "HEAD", "=", CHECKED, "made of a Keras model"),
    ("learning.models.weights_type_from_model", "", "HEAD", "=", IGNORED, ""),
    ("learning.models.save", "0.20", "HEAD", "=", IGNORED, ""),
    ("learning.models.load", "", "HEAD", "=", NOT_YET, "loaded models"),
    # processes
    ("learning.algorithms.build_weighted_fed_avg", "0.20", "HEAD", "=", CHECKED, ""),
    ("learning.algorithms.build_unweighted_fed_avg", "0.20", "HEAD", "=", CHECKED, ""),
    ("learning.build_federated_averaging_process", "0.1", "0.27", _FED_AVG, CHECKED,
     "metrics in their old shapes"),
    ("learning.algorithms.build_fed_eval", "0.29", "HEAD", "=", CHECKED, ""),
    ("learning.build_federated_evaluation", "0.1", "0.79", _FED_EVAL, CHECKED, _EVAL),
    ("learning.algorithms.build_weighted_fed_prox", "0.20", "HEAD", "=", CHECKED,
     "its sign reversed"),
    ("learning.algorithms.build_unweighted_fed_prox", "", "HEAD", "=", CHECKED,
     "its sign reversed"),
    ("learning.algorithms.build_fed_sgd", "", "HEAD", "=", CHECKED, ""),
    ("learning.build_federated_sgd_process", "", "",
     "tff.learning.algorithms.build_fed_sgd", CHECKED, "metrics in their old shapes"),
    ("learning.algorithms.build_fed_recon", "", "HEAD", "=", CHECKED, ""),
    ("learning.algorithms.build_fed_recon_eval", "", "HEAD", "=", CHECKED, ""),
    ("learning.algorithms.build_fed_kmeans", "", "HEAD", "=", CHECKED, ""),
    ("learning.algorithms.build_personalization_eval_computation", "", "HEAD", "=", NOT_YET,
     "it runs functions of the script"),
    ("learning.templates.LearningProcess", "", "HEAD", "=", CHECKED, ""),
    ("learning.templates.LearningProcessOutput", "", "HEAD", "=", CHECKED, ""),
    ("learning.templates.LearningAlgorithmState", "", "HEAD", "=", CHECKED, ""),
    ("learning.templates.ClientResult", "", "HEAD", "=", NOT_YET, "a process of your own"),
    ("learning.ClientWeighting", "", "HEAD", "=", CHECKED, ""),
    ("learning.LoopImplementation", "", "HEAD", "=", ACCEPTED, "does not change results"),
    # weights in and out
    ("learning.assign_weights_to_keras_model", "0.5", "0.16.1", f"{_WEIGHTS}.assign_weights_to",
     CHECKED, ""),
    ("learning.keras_weights_from_tff_weights", "", "", _WEIGHTS, CHECKED, ""),
    ("learning.state_with_new_model_weights", "0.1", "0.55",
     "tff.learning.templates.LearningProcess.set_model_weights", CHECKED, ""),
    # optimizers
    ("learning.optimizers.build_sgdm", "0.20", "HEAD", "=", CHECKED, ""),
    ("learning.optimizers.build_adam", "0.20", "HEAD", "=", CHECKED, ""),
    ("learning.optimizers.build_adagrad", "", "HEAD", "=", CHECKED, ""),
    ("learning.optimizers.build_rmsprop", "", "HEAD", "=", CHECKED, ""),
    ("learning.optimizers.build_adafactor", "", "HEAD", "=", NOT_YET,
     "TFF 0.87.0 itself cannot run it in a process"),
    ("learning.optimizers.LEARNING_RATE_KEY", "", "HEAD", "=", CHECKED, ""),
    ("learning.optimizers.Optimizer", "", "HEAD", "=", NOT_YET, "a custom optimizer"),
    # client data
    (f"{_DATASETS[4:]}emnist.load_data", "0.1", "HEAD", "=", CHECKED, ""),
    (f"{_DATASETS[4:]}ClientData", "0.19", "HEAD", "=", CHECKED, ""),
    ("simulation.ClientData", "0.1", "0.18", f"{_DATASETS}ClientData", CHECKED, ""),
    (f"{_DATASETS[4:]}ClientData.from_clients_and_tf_fn", "", "HEAD", "=", CHECKED, ""),
    (f"{_DATASETS[4:]}ClientData.from_clients_and_fn", "", "0.19",
     f"{_DATASETS}ClientData.from_clients_and_tf_fn", CHECKED, ""),
    ("simulation.ClientData.from_clients_and_fn", "", "",
     f"{_DATASETS}ClientData.from_clients_and_tf_fn", CHECKED, ""),
    (f"{_DATASETS[4:]}TestClientData", "0.19", "HEAD", "=", CHECKED, ""),
    ("simulation.FromTensorSlicesClientData", "0.5", "0.18", f"{_DATASETS}TestClientData",
     CHECKED, ""),
    (f"{_DATASETS[4:]}SqlClientData", "", "HEAD", "=", CHECKED, ""),
    ("simulation.SqlClientData", "", "", f"{_DATASETS}SqlClientData", CHECKED, ""),
    ("simulation.TransformingClientData", "", "", f"{_DATASETS}TransformingClientData",
     CHECKED, ""),
    ("simulation.HDF5ClientData", "", "", "", GONE,
     "fb.from_hdf5 reads the file, and `fedbridge run` has the name"),
    # the loop around
    ("simulation.build_uniform_sampling_fn", "0.19", "HEAD", "=", CHECKED, ""),
    ("simulation.run_training_process", "0.20", "HEAD", "=", CHECKED, ""),
    ("simulation.FileCheckpointManager", "0.18", "0.19", _MANAGER, IGNORED, ""),
    ("program.FileProgramStateManager", "0.20", "HEAD", "=", IGNORED, ""),
    ("simulation.compose_dataset_computation_with_learning_process", "", "HEAD", "=", NOT_YET,
     "data sets made inside the computation"),
    ("simulation.compose_dataset_computation_with_iterative_process", "", "HEAD", "=", NOT_YET,
     "data sets made inside the computation"),
    ("templates.IterativeProcess", "0.14", "HEAD", "=", CHECKED, _CORE),
    ("utils.IterativeProcess", "0.1", "0.13.1", "tff.templates.IterativeProcess", CHECKED, _CORE),
    ("utils.update_state", "0.4", "0.18", "tff.structure.update_struct", CHECKED, _CORE),
    ("utils.assign", "0.1", "0.18", "", CHECKED, _CORE),
    ("utils.StatefulAggregateFn", "", "", "tff.templates.AggregationProcess", GONE, _CORE),
    ("utils.StatefulBroadcastFn", "", "", "tff.templates.MeasuredProcess", GONE, _CORE),
    # aggregators and metrics
    ("aggregators.SumFactory", "", "HEAD", "=", CHECKED, ""),
    ("aggregators.MeanFactory", "", "HEAD", "=", CHECKED, ""),
    ("aggregators.UnweightedMeanFactory", "", "HEAD", "=", CHECKED, ""),
    ("aggregators.clipping_factory", "", "HEAD", "=", CHECKED, ""),
    ("aggregators.zeroing_factory", "", "HEAD", "=", CHECKED, ""),
    ("aggregators.PrivateQuantileEstimationProcess", "", "HEAD", "=", CHECKED, "without noise"),
    ("aggregators.DifferentiallyPrivateFactory", "", "HEAD", "=", CHECKED, "without noise"),
    ("aggregators.EncodedSumFactory", "", "HEAD", "=", CHECKED, "with stochastic=False"),
    ("aggregators.add_measurements", "", "HEAD", "=", NOT_YET, "measurements of your own"),
    ("learning.robust_aggregator", "0.18", "HEAD", "=", CHECKED, ""),
    ("learning.dp_aggregator", "0.18", "HEAD", "=", CHECKED, "without noise"),
    ("learning.compression_aggregator", "", "HEAD", "=", CHECKED, "with stochastic=False"),
    ("learning.add_debug_measurements", "", "HEAD", "=", CHECKED, ""),
    ("learning.model_update_aggregator.robust_aggregator", "0.18", "HEAD", "=", CHECKED, ""),
    ("learning.model_update_aggregator.dp_aggregator", "0.18", "HEAD", "=", CHECKED,
     "without noise"),
    ("learning.metrics.NumBatchesCounter", "", "HEAD", "=", CHECKED, ""),
    ("learning.metrics.NumExamplesCounter", "", "HEAD", "=", CHECKED, ""),
    ("learning.metrics.finalize_then_sample", "", "HEAD", "=", NOT_YET,
     "it samples clients at random"),
    ("learning.templates.build_broadcast_process", "", "HEAD", "=", CHECKED, ""),
    ("learning.metrics.sum_then_finalize", "", "HEAD", "=", CHECKED, ""),
    # execution contexts, in all their spellings
    ("backends.native.set_local_execution_context", "0.15", "0.19", "", ACCEPTED, _CONTEXT),
    ("backends.native.set_local_python_execution_context", "0.20", "0.48", "", ACCEPTED, _CONTEXT),
    ("backends.native.set_local_cpp_execution_context", "", "", "", ACCEPTED, _CONTEXT),
    ("backends.native.set_sync_local_cpp_execution_context", "", "HEAD", "=", ACCEPTED,
     _CONTEXT),
    ("backends.native.set_async_local_cpp_execution_context", "", "HEAD", "=", NOT_YET,
     "asynchronous rounds"),
    ("backends.native.set_remote_execution_context", "", "", "", ACCEPTED, _LOCAL),
    ("backends.native.set_remote_python_execution_context", "", "", "", ACCEPTED, _LOCAL),
    ("backends.native.set_thread_debugging_execution_context", "", "", "", ACCEPTED, _CONTEXT),
    ("backends.native.set_localhost_cpp_execution_context", "", "", "", ACCEPTED, _CONTEXT),
    ("backends.native.create_local_execution_context", "", "", "", ACCEPTED, _CONTEXT),
    ("backends.native.create_local_python_execution_context", "", "", "", ACCEPTED, _CONTEXT),
    ("backends.native.create_remote_execution_context", "", "", "", ACCEPTED, _LOCAL),
    ("backends.native.create_remote_python_execution_context", "", "", "", ACCEPTED, _LOCAL),
    ("backends.native.create_thread_debugging_execution_context", "", "", "", ACCEPTED, _CONTEXT),
    ("backends.reference.set_reference_context", "", "", "", ACCEPTED, _CONTEXT),
    ("backends.test.set_test_execution_context", "", "", "", ACCEPTED, _CONTEXT),
    ("backends.test.set_sync_test_cpp_execution_context", "", "HEAD", "=", IGNORED, ""),
    ("framework.set_default_executor", "0.7", "0.14", "", ACCEPTED, _CONTEXT),
    ("framework.set_default_context", "", "HEAD", "=", ACCEPTED, _CONTEXT),
    ("framework.create_local_executor", "", "", "", ACCEPTED, _CONTEXT),
    ("framework.local_executor_factory", "", "", "", ACCEPTED, _CONTEXT),
    ("framework.remote_executor_factory", "", "", "", ACCEPTED, _LOCAL),
    ("framework.thread_debugging_executor_factory", "", "", "", ACCEPTED, _CONTEXT),
    ("framework.sizing_executor_factory", "", "", "", ACCEPTED, _CONTEXT),
    ("framework.ReferenceExecutor", "", "", "", ACCEPTED, _CONTEXT),
    ("framework.ExecutionContext", "", "", "", ACCEPTED, _CONTEXT),
    ("simulation.datasets.flair.load_data", "", "HEAD", "=", CHECKED, _JPEG),
    ("simulation.datasets.gldv2.load_data", "", "HEAD", "=", CHECKED, _JPEG),
    ("simulation.datasets.inaturalist.load_data", "", "HEAD", "=", CHECKED, _JPEG),
    # Federated Core under its older names
    ("tf_computation", "0.1", "0.86", "tff.tensorflow.computation", CHECKED, _CORE),
    ("tensorflow.computation", "0.71", "HEAD", "=", CHECKED, _CORE),
    ("federated_computation", "0.1", "0.89", "=", CHECKED, _CORE),
    ("federated_select", "", "HEAD", "=", CHECKED, _CORE),
    ("federated_secure_select", "", "HEAD", "=", CHECKED, _CORE),
    ("federated_collect", "0.1", "0.19", "", GONE, _CORE),
    ("federated_apply", "0.1", "0.18", "tff.federated_map", CHECKED, _CORE),
    ("federated_reduce", "0.1", "0.18", "tff.federated_aggregate", GONE, _CORE),
    ("NamedTupleType", "0.1", "0.15", "tff.StructType", CHECKED, _CORE),
    ("StructType", "0.16", "0.89", "=", CHECKED, _CORE),
    ("type_at_clients", "0.17", "0.67", "tff.FederatedType", CHECKED, _CORE),
    ("type_at_server", "", "", "tff.FederatedType", CHECKED, _CORE),
    ("types.at_clients", "0.19", "0.67", "tff.FederatedType", CHECKED, _CORE),
    ("types.at_server", "", "", "tff.FederatedType", CHECKED, _CORE),
    ("types.type_from_tensors", "", "", "tff.types.tensorflow_to_type", CHECKED, _CORE),
    ("types.type_to_tf_tensor_specs", "", "HEAD", "=", CHECKED, _CORE),
    ("framework.type_from_tensors", "", "", "tff.types.tensorflow_to_type", GONE, _CORE),
    ("framework.type_to_tf_tensor_specs", "", "", "tff.types.type_to_tf_tensor_specs", GONE, _CORE),
    ("tensorflow.to_type", "", "", "tff.types.tensorflow_to_type", GONE, _CORE),
    ("learning.framework", "0.1", "0.74", "tff.learning.templates", GONE, "a process of your own"),
    ("learning.reconstruction", "0.20", "0.56", "tff.learning.algorithms.build_fed_recon", GONE,
     "federated reconstruction"),
)  # fmt: skip

# What holds for the rest of a package; the longest prefix decides.
_PACKAGES: tuple[tuple[str, str, str], ...] = (
    ("tff.", CHECKED, _CORE),
    ("tff.aggregators.", NOT_YET, "this aggregator"),
    ("tff.analytics.", NOT_YET, "federated analytics"),
    ("tff.backends.", IGNORED, ""),
    ("tff.framework.", NOT_YET, _CORE),
    ("tff.jax.", NOT_YET, _CORE),
    ("tff.learning.", NOT_YET, "a process of your own"),
    ("tff.learning.algorithms.", CHECKED, ""),
    ("tff.learning.metrics.", NOT_YET, "metrics other than the default sums"),
    ("tff.learning.models.", NOT_YET, "models other than Keras models"),
    ("tff.learning.optimizers.", CHECKED, ""),
    ("tff.learning.programs.", NOT_YET, "asynchronous programs"),
    ("tff.program.", IGNORED, ""),
    ("tff.simulation.", IGNORED, ""),
    ("tff.simulation.baselines.", CHECKED, ""),
    ("tff.simulation.datasets.", CHECKED, ""),
    ("tff.simulation.models.", CHECKED, ""),
    ("tff.structure.", IGNORED, ""),
    ("tff.test.", IGNORED, ""),
    ("tff.tensorflow.", CHECKED, _CORE),
    ("tff.types.", CHECKED, _CORE),
    ("tff.version", IGNORED, ""),
)

_OPTIMIZERS = "tff.learning.optimizers.build_"

INVENTED = {
    "adagrad": f"{_OPTIMIZERS}adagrad",
    "adam": f"{_OPTIMIZERS}adam",
    "buildfederatedaveraging": _FED_AVG,
    "buildpersonalizedfedavg": "tff.learning.algorithms.build_personalization_eval_computation",
    "cifar10": f"{_DATASETS}cifar100.load_data",
    "differentialprivacy": "tff.learning.dp_aggregator",
    "fashionmnist": f"{_DATASETS}emnist.load_data",
    "federatedaveraging": _FED_AVG,
    "federatedavg": _FED_AVG,
    "mnist": f"{_DATASETS}emnist.load_data",
    "privacy": "tff.learning.dp_aggregator",
    "rmsprop": f"{_OPTIMIZERS}rmsprop",
    "secureaggregationfactory": "tff.aggregators.SecureSumFactory",
    "sgd": f"{_OPTIMIZERS}sgdm",
    "tff.federated_average": "tff.federated_mean",
    "tff.federated_avg": "tff.federated_mean",
    "treeaggregationfactory": "tff.aggregators.DifferentiallyPrivateFactory",
}
"""Names that no TFF had and that are often written, or words of them in small letters: what is
meant."""


@functools.cache
def table() -> dict[str, Name]:
    """Every known name: the table above, then the rest of 0.87.0."""
    known = {}
    for short, first, last, becomes, status, note in _TABLE:
        name = "tff." + short
        known[name] = Name(name, first, last, name if becomes == "=" else becomes, status, note)
    for line in (Path(__file__).parent / "tff_names.txt").read_text().splitlines():
        package, _, names = line.partition(": ")
        for short in names.split():
            name = f"{package}.{short}"
            status, note = _by_package(name)
            known.setdefault(name, Name(name, "", "HEAD", name, status, note))
    return known


def lookup(symbol: str) -> Name | None:
    """The entry of `symbol`, or of the class or function that it is an attribute of.

    >>> lookup("tff.learning.build_federated_averaging_process").becomes
    'tff.learning.algorithms.build_weighted_fed_avg'
    >>> lookup("tff.learning.models.ModelWeights.from_model").name
    'tff.learning.models.ModelWeights'
    """
    known = table()
    parts = _public(symbol).split(".")
    for length in range(len(parts), 1, -1):
        if found := known.get(".".join(parts[:length])):
            return found
    return None


def is_package(symbol: str) -> bool:
    """Whether `symbol` is a package of TFF (`tff.learning`) rather than a name in one."""
    return symbol == "tff" or any(name.startswith(symbol + ".") for name in table())


def nearest(symbol: str) -> str | None:
    """The real name closest to one that TFF never had: what is often meant, then by its last word.

    >>> nearest("tff.learning.build_fedavg")
    'tff.learning.algorithms.build_weighted_fed_avg'
    """
    known = table()
    if symbol in INVENTED:
        return INVENTED[symbol]
    last = _letters(symbol)
    meant = [INVENTED[word] for word in map(_letters, symbol.split(".")) if word in INVENTED]
    if meant:
        return meant[-1]

    def likeness(name: str) -> tuple[bool, float]:
        current = known[name].last == "HEAD"
        return current, difflib.SequenceMatcher(None, symbol, name).ratio()

    if same := [name for name in known if _letters(name) == last]:
        return max(same, key=likeness)
    # Words left out ("build_fedavg") say more than single letters that happen to agree.
    shortened = [name for name in known if len(last) > 5 and _shortens(last, _letters(name))]
    if shortened:
        return min(shortened, key=lambda name: (len(_letters(name)), known[name].last != "HEAD"))
    near = difflib.get_close_matches(last, map(_letters, known), n=1, cutoff=0.8)
    alike = [name for name in known if near and _letters(name) == near[0]]
    return max(alike, key=likeness) if alike else None


def is_private(symbol: str) -> bool:
    """Whether `symbol` is or lies in `tensorflow_federated.python`, TFF's own sources."""
    return symbol == "tff.python" or symbol.startswith("tff.python.")


def counterpart(symbol: str) -> str:
    """What a private name is called in public, in TFF 0.87.0; "" where that is not clear."""
    known = table()
    if found := known.get(_public(symbol)):
        return found.becomes
    last = symbol.rpartition(".")[2]
    same = {entry.becomes for name, entry in known.items() if name.rpartition(".")[2] == last}
    return same.pop() if len(same) == 1 else ""


def _letters(symbol: str) -> str:
    return symbol.rpartition(".")[2].replace("_", "").lower()


def _shortens(short: str, long: str) -> bool:
    """Whether `short` is `long` with letters left out, half of them at most."""
    rest = iter(long)
    return 2 * len(short) >= len(long) and all(letter in rest for letter in short)


def _public(symbol: str) -> str:
    """The public name behind a private import: `tff.learning.Model` is python/learning/model.py."""
    if not symbol.startswith("tff.python."):
        return symbol
    parts = ["tff", *symbol.split(".")[2:]]
    known = table()
    if parts[1:2] == ["core"]:
        parts = ["tff", *parts[2:]]
    for drop in range(len(parts) - 2, 0, -1):
        shorter = ".".join([*parts[:drop], parts[-1]])
        if shorter in known:
            return shorter
    return symbol


def _by_package(name: str) -> tuple[str, str]:
    _, status, note = max(
        (row for row in _PACKAGES if name.startswith(row[0])), key=lambda row: len(row[0])
    )
    return status, note
