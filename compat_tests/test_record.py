"""Real scripts under the real TFF: what the recorder writes down is what TFF did.

TFF's import dominates, so one process runs all scripts, one after the other (a fork after the
import of TFF hangs in its executor).
"""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from fedbridge.bridge import keras_optimizers, trace
from fedbridge.bridge.record import record
from fedbridge.bridge.replay import replay
from fedbridge.jax_core import ScriptError

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "traces"

POOL = """
import json, os, sys
import tensorflow_federated
from fedbridge.bridge import recorder
for job in json.load(open(sys.argv[1])):
    modules = [m for name, m in sys.modules.items() if name.startswith("tensorflow_federated")]
    before = [(module, dict(vars(module))) for module in modules]
    path, argv, main = list(sys.path), list(sys.argv), sys.modules["__main__"]
    output = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    recorder.main(job["argv"])
    for module, names in before:  # the next script meets TFF as it was
        vars(module).clear()
        vars(module).update(names)
    sys.path[:], sys.argv[:], sys.modules["__main__"] = path, argv, main
"""

HEAD = """
import collections
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.default_rng(0)

def arrays(rows):
    return collections.OrderedDict(
        x=rng.random((rows, 5), dtype=np.float32), y=rng.integers(0, 3, rows).astype(np.int32)
    )

clients = tff.simulation.datasets.TestClientData({str(i): arrays(9 + 4 * i) for i in range(3)})

def preprocess(dataset, seed=1):
    return dataset.repeat(2).shuffle(10, seed=seed).batch(4)

def datasets(seed=1):
    return [preprocess(clients.create_tf_dataset_for_client(i), seed) for i in clients.client_ids]

def dense():
    return tf.keras.layers.Dense(3, activation="softmax", kernel_initializer="zeros")

def model_fn(spec=None, layers=(), **kwargs):
    arguments = dict(
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        input_spec=spec or datasets()[0].element_spec,
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )
    layers = [tf.keras.layers.InputLayer(input_shape=(5,)), *[make() for make in layers], dense()]
    return tff.learning.models.from_keras_model(
        tf.keras.Sequential(layers), **{**arguments, **kwargs}
    )

sgd = tff.learning.optimizers.build_sgdm
fed_avg = tff.learning.algorithms.build_weighted_fed_avg
"""

LOOP = """
process = fed_avg(model_fn, sgd(0.1), sgd(1.0))
assert isinstance(process, tff.learning.templates.LearningProcess)
state = process.initialize()
data = datasets(seed=SEED)
for round_number in range(3):
    output = process.next(state, data)
    assert isinstance(output, tff.learning.templates.LearningProcessOutput)
    state, metrics = output
"""

