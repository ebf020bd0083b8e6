"""Arrays and pure functions: jax, optax, numpy. Knows nothing of TFF, TensorFlow or files."""

from fedbridge.jax_core._errors import (
    ClientDataError as ClientDataError,
    ClientStepError as ClientStepError,
    FedbridgeError as FedbridgeError,
    ModelError as ModelError,
    NotReplayableError as NotReplayableError,
    ReferenceEnvironmentError as ReferenceEnvironmentError,
    ScriptError as ScriptError,
    StateError as StateError,
    TraceError as TraceError,
)
from fedbridge.jax_core._model import (
    Batch as Batch,
    Forward as Forward,
    Metric as Metric,
    Model as Model,
    ModelWeights as ModelWeights,
)
