"""`fedbridge train`: one command, killed at any time, resumed to the same bytes."""

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from fedbridge import experiment, logs
from fedbridge.cli import app
from fedbridge.jax_core import ClientDataError
from fedbridge.tasks import published
from fedbridge.tff_io import write_sql

TASK = "emnist_character_recognition"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with three writers of EMNIST."""
    rng = np.random.default_rng(0)
    writers = lambda sizes: {
        f"w{i}": {
            "label": rng.integers(0, 62, n).astype(np.int32),
            "pixels": rng.random((n, 28, 28), np.float32),
        }
        for i, n in enumerate(sizes)
    }
    folder = tmp_path_factory.mktemp("emnist")
    splits = {"all_train": writers([9, 30, 21]), "all_test": writers([3, 4, 5])}
    write_sql(folder / "emnist_all.sqlite", splits)
    return folder


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch):
    """Processes and evaluations are pure: the runs of a test share theirs, to compile them once."""
    made = {}
    process, central_eval = published.Experiment.process, experiment.central_eval
    shared = lambda name, make: made[name] if name in made else made.setdefault(name, make())
    monkeypatch.setattr(
        published.Experiment,
        "process",
        lambda self, *args: shared("process", lambda: process(self, *args)),
    )
    monkeypatch.setattr(
        experiment, "central_eval", lambda *args: shared("evaluation", lambda: central_eval(*args))
    )


def train(data, folder, *more, task=TASK, model="2nn"):
    arguments = ["train", task, "--data", data, "--output-dir", folder, "--model", model, *more]
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_a_run_that_was_killed_and_resumed_leaves_the_same_bytes(data, tmp_path, monkeypatch):
    """Killed after round 4 is logged, and before it is saved: round 3 and 4 are done again."""
    every = ["--rounds", 5, "--evaluate-every", 2, "--checkpoint-every", 2, "--clients", 2]
    straight = train(data, tmp_path / "straight", *every)
    assert straight.exit_code == 0, straight.output
    assert "3 clients, 60 examples" in straight.stdout
    assert "round 4: accuracy" in straight.stdout

    metrics_files = logs.metrics_files

    def killed_in_round_4(folder, done):
        write = metrics_files(folder, done=done)

        def log(round, metrics):
            write(round, metrics)
            if round == 4:
                raise KeyboardInterrupt

        return log

    with monkeypatch.context() as patched:
        patched.setattr(logs, "metrics_files", killed_in_round_4)
        assert train(data, tmp_path / "killed", *every).exit_code == 130
    assert len(logs.read_metrics(tmp_path / "killed")) == 4
    resumed = train(data, tmp_path / "killed", *every, "--resume", "--json", "-")
    assert resumed.exit_code == 0, resumed.output
    assert content(tmp_path / "killed") == content(tmp_path / "straight")
    files = "metrics.csv", "metrics.jsonl", "checkpoint.state", "curves.svg", "weights.npz"
    assert {*files, "evaluation.json"} <= set(content(tmp_path / "killed"))
    rounds = logs.read_metrics(tmp_path / "killed")
    assert [row["round"] for row in rounds] == [1, 2, 3, 4, 5]
    assert ["evaluation/loss" in row for row in rounds] == [False, True, False, True, False]
    summary = json.loads(resumed.stdout)
    assert summary["evaluation"]["num_examples"] == 12
    evaluation = json.loads((tmp_path / "killed" / "evaluation.json").read_text())
    assert evaluation == {"round": 5, **summary["evaluation"]}
    assert (summary["clients"], summary["rounds"], summary["seed"]) == (2, 5, 1)

    again = train(data, tmp_path / "killed", *every)
    assert again.exit_code == 2
    assert "a run is there already; go on with it with --resume" in again.stderr
    other = train(data, tmp_path / "killed", *every, "--resume", "--seed", 2)
    assert other.exit_code == 2
    assert "the run there has seed 1, not 2; resume it with the same" in other.stderr
    for damage in ("{", "[1]"):
        (tmp_path / "killed" / "config.json").write_text(damage)
        assert "config.json: it is damaged" in train(data, tmp_path / "killed", "--resume").stderr


@pytest.mark.slow
def test_on_two_devices_the_numbers_are_those_of_one(data, tmp_path):
    """In processes of their own: jax has one device in this one."""
    task = ["train", TASK, "--data", str(data), "--model", "2nn", "--rounds", "2", "--output-dir"]
    rows = {}
    for name, more in {"one": [], "two": ["--devices", "2"]}.items():
        command = [sys.executable, "-m", "fedbridge", *task, str(tmp_path / name), *more]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        text = (tmp_path / name / "metrics.jsonl").read_text()
        rows[name] = [json.loads(line) for line in text.splitlines()]
    assert len(rows["one"]) == len(rows["two"]) == 2
    for expected, found in zip(rows["one"], rows["two"], strict=True):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            # Two rounds of Adam, from sums in another order.
            np.testing.assert_allclose(found[key], value, rtol=1e-4, err_msg=key)
    assert json.loads((tmp_path / "two" / "config.json").read_text())["devices"] == 2
    refused = train(data, tmp_path / "two", "--rounds", "3", "--resume")
    assert "has devices 2, not None" in " ".join(refused.output.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "3nn"}, "model_id is '3nn'; it must be one of 'cnn_dropout', 'cnn', '2nn'"),
        ({"task": "stackoverflow_word_prediction"}, "--model: this task has one model"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(data, tmp_path, arguments, words):
    result = train(data, tmp_path / "out", **arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_other_data_are_no_way_to_go_on(data, tmp_path):
    other = tmp_path / "other"
    rng = np.random.default_rng(1)
    writer = lambda n: {
        "label": rng.integers(0, 62, n).astype(np.int32),
        "pixels": rng.random((n, 28, 28), np.float32),
    }
    writers = lambda sizes: {f"w{i}": writer(n) for i, n in enumerate(sizes)}
    splits = {"all_train": writers([9, 30, 21]), "all_test": writers([3, 4, 5])}
    write_sql(other / "emnist_all.sqlite", splits)  # as many clients and examples
    assert train(data, tmp_path / "run", "--rounds", "1").exit_code == 0
    refused = train(other, tmp_path / "run", "--rounds", "2", "--resume")
    assert refused.exit_code == 2
    assert "the run there has train_digest" in " ".join(refused.output.split())


def test_a_label_outside_the_classes_leaves_nothing(tmp_path):
    writer = {"label": np.array([3, 70], np.int32), "pixels": np.zeros((2, 28, 28), np.float32)}
    splits = {name: {"w0": writer} for name in ("all_train", "all_test")}
    write_sql(tmp_path / "emnist_all.sqlite", splits)
    refused = train(tmp_path, tmp_path / "run", "--rounds", "1")
    assert refused.exit_code == 2
    assert "of client 'w0': it holds the label 70" in " ".join(refused.output.split())
    assert not (tmp_path / "run").exists()


def test_a_folder_without_the_data_is_named(tmp_path):
    result = train(tmp_path, tmp_path / "out")
    assert result.exit_code == 2
    assert f"{tmp_path}: it holds neither emnist_all.sqlite nor" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_that_cannot_begin_leaves_no_folder(data, tmp_path, monkeypatch):
    def refused(model, test):
        raise ClientDataError("the test data hold the label 77; take it out.")

    monkeypatch.setattr(experiment, "central_eval", refused)
    result = train(data, tmp_path / "out")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "out").exists()
