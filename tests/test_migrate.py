"""`fedbridge migrate`: what becomes of a script, and what is refused."""

import ast
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fedbridge as fb
from fedbridge.bridge.migrate import migrate
from fedbridge.cli import app

ROOT = Path(__file__).parents[1]
CORPUS = sorted([*ROOT.glob("compat_tests/corpus/scripts/*.py"), *ROOT.glob("examples/*.py")])

SCRIPT = """\
import collections  # kept
import tensorflow as tf
import tensorflow_federated as tff

tff.backends.native.set_sync_local_cpp_execution_context()
train, test = tff.simulation.datasets.emnist.load_data(only_digits=False)


def preprocess(dataset, seed):
    def to_batch(element):
        return collections.OrderedDict(
            x=tf.expand_dims(element["pixels"], -1), y=element["label"]
        )

    shuffled = dataset.repeat(5).shuffle(100, seed=seed)
    return shuffled.batch(20).map(to_batch).prefetch(2)


ids = train.client_ids[:10]
datasets = [preprocess(train.create_tf_dataset_for_client(c), 1) for c in ids]


def model_fn():
    return tff.learning.models.from_keras_model(
        make(), loss=tf.keras.losses.MeanSquaredError(), input_spec=datasets[0].element_spec
    )


process = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn, client_optimizer_fn=lambda: tf.keras.optimizers.SGD(lr=0.02)
)
state = process.initialize()
for number in range(1, 11):
    result = process.next(state, datasets)  # a round
    state = result.state
process.get_model_weights(state).assign_weights_to(keras_model)
"""

NEW = """\
import collections  # kept
import tensorflow as tf
import jax.numpy as jnp

import fedbridge as fb

train, test = fb.datasets.emnist.load_data(only_digits=False)


def to_batch(element):
    return collections.OrderedDict(
        x=jnp.expand_dims(element["pixels"], -1), y=element["label"]
    )


def preprocess(seed):
    return fb.pipeline.repeat(5).shuffle(100, seed=seed).batch(20)


ids = train.client_ids[:10]
def datasets(round):
    return train.map_batches(to_batch).cohort(ids, preprocess(1), round=round)


def model_fn():
    return fb.from_keras(make(), tf.keras.losses.MeanSquaredError())


process = fb.algorithms.fed_avg(
    model_fn(),
    client_optimizer=fb.optimizers.sgdm(learning_rate=0.02),
)
state = process.initialize()
for number in range(1, 11):
    result = process.next(state, datasets(number))  # a round
    state = result.state
fb.weights_to_keras(process.get_model_weights(state), keras_model)
"""


@pytest.fixture
def write(tmp_path):
    """Writes a script, and gives its path."""

    def write(text):
        path = tmp_path / "train.py"
        path.write_text(textwrap.dedent(text))
        return path

    return write


def test_a_script_in_the_common_shape(write):
    assert migrate(write(SCRIPT)) == (NEW, [])


def test_older_names_metrics_and_evaluation(write):
    new = migrate(
        write("""
        import tensorflow_federated as tff
        federated = tff.learning
        pipeline = lambda ds: ds.batch(batch_size=4, drop_remainder=True)
        def clients_of(data, ids):
            return [pipeline(data.create_tf_dataset_for_client(i)) for i in ids]
        process = federated.build_federated_averaging_process(model_fn, client_optimizer_fn=make)
        evaluation = tff.learning.build_federated_evaluation(model_fn)
        state = process.initialize()
        state, metrics = process.next(state, clients_of(data, ids))
        print(metrics["train"]["loss"], metrics.loss, metrics["train"])
        found = evaluation(state.model, clients_of(data, others))
        print(found["eval"]["loss"], found["accuracy"], found["eval"])
        """)
    ).text
    assert "pipeline = fb.pipeline.batch(size=4, drop_remainder=True)\n" in new
    assert (
        "def clients_of(data, ids, round):\n    return data.cohort(ids, pipeline, round=round)"
        in new
    )
    assert "process.next(state, clients_of(data, ids, round=1))" in new
    train = 'metrics["client_work"]["train"]'
    assert f'print({train}["loss"], {train}["loss"], {train})' in new
    assert (
        "found = evaluation.next(\n    evaluation.set_model_weights(evaluation.initialize(), "
        in new
    )
    assert "state.global_model_weights" in new
    assert 'print(found["loss"], found["accuracy"], found)' in new


