"""Which clients take part in a round.

A sampler is a pure function of the round and the list of clients: it may be asked for rounds in any
order, and from another thread, and keeps nothing between them. `seed=None` draws a seed once, when
the sampler is built.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fedbridge.jax_core import (
    ArgumentError,
    ClientDataError,
    FederatedArrays,
    check_argument,
    check_bool,
    check_function,
    check_whole,
    is_real,
    is_whole,
)

Sampler = Callable[[int, Sequence[str]], list[str]]
"""`(round, client_ids) -> the ids of the round's cohort`; rounds count from 1."""

_MODULUS, _MULTIPLIER = 2**31 - 1, 16807


def uniform(size: int, *, seed: int | None = None, replace: bool = False) -> Sampler:
    """Draws `size` clients uniformly, as TFF's `build_uniform_sampling_fn` does.

    The same seed and the same list of ids give TFF's own draws (simulation/sampling_utils.py).

    Args:
        size: Clients a round.
        seed: Of the draws; None draws anew in every run.
        replace: Whether a client may take part several times in one round.

    Raises:
        ClientDataError: More clients are asked for than there are (without replacement).
        ArgumentError: A seed that is no whole number from 0 to 2**32 - 1.

    Example:
        >>> uniform(5, seed=1)(0, [f"c{i}" for i in range(100)])
        ['c19', 'c78', 'c96', 'c16', 'c57']
    """
    _check_draw(size, seed, replace)
    fits = seed is None or seed < 2**32
    check_argument(fits, "seed", seed, "below 2**32, as NumPy's RandomState and TFF take it")
    start = np.random.RandomState(seed).randint(1, _MODULUS - 1)

    def sample(round: int, client_ids: Sequence[str]) -> list[str]:
        if size > len(client_ids) and not (replace and len(client_ids)):
            raise ClientDataError(
                f"sampler: {size} clients a round of {len(client_ids)} there are; ask for fewer, "
                "or pass replace=True."
            )
        state = pow(_MULTIPLIER, _whole(round), _MODULUS) * int(start) % _MODULUS
        chosen = np.random.RandomState(state).choice(len(client_ids), size, replace)
        return [client_ids[int(i)] for i in chosen]

    return sample


def all_clients(round: int, client_ids: Sequence[str]) -> list[str]:
    """Every client, in every round."""
    return list(client_ids)


def seeded_by_round(size: int, *, replace: bool = False) -> Sampler:
    """`np.random.RandomState(round).choice(client_ids, size, replace)`, as many scripts write it.

    Args:
        size: Clients a round.
        replace: Whether a client may take part several times in one round.

    Raises:
        ClientDataError: More clients are asked for than there are (without replacement).

    Example:
        >>> seeded_by_round(3)(1, ["a", "b", "c", "d", "e"])
        ['c', 'b', 'e']
    """
    _check_draw(size, None, replace)

    def sample(round: int, client_ids: Sequence[str]) -> list[str]:
        _enough(size, len(client_ids), replace)
        number = _whole(round, 0)
        check_argument(number < 2**32, "round", round, "below 2**32, as NumPy's RandomState takes")
        chosen = np.random.RandomState(number).choice(len(client_ids), size, replace)
        return [client_ids[int(i)] for i in chosen]

    return sample


def poisson(rate: float, *, seed: int | None = None) -> Sampler:
    """Every client takes part with probability `rate`, independently of the others.

    The cohort's size varies, and may be 0; the order is that of the client ids. The accounting of
    differential privacy by amplification assumes this sampling.

    Args:
        rate: Between 0 and 1; the mean cohort is `rate * len(client_ids)`.
        seed: Of the draws; None draws anew in every run.

    Raises:
        ArgumentError: A rate that is no probability, or a negative seed.

    Reference:
        Mironov, Talwar & Zhang, 2019, section 2. https://arxiv.org/abs/1908.10530

    Example:
        >>> poisson(1.0, seed=0)(1, ["a", "b"])
        ['a', 'b']
    """
    if not (is_real(rate) and 0 <= rate <= 1):
        raise ArgumentError(f"poisson: rate {rate} is no probability; give one from 0 to 1.")
    entropy = _entropy(seed)

    def sample(round: int, client_ids: Sequence[str]) -> list[str]:
        joins = _generator(entropy, round).random(len(client_ids)) < rate
        return [client_id for client_id, join in zip(client_ids, joins, strict=True) if join]

    return sample


def weighted_by_size(
    size: int,
    sizes: Mapping[str, float] | FederatedArrays,
    *,
    seed: int | None = None,
    replace: bool = False,
) -> Sampler:
    """Draws clients with probability proportional to their number of examples.

    Without replacement the clients are drawn one after another, each in proportion to its size
    among those that are left. With replacement and `client_weight=uniform`, a round's mean is an
    unbiased estimate of the mean weighted by examples (Li et al., scheme I).

    Args:
        size: Clients a round.
        sizes: Client id to its size; or the data, whose examples are counted.
        seed: Of the draws; None draws anew in every run.
        replace: Whether a client may take part several times in one round.

    Raises:
        ClientDataError: A client without a size, with a negative or non-finite one, or too few
            clients of a size above 0.

    Reference:
        Li et al., 2020, On the Convergence of FedAvg on Non-IID Data.
        https://arxiv.org/abs/1907.02189

    Example:
        >>> weighted_by_size(2, {"a": 5, "b": 0, "c": 5}, seed=0)(1, ["a", "b", "c"])
        ['c', 'a']
    """
    _check_draw(size, seed, replace)
    if isinstance(sizes, FederatedArrays):
        sizes = dict(zip(sizes.client_ids, np.diff(sizes.offsets).tolist(), strict=True))
    right = isinstance(sizes, Mapping)
    check_argument(right, "sizes", sizes, "a mapping of client ids to sizes, or the data")
    known, entropy = dict(sizes), _entropy(seed)
    for client_id, weight in known.items():
        if not (is_real(weight) and 0 <= weight < np.inf):
            raise ClientDataError(
                f"client {client_id!r}: its size is {weight}; give a finite one, 0 or more."
            )

    def sample(round: int, client_ids: Sequence[str]) -> list[str]:
        missing = next((i for i in client_ids if i not in known), None)
        if missing is not None:
            raise ClientDataError(
                f"client {missing!r}: the sampler has no size for it; pass `sizes` of all clients."
            )
        weights = np.array([known[i] for i in client_ids], np.float64)
        positive = int((weights > 0).sum())
        _enough(size, positive, replace)
        if size and not positive:
            raise ClientDataError("sampler: no client has examples; give `sizes` above 0.")
        if not size:
            return []
        with np.errstate(over="ignore"):
            finite = np.isfinite(weights.sum())
        if not finite:
            weights = weights / weights.max() / len(weights)
        chosen = _generator(entropy, round).choice(
            len(client_ids), size, replace, weights / weights.sum()
        )
        return [client_ids[int(i)] for i in chosen]

    return sample


def fixed(cohort: Sequence[str]) -> Sampler:
    """The same clients in every round, in this order.

    Raises:
        ClientDataError: One of them is not among the clients.

    Example:
        >>> fixed(["b", "a"])(7, ["a", "b", "c"])
        ['b', 'a']
    """
    if isinstance(cohort, str):
        raise ClientDataError(f"fixed: {cohort!r} is one client id; pass [{cohort!r}].")
    listed = isinstance(cohort, Sequence) and all(isinstance(i, str) for i in cohort)
    check_argument(listed, "cohort", cohort, "a list of client ids")
    chosen = list(cohort)

    def sample(round: int, client_ids: Sequence[str]) -> list[str]:
        there = set(client_ids)
        unknown = next((i for i in chosen if i not in there), None)
        if unknown is not None:
            raise ClientDataError(
                f"client {unknown!r}: there is no such client; take it out of the fixed list."
            )
        return list(chosen)

    return sample


def round_robin(size: int) -> Sampler:
    """The clients in turn: round 1 takes the first `size` of them, round 2 the next, and so on.

    After the last client the first one follows, in the same round.

    Raises:
        ClientDataError: More clients are asked for than there are.

    Example:
        >>> [round_robin(2)(round, ["a", "b", "c"]) for round in (1, 2, 3)]
        [['a', 'b'], ['c', 'a'], ['b', 'c']]
    """
    check_whole("size", size, 0)

    def sample(round: int, client_ids: Sequence[str]) -> list[str]:
        _enough(size, len(client_ids), replace=False)
        start = (_whole(round) - 1) * size
        return [client_ids[(start + i) % len(client_ids)] for i in range(size)]

    return sample


def available(
    trace: Mapping[str, Sequence[tuple[int, int]]], sampler: Sampler, *, period: int | None = None
) -> Sampler:
    """Lets a sampler choose among the clients that an availability trace has in that round.

    Args:
        trace: Client id to the intervals `(start, stop)` of rounds in which it can take part,
            `stop` excluded. A client that is not named is never available.
        sampler: Chooses among those that are there.
        period: The trace repeats after so many rounds: round r is looked up as `r % period`.

    Raises:
        ClientDataError: An interval that ends before it begins; or what `sampler` raises.
        ArgumentError: A period below 1.

    Example:
        >>> day_and_night = {"a": [(0, 12)], "b": [(12, 24)]}
        >>> [available(day_and_night, all_clients, period=24)(r, ["a", "b"]) for r in (3, 36)]
        [['a'], ['b']]
    """
    check_argument(
        isinstance(trace, Mapping), "trace", trace, "a mapping of client ids to intervals"
    )
    check_function("sampler", sampler, "(round, client ids)")
    if period is not None:
        check_whole("period", period)
    kept = {client_id: _intervals(client_id, given) for client_id, given in trace.items()}
    for client_id, intervals in kept.items():
        for start, stop in intervals:
            if stop < start:
                raise ClientDataError(
                    f"client {client_id!r}: the interval ({start}, {stop}) of its trace ends "
                    "before it begins; give (start, stop), stop excluded."
                )

    def sample(round: int, client_ids: Sequence[str]) -> list[str]:
        at = _whole(round) if period is None else _whole(round) % period
        there = [
            i for i in client_ids if any(start <= at < stop for start, stop in kept.get(i, ()))
        ]
        return sampler(round, there)

    return sample


def _intervals(client_id: str, given: Any) -> tuple[tuple[int, int], ...]:
    try:
        pairs = tuple((start, stop) for start, stop in given)
    except (TypeError, ValueError):
        pairs = None
    if pairs is None or not all(is_real(end) and end == end for pair in pairs for end in pair):
        raise ClientDataError(
            f"client {client_id!r}: its trace is {given!r}; give a list of intervals (start, stop)"
            " of rounds."
        )
    return pairs


def _enough(size: int, there: int, replace: bool) -> None:
    if size < 0 or (size > there and not (replace and there)):
        raise ClientDataError(
            f"sampler: {size} clients a round of {there} there are to choose from; ask for fewer"
            f"{'' if replace else ', or draw with replacement where the sampler can'}."
        )


def _check_draw(size: object, seed: object, replace: object) -> None:
    check_whole("size", size, 0)
    check_bool("replace", replace)
    _check_seed(seed)


def _check_seed(seed: object) -> None:
    right = seed is None or is_whole(seed, 0)
    check_argument(right, "seed", seed, "a whole number of at least 0, or None for one drawn now")


def _entropy(seed: int | None) -> int:
    """The seed, or one drawn now."""
    _check_seed(seed)
    return int(np.random.SeedSequence(seed).entropy)  # pyright: ignore[reportArgumentType]


def _generator(entropy: int, round: int) -> np.random.Generator:
    return np.random.default_rng([entropy, _whole(round, 0)])


def _whole(round: Any, least: float = -np.inf) -> int:
    """The number of a round, which may be an integer of NumPy or JAX."""
    try:
        number = operator.index(round)
    except TypeError:
        raise ArgumentError(f"round is {round!r}; it must be a whole number.") from None
    check_argument(number >= least, "round", round, f"a whole number of at least {least}")
    return number
