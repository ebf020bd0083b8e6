"""What is done to a client's data set in TFF's tasks, in `tf.data`: examples in, batches out.

Written after TFF's simulation/baselines/*/*_preprocessing.py. Batches come in the order of the
pipeline; TFF's EMNIST hands out, without a debug seed, whichever is ready first.
"""

from collections.abc import Sequence
from typing import Any

from fedbridge.preprocessing import SHAKESPEARE_CHARACTERS, SHUFFLE_BUFFER_SIZES, ClientSpec
from fedbridge.tff.simulation.baselines._task import Preprocess


def characters(spec: ClientSpec, seed: int | None = None) -> Preprocess:
    """EMNIST's images `[batch, 28, 28, 1]` and labels."""

    def preprocess(dataset: Any) -> Any:
        batches = _examples(dataset, spec, "emnist", seed).batch(spec.batch_size)
        return batches.map(lambda batch: (batch["pixels"][..., None], batch["label"]))

    return preprocess


def ink(spec: ClientSpec) -> Preprocess:
    """EMNIST's images `[batch, 784]`, of which 1.0 is ink, twice."""

    def preprocess(dataset: Any) -> Any:
        import tensorflow as tf

        def images(batch: Any) -> Any:
            flat = 1 - tf.reshape(batch["pixels"], (-1, 28 * 28))
            return flat, flat

        return _examples(dataset, spec, "emnist").batch(spec.batch_size).map(images)

    return preprocess


def crops(spec: ClientSpec, shape: tuple[int, int, int], distort: bool = False) -> Preprocess:
    """CIFAR-100's images, standardized: their middle, or a random crop that may be mirrored."""

    def preprocess(dataset: Any) -> Any:
        import tensorflow as tf

        def one(example: Any) -> Any:
            image = tf.cast(example["image"], tf.float32)
            if distort:
                image = tf.image.random_flip_left_right(tf.image.random_crop(image, shape))
            else:
                image = tf.image.resize_with_crop_or_pad(image, *shape[:2])
            return tf.image.per_image_standardization(image), example["label"]

        examples = _examples(dataset, spec, "cifar100").map(one, tf.data.AUTOTUNE)
        return examples.batch(spec.batch_size)

    return preprocess


def words(
    spec: ClientSpec, vocab: Sequence[str], sequence_length: int, num_buckets: int
) -> Preprocess:
    """Stack Overflow's sentences as ids: those of the words, and of the words after them."""

    def preprocess(dataset: Any) -> Any:
        import tensorflow as tf

        lookup = _table(vocab, num_buckets)
        beginning, end = len(vocab) + num_buckets + 1, len(vocab) + num_buckets + 2

        def ids(example: Any) -> Any:
            found = tf.strings.split(tf.reshape(example["tokens"], [1]), sep=" ").values
            tokens = lookup(found[:sequence_length]) + 1
            ends = tf.cast(tf.size(tokens) < sequence_length, tf.int32)
            bounds = tf.constant([[beginning], [end]], tf.int64)
            return tf.concat([bounds[0], tokens, tf.repeat(bounds[1], ends)], 0)

        sentences = _examples(dataset, spec, "stackoverflow").map(ids, tf.data.AUTOTUNE)
        batches = sentences.padded_batch(spec.batch_size, padded_shapes=[sequence_length + 1])
        return batches.map(_next_token)

    return preprocess


def bags(spec: ClientSpec, word_vocab: Sequence[str], tag_vocab: Sequence[str]) -> Preprocess:
    """Stack Overflow's posts: the share of each word, and how often each tag is there."""

    def preprocess(dataset: Any) -> Any:
        import tensorflow as tf

        word, tag = _table(word_vocab, 1), _table(tag_vocab, 1)

        def counts(example: Any) -> Any:
            text = tf.strings.join([example["tokens"], example["title"]], separator=" ")
            bag = tf.reduce_sum(tf.one_hot(word(tf.strings.split(text)), len(word_vocab)), 0)
            tags = tf.one_hot(tag(tf.strings.split(example["tags"], sep="|")), len(tag_vocab))
            return tf.math.divide_no_nan(bag, tf.reduce_sum(bag)), tf.reduce_sum(tags, 0)

        examples = _examples(dataset, spec, "stackoverflow").map(counts, tf.data.AUTOTUNE)
        return examples.batch(spec.batch_size)

    return preprocess


def snippets(spec: ClientSpec, sequence_length: int) -> Preprocess:
    """Shakespeare's lines as rows of ids: those of the characters, and of those after them."""

    def preprocess(dataset: Any) -> Any:
        import tensorflow as tf

        lookup = _table(SHAKESPEARE_CHARACTERS, 1)
        beginning, end = len(SHAKESPEARE_CHARACTERS) + 2, len(SHAKESPEARE_CHARACTERS) + 3

        def ids(example: Any) -> Any:
            tokens = lookup(tf.strings.bytes_split(example["snippets"])) + 1
            tokens = tf.concat([[beginning], tokens, [end]], 0)
            padding = tf.math.floormod(-tf.size(tokens), sequence_length + 1)
            return tf.concat([tokens, tf.zeros(padding, tf.int64)], 0)

        tokens = _examples(dataset, spec, "shakespeare").map(ids, tf.data.AUTOTUNE).unbatch()
        rows = tokens.batch(sequence_length + 1, drop_remainder=True)
        return rows.batch(spec.batch_size).map(_next_token)

    return preprocess


def _examples(dataset: Any, spec: ClientSpec, data_set: str, seed: int | None = None) -> Any:
    """The examples in their order, as often as the spec says."""
    buffer = spec.shuffle_buffer_size or SHUFFLE_BUFFER_SIZES[data_set]
    if buffer > 1:
        dataset = dataset.shuffle(buffer, seed=seed)
    if int(spec.num_epochs) > 1:
        dataset = dataset.repeat(spec.num_epochs)
    return dataset if spec.max_elements is None else dataset.take(spec.max_elements)


def _table(vocab: Sequence[str], num_buckets: int) -> Any:
    """From strings to the numbers of the words, and of buckets for those not among them."""
    import tensorflow as tf

    numbers = tf.range(len(vocab), dtype=tf.int64)
    start = tf.lookup.KeyValueTensorInitializer(list(vocab), numbers)
    return tf.lookup.StaticVocabularyTable(start, num_oov_buckets=num_buckets).lookup


def _next_token(rows: Any) -> Any:
    return rows[:, :-1], rows[:, 1:]
