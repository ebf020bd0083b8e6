"""Preprocessing without TensorFlow: recorded cases of TFF's functions, and laws.

Where a literal is said to be TFF's, it is the output of TFF 0.87.0's own preprocessing function on
the same input, printed and copied. The comparison with the live TFF is in compat_tests.
"""

import dataclasses
import zlib

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st

import fedbridge as fb
from fedbridge import preprocessing as pre
from fedbridge.jax_core import Forward, Model, ModelWeights, Ragged
from fedbridge.preprocessing import ClientSpec
from fedbridge.preprocessing._division import divide_rows
from fedbridge.preprocessing._words import first_words, lookup, word_table

IN_ORDER = ClientSpec(num_epochs=1, batch_size=3, shuffle_buffer_size=1)
SENTENCES = [
    b"the cat sat",
    b"",
    b"the  Cat",
    b"sat on the mat with the cat",
    b"caf\xc3\xa9 hats sat",
]
TITLES = [b"cat cat", b"", b"The\tmat ", b"x", b"on"]
TAGS = [b"a|b", b"", b"b|b|z", b"z", b"a b"]


def one_client(**features):
    return fb.from_clients({"a": features})


def batches(data, pipeline, client_id="a"):
    """The batches of one client, cut to their real rows."""
    cohort = data.cohort([client_id], pipeline)
    stream = cohort.streams["train"]
    steps = range(int(stream.step_offsets[-1]))
    return [
        {k: np.asarray(v)[: stream.sizes[i]] for k, v in cohort.batch(stream.rows[i]).items()}
        for i in steps
    ]


def pairs(data, pipeline):
    return [(b["x"].tolist(), b["y"].tolist()) for b in batches(data, pipeline)]


# --- client specs -----------------------------------------------------------------------------


def test_a_client_spec_is_shuffle_repeat_take_batch():
    spec = ClientSpec(2, 4, 5, 3)
    expected = fb.pipeline.shuffle(3, seed=7).repeat(2).take(5).batch(4)
    assert spec.pipeline("emnist", seed=7) == expected
    assert IN_ORDER.pipeline("emnist") == fb.pipeline.batch(3)
    default = ClientSpec(1, 4).pipeline("shakespeare", seed=7)
    assert default == fb.pipeline.shuffle(50, seed=7).batch(4)


def test_what_a_client_spec_refuses():
    with pytest.raises(fb.ArgumentError, match=r"max_elements is -1; .*positive integer or None"):
        ClientSpec(1, 1, -1)
    with pytest.raises(fb.ArgumentError, match="batch_size is 0; it must be a positive integer"):
        ClientSpec(1, 0)
    with pytest.raises(fb.ArgumentError, match="num_epochs is 'x'"):
        ClientSpec("x", 1)
    with pytest.raises(fb.ArgumentError, match="data_set is 'mnist'; it must be one of 'emnist'"):
        ClientSpec(1, 1).pipeline("mnist")


# --- EMNIST -----------------------------------------------------------------------------------


def test_emnist():
    pixels = np.linspace(0, 1, 2 * 784, dtype=np.float32).reshape(2, 28, 28)
    raw = one_client(pixels=pixels, label=np.array([3, 61], np.int32))
    (batch,) = batches(pre.emnist_character_recognition(raw), IN_ORDER.pipeline("emnist"))
    np.testing.assert_array_equal(batch["x"], pixels[..., None])
    assert batch["y"].tolist() == [3, 61]
    (batch,) = batches(pre.emnist_autoencoder(raw), IN_ORDER.pipeline("emnist"))
    np.testing.assert_array_equal(batch["x"], np.float32(1) - pixels.reshape(2, 784))
    np.testing.assert_array_equal(batch["y"], batch["x"])


# --- Stack Overflow ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "num_out_of_vocab_buckets, expected",  # TFF's
    [
        (
            1,
            [
                (
                    [[6, 1, 2, 3], [6, 5, 7, 0], [6, 1, 5, 5]],
                    [[1, 2, 3, 7], [5, 7, 0, 0], [1, 5, 5, 7]],
                ),
                ([[6, 3, 5, 1], [6, 4, 5, 3]], [[3, 5, 1, 5], [4, 5, 3, 7]]),
            ],
        ),
        (
            3,
            [
                (
                    [[8, 1, 2, 3], [8, 7, 9, 0], [8, 1, 7, 7]],
                    [[1, 2, 3, 9], [7, 9, 0, 0], [1, 7, 7, 9]],
                ),
                ([[8, 3, 5, 1], [8, 4, 6, 3]], [[3, 5, 1, 5], [4, 6, 3, 9]]),
            ],
        ),
    ],
)
def test_words(num_out_of_vocab_buckets, expected):
    vocab = ["the", "cat", "sat", "caf\u00e9"]
    data = pre.stackoverflow_word_prediction(
        one_client(tokens=SENTENCES), vocab, 4, num_out_of_vocab_buckets
    )
    assert pairs(data, IN_ORDER.pipeline("stackoverflow")) == expected


