"""The word and tag counts of Stack Overflow, as TFF reads them.

Reference: `load_word_counts` and `load_tag_counts` in TFF's simulation/datasets/stackoverflow.py.
"""

import json
import os
from collections.abc import Sized
from pathlib import Path
from typing import TextIO

from fedbridge.jax_core import ClientDataError, check_path, is_whole


def read_word_counts(path: str | os.PathLike[str], vocab_size: int | None = None) -> dict[str, int]:
    """Reads words and their counts, the most frequent first.

    Args:
        path: The file `stackoverflow.word_count`: a line "word count" for each word.
        vocab_size: Only so many, the first ones. None: all.

    Raises:
        ClientDataError: No such file, a line of another form, or fewer words than asked for (TFF
            takes those there are).

    Example:
        >>> path = getfixture("tmp_path") / "word_count"
        >>> _ = path.write_text("the 12\\nto 9\\n")
        >>> list(read_word_counts(path, 1))
        ['the']
    """
    _check_asked(vocab_size, "word")
    counts: dict[str, int] = {}
    with _opened(path) as file:
        try:
            for number, line in enumerate(file, 1):
                try:
                    word, count = line.split()
                    counts[word] = int(count)
                except ValueError:
                    raise ClientDataError(
                        f"{path}: line {number} is {line[:40]!r}, not a word and its count; give "
                        "the file stackoverflow.word_count."
                    ) from None
                if len(counts) == vocab_size:
                    break
        except UnicodeDecodeError:
            raise ClientDataError(
                f"{path}: this is no text; give the unpacked file stackoverflow.word_count."
            ) from None
    _check_enough(path, counts, vocab_size, "words", "vocab_size, or --vocab-size")
    return counts


def read_tag_counts(path: str | os.PathLike[str], vocab_size: int | None = None) -> dict[str, int]:
    """Reads tags and their counts, the most frequent first.

    Args:
        path: The file `stackoverflow.tag_count`: a JSON dictionary.
        vocab_size: Only so many, the first ones. None: all.

    Raises:
        ClientDataError: No such file, something else in it, or fewer tags than asked for (in a
            task, TFF takes those there are).

    Example:
        >>> path = getfixture("tmp_path") / "tag_count"
        >>> _ = path.write_text('{"jax": 3, "python": 9}')
        >>> read_tag_counts(path, 1)
        {'python': 9}
    """
    _check_asked(vocab_size, "tag")
    with _opened(path) as file:
        try:
            counts = json.load(file)
        except ValueError:
            counts = None
    if not isinstance(counts, dict) or not all(type(n) is int for n in counts.values()):
        raise ClientDataError(
            f"{path}: it holds no JSON dictionary of tags and counts; give the unpacked file "
            "stackoverflow.tag_count."
        )
    _check_enough(path, counts, vocab_size, "tags", "tag_vocab_size, or --tag-vocab-size")
    return dict(sorted(counts.items(), key=lambda item: item[1], reverse=True)[:vocab_size])


def _check_asked(vocab_size: int | None, what: str) -> None:
    if vocab_size is not None and not is_whole(vocab_size, 1):
        raise ClientDataError(f"vocab_size is {vocab_size}; ask for at least one {what}.")


def _check_enough(
    path: str | os.PathLike[str],
    counts: Sized,
    vocab_size: int | None,
    what: str,
    argument: str,
) -> None:
    if len(counts) < (vocab_size or 1):
        raise ClientDataError(
            f"{path}: it has {len(counts)} {what}, fewer than the {vocab_size or 1} asked for; ask "
            f"for no more ({argument} on the command line), or give a file with more "
            f"{what}."
        )


def _opened(path: str | os.PathLike[str]) -> TextIO:
    check_path("path", path)
    if not Path(path).is_file():
        raise ClientDataError(f"{path}: there is no such file; give the path of a vocabulary.")
    return Path(path).open(encoding="utf-8")
