"""How the clients of one device run where nobody has said it."""

import jax
from jaxtyping import PyTree

from fedbridge.jax_core._clients import ClientFn, Execution, jit_round
from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._sequential import sequential
from fedbridge.jax_core._vmapped import vmapped


def _by_platform(
    client_fn: ClientFn, server_values: PyTree, cohort: Cohort
) -> tuple[PyTree, PyTree]:
    # A model without a mask would compute every batch once for each size: see `vmapped`.
    one_by_one = jax.default_backend() == "cpu" or cohort.exact_sizes is not None
    execution = sequential if one_by_one else vmapped()
    return execution.over_clients(client_fn, server_values, cohort)


by_platform = Execution(_by_platform, jit_round)
"""`sequential` on a CPU, and for models that know no mask; `vmapped()` on a GPU."""
