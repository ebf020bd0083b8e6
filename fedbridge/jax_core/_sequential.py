"""One client after another: no step is computed that no client has."""

from typing import Any

import jax
from jaxtyping import PyTree

from fedbridge.jax_core._clients import (
    ClientFn,
    Execution,
    client_key,
    jit_round,
    zeros_of,
    zeros_per_client,
)
from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._steps import Client
from fedbridge.jax_core._trees import tree_add


def _one_after_another(
    client_fn: ClientFn, server_values: PyTree, cohort: Cohort
) -> tuple[PyTree, PyTree]:
    zeros = zeros_of(client_fn, server_values, cohort)

    def run(index: Any, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        sums, kept = carry
        output = client_fn(server_values, Client(cohort, index, client_key(cohort, index)))
        kept = jax.tree.map(lambda all, one: all.at[index].set(one), kept, output.kept)
        return tree_add(sums, output.summed), kept

    start = zeros.summed, zeros_per_client(zeros.kept, cohort)
    return jax.lax.fori_loop(0, cohort.num_clients, run, start)


sequential = Execution(_one_after_another, jit_round)
"""One client after another, each with exactly its own number of steps, in one program."""
