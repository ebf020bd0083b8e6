"""The model for the next character of Shakespeare's plays.

The layers, their initializers and the order of the weights are those of TFF's
simulation/baselines/shakespeare/char_prediction_models.py.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fedbridge.jax_core import Model, check_whole
from fedbridge.models._keras import Dense
from fedbridge.models._tokens import (
    LSTM,
    SequenceLoss,
    embedding,
    mean_over_tokens,
    next_token_model,
    without_padding,
)

_SPECIAL = 4  # padding, out of vocabulary, beginning and end of a snippet


class _NextCharacter(nn.Module):
    num_ids: int
    embedding_size: int
    lstm_size: int
    mask_zero: bool
    after_lstm: Callable[[Any], Any]

    @nn.compact
    def __call__(self, tokens):
        """From `[batch, steps]` to `[batch, steps, ids]`."""
        tokens, back = without_padding(tokens) if self.mask_zero else (tokens, lambda out: out)
        layer = lambda: LSTM(self.lstm_size, nn.initializers.he_normal())
        hidden = embedding(self.num_ids, self.embedding_size)(tokens.T)
        hidden = self.after_lstm(layer()(hidden))
        hidden = self.after_lstm(back(layer()(hidden)))
        return Dense(self.num_ids)(hidden.swapaxes(0, 1))


def shakespeare_lstm(
    vocab_size: int = 86,
    embedding_size: int = 8,
    lstm_size: int = 256,
    *,
    loss: SequenceLoss = mean_over_tokens,
    mask_zero: bool = False,
    after_lstm: Callable[[Any], Any] = lambda outputs: outputs,
    x: str = "x",
    y: str = "y",
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """Two LSTMs for the next character, of McMahan et al. (2017): 820,522 parameters.

    TFF's `create_recurrent_model`; the ids are those of its data: 0 pads, 1 to `vocab_size` are
    characters, then out of vocabulary, beginning and end of a snippet.

    Padding counts for nothing, as in `stackoverflow_lstm`; TFF's task is
    `loss=fb.models.mean_over_positions, mask_zero=True` here, too.

    Args:
        vocab_size: The number of characters.
        embedding_size: Of the embedding.
        lstm_size: The units of each LSTM.
        loss: Of the characters to predict; FedJAX's is `fb.models.mean_over_sentences(80.0)`.
        mask_zero: As in `stackoverflow_lstm`.
        after_lstm: What is done to the outputs of each LSTM; FedJAX has `jnp.tanh`.
        x: The feature that holds the characters before, `[batch, steps]`.
        y: The feature that holds the characters to predict, `[batch, steps]`.
        compute_dtype: As in `from_flax`.
        seed: Of the initial weights.

    Example:
        >>> import fedbridge as fb
        >>> list(fb.models.shakespeare_lstm(5, 2, 3).metrics)
        ['num_tokens', 'accuracy', 'loss', 'num_examples', 'num_batches']
    """
    check_whole("vocab_size", vocab_size)
    check_whole("embedding_size", embedding_size)
    check_whole("lstm_size", lstm_size)
    num_ids = vocab_size + _SPECIAL
    module = _NextCharacter(num_ids, embedding_size, lstm_size, mask_zero, after_lstm)
    return next_token_model(
        module, num_ids, loss, {"accuracy": ()}, x=x, y=y, compute_dtype=compute_dtype, seed=seed
    )
