"""Functions of the server's values in Federated Core, called from the core's compiled programs."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fedbridge import jax_core as fc
from fedbridge.jax_core._compat import on_host
from fedbridge.tff._computations import federated_computation
from fedbridge.tff._types import SERVER, FederatedType
from fedbridge.tff.types import infer_type


def on_server(measure: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of arrays that does what this one does with a value at the server.

    Args:
        measure: From a value at the server to a dictionary of values there.

    Raises:
        ArgumentError: It gives no dictionary.
    """

    def measured(result: Any) -> Any:
        leaves, structure = jax.tree.flatten(result)
        blank = [np.zeros(leaf.shape, leaf.dtype) for leaf in leaves]
        type_spec = FederatedType(infer_type(jax.tree.unflatten(structure, blank)), SERVER)
        compute = federated_computation(measure, type_spec)

        def call(*given: Any) -> Any:
            arrays = [np.asarray(leaf) for leaf in given]
            found = compute(jax.tree.unflatten(structure, arrays))
            named = isinstance(found, dict)
            fc.check_argument(named, "what server_measurement_fn gives", found, "a dictionary")
            as_32_bits = lambda x: np.asarray(x, jax.dtypes.canonicalize_dtype(np.asarray(x).dtype))
            return jax.tree.map(as_32_bits, found)

        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), call(*blank))
        return on_host(call, shapes, *leaves)

    return measured
