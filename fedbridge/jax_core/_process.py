"""Learning processes: state in, state out, one compiled program a round.

TFF's templates (learning/templates/{learning_process,composers}.py): the same names, the same five
fields of the state, the same tree of metrics.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from fedbridge.jax_core._aggregators import (
    Aggregator,
    AnyAggregator,
    HostAggregator,
    MeasuredProcessOutput,
)
from fedbridge.jax_core._border import (
    check_same_kinds,
    check_same_shapes,
    check_step,
    metrics_at_border,
)
from fedbridge.jax_core._client_work import ClientWork, Round, nothing_to_check
from fedbridge.jax_core._clients import ClientOutput, Execution, over_clients
from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._composed import check_parts, measured, of_client, of_server
from fedbridge.jax_core._default_execution import default_execution
from fedbridge.jax_core._errors import ArgumentError, check_argument, enough_memory
from fedbridge.jax_core._finalizer import Finalizer
from fedbridge.jax_core._fused import fused, stack
from fedbridge.jax_core._model import ModelWeights
from fedbridge.jax_core._on_host import host_round
from fedbridge.jax_core._start import Start, check_start, own_array, placing
from fedbridge.jax_core._states import check_is_state, check_state, form_of_states
from fedbridge.jax_core._steps import Client
from fedbridge.jax_core._trees import (
    check_numbers,
    from_named_leaves,
    named_leaves,
    tree_all_finite,
)
from fedbridge.jax_core.optimizers import get_hparams, set_hparams
from fedbridge.jax_core.optimizers._schedule import check_learning_rate, scheduled_in


class LearningAlgorithmState(NamedTuple):
    """TFF's state of a learning algorithm (learning/templates/composers.py).

    Attributes:
        global_model_weights: The model on the server.
        distributor: Always `()`: sending is free in one program.
        client_work: E.g. the hyperparameters of the client optimizer.
        aggregator: What the aggregation remembers.
        finalizer: E.g. the state of the server optimizer.
    """

    global_model_weights: ModelWeights
    distributor: PyTree
    client_work: PyTree
    aggregator: PyTree
    finalizer: PyTree


class LearningProcessOutput(NamedTuple):
    """TFF's output of a round."""

    state: LearningAlgorithmState
    metrics: PyTree


BeginOne = Callable[[LearningAlgorithmState, Cohort], Callable[[], LearningProcessOutput]]
Finish = Callable[[], tuple[LearningAlgorithmState, list[PyTree]]]
Begin = Callable[[LearningAlgorithmState, Sequence[Cohort]], Finish]


class LearningProcess(NamedTuple):
    """A federated algorithm.

    Attributes:
        initialize: `() -> LearningAlgorithmState`.
        next: `(state, cohort) -> LearningProcessOutput(state, metrics)`; pure, keeps its arguments.
        get_model_weights: `state -> ModelWeights`.
        set_model_weights: `(state, weights) -> state`.
        get_hparams: `state -> {"client_work": ..., "finalizer": ...}`.
        set_hparams: `(state, hparams) -> state`.
        begin: `(state, cohorts) -> finish`, and `finish() -> (state, metrics of each)`: a round for
            each cohort, which the device computes while the host goes on. Several are one call of
            one program where that is possible, see `rounds_per_call` of `fb.train`.
        place: `cohort -> cohort`: checks it and puts it where `next` takes it, which does so itself
            with a cohort that is not placed. A loop may do it while the round before runs.
        name: Of the algorithm, e.g. "fed_avg"; a file can keep it with a state, see `fb.save`.
    """

    initialize: Callable[[], LearningAlgorithmState]
    next: Callable[[LearningAlgorithmState, Cohort], LearningProcessOutput]
    get_model_weights: Callable[[LearningAlgorithmState], ModelWeights]
    set_model_weights: Callable[[LearningAlgorithmState, ModelWeights], LearningAlgorithmState]
    get_hparams: Callable[[LearningAlgorithmState], OrderedDict]
    set_hparams: Callable[[LearningAlgorithmState, Mapping], LearningAlgorithmState]
    begin: Begin
    place: Callable[[Cohort], Cohort] = lambda cohort: cohort
    name: str = ""