SCRIPTS = {
    "seeded": LOOP.replace("SEED", "1"),
    "unseeded": LOOP.replace("SEED", "None"),
    # A smaller batch before the last: no list that TFF takes.
    "uneven": LOOP.replace(
        "datasets(seed=SEED)",
        "[clients.create_tf_dataset_for_client(i).batch(4).repeat(2) for i in clients.client_ids]",
    ),
    # Empty clients, no clients, clients as plain lists, (x, y), wide dtypes; unweighted.
    "odd": """
    wide = lambda n: (rng.random((n, 5)), rng.integers(0, 3, n))
    spec = (tf.TensorSpec((None, 5), tf.float64), tf.TensorSpec((None,), tf.int64))
    process = tff.learning.algorithms.build_unweighted_fed_avg(
        lambda: model_fn(spec), sgd(0.1, momentum=0.9)
    )
    state = process.initialize()
    batched = tf.data.Dataset.from_tensor_slices(wide(7)).batch(4)
    for data in ([batched, batched.take(0)], [[wide(3), wide(2)], []], []):
        state, metrics = process.next(state, data)
    """,
    # Five rounds and an evaluation after each, through TFF's own loop.
    "loop": """
    import sys
    assert sys.argv[1:] == ["--flag", "value"] and __name__ == "__main__"
    process = fed_avg(model_fn, sgd(0.1))
    evaluation = tff.learning.algorithms.build_fed_eval(model_fn)
    evaluation_state = evaluation.initialize()

    def evaluate(state, data):
        global evaluation_state
        weights = process.get_model_weights(state)
        evaluation_state, metrics = evaluation.next(
            evaluation.set_model_weights(evaluation_state, weights), data
        )
        return metrics

    tff.simulation.run_training_process(
        process, lambda round_number: datasets()[:2], 5,
        evaluation_fn=evaluate, evaluation_selection_fn=lambda round_number: datasets()[2:],
    )
    """,
    # Metrics with arrays among their arguments; labels as rows of zeros and ones.
    "arrays": """
    hot = lambda dataset: dataset.map(lambda row: (row["x"], tf.one_hot(row["y"], 3)))
    metrics = [
        lambda: tf.keras.metrics.AUC(label_weights=np.array([1.0, 0.0, 2.0]), num_thresholds=9),
        lambda: tf.keras.metrics.AUC(
            multi_label=True, num_labels=3, label_weights=[0.5, 1.0, 1.0], name="by"
        ),
        lambda: tf.keras.metrics.Precision(thresholds=[0.3, 0.4]),
    ]
    data = [hot(preprocess(clients.create_tf_dataset_for_client(i))) for i in "01"]
    process = fed_avg(
        lambda: model_fn(
            data[0].element_spec, loss=tf.keras.losses.CategoricalCrossentropy(),
            metrics=[make() for make in metrics],
        ),
        sgd(0.1),
    )
    state, metrics = process.next(process.initialize(), data)
    process.next(state, data)
    """,
    "failing": """
    process = fed_avg(model_fn, sgd(0.1))
    process.next(process.initialize(), datasets())
    raise ValueError("out of luck")
    """,
    "nothing": "print('no round')",
    "prox": """
    constrained = lambda: tf.keras.layers.Dense(5, kernel_constraint="non_neg")
    process = tff.learning.algorithms.build_weighted_fed_prox(
        lambda: model_fn(layers=[constrained]),
        proximal_strength=0.1,
        client_optimizer_fn=lambda: tf.keras.optimizers.SGD(0.1),
    )
    process.next(process.initialize(), datasets())
    """,
    "dropout": """
    process = fed_avg(lambda: model_fn(layers=[lambda: tf.keras.layers.Dropout(0.5)]), sgd(0.1))
    process.next(process.initialize(), datasets())
    """,
    "custom_loss": """
    class Hinge(tf.keras.losses.Loss):
        def call(self, y_true, y_pred):
            return tf.reduce_mean(y_pred, -1)

    process = fed_avg(lambda: model_fn(loss=Hinge()), sgd(0.1))
    process.next(process.initialize(), datasets())
    """,
    "aggregator": """
    hadamard = tff.aggregators.HadamardTransformFactory(tff.aggregators.SumFactory())
    process = fed_avg(model_fn, sgd(0.1), model_aggregator=tff.aggregators.MeanFactory(hadamard))
    process.next(process.initialize(), datasets())
    """,
    # Names, call forms and metrics of 2019.
    "old": """
    tf.compat.v1.enable_v2_behavior()
    tff.framework.set_default_executor(tff.framework.create_local_executor())
    assert tff.federated_computation(lambda: 'Hello, World!')() == b'Hello, World!'
    old = tff.simulation.FromTensorSlicesClientData({"a": arrays(9), "b": arrays(5)})
    old = tff.simulation.ClientData.from_clients_and_fn(
        ["a", "b"], old.create_tf_dataset_for_client
    )
    data = [preprocess(old.create_tf_dataset_for_client(i)) for i in old.client_ids]
    sample_batch = tf.nest.map_structure(lambda x: x.numpy(), next(iter(data[0])))

    def compiled():
        model = tf.keras.Sequential([tf.keras.layers.InputLayer(input_shape=(5,)), dense()])
        model.compile(
            loss="sparse_categorical_crossentropy",
            optimizer=tf.keras.optimizers.SGD(0.5),
            metrics=["accuracy"],
        )
        return model

    def old_model_fn():
        return tff.learning.from_compiled_keras_model(compiled(), sample_batch)

    trainer = tff.learning.build_federated_averaging_process(
        old_model_fn, client_optimizer_fn=lambda: tf.keras.optimizers.SGD(lr=0.1, nesterov=True,
                                                                          momentum=0.9)
    )
    state = trainer.initialize()
    state, metrics = trainer.next(state, data)
    assert metrics.loss == metrics._asdict()["loss"] == metrics["train"]["loss"]
    assert metrics.train.accuracy == metrics.accuracy and "loss=" in str(metrics)
    evaluation = tff.learning.build_federated_evaluation(old_model_fn)
    assert evaluation(state.model, data).loss < metrics.loss
    model = compiled()
    tff.learning.assign_weights_to_keras_model(model, state.model)
    state = tff.learning.state_with_new_model_weights(
        state, [v.numpy() for v in model.trainable_weights], []
    )
    state, _ = trainer.next(state, data)
    """,
}

