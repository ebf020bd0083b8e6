"""A stand-in for Stack Overflow where the data are not at hand, of any size, in TFF's own format.

Words are drawn by the law of Zipf and Mandelbrot, and the frequent ones are short. How much a user
writes has a long tail; the sentences come in posts, which share a date, a score, tags and a title.
Three splits as in TFF's file: train, heldout (other users) and test (some of the users of train).
The text means nothing, and accuracies on it neither.
"""

import json
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedbridge.jax_core import ClientDataError, check_whole
from fedbridge.tff_io._example_proto import join_features, serialize_feature
from fedbridge.tff_io._files import write_whole
from fedbridge.tff_io._sql_write import write_records

# TFF's file: clients and sentences of the splits.
_TRAIN = (342_477, 135_818_730)
_OTHERS = {"heldout": (38_758, 16_491_230), "test": (204_088, 16_586_035)}
_WORDS, _TAGS = 200_000, 2_000
_SYLLABLES = [c + v for c in "bcdfghjklmnprstvwxyz" for v in "aeiou"]
_FIRST_DAY = np.datetime64("2008-08-01", "ms")
_DAYS = 3_300


class _Part(NamedTuple):
    """Some users of one split."""

    split: str
    client_ids: list[str]
    sizes: np.ndarray


class _Law(NamedTuple):
    """Words or tags: their spelling, and the distribution function over them."""

    texts: np.ndarray
    cumulated: np.ndarray

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Random ones."""
        return np.searchsorted(self.cumulated, rng.random(count), side="right")


def generate_stackoverflow(
    num_clients: int,
    out: str | PathLike[str],
    *,
    sentences: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes `stackoverflow.sqlite`, `.word_count` and `.tag_count` with generated text.

    It passes through memory user by user, so that any size can be made.

    Args:
        num_clients: The number of users of the split train; heldout and test have as many as in
            TFF's file, in proportion.
        out: The folder; it serves as the `cache_dir` of TFF's `stackoverflow.load_data`.
        sentences: The examples of the split train, default TFF's 397 a user; every user has at
            least one.
        seed: The same seed gives the same data.
        progress: Called as `progress(done, total)` with sentences, after every user.

    Returns:
        The path of the SQLite file; all three are written aside and renamed.

    Raises:
        ClientDataError: No clients asked for, fewer sentences than clients, or a folder that
            cannot be written.
        ArgumentError: A negative seed.
    """
    if num_clients < 1:
        raise ClientDataError(f"{num_clients} clients cannot be generated; ask for at least one.")
    check_whole("seed", seed, 0)
    if sentences is None:
        sentences = num_clients * _TRAIN[1] // _TRAIN[0]
    if sentences < num_clients:
        raise ClientDataError(
            f"{sentences} sentences are too few for {num_clients} clients; ask for at least one "
            "each."
        )
    folder = Path(out).expanduser()
    words, tags = _law(_WORDS, 1.2), _law(_TAGS, 1.0)
    word_counts, tag_counts = np.zeros(_WORDS, np.int64), np.zeros(_TAGS, np.int64)
    parts = _parts(num_clients, sentences, seed)
    total = sum(int(part.sizes.sum()) for part in parts)

    def clients() -> Iterator[tuple[str, str, list[bytes]]]:
        done = 0
        for number, (split, ids, sizes) in enumerate(parts):
            for i, (client_id, size) in enumerate(zip(ids, sizes.tolist(), strict=True)):
                rng = np.random.default_rng([seed, number, i])
                records, word_ids, tag_ids = _write_posts(rng, size, words, tags)
                if split == "train":
                    np.add.at(word_counts, word_ids, 1)
                    np.add.at(tag_counts, tag_ids, 1)
                yield split, client_id, records
                done += size
                if progress is not None:
                    progress(done, total)

    path = write_records(folder / "stackoverflow.sqlite", clients())
    lines = "".join(f"{word} {count}\n" for word, count in _ranked(words, word_counts).items())
    write_whole(folder / "stackoverflow.word_count", lambda aside: aside.write_text(lines))
    text = json.dumps(_ranked(tags, tag_counts))
    write_whole(folder / "stackoverflow.tag_count", lambda aside: aside.write_text(text))
    return path


