"""`fedbridge.tff` where there is no TensorFlow: names, processes over lists of batches, `run`."""

import functools
import operator
import subprocess
import sys
import textwrap

import jax
import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import fedbridge as fb
from fedbridge import tff
from fedbridge.bridge.old_metrics import old_training_metrics
from fedbridge.cli import app
from fedbridge.tff import _client_batches, _process, _run
from fedbridge.tff._errors import Note, runs
from fedbridge.tff.learning import _reconstruction_core
from fedbridge.tff_io import write_sql

RNG = np.random.default_rng(0)
SIZES = [[3, 3, 1], [], [3, 2]]
CLIENTS = [
    [
        {"x": RNG.random((n, 4), np.float32), "y": RNG.integers(0, 3, n).astype(np.int64)}
        for n in sizes
    ]
    for sizes in SIZES
]


def keras_model():
    return keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=1)),
        ]
    )


def model_fn():
    return tff.learning.models.from_keras_model(
        keras_model(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=None,
        metrics=[keras.metrics.SparseCategoricalAccuracy],
    )


def model_fn_with_finalizers():
    model = model_fn()
    model.metric_finalizers = lambda: {"loss": abs}
    return model


def process():
    return tff.learning.algorithms.build_weighted_fed_avg(
        model_fn, tff.learning.optimizers.build_sgdm(0.1)
    )


def test_tensorflow_is_not_imported():
    code = "import sys; from fedbridge import tff; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_keras_runs_on_jax_where_there_is_no_tensorflow(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    script = tmp_path / "script.py"
    script.write_text("import os\nprint(os.environ['KERAS_BACKEND'])\n")
    assert _run.run(script) == 0
    assert capsys.readouterr().out == "jax\n"


def test_a_process_computes_what_the_core_computes():
    mine = process()
    state = mine.initialize()
    data = fb.from_clients(
        {
            f"client {i}": {
                name: np.concatenate(
                    [np.zeros((0, *shape), dtype), *(b[name].astype(dtype) for b in batches)]
                )
                for name, shape, dtype in (("x", (4,), np.float32), ("y", (), np.int32))
            }
            for i, batches in enumerate(CLIENTS)
        }
    )
    core = fb.algorithms.fed_avg(model_fn().core_model(), fb.optimizers.sgdm(0.1))
    expected = core.initialize()
    batches = fb.Batches(batch_size=3)
    for round in (1, 2):
        state, metrics = mine.next(state, CLIENTS)
        expected, theirs = core.next(expected, data.cohort(data.client_ids, batches, round=round))
        assert metrics["client_work"]["train"] == theirs["client_work"]["train"]
    assert metrics["client_work"]["train"]["num_examples"] == sum(map(sum, SIZES))
    # The same batches: the first client's seven rows make 3 + 3 + 1, the third's five 3 + 2.
    for one, other in zip(
        mine.get_model_weights(state).trainable,
        expected.global_model_weights.trainable,
        strict=True,
    ):
        assert isinstance(one, np.ndarray)
        np.testing.assert_array_equal(one, np.asarray(other))


def test_the_state_is_tffs():
    mine = process()
    state = mine.initialize()
    assert state._fields == (
        "global_model_weights", "distributor", "client_work", "aggregator", "finalizer"
    )  # fmt: skip
    assert state.model is state.global_model_weights
    zeros = tff.learning.models.ModelWeights([np.zeros((4, 3)), np.zeros(3)], [])
    changed = mine.set_model_weights(state, zeros)
    assert not mine.get_model_weights(changed).trainable[0].any()
    other = keras_model()
    mine.get_model_weights(changed).assign_weights_to(other)
    assert not np.asarray(other.trainable_weights[0]).any()
    tff.learning.assign_weights_to_keras_model(other, state)
    np.testing.assert_array_equal(
        np.asarray(other.trainable_weights[0]), np.asarray(state.model.trainable[0])
    )
    again = tff.learning.state_with_new_model_weights(state, [*zeros.trainable], [])
    assert isinstance(again, tff.learning.templates.LearningAlgorithmState)
    assert mine.get_hparams(mine.set_hparams(state, {"client_work": {"learning_rate": 0.5}}))[
        "client_work"
    ] == {"learning_rate": 0.5}


def test_a_weight_that_is_one_number_is_a_number_as_in_tff():
    weights = tff.learning.models.ModelWeights([jax.numpy.ones(2), jax.numpy.float32(0.5)], [])
    ones, half = weights.convert_variables_to_arrays().trainable
    assert isinstance(ones, np.ndarray)
    assert isinstance(half, np.float32)


def test_tuples_are_features_x_and_y():
    pairs = [[(b["x"], b["y"]) for b in batches] for batches in CLIENTS]
    mine = process()
    one, other = (mine.next(mine.initialize(), data) for data in (CLIENTS, pairs))
    assert one.metrics == other.metrics


def test_old_metrics_print_arrays_and_what_is_empty():
    new = {
        "distributor": (),
        "client_work": {"train": {"hits": np.array([1.5, 2.0]), "none": np.zeros(0)}},
        "aggregator": {"mean_value": (), "count": 0},
        "finalizer": (),
    }
    text = "<broadcast=<>,aggregation=<mean_value=<>,count=0>,train=<hits=[1.5 2. ],none=[]>>"
    assert str(old_training_metrics(new)) == text


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras'
def test_old_metrics_and_evaluation():
    old = tff.learning.build_federated_averaging_process(
        model_fn, client_optimizer_fn=lambda: keras.optimizers.SGD(0.1)
    )
    state, metrics = old.next(old.initialize(), CLIENTS)
    new = process()
    expected = new.next(new.initialize(), CLIENTS).metrics["client_work"]["train"]
    assert metrics.loss == metrics["train"]["loss"] == metrics.train.loss == expected["loss"]
    evaluate = tff.learning.build_federated_evaluation(model_fn)
    current = tff.learning.algorithms.build_fed_eval(model_fn)
    weights = new.set_model_weights(new.initialize(), state.model)
    found = current.next(
        current.set_model_weights(current.initialize(), new.get_model_weights(weights)), CLIENTS
    ).metrics["client_work"]["eval"]["current_round_metrics"]
    assert evaluate(state.model, CLIENTS)["loss"] == evaluate(state, CLIENTS).eval.loss
    assert evaluate(state, CLIENTS)["eval"]["loss"] == found["loss"]


NEW = {
    "distributor": (),
    "client_work": {"train": {"loss": 2.5, "num_examples": 7, "num_batches": 1}},
    "aggregator": {"mean_value": ()},
    "finalizer": (),
}
TREE = (
    "OrderedDict([('broadcast', ()), ('aggregation', OrderedDict([('mean_value', ())])), "
    "('train', OrderedDict([('loss', 2.5)]))"
)


@pytest.mark.parametrize(
    "version, text",
    [
        ((0, 15), "<loss=2.5>"),
        ((0, 16), "<broadcast=<>,aggregation=<mean_value=<>>,train=<loss=2.5>>"),
        ((0, 17), TREE + "])"),
        ((0, 19), TREE + ", ('stat', OrderedDict([('num_examples', 7)]))])"),
    ],
)
def test_metrics_print_as_the_version_printed_them(version, text):
    old = old_training_metrics(NEW, version)
    assert str(old) == f"{old}" == text
    assert old.loss == old["train"]["loss"] == old.train.loss == 2.5
    assert old["train"]["num_examples"] == old["stat"]["num_examples"] == 7
    assert old["client_work"]["train"]["num_batches"] == 1


def test_a_script_says_which_tff_it_was_written_for(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nimport tensorflow_federated as tff\nprint(tff.__version__, sys.argv[1:])"
    )
    command = [sys.executable, "-m", "fedbridge", "run", script, "--tff-version=0.17.0", "--x", "y"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout == "0.17.0 ['--x', 'y']\n", done.stderr
    with pytest.raises(fb.ScriptError, match=r"no TFF '1.7'; --tff-version takes a release"):
        _run.run(script, [], "1.7")


def test_builders_take_the_namespaces_version(monkeypatch):
    monkeypatch.setattr(tff, "__version__", "0.18.0")
    sgd = tff.learning.optimizers.build_sgdm(0.1)
    old = tff.learning.build_federated_averaging_process(model_fn, sgd)
    state, metrics = old.next(old.initialize(), CLIENTS)
    assert list(metrics) == ["broadcast", "aggregation", "train"]
    assert list(metrics["train"]) == ["sparse_categorical_accuracy", "loss"]
    evaluated = tff.learning.build_federated_evaluation(model_fn)(state.model, CLIENTS)
    assert list(evaluated) == ["sparse_categorical_accuracy", "loss"]
    assert str(evaluated).startswith("OrderedDict([('sparse_categorical_accuracy', ")


def test_fed_prox_says_whose_sign_it_has():
    with pytest.warns(tff.Note, match="sign reversed"):
        tff.learning.algorithms.build_weighted_fed_prox(
            model_fn, 0.1, tff.learning.optimizers.build_sgdm(0.1)
        )


def test_weights_set_in_model_fn_are_lost_as_in_tff():
    def with_weights():
        model = keras_model()
        model.set_weights([np.ones((4, 3), "f"), np.ones(3, "f")])
        return tff.learning.models.from_keras_model(
            model, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )

    build = tff.learning.algorithms.build_weighted_fed_avg
    rate = tff.learning.optimizers.build_sgdm(0.1)
    with pytest.warns(tff.Note, match="weights set in model_fn are lost"):
        process = build(with_weights, rate)
    found = process.get_model_weights(process.initialize()).trainable
    for weight, made in zip(found, keras_model().weights, strict=True):
        np.testing.assert_array_equal(weight, np.asarray(made))
    # Keras itself is as before.
    model = keras_model()
    model.set_weights([np.ones((4, 3), "f"), np.ones(3, "f")])
    assert np.asarray(model.weights[1]).tolist() == [1.0, 1.0, 1.0]


def test_execution_contexts_are_taken_and_dropped():
    with pytest.warns(tff.Note, match="do not change results"):
        tff.backends.native.set_sync_local_cpp_execution_context(max_fanout=10)


@pytest.mark.parametrize(
    "name, words",
    [
        ("learning.build_fedavg", "the nearest name is tff.learning.algorithms.build_weighted"),
        ("simulation.models.from_keras_model", "nearest name is tff.learning.models.from_keras"),
        ("learning.algorithms.build_fed_multi_eval", "no TFF has"),
        ("learning.TrainableModel", "is no longer in TFF"),
        ("simulation.baselines.landmark.create_landmark_classification_task", "is not in"),
        ("program.CSVKeyFieldnameNotFoundError", "is not in fedbridge.tff yet"),
        ("simulation.datasets.flair.load_data", "yet .an archive of JPEG files: decode them"),
        ("simulation.datasets.gldv2.load_data", "yet .an archive of JPEG files: decode them"),
        ("backends.xla", "tff.backends.xla"),
        ("learning.metrics.SecureSumFactory", "write SumThenFinalizeFactory"),
        (
            "aggregators.SecureSumFactory",
            "nothing is encrypted.*; write tff.aggregators.SumFactory",
        ),
        ("aggregators.DifferentiallyPrivateFactory.tree_aggregation", "DP-FTRL.*gaussian_fixed"),
        ("aggregators.EncodedSumFactory.quantize", "no TFF has tff.aggregators.EncodedSumFactory"),
    ],
)
def test_a_name_that_is_not_there(name, words):
    assert not hasattr(tff, "learning_")  # also for those who only ask
    with pytest.raises(fb.FedbridgeError, match=words):
        operator.attrgetter(name)(tff)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: process().next(process().initialize(), CLIENTS[0][0]), "a list with one entry"),
        (lambda: process().next(process().initialize(), [[{"x": 1.0}]]), "batch the data set"),
        (
            lambda: process().next(process().initialize(), [[CLIENTS[0][0], {"x": np.ones(3)}]]),
            "client 0, batch 2: it has another structure",
        ),
        (
            lambda: process().next(
                process().initialize(), [CLIENTS[0], [{"x": np.ones((2, 5)), "y": np.ones(2)}]]
            ),
            r"rows of the shapes \[4\] and \[5\]; .* one fixed length in `padded_shapes`",
        ),
        (
            lambda: tff.learning.algorithms.build_weighted_fed_avg(
                keras_model, tff.learning.optimizers.build_sgdm(0.1)
            ),
            "model_fn returned Sequential",
        ),
        (
            lambda: tff.learning.algorithms.build_weighted_fed_avg(model_fn, 0.1),
            "client_optimizer_fn is 0.1",
        ),
        (
            lambda: tff.learning.build_federated_averaging_process(model_fn, stateful_delta=1),
            r"build_federated_averaging_process\(stateful_delta=...\) has no counterpart",
        ),
        (
            lambda: tff.simulation.baselines.cifar100.create_image_classification_task(
                fb.ClientSpec(1, 2),
                model_id=tff.simulation.baselines.cifar100.ResnetModel.RESNET101,
            ),
            "model_id is 'resnet101'",
        ),
        (
            lambda: tff.simulation.baselines.stackoverflow.create_word_prediction_task(
                fb.ClientSpec(1, 2), vocab_size=0
            ),
            "vocab_size is 0",
        ),
        (
            lambda: tff.learning.templates.ClientWorkProcess(model_fn, model_fn),
            "in computations of your own is not in fedbridge.tff yet",
        ),
        (
            lambda: tff.learning.templates.compose_learning_process(
                model_fn, tff.learning.templates.build_broadcast_process(), model_fn, None, None
            ),
            "it must be what build_model_delta_client_work gives",
        ),
        (
            lambda: tff.learning.templates.build_apply_optimizer_finalizer(
                tff.learning.optimizers.build_sgdm(1.0), None, lambda state, update: False
            ),
            "what is not finite is rejected",
        ),
        *(
            (lambda make=make: make(None), f"does not run on JAX; write .*{words}")
            for make, words in (
                (tff.aggregators.DifferentiallyPrivateFactory, "gaussian_fixed"),
                (tff.aggregators.PrivateQuantileEstimationProcess, "no_noise"),
                (tff.aggregators.EncodedSumFactory, "quantize_above_threshold"),
            )
        ),
        (
            lambda: tff.aggregators.add_measurements(
                tff.aggregators.SumFactory(), client_measurement_fn=tff.federated_sum
            ),
            "a fedbridge.aggregators.ClientMeasurement",
        ),
        (
            lambda: tff.learning.algorithms.build_fed_eval(
                model_fn_with_finalizers,
                metrics_aggregation_process=tff.learning.metrics.FinalizeThenSampleFactory(
                    2
                ).create({"loss": max}, None),
            ),
            "it must be the model's own, metric_finalizers()",
        ),
        (lambda: tff.learning.models.save(model_fn, "m"), "model is .*VariableModel"),
        (lambda: tff.learning.models.load(""), "path is ''"),
        (
            lambda: tff.learning.models.save_functional_model(3, "m"),
            "functional_model is 3.*FunctionalModel",
        ),
        (
            lambda: tff.learning.models.model_from_functional(3),
            "functional_model is 3.*FunctionalModel",
        ),
        (
            lambda: tff.learning.metrics.SumThenFinalizeFactory({}, {"loss": 0.0}),
            "left out: metrics start at zero",
        ),
        (lambda: tff.jax.computation, "tff.jax.computation is not in fedbridge.tff yet"),
        (
            lambda: tff.learning.algorithms.build_fed_recon(model_fn, loss_fn=None),
            "model_fn returned KerasModel: Federated Reconstruction takes models",
        ),
        (
            lambda: tff.learning.algorithms.build_personalization_eval_computation(
                model_fn, {"baseline_metrics": model_fn}, model_fn
            ),
            "names other than 'baseline_metrics'",
        ),
        (
            lambda: tff.learning.models.functional_model_from_keras(
                keras_model, None, None, keras.metrics.Accuracy
            ),
            "have no names",
        ),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(fb.FedbridgeError, match=words):
        call()


@pytest.mark.parametrize(
    "asked",
    [
        lambda data: data.create_tf_dataset_for_client("a"),
        lambda data: data.create_tf_dataset_from_all_clients(),
        lambda data: data.preprocess(lambda dataset: dataset),
        lambda data: data.output_types,
    ],
)
def test_data_sets_say_that_they_need_tensorflow(tmp_path, asked):
    write_sql(tmp_path / "a.sqlite", {"train": {"a": {"x": np.array([1, 2])}}})
    datasets = tff.simulation.datasets
    for data in (
        datasets.TestClientData({"a": {"x": [1, 2]}}),
        datasets.SqlClientData(tmp_path / "a.sqlite", "train"),
    ):
        with pytest.raises(fb.ScriptError, match="a ClientData run in TensorFlow, which is not"):
            asked(data)


def test_data_sets_are_fetched_as_ever(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDBRIDGE_MIRROR", str(tmp_path))
    with pytest.raises(fb.ClientDataError, match="there is no such file in the mirror"):
        tff.simulation.datasets.emnist.load_data(cache_dir=str(tmp_path / "cache"))
    write_sql(
        tmp_path / "emnist_all.sqlite",
        {
            f"{kind}_{part}": {"a": {"label": np.array([1]), "pixels": np.ones((1, 28, 28), "f")}}
            for kind in ("digits_only", "all")
            for part in ("train", "test")
        },
    )
    train, test = tff.simulation.datasets.emnist.load_data(cache_dir=str(tmp_path))
    assert train.client_ids == test.client_ids == ["a"]


def test_clients_without_batches():
    stream = _client_batches.cohort(_client_batches.batches([[], []]), 1).streams["train"]
    assert not stream.sizes.any()


SCRIPT = """
    import sys
    import tensorflow_federated as tff
    print(tff.federated_computation(lambda: "Hello")(), sys.argv[1:])
    {then}
"""


def run(tmp_path, then="", *arguments):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).format(then=then))
    return subprocess.run(
        [sys.executable, "-m", "fedbridge.tff", script, *arguments],
        check=False,
        capture_output=True,
        text=True,
    )