NOTEBOOK = [
    ["!pip install tensorflow-federated\n", "%load_ext tensorboard\n", HEAD],
    ["%%time\n", LOOP.replace("SEED", "1"), "state?\n"],
]


class Recorded(NamedTuple):
    """What one pass left behind."""

    out: Path
    events: list[dict]

    @property
    def trace(self) -> trace.Trace:
        return trace.read(self.out)

    def event(self, kind: str) -> dict:
        (found,) = [event for event in self.events if event["event"] == kind]
        return found

    def losses(self) -> list[float]:
        return [event["loss"] for event in self.events if event["event"] == "round"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("record")


@pytest.fixture(scope="module")
def recorded(folder):
    """Every script, recorded; two of them timed as well."""
    jobs = {}

    def job(name, script, mode="record", arguments=(), rounds=None):
        limit = [] if rounds is None else ["--rounds", str(rounds)]
        jobs[name] = {
            "log": str(folder / f"{name}.log"),
            "argv": ["--mode", mode, "--script", str(script), "--out", str(folder / name),
                     "--events", str(folder / f"{name}.jsonl"), *limit, "--", *arguments],
        }  # fmt: skip

    for name, body in SCRIPTS.items():
        script = folder / f"{name}.py"
        script.write_text(HEAD + textwrap.dedent(body))
        arguments, rounds = (["--flag", "value"], 3) if name == "loop" else ((), None)
        job(name, script, arguments=arguments, rounds=rounds)
    job("seeded_timed", folder / "seeded.py", mode="time")
    notebook = folder / "book.ipynb"
    cells = [{"cell_type": "code", "source": source} for source in NOTEBOOK]
    notebook.write_text(
        json.dumps({"cells": [{"cell_type": "markdown", "source": "# TFF"}, *cells]})
    )
    job("notebook", notebook)
    (folder / "jobs.json").write_text(json.dumps(list(jobs.values())))
    with (folder / "pool.log").open("w") as log:
        subprocess.run(
            [sys.executable, "-c", POOL, str(folder / "jobs.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    return {
        name: Recorded(
            folder / name,
            [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()],
        )
        for name in jobs
    }


def rows_of(found: trace.Trace, number: int) -> np.ndarray:
    return found.call(number)["rows"]


def test_a_seeded_script_trains_as_it_does_without_the_recorder(recorded, folder):
    timed = json.loads((folder / "seeded_timed").read_text())
    found = recorded["seeded"].trace
    assert [call.metrics for call in found.calls] == [call["metrics"] for call in timed["calls"]]
    assert len(found.calls) == 3
    assert all(np.array_equal(rows_of(found, 0), rows_of(found, number)) for number in (1, 2))
    assert all(call["seconds"] > 0 for call in timed["calls"])
    assert timed["processes"][0]["seconds_build"] > 0


def test_the_trace_holds_the_process_the_rows_and_the_states(recorded):
    found = recorded["seeded"].trace
    (process,) = found.processes
    assert process.builder == process.called_as == "tff.learning.algorithms.build_weighted_fed_avg"
    assert process.kind == "training" and process.client_weighting == "NUM_EXAMPLES"
    sgd = {"name": "build_sgdm", "arguments": {"learning_rate": 0.1, "momentum": None}}
    assert process.client_optimizer == sgd
    assert process.server_optimizer["arguments"]["learning_rate"] == 1.0
    assert process.model["class_name"] == "Sequential"
    assert process.model["loss"]["class_name"] == "SparseCategoricalCrossentropy"
    assert [metric["class_name"] for metric in process.model["metrics"]] == [
        "SparseCategoricalAccuracy"
    ]
    assert found.not_replayable is None
    rows = found.rows()
    assert len(rows["x"]) == len(rows["y"]) == 9 + 13 + 17
    call = found.call(0)
    assert call["step_offsets"].tolist() == [0, 5, 12, 21]
    assert call["batch_sizes"].tolist()[:5] == [4, 4, 4, 4, 2]
    assert found.calls[0].num_examples == len(call["rows"]) == 2 * (9 + 13 + 17)
    assert [(c.state_before, c.state_after) for c in found.calls] == [(0, 1), (1, 2), (2, 3)]
    assert set(found.state(0)) == {
        "global_model_weights/trainable/0",
        "global_model_weights/trainable/1",
        "client_work/learning_rate",
        "finalizer/learning_rate",
    }


def test_probes_are_the_first_batches(recorded):
    found = recorded["seeded"].trace
    call, before = found.call(0), found.state(0)["global_model_weights/trainable/0"]
    first, second = found.calls[0].probe_metrics
    assert first["client_work"]["train"]["num_batches"] == 3
    assert second["client_work"]["train"]["num_batches"] == 6
    # One step of SGD with zero weights: every class has probability 1/3.
    rows, offsets = found.rows(), call["step_offsets"]
    starts = np.concatenate([[0], np.cumsum(call["batch_sizes"])])
    expected, total = 0.0, 0
    for step in offsets[:-1]:
        of_batch = call["rows"][starts[step] : starts[step + 1]]
        x, y = rows["x"][of_batch], np.eye(3)[rows["y"][of_batch]]
        expected = expected - 0.1 * x.T @ (1 / 3 - y)
        total += len(of_batch)
    # The mean of one-batch clients weighted by examples; 2e-6: float32 against float64.
    np.testing.assert_allclose(
        call["probe_1/trainable/0"] - before, expected / total, rtol=0, atol=2e-6
    )


def test_an_unseeded_shuffle_is_recorded_as_drawn(recorded):
    found = recorded["unseeded"].trace
    drawn = [rows_of(found, number) for number in range(3)]
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[1], drawn[2])
    assert all(sorted(rows) == sorted(drawn[0]) for rows in drawn)
    assert found.not_replayable is None


def test_empty_clients_no_clients_lists_and_wide_dtypes(recorded):
    found = recorded["odd"].trace
    assert found.features["x"].dtype == "float64" and found.features["y"].dtype == "int64"
    assert [call.num_clients for call in found.calls] == [2, 2, 0]
    offsets = [found.call(number)["step_offsets"].tolist() for number in range(3)]
    assert offsets == [[0, 2, 2], [0, 2, 2], [0]]
    assert found.processes[0].client_weighting is None
    assert found.processes[0].client_optimizer["arguments"]["momentum"] == 0.9
    assert found.calls[2].metrics["finalizer"]["update_non_finite"] == 1
    assert any("empty client" in note for note in found.notes)


def test_rounds_and_evaluations_in_tffs_own_loop(recorded):
    found = recorded["loop"].trace
    kinds = [found.processes[call.process].kind for call in found.calls]
    assert kinds.count("training") == 3  # of five, by --rounds 3
    assert kinds[-1] == "evaluation"  # the script goes on until it asks for a fourth
    evaluation = found.calls[-1]
    assert evaluation.metrics["client_work"]["eval"]["current_round_metrics"]["num_examples"] == 34
    assert not evaluation.probe_metrics


def test_a_notebook_gives_the_trace_of_its_script(recorded):
    book, script = recorded["notebook"].trace, recorded["seeded"].trace
    assert [call.metrics for call in book.calls] == [call.metrics for call in script.calls]


def test_a_script_of_2019(recorded):
    found = recorded["old"].trace
    training, evaluation = found.processes
    assert training.called_as == "tff.learning.build_federated_averaging_process"
    assert training.builder == "tff.learning.algorithms.build_weighted_fed_avg"
    assert training.client_optimizer == {
        "name": "keras_sgd_nesterov",
        "arguments": {"learning_rate": 0.1, "momentum": 0.9},
    }
    assert evaluation.kind == "evaluation"
    assert training.model["metrics"][0]["config"]["name"] == "accuracy"
    assert len(found.adapted) == len(set(found.adapted)) >= 8
    assert [found.processes[call.process].kind for call in found.calls] == [
        "training", "evaluation", "training"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dropout", "Dropout.* random masks"),
        ("custom_loss", "loss Hinge is a custom class"),
    ],
)
def test_what_cannot_be_replayed_is_recorded_and_named(recorded, name, reason):
    found = recorded[name].trace
    assert found.not_replayable is not None
    assert re.search(reason, found.not_replayable), found.not_replayable
    assert len(recorded[name].losses()) == 1  # TFF's side of the report is there


def test_a_failing_script_leaves_no_trace_and_says_where(recorded, folder):
    failed = recorded["failing"].event("failed")
    assert failed["error"] == "ValueError: out of luck"
    source = (folder / "failing.py").read_text().splitlines()
    assert source[int(failed["line"].removeprefix("line ")) - 1].startswith("raise ValueError")
    assert not recorded["failing"].out.exists()
    assert not list(folder.glob("*.partial-*"))


def test_a_script_without_rounds_is_an_error(recorded):
    assert "ran no round" in recorded["nothing"].event("failed")["error"]
    assert not recorded["nothing"].out.exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["new", "legacy"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("Adam", {"beta_2": 0.9, "epsilon": 1e-2}),
        ("Adagrad", {"epsilon": 1e-2}),
        ("RMSprop", {"rho": 0.8, "epsilon": 1e-2}),
    ],
)
def test_converted_keras_optimizers_step_as_keras_does(tff, name, arguments, legacy):
    import tensorflow as tf

    home = tf.keras.optimizers.legacy if legacy else tf.keras.optimizers
    keras = getattr(home, name)(learning_rate=0.1, **arguments)
    converted = keras_optimizers.convert(keras)
    rng = np.random.default_rng(1)
    start = rng.standard_normal((4, 3)).astype(np.float32)
    variable, weights = tf.Variable(start), [tf.constant(start)]
    state = converted.optimizer.initialize([tf.TensorSpec((4, 3), tf.float32)])
    for _ in range(10):
        gradient = tf.constant(rng.standard_normal((4, 3)).astype(np.float32))
        keras.apply_gradients([(gradient, variable)])
        state, weights = converted.optimizer.next(state, weights, [gradient])
    # A different formula is off by 1e-2 here; float32 sums of ten steps agree to about 1e-6.
    np.testing.assert_allclose(weights[0].numpy(), variable.numpy(), rtol=0, atol=4e-6)
    assert converted.optimizer.get_hparams(state)["learning_rate"] == 0.1