def _parts(num_clients: int, sentences: int, seed: int) -> list[_Part]:
    """Who writes how much; users lie in the file in no order, as they may in TFF's."""
    rng = np.random.default_rng([seed, 0xF])
    ids = np.array([f"{i:08}" for i in rng.permutation(2 * num_clients)])
    parts = [_Part("train", ids[:num_clients].tolist(), _sizes(rng, num_clients, sentences))]
    for split, (clients, examples) in _OTHERS.items():
        count = max(1, num_clients * clients // _TRAIN[0])
        first = num_clients if split == "heldout" else 0
        sizes = _sizes(rng, count, max(count, sentences * examples // _TRAIN[1]))
        parts.append(_Part(split, ids[first : first + count].tolist(), sizes))
    return parts


def _sizes(rng: np.random.Generator, num_clients: int, sentences: int) -> np.ndarray:
    weights = rng.lognormal(0, 1.4, num_clients)
    return 1 + rng.multinomial(sentences - num_clients, weights / weights.sum())


def _law(count: int, exponent: float) -> _Law:
    weights = (np.arange(count) + 2.7) ** -exponent
    texts = np.empty(count, object)
    texts[:] = [_word(rank) for rank in range(count)]
    cumulated = np.cumsum(weights)
    return _Law(texts, cumulated / cumulated[-1])


def _word(rank: int) -> str:
    """Every rank has a word of its own: its number, in syllables for digits."""
    word = ""
    while rank >= 0:
        rank, syllable = divmod(rank, len(_SYLLABLES))
        word, rank = _SYLLABLES[syllable] + word, rank - 1
    return word


def _write_posts(
    rng: np.random.Generator, size: int, words: _Law, tags: _Law
) -> tuple[list[bytes], np.ndarray, np.ndarray]:
    """The records of one user, and which words and tags are in them."""
    begins = rng.random(size) < 0.25
    begins[0] = True
    posts = int(begins.sum())
    tag_ids = tags.draw(rng, 5 * posts).reshape(posts, 5)
    num_tags = rng.integers(1, 6, posts)
    dates = _FIRST_DAY + rng.integers(0, _DAYS * 86_400_000, posts)
    scores = np.rint(rng.lognormal(0.5, 1.2, posts)).astype(np.int64) - 1
    questions = (rng.random(posts) < 0.4).tolist()
    titles = _sentences(words, words.draw(rng, 12 * posts), np.full(posts, 12))
    heads, tails = [], []
    for i, date in enumerate(np.datetime_as_string(dates).tolist()):
        head = {
            "creation_date": f"{date.replace('T', ' ')} UTC",
            "score": scores[i],
            "tags": "|".join(dict.fromkeys(tags.texts[tag_ids[i, : num_tags[i]]])),
            "title": " ".join(titles[i].split(" ")[: 4 + i % 9]),
        }
        heads.append(b"".join(serialize_feature(name, value) for name, value in head.items()))
        tails.append(serialize_feature("type", "question" if questions[i] else "answer"))
    lengths = np.clip(rng.gamma(2.5, 5.5, size), 1, 200).astype(np.int64)
    word_ids = words.draw(rng, int(lengths.sum()))
    texts = _sentences(words, word_ids, lengths)
    post_of = (np.cumsum(begins) - 1).tolist()
    records = [
        join_features((heads[post], serialize_feature("tokens", text), tails[post]))
        for post, text in zip(post_of, texts, strict=True)
    ]
    return records, word_ids, tag_ids[np.arange(5) < num_tags[:, None]]


def _sentences(words: _Law, ids: np.ndarray, lengths: np.ndarray) -> list[str]:
    texts, ends = words.texts[ids].tolist(), np.cumsum(lengths).tolist()
    return [" ".join(texts[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _ranked(law: _Law, counts: np.ndarray) -> dict[Any, int]:
    """Those that are there, the most frequent first."""
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    return dict(zip(law.texts[order].tolist(), counts[order].tolist(), strict=True))