def test_a_script_runs_with_its_arguments(tmp_path):
    done = run(tmp_path, "", "--rounds", "3")
    assert (done.returncode, done.stdout) == (0, "b'Hello' ['--rounds', '3']\n"), done.stderr


INVENTED = "tff.learning.algorithms.build_weighted_fed_avg(None, {}=3)"


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (
            "from tensorflow_federated.learning import build_fedavg",
            "no TFF has tff.learning.build_fedavg; the nearest name is tff.learning.algorithms.",
        ),
        (
            "from tensorflow_federated.simulation.datasets import mnist",
            (
                "no TFF has tff.simulation.datasets.mnist; the nearest name is "
                "tff.simulation.datasets.emnist.load_data."
            ),
        ),
        (
            INVENTED.format("server_optimizer"),
            (
                "build_weighted_fed_avg has no argument 'server_optimizer'; the nearest is "
                "server_optimizer_fn; it has model_fn, "
            ),
        ),
        (
            INVENTED.format("differential_privacy"),
            (
                "build_weighted_fed_avg has no argument 'differential_privacy'; write "
                "model_aggregator=tff.learning.dp_aggregator(...); it has model_fn, "
            ),
        ),
        (INVENTED.format("zzz"), "has no argument 'zzz'; it has model_fn, "),
        ("get_ipython().system('ls')", "get_ipython is Jupyter's, which does not run here: leave"),
        ("print 'x'", "it is Python 2: rewrite it"),
    ],
)
def test_what_is_invented_or_a_notebooks_is_one_sentence(tmp_path, then, words):
    done = run(tmp_path, then)
    assert done.returncode == 2
    assert done.stderr.startswith(f"fedbridge: {tmp_path}/script.py, line 5: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("then", "last"),
    [
        ("print(undefined)", "NameError: name 'undefined' is not defined"),
        ("dict.fromkeys(zzz=1)", "TypeError: dict.fromkeys() takes no keyword arguments"),
        ("(lambda: 0)(a=1)", "TypeError: <lambda>() got an unexpected keyword argument 'a'"),
        ("from os import zzz", "ImportError: cannot import name 'zzz' from 'os' ("),
    ],
)
def test_errors_that_are_the_scripts_own_are_pythons(tmp_path, then, last):
    done = run(tmp_path, then)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.splitlines()[-1].startswith(last)


