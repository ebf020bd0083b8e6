"""The baseline tasks: their data, their batches' fit to their model, what they refuse."""

import jax
import numpy as np
import pytest

import fedbridge as fb
from fedbridge.tasks.published import EXPERIMENTS

# The labels of CIFAR-100 are int64.
pytestmark = pytest.mark.filterwarnings("ignore:features are cast for the batches")

SPEC = fb.ClientSpec(num_epochs=1, batch_size=4, shuffle_buffer_size=1)
CREATE = {name: experiment.create for name, experiment in EXPERIMENTS.items()}


@pytest.fixture(scope="module", params=CREATE)
def task(request):
    return CREATE[request.param](SPEC, use_synthetic_data=True)


def test_a_model_takes_its_tasks_batches_and_masks_count_for_nothing(task):
    """Also in training, without a compilation: only shapes."""
    data, model = task.datasets, task.model
    for cohort in (data.sample_train_clients(1, random_seed=0), data.get_centralized_test_data()):
        if model.check is not None:
            model.check(cohort)
        batch = cohort.batch(np.zeros(4, np.int32))
        arguments = (model.initial_weights, batch, np.ones(4, bool), jax.random.key(0))
        forward = jax.eval_shape(lambda *a: model.forward(*a, True), *arguments)
        assert forward.objective.shape == ()
        assert len(jax.tree.leaves(forward.predictions)[0]) == 4


def test_a_seed_draws_the_same_clients_and_too_many_are_refused(task):
    data = task.datasets
    draw = lambda seed: data.sample_train_clients(2, random_seed=seed).client_hashes.tolist()
    assert draw(1) == draw(1)
    assert any(draw(seed) != draw(1) for seed in range(8))
    with pytest.raises(fb.ClientDataError, match="clients of . there are; ask for fewer"):
        data.sample_train_clients(9)
    assert int(data.sample_train_clients(9, replace=True, random_seed=1).num_clients) == 9


def test_a_summary_is_a_table(task):
    lines = []
    task.datasets.summary(lines.append)
    assert lines[0].split("|")[0].strip() == "Split"
    assert len(lines) == (5 if task.datasets.validation_data is None else 6)
    assert len({len(line) for line in lines}) == 1


