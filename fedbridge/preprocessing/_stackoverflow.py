"""Stack Overflow: sentences for the next word, bags of words for tags.

Reference: TFF's simulation/baselines/stackoverflow/{word,tag}_prediction_preprocessing.py.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from fedbridge.jax_core import Batch, FederatedArrays, Ragged
from fedbridge.jax_core._errors import check_whole
from fedbridge.preprocessing._division import divide_rows
from fedbridge.preprocessing._features import require
from fedbridge.preprocessing._tokens import (
    SpecialTokens,
    id_dtype,
    special_tokens,
    split_input_target,
)
from fedbridge.preprocessing._vocabulary import Vocabulary
from fedbridge.preprocessing._words import first_words, lookup, word_table

_BLOCK = 1 << 13  # rows taken apart at one time: their words stay in a core's cache


def stackoverflow_word_prediction(
    data: FederatedArrays,
    vocab: Sequence[str | bytes],
    sequence_length: int = 20,
    num_out_of_vocab_buckets: int = 1,
) -> FederatedArrays:
    """Batches of `x` and `y`, int32[batch, sequence_length]: the words before, the next words.

    Ids: 0 pads, then the words, the buckets of unknown words, beginning and end of a sentence (see
    `stackoverflow_special_tokens`). A sentence of `sequence_length` words or more is cut and has no
    end. Words are separated by single spaces, and their case is kept.

    Args:
        data: With the feature "tokens"; the other features are left out.
        vocab: The words, the most frequent first: `list(read_word_counts(path, vocab_size))`.
        sequence_length: The words of an example.
        num_out_of_vocab_buckets: Into how many ids unknown words are hashed.

    Raises:
        ClientDataError: The feature is missing.
        ArgumentError: An argument out of range, or a word that is twice in the vocabulary.

    Example:
        >>> from fedbridge.jax_core import Ragged
        >>> tokens = Ragged.from_rows([b"to be", b"or not to be"])
        >>> data = FederatedArrays(("a",), np.array([0, 2]), {"tokens": tokens})
        >>> stackoverflow_word_prediction(data, ["be", "to"], 3).client("a")["tokens"].tolist()
        [[4, 2, 1, 5], [4, 3, 3, 2]]
    """
    require(data, "stackoverflow_word_prediction", tokens="strings")
    vocabulary = Vocabulary(vocab, num_out_of_vocab_buckets)
    tokens = sentence_ids(data.features["tokens"], vocabulary, sequence_length)
    data = dataclasses.replace(data, features={"tokens": tokens}, structure=None)
    return data.map_batches(split_input_target)


def stackoverflow_tag_prediction(
    data: FederatedArrays, word_vocab: Sequence[str | bytes], tag_vocab: Sequence[str | bytes]
) -> FederatedArrays:
    """Batches of `x` float32[batch, words] and `y` float32[batch, tags].

    `x` is the share of every word among the known words of an example's tokens and title, zero
    where none is known; `y` counts each tag.

    Args:
        data: With the features "tokens", "title" and "tags"; the other features are left out.
        word_vocab: The words: `list(read_word_counts(path, vocab_size))`.
        tag_vocab: The tags: `list(read_tag_counts(path, tag_vocab_size))`.

    Raises:
        ClientDataError: A feature is missing.
        ArgumentError: A vocabulary that is empty or holds a word twice.
    """
    where = "stackoverflow_tag_prediction"
    require(data, where, tokens="strings", title="strings", tags="strings")
    words, tags = Vocabulary(word_vocab), Vocabulary(tag_vocab)
    features = {
        "words": word_ids(data.features["tokens"], data.features["title"], words),
        "tags": tag_ids(data.features["tags"], tags),
    }
    data = dataclasses.replace(data, features=features, structure=None)
    return data.map_batches(_bags(len(words), len(tags)))


def stackoverflow_special_tokens(
    vocab_size: int, num_out_of_vocab_buckets: int = 1
) -> SpecialTokens:
    """The ids of next-word prediction that are no words.

    Example:
        >>> stackoverflow_special_tokens(10_000).end_of_sentence
        10003
    """
    return special_tokens(vocab_size, num_out_of_vocab_buckets)


def sentence_ids(
    sentences: Ragged, vocabulary: Vocabulary, sequence_length: int = 20
) -> Int[np.ndarray, "rows ids"]:
    """Sentences as rows of `sequence_length + 1` ids: beginning, words, end, padding.

    int16 where the ids fit, else int32. Works on any block of rows, so that a file can be converted
    piece by piece.

    Raises:
        ArgumentError: A sequence length below 1.
    """
    check_whole("sequence_length", sequence_length)
    special = special_tokens(len(vocabulary), vocabulary.num_oov_buckets)
    num_rows = len(sentences.offsets) - 1
    ids = np.zeros((num_rows, sequence_length + 1), id_dtype(special.end_of_sentence))
    ids[:, 0] = special.beginning_of_sentence
    table = word_table(vocabulary)
    for block in _blocks(num_rows):
        edges = sentences.offsets[block.start : block.stop + 1]
        words = first_words(sentences.values, edges, sequence_length)
        sizes, places = words.counts[:, None], np.arange(sequence_length)[None, :]
        here = ids[block, 1:]
        here[places < sizes] = lookup(words, table, vocabulary) + 1
        here[places == sizes] = special.end_of_sentence
    return ids


def word_ids(tokens: Ragged, titles: Ragged, vocabulary: Vocabulary) -> Ragged:
    """The known words of tokens and title of each row; white space separates them."""
    return _known_ids(
        (tokens, titles), lambda token, title: token.split() + title.split(), vocabulary
    )


def tag_ids(tags: Ragged, vocabulary: Vocabulary) -> Ragged:
    """The known tags of each row; a bar separates them."""
    return _known_ids((tags,), lambda row: row.split(b"|"), vocabulary)


def _known_ids(
    columns: tuple[Ragged, ...], split: Callable[..., list[bytes]], vocabulary: Vocabulary
) -> Ragged:
    num_rows = len(columns[0].offsets) - 1
    dtype = id_dtype(len(vocabulary))
    values, sizes = [np.zeros(0, dtype)], [np.zeros(1, np.int64)]
    for block in _blocks(num_rows):
        texts = [_strings(column, block) for column in columns]
        rows = [split(*row) for row in zip(*texts, strict=True)]
        ids = vocabulary.lookup(itertools.chain.from_iterable(rows))
        row = np.repeat(np.arange(len(rows)), np.fromiter(map(len, rows), np.int64, len(rows)))
        known = ids < len(vocabulary)
        values.append(ids[known].astype(dtype))
        sizes.append(np.bincount(row[known], minlength=len(rows)))
    return Ragged(np.concatenate(values), np.cumsum(np.concatenate(sizes)))


def _blocks(num_rows: int) -> list[slice]:
    starts = range(0, num_rows, _BLOCK)
    return [slice(start, min(start + _BLOCK, num_rows)) for start in starts]


def _strings(column: Ragged, block: slice) -> np.ndarray:
    return Ragged(column.values, column.offsets[block.start : block.stop + 1]).decode()


@functools.cache  # one function for all data of these sizes: one program
def _bags(num_words: int, num_tags: int) -> Callable[[Batch], Batch]:
    def bags(batch: Batch) -> Batch:
        words, tags = _count(batch["words"], num_words), _count(batch["tags"], num_tags)
        known = jnp.maximum(words.sum(axis=1), 1)
        return {"x": divide_rows(words, known), "y": tags}

    return bags


def _count(ids: Shaped[Any, "batch width"], size: int) -> Float[Array, "batch {size}"]:
    """How often each id is there; -1 is none."""
    ids = jnp.asarray(ids).astype(jnp.int32)
    places = jnp.where(ids < 0, size, ids)  # a negative index would count from the end
    rows = jnp.arange(len(ids))[:, None]
    return jnp.zeros((len(ids), size), jnp.float32).at[rows, places].add(1.0, mode="drop")
