"""How clients are weighted."""

import enum
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax

from fedbridge import jax_core as fc


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
        weighting: Of a mapping, name of a metric to the list of its variables.
    """
    if not callable(weighting):
        return None
    return lambda seen: weighting(
        OrderedDict((name, jax.tree.leaves(variables)) for name, variables in seen.items())
    )


class LoopImplementation(enum.Enum):
    """`tff.learning.LoopImplementation`; it changes no result."""

    PYTHON_LOOP = 1
    DATASET_REDUCE = 2
    SLOW_PYTHON_LOOP = 3