def test_processes_that_a_script_spawns_find_tff(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import multiprocessing
import tensorflow_federated as tff

def work(i):
    return i * len(str(tff.CLIENTS))

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(work, [1, 2]))
""")
    command = [sys.executable, "-m", "fedbridge.tff", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[7, 14]\n"), done.stderr


def test_two_dashes_may_stand_before_the_arguments(tmp_path):
    assert run(tmp_path, "", "--", "--rounds=1").stdout == "b'Hello' ['--rounds=1']\n"


def test_what_does_not_run_names_the_line(tmp_path):
    done = run(tmp_path, "tff.learning.build_fedavg()")
    assert done.returncode == 2
    assert done.stderr.startswith(f"fedbridge: {tmp_path}/script.py, line 5: no TFF has")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "then, words",
    [
        ("import tensorflow_federated.python.learning.Model", "is a private part of TFF"),
        ("from tensorflow_federated.python.core.api import Foo", "is a private part of TFF"),
        ("import tensorflow_federated.nothing", "is no module of fedbridge.tff"),
        ("import tensorflow", "the script needs TensorFlow"),
    ],
)
def test_a_module_that_is_not_there(tmp_path, then, words):
    done = run(tmp_path, then)
    assert done.returncode == 2
    assert done.stderr.startswith(f"fedbridge: {tmp_path}/script.py, line 5: ")
    assert words in done.stderr


def test_in_a_notebook_the_extension_gives_tffs_name_and_its_private_names():
    code = """