def compose_learning_process(
    model: Start,
    client_work: ClientWork,
    aggregator: AnyAggregator,
    finalizer: Finalizer,
    execution: Execution = default_execution,
    *,
    name: str = "",
) -> LearningProcess:
    """Composes a learning process of its parts (learning/templates/composers.py).

        each client:  result, outputs ← client work(server's weights, its batches)
                      contribution ← the aggregator's client half of the result
        the server:   update ← the aggregator's server half of the sum of contributions
                      weights ← the finalizer's step with the update

    A client whose update is not finite would spoil the sum: a client work of your own gives it
    zeros and the weight 0, as `local_training` does.

    Args:
        model: Its initial weights, and whether it knows masks.
        client_work: What a client does.
        aggregator: How the clients' updates become one.
        finalizer: What the server does with it.
        execution: How the clients run.
        name: Of the algorithm.

    Raises:
        ArgumentError: A part that is none, e.g. a function that makes one, uncalled. In a round, a
            finalizer whose step makes finite weights and a finite update into what is not.

    Example:
        An algorithm of one's own: clients send only the signs of their gradient.

        >>> import numpy as np
        >>> import fedbridge as fb
        >>> model = fb.models.softmax_regression((2,), 3, x="x", y="y")
        >>> gradient = fb.model_gradient(model)
        >>> def client(state, weights, client):
        ...     def step(seen, step):
        ...         total, count = seen
        ...         of_batch, forward = gradient(weights, weights, step)
        ...         return jax.tree.map(jnp.add, total, of_batch), count + forward.num_examples
        ...     zeros = jax.tree.map(jnp.zeros_like, weights.trainable), jnp.int32(0)
        ...     total, count = fb.over_steps(step, zeros, client)
        ...     result = fb.ClientResult(jax.tree.map(jnp.sign, total), jnp.float32(1))
        ...     return result, fb.ClientOutput({"num_examples": count})
        >>> work = fb.ClientWork(
        ...     initialize=lambda weights: (),
        ...     client=client,
        ...     server=lambda state, sums, round: (state, sums.summed))
        >>> finalizer = fb.apply_optimizer(fb.optimizers.sgdm(0.01))
        >>> process = compose_learning_process(model, work, fb.unweighted_mean(), finalizer)
        >>> arrays = {"x": np.eye(3, 2, dtype="f"), "y": np.arange(3, dtype="i4")}
        >>> data = fb.from_clients({"a": arrays})
        >>> cohort = data.cohort(["a"], fb.Batches(batch_size=2))
        >>> state, metrics = process.next(process.initialize(), cohort)
        >>> int(metrics["client_work"]["num_examples"])
        3
    """
    check_start(model)
    check_parts(client_work, aggregator, finalizer)
    for part, value, kind in (("execution", execution, Execution), ("name", name, str)):
        check_argument(isinstance(value, kind), part, value, f"of the type {kind.__name__}")

    on_host, summing = isinstance(aggregator, HostAggregator), cast(Aggregator, aggregator)

    def initialize() -> LearningAlgorithmState:
        weights = jax.tree.map(own_array, model.initial_weights)
        return LearningAlgorithmState(
            weights,
            (),
            client_work.initialize(weights),
            aggregator.initialize(getattr(weights, "trainable", weights)),
            finalizer.initialize(weights),
        )

    def round(state: LearningAlgorithmState, cohort: Cohort) -> tuple[Any, Any, Bool[Array, ""]]:
        def client_fn(server: LearningAlgorithmState, client: Client) -> ClientOutput:
            # Two keys with other parents: `split(key)[1]` is `fold_in(key, 1)`, a local step's.
            work_key, contribution_key = jax.random.split(client.key)
            own = client._replace(key=work_key)
            result, output = of_client(
                client_work.client(server.client_work, server.global_model_weights, own)
            )
            contribution = summing.client(
                server.aggregator, result.update, result.update_weight, contribution_key
            )
            return ClientOutput((contribution, output.summed), output.kept)

        work_key, aggregator_key = jax.random.split(cohort.key)
        (contributions, summed), kept = over_clients(client_fn, state, cohort, execution)
        update = measured(
            "aggregator.server(state, summed, key)",
            summing.server(state.aggregator, contributions, aggregator_key),
        )
        own_round = Round(cohort.num_clients, work_key)
        return server(state, update, ClientOutput(summed, kept), own_round)

    def server(
        state: LearningAlgorithmState,
        update: MeasuredProcessOutput,
        sums: ClientOutput,
        round: Round,
    ) -> tuple[Any, Any, Bool[Array, ""]]:
        final = measured(
            "finalizer.next(state, weights, update)",
            finalizer.next(state.finalizer, state.global_model_weights, update.result),
        )
        work_state, work_measured = of_server(client_work.server(state.client_work, sums, round))
        new_state = LearningAlgorithmState(final.result, (), work_state, update.state, final.state)
        metrics = OrderedDict(
            distributor=(),
            client_work=work_measured,
            aggregator=update.measurements,
            finalizer=final.measurements,
        )
        check_numbers("the round's metrics", metrics)
        before = state.global_model_weights, update.result
        ran_over = tree_all_finite(before) & ~tree_all_finite(final.result)
        return new_state, metrics, ran_over

    if isinstance(aggregator, HostAggregator):
        compiled = host_round(client_work, aggregator, server, execution)
    else:
        compiled = execution.compile(round)
    form = form_of_states(initialize)
    place = placing(model, execution, client_work.check_cohort)

    def begin(state: LearningAlgorithmState, cohort: Cohort) -> Callable[[], LearningProcessOutput]:
        check_state(form(), state)
        client_work.check(state.client_work)
        for optimizer in scheduled_in(state.client_work):
            check_learning_rate(optimizer)
        finalizer.check(state.finalizer)
        new_state, *measured = compiled(state, place(cohort))

        def finish() -> LearningProcessOutput:
            with enough_memory():
                metrics, ran_over = jax.device_get(measured)
            check_step(ran_over)
            return LearningProcessOutput(new_state, metrics_at_border(metrics))

        return finish

    compiled_rounds = execution.compile(fused(round))

    def begin_fused(state: LearningAlgorithmState, cohorts: Sequence[Cohort]) -> Finish | None:
        check_state(form(), state)
        # What a schedule gives is checked before every round, on the host.
        schedules = scheduled_in((state.client_work, state.finalizer))
        scheduled = schedules or client_work.check is not nothing_to_check
        stacked = None if scheduled or on_host else stack([place(cohort) for cohort in cohorts])
        if stacked is None:
            return None
        finalizer.check(state.finalizer)
        new_state, *measured = compiled_rounds(state, stacked)

        def finish() -> tuple[LearningAlgorithmState, list[PyTree]]:
            with enough_memory():
                metrics, ran_over = jax.device_get(measured)
            check_step(ran_over)
            of = lambda number: jax.tree.map(lambda leaf: leaf[number], metrics)
            return new_state, [metrics_at_border(of(number)) for number in range(len(cohorts))]

        return finish

    return learning_process(initialize, begin, place, begin_fused, name)


