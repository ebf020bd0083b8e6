"""Evaluation of personalization: what a client gains if it trains the server's model on.

    each client k, with the batches Tₖ to train on and Eₖ to evaluate on:
        baselineₖ ← the metrics of w on Eₖ
        each strategy s:  mₖₛ ← what s reports, from w, Tₖ and Eₖ

References:
    Wang et al., 2019. https://arxiv.org/abs/1910.10252
    TFF: learning/algorithms/personalization_eval.py
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from fedbridge.jax_core import (
    Client,
    ClientDataError,
    ClientOutput,
    Cohort,
    Execution,
    Model,
    ModelWeights,
    PerClient,
    Step,
    check_argument,
    check_function,
    check_model,
    check_numbers,
    check_of_steps,
    check_optimizer,
    check_weights,
    check_whole,
    default_execution,
    finalize_metrics,
    is_whole,
    local_evaluation,
    model_gradient,
    over_clients,
    over_steps,
    padded_clients,
    placing,
    repeated,
    to_numpy,
)

TEST = "test"

Strategy = Callable[[Model, ModelWeights, Client], PyTree]
"""`(model, weights of the server, client) -> what is reported`, a tree of arrays.

It reads the client's streams with `over_steps(..., stream="train")` and `stream="test"`.
"""


def personalization_eval(
    model: Model,
    strategies: Mapping[str, Strategy],
    baseline: Strategy | None = None,
    *,
    max_num_clients: int = 100,
    execution: Execution = default_execution,
) -> Callable[[ModelWeights, Cohort], OrderedDict[str, PyTree]]:
    """Builds the evaluation of ways to personalize a model.

    Args:
        model: The model and its metrics.
        strategies: Name to strategy; every one starts from the server's weights. `personalize` is a
            ready-made one.
        baseline: What is reported of the weights as they are; default the metrics on "test".
        max_num_clients: Of more clients than these, so many are drawn at random.
        execution: How the clients run.

    Returns:
        A function `(weights, cohort) -> metrics` of cohorts with the streams "train" and "test":
        `data.cohort(ids, {"train": ..., "test": ...})`. The metrics are
        `{"baseline_metrics": ..., name of a strategy: ...}`, each leaf `[clients, ...]`; the same
        place is the same client everywhere.

    Raises:
        ArgumentError: A strategy named "baseline_metrics", or less than one client.

    Example:
        >>> import fedbridge as fb, numpy as np
        >>> model = fb.models.softmax_regression((2,), 3, x="x", y="y")
        >>> tune = personalize(fb.optimizers.sgdm(0.1), num_epochs=4, num_epochs_per_eval=2)
        >>> evaluate = personalization_eval(model, {"tune": tune})
        >>> arrays = {"x": np.eye(3, 2, dtype="f"), "y": np.arange(3, dtype="i4")}
        >>> data = fb.from_clients({"a": arrays})
        >>> batches = fb.Batches(batch_size=2)
        >>> metrics = evaluate(
        ...     model.initial_weights, data.cohort(["a"], {"train": batches, "test": batches}))
        >>> list(metrics), list(metrics["tune"]), metrics["tune"]["num_train_examples"].tolist()
        (['baseline_metrics', 'tune'], ['epoch_2', 'epoch_4', 'num_train_examples'], [12])
    """
    check_model(model)
    named = isinstance(strategies, Mapping) and all(isinstance(name, str) for name in strategies)
    check_argument(named, "strategies", strategies, "a mapping of names to strategies")
    base = "baseline_metrics"
    others = base not in strategies
    check_argument(others, "strategies", list(strategies), f"names other than {base!r}")
    check_whole("max_num_clients", max_num_clients)
    is_one = isinstance(execution, Execution)
    check_argument(is_one, "execution", execution, "of the type Execution")
    every = OrderedDict({base: evaluate_on_test if baseline is None else baseline, **strategies})
    for name, strategy in every.items():
        called = strategy is not personalize
        shown = "baseline" if name == base else f"strategies[{name!r}]"
        check_argument(called, shown, strategy, "called, with an optimizer")
        check_function(shown, strategy, "(model, weights, client)")

    def run(weights: ModelWeights, cohort: Cohort) -> PyTree:
        def client_fn(weights: ModelWeights, client: Client) -> ClientOutput:
            keys = jax.random.split(client.key, len(every))
            reported = OrderedDict(
                (name, strategy(model, weights, client._replace(key=key)))
                for key, (name, strategy) in zip(keys, every.items(), strict=True)
            )
            check_numbers("what a strategy reports", reported)
            return ClientOutput((), reported)

        _, kept = over_clients(client_fn, weights, cohort, execution)
        return _sample(kept, cohort, max_num_clients)

    def check(cohort: Cohort) -> None:
        for strategy in every.values():
            if isinstance(strategy, Personalize):
                strategy.check_cohort(model, cohort)

    compiled = execution.compile(run)
    place = placing(model, execution, check)

    def evaluate(weights: ModelWeights, cohort: Cohort) -> OrderedDict[str, PyTree]:
        is_one = isinstance(cohort, Cohort)
        allowed = "data.cohort(client_ids, {'train': batches, 'test': batches})"
        check_argument(is_one, "cohort", cohort, allowed)
        missing = [name for name in ("train", TEST) if name not in cohort.streams]
        if missing:
            raise ClientDataError(
                f"the cohort has no stream {missing[0]!r}; personalization evaluates cohorts made "
                'by `data.cohort(ids, {"train": batches, "test": batches})`.'
            )
        weights = jax.tree.map(jnp.asarray, weights)
        check_weights(model, weights)
        return to_numpy(compiled(weights, place(cohort)))

    return evaluate


def _sample(kept: PyTree, cohort: Cohort, size: int) -> PerClient:
    """At most so many clients, drawn at random, in the order of the cohort."""
    padded = padded_clients(kept)
    real = jnp.arange(padded) < cohort.num_clients
    rank = jnp.where(real, jax.random.uniform(cohort.key, (padded,)), 2.0)
    drawn = jnp.sort(jnp.argsort(rank)[:size])
    values = jax.tree.map(lambda leaf: leaf[drawn], kept)
    return PerClient(values, jnp.minimum(cohort.num_clients, size))


def evaluate_on_test(model: Model, weights: ModelWeights, client: Client) -> PyTree:
    """The model's metrics on the client's stream "test"."""
    return finalize_metrics(model.metrics, local_evaluation(model, TEST)(weights, client))


class Personalize(NamedTuple):
    """A strategy that trains.

    Attributes:
        strategy: What it does.
        check_cohort: `(model, cohort) -> None`: raises where a schedule gives no learning rate.
    """

    strategy: Strategy
    check_cohort: Callable[[Model, Cohort], None]

    def __call__(self, model: Model, weights: ModelWeights, client: Client) -> PyTree:
        """What the strategy reports."""
        return self.strategy(model, weights, client)


def personalize(
    optimizer: optax.GradientTransformation,
    num_epochs: int = 1,
    num_epochs_per_eval: int = 1,
    *,
    train: str = "train",
    evaluate: Strategy = evaluate_on_test,
) -> Personalize:
    """Trains all weights on the client's data, and evaluates now and then.

    Args:
        optimizer: Its state starts anew on every client.
        num_epochs: How often the stream is gone through.
        num_epochs_per_eval: After every so many epochs, and after the last, the model is evaluated.
        train: The stream to train on; its batches are made where the cohort is.
        evaluate: What is reported.

    Returns:
        A strategy that reports `{"epoch_1": ..., "num_train_examples": ...}`, as that of TFF's
        example (`build_personalize_fn`) does.

    Raises:
        ArgumentError: A number of epochs below 1; with a cohort, a schedule that gives no learning
            rate in one of its steps.
    """
    for name, value in (("num_epochs", num_epochs), ("num_epochs_per_eval", num_epochs_per_eval)):
        whole = is_whole(value, 1) and value < 2**31
        check_argument(whole, name, value, f"a whole number from 1 to {2**31 - 1}")
    check_optimizer(optimizer, "optimizer")
    check_argument(isinstance(train, str), "train", train, "the name of a stream")
    check_function("evaluate", evaluate, "(model, weights, client)")
    stops = [*range(num_epochs_per_eval, num_epochs, num_epochs_per_eval), num_epochs]

    def strategy(model: Model, weights: ModelWeights, client: Client) -> OrderedDict[str, PyTree]:
        gradient = model_gradient(model)

        def step(carry: tuple[ModelWeights, PyTree, Any], step: Step) -> Any:
            local, state, seen = carry
            found, forward = gradient(weights, local, step)
            updates, state = optimizer.update(found, state, local.trainable)
            trainable = optax.apply_updates(local.trainable, updates)
            local = ModelWeights(trainable, forward.non_trainable)
            return local, state, seen + forward.num_examples

        carry = weights, optimizer.init(weights.trainable), jnp.zeros((), jnp.int32)
        reported: OrderedDict[str, PyTree] = OrderedDict()
        for done, stop in zip([0, *stops], stops, strict=False):
            train_key, test_key = jax.random.split(jax.random.fold_in(client.key, stop))
            own = client._replace(key=train_key)
            carry = over_steps(step, carry, own, stream=train, visits=repeated(stop - done))
            own = client._replace(key=test_key)
            reported[f"epoch_{stop}"] = evaluate(model, carry[0], own)
        reported["num_train_examples"] = carry[2]
        return reported

    def check_cohort(model: Model, cohort: Cohort) -> None:
        if train in cohort.streams:
            weights, every = model.initial_weights.trainable, repeated(num_epochs)
            check_of_steps(optimizer, "optimizer", weights, every, train)(cohort)

    return Personalize(strategy, check_cohort)
