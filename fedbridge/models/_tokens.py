"""What the models of the next token share: Keras' recurrent layer and mask, losses, metrics.

A token 0 pads. Where one is to be predicted counts for nothing in the metrics, and in the loss as
its `SequenceLoss` says.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from fedbridge.jax_core import (
    Batch,
    ClientDataError,
    Cohort,
    Forward,
    Metric,
    Model,
    ModelWeights,
    check_argument,
    check_labels,
    is_real,
    lstm,
    metrics,
)
from fedbridge.models._from_flax import check_features, in_dtype, initial_variables
from fedbridge.models._keras import in_keras_order

PAD = 0

Losses = Float[Array, "batch steps"]
Tokens = Bool[Array, "batch steps"]
Rows = Float[Array, " batch"]
SequenceLoss = Callable[[Losses, Tokens], tuple[Rows, Rows]]
"""`(losses, tokens) -> (sums, counts)`, [batch] each: a batch's loss is Σ sums / Σ counts of its
real rows. `losses` are cross-entropies, `tokens` is False where padding is to be predicted."""


def mean_over_tokens(losses: Losses, tokens: Tokens) -> tuple[Rows, Rows]:
    """The mean over all tokens of a batch that are to be predicted.

    Example:
        >>> losses, tokens = jnp.asarray([[3.0, 1.0], [5.0, 9.0]]), jnp.asarray([[1, 1], [1, 0]])
        >>> sums, counts = mean_over_tokens(losses, tokens == 1)
        >>> float(sums.sum() / counts.sum())
        3.0
    """
    return jnp.where(tokens, losses, 0.0).sum(1), tokens.sum(1).astype(losses.dtype)


def mean_over_positions(losses: Losses, tokens: Tokens) -> tuple[Rows, Rows]:
    """The mean over all positions, padding included: what TFF's tasks compute.

    Keras' mask is lost between TFF's model and its loss.
    """
    return losses.mean(1), jnp.ones(len(losses), losses.dtype)


def mean_over_sentences(expected_length: float) -> SequenceLoss:
    """The mean over sentences of the sum over their tokens, over an expected length: FedJAX's.

    FedJAX has an expected length of 13.3 for Stack Overflow and of 80 for Shakespeare.

    Raises:
        ArgumentError: A length that is no number above 0.
    """
    right = is_real(expected_length) and 0 < float(expected_length) < math.inf
    check_argument(right, "expected_length", expected_length, "a number above 0")

    def loss(losses: Losses, tokens: Tokens) -> tuple[Rows, Rows]:
        sums, _ = mean_over_tokens(losses, tokens)
        return sums / expected_length, jnp.ones(len(losses), losses.dtype)

    return loss


class LSTM(nn.Module):
    """Keras' layer: its weights and how they start; from [steps, batch, _] to [.., units]."""

    units: int
    kernel_init: Any = nn.initializers.glorot_uniform()

    @nn.compact
    def __call__(self, inputs):
        gates = 4 * self.units
        kernel = self.param("kernel", self.kernel_init, (inputs.shape[-1], gates))
        recurrent = self.param(
            "recurrent_kernel", nn.initializers.orthogonal(), (self.units, gates)
        )
        bias = self.param("bias", self._forget_nothing)
        return lstm(inputs @ kernel + bias[None, None], recurrent)

    def _forget_nothing(self, key):
        return jnp.zeros((4, self.units)).at[1].set(1.0).reshape(-1)


def embedding(num_ids: int, size: int) -> nn.Embed:
    """Keras' layer, which starts flat in [-0.05, 0.05]."""
    uniform = lambda *args: jax.random.uniform(*args, minval=-0.05, maxval=0.05)
    return nn.Embed(num_ids, size, embedding_init=uniform)


Outputs = Float[Array, "steps batch units"]