def test_keras_optimizers_without_counterpart_are_refused(tff):
    import tensorflow as tf

    for optimizer, words in [
        (tf.keras.optimizers.Adam(amsgrad=True), "amsgrad=True"),
        (tf.keras.optimizers.SGD(clipnorm=1.0), "clipnorm"),
        (tf.keras.optimizers.Adadelta(), "Adadelta"),
        (tf.keras.optimizers.RMSprop(centered=True), "centered"),
    ]:
        with pytest.raises(ScriptError, match=words):
            keras_optimizers.convert(optimizer)


def test_record_runs_both_passes_and_leaves_nothing_else(tmp_path, monkeypatch, folder, recorded):
    monkeypatch.setenv("FEDBRIDGE_REFERENCE", sys.prefix)
    events = []
    out = record(folder / "seeded.py", [], tmp_path / "trace", rounds=2, on_event=events.append)
    found = trace.read(out)
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]
    assert len(found.calls) == 2
    for call in found.calls:
        assert call.seconds > 0 and call.metrics_timed == call.metrics
    assert found.processes[0].seconds_build > 0 and found.processes[0].seconds_initialize > 0
    assert [event["round"] for event in events if event["event"] == "round"] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "name", ["seeded", "unseeded", "uneven", "odd", "loop", "arrays", "old", "notebook", "prox"]
)
def test_what_was_recorded_replays(recorded, name):
    result = replay(recorded[name].trace)
    assert result.verdict == "match", result.reason
    assert all(one.passed for one in (*result.rounds, *result.evaluations))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dropout", "random masks"),
        ("custom_loss", "Hinge"),
        ("aggregator", "HadamardTransformFactory is not replayed yet"),
    ],
)
def test_what_cannot_be_replayed_is_not_comparable(recorded, name, reason):
    result = replay(recorded[name].trace)
    assert result.verdict == "not comparable"
    assert reason in result.reason


