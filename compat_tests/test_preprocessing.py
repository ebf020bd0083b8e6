"""Preprocessed batches: those of TFF's own preprocessing functions, element for element."""

import dataclasses

import jax
import numpy as np
import pytest

from fedbridge import preprocessing as ours
from fedbridge.jax_core import ArgumentError, Forward, Model, ModelWeights, sequential
from fedbridge.preprocessing import ClientSpec
from fedbridge.tff_io import (
    find_data,
    from_client_data,
    from_clients,
    from_sql,
    read_tag_counts,
    read_word_counts,
)

SEED = 11
# Epochs, batch size, max_elements, shuffle_buffer_size.
SPECS = [
    (1, 20, None, 1),
    (2, 7, 11, 1),
    (3, 5, None, None),
    (2, 4, 9, 3),
    (1, 3, 1000, 2),
    (2, 1000, None, 1000),
]


@jax.jit
def _rows(cohort):
    return cohort.batch(cohort.streams["train"].rows.reshape(-1))


def our_batches(data, pipeline, client_id):
    """The batches of one client, cut to their real rows."""
    cohort = sequential.place(data.cohort([client_id], pipeline))
    stream = jax.device_get(cohort.streams["train"])
    steps, size = int(stream.step_offsets[-1]), stream.rows.shape[1]
    values = jax.tree.map(np.asarray, _rows(cohort))
    cut = lambda step, v: v[step * size : step * size + stream.sizes[step]]
    return [{k: cut(step, v) for k, v in values.items()} for step in range(steps)]


def assert_same(theirs, ours_):
    assert len(theirs) == len(ours_)
    for (x, y), batch in zip(theirs, ours_, strict=True):
        assert x.shape == batch["x"].shape
        assert (x.dtype == np.float32) == (batch["x"].dtype == np.float32)
        np.testing.assert_array_equal(batch["x"], x)
        np.testing.assert_array_equal(batch["y"], y)


def compare(theirs_fn, data, raw, name, specs=SPECS, client_ids=None):
    """All batches of these clients, under several client specs."""
    from tensorflow_federated.python.simulation.baselines import client_spec

    client_data = raw.to_client_data()
    client_ids = raw.client_ids if client_ids is None else client_ids
    for spec in specs:
        preprocess = theirs_fn(client_spec.ClientSpec(*spec))
        pipeline = ClientSpec(*spec).pipeline(name, seed=SEED)
        for client_id in client_ids:
            dataset = preprocess(client_data.create_tf_dataset_for_client(client_id))
            theirs = list(dataset.as_numpy_iterator())
            assert_same(theirs, our_batches(data, pipeline, client_id))


@pytest.fixture(autouse=True)
def _seeded_shuffles(tff, monkeypatch):
    """TFF's functions shuffle without a seed; with one their order can be compared."""
    import tensorflow as tf

    shuffle = tf.data.Dataset.shuffle
    seeded = lambda self, size, seed=None: shuffle(self, size, seed=seed or SEED)
    monkeypatch.setattr(tf.data.Dataset, "shuffle", seeded)


@pytest.fixture
def real(shared_data, tmp_path_factory, monkeypatch):
    """Reads a split of the real data; the folder too."""
    monkeypatch.setenv("FEDBRIDGE_CACHE", str(tmp_path_factory.getbasetemp() / "fedbridge"))
    monkeypatch.setenv("FEDBRIDGE_DATA", str(shared_data))

    def read(dataset, split):
        (path,) = find_data(dataset).folder.glob("*.sqlite")
        return from_sql(path, split)

    return read


def few(data):
    """The clients with the least, the most, and another number of elements."""
    by_size = sorted(data.client_ids, key=data.num_examples)
    return list(dict.fromkeys([by_size[0], by_size[-1], data.client_ids[3]]))


def one_client(data):
    """The elements of all clients, as those of one."""
    offsets = data.offsets[[0, -1]]
    return dataclasses.replace(data, client_ids=("all",), offsets=offsets)


# --- client specs -----------------------------------------------------------------------------


def accepts(make, *args):
    try:
        spec = make(*args)
    except (TypeError, ValueError):
        return None
    return spec.num_epochs, spec.batch_size, spec.max_elements, spec.shuffle_buffer_size


@pytest.mark.parametrize("position", range(4))
def test_a_client_spec_takes_what_tffs_takes(tff, position):
    values = [0, 1, 5, -1, None, True, False, 2.0, 2.7, "3", "x", np.int64(4), 1.5]
    for value in values:
        args = [1, 1, 1, 1]
        args[position] = value
        theirs = accepts(tff.simulation.baselines.ClientSpec, *args)
        assert accepts(ClientSpec, *args) == theirs, value