def test_unweighted_prox_has_tff_sign_and_says_so(write):
    new, notes = migrate(
        write("""
        import tensorflow_federated as tff
        process = tff.learning.algorithms.build_unweighted_fed_prox(
            model_fn, 0.1, tff.learning.optimizers.build_adam(0.1)
        )
        """)
    )
    for part in ("fed_prox(", "0.1,", "client_optimizer=fb.optimizers.adam(0.1)",
                 "pull=fb.algorithms.away_from_server, client_weight=fb.uniform",
                 "aggregator=fb.unweighted_mean()"):  # fmt: skip
        assert part in new
    assert notes[0].startswith("line 3: TFF's proximal term has the wrong sign")


def test_constraints_are_ignored_as_in_tff_and_it_says_so(write):
    new, notes = migrate(
        write("""
        import tensorflow as tf
        import tensorflow_federated as tff
        def model_fn():
            dense = tf.keras.layers.Dense(1, kernel_constraint="non_neg")
            model = tf.keras.Sequential([tf.keras.layers.InputLayer((3,)), dense])
            return tff.learning.models.from_keras_model(model, loss, spec)
        """)
    )
    assert "fb.from_keras(model, loss, constraints=fb.ignore_constraints)" in new
    (note,) = notes
    assert note.startswith("line 5: TFF never applies constraints, so they are ignored: leave ker")


def test_arguments_by_name_and_in_any_order(write):
    new = migrate(
        write("""
        import tensorflow as tf, numpy as np
        import tensorflow_federated as tff
        data = tff.simulation.ClientData.from_clients_and_fn(
            create_tf_dataset_for_client_fn=make, client_ids=ids)
        pipeline = lambda ds: ds.batch(2)
        clients = [pipeline(data.create_tf_dataset_for_client(i)) for i in ids]
        process = tff.learning.algorithms.build_weighted_fed_prox(
            client_optimizer_fn=optimizer, model_fn=lambda: model, proximal_strength=0.1)
        state = process.initialize()
        state, metrics = process.next(client_data=clients, state=state)
        tff.learning.assign_weights_to_keras_model(tff_weights=state.model, keras_model=model)
        """)
    ).text
    ast.parse(new)
    assert "fb.from_datasets({i: make(i) for i in ids})" in new
    assert "(lambda: model)(),\n    0.1,\n    client_optimizer=optimizer," in new
    assert "process.next(state, clients(1))" in new
    assert "fb.weights_to_keras(state.global_model_weights, model)" in new


@pytest.mark.parametrize("script", CORPUS, ids=lambda path: path.stem)
def test_a_script_is_migrated_to_python_or_refused_in_words(script):
    try:
        new = migrate(script).text
    except fb.ScriptError as error:
        assert "cannot be migrated: line " in str(error)  # noqa: PT017 -- either of two
        return
    names = {node.id for node in ast.walk(ast.parse(new)) if isinstance(node, ast.Name)}
    assert "fb" in names
    assert "tff" not in names


HEAD = "import tensorflow as tf\nimport tensorflow_federated as tff\n"
PIPELINE = "pipeline = lambda ds: {}\n"
CLIENTS = "clients = [pipeline(d.create_tf_dataset_for_client(i)) for i in ids]\n"


