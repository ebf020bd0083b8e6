"""Arrays and pure functions: jax, optax, numpy. Knows nothing of TFF, TensorFlow or files."""

from fedbridge.jax_core import (
    aggregators as aggregators,
    metrics as metrics,
    optimizers as optimizers,
)
from fedbridge.jax_core._aggregators import (
    Aggregator as Aggregator,
    AnyAggregator as AnyAggregator,
    HostAggregator as HostAggregator,
    MeasuredProcessOutput as MeasuredProcessOutput,
    check_aggregator as check_aggregator,
    sum_ as sum_,
    sum_or as sum_or,
    unweighted_mean as unweighted_mean,
    weighted_mean as weighted_mean,
)
from fedbridge.jax_core._arrays import FederatedArrays as FederatedArrays
from fedbridge.jax_core._border import (
    check_like_weights as check_like_weights,
    metrics_at_border as metrics_at_border,
    to_numpy as to_numpy,
)
from fedbridge.jax_core._client_work import (
    ClientResult as ClientResult,
    ClientWeight as ClientWeight,
    ClientWork as ClientWork,
    Gradient as Gradient,
    NonFinite as NonFinite,
    Round as Round,
    check_non_finite as check_non_finite,
    check_of_steps as check_of_steps,
    client_result as client_result,
    drop_non_finite as drop_non_finite,
    keep_non_finite as keep_non_finite,
    local_evaluation as local_evaluation,
    local_training as local_training,
    model_gradient as model_gradient,
    num_examples as num_examples,
    run_forward as run_forward,
    train_metrics as train_metrics,
    uniform as uniform,
    update_metrics as update_metrics,
)
from fedbridge.jax_core._clients import (
    ClientOutput as ClientOutput,
    Execution as Execution,
    over_clients as over_clients,
)
from fedbridge.jax_core._cohort import (
    Cohort as Cohort,
    Stream as Stream,
    cohort_of as cohort_of,
    make_cohort as make_cohort,
    make_stream as make_stream,
)
from fedbridge.jax_core._columns import Fraction255 as Fraction255, Ragged as Ragged
from fedbridge.jax_core._debug import debug as debug
from fedbridge.jax_core._default_execution import (
    default_execution as default_execution,
    num_cores as num_cores,
    use_cores as use_cores,
)
from fedbridge.jax_core._errors import (
    ArgumentError as ArgumentError,
    ClientDataError as ClientDataError,
    ClientStepError as ClientStepError,
    DeviceMemoryError as DeviceMemoryError,
    FedbridgeError as FedbridgeError,
    ModelError as ModelError,
    NotReplayableError as NotReplayableError,
    ReferenceEnvironmentError as ReferenceEnvironmentError,
    ScriptError as ScriptError,
    StateError as StateError,
    TraceError as TraceError,
    check_argument as check_argument,
    check_bool as check_bool,
    check_function as check_function,
    check_path as check_path,
    check_shape as check_shape,
    check_whole as check_whole,
    is_real as is_real,
    is_whole as is_whole,
    traced as traced,
)
from fedbridge.jax_core._evaluation import (
    EvaluationAggregator as EvaluationAggregator,
    EvaluationReport as EvaluationReport,
    evaluation_process as evaluation_process,
    one_model as one_model,
    sample_over_rounds as sample_over_rounds,
    several_models as several_models,
    sum_over_rounds as sum_over_rounds,
)
from fedbridge.jax_core._finalizer import Finalizer as Finalizer, apply_optimizer as apply_optimizer
from fedbridge.jax_core._labels import check_labels as check_labels
from fedbridge.jax_core._lstm import lstm as lstm
from fedbridge.jax_core._metrics_aggregators import (
    MetricsAggregator as MetricsAggregator,
    PerClient as PerClient,
    check_metrics_aggregator as check_metrics_aggregator,
    finalize_metrics as finalize_metrics,
    finalize_then_sample as finalize_then_sample,
    padded_clients as padded_clients,
    per_client as per_client,
    sum_then_finalize as sum_then_finalize,
    zero_metrics as zero_metrics,
)
from fedbridge.jax_core._model import (
    Batch as Batch,
    Forward as Forward,
    Metric as Metric,
    Model as Model,
    ModelWeights as ModelWeights,
    check_metrics as check_metrics,
    check_model as check_model,
    check_weights_and_forward as check_weights_and_forward,
)
from fedbridge.jax_core._philox import stateless_normal as stateless_normal
from fedbridge.jax_core._pipeline import (
    Batches as Batches,
    ClientPlan as ClientPlan,
    Pipeline as Pipeline,
    pipeline as pipeline,
)
from fedbridge.jax_core._place import default_device as default_device
from fedbridge.jax_core._pooling import avg_pool as avg_pool, max_pool as max_pool
from fedbridge.jax_core._process import (
    LearningAlgorithmState as LearningAlgorithmState,
    LearningProcess as LearningProcess,
    LearningProcessOutput as LearningProcessOutput,
    compose_learning_process as compose_learning_process,
    learning_process as learning_process,
)
from fedbridge.jax_core._reconstruction import (
    ReconstructionModel as ReconstructionModel,
    reconstruct as reconstruct,
)
from fedbridge.jax_core._sequential import sequential as sequential
from fedbridge.jax_core._sharded import sharded as sharded
from fedbridge.jax_core._start import (
    Start as Start,
    check_weights as check_weights,
    placing as placing,
)
from fedbridge.jax_core._states import fits_shape as fits_shape
from fedbridge.jax_core._steps import (
    Client as Client,
    Step as Step,
    Visits as Visits,
    every_batch as every_batch,
    over_steps as over_steps,
)
from fedbridge.jax_core._trees import (
    check_numbers as check_numbers,
    empty_containers as empty_containers,
    from_named_leaves as from_named_leaves,
    named_leaves as named_leaves,
    numpy_leaves as numpy_leaves,
    tree_add as tree_add,
    tree_all_finite as tree_all_finite,
    tree_norm as tree_norm,
    tree_scale as tree_scale,
    tree_sub as tree_sub,
    tree_where as tree_where,
    tree_zeros_like as tree_zeros_like,
)
from fedbridge.jax_core._visits import (
    DatasetSplitFn as DatasetSplitFn,
    build_dataset_split_fn as build_dataset_split_fn,
    repeated as repeated,
    simple_dataset_split_fn as simple_dataset_split_fn,
)
from fedbridge.jax_core._vmapped import vmapped as vmapped
from fedbridge.jax_core.aggregators._arguments import check_not_negative as check_not_negative
from fedbridge.jax_core.optimizers._given import check_optimizer as check_optimizer
from fedbridge.jax_core.optimizers._schedule import (
    check_has_learning_rate as check_has_learning_rate,
    check_rate as check_rate,
    check_schedule as check_schedule,
)
