"""Ids that are no words, and how a sequence of ids becomes an input and a target."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fedbridge.jax_core import Batch


class SpecialTokens(NamedTuple):
    """The ids that stand for no word of the vocabulary.

    Attributes:
        padding: Fills up a sequence.
        out_of_vocab: For unknown words, one per bucket.
        beginning_of_sentence: Before the first word.
        end_of_sentence: After the last.
    """

    padding: int
    out_of_vocab: tuple[int, ...]
    beginning_of_sentence: int
    end_of_sentence: int

    @property
    def vocab_size(self) -> int:
        """The number of all ids, words included."""
        return self.end_of_sentence + 1


def special_tokens(vocab_size: int, num_out_of_vocab_buckets: int = 1) -> SpecialTokens:
    """Padding is 0, words are 1 to `vocab_size`, then unknown words, beginning and end."""
    last = vocab_size + num_out_of_vocab_buckets
    return SpecialTokens(0, tuple(range(vocab_size + 1, last + 1)), last + 1, last + 2)


def id_dtype(largest: int) -> type[np.signedinteger]:
    """The smallest type of a column that holds these ids."""
    return np.int16 if largest <= np.iinfo(np.int16).max else np.int32


def split_input_target(batch: Batch) -> Batch:
    """From tokens `[batch, n + 1]` to `x`, the first n, and `y`, the last n: int32."""
    tokens = jnp.asarray(batch["tokens"]).astype(jnp.int32)
    return {"x": tokens[:, :-1], "y": tokens[:, 1:]}
