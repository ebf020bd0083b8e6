"""How the clients of a cohort run: one function over clients, several ways to execute it.

Across clients go sums; per client stays what is kept. `over_clients` reduces what a client
contributes as it comes, so memory does not grow with the cohort, and stacks what is kept in the
order of the cohort. A way of running is a value: `sequential`, `vmapped(...)`, `sharded(...)`,
`debug`, each in a file of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Key, PyTree

from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._steps import Client


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
        compile: Turns the round, a pure function of trees and a cohort, into what is called:
            `jax.jit`, or itself.
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
        execution: How they run: `sequential`, `vmapped(...)`, `sharded(...)` or `debug`.

    Returns:
        `(sums, kept)`: the sum of `summed` over the clients, zeros where there is none, and
        `kept` of all of them, `[clients, ...]`, padded as the cohort is.
    """
    return execution.over_clients(client_fn, server_values, cohort)


def zeros_of(client_fn: ClientFn, server_values: PyTree, cohort: Cohort) -> ClientOutput:
    """What a client would give, all zeros."""
    client = lambda values: client_fn(values, Client(cohort, 0, cohort.key))
    shapes = jax.eval_shape(client, server_values)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def zeros_per_client(zeros: PyTree, cohort: Cohort) -> PyTree:
    """Zeros for what is kept of every client, `[clients, ...]`, padded as the cohort is."""
    padded = len(cohort.client_hashes)
    return jax.tree.map(lambda leaf: jnp.zeros((padded, *leaf.shape), leaf.dtype), zeros)


def client_key(cohort: Cohort, index: Any) -> Key[Any, ""]:
    """The client's own key; it belongs to (seed, round, client id, occurrence), not to a place."""
    return jax.random.fold_in(cohort.key, jnp.asarray(cohort.client_hashes)[index])


def jit_round(round: Callable, platform: str | None = None, **options: Any) -> Callable:
    """A round as one compiled program.

    Args:
        round: A pure function.
        platform: For which it is compiled; default jax's.
        options: Of `jax.jit`.
    """
    if (platform or jax.default_backend()) == "cpu":
        # Here, since it loads jax.extend, a good part of what `import fedbridge` would cost.
        from fedbridge.jax_core._convolutions import jit_on_cpu

        return jit_on_cpu(round, **options)
    return jax.jit(round, **options)
