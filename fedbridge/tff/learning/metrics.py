"""`tff.learning.metrics`: how the clients' metrics become a round's, and TFF's own metrics."""

from typing import Any

from fedbridge.jax_core import (
    finalize_then_sample as finalize_then_sample,
    sum_then_finalize as sum_then_finalize,
)
from fedbridge.tff._errors import missing
from fedbridge.tff.learning._functional_model import (
    create_functional_metric_fns as create_functional_metric_fns,
)
from fedbridge.tff.learning._keras_finalizer import (
    create_keras_metric_finalizer as create_keras_metric_finalizer,
)
from fedbridge.tff.learning._keras_metrics import counters

_missing = missing("tff.learning.metrics")


def __getattr__(name: str) -> Any:  # Keras' classes are made on first use
    known = counters() if name.endswith("Counter") else {}
    return known[name] if name in known else _missing(name)