def test_default_buffers_are_tffs(tff):
    from tensorflow_federated.python.simulation.baselines.cifar100 import (
        image_classification_preprocessing as cifar100,
    )
    from tensorflow_federated.python.simulation.baselines.emnist import emnist_preprocessing
    from tensorflow_federated.python.simulation.baselines.shakespeare import (
        char_prediction_preprocessing as shakespeare,
    )
    from tensorflow_federated.python.simulation.baselines.stackoverflow import constants

    assert ours.SHUFFLE_BUFFER_SIZES == {
        "emnist": emnist_preprocessing.MAX_CLIENT_DATASET_SIZE,
        "stackoverflow": constants.DEFAULT_SHUFFLE_BUFFER_SIZE,
        "shakespeare": shakespeare.DEFAULT_SHUFFLE_BUFFER_SIZE,
        "cifar100": cifar100.NUM_EXAMPLES_PER_CLIENT,
    }


# --- EMNIST -----------------------------------------------------------------------------------

EMNIST = {
    "character_recognition": ours.emnist_character_recognition,
    "autoencoder": ours.emnist_autoencoder,
}


def theirs_emnist(task):
    from tensorflow_federated.python.simulation.baselines.emnist import emnist_preprocessing

    return lambda spec: emnist_preprocessing.create_preprocess_fn(spec, task, debug_seed=SEED)


@pytest.mark.parametrize("task", EMNIST)
def test_emnist_synthetic(tff, task):
    raw = from_client_data(tff.simulation.datasets.emnist.get_synthetic())
    compare(theirs_emnist(task), EMNIST[task](raw), raw, "emnist")


@pytest.mark.parametrize("task", EMNIST)
def test_emnist_real(tff, real, task):
    """Every image of every split; every client of one; some clients under all specs."""
    for split in ("all_train", "all_test", "digits_only_train", "digits_only_test"):
        raw = one_client(real("emnist", split))
        compare(theirs_emnist(task), EMNIST[task](raw), raw, "emnist", [(1, 512, None, 1)])
    raw = real("emnist", "digits_only_test")
    compare(theirs_emnist(task), EMNIST[task](raw), raw, "emnist", SPECS[:1])
    raw = real("emnist", "all_train")
    compare(theirs_emnist(task), EMNIST[task](raw), raw, "emnist", client_ids=few(raw))


# --- Stack Overflow ---------------------------------------------------------------------------


def theirs_words(vocab, *args):
    from tensorflow_federated.python.simulation.baselines.stackoverflow import (
        word_prediction_preprocessing as words,
    )

    return lambda spec: words.create_preprocess_fn(spec, vocab, *args)


def theirs_tags(word_vocab, tag_vocab):
    from tensorflow_federated.python.simulation.baselines.stackoverflow import (
        tag_prediction_preprocessing as tags,
    )

    return lambda spec: tags.create_preprocess_fn(spec, word_vocab, tag_vocab)


@pytest.fixture
def odd_sentences():
    """What splitting and hashing may get wrong."""
    rng = np.random.default_rng(0)
    pieces = [b" ", b"  ", b"\t", b"|", b"||", b"\xc2\xa0", b"\xff", b"\0", b"the", b"The", b"to"]
    pieces += [bytes(rng.integers(33, 127, n, np.uint8)) for n in (1, 3, 4, 8, 15, 17, 33, 65, 300)]
    join = lambda n: b"".join(pieces[i] for i in rng.integers(0, len(pieces), n))
    text = lambda: np.array([b"", b" ", *(join(n) for n in range(60))], object)
    return from_clients(
        {c: {"tokens": text(), "title": text(), "tags": text()} for c in ("a", "b")}
    )


@pytest.mark.parametrize("args", [(), (7, 3), (1, 10)])
def test_words_synthetic(tff, args):
    datasets = tff.simulation.datasets.stackoverflow
    raw = from_client_data(datasets.get_synthetic())
    vocab = list(datasets.get_synthetic_word_counts())[:25]
    data = ours.stackoverflow_word_prediction(raw, vocab, *args)
    compare(theirs_words(vocab, *args), data, raw, "stackoverflow")


def test_words_odd(tff, odd_sentences):
    vocab = ["the", "to", "", "caf\u00e9"]
    for args in [(20, 1), (6, 7)]:
        data = ours.stackoverflow_word_prediction(odd_sentences, vocab, *args)
        compare(theirs_words(vocab, *args), data, odd_sentences, "stackoverflow", SPECS[:1])


