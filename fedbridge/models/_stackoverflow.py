"""Models for Stack Overflow's questions and answers: the next word, and tags.

The layers, their initializers and the order of the weights are those of TFF's
simulation/baselines/stackoverflow/word_prediction_models.py and tag_prediction_tasks.py.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fedbridge.jax_core import Batch, Forward, Model, check_whole, metrics
from fedbridge.models._from_flax import from_flax
from fedbridge.models._keras import Dense, in_keras_order
from fedbridge.models._losses import PerExample, binary_cross_entropy
from fedbridge.models._tokens import (
    LSTM,
    SequenceLoss,
    embedding,
    mean_over_tokens,
    next_token_model,
    without_padding,
)


class _NextWord(nn.Module):
    num_ids: int
    embedding_size: int
    lstm_size: int
    num_lstm_layers: int
    shared_embedding: bool
    mask_zero: bool
    after_lstm: Callable[[Any], Any]

    @nn.compact
    def __call__(self, tokens):
        """From `[batch, steps]` to `[batch, steps, ids]`."""
        tokens, back = without_padding(tokens) if self.mask_zero else (tokens, lambda out: out)
        embed = embedding(self.num_ids, self.embedding_size)
        hidden = embed(tokens.T)
        for layer in range(self.num_lstm_layers):
            outputs = LSTM(self.lstm_size)(hidden)
            last = layer == self.num_lstm_layers - 1
            outputs = self.after_lstm(back(outputs) if last else outputs)
            hidden = Dense(self.embedding_size)(outputs)
        hidden = hidden.swapaxes(0, 1)
        return embed.attend(hidden) if self.shared_embedding else Dense(self.num_ids)(hidden)


class _LogisticRegression(nn.Module):
    num_labels: int

    @nn.compact
    def __call__(self, inputs, train: bool):
        return Dense(self.num_labels)(inputs)


def stackoverflow_lstm(
    vocab_size: int = 10_000,
    embedding_size: int = 96,
    lstm_size: int = 670,
    *,
    num_lstm_layers: int = 1,
    shared_embedding: bool = False,
    num_out_of_vocab_buckets: int = 1,
    loss: SequenceLoss = mean_over_tokens,
    mask_zero: bool = False,
    after_lstm: Callable[[Any], Any] = lambda outputs: outputs,
    x: str = "x",
    y: str = "y",
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """The LSTM of Reddi et al. (2021) for the next word: 4,050,748 parameters.

    TFF's `create_recurrent_model`; the ids are those of its data: 0 pads, 1 to `vocab_size` are
    words, then out of vocabulary, beginning and end of a sentence.

    Padding counts for nothing, in the loss as in the metrics: the objective is the mean over the
    tokens of a batch that are to be predicted. TFF's task loses Keras' mask, so that its loss is
    the mean over all positions, and predictions where Keras hid a step count too:
    `loss=fb.models.mean_over_positions, mask_zero=True`.

    Args:
        vocab_size: The number of words.
        embedding_size: Of the embedding, and of the layer after each LSTM.
        lstm_size: The units of an LSTM.
        num_lstm_layers: How many LSTMs there are.
        shared_embedding: The embedding, transposed, is the last layer: 3,080,360 parameters.
        num_out_of_vocab_buckets: How many ids stand for unknown words.
        loss: Of the tokens to predict; FedJAX's is `fb.models.mean_over_sentences(13.3)`.
        mask_zero: A step whose token is 0 is none, as in Keras: the output before it is repeated.
            It changes nothing but the predictions there, unless zeros stand before words.
        after_lstm: What is done to an LSTM's outputs; FedJAX has `jnp.tanh`.
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
    for name, size in (
        ("vocab_size", vocab_size),
        ("embedding_size", embedding_size),
        ("lstm_size", lstm_size),
        ("num_lstm_layers", num_lstm_layers),
        ("num_out_of_vocab_buckets", num_out_of_vocab_buckets),
    ):
        check_whole(name, size)
    unknown = tuple(range(vocab_size + 1, vocab_size + 1 + num_out_of_vocab_buckets))
    end_of_sentence = vocab_size + num_out_of_vocab_buckets + 2
    num_ids = end_of_sentence + 1
    module = _NextWord(
        num_ids,
        embedding_size,
        lstm_size,
        num_lstm_layers,
        shared_embedding,
        mask_zero,
        after_lstm,
    )
    accuracies = {
        "accuracy": (),
        "accuracy_without_out_of_vocab": unknown,
        "accuracy_without_out_of_vocab_or_end_of_sentence": (*unknown, end_of_sentence),
    }
    return next_token_model(
        module, num_ids, loss, accuracies, x=x, y=y, compute_dtype=compute_dtype, seed=seed
    )


def stackoverflow_tag_prediction(
    word_vocab_size: int = 10_000,
    tag_vocab_size: int = 500,
    *,
    loss: PerExample = binary_cross_entropy,
    x: str = "x",
    y: str = "y",
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """Logistic regression for the tags of a post, from its words: 5,000,500 parameters.

    As in TFF's task the objective is the sum over a batch, not the mean, of the mean over tags; and
    the reported loss is the mean of these sums, each weighted by the batch's examples. Predictions
    are logits.

    Args:
        word_vocab_size: The number of words.
        tag_vocab_size: The number of tags.
        loss: Of counts and logits; TFF's is `fb.models.clipped_binary_cross_entropy`.
        x: The feature that holds the words' shares, `[batch, words]`.
        y: The feature that holds the tags' counts, `[batch, tags]`.
        compute_dtype: As in `from_flax`.
        seed: Of the initial weights.
    """
    check_whole("word_vocab_size", word_vocab_size)
    check_whole("tag_vocab_size", tag_vocab_size)
    model = from_flax(
        _LogisticRegression(tag_vocab_size),
        np.zeros((1, word_vocab_size), np.float32),
        loss,
        x=x,
        y=y,
        metrics={},
        reduction=lambda total, count: total,
        compute_dtype=compute_dtype,
        seed=seed,
    )

    def probabilities(batch: Batch, forward: Forward) -> tuple[Any, Any]:
        return batch[y], jax.nn.sigmoid(forward.predictions)

    reported = OrderedDict(
        precision=metrics.precision(probabilities),
        recall_at_5=metrics.recall(probabilities, top_k=5),
        **model.metrics,
    )
    return in_keras_order(model._replace(metrics=reported))