def test_tffs_sign_of_fed_prox_and_its_way_with_constraints_are_noted(recorded):
    found = recorded["prox"].trace
    assert found.processes[0].arguments == {"proximal_strength": 0.1}
    for words in ("sign reversed", "constraints of weights as in TFF, never applied"):
        assert any(words in note for note in found.notes)


CELLS = {
    "prox_nan": "build_unweighted_fed_prox",
    "mime_schedule": "build_mime_lite_with_optimizer_schedule",
    "schedule": "build_weighted_fed_avg_with_optimizer_schedule",
    "server_schedule": "build_weighted_fed_avg",
    "functional": "build_weighted_fed_avg",
    "zero_adaptive": "build_unweighted_fed_avg",
    "dp_adaptive": "build_unweighted_fed_avg",
    "compression": "build_weighted_fed_avg",
}
REFUSED = {
    "custom_measurement": "model_aggregator is or holds code of the script",
    "scaled_rate": "client_optimizer_fn makes of a learning rate more than",
    "recon_random": "local variables .* start from unseeded random values",
    "personal": "build_personalization_eval_computation runs functions of the script",
}


@pytest.fixture(scope="module")
def cells(folder):
    """Functions, recorded one after the other in one process in which TFF was patched once."""
    script = Path(__file__).with_name("algorithm_cells.py")
    with (folder / "cells.log").open("w") as log:
        subprocess.run(
            [sys.executable, str(script), str(folder / "cells"), *CELLS, *REFUSED],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    return lambda name: trace.read(folder / "cells" / name)


@pytest.mark.parametrize("name", CELLS)
def test_algorithms_optimizers_and_aggregators_replay(cells, name):
    found = cells(name)
    assert found.processes[0].builder == f"tff.learning.algorithms.{CELLS[name]}"
    assert found.script["arguments"] == [name]
    result = replay(found, seeds=1)
    assert result.verdict == "match", result.reason


def test_schedules_are_written_down_as_far_as_rounds_and_steps_went(cells):
    rates = [np.float32(0.1) / np.float32(k + 1) for k in range(4)]
    (process,) = cells("schedule").processes
    assert process.arguments["client_learning_rate_fn"] == {"values": list(map(float, rates))}
    assert "learning_rate" not in process.client_optimizer["arguments"]
    (process,) = cells("server_schedule").processes
    assert process.server_optimizer["arguments"]["schedule_fn"] == {
        "values": list(map(float, rates))
    }


def test_an_adaptive_servers_step_is_recorded_alone(cells):
    call = cells("server_schedule").call(0)
    delta = call["server_step/delta/0"]
    assert np.abs(delta).max() > 0
    assert call["server_step/weights/0"].shape == delta.shape
    assert call["server_step/finalizer/round_num"] == 1
    assert not any(path.startswith("server_step") for path in cells("functional").call(0))


@pytest.mark.parametrize("name", REFUSED)
def test_code_of_the_script_inside_a_process_is_named(cells, name):
    found = cells(name)
    assert re.search(REFUSED[name], found.not_replayable), found.not_replayable
    assert found.calls[0].metrics["client_work"]["train"]["loss"] > 0


@pytest.mark.parametrize("folder", sorted(GOLDEN.iterdir()), ids=lambda folder: folder.name)
def test_golden_traces_match_on_the_oldest_jax(folder):
    result = replay(trace.read(folder))
    assert result.verdict == "match", result.reason
