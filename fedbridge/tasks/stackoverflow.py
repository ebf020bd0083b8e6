"""The task on Stack Overflow: predict the next word.

Text becomes ids once: the splits of a file are converted into the cache folder, in pieces and in
bounded memory, so that TFF's whole file can be used.

Reference: TFF's simulation/baselines/stackoverflow/word_prediction_tasks.py.
"""

import functools
import os
from collections.abc import Callable, Sequence

from fedbridge import datasets, models, preprocessing
from fedbridge.jax_core import FederatedArrays, check_argument
from fedbridge.preprocessing import ClientSpec
from fedbridge.tasks._baseline_task import BaselineTask, BaselineTaskDatasets, pipelines
from fedbridge.tff_io import convert_once, find_file

DEFAULT_SEQUENCE_LENGTH = 20
DEFAULT_WORD_VOCAB_SIZE = 10_000
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


_Prepare = Callable[[FederatedArrays], FederatedArrays]


def _words(vocab: Sequence[str], sequence_length: int, num_out_of_vocab_buckets: int) -> _Prepare:
    return functools.partial(
        preprocessing.stackoverflow_word_prediction,
        vocab=vocab,
        sequence_length=sequence_length,
        num_out_of_vocab_buckets=num_out_of_vocab_buckets,
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
    only = num_out_of_vocab_buckets == 1
    check_argument(only, "num_out_of_vocab_buckets", num_out_of_vocab_buckets, "1 for this model")
    batches = pipelines("stackoverflow", train_client_spec, eval_client_spec, 64)
    model = models.stackoverflow_lstm(vocab_size, seed=seed)
    train, test, heldout = splits
    return BaselineTask(BaselineTaskDatasets(train, test, heldout, *batches), model)


def _check_size(name: str, value: int) -> None:
    good = isinstance(value, int) and value > 0
    check_argument(good, name, value, "a positive integer")