def loop(chain):
    return HEAD + PIPELINE.format(chain) + CLIENTS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "tff.federated_map(f, x)", r"line 3: tff\.federated_map has no counterpart"),
        (loop("ds.filter(f).batch(2)"), "line 3: tf.data's filter has no counterpart"),
        (loop("ds.batch(2).shuffle(9)"), "line 3: shuffle after batch"),
        (loop("ds.batch(2).map(lambda e: tf.strings.length(e))"), "line 3: tf.strings.length"),
        (loop("ds.map(f).batch(2).map(g)"), "line 3: more than one map"),
        (
            "def f(b): return b\n" + loop("ds.batch(2).map(f, num_parallel_calls=2)"),
            "line 4: pipeline maps f, which is no function .* inside pipeline; write it there",
        ),
        (loop("ds.batch(2)") + "print(len(clients[0]))", "line 5: clients is used otherwise"),
        (
            loop("ds.batch(2)") + "while go:\n    p.next(state, clients)",
            "line 6: a loop of rounds",
        ),
        (HEAD + "p.next(state, [[batch]])", "line 3: clients that create_tf_dataset_for_client"),
        (HEAD + "d.create_tf_dataset_for_client(i)", "line 3: the data set of one client"),
        (
            HEAD + "p = tff.learning.algorithms.build_fed_sgd(m, tf.keras.optimizers.Ftrl())",
            "line 3: tf.keras.optimizers.Ftrl is none",
        ),
        (
            HEAD + "tff.learning.algorithms.build_weighted_fed_avg(m, o, client_weighting=f)",
            "line 3: client_weighting other than",
        ),
        (
            HEAD + "tff.learning.algorithms.build_weighted_fed_prox(m, 0.1, o, o, weighting)",
            "line 3: the arguments of tff.learning.algorithms.build_weighted_fed_prox; name them",
        ),
        (
            HEAD + "sample = tff.simulation.build_uniform_sampling_fn(ids, True, 1)",
            "line 3: a sampler that may draw a client twice",
        ),
        (HEAD + "tff.learning.models.from_keras_model(**kwargs)", "line 3: the arguments of"),
        (
            loop("ds.batch(2).map(lambda e: tf.one_hot(e, depth=9))"),
            r"line 3: tf.one_hot\(depth=...\)",
        ),
        (HEAD + "weights.assign_weights_to()", "line 3: weights.assign_weights_to without keras_"),
        (HEAD + "x = (", r"line 3: 'x = \(' is not Python 3"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_named(write, text, said):
    with pytest.raises(fb.ScriptError, match=said):
        migrate(write(text))


@pytest.mark.parametrize(
    ("line", "new"),
    [
        ("import numpy as np, tensorflow_federated as tff", "import numpy as np\n{}"),
        ("import tensorflow_federated as tff, os, sys as s", "import os, sys as s\n{}"),
        ("if 1: import os, tensorflow_federated as tff", "if 1: import os; {}"),
        ("from tensorflow_federated import learning, simulation", "{}"),
        ("from . import learning", "from . import learning"),
    ],
)
def test_several_imports_in_one_line(write, line, new):
    found = migrate(write(f"{line}\nx = 1\n")).text
    assert found == new.format("import fedbridge as fb") + "\nx = 1\n"


def test_all_that_stands_in_the_way_is_said_at_once(write):
    with pytest.raises(
        fb.ScriptError, match=r"line 3: tff\.a .*; line 4: tff\.b .*`fedbridge run`"
    ):
        migrate(write(HEAD + "tff.a\ntff.b\n"))


def test_the_command_writes_beside_the_script_and_overwrites_nothing(write):
    script = write(SCRIPT)
    new = script.with_name("train_fedbridge.py")
    run = lambda *more: CliRunner().invoke(app, ["migrate", str(script), *more])
    assert run().exit_code == 0
    assert new.read_text() == NEW
    new.write_text("mine")
    refused = run()
    assert refused.exit_code == 2
    assert new.read_text() == "mine"
    assert run("--force").exit_code == 0
    assert new.read_text() == NEW