def test_tags_synthetic(tff):
    datasets = tff.simulation.datasets.stackoverflow
    raw = from_client_data(datasets.get_synthetic())
    words = list(datasets.get_synthetic_word_counts())[:25]
    tags = list(datasets.get_synthetic_tag_counts())[:9]
    data = ours.stackoverflow_tag_prediction(raw, words, tags)
    compare(theirs_tags(words, tags), data, raw, "stackoverflow")


def test_tags_odd(tff, odd_sentences):
    words, tags = ["the", "to", "\0", "The"], ["the", "", " "]
    data = ours.stackoverflow_tag_prediction(odd_sentences, words, tags)
    compare(theirs_tags(words, tags), data, odd_sentences, "stackoverflow", SPECS[:1])


@pytest.mark.parametrize("split", ["train", "heldout", "test"])
def test_stack_overflow_real(tff, real, shared_data, split):
    """Every sentence of every client in one go, and some clients under all specs."""
    raw = real("stackoverflow", split)
    words = list(read_word_counts(shared_data / "stackoverflow.word_count", 10_000))
    tags = list(read_tag_counts(shared_data / "stackoverflow.tag_count"))
    joined = one_client(raw)
    for theirs, fn in [
        (theirs_words(words, 20, 2), lambda d: ours.stackoverflow_word_prediction(d, words, 20, 2)),
        (
            theirs_tags(words[:500], tags),
            lambda d: ours.stackoverflow_tag_prediction(d, words[:500], tags),
        ),
    ]:
        compare(theirs, fn(joined), joined, "stackoverflow", [(1, 512, None, 1)])
        if split == "heldout":
            compare(theirs, fn(raw), raw, "stackoverflow", client_ids=few(raw))


# --- Shakespeare ------------------------------------------------------------------------------


def theirs_characters(*args):
    from tensorflow_federated.python.simulation.baselines.shakespeare import (
        char_prediction_preprocessing as characters,
    )

    return lambda spec: characters.create_preprocess_fn(spec, *args)


@pytest.mark.parametrize("args", [(), (5,)])
def test_shakespeare_synthetic(tff, args):
    raw = from_client_data(tff.simulation.datasets.shakespeare.get_synthetic())
    data = ours.shakespeare_character_prediction(raw, *args)
    compare(theirs_characters(*args), data, raw, "shakespeare")


def test_shakespeare_odd(tff):
    rng = np.random.default_rng(0)
    text = [bytes(rng.integers(0, 256, n, np.uint8)) for n in [0, 1, 2, 3, 78, 79, 80, 81, 82, 500]]
    raw = from_clients({"a": {"snippets": np.array(text, object)}})
    for args in [(), (1,)]:
        data = ours.shakespeare_character_prediction(raw, *args)
        compare(theirs_characters(*args), data, raw, "shakespeare")


def test_shakespeare_vocabulary_is_tffs(tff):
    from tensorflow_federated.python.simulation.baselines.shakespeare import (
        char_prediction_preprocessing as characters,
    )

    assert list(ours.SHAKESPEARE_CHARACTERS) == characters.CHAR_VOCAB
    special = ours.shakespeare_special_tokens()
    pad, oov, bos, eos = characters.get_special_tokens()
    assert special == (pad, (oov,), bos, eos)


# --- CIFAR-100 --------------------------------------------------------------------------------


def theirs_images(*args):
    from tensorflow_federated.python.simulation.baselines.cifar100 import (
        image_classification_preprocessing as images,
    )

    return lambda spec: images.create_preprocess_fn(spec, *args)


def images(rng, tff):
    synthetic = from_client_data(tff.simulation.datasets.cifar100.get_synthetic())
    random = {
        "image": rng.integers(0, 256, (6, 32, 32, 3), np.uint8),
        "label": np.arange(6),
        "coarse_label": np.arange(6),
    }
    random["image"][0] = 7  # without any deviation
    random["image"][1] = rng.integers(100, 102, (32, 32, 3))
    return [synthetic, from_clients({"r": random})]


@pytest.mark.parametrize("crop_shape", [(32, 32, 3), (24, 24, 3), (25, 31, 3), (1, 2, 3)])
def test_cifar100(tff, crop_shape):
    for raw in images(np.random.default_rng(0), tff):
        data = ours.cifar100_image_classification(raw, crop_shape)
        compare(theirs_images(crop_shape), data, raw, "cifar100")