import fedbridge; fedbridge.load_ipython_extension(None)
import tensorflow_federated as tff
from fedbridge import tff as ours
from tensorflow_federated.python.learning import model
from tensorflow_federated.python.learning.model_utils import ModelWeights
assert tff is ours
from tensorflow_federated import python as all_of_it
from tensorflow_federated.python.simulation import hdf5_client_data
assert ModelWeights is tff.learning.ModelWeights
assert all_of_it.learning.ModelWeights is tff.learning.ModelWeights
assert all_of_it.federated_computation is tff.federated_computation
from tensorflow_federated.python.learning import federated_averaging
name = "build_federated_averaging_process"  # in its own form, and not as it is called today
assert getattr(federated_averaging, name) is getattr(tff.learning, name)
assert hdf5_client_data.HDF5ClientData is tff.simulation.HDF5ClientData
print(model.BatchOutput._fields)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout == "('loss', 'predictions', 'num_examples')\n", done.stderr
    assert runs("tff.python.learning.model.Model")
    assert not runs("tff.python.core.api.Foo")


def test_data_sets_that_are_kept_make_one_cohort(monkeypatch):
    """The very lists that were read before are packed once; what is random moves on."""
    made = []

    def counted(*args):
        made.append(_client_batches.cohort(*args))
        return made[-1]

    monkeypatch.setattr(_process, "cohort", counted)
    kept = _client_batches.batches(CLIENTS)
    mine = _process.LearningProcess(process()._process, read=lambda _: kept)
    state, _ = mine.next(mine.initialize(), CLIENTS)
    again, _ = mine.next(state, CLIENTS)
    assert len(made) == 1
    other = process()
    expected, _ = other.next(other.next(other.initialize(), CLIENTS).state, CLIENTS)
    jax.tree.map(np.testing.assert_array_equal, again, expected)
    assert not np.array_equal(
        *(jax.random.key_data(made[0].at_round(round).key) for round in (1, 2))
    )