def test_another_seed_is_other_weights():
    create = fb.tasks.emnist.create_character_recognition_task
    weights = lambda **kwargs: jax.tree.leaves(
        create(SPEC, model_id="2nn", use_synthetic_data=True, **kwargs).model.initial_weights
    )
    same = lambda a, b: all(map(np.array_equal, a, b))
    assert same(weights(seed=1), weights(debug_seed=1))
    assert not same(weights(seed=1), weights(seed=2))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: fb.tasks.emnist.create_character_recognition_task(
                SPEC, model_id="resnet18", use_synthetic_data=True
            ),
            "model_id is 'resnet18'; it must be one of 'cnn_dropout', 'cnn', '2nn'",
        ),
        (
            lambda: fb.tasks.cifar100.create_image_classification_task(
                SPEC, crop_height=33, use_synthetic_data=True
            ),
            r"crop_shape is \(33, 24, 3\)",
        ),
        (
            lambda: fb.tasks.stackoverflow.create_word_prediction_task(SPEC, vocab_size=0),
            "vocab_size is 0; it must be a positive integer",
        ),
        (
            lambda: fb.tasks.stackoverflow.create_tag_prediction_task(SPEC, tag_vocab_size=0),
            "tag_vocab_size is 0; it must be a positive integer",
        ),
        (
            lambda: fb.tasks.stackoverflow.create_tag_prediction_task(SPEC, tag_vocab_size=True),
            "tag_vocab_size is True; it must be a positive integer",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(make, words):
    with pytest.raises(fb.ArgumentError, match=words):
        make()


def test_a_files_text_is_converted_once_and_a_small_vocabulary_is_named(tmp_path, monkeypatch):
    small = fb.models.softmax_regression(shape=(1,), num_classes=2)
    monkeypatch.setattr(fb.models, "stackoverflow_lstm", lambda *args, **kwargs: small)
    rows = {k: [b"to be", b"or not to be"] for k in ("tokens", "title", "tags")}
    splits = {split: {"a": rows, "b": rows} for split in ("train", "heldout", "test")}
    fb.tff_io.write_sql(tmp_path / "stackoverflow.sqlite", splits)
    (tmp_path / "stackoverflow.word_count").write_text("to 8\nbe 8\n")
    seen = []
    create = lambda vocab_size: fb.tasks.stackoverflow.create_word_prediction_task(
        SPEC,
        sequence_length=3,
        vocab_size=vocab_size,
        cache_dir=tmp_path,
        progress=lambda done, total: seen.append((done, total)),
    )
    first = create(2).datasets
    assert seen
    assert first.train_data.client("b")["tokens"].tolist() == [[4, 1, 2, 5], [4, 3, 3, 1]]
    seen.clear()
    again = create(2).datasets
    assert not seen
    np.testing.assert_array_equal(
        first.validation_data.client("a")["tokens"], again.validation_data.client("a")["tokens"]
    )
    with pytest.raises(fb.ClientDataError, match="it has 2 words, fewer than the 3 asked for"):
        create(3)
    (tmp_path / "stackoverflow.tag_count").write_text('{"to be": 8}')
    tags = lambda **size: fb.tasks.stackoverflow.create_tag_prediction_task(
        SPEC, word_vocab_size=2, cache_dir=tmp_path, **size
    )
    weights = tags().model.initial_weights.trainable  # of TFF's 500, those there are
    assert {leaf.shape[-1] for leaf in jax.tree.leaves(weights)} == {1}
    with pytest.raises(fb.ClientDataError, match="tag_count: it has 1 tags, fewer than the 2"):
        tags(tag_vocab_size=2)
    with pytest.raises(fb.ClientDataError, match="tag_count: it has 1 tags, fewer than the 500"):
        tags(tag_vocab_size=500)  # asked for, though it is the default of TFF


@pytest.mark.parametrize(
    ("file", "splits", "task", "feature"),
    [
        ("emnist_all", ("all_train", "all_test"), "emnist_autoencoder", "pixels"),
        ("cifar100", ("train", "test"), "cifar100_image_classification", "image"),
        ("shakespeare", ("train", "test"), "shakespeare_character_prediction", "snippets"),
        ("stackoverflow", ("train", "heldout"), "stackoverflow_word_prediction", "tokens"),
    ],
)
def test_another_data_set_under_the_right_name_is_named(tmp_path, file, splits, task, feature):
    rows = {"x": np.zeros((2, 3), np.float32)}
    fb.tff_io.write_sql(tmp_path / f"{file}.sqlite", {split: {"a": rows} for split in splits})
    (tmp_path / "stackoverflow.word_count").write_text("to 8\nbe 8\n")
    arguments = {"vocab_size": 2} if file == "stackoverflow" else {}
    arguments |= {"only_digits": False} if file == "emnist_all" else {}
    with pytest.raises(fb.ClientDataError, match=rf"{file}.sqlite.* no feature '{feature}'"):
        CREATE[task](SPEC, cache_dir=tmp_path, **arguments)


def test_of_the_synthetic_tags_there_are_as_many_as_asked_for():
    create = lambda size: fb.tasks.stackoverflow.create_tag_prediction_task(
        SPEC, tag_vocab_size=size, use_synthetic_data=True
    )
    for asked, there in ((None, 20), (3, 3)):
        weights = create(asked).model.initial_weights.trainable
        assert {leaf.shape[-1] for leaf in jax.tree.leaves(weights)} == {there}
    with pytest.raises(fb.ClientDataError, match="have 20 tags, fewer than the 500 asked for; ask"):
        create(500)


def test_the_published_numbers_make_the_papers_process():
    """EMNIST CR of Reddi et al.: 10^-1.5, 10^-2.5, 1e-4; and an evaluation of some test clients."""
    experiment = EXPERIMENTS["emnist_character_recognition"]
    task = experiment.create(experiment.client_spec(), model_id="2nn", use_synthetic_data=True)
    state = experiment.process(task.model).initialize()
    server = {k: float(v) for k, v in fb.optimizers.get_hparams(state.finalizer).items()}
    expected = {"learning_rate": 10**-2.5, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-4}
    assert server == pytest.approx(expected, rel=1e-6)
    assert (experiment.rounds, experiment.clients, experiment.batch_size) == (1500, 10, 20)
    few = experiment._replace(evaluation_examples=9).evaluation_data(task, seed=0)
    assert few.num_clients == 1
    assert experiment.evaluation_data(task, seed=0) is task.datasets.test_data
