"""TFF's namespace on the JAX core: `from fedbridge import tff` instead of TFF's own import.

The union of TFF's eras, with the numbers of TFF 0.87.0. A name is what it was in TFF, or an error
that says what to do. `install` gives the namespace TFF's name for one process, which is how
`fedbridge run` runs a script that knows nothing of fedbridge. TensorFlow is imported only where
something needs it: a `tf.data` pipeline, a `ClientData`.
"""

import sys

from fedbridge.tff import (
    _private as _private,
    aggregators as aggregators,
    learning as learning,
    program as program,
    simulation as simulation,
)
from fedbridge.tff._contexts import backends as backends, framework as framework
from fedbridge.tff._errors import MissingNameError as MissingNameError, Note as Note, missing
from fedbridge.tff._federated_computation import federated_computation as federated_computation

__version__ = "0.87.0"

_TFF = "tensorflow_federated"


def install() -> None:
    """Makes `import tensorflow_federated` give this namespace, in this process from now on."""
    for name, module in list(sys.modules.items()):
        if name == __name__ or name.startswith(f"{__name__}."):
            sys.modules[_TFF + name.removeprefix(__name__)] = module
    if not any(isinstance(finder, _private.Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _private.Finder())


__getattr__ = missing("tff")