def test_tags():
    raw = one_client(tokens=SENTENCES, title=TITLES, tags=TAGS)
    data = pre.stackoverflow_tag_prediction(raw, ["the", "cat", "mat"], ["a", "b"])
    spec = dataclasses.replace(IN_ORDER, batch_size=5)
    x = [[0.25, 0.75, 0], [0, 0, 0], [0.5, 0, 0.5], [0.5, 0.25, 0.25], [0, 0, 0]]  # TFF's
    y = [[1, 1], [0, 0], [0, 2], [0, 0], [0, 0]]
    assert pairs(data, spec.pipeline("stackoverflow")) == [(x, y)]


def test_shares_of_words_are_correctly_rounded_in_a_program():
    counts = np.random.default_rng(0).integers(0, 9, (20, 30))
    text = [b" ".join(b"%d" % w for w in np.repeat(np.arange(30), row)) for row in counts]
    raw = one_client(tokens=text, title=[b""] * 20, tags=[b""] * 20)
    data = pre.stackoverflow_tag_prediction(raw, [str(i) for i in range(30)], ["t"])
    cohort = fb.sequential.place(data.cohort(["a"], fb.Batches(batch_size=20)))
    x = jax.jit(lambda c: c.batch(np.arange(20, dtype=np.int32)))(cohort)["x"]
    expected = counts.astype(np.float32) / counts.sum(1, keepdims=True).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(x), expected)


words = st.lists(st.sampled_from([b"a", b"b", b"", b"c", b"\t"]), max_size=6).map(b" ".join)


@given(st.lists(words, max_size=8), st.integers(1, 5))
def test_sentences_are_cut_ended_and_filled_up(sentences, length):
    vocabulary = pre.Vocabulary(["a", "b"])
    ids = pre.sentence_ids(Ragged.from_rows(sentences), vocabulary, length)
    number = {b"a": 1, b"b": 2}
    for sentence, row in zip(sentences, ids.tolist(), strict=True):
        expected = [4, *(number.get(word, 3) for word in sentence.split(b" "))][: length + 1]
        expected += [5] if len(expected) <= length else []
        assert row == expected + [0] * (length + 1 - len(expected))


LENGTHS = [0, 1, 7, 8, 9, 15, 16, 17, 30]  # around 8 and 16 bytes, of which words are numbers
long_words = st.builds(
    lambda size, first, last: (first * size)[: max(size - 1, 0)] + last * (size > 0),
    st.sampled_from(LENGTHS),
    st.sampled_from([b"a", b"\xff"]),
    st.sampled_from([b"a", b"b", b"\0", b"\xff"]),
)


@given(
    st.lists(st.lists(long_words, max_size=6).map(b" ".join), min_size=1, max_size=8),
    st.lists(long_words, min_size=1, max_size=12, unique=True),
    st.sampled_from([1, 3]),
    st.integers(0, 2),
)
def test_words_of_any_length_are_looked_up_as_a_dict_does(sentences, vocab, buckets, cut):
    vocabulary = pre.Vocabulary(vocab, buckets)
    column = Ragged.from_rows([b"x" * cut, *sentences])
    edges = column.offsets[1:]  # a block that does not begin at the first byte
    words = first_words(column.values, edges, 4)
    ids = lookup(words, word_table(vocabulary), vocabulary)
    assert ids.tolist() == [vocabulary[w] for s in sentences for w in s.split(b" ")[:4]]


def test_every_word_of_a_large_vocabulary_is_found():
    vocabulary = pre.Vocabulary([f"{i}" + "x" * (i % 3 * 7) for i in range(20_000)])
    text = b" ".join(vocabulary)
    words = first_words(np.frombuffer(text, np.uint8), np.array([0, len(text)]), 20_000)
    ids = lookup(words, word_table(vocabulary), vocabulary)
    np.testing.assert_array_equal(ids, np.arange(20_000))


