"""A round whose aggregator sees every client's value, on the host.

It is two programs, with the aggregation between them; what the clients give is kept for
each of them, so memory grows with the cohort.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from fedbridge.jax_core._aggregators import HostAggregator, MeasuredProcessOutput
from fedbridge.jax_core._client_work import ClientWork, Round
from fedbridge.jax_core._clients import ClientOutput, Execution, over_clients
from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._composed import of_client
from fedbridge.jax_core._steps import Client


def host_round(
    client_work: ClientWork, aggregator: HostAggregator, server: Callable, execution: Execution
) -> Callable[[Any, Cohort], tuple[Any, Any, Any]]:
    """A round whose aggregation is on the host.

    Args:
        client_work: What a client does.
        aggregator: How the clients' updates become one.
        server: `(state, update, sums, round) -> (state, metrics, ran_over)`: what follows.
        execution: How the clients run.

    Returns:
        `(state, placed cohort) -> (state, metrics, ran_over)`.
    """

    def clients(state: Any, cohort: Cohort) -> tuple[PyTree, PyTree]:
        def client_fn(server: Any, client: Client) -> ClientOutput:
            work_key, _ = jax.random.split(client.key)  # as where the aggregation is compiled
            own = client._replace(key=work_key)
            result, output = of_client(
                client_work.client(server.client_work, server.global_model_weights, own)
            )
            return ClientOutput(output.summed, (result, output.kept))

        return over_clients(client_fn, state, cohort, execution)

    compiled_clients, compiled_server = execution.compile(clients), execution.compile(server)

    def round(state: Any, cohort: Cohort) -> tuple[Any, Any, Any]:
        inside = state._replace(aggregator=())
        sums, (results, kept) = compiled_clients(inside, cohort)
        result = jax.device_get(results)
        one = lambda number, tree: jax.tree.map(lambda leaf: leaf[number], tree)
        of = lambda tree: [one(number, tree) for number in range(int(cohort.num_clients))]
        weights = state.global_model_weights
        template = getattr(weights, "trainable", weights)
        found = aggregator.next(
            state.aggregator, template, of(result.update), of(result.update_weight)
        )
        update = MeasuredProcessOutput((), found.result, ())
        own_round = Round(cohort.num_clients, jax.random.split(cohort.key)[0])
        new_state, metrics, ran_over = compiled_server(
            inside, update, ClientOutput(sums, kept), own_round
        )
        measured = OrderedDict(jax.device_get(metrics), aggregator=found.measurements)
        return new_state._replace(aggregator=found.state), measured, ran_over

    return round
