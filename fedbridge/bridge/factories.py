"""Aggregators, metrics aggregators and splits of data sets, remembered as names and arguments."""

import functools
import inspect
from typing import Any

from fedbridge.bridge.describe import (
    UndescribedError,
    described,
    mark_of,
    remember_class_method,
    remember_instances,
    remembering,
)

_FUNCTIONS = ("add_measurements", "clipping_factory", "concat_factory", "zeroing_factory")
_LEARNING = (
    "robust_aggregator", "dp_aggregator", "compression_aggregator", "secure_aggregator",
    "ddp_secure_aggregator", "add_debug_measurements", "add_debug_measurements_with_mixed_dtype",
)  # fmt: skip
_METRICS = ("sum_then_finalize", "finalize_then_sample", "secure_sum_then_finalize")


def install() -> None:
    """Replaces what makes aggregators in the imported TFF, and marks its classes."""
    import tensorflow_federated as tff

    for name in dir(tff.aggregators):
        value = getattr(tff.aggregators, name)
        if inspect.isclass(value) and not inspect.isabstract(value):
            remember_instances(value, name)
        elif name in _FUNCTIONS:
            setattr(tff.aggregators, name, remembering(name, value))
    for name in _LEARNING:
        wrapped = remembering(name, getattr(tff.learning, name))
        setattr(tff.learning, name, wrapped)
        if hasattr(tff.learning.model_update_aggregator, name):
            setattr(tff.learning.model_update_aggregator, name, wrapped)
    templates = tff.learning.templates
    templates.build_broadcast_process = remembering(
        "build_broadcast_process", templates.build_broadcast_process
    )
    model = tff.learning.models.ReconstructionModel
    remember_class_method(model, "build_dataset_split_fn", "build_dataset_split_fn")


def described_metrics_aggregator(value: Any) -> dict[str, Any] | None:
    """How metrics are aggregated; None for the default, sums first.

    Raises:
        UndescribedError: It is a function of the script.
    """
    metrics = _tff().learning.metrics
    given = value.keywords if isinstance(value, functools.partial) else {}
    function = value.func if isinstance(value, functools.partial) else value
    for name in _METRICS:
        if function is getattr(metrics, name):
            signature = inspect.signature(function).parameters
            names = {"sample_size": signature["sample_size"].default} if (
                "sample_size" in signature
            ) else {}  # fmt: skip
            if name == "sum_then_finalize" and not given:
                return None
            return {"name": name, "arguments": described({**names, **given})}
    raise UndescribedError(getattr(value, "__name__", type(value).__name__))


def described_split(value: Any) -> dict[str, Any]:
    """How FedRecon splits a client's batches.

    Raises:
        UndescribedError: It is a function of the script.
    """
    model = _tff().learning.models.ReconstructionModel
    if getattr(value, "__func__", None) is model.simple_dataset_split_fn.__func__:
        return {"name": "simple_dataset_split_fn", "arguments": {}}
    if mark_of(value) is None:
        raise UndescribedError(getattr(value, "__name__", type(value).__name__))
    return described(value)


def _tff() -> Any:
    import tensorflow_federated

    return tensorflow_federated