def test_many_ids_need_more_bits():
    vocabulary = pre.Vocabulary([str(i) for i in range(40_000)])
    sentences = Ragged.from_rows([b"39999 x"])
    assert pre.sentence_ids(sentences, vocabulary, 2).tolist() == [[40_002, 40_000, 40_001]]
    assert pre.word_ids(sentences, sentences, vocabulary).values.tolist() == [39_999] * 2
    assert pre.tag_ids(Ragged.from_rows([b"a"]), pre.Vocabulary(["a"])).values.dtype == np.int16


def test_blocks_of_rows_do_not_show(monkeypatch):
    rows = [b" ".join([b"a", b"b", b"z"][: i % 4]) for i in range(11)]
    column, vocabulary = Ragged.from_rows(rows), pre.Vocabulary(["a", "b"])
    whole = pre.sentence_ids(column, vocabulary, 2), pre.word_ids(column, column, vocabulary)
    monkeypatch.setattr("fedbridge.preprocessing._stackoverflow._BLOCK", 3)
    parts = pre.sentence_ids(column, vocabulary, 2), pre.word_ids(column, column, vocabulary)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_fingerprints_are_tensorflows():
    # tf.fingerprint(words, "farmhash64") of TensorFlow 2.14.1; a word for every branch.
    assert pre.fingerprint64(b"") == 11160318154034397263
    assert pre.fingerprint64(b"a") == 12917804110809363939
    assert pre.fingerprint64(b"word") == 16498804621125554880
    assert pre.fingerprint64(b"unknown words") == 13995526275381568987
    assert pre.fingerprint64(b"seventeen letters and more") == 16893879985419044345
    assert pre.fingerprint64(b"x" * 40) == 17003596230054984852
    assert pre.fingerprint64(b"0123456789" * 10) == 5075634454939960746


# --- Shakespeare ------------------------------------------------------------------------------


def test_characters():
    raw = one_client(snippets=[b"Hark!", b"", b"To be, or n\xc3\xb6t"])
    data = pre.shakespeare_character_prediction(raw, 4)
    spec = ClientSpec(2, 3, max_elements=4, shuffle_buffer_size=1)
    assert pairs(data, spec.pipeline("shakespeare")) == [  # TFF's
        (
            [[88, 9, 64, 46], [79, 89, 0, 0], [88, 89, 0, 0]],
            [[9, 64, 46, 23], [89, 0, 0, 0], [89, 0, 0, 0]],
        ),
        (
            [[88, 12, 24, 14], [65, 17, 14, 24], [14, 45, 87, 87]],
            [[12, 24, 14, 42], [17, 14, 24, 46], [45, 87, 87, 5]],
        ),
        (
            [[89, 0, 0, 0], [88, 9, 64, 46], [79, 89, 0, 0]],
            [[0, 0, 0, 0], [9, 64, 46, 23], [89, 0, 0, 0]],
        ),
    ]


@given(st.lists(st.binary(max_size=12), max_size=6), st.integers(1, 5))
def test_snippets_become_rows(snippets, length):
    raw = one_client(snippets=np.array(snippets, object))
    data = pre.shakespeare_character_prediction(raw, length)
    expected, edges = [], [0]
    for snippet in snippets:
        ids = [pre.SHAKESPEARE_CHARACTERS.find(chr(c)) + 1 or 87 for c in snippet]
        ids = [88, *ids, 89]
        ids += [0] * (-len(ids) % (length + 1))
        expected += [ids[i : i + length + 1] for i in range(0, len(ids), length + 1)]
        edges.append(len(expected))
    assert data.features["tokens"].tolist() == expected
    assert data.element_offsets.tolist() == edges


@given(st.lists(st.integers(0, 4), max_size=7), st.integers(1, 4), st.integers(1, 4))
def test_a_plan_over_elements_is_expanded_before_it_is_batched(sizes, buffer, batch):
    order = fb.pipeline.shuffle(buffer, seed=5).repeat(2).take(9)
    edges = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
    plan = order.batch(batch).plan(len(sizes), element_offsets=edges)
    elements = order.batch(1).plan(len(sizes)).rows[:, 0]
    rows = [row for e in elements for row in range(edges[e], edges[e + 1])]
    got = [plan.rows[i, : plan.sizes[i]].tolist() for i in range(len(plan.sizes))]
    assert got == [rows[i : i + batch] for i in range(0, len(rows), batch)]


