"""How clients are weighted."""

import enum
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from fedbridge import jax_core as fc
from fedbridge.jax_core._compat import on_host


class ClientWeighting(enum.Enum):
    """`tff.learning.ClientWeighting`."""

    UNIFORM = 1
    NUM_EXAMPLES = 2


def client_weight(weighting: Any) -> fc.ClientWeight:
    """The weight of a client.

    Raises:
        ArgumentError: It is no `ClientWeighting`.
    """
    known = weighting is None or isinstance(weighting, ClientWeighting)
    fc.check_argument(known, "client_weighting", weighting, "a tff.learning.ClientWeighting")
    return fc.uniform if weighting is ClientWeighting.UNIFORM else fc.num_examples


def metrics_weight(weighting: Any) -> Callable[[Mapping[str, Any]], Any] | None:
    """The weight of a client by its metrics, where a function is given, as TFF's FedRecon takes it.

    Args:
        weighting: Of a mapping, name of a metric to the list of its variables: tensors where
            TensorFlow is in use, as in TFF.
    """
    if not callable(weighting):
        return None

    def weigh(seen: Mapping[str, Any]) -> Any:
        leaves, structure = jax.tree.flatten(
            OrderedDict((name, jax.tree.leaves(variables)) for name, variables in seen.items())
        )
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow is None:
            return weighting(jax.tree.unflatten(structure, leaves))

        def call(*given: Any) -> np.ndarray:
            tensors = [tensorflow.constant(np.asarray(leaf)) for leaf in given]
            return np.asarray(weighting(jax.tree.unflatten(structure, tensors)), np.float32)

        weight = call(*(np.zeros(leaf.shape, leaf.dtype) for leaf in leaves))
        fc.check_argument(weight.ndim == 0, "client_weighting(metrics)", weight, "one number")
        return on_host(call, jax.ShapeDtypeStruct((), np.float32), *leaves)

    return weigh


class LoopImplementation(enum.Enum):
    """`tff.learning.LoopImplementation`; it changes no result."""

    DATASET_ITERATOR = 1
    DATASET_REDUCE = 2
