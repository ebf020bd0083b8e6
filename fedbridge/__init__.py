"""fedbridge: TensorFlow Federated experiments on JAX, checked against the real TFF.

import fedbridge as fb
"""

import importlib
from typing import TYPE_CHECKING, Any

from fedbridge import (
    algorithms as algorithms,
    distributed as distributed,
    preprocessing as preprocessing,
    samplers as samplers,
)
from fedbridge._version import __version__ as __version__
from fedbridge.checkpoint import load as load, save as save
from fedbridge.experiment import (
    TrainResult as TrainResult,
    central_eval as central_eval,
    saved_round as saved_round,
    train as train,
)
from fedbridge.jax_core import (
    Aggregator as Aggregator,
    ArgumentError as ArgumentError,
    Batches as Batches,
    Client as Client,
    ClientDataError as ClientDataError,
    ClientOutput as ClientOutput,
    ClientResult as ClientResult,
    ClientStepError as ClientStepError,
    ClientWork as ClientWork,
    Cohort as Cohort,
    DeviceMemoryError as DeviceMemoryError,
    Execution as Execution,
    FedbridgeError as FedbridgeError,
    FederatedArrays as FederatedArrays,
    Finalizer as Finalizer,
    Forward as Forward,
    LearningAlgorithmState as LearningAlgorithmState,
    LearningProcess as LearningProcess,
    LearningProcessOutput as LearningProcessOutput,
    Metric as Metric,
    MetricsAggregator as MetricsAggregator,
    Model as Model,
    ModelError as ModelError,
    ModelWeights as ModelWeights,
    NotReplayableError as NotReplayableError,
    PerClient as PerClient,
    Pipeline as Pipeline,
    ReconstructionModel as ReconstructionModel,
    ReferenceEnvironmentError as ReferenceEnvironmentError,
    Round as Round,
    ScriptError as ScriptError,
    StateError as StateError,
    Step as Step,
    TraceError as TraceError,
    aggregators as aggregators,
    apply_optimizer as apply_optimizer,
    build_dataset_split_fn as build_dataset_split_fn,
    compose_learning_process as compose_learning_process,
    debug as debug,
    default_execution as default_execution,
    drop_non_finite as drop_non_finite,
    finalize_then_sample as finalize_then_sample,
    keep_non_finite as keep_non_finite,
    local_training as local_training,
    metrics as metrics,
    model_gradient as model_gradient,
    num_examples as num_examples,
    optimizers as optimizers,
    over_clients as over_clients,
    over_steps as over_steps,
    per_client as per_client,
    pipeline as pipeline,
    sample_over_rounds as sample_over_rounds,
    sequential as sequential,
    sharded as sharded,
    simple_dataset_split_fn as simple_dataset_split_fn,
    sum_over_rounds as sum_over_rounds,
    sum_then_finalize as sum_then_finalize,
    uniform as uniform,
    unweighted_mean as unweighted_mean,
    vmapped as vmapped,
    weighted_mean as weighted_mean,
)
from fedbridge.preprocessing import ClientSpec as ClientSpec

if TYPE_CHECKING:
    from fedbridge import (
        datasets as datasets,
        models as models,
        partition as partition,
        tasks as tasks,
    )
    from fedbridge.logs import (
        metrics_files as metrics_files,
        read_metrics as read_metrics,
        save_curves as save_curves,
    )
    from fedbridge.tff_io import (
        as_functional as as_functional,
        convert as convert,
        from_client_data as from_client_data,
        from_clients as from_clients,
        from_converted as from_converted,
        from_datasets as from_datasets,
        from_hdf5 as from_hdf5,
        from_keras as from_keras,
        from_keras_reconstruction as from_keras_reconstruction,
        from_leaf as from_leaf,
        from_sql as from_sql,
        from_tfds as from_tfds,
        from_tff_state as from_tff_state,
        ignore_constraints as ignore_constraints,
        load_latest_program_state as load_latest_program_state,
        load_program_state as load_program_state,
        program_state_versions as program_state_versions,
        read_tag_counts as read_tag_counts,
        read_word_counts as read_word_counts,
        save_program_state as save_program_state,
        to_tff_state as to_tff_state,
        verify_converted as verify_converted,
        weights_from_keras as weights_from_keras,
        weights_from_npz as weights_from_npz,
        weights_from_safetensors as weights_from_safetensors,
        weights_to_keras as weights_to_keras,
        weights_to_npz as weights_to_npz,
        weights_to_safetensors as weights_to_safetensors,
    )

# Loaded when they are asked for: a plain `import fedbridge` needs neither flax nor TFF's formats.
_FROM_TFF_IO = {
    "as_functional",
    "convert",
    "from_client_data",
    "from_clients",
    "from_converted",
    "from_datasets",
    "from_hdf5",
    "from_keras",
    "from_keras_reconstruction",
    "from_leaf",
    "from_sql",
    "from_tfds",
    "from_tff_state",
    "ignore_constraints",
    "load_latest_program_state",
    "load_program_state",
    "program_state_versions",
    "read_tag_counts",
    "read_word_counts",
    "save_program_state",
    "to_tff_state",
    "verify_converted",
    "weights_from_keras",
    "weights_from_npz",
    "weights_from_safetensors",
    "weights_to_keras",
    "weights_to_npz",
    "weights_to_safetensors",
}
_FROM_LOGS = {"metrics_files", "read_metrics", "save_curves"}


def __getattr__(name: str) -> Any:
    if name in {"datasets", "models", "partition", "tasks"}:
        return importlib.import_module(f"fedbridge.{name}")
    if name in _FROM_TFF_IO:
        return getattr(importlib.import_module("fedbridge.tff_io"), name)
    if name in _FROM_LOGS:
        return getattr(importlib.import_module("fedbridge.logs"), name)
    raise AttributeError(f"module 'fedbridge' has no attribute {name!r}")


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext fedbridge`: in this notebook `import tensorflow_federated` gives fedbridge.tff."""
    importlib.import_module("fedbridge.tff").install()
