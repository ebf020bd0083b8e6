"""Federated k-means: mini-batch k-means, whose mini-batch are the points of all clients of a round.

    each round t, with centroids c₁ … c_K and how many points v₁ … v_K they have had so far:
        each client k:
            each point x of client k:  j ← argminⱼ ‖x − cⱼ‖²,  sₖⱼ ← sₖⱼ + x,  nₖⱼ ← nₖⱼ + 1
        sⱼ ← Σₖ sₖⱼ,  nⱼ ← Σₖ nₖⱼ
        cⱼ ← (vⱼ cⱼ + sⱼ) / (vⱼ + nⱼ),  vⱼ ← vⱼ + nⱼ

References:
    Sculley, 2010. https://dl.acm.org/doi/10.1145/1772690.1772862
    TFF: learning/algorithms/kmeans_clustering.py
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from fedbridge.jax_core import (
    Aggregator,
    ArgumentError,
    Client,
    ClientDataError,
    ClientOutput,
    ClientResult,
    ClientWork,
    Cohort,
    Execution,
    Finalizer,
    LearningProcess,
    MeasuredProcessOutput,
    NonFinite,
    Round,
    Step,
    check_argument,
    check_non_finite,
    check_shape,
    compose_learning_process,
    default_execution,
    drop_non_finite,
    is_whole,
    metrics,
    over_steps,
    stateless_normal,
    sum_or,
    tree_add,
    tree_all_finite,
    tree_zeros_like,
)

_MOST_BYTES = 2**30


class _Centroids(NamedTuple):
    """What a process must know of its model: a `Start`."""

    initial_weights: Float[np.ndarray, "clusters ..."]
    check: Callable[[Cohort], None]
    masked: bool = True


def fed_kmeans(
    num_clusters: int,
    data_shape: tuple[int, ...],
    random_seed: tuple[int, int] | None = None,
    *,
    feature: str = "x",
    sum_aggregator: Aggregator | None = None,
    non_finite: NonFinite = drop_non_finite,
    execution: Execution = default_execution,
) -> LearningProcess:
    """Builds federated k-means.

    Args:
        num_clusters: K.
        data_shape: The shape of one point, `()` for numbers.
        random_seed: Of the first centroids, which are normal with the variance 1 and, with the same
            seed, TFF's; default the time.
        feature: The feature of the batches that holds the points.
        sum_aggregator: Reduces the (sₖ, nₖ); default `sum_()`.
        non_finite: By default, a client with a point that is not finite does not count. TFF's way
            is `keep_non_finite`: its NaN goes to the first centroid and stays there.
        execution: How the clients run.

    Returns:
        A process whose weights are the centroids, `[clusters, *data_shape]`, and whose state of the
        finalizer are the vⱼ, which start from 1. Its only metric is `client_work/num_examples`.

    Raises:
        ArgumentError: Fewer than one cluster, a shape or a seed that is none, or more than 1
            GiB of them; a `sum_aggregator` that is a mean.

    Example:
        >>> import fedbridge as fb
        >>> process = fed_kmeans(num_clusters=2, data_shape=(), random_seed=(1, 2))
        >>> start = np.array([0.0, 10.0], np.float32)
        >>> state = process.set_model_weights(process.initialize(), start)
        >>> data = fb.from_clients({"a": {"x": np.array([1, 8, 3], "f")}})
        >>> cohort = data.cohort(["a"], fb.Batches(batch_size=3))
        >>> state, metrics = process.next(state, cohort)
        >>> state.global_model_weights.tolist(), state.finalizer.tolist()
        ([1.3333333730697632, 9.0], [3.0, 2.0])
    """
    _check_arguments(num_clusters, data_shape, random_seed)
    check_argument(isinstance(feature, str), "feature", feature, "the name of a feature")
    check_non_finite(non_finite)
    shape = (num_clusters, *data_shape)
    seed = random_seed or (int(time.time() * 100_000), 0)  # TFF's default
    aggregator = sum_or("sum_aggregator", sum_aggregator)
    if sum_aggregator is not None:
        _check_sums(aggregator)
    ones = jnp.ones(num_clusters, jnp.float32)

    def client(
        state: PyTree, centroids: PyTree, client: Client
    ) -> tuple[ClientResult, ClientOutput]:
        def step(seen: PyTree, step: Step) -> PyTree:
            (sums, counts), total = seen
            points = jnp.asarray(step.batch[feature]).astype(jnp.float32)
            real = jnp.ones(len(points), jnp.float32)
            real = real if step.mask is None else step.mask.astype(jnp.float32)
            points = jnp.where(_like(real, points) > 0, points, 0.0)
            nearest = _nearest(points, centroids)
            added = sums.at[nearest].add(points), counts.at[nearest].add(real)
            return added, total + real.sum()

        zeros = (tree_zeros_like(centroids), tree_zeros_like(ones)), jnp.zeros((), jnp.float32)
        found = over_steps(step, zeros, client)
        update, total = non_finite(tree_all_finite(found), found, zeros)
        weight = jnp.ones((), jnp.float32)  # sums have no weights
        return ClientResult(update, weight), ClientOutput(OrderedDict(num_examples=total))

    def server(state: PyTree, sums: ClientOutput, round: Round) -> tuple[PyTree, PyTree]:
        return state, sums.summed

    def move(counts: PyTree, centroids: PyTree, update: PyTree) -> MeasuredProcessOutput:
        new_sums, new_counts = update
        total = counts + new_counts
        stay = metrics.divide_no_nan(counts, total)
        scale = metrics.divide_no_nan((new_counts > 0).astype(jnp.float32), total)
        moved = _like(stay, centroids) * centroids + _like(scale, centroids) * new_sums
        return MeasuredProcessOutput(total, moved, ())

    def check(cohort: Cohort) -> None:
        batch: Any = jax.eval_shape(cohort.batch, jnp.zeros(1, jnp.int32))
        found = f"none, among {sorted(batch)}"
        if feature in batch:
            found = f"points of shape {batch[feature].shape[1:]}"
        if feature not in batch or batch[feature].shape[1:] != data_shape:
            raise ClientDataError(
                f"feature {feature!r} of the cohort: k-means wants points of shape {data_shape}, "
                f"and there are {found}; name or shape them with `data.map_batches`."
            )

    return compose_learning_process(
        _Centroids(stateless_normal(shape, seed), check),
        ClientWork(lambda centroids: (), client, server),
        aggregator._replace(initialize=lambda centroids: aggregator.initialize((centroids, ones))),
        Finalizer(lambda centroids: ones, move),
        execution,
        name="fed_kmeans",
    )


def _nearest(
    points: Float[Array, "batch ..."], centroids: Float[Array, "clusters ..."]
) -> Int[Array, " batch"]:
    """The first of the nearest centroids; a distance that is NaN is the farthest, as in TFF."""
    apart = centroids[None] - points[:, None]
    distances = jnp.sum(apart * apart, axis=tuple(range(2, apart.ndim)))
    return jnp.argmin(jnp.where(jnp.isnan(distances), jnp.inf, distances), axis=1)


def _like(scale: Float[Array, " first"], values: Float[Array, "first ..."]) -> Array:
    """One number for each entry of the first axis, to be multiplied with the values."""
    return scale.reshape(scale.shape + (1,) * (values.ndim - 1))


def _check_arguments(num_clusters: Any, data_shape: Any, random_seed: Any) -> None:
    check_argument(
        is_whole(num_clusters, 1), "num_clusters", num_clusters, "a whole number above 0"
    )
    check_shape("data_shape", data_shape)
    most = _MOST_BYTES // (4 * math.prod(data_shape))
    check_argument(
        num_clusters <= most,
        "num_clusters",
        num_clusters,
        f"at most {most}: more centroids of the shape {data_shape} take more than 1 GiB, and a "
        "round several times as much",
    )
    seed = isinstance(random_seed, tuple) and len(random_seed) == 2
    seed = random_seed is None or (
        seed and all(is_whole(number, -(2**63)) for number in random_seed)
    )
    check_argument(seed, "random_seed", random_seed, "two whole numbers, or None for the time")


def _check_sums(aggregator: Aggregator) -> None:
    """Refuses what does not grow with the number of clients, such as a mean."""
    one, key = jnp.ones((), jnp.float32), jax.random.key(0)
    state = aggregator.initialize(one)
    told = aggregator.client(state, one, one, key)
    of_one = aggregator.server(state, told, key).result
    of_two = aggregator.server(state, tree_add(told, told), key).result
    # What gives nothing at all, where it zeroes the norm of one, is no mean.
    if float(of_one) == float(of_two) != 0:
        raise ArgumentError(
            "sum_aggregator gives for two equal clients what it gives for one; it must be a sum, "
            "e.g. fb.aggregators.sum_()."
        )
