"""TFF's namespace on the JAX core: `from fedbridge import tff` instead of TFF's own import.

The union of TFF's eras, with the numbers of TFF 0.87.0. A name is what it was in TFF, or an error
that says what to do. `install` gives the namespace TFF's name for one process, which is how
`fedbridge run` runs a script that knows nothing of fedbridge. TensorFlow is imported only where
something needs it: a `tf.data` pipeline, a `ClientData`.
"""

import importlib
import sys

from fedbridge.tff import (
    _private as _private,
    aggregators as aggregators,
    learning as learning,
    program as program,
    simulation as simulation,
    structure as structure,
    templates as templates,
    tensorflow as tensorflow,
    types as types,
    utils as utils,
)
from fedbridge.tff._computations import (
    Computation as Computation,
    federated_computation as federated_computation,
)
from fedbridge.tff._contexts import backends as backends, framework as framework
from fedbridge.tff._errors import MissingNameError as MissingNameError, Note as Note, missing
from fedbridge.tff._intrinsics import (
    federated_aggregate as federated_aggregate,
    federated_broadcast as federated_broadcast,
    federated_collect as federated_collect,
    federated_eval as federated_eval,
    federated_map as federated_map,
    federated_max as federated_max,
    federated_mean as federated_mean,
    federated_min as federated_min,
    federated_reduce as federated_reduce,
    federated_secure_select as federated_secure_select,
    federated_secure_sum as federated_secure_sum,
    federated_secure_sum_bitwidth as federated_secure_sum_bitwidth,
    federated_select as federated_select,
    federated_sum as federated_sum,
    federated_value as federated_value,
    federated_zip as federated_zip,
    sequence_map as sequence_map,
    sequence_reduce as sequence_reduce,
    sequence_sum as sequence_sum,
    to_value as to_value,
)
from fedbridge.tff._types import (
    CLIENTS as CLIENTS,
    SERVER as SERVER,
    FederatedType as FederatedType,
    FunctionType as FunctionType,
    SequenceType as SequenceType,
    StructType as StructType,
    StructWithPythonType as StructWithPythonType,
    TensorType as TensorType,
    Type as Type,
    to_type as to_type,
)
from fedbridge.tff._values import Value as Value

__version__ = "0.87.0"

# Older names.
NamedTupleType = StructType
type_at_clients = types.at_clients
type_at_server = types.at_server
federated_apply = federated_map
tf_computation = tensorflow.computation

_TFF = "tensorflow_federated"


def install(version: str = __version__) -> None:
    """Makes `import tensorflow_federated` give this namespace, in this process from now on.

    Args:
        version: The TFF that a script was written for, as `__version__` gives it. The builders of
            TFF 0.1 to 0.27 return the metrics of that version.
    """
    globals()["__version__"] = version
    for name, module in list(sys.modules.items()):
        if name == __name__ or name.startswith(f"{__name__}."):
            sys.modules[_TFF + name.removeprefix(__name__)] = module
    if not any(isinstance(finder, _private.Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _private.Finder())
    globals()["python"] = importlib.import_module(_private.PREFIX)


__getattr__ = missing("tff")