def test_k_means_takes_single_points():
    mine = tff.learning.algorithms.build_fed_kmeans(2, (), random_seed=(1, 2))
    state = mine.set_model_weights(mine.initialize(), np.array([0.0, 10.0], "f"))
    state, metrics = mine.next(state, [np.array([1.0, 8.0], "f"), [np.float32(3.0)]])
    # Each centroid counts as one point: (0 + 1 + 3) / 3 and (10 + 8) / 2.
    np.testing.assert_allclose(mine.get_model_weights(state), [4 / 3, 9.0], rtol=1e-6)
    assert metrics["client_work"]["num_examples"] == 3


def test_a_schedule_is_called_with_the_number_of_the_round():
    rates = [0.5, 0.25, 0.125]
    mine = tff.learning.algorithms.build_weighted_fed_avg_with_optimizer_schedule(
        model_fn, lambda number: rates[number], tff.learning.optimizers.build_sgdm
    )
    state, found = mine.initialize(), []
    for _ in rates:
        state, metrics = mine.next(state, CLIENTS)
        found.append(metrics["client_work"]["client_learning_rate"])
    assert found == rates


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras'
def test_reconstruction_under_both_names():
    def made(convert):
        model = keras.Sequential(
            [
                keras.layers.Input((4,)),
                keras.layers.Dense(2, kernel_initializer=keras.initializers.GlorotUniform(seed=1)),
                keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=2)),
            ]
        )
        first, last = model.layers[-2:]
        return convert(model, global_layers=[first], local_layers=[last], input_spec=None)

    new, old = tff.learning.models.ReconstructionModel, tff.learning.reconstruction
    loss_fn = lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    new_model_fn = lambda: made(new.from_keras_model_and_layers)
    mine = tff.learning.algorithms.build_fed_recon(new_model_fn, loss_fn=loss_fn)
    state, metrics = mine.next(mine.initialize(), CLIENTS)
    assert new.has_only_global_variables(new_model_fn()) is False
    older = old.build_training_process(
        lambda: made(old.from_keras_model),
        loss_fn=loss_fn,
        client_optimizer_fn=lambda: keras.optimizers.SGD(0.1),
    )
    older_state, older_metrics = older.next(older.initialize(), CLIENTS)
    assert older_metrics["train"]["loss"] == metrics["client_work"]["train"]["loss"]
    for one, other in zip(state.model.trainable, older_state.model.trainable, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras'
def test_reconstruction_weighs_clients_by_a_function_of_their_metrics():
    model = keras.Sequential([keras.layers.Input((4,)), *(keras.layers.Dense(3) for _ in range(2))])
    shared, own = model.layers[-2:]
    make = tff.learning.models.ReconstructionModel.from_keras_model_and_layers

    def weights(client_weighting):
        process = tff.learning.algorithms.build_fed_recon(
            lambda: make(model, global_layers=[shared], local_layers=[own]),
            loss_fn=lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            client_weighting=client_weighting,
        )
        return process.next(process.initialize(), CLIENTS).state.model.trainable[0]

    alike = weights(tff.learning.ClientWeighting.UNIFORM)
    np.testing.assert_array_equal(alike, weights(lambda metrics: 0.0 * metrics["loss"][0] + 1.0))
    assert not np.array_equal(alike, weights(lambda metrics: metrics["loss"][0] ** 4))


def test_reconstruction_refuses_what_it_does_not_compute():
    class Own(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    models, metric = tff.learning.models, keras.metrics.MeanSquaredError
    dense, loss = keras.layers.Dense(3), keras.losses.MeanSquaredError()
    of = lambda *layers: models.ReconstructionModel.from_keras_model_and_layers(
        keras.Sequential([keras.layers.Input((4,)), *layers]),
        global_layers=[dense],
        local_layers=[],
    )
    for model_fn, metrics_fn, words in (
        (lambda: of(dense, Own()), None, "is of the custom class Own, which fedbridge does not"),
        (lambda: of(dense), lambda: [metric("loss")], 'or one is called "loss" like the loss'),
        (lambda: of(dense), lambda: [metric("a"), metric("a")], "two metrics have the same name"),
    ):
        with pytest.raises(fb.ModelError, match=words):
            tff.learning.algorithms.build_fed_recon(
                model_fn, loss_fn=lambda: loss, metrics_fn=metrics_fn
            )
    with pytest.raises(TypeError, match="forward_pass"):  # as Python says it under TFF
        type("ByHand", (models.ReconstructionModel,), {})()


def test_constraints_of_keras_do_nothing_and_one_line_says_so():
    dense = keras.layers.Dense(3, kernel_constraint="non_neg", bias_constraint="non_neg")
    model = keras.Sequential([keras.layers.Input((4,)), dense])
    loss, models = keras.losses.MeanSquaredError(), tff.learning.models
    partly_local = models.ReconstructionModel.from_keras_model_and_layers(
        model, global_layers=[dense], local_layers=[]
    )
    for core_model in (
        models.from_keras_model(model, loss, None).core_model,
        models.functional_model_from_keras(model, loss, None).core_model,
        lambda: _reconstruction_core.core_model(lambda: partly_local, lambda: loss, None),
    ):
        with pytest.warns(Note, match="constraints of weights as in TFF, never applied"):
            assert len(core_model().initial_weights.trainable) == 2


def test_functional_models_of_keras_leave_penalties_out():
    def keras_functional(penalty, metrics):
        dense = keras.layers.Dense(3, kernel_initializer="ones", kernel_regularizer=penalty)
        return tff.learning.models.functional_model_from_keras(
            lambda: keras.Sequential([keras.layers.Input((4,)), dense]),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            input_spec=None,
            metrics_constructor=metrics,
        )

    accuracy, found = keras.metrics.SparseCategoricalAccuracy, []
    measured = tff.aggregators.add_measurements(
        tff.aggregators.MeanFactory(), server_measurement_fn=lambda result: {"bias": result[1]}
    )
    sampled = functools.partial(tff.learning.metrics.finalize_then_sample, sample_size=2)
    for penalty, metrics in (
        (None, lambda: {"hits": accuracy()}),
        (keras.regularizers.L2(0.5), {"hits": accuracy}),  # a class is a function that makes them
    ):
        mine = tff.learning.algorithms.build_weighted_fed_avg(
            keras_functional(penalty, metrics),
            tff.learning.optimizers.build_sgdm(0.1),
            model_aggregator=measured,
            metrics_aggregator=sampled,
        )
        state, metrics = mine.next(mine.initialize(), CLIENTS)
        found.append(state.model.trainable[0])
        # The biases start at zero; and two of the three clients are in the sample.
        np.testing.assert_array_equal(-state.model.trainable[1], metrics["aggregator"]["bias"])
        assert metrics["client_work"]["train"]["hits"].shape == (2,)
        assert list(metrics["client_work"]["train"]) == ["hits"]
        assert not mine.get_hparams(state)["client_work"]
        # As TFF's: its FileProgramStateManager compares containers.
        assert state.client_work == ()
        assert isinstance(state.model.trainable, tuple)
    np.testing.assert_array_equal(*found)


def test_an_exception_of_the_script_is_its_own(tmp_path):
    done = run(tmp_path, "raise KeyError('mine')")
    assert done.returncode == 1
    first, second, *_, last = done.stderr.splitlines()
    assert (first, last) == ("Traceback (most recent call last):", "KeyError: 'mine'")
    assert second == f'  File "{tmp_path}/script.py", line 5, in <module>'


def test_a_function_of_the_scripts_own_may_have_a_name_of_tffs(tmp_path):
    then = "def build_fed_eval(model): ...\nbuild_fed_eval(units=3)"
    done = run(tmp_path, then)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("TypeError: build_fed_eval() got an unexpected")


@pytest.mark.parametrize("code, expected", [("3", 3), ("", 0), ("'no'", 1)])
def test_the_exit_code_is_the_scripts(tmp_path, code, expected):
    assert run(tmp_path, f"sys.exit({code})").returncode == expected


def test_notes_are_lines(tmp_path):
    done = run(tmp_path, "tff.framework.set_default_executor(None)")
    assert done.stderr.startswith("note: tff.framework.set_default_executor is taken and dropped")


def test_the_command_line(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(_run, "run", lambda *given: called.append(given[1:]) or 4)
    done = CliRunner().invoke(app, ["run", "script.py", "--", "--model", "cnn"])
    assert (done.exit_code, called) == (4, [(["--model", "cnn"], None)])
    done = CliRunner().invoke(app, ["run", "--tff-version", "0.17", "script.py", "x"])
    assert (done.exit_code, called[1:]) == (4, [(["x"], "0.17")])


def test_a_model_of_the_first_years_is_told_what_to_report():
    class Old(tff.learning.Model):
        def report_local_outputs(self): ...

    with pytest.raises(fb.ModelError, match="Old has no metric_finalizers: models report metrics"):
        tff.learning.build_federated_averaging_process(Old)


def test_factories_make_processes_for_computations():
    vectors = [np.float32([1, -2]), np.float32([0.5, 4])]
    type_ = tff.TensorType(np.float32, [2])
    mean = tff.aggregators.MeanFactory().create(type_, tff.TensorType(np.float32))
    state, result, measured = mean.next(mean.initialize(), vectors, [1.0, 3.0])
    np.testing.assert_allclose(result, [0.625, 2.5])
    assert list(measured) == ["mean_value", "mean_weight"]
    sums = tff.aggregators.SumFactory().create(type_)
    state, result, measured = sums.next(sums.initialize(), [])
    np.testing.assert_array_equal(result, [0, 0])
    for base in ("UnweightedAggregationFactory", "WeightedAggregationFactory"):
        assert isinstance(tff.aggregators.SumFactory(), getattr(tff.aggregators, base))


class Mean(tff.aggregators.WeightedAggregationFactory):
    """A weighted mean in computations, and a counter."""

    def create(self, value_type, weight_type):
        @tff.federated_computation
        def initialize():
            return tff.federated_value(0, tff.SERVER)

        @tff.federated_computation(
            initialize.type_signature.result,
            tff.FederatedType(value_type, tff.CLIENTS),
            tff.FederatedType(weight_type, tff.CLIENTS),
        )
        def next_fn(state, value, weight):
            mean = tff.federated_mean(value, weight)
            return tff.templates.MeasuredProcessOutput(state, mean, tff.federated_sum(weight))

        return tff.templates.AggregationProcess(initialize, next_fn)


def test_a_factory_of_the_scripts_own_aggregates():
    build = functools.partial(
        tff.learning.algorithms.build_weighted_fed_avg,
        model_fn,
        tff.learning.optimizers.build_sgdm(0.1),
    )
    processes = [build(model_aggregator=aggregator) for aggregator in (Mean(), None)]
    own, usual = (process.next(process.initialize(), CLIENTS) for process in processes)
    assert own.metrics["aggregator"] == sum(map(sum, SIZES))
    assert own.metrics["client_work"] == usual.metrics["client_work"]
    weights = [p.get_model_weights(o.state) for p, o in zip(processes, (own, usual), strict=True)]
    for ours, theirs in zip(*map(jax.tree.leaves, weights), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras'
def test_an_evaluation_of_old_knows_its_type():
    spec = {"x": tff.TensorType(np.float32, [None, 4]), "y": tff.TensorType(np.int32, [None])}

    def with_spec():
        model = model_fn()
        model.input_spec = spec
        return model

    evaluate = tff.learning.build_federated_evaluation(with_spec)
    given, data = evaluate.type_signature.parameter
    assert (given.placement, data.placement) == (tff.SERVER, tff.CLIENTS)
    assert str(evaluate.type_signature.result).startswith("<eval=<sparse_categorical_accuracy=")
