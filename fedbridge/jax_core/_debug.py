"""Plain Python: a round in which one can print, and whose errors say where they come from."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from fedbridge.jax_core._clients import ClientFn, Execution, client_key, zeros_of
from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._errors import ClientStepError
from fedbridge.jax_core._place import on_one_device
from fedbridge.jax_core._residence import own_rows
from fedbridge.jax_core._steps import Client
from fedbridge.jax_core._trees import tree_add


def _in_plain_python(
    client_fn: ClientFn, server_values: PyTree, cohort: Cohort
) -> tuple[PyTree, PyTree]:
    outputs = []
    for index in range(int(cohort.num_clients)):
        client = Client(cohort, index, client_key(cohort, index), loop=_python_loop(index))
        outputs.append(client_fn(server_values, client))
    if not outputs:
        zeros = zeros_of(client_fn, server_values, cohort)
        return zeros.summed, jax.tree.map(lambda leaf: leaf[None], zeros.kept)
    sums = functools.reduce(tree_add, [output.summed for output in outputs])
    return sums, jax.tree.map(lambda *leaves: jnp.stack(leaves), *[o.kept for o in outputs])


def _python_loop(client: int) -> Callable:
    """A loop in plain Python that says in which step of which client the body failed."""

    def loop(start: Any, stop: Any, run: Callable, carry: PyTree) -> PyTree:
        for index in range(int(start), int(stop)):
            try:
                carry = run(index, carry)
            except Exception as error:
                raise ClientStepError(
                    f"client {client} of the cohort, step {index}: {type(error).__name__}: {error}"
                ) from error
        return carry

    return loop


def _no_jit(round: Callable) -> Callable:
    def run(*args: Any) -> Any:
        placed = [_place(arg) if isinstance(arg, Cohort) else on_one_device(arg) for arg in args]
        with jax.disable_jit():
            return round(*placed)

    return run


def _place(cohort: Cohort) -> Cohort:
    """On the host, where NumPy works."""
    cohort = cohort if cohort.residence is None else own_rows(cohort)
    return dataclasses.replace(cohort, placed=True)


debug = Execution(_in_plain_python, _no_jit, _place)
"""Plain Python without jit: values can be printed, an error names the client and the step."""
