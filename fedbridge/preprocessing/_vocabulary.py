"""A vocabulary: words to ids, unknown words to buckets, as TensorFlow's StaticVocabularyTable."""

import itertools
from collections.abc import Iterable, Sequence, Set

import numpy as np
from jaxtyping import Int32

from fedbridge.jax_core._errors import ArgumentError, check_argument
from fedbridge.preprocessing._fingerprint import fingerprint64

MOST_BUCKETS = 1_000_000
"""For unknown words: each is an id of its own, which a model has an output for."""


class Vocabulary(dict[bytes, int]):
    """Word to id, counted from zero; an unknown word has the id of its bucket after the last word.

    Args:
        words: Each once, the most frequent first.
        num_oov_buckets: The buckets for unknown words.

    Raises:
        ArgumentError: No list of words, one of them twice, or no bucket.

    Example:
        >>> vocabulary = Vocabulary(["the", "a"], num_oov_buckets=3)
        >>> [vocabulary[word] for word in (b"a", b"the", b"hello")]
        [1, 0, 3]
    """

    def __init__(self, words: Sequence[str | bytes], num_oov_buckets: int = 1):
        listed = isinstance(words, Iterable) and not isinstance(words, str | bytes | Set)
        check_argument(listed, "vocabulary", words, "a list of words, in an order")
        words = list(words)
        texts = all(issubclass(kind, str | bytes) for kind in set(map(type, words)))
        check_argument(texts, "vocabulary", words, "a list of words, which are texts")
        keys = [word.encode() if isinstance(word, str) else word for word in words]
        super().__init__(zip(keys, itertools.count(), strict=False))
        check_argument(len(keys) > 0, "vocabulary", words, "at least one word")
        if len(self) < len(keys):
            again = next(word for i, word in enumerate(keys) if self[word] != i)
            raise ArgumentError(f"word {again!r} is in the vocabulary twice; it must be once.")
        buckets = isinstance(num_oov_buckets, int) and 0 < num_oov_buckets <= MOST_BUCKETS
        allowed = f"a positive integer, at most {MOST_BUCKETS}"
        check_argument(buckets, "num_out_of_vocab_buckets", num_oov_buckets, allowed)
        self.num_oov_buckets = num_oov_buckets

    def __missing__(self, word: bytes) -> int:
        if self.num_oov_buckets == 1:
            return len(self)
        return len(self) + fingerprint64(word) % self.num_oov_buckets

    def lookup(self, words: Iterable[bytes]) -> Int32[np.ndarray, " words"]:
        """The ids of these words."""
        if self.num_oov_buckets == 1:  # what `__missing__` says, without a call for each word
            return np.fromiter(map(self.get, words, itertools.repeat(len(self))), np.int32)
        return np.fromiter(map(self.__getitem__, words), np.int32)