def without_padding(
    tokens: Int[Any, "batch steps"],
) -> tuple[Int[Array, "batch steps"], Callable[[Outputs], Outputs]]:
    """Tokens with the padding moved behind them, and what brings the outputs back to their places.

    With `mask_zero` a recurrent layer of Keras does not step where a token is 0: its state stays,
    and its output is the one before, zeros before the first. The same outputs come of a loop that
    knows no mask, over the tokens without the zeros: each place takes the output of the last token
    up to it.

    Example:
        >>> moved, back = without_padding(jnp.asarray([[0, 7, 0, 8]]))
        >>> moved.tolist(), back(jnp.asarray([1.0, 2, 3, 4]).reshape(4, 1, 1))[:, 0, 0].tolist()
        ([[7, 8, 0, 0]], [0.0, 1.0, 1.0, 2.0])
    """
    shown = tokens != PAD
    last = (jnp.cumsum(shown, axis=1) - 1).T[..., None]

    def back(outputs: Outputs) -> Outputs:
        found = jnp.take_along_axis(outputs, jnp.maximum(last, 0), axis=0)
        return jnp.where(last < 0, 0.0, found)

    order = jnp.argsort(~shown, axis=1, stable=True)
    return jnp.take_along_axis(tokens, order, axis=1), back


def next_token_model(
    module: nn.Module,
    num_ids: int,
    loss: SequenceLoss,
    accuracies: Mapping[str, tuple[int, ...]],
    *,
    x: str,
    y: str,
    compute_dtype: Any,
    seed: int,
) -> Model:
    """The `Model` of a module from tokens [batch, steps] to logits [batch, steps, num_ids].

    Args:
        module: It makes its weights in Keras' order.
        num_ids: All tokens are below.
        loss: Of the tokens to predict.
        accuracies: Name to the tokens that do not count, besides the padding.
        x: The feature that holds the tokens before.
        y: The feature that holds the tokens to predict.
        compute_dtype: As in `from_flax`.
        seed: Of the initial weights.
    """
    check_features(x, y)
    variables = initial_variables(module, seed, np.zeros((1, 1), np.int32))

    def forward(
        weights: ModelWeights, batch: Batch, mask: Any, key: Any, training: bool
    ) -> Forward:
        params = in_dtype(compute_dtype, weights.trainable)
        predictions = in_dtype(jnp.float32, module.apply({"params": params}, batch[x]))
        losses = optax.softmax_cross_entropy_with_integer_labels(predictions, batch[y])
        real = jnp.ones(len(losses), bool) if mask is None else mask
        sums, counts = (jnp.where(real, each, 0.0) for each in loss(losses, _to_predict(batch[y])))
        mean = sums.sum() / jnp.maximum(counts.sum(), 1.0)
        return Forward(mean, predictions, mean, real.sum(dtype=jnp.int32), weights.non_trainable)

    def num_classes(batch: Batch) -> int:
        if x not in batch:
            return num_ids  # `check_labels` names it
        if batch[x].ndim != 2 or batch[x].shape != batch[y].shape:
            raise ClientDataError(
                f"features {x!r} and {y!r} of the cohort: an example has the shapes "
                f"{batch[x].shape[1:]} and {batch[y].shape[1:]}, and the model wants as many "
                "tokens to predict as there are before them; cut them with `data.map_batches`."
            )
        return num_ids

    def check(cohort: Cohort) -> None:
        check_labels(cohort, y, num_classes)
        check_labels(cohort, x, num_classes)

    of = metrics.outcomes(y)
    reported = OrderedDict(num_tokens=metrics.num_tokens_counter(of, [PAD]))
    for name, tokens in accuracies.items():
        reported[name] = metrics.masked_accuracy(of, (PAD, *tokens))
    reported |= {
        "loss": _loss_metric(loss, y),
        "num_examples": metrics.num_examples_counter(),
        "num_batches": metrics.num_batches_counter(),
    }
    initial = ModelWeights(variables["params"], {})
    return in_keras_order(Model(initial, forward, reported, check=check))


def _to_predict(labels: Any) -> Tokens:
    return jnp.asarray(labels) != PAD


def _loss_metric(loss: SequenceLoss, y: str) -> Metric:
    """Σ sums / Σ counts over all batches."""

    def terms(batch: Batch, forward: Forward, mask: Any) -> metrics.MeanAccumulator:
        _, counts = loss(jnp.zeros(batch[y].shape), _to_predict(batch[y]))
        count = jnp.where(mask, counts, 0.0).sum()
        return metrics.MeanAccumulator(forward.metric_loss * count, count)

    return metrics.sum_of(
        terms, lambda seen: metrics.divide_no_nan(*seen), metrics.MeanAccumulator(0.0, 0.0)
    )
