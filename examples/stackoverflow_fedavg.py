"""Federated averaging on Stack Overflow, written for TensorFlow Federated (TFF) and nothing else.

    python examples/stackoverflow_fedavg.py                # the next word of a sentence, an LSTM
    python examples/stackoverflow_fedavg.py --task tags    # the tags of a question, a linear model

`fedbridge check examples/stackoverflow_fedavg.py` runs this file, as it is, under TFF and on JAX.
The folder FEDBRIDGE_DATA holds TFF's files: the sentences, and the counts of words and tags.
"""

import argparse
import collections
import json
import os
import pathlib

import tensorflow as tf
import tensorflow_federated as tff


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=["words", "tags"], default="words")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num_clients", type=int, default=5)
    parser.add_argument("--vocab_size", type=int, default=1000)
    parser.add_argument("--tag_vocab_size", type=int, default=50)
    parser.add_argument("--sequence_length", type=int, default=20)
    parser.add_argument("--max_elements", type=int, default=64, help="of a client, in a round")
    parser.add_argument("--batch_size", type=int, default=8)
    return parser.parse_args()


def load_vocabularies(arguments):
    """Words and tags, the most frequent first: from FEDBRIDGE_DATA, or TFF downloads them."""
    folder = pathlib.Path(os.environ.get("FEDBRIDGE_DATA", ""))
    stackoverflow = tff.simulation.datasets.stackoverflow
    if (folder / "stackoverflow.word_count").exists():
        lines = (folder / "stackoverflow.word_count").read_text().splitlines()
        words = [line.split()[0] for line in lines]
        counts = json.loads((folder / "stackoverflow.tag_count").read_text())
        tags = sorted(counts, key=counts.get, reverse=True)
    else:
        words = list(stackoverflow.load_word_counts(vocab_size=arguments.vocab_size))
        tags = list(stackoverflow.load_tag_counts())
    return words[: arguments.vocab_size], tags[: arguments.tag_vocab_size]


def lookup_table(vocabulary):
    """From a word to its place; all other words share the place behind the last one."""
    places = tf.lookup.KeyValueTensorInitializer(
        vocabulary, tf.range(len(vocabulary), dtype=tf.int64)
    )
    return tf.lookup.StaticVocabularyTable(places, num_oov_buckets=1)


def create_word_preprocess(arguments, words):
    """Ids: 0 pads, then the words, one for all others, one that begins and one that ends."""
    length, begin, end = arguments.sequence_length, len(words) + 2, len(words) + 3

    def to_ids(element):
        ids = lookup_table(words).lookup(tf.strings.split([element["tokens"]]).values[:length]) + 1
        ids = tf.cond(tf.size(ids) < length, lambda: tf.concat([ids, [end]], 0), lambda: ids)
        return tf.concat([[begin], ids], 0)

    def preprocess(dataset):
        ids = dataset.take(arguments.max_elements).shuffle(50, seed=1).map(to_ids)
        batches = ids.padded_batch(arguments.batch_size, padded_shapes=[length + 1])
        return batches.map(lambda ids: collections.OrderedDict(x=ids[:, :-1], y=ids[:, 1:]))

    return preprocess


def create_tag_preprocess(arguments, words, tags):
    """Which share of its words each word is; which tags there are."""

    def to_bags(element):
        text = tf.strings.join([element["tokens"], element["title"]], separator=" ")
        ids = lookup_table(words).lookup(tf.strings.split(text))
        counts = tf.reduce_sum(tf.one_hot(ids, len(words)), axis=0)
        found = lookup_table(tags).lookup(tf.strings.split(element["tags"], sep="|"))
        labels = tf.reduce_sum(tf.one_hot(found, len(tags) + 1), axis=0)[: len(tags)]
        share = tf.math.divide_no_nan(counts, tf.reduce_sum(counts))
        return collections.OrderedDict(x=share, y=labels)

    def preprocess(dataset):
        bags = dataset.take(arguments.max_elements).shuffle(50, seed=1).map(to_bags)
        return bags.batch(arguments.batch_size)

    return preprocess


def create_word_model(num_ids):
    def uniform(seed):
        return tf.keras.initializers.RandomUniform(-0.05, 0.05, seed=seed)

    return tf.keras.Sequential([
        tf.keras.layers.InputLayer(input_shape=(None,)),
        tf.keras.layers.Embedding(num_ids, 32, mask_zero=True, embeddings_initializer=uniform(1)),
        tf.keras.layers.LSTM(
            64, return_sequences=True,
            kernel_initializer=uniform(2), recurrent_initializer=uniform(3),
        ),
        tf.keras.layers.Dense(32, kernel_initializer=uniform(4)),
        tf.keras.layers.Dense(num_ids, kernel_initializer=uniform(5)),
    ])  # fmt: skip


def create_tag_model(num_words, num_tags):
    return tf.keras.Sequential(
        [
            tf.keras.layers.Dense(
                num_tags, activation="sigmoid", kernel_initializer="zeros", input_shape=(num_words,)
            )
        ]
    )


def main():
    arguments = parse_arguments()
    words, tags = load_vocabularies(arguments)
    train, _, _ = tff.simulation.datasets.stackoverflow.load_data(
        cache_dir=os.environ.get("FEDBRIDGE_DATA")
    )
    if arguments.task == "words":
        preprocess = create_word_preprocess(arguments, words)
    else:
        preprocess = create_tag_preprocess(arguments, words, tags)
    datasets = [
        preprocess(train.create_tf_dataset_for_client(client_id))
        for client_id in train.client_ids[0 : arguments.num_clients]
    ]

    def model_fn():
        if arguments.task == "words":
            return tff.learning.models.from_keras_model(
                create_word_model(len(words) + 4),
                loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                input_spec=datasets[0].element_spec,
                metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
            )
        return tff.learning.models.from_keras_model(
            create_tag_model(len(words), len(tags)),
            loss=tf.keras.losses.BinaryCrossentropy(),
            input_spec=datasets[0].element_spec,
            metrics=[tf.keras.metrics.Precision(), tf.keras.metrics.Recall(top_k=5)],
        )

    rate = 0.3 if arguments.task == "words" else 5.0
    process = tff.learning.algorithms.build_weighted_fed_avg(
        model_fn, client_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=rate)
    )
    state = process.initialize()
    for round_number in range(1, arguments.rounds + 1):
        result = process.next(state, datasets)
        state = result.state
        train_metrics = result.metrics["client_work"]["train"]
        print(f"round {round_number:2d}", dict(train_metrics))


if __name__ == "__main__":
    main()