def test_clients_after_the_first_keep_their_rows():
    raw = fb.from_clients({"a": {"snippets": [b"Hark!"]}, "b": {"snippets": [b"", b"To be"]}})
    data = pre.shakespeare_character_prediction(raw, 4)
    cohort = data.cohort(["b", "a", "b"], fb.Batches(batch_size=2))
    stream = cohort.streams["train"]
    tokens = np.concatenate([data.client(c)["tokens"] for c in "bab"])
    seen = [cohort.batch(stream.rows[i])["x"][: stream.sizes[i]] for i in range(5)]
    np.testing.assert_array_equal(np.concatenate(seen), tokens[:, :-1])
    assert stream.sizes[:5].tolist() == [2, 1, 2, 2, 1]


# --- CIFAR-100 --------------------------------------------------------------------------------


def some_images():
    n = np.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3)
    return one_client(image=(n * n // 7 % 256).astype(np.uint8), label=np.array([5, 99], np.int32))


@pytest.mark.parametrize(
    "crop_shape, corners, checksum",  # TFF's
    [
        (
            (24, 24, 3),
            [
                [0.16341300308704376, 1.6680426597595215, -0.22273088991641998],
                [0.1636088788509369, -0.2770916819572449, -0.717792272567749],
            ],
            80322887,
        ),
        (
            (5, 32, 3),
            [
                [-1.1626501083374023, 0.2000149041414261, 1.5626800060272217],
                [-0.553070068359375, -1.1619242429733276, 1.6308631896972656],
            ],
            3744396355,
        ),
    ],
)
def test_images_are_standardized_to_the_last_bit(crop_shape, corners, checksum):
    data = pre.cifar100_image_classification(some_images(), crop_shape)
    (batch,) = batches(data, IN_ORDER.pipeline("cifar100"))
    assert batch["x"].shape == (2, *crop_shape)
    assert batch["x"][:, 0, 0].tolist() == corners
    assert zlib.crc32(batch["x"].tobytes()) == checksum  # all numbers, every bit
    assert batch["y"].tolist() == [5, 99]


def seeing():
    """A model whose prediction is what it sees."""

    def forward(weights, batch, mask, key, training):
        return Forward(np.float32(0), batch["x"], np.float32(0), np.int32(len(batch["x"])))

    return Model(ModelWeights(()), forward, {})


def test_random_crops_are_crops_and_new_for_every_key():
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    raw = one_client(image=np.repeat(image, 400, 0), label=np.arange(400, dtype=np.int32))
    spec = ClientSpec(1, 400, shuffle_buffer_size=1)
    (batch,) = batches(pre.cifar100_whole_images(raw), spec.pipeline("cifar100"))
    model = pre.random_crops(seeing(), (31, 32, 3))
    see = lambda key, training: np.asarray(
        model.forward(ModelWeights(()), batch, None, jax.random.key(key), training).predictions
    )
    cuts = [image[:, top : top + 31, :, :][:, :, ::step] for top in (0, 1) for step in (1, -1)]
    cuts = np.asarray(pre.standardize(np.concatenate(cuts)))
    seen = see(1, True)
    distance = np.abs(seen[:, None] - cuts[None]).max((2, 3, 4))
    # Each is one of the four, but for the rounding of sums; each about as often as the others
    # (chi-squared with 3 degrees of freedom: above 16.3 for one key in a thousand).
    np.testing.assert_allclose(distance.min(1), 0, atol=1e-6)
    counts = np.bincount(distance.argmin(1), minlength=4)
    assert ((counts - 100) ** 2 / 100).sum() < 16.3
    assert (see(1, True) == seen).all()
    assert (see(2, True) != seen).any()
    np.testing.assert_array_equal(see(1, False), see(2, False))
    np.testing.assert_allclose(see(1, False), np.repeat(cuts[:1], 400, 0), atol=1e-6)


def test_random_crops_leave_the_model_its_checks():
    """A flax model looks at the shape of an example, and at the labels."""
    crop = (8, 8, 3)
    model = fb.models.softmax_regression(crop, 3, x="x", y="y")
    model = pre.random_crops(model, crop)
    for label in (2, 3):
        rows = {"image": np.zeros((2, 32, 32, 3), np.uint8), "label": np.array([0, label], "i4")}
        data = pre.cifar100_whole_images(one_client(**rows))
        cohort = data.cohort(data.client_ids, ClientSpec(1, 2).pipeline("cifar100"))
        if label < 3:
            model.check(cohort)
        else:
            with pytest.raises(fb.ClientDataError, match="the label 3"):
                model.check(cohort)


@pytest.mark.parametrize("transform", [lambda fn: fn, jax.jit, jax.vmap, "loop"])
def test_quotients_are_correctly_rounded(transform):
    # A product with the rounded inverse would differ in a bit here and there.
    values = np.arange(40, dtype=np.float32).reshape(2, 4, 5)
    divisors = np.array([[3, 7, 11, 13], [1, 49, 5, 10]], np.float32)
    expected = values / divisors[..., None]
    if transform == "loop":
        got = jax.jit(lambda *args: jax.lax.map(lambda a: divide_rows(*a), args))(values, divisors)
    elif transform is jax.vmap:
        got = jax.jit(jax.vmap(divide_rows))(values, divisors)
    else:
        rows = transform(divide_rows)(values.reshape(8, 5), divisors.reshape(-1))
        got = rows.reshape(2, 4, 5)
    np.testing.assert_array_equal(np.asarray(got), expected)


def test_a_uniform_image_becomes_zero():
    raw = one_client(image=np.full((1, 32, 32, 3), 7, np.uint8), label=np.zeros(1, np.int32))
    (batch,) = batches(pre.cifar100_image_classification(raw), IN_ORDER.pipeline("cifar100"))
    assert (batch["x"] == 0).all()


# --- in use -----------------------------------------------------------------------------------


def test_a_round_on_words():
    data = pre.stackoverflow_word_prediction(one_client(tokens=SENTENCES), ["the", "cat"], 4)
    model = fb.models.stackoverflow_lstm(2, 2, 3)
    process = fb.algorithms.fed_avg(model, fb.optimizers.sgdm(0.1))
    cohort = data.cohort(["a"], ClientSpec(2, 2).pipeline("stackoverflow", seed=1))
    _, metrics = process.next(process.initialize(), cohort)
    train = metrics["client_work"]["train"]
    assert int(train["num_examples"]) == 10
    assert int(train["num_tokens"]) == 2 * (4 + 2 + 4 + 4 + 4)


def test_equal_tasks_share_their_programs():
    raw = one_client(tokens=SENTENCES, title=TITLES, tags=TAGS)
    for make in (
        lambda: pre.stackoverflow_word_prediction(raw, ["the"]),
        lambda: pre.stackoverflow_tag_prediction(raw, ["the"], ["a"]),
        lambda: pre.cifar100_image_classification(some_images()),
    ):
        assert make().decode is make().decode


def test_ragged_ids_become_a_rectangle_in_a_cohort():
    ids = Ragged(np.array([5, 6, 7, 8], np.int16), np.array([0, 0, 3, 4]))
    data = fb.FederatedArrays(("a", "b"), np.array([0, 2, 3]), {"ids": ids})
    place = lambda *names: fb.sequential.place(data.cohort(names, fb.Batches(batch_size=4)))
    wide = place("b", "a").features["ids"]
    assert wide[:3].tolist() == [[-1] * 4, [5, 6, 7, -1], [8, -1, -1, -1]]
    assert place("b").features["ids"][:1].tolist() == [[8]]
    assert place().features["ids"].shape[1] == 1
    with pytest.raises(fb.ClientDataError, match=r"'ids': its rows differ in length.*resident"):
        fb.sequential.place(data.resident().cohort(["a"], fb.Batches(batch_size=4)))


# --- vocabularies and bad input ---------------------------------------------------------------


def test_vocabularies_are_read(tmp_path):
    path = tmp_path / "stackoverflow.word_count"
    path.write_text("the 12\nto 9\nthe 3\ncaf\u00e9 1\n", encoding="utf-8")
    assert list(fb.read_word_counts(path).items()) == [("the", 3), ("to", 9), ("caf\u00e9", 1)]
    assert list(fb.read_word_counts(path, 2)) == ["the", "to"]
    with pytest.raises(fb.ClientDataError, match="has 3 words, fewer than the 4 asked for; ask"):
        fb.read_word_counts(path, 4)
    with pytest.raises(fb.ClientDataError, match="vocab_size is 0; ask for at least one"):
        fb.read_word_counts(path, 0)
    path.write_text("the 12\nto\n")
    with pytest.raises(fb.ClientDataError, match=r"line 2 is 'to\\n', not a word and its count"):
        fb.read_word_counts(path)
    path.write_bytes(b"\xff\xfe\0")
    with pytest.raises(fb.ClientDataError, match="this is no text"):
        fb.read_word_counts(path)
    path.write_text('{"b": 1, "a": 2, "c": 2}')
    assert list(fb.read_tag_counts(path)) == ["a", "c", "b"]
    assert list(fb.read_tag_counts(path, 2)) == ["a", "c"]
    with pytest.raises(fb.ClientDataError, match="3 tags, fewer than the 4 .*--tag-vocab-size"):
        fb.read_tag_counts(path, 4)
    with pytest.raises(fb.ClientDataError, match="vocab_size is 0; ask for at least one tag"):
        fb.read_tag_counts(path, 0)
    for text in ("[1]", "{", '{"a": "x"}', '{"a": true}'):
        path.write_text(text)
        with pytest.raises(fb.ClientDataError, match="no JSON dictionary"):
            fb.read_tag_counts(path)
    with pytest.raises(fb.ClientDataError, match="there is no such file"):
        fb.read_tag_counts(tmp_path / "none")


def test_emnist_of_other_shapes_is_refused():
    flat = one_client(pixels=np.zeros((1, 784), np.float32), label=np.zeros(1, np.int32))
    for preprocess in (pre.emnist_character_recognition, pre.emnist_autoencoder):
        with pytest.raises(
            fb.ClientDataError, match=r"'pixels' has the shape \[784\] and not \[28, "
        ):
            preprocess(flat)
    pixels = np.full((2, 28, 28), 0.1, np.float32)
    grey = one_client(pixels=pixels, label=np.zeros(2, np.int32))  # of other values than 255ths
    (batch,) = batches(pre.emnist_autoencoder(grey), IN_ORDER.pipeline("emnist"))
    assert batch["x"].shape == (2, 784)
    columns = one_client(pixels=np.zeros((1, 28, 28), np.float32), label=np.zeros((1, 1), np.int32))
    with pytest.raises(fb.ClientDataError, match=r"'label' has the shape \[1\] and not \[\]"):
        pre.emnist_character_recognition(columns)


def test_what_is_refused():
    text, images = one_client(tokens=SENTENCES, label=np.arange(5)), some_images()
    with pytest.raises(fb.ClientDataError, match=r"no feature 'snippets' \(there are: 'tokens'"):
        pre.shakespeare_character_prediction(text)
    with pytest.raises(fb.ClientDataError, match="feature 'snippets' does not hold strings"):
        pre.shakespeare_character_prediction(one_client(snippets=np.arange(5)))
    once = pre.stackoverflow_word_prediction(text, ["the"])
    with pytest.raises(fb.ClientDataError, match="have been preprocessed before"):
        pre.stackoverflow_word_prediction(once, ["the"])
    with pytest.raises(fb.ArgumentError, match="word b'a' is in the vocabulary twice"):
        pre.stackoverflow_word_prediction(text, ["a", "b", "a"])
    with pytest.raises(fb.ArgumentError, match=r"vocabulary is \[\]; it must be at least one"):
        pre.stackoverflow_word_prediction(text, [])
    with pytest.raises(fb.ArgumentError, match="sequence_length is 0"):
        pre.stackoverflow_word_prediction(text, ["a"], 0)
    with pytest.raises(fb.ArgumentError, match="num_out_of_vocab_buckets is 0"):
        pre.stackoverflow_word_prediction(text, ["a"], 4, 0)
    with pytest.raises(fb.ArgumentError, match=r"crop_shape is \(40, 24, 3\)"):
        pre.cifar100_image_classification(images, (40, 24, 3))
    small = one_client(image=np.zeros((1, 8, 8, 3), np.uint8), label=np.zeros(1, np.int32))
    with pytest.raises(fb.ClientDataError, match=r"shape \[8, 8, 3\], not \[32, 32, 3\]"):
        pre.cifar100_image_classification(small)
    wide = Ragged(np.array([1]), np.array([0, 1]))
    with pytest.raises(fb.ClientDataError, match="int16 or int32 ids, or leave it out"):
        _ = fb.FederatedArrays(("a",), np.array([0, 1]), {"ids": wide}).residence.columns
