"""Tasks on Stack Overflow: predict the next word, or a question's tags.

Text becomes ids once: the splits of a file are converted into the cache folder, in pieces and in
bounded memory, so that TFF's whole file can be used.

Reference: TFF's simulation/baselines/stackoverflow/{word,tag}_prediction_tasks.py.
"""

import functools
import os
from collections.abc import Callable, Sequence

from fedbridge import datasets, models, preprocessing
from fedbridge.jax_core import (
    ClientDataError,
    FederatedArrays,
    Model,
    check_argument,
    check_bool,
    is_whole,
)
from fedbridge.preprocessing import ClientSpec
from fedbridge.tasks._baseline_task import BaselineTask, BaselineTaskDatasets, pipelines
from fedbridge.tff_io import convert_once, find_file

DEFAULT_SEQUENCE_LENGTH = 20
DEFAULT_WORD_VOCAB_SIZE = 10_000
DEFAULT_TAG_VOCAB_SIZE = 500
_SPLITS = ("train", "test", "heldout")

Progress = Callable[[int, int], None]
"""Called as `progress(done, total)` while a split is converted."""


def create_word_prediction_task(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None = None,
    sequence_length: int = DEFAULT_SEQUENCE_LENGTH,
    vocab_size: int = DEFAULT_WORD_VOCAB_SIZE,
    num_out_of_vocab_buckets: int = 1,
    cache_dir: str | os.PathLike[str] | None = None,
    use_synthetic_data: bool = False,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> BaselineTask:
    """Predict the next word of a sentence.

    Args:
        train_client_spec: How a client's sentences become batches in training.
        eval_client_spec: How they do in an evaluation; default batches of 64, in order.
        sequence_length: The words of a sentence; what is longer is cut.
        vocab_size: How many words are known, the most frequent ones.
        num_out_of_vocab_buckets: Into how many ids the others are hashed.
        cache_dir: As in `fb.datasets.stackoverflow.load_data`.
        use_synthetic_data: TFF's synthetic data and its vocabulary of 60 words, in place of files.
        seed: Of the model's initial weights.
        progress: Told how far the conversion of a split is.

    Raises:
        ArgumentError: A number below 1.
        ClientDataError: As `fb.datasets.stackoverflow.load_data`; also fewer words than asked for
            in the file of words (TFF takes those there are).

    Example:
        >>> import fedbridge as fb
        >>> task = create_word_prediction_task(
        ...     fb.ClientSpec(num_epochs=1, batch_size=16), use_synthetic_data=True)
        >>> task.datasets.train_data
        FederatedArrays(3 clients, 8 examples: tokens int16[21])
    """
    _check_size("vocab_size", vocab_size)
    check_bool("use_synthetic_data", use_synthetic_data)
    if use_synthetic_data:
        raw = datasets.stackoverflow.get_synthetic()
        vocab = list(datasets.stackoverflow.get_synthetic_word_counts())[:vocab_size]
        return create_word_prediction_task_from_datasets(
            train_client_spec,
            eval_client_spec,
            sequence_length,
            vocab,
            num_out_of_vocab_buckets,
            *(raw, raw, raw),
            seed=seed,
        )
    vocab = list(datasets.stackoverflow.load_word_counts(cache_dir, vocab_size))
    prepare = _words(vocab, sequence_length, num_out_of_vocab_buckets)
    splits = _converted(prepare, cache_dir, progress)
    return _word_task(
        splits, train_client_spec, eval_client_spec, len(vocab), num_out_of_vocab_buckets, seed
    )


def create_word_prediction_task_from_datasets(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None,
    sequence_length: int,
    vocab: Sequence[str],
    num_out_of_vocab_buckets: int,
    train_data: FederatedArrays,
    test_data: FederatedArrays,
    validation_data: FederatedArrays,
    *,
    seed: int = 0,
) -> BaselineTask:
    """`create_word_prediction_task` on data with Stack Overflow's feature "tokens"."""
    prepare = _words(vocab, sequence_length, num_out_of_vocab_buckets)
    splits = [prepare(data) for data in (train_data, test_data, validation_data)]
    return _word_task(
        splits, train_client_spec, eval_client_spec, len(vocab), num_out_of_vocab_buckets, seed
    )


def create_tag_prediction_task(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None = None,
    word_vocab_size: int = DEFAULT_WORD_VOCAB_SIZE,
    tag_vocab_size: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    use_synthetic_data: bool = False,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> BaselineTask:
    """Predict the tags of a post from its bag of words.

    Args:
        train_client_spec: As in `create_word_prediction_task`, and so are the other arguments.
        eval_client_spec: How the examples become batches in an evaluation; default batches of 100.
        word_vocab_size: How many words are known.
        tag_vocab_size: How many tags are predicted, the most frequent ones. None: TFF's 500, or
            as many as there are.
        cache_dir: As in `fb.datasets.stackoverflow.load_data`.
        use_synthetic_data: TFF's synthetic data, with 60 words and 20 tags, in place of files.
        seed: Of the model's initial weights.
        progress: Told how far the conversion of a split is.

    Raises:
        ArgumentError: A number below 1.
        ClientDataError: As `create_word_prediction_task`; also fewer tags than `tag_vocab_size`
            (TFF takes those there are).
    """
    _check_size("word_vocab_size", word_vocab_size)
    if tag_vocab_size is not None:
        _check_size("tag_vocab_size", tag_vocab_size)
    num_tags = tag_vocab_size or DEFAULT_TAG_VOCAB_SIZE
    source = datasets.stackoverflow
    check_bool("use_synthetic_data", use_synthetic_data)
    if use_synthetic_data:
        raw = source.get_synthetic()
        words = list(source.get_synthetic_word_counts())[:word_vocab_size]
        tags = list(source.get_synthetic_tag_counts())[:num_tags]
        if len(tags) < (tag_vocab_size or 1):
            raise ClientDataError(
                f"the synthetic data have {len(tags)} tags, fewer than the {tag_vocab_size} asked"
                " for; ask for no more (tag_vocab_size), or leave use_synthetic_data out."
            )
        return create_tag_prediction_task_from_datasets(
            train_client_spec, eval_client_spec, words, tags, raw, raw, raw, seed=seed
        )
    words = list(source.load_word_counts(cache_dir, word_vocab_size))
    tags = list(source.load_tag_counts(cache_dir, tag_vocab_size))[:num_tags]
    splits = _converted(_bags(words, tags), cache_dir, progress)
    return _tag_task(splits, train_client_spec, eval_client_spec, len(words), len(tags), seed)


def create_tag_prediction_task_from_datasets(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None,
    word_vocab: Sequence[str],
    tag_vocab: Sequence[str],
    train_data: FederatedArrays,
    test_data: FederatedArrays,
    validation_data: FederatedArrays,
    *,
    seed: int = 0,
) -> BaselineTask:
    """`create_tag_prediction_task` on data with the features "tokens", "title" and "tags"."""
    prepare = _bags(word_vocab, tag_vocab)
    splits = [prepare(data) for data in (train_data, test_data, validation_data)]
    return _tag_task(
        splits, train_client_spec, eval_client_spec, len(word_vocab), len(tag_vocab), seed
    )


_Prepare = Callable[[FederatedArrays], FederatedArrays]


def _words(vocab: Sequence[str], sequence_length: int, num_out_of_vocab_buckets: int) -> _Prepare:
    return functools.partial(
        preprocessing.stackoverflow_word_prediction,
        vocab=vocab,
        sequence_length=sequence_length,
        num_out_of_vocab_buckets=num_out_of_vocab_buckets,
    )


def _bags(word_vocab: Sequence[str], tag_vocab: Sequence[str]) -> _Prepare:
    return functools.partial(
        preprocessing.stackoverflow_tag_prediction, word_vocab=word_vocab, tag_vocab=tag_vocab
    )


def _converted(
    prepare: _Prepare, cache_dir: str | os.PathLike[str] | None, progress: Progress | None
) -> list[FederatedArrays]:
    path = find_file("stackoverflow", "stackoverflow.sqlite", cache_dir)
    return [convert_once(path, split, prepare, progress=progress) for split in _SPLITS]


def _word_task(
    splits: Sequence[FederatedArrays],
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None,
    vocab_size: int,
    num_out_of_vocab_buckets: int,
    seed: int,
) -> BaselineTask:
    batches = pipelines("stackoverflow", train_client_spec, eval_client_spec, 64)
    model = word_prediction_model(vocab_size, num_out_of_vocab_buckets, seed)
    train, test, heldout = splits
    return BaselineTask(BaselineTaskDatasets(train, test, heldout, *batches), model)


def word_prediction_model(vocab_size: int, num_out_of_vocab_buckets: int, seed: int) -> Model:
    """The model of the next word, on batches of "x" and "y"."""
    return models.stackoverflow_lstm(
        vocab_size,
        num_out_of_vocab_buckets=num_out_of_vocab_buckets,
        loss=models.mean_over_positions,
        mask_zero=True,
        seed=seed,
    )


def _tag_task(
    splits: Sequence[FederatedArrays],
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None,
    num_words: int,
    num_tags: int,
    seed: int,
) -> BaselineTask:
    batches = pipelines("stackoverflow", train_client_spec, eval_client_spec, 100)
    model = tag_prediction_model(num_words, num_tags, seed)
    train, test, heldout = splits
    return BaselineTask(BaselineTaskDatasets(train, test, heldout, *batches), model)


def tag_prediction_model(num_words: int, num_tags: int, seed: int) -> Model:
    """The model of the tags, on batches of "x" and "y"."""
    loss = models.clipped_binary_cross_entropy
    return models.stackoverflow_tag_prediction(num_words, num_tags, loss=loss, seed=seed)


def _check_size(name: str, value: int) -> None:
    check_argument(is_whole(value, 1), name, value, "a positive integer")
