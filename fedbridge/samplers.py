"""Which clients take part in a round."""

from collections.abc import Callable, Sequence

import numpy as np

from fedbridge.jax_core import ClientDataError

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

    Example:
        >>> uniform(5, seed=1)(0, [f"c{i}" for i in range(100)])
        ['c19', 'c78', 'c96', 'c16', 'c57']
    """
    start = np.random.RandomState(seed).randint(1, _MODULUS - 1)

    def sample(round: int, client_ids: Sequence[str]) -> list[str]:
        if not replace and size > len(client_ids):
            raise ClientDataError(
                f"sampler: {size} clients a round of {len(client_ids)} there are; ask for fewer, "
                "or pass replace=True."
            )
        state = pow(_MULTIPLIER, int(round), _MODULUS) * int(start) % _MODULUS
        chosen = np.random.RandomState(state).choice(len(client_ids), size, replace)
        return [client_ids[int(i)] for i in chosen]

    return sample


def all_clients(round: int, client_ids: Sequence[str]) -> list[str]:
    """Every client, in every round."""
    return list(client_ids)
