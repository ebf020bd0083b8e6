"""One file per paper, thin; each reads like its pseudo-code and uses `jax_core` only."""

from fedbridge.algorithms.fed_avg import fed_avg as fed_avg
from fedbridge.algorithms.fed_avg_with_schedule import (
    fed_avg_with_schedule as fed_avg_with_schedule,
)
from fedbridge.algorithms.fed_eval import fed_eval as fed_eval
from fedbridge.algorithms.fed_prox import (
    away_from_server as away_from_server,
    fed_prox as fed_prox,
    toward_server as toward_server,
)
from fedbridge.algorithms.fed_sgd import fed_sgd as fed_sgd
from fedbridge.algorithms.mime_lite import (
    mime_lite as mime_lite,
    mime_lite_with_schedule as mime_lite_with_schedule,
)
