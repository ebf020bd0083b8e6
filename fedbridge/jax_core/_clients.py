"""How the clients of a cohort run: one function over clients, several ways to execute it.

Across clients go sums; per client stays what is kept. `over_clients` reduces what a client
contributes as it comes, so memory does not grow with the cohort, and stacks what is kept in the
order of the cohort.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._steps import Client, python_loop
from fedbridge.jax_core._trees import tree_add


class ClientOutput(NamedTuple):
    """What a client gives.

    Attributes:
        summed: Reduced over clients: weighted updates, weights, sums of metrics, counts.
        kept: Kept for each client: `[clients, ...]` afterwards.
    """

    summed: PyTree
    kept: PyTree = ()


ClientFn = Callable[[PyTree, Client], ClientOutput]


class OverClients(Protocol):
    """Runs `client_fn(server_values, client)` for each client; returns `(sums, kept)`."""

    def __call__(
        self, client_fn: ClientFn, server_values: PyTree, cohort: Cohort
    ) -> tuple[PyTree, PyTree]: ...


class Execution(NamedTuple):
    """A way to run a round.

    Attributes:
        over_clients: Runs the clients.
        compile: Turns the round, a pure function, into what is called: `jax.jit`, or itself.
    """

    over_clients: OverClients
    compile: Callable[[Callable], Callable]


def over_clients(
    client_fn: ClientFn, server_values: PyTree, cohort: Cohort, execution: Execution
) -> tuple[PyTree, PyTree]:
    """Runs a function for every client of a cohort.

    Args:
        client_fn: `(server_values, client) -> ClientOutput(summed, kept)`.
        server_values: What the server sends to every client.
        cohort: The clients.
        execution: How they run: `sequential` or `debug`.

    Returns:
        `(sums, kept)`: the sum of `summed` over the clients, zeros where there is none, and
        `kept` of all of them, `[clients, ...]`, padded as the cohort is.
    """
    return execution.over_clients(client_fn, server_values, cohort)


def _zeros_of(client_fn: ClientFn, server_values: PyTree, cohort: Cohort) -> ClientOutput:
    client = lambda values: client_fn(values, Client(cohort, 0, cohort.key))
    shapes = jax.eval_shape(client, server_values)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _client_keys(cohort: Cohort) -> Any:
    return jax.vmap(lambda hash: jax.random.fold_in(cohort.key, hash))(
        jnp.asarray(cohort.client_hashes)
    )


def _one_after_another(
    client_fn: ClientFn, server_values: PyTree, cohort: Cohort
) -> tuple[PyTree, PyTree]:
    zeros = _zeros_of(client_fn, server_values, cohort)
    keys = _client_keys(cohort)
    padded = len(cohort.client_hashes)
    kept = jax.tree.map(lambda leaf: jnp.zeros((padded, *leaf.shape), leaf.dtype), zeros.kept)

    def run(index: Any, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        sums, kept = carry
        output = client_fn(server_values, Client(cohort, index, keys[index]))
        kept = jax.tree.map(lambda all, one: all.at[index].set(one), kept, output.kept)
        return tree_add(sums, output.summed), kept

    return jax.lax.fori_loop(0, cohort.num_clients, run, (zeros.summed, kept))


def _in_plain_python(
    client_fn: ClientFn, server_values: PyTree, cohort: Cohort
) -> tuple[PyTree, PyTree]:
    keys = _client_keys(cohort)
    outputs = []
    for index in range(int(cohort.num_clients)):
        client = Client(cohort, index, keys[index], loop=python_loop(index))
        outputs.append(client_fn(server_values, client))
    if not outputs:
        zeros = _zeros_of(client_fn, server_values, cohort)
        return zeros.summed, jax.tree.map(lambda leaf: leaf[None], zeros.kept)
    sums = functools.reduce(tree_add, [output.summed for output in outputs])
    return sums, jax.tree.map(lambda *leaves: jnp.stack(leaves), *[o.kept for o in outputs])


def _jit(round: Callable) -> Callable:
    if jax.default_backend() == "cpu":
        # Here, since it loads jax.extend, a good part of what `import fedbridge` would cost.
        from fedbridge.jax_core._convolutions import jit_on_cpu

        return jit_on_cpu(round)
    return jax.jit(round)


def _no_jit(round: Callable) -> Callable:
    def run(*args: Any) -> Any:
        with jax.disable_jit():
            return round(*args)

    return run


sequential = Execution(_one_after_another, _jit)
"""One client after another, each with exactly its own number of steps, in one program."""

debug = Execution(_in_plain_python, _no_jit)
"""Plain Python without jit: values can be printed, an error names the client and the step."""