def _seen():
    """A model whose prediction is what it sees."""

    def forward(weights, batch, mask, key, training):
        return Forward(0.0, batch["x"], 0.0, len(batch["x"]), ())

    return Model(ModelWeights(()), forward, {})


def test_random_crops_follow_tffs_law(tff):
    """Each of the 3 x 2 x 2 places and mirror images of a crop is as likely as TFF's."""
    import tensorflow as tf

    crop_shape, draws = (30, 31, 3), 1200
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    all_ = np.stack(
        [
            cut[:, ::step]
            for top in range(3)
            for left in range(2)
            for cut in [image[top : top + 30, left : left + 31]]
            for step in (1, -1)
        ]
    )
    all_ = np.asarray(ours.standardize(all_))
    rows = {"image": np.stack([image] * draws), "label": np.zeros(draws, np.int64)}
    raw = from_clients({"a": rows})
    tf.random.set_seed(3)
    dataset = raw.to_client_data().create_tf_dataset_for_client("a")
    spec = tff.simulation.baselines.ClientSpec(1, draws, None, 1)
    ((theirs, _),) = theirs_images(crop_shape, True)(spec)(dataset).as_numpy_iterator()
    data = ours.cifar100_whole_images(raw)
    (batch,) = our_batches(data, ClientSpec(1, draws, None, 1).pipeline("cifar100"), "a")
    model = ours.random_crops(_seen(), crop_shape)
    mine = model.forward(ModelWeights(()), batch, None, jax.random.key(0), True).predictions
    for seen in (theirs, np.asarray(mine)):
        distance = np.abs(seen[:, None, 0] - all_[None, :, 0]).max((2, 3))
        assert (np.sort(distance, 1)[:, 0] < 1e-5).all()  # each is one of these crops ...
        assert (np.sort(distance, 1)[:, 1] > 0.1).all()  # ... and no other
        counts = np.bincount(distance.argmin(1), minlength=12)
        # Chi-squared with 11 degrees of freedom is above 31.3 once in a thousand seeds.
        assert ((counts - draws / 12) ** 2 / (draws / 12)).sum() < 31.3
    middle = model.forward(ModelWeights(()), batch, None, jax.random.key(0), False).predictions
    evaluated = theirs_images(crop_shape)(spec)(dataset)
    ((theirs, _),) = evaluated.as_numpy_iterator()
    # The sums of this program, of up to 255^2 * 2790, are rounded in an order of their own: the
    # mean (127) is off by up to a bit, 8e-6, the deviation (74) too, which up to 1.7 of it show.
    np.testing.assert_allclose(np.asarray(middle), theirs, rtol=0, atol=1e-6)


# --- vocabularies -----------------------------------------------------------------------------


def test_unknown_words_have_tensorflows_fingerprints(tff):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    sizes = [*range(200), *range(64), 1000, 5000]
    words = [bytes(rng.integers(0, 256, n, np.uint8)) for n in sizes]
    theirs = tf.fingerprint(tf.constant(words), "farmhash64").numpy().view(np.uint64)[:, 0]
    assert [ours.fingerprint64(word) for word in words] == theirs.tolist()


def test_a_vocabulary_takes_what_tffs_table_takes(tff):
    import tensorflow as tf
    from tensorflow_federated.python.simulation.baselines.stackoverflow import (
        word_prediction_preprocessing as words,
    )

    spec = tff.simulation.baselines.ClientSpec(1, 1)
    raw = from_clients({"a": {"tokens": [b"a b"]}})
    dataset = raw.to_client_data().create_tf_dataset_for_client("a")
    for args in [(["a", "b", "a"],), ([],), (["a"], 0), (["a"], 3, 0), (["a"], -1)]:
        with pytest.raises((ValueError, tf.errors.OpError)):
            list(words.create_preprocess_fn(spec, *args)(dataset))
        with pytest.raises(ArgumentError):
            ours.stackoverflow_word_prediction(raw, *args)


def test_special_tokens_are_tffs(tff):
    from tensorflow_federated.python.simulation.baselines.stackoverflow import (
        word_prediction_preprocessing as words,
    )

    for args in [(10_000,), (60, 5)]:
        theirs = words.get_special_tokens(*args)
        mine = ours.stackoverflow_special_tokens(*args)
        assert list(mine.out_of_vocab) == theirs.out_of_vocab
        assert mine.padding == theirs.padding
        assert mine.beginning_of_sentence == theirs.beginning_of_sentence
        assert mine.end_of_sentence == theirs.end_of_sentence
        assert mine.vocab_size == args[0] + theirs.get_number_of_special_tokens()
