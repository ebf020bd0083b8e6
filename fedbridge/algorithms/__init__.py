"""One file per paper, thin; each reads like its pseudo-code and uses `jax_core` only."""

from fedbridge.algorithms.fed_avg import fed_avg as fed_avg
from fedbridge.algorithms.fed_avg_with_schedule import (
    fed_avg_with_schedule as fed_avg_with_schedule,
)
from fedbridge.algorithms.fed_eval import fed_eval as fed_eval, fed_multi_eval as fed_multi_eval
from fedbridge.algorithms.fed_kmeans import fed_kmeans as fed_kmeans
from fedbridge.algorithms.fed_prox import (
    away_from_server as away_from_server,
    fed_prox as fed_prox,
    toward_server as toward_server,
)
from fedbridge.algorithms.fed_recon import (
    fed_recon as fed_recon,
    fed_recon_eval as fed_recon_eval,
)
from fedbridge.algorithms.fed_sgd import fed_sgd as fed_sgd
from fedbridge.algorithms.mime_lite import (
    mime_lite as mime_lite,
    mime_lite_with_schedule as mime_lite_with_schedule,
)
from fedbridge.algorithms.personalization_eval import (
    Strategy as Strategy,
    evaluate_on_test as evaluate_on_test,
    personalization_eval as personalization_eval,
    personalize as personalize,
)
