"""One file per paper, thin; each reads like its pseudo-code and uses `jax_core` only."""

from fedbridge.algorithms.fed_avg import fed_avg as fed_avg
from fedbridge.algorithms.fed_eval import fed_eval as fed_eval
