"""The model for the next word of Stack Overflow's questions and answers."""

from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from fedbridge.jax_core import (
    Batch,
    ClientDataError,
    Cohort,
    Forward,
    Metric,
    Model,
    ModelWeights,
    check_labels,
    lstm,
    metrics,
)
from fedbridge.models._from_flax import in_dtype

_PAD = 0
_SPECIAL = 4  # padding, out of vocabulary, beginning and end of a sentence


class _LSTM(nn.Module):
    units: int

    @nn.compact
    def __call__(self, inputs):
        """From `[steps, batch, features]` to `[steps, batch, units]`."""
        gates = 4 * self.units
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (inputs.shape[-1], gates))
        recurrent = self.param(
            "recurrent_kernel", nn.initializers.orthogonal(), (self.units, gates)
        )
        bias = self.param("bias", self._forget_nothing)
        return lstm(inputs @ kernel + bias[None, None], recurrent)

    def _forget_nothing(self, key):
        return jnp.zeros((4, self.units)).at[1].set(1.0).reshape(-1)


class _NextWord(nn.Module):
    num_ids: int
    embedding_size: int
    lstm_size: int

    @nn.compact
    def __call__(self, tokens):
        """From `[batch, steps]` to `[batch, steps, ids]`."""
        uniform = lambda *args: jax.random.uniform(*args, minval=-0.05, maxval=0.05)
        embed = nn.Embed(self.num_ids, self.embedding_size, embedding_init=uniform)
        outputs = _LSTM(self.lstm_size)(embed(tokens.T))
        hidden = nn.Dense(self.embedding_size)(outputs).swapaxes(0, 1)
        return nn.Dense(self.num_ids)(hidden)


def stackoverflow_lstm(
    vocab_size: int = 10_000,
    embedding_size: int = 96,
    lstm_size: int = 670,
    *,
    x: str = "x",
    y: str = "y",
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """The LSTM of Reddi et al. (2021) for the next word: 4,050,748 parameters.

    The layers and initializers are those of TFF's `create_recurrent_model`
    (simulation/baselines/stackoverflow/word_prediction_models.py), the ids those of its data: 0
    pads, 1 to `vocab_size` are words, then out of vocabulary, beginning and end of a sentence.

    Padding counts for nothing, in the loss as in the metrics: the objective is the mean over the
    tokens of a batch that are to be predicted. (TFF's task loses Keras' mask, and its loss is the
    mean over all positions.)

    Args:
        vocab_size: The number of words.
        embedding_size: Of the embedding, and of the layer after the LSTM.
        lstm_size: The units of the LSTM.
        x: The feature that holds the tokens before, `[batch, steps]`.
        y: The feature that holds the tokens to predict, `[batch, steps]`.
        compute_dtype: As in `from_flax`.
        seed: Of the initial weights.

    Example:
        >>> import fedbridge as fb
        >>> model = fb.models.stackoverflow_lstm(vocab_size=5, embedding_size=2, lstm_size=3)
        >>> batch = {"x": jnp.asarray([[7, 2, 0]]), "y": jnp.asarray([[2, 8, 0]])}
        >>> forward = model.forward(
        ...     model.initial_weights, batch, jnp.asarray([True]), jax.random.key(0), False)
        >>> forward.predictions.shape, int(forward.num_examples)
        ((1, 3, 9), 1)
    """
    num_ids = vocab_size + _SPECIAL
    out_of_vocab, end_of_sentence = vocab_size + 1, vocab_size + 3
    module = _NextWord(num_ids, embedding_size, lstm_size)
    variables = jax.jit(module.init)(jax.random.key(seed), np.zeros((1, 1), np.int32))

    def forward(
        weights: ModelWeights, batch: Batch, mask: Any, key: Any, training: bool
    ) -> Forward:
        params = in_dtype(compute_dtype, weights.trainable)
        predictions = in_dtype(jnp.float32, module.apply({"params": params}, batch[x]))
        losses = optax.softmax_cross_entropy_with_integer_labels(predictions, batch[y])
        real = jnp.ones(len(losses), bool) if mask is None else mask
        counting = real[:, None] & (batch[y] != _PAD)
        total = jnp.where(counting, losses, 0.0).sum()
        mean = total / jnp.maximum(counting.sum(), 1).astype(losses.dtype)
        return Forward(mean, predictions, mean, real.sum(dtype=jnp.int32), weights.non_trainable)

    def accuracy(*masked_tokens: int) -> Metric:
        return metrics.masked_accuracy(metrics.outcomes(y), (_PAD, *masked_tokens))

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

    return Model(
        ModelWeights(jax.tree.map(np.asarray, variables["params"]), {}),
        forward,
        OrderedDict(
            num_tokens=metrics.num_tokens_counter(metrics.outcomes(y), [_PAD]),
            accuracy=accuracy(),
            accuracy_without_out_of_vocab=accuracy(out_of_vocab),
            accuracy_without_out_of_vocab_or_end_of_sentence=accuracy(
                out_of_vocab, end_of_sentence
            ),
            loss=_loss(y),
            num_examples=metrics.num_examples_counter(),
            num_batches=metrics.num_batches_counter(),
        ),
        check=check,
    )


def _loss(y: str) -> Metric:
    """The mean over all tokens of all examples."""

    def terms(batch: Batch, forward: Forward, mask: Any) -> metrics.MeanAccumulator:
        count = (mask[:, None] & (batch[y] != _PAD)).sum().astype(jnp.float32)
        return metrics.MeanAccumulator(forward.metric_loss * count, count)

    return metrics.sum_of(
        terms, lambda seen: metrics.divide_no_nan(*seen), metrics.MeanAccumulator(0.0, 0.0)
    )
