"""`tff.simulation.baselines.stackoverflow`: predict the next word, or a question's tags."""

from fedbridge import jax_core as fc
from fedbridge.preprocessing import ClientSpec
from fedbridge.tff._errors import missing, note
from fedbridge.tff.simulation.baselines import _preprocessing
from fedbridge.tff.simulation.baselines._task import BaselineTask, task
from fedbridge.tff.simulation.datasets import ClientData, stackoverflow

DEFAULT_SEQUENCE_LENGTH = 20
DEFAULT_WORD_VOCAB_SIZE = 10_000
DEFAULT_TAG_VOCAB_SIZE = 500


def create_word_prediction_task(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None = None,
    sequence_length: int = DEFAULT_SEQUENCE_LENGTH,
    vocab_size: int = DEFAULT_WORD_VOCAB_SIZE,
    num_out_of_vocab_buckets: int = 1,
    cache_dir: str | None = None,
    use_synthetic_data: bool = False,
) -> BaselineTask:
    """See `fb.tasks.stackoverflow`.

    Raises:
        ArgumentError: A number below 1.
    """
    _check(
        sequence_length=sequence_length,
        vocab_size=vocab_size,
        num_out_of_vocab_buckets=num_out_of_vocab_buckets,
    )
    vocab = _words(vocab_size, cache_dir, use_synthetic_data)

    def model(seed: int) -> fc.Model:
        from fedbridge import tasks

        make = tasks.stackoverflow.word_prediction_model
        return make(len(vocab), num_out_of_vocab_buckets, seed)

    preprocess = lambda spec: _preprocessing.words(
        spec, vocab, sequence_length, num_out_of_vocab_buckets
    )
    data = _data(cache_dir, use_synthetic_data)
    return task(data, preprocess, train_client_spec, eval_client_spec, 64, model)


def create_tag_prediction_task(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None = None,
    word_vocab_size: int = DEFAULT_WORD_VOCAB_SIZE,
    tag_vocab_size: int = DEFAULT_TAG_VOCAB_SIZE,
    cache_dir: str | None = None,
    use_synthetic_data: bool = False,
) -> BaselineTask:
    """See `fb.tasks.stackoverflow`.

    Raises:
        ArgumentError: A number below 1.
    """
    _check(word_vocab_size=word_vocab_size, tag_vocab_size=tag_vocab_size)
    words = _words(word_vocab_size, cache_dir, use_synthetic_data)
    if use_synthetic_data:
        counts = stackoverflow.get_synthetic_tag_counts()
    else:
        counts = stackoverflow.load_tag_counts(cache_dir)
    if len(counts) < tag_vocab_size:
        note(f"{tag_vocab_size} tags were asked for; as in TFF, the {len(counts)} there are serve.")
    tags = list(counts)[:tag_vocab_size]

    def model(seed: int) -> fc.Model:
        from fedbridge import tasks

        return tasks.stackoverflow.tag_prediction_model(len(words), len(tags), seed)

    preprocess = lambda spec: _preprocessing.bags(spec, words, tags)
    data = _data(cache_dir, use_synthetic_data)
    return task(data, preprocess, train_client_spec, eval_client_spec, 100, model)


def _words(vocab_size: int, cache_dir: str | None, synthetic: bool) -> list[str]:
    if synthetic:
        return list(stackoverflow.get_synthetic_word_counts())[:vocab_size]
    return list(stackoverflow.load_word_counts(cache_dir, vocab_size))


def _data(cache_dir: str | None, synthetic: bool) -> tuple[ClientData, ClientData, ClientData]:
    """For training, test and validation: the split "heldout"."""
    if synthetic:
        every = stackoverflow.get_synthetic()
        return every, every, every
    train, heldout, test = stackoverflow.load_data(cache_dir)
    return train, test, heldout


def _check(**sizes: int) -> None:
    for name, size in sizes.items():
        fc.check_argument(size > 0, name, size, "a positive integer")


__getattr__ = missing("tff.simulation.baselines.stackoverflow")
