"""Building blocks of metrics: pure functions that are summed over batches and clients.

`sum_of` and `mean_of` make a metric of one's own functions; the others are Keras' and TFF's, under
their names and with their variables, to the last digit.
"""

from fedbridge.jax_core.metrics._auc import auc as auc
from fedbridge.jax_core.metrics._confusion import (
    Confusion as Confusion,
    Outcomes as Outcomes,
    best_at as best_at,
    confusion_count as confusion_count,
    outcomes as outcomes,
    precision as precision,
    precision_rate as precision_rate,
    recall as recall,
    recall_rate as recall_rate,
    specificity_rate as specificity_rate,
)
from fedbridge.jax_core.metrics._scores import f_beta_score as f_beta_score, r2_score as r2_score
from fedbridge.jax_core.metrics._sums import (
    MeanAccumulator as MeanAccumulator,
    divide_no_nan as divide_no_nan,
    masked_total as masked_total,
    mean_loss as mean_loss,
    mean_of as mean_of,
    mean_of_batches as mean_of_batches,
    num_batches_counter as num_batches_counter,
    num_examples_counter as num_examples_counter,
    sum_of as sum_of,
)
from fedbridge.jax_core.metrics._tokens import (
    highest as highest,
    in_top_k as in_top_k,
    masked_accuracy as masked_accuracy,
    num_tokens_counter as num_tokens_counter,
)
