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
from fedbridge.jax_core._errors import enough_memory
from fedbridge.jax_core._parts import CohortInParts, first_half, leave_or_go_on, run_in_parts
from fedbridge.jax_core._place import on_one_device, place
from fedbridge.jax_core._steps import Client


class ClientOutput(NamedTuple):
    """What a client gives.

    Attributes:
        summed: Reduced over clients: weighted updates, weights, sums of metrics, counts.
        kept: Kept for each client: `[clients, ...]` afterwards, padded as the cohort is; a
            `PerClient(kept, round.num_clients)` among the measurements is cut to the real ones.
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
            `jax.jit`, or itself. What it makes places cohorts that are not.
        place: Puts a cohort where the round takes it.
    """

    over_clients: OverClients
    compile: Callable[[Callable], Callable]
    place: Callable[[Cohort], Cohort] = place


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
    run = lambda: execution.over_clients(client_fn, server_values, cohort)
    return leave_or_go_on(cohort, run)


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


class JittedRound:
    """A round as one compiled program; what is not where it runs yet is put there.

    Args:
        round: A pure function.
        place: As in `Execution`.
        put: The same for the other arguments.
        platform: For which it is compiled; default jax's.
        options: Of `jax.jit`.
    """

    def __init__(
        self,
        round: Callable,
        place: Callable[[Cohort], Cohort] = place,
        put: Callable[[PyTree], PyTree] = on_one_device,
        platform: str | None = None,
        **options: Any,
    ):
        jit = jax.jit
        if (platform or jax.default_backend()) == "cpu":
            # Here, since it loads jax.extend, a good part of what `import fedbridge` would cost.
            from fedbridge.jax_core._convolutions import jit_on_cpu as jit
        self._jitted = jit(round, **options)
        self._first_half = jit(first_half(round), **options)
        self._place, self._put = place, put

    def __call__(self, *args: Any) -> Any:
        with enough_memory():
            return self._run(*args)

    def _run(self, *args: Any) -> Any:
        placed = [self._placed(arg) for arg in args]
        in_parts = [i for i, arg in enumerate(placed) if isinstance(arg, CohortInParts)]
        if not in_parts:
            return self._jitted(*placed)
        (at,) = in_parts
        with_cohort = lambda fn: lambda cohort: fn(*placed[:at], cohort, *placed[at + 1 :])
        return run_in_parts(with_cohort(self._first_half), with_cohort(self._jitted), placed[at])

    def lower(self, *args: Any) -> Any:
        """Of `jax.jit`."""
        return self._jitted.lower(*map(self._placed, args))

    def _placed(self, arg: Any) -> Any:
        if not isinstance(arg, Cohort):
            return self._put(arg)
        return arg if arg.placed else self._place(arg)


def jit_round(round: Callable) -> Callable:
    """A round as one compiled program on one device."""
    return JittedRound(round)
