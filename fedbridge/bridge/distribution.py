"""Random parts of a trace, compared by distribution: Gaussian noise, stochastic rounding.

No two libraries draw the same numbers. What the draws of a side add to a round is its result minus
that of the same round without randomness, which fedbridge computes. TFF's recorded rounds give one
sample, fedbridge's own the other, and the two-sample Kolmogorov-Smirnov test compares them. That
fedbridge's noise has the standard deviation it should have is another test (tests/).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from fedbridge import jax_core as fc
from fedbridge.bridge.judge import counter_failure, structure_failure
from fedbridge.bridge.player import Player, model_weights
from fedbridge.bridge.trace import Trace

DRAWS = 20
"""How often each recorded round is drawn here."""

# Of the spread; a draw that changes nothing is zero on one side and a few ulp on the other.
_DIGITS = 3
# What makes a part deterministic; only arguments that a description has are replaced.
_CALM = {"noise_multiplier": 0.0, "clipped_count_stddev": 0.0, "stochastic": False}


class Drawn(NamedTuple):
    """The rounds of a trace with random parts, drawn here and compared with TFF's.

    Attributes:
        p_value: Of the hypothesis that TFF's draws and fedbridge's are of one distribution: the
            smaller p-value of two two-sample Kolmogorov-Smirnov tests, of the draws and of their
            absolute values, over all weights and rounds; doubled, since there are two.
        counters: Why the counters do not agree, which nothing random touches; or None.
        structure: Why the metrics have other names or dtypes; or None.
    """

    p_value: float
    counters: str | None
    structure: str | None


def drawn(recorded: Trace) -> Drawn:
    """Draws the rounds of a trace, and compares them with TFF's.

    Args:
        recorded: A trace with a random aggregator, of training rounds only.
    """
    calm = [p._replace(model_aggregator=without_noise(p.model_aggregator))
            for p in recorded.processes]  # fmt: skip
    noisy, quiet = Player(recorded), Player(recorded._replace(processes=calm))
    theirs, ours, counters, structures = [], [], [], []
    for number, call in enumerate(recorded.calls):
        state = noisy.state(call.process, call.state_before)
        cohort = noisy.cohort(number)
        calm_state = silent(state)
        exact = quiet.play(call.process, calm_state, lambda cohort=cohort: cohort).weights
        theirs.append(_apart(model_weights(recorded.state(call.state_after)), exact))
        for draw in range(DRAWS):
            key = jax.random.fold_in(cohort.key, draw)
            again = dataclasses.replace(cohort, key=key)
            played = noisy.play(call.process, state, lambda again=again: again)
            ours.append(_apart(played.weights, exact))
        dtypes = recorded.processes[call.process].metrics_dtypes
        counters.append(counter_failure(played.metrics, call.metrics))
        structures.append(structure_failure(played.metrics, call.metrics, dtypes))
    spread = float(np.std(np.concatenate(ours))) or 1.0
    first, second = (np.round(np.concatenate(side) / spread, _DIGITS) for side in (theirs, ours))
    tests: list[Any] = [
        stats.ks_2samp(first, second),
        stats.ks_2samp(np.abs(first), np.abs(second)),
    ]
    p_value = min(1.0, 2 * min(float(test.pvalue) for test in tests))
    first_of = lambda failures: next(filter(None, failures), None)
    return Drawn(p_value, first_of(counters), first_of(structures))


def silent(state: fc.LearningAlgorithmState) -> fc.LearningAlgorithmState:
    """The state with every standard deviation of noise in it at zero."""
    zeros = {
        path: np.zeros_like(leaf) if path.endswith("/stddev") else leaf
        for path, leaf in fc.named_leaves(state).items()
    }
    return fc.from_named_leaves(state, zeros)


def without_noise(described: Any) -> Any:
    """A description of an aggregator with everything random in it replaced by what is not.

    >>> without_noise({"name": "f", "arguments": {"noise_multiplier": 0.5, "clip": 0.1}})
    {'name': 'f', 'arguments': {'noise_multiplier': 0.0, 'clip': 0.1}}
    """
    if isinstance(described, Mapping):
        calm = {key: value for key, value in _CALM.items() if described.get(key) is not None}
        return {key: without_noise(value) for key, value in described.items()} | calm
    return described


def _apart(weights: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([(weights[path] - exact[path]).ravel() for path in exact])