def one_by_one(begin: Callable[[LearningAlgorithmState, Cohort], Any]) -> Begin:
    """Several rounds, a call each: the first one begins, the others follow when it is finished."""

    def begin_all(state: LearningAlgorithmState, cohorts: Sequence[Cohort]) -> Finish:
        first, *others = cohorts
        finish_first = begin(state, first)

        def finish() -> tuple[LearningAlgorithmState, list[PyTree]]:
            current, metrics = finish_first()
            history = [metrics]
            for cohort in others:
                current, metrics = begin(current, cohort)()
                history.append(metrics)
            return current, history

        return finish

    return begin_all


def learning_process(
    initialize: Callable,
    begin: BeginOne,
    place: Callable[[Cohort], Cohort],
    begin_fused: Callable[[LearningAlgorithmState, Sequence[Cohort]], Finish | None] | None = None,
    name: str = "",
) -> LearningProcess:
    """A learning process with the usual accessors of weights and hyperparameters.

    Args:
        initialize: As in `LearningProcess`.
        begin: `(state, cohort) -> finish`, and `finish() -> LearningProcessOutput`: one round.
        place: As in `LearningProcess`.
        begin_fused: `(state, cohorts) -> finish`: several, in one call; None where they cannot be.
        name: As in `LearningProcess`.
    """

    def next(state: LearningAlgorithmState, cohort: Cohort) -> LearningProcessOutput:
        return begin(state, cohort)()

    def begin_all(state: LearningAlgorithmState, cohorts: Sequence[Cohort]) -> Finish:
        check_argument(len(cohorts) > 0, "cohorts", cohorts, "at least one cohort")
        several = begin_fused(state, cohorts) if begin_fused and len(cohorts) > 1 else None
        return several or one_by_one(begin)(state, cohorts)

    def set_weights(state: LearningAlgorithmState, weights: PyTree) -> LearningAlgorithmState:
        check_is_state(state)
        old = state.global_model_weights
        check_same_shapes(old, weights)
        check_same_kinds(old, weights)
        new = from_named_leaves(old, named_leaves(weights))
        cast = lambda leaf, like: own_array(leaf, jnp.asarray(like).dtype)
        return state._replace(global_model_weights=jax.tree.map(cast, new, old))

    def hparams_of(state: LearningAlgorithmState) -> OrderedDict:
        check_is_state(state)
        return OrderedDict(
            client_work=get_hparams(state.client_work), finalizer=get_hparams(state.finalizer)
        )

    def with_hparams(
        state: LearningAlgorithmState, hparams: Mapping[str, Mapping]
    ) -> LearningAlgorithmState:
        check_is_state(state)
        right = isinstance(hparams, Mapping)
        check_argument(right, "hparams", hparams, "a mapping of parts to their values")
        unknown = [part for part in hparams if part not in ("client_work", "finalizer")]
        if unknown:
            raise ArgumentError(
                f"hparams has the part {unknown[0]!r}; its parts are 'client_work' and 'finalizer'."
            )
        new = {
            part: set_hparams(getattr(state, part), values, f"hparams[{part!r}]")
            for part, values in hparams.items()
        }
        return state._replace(**new)

    def weights_of(state: LearningAlgorithmState) -> PyTree:
        check_is_state(state)
        return state.global_model_weights

    return LearningProcess(
        initialize,
        next,
        weights_of,
        set_weights,
        hparams_of,
        with_hparams,
        begin_all,
        place,
        name,
    )
