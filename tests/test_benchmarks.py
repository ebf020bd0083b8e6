"""The runner of benchmarks/: what it writes, and who is absent. No time decides a test."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import data, peers, rounds, scale, script  # noqa: E402
from benchmarks.tables import tables  # noqa: E402

TINY = data.TASKS["emnist_lr"]._replace(population=3, clients=2, most=20, test=7, turns=2, rounds=2)
FIGURES = {
    "round_seconds",
    "round_seconds_min",
    "round_seconds_max",
    "examples_per_second",
    "first_round_seconds",
    "compile_seconds",
    "first_evaluation_seconds",
    "evaluation_seconds",
    "total_seconds",
    "loss",
    "peak_memory_mb",
    "rounds_memory_mb",
    "fraction_of_matrix_product",
}


@pytest.mark.slow
def test_figures_and_absent_peers(tmp_path, monkeypatch):
    """fedbridge alone; TFF has no environment, FedJAX one in which it is not installed."""
    monkeypatch.setenv("FEDBRIDGE_REFERENCE", str(tmp_path / "none"))
    without = peers.Peer(("jit",), lambda: Path(sys.executable))
    monkeypatch.setitem(peers.PEERS, "fedjax", without)
    said = []
    result = rounds.run({"tiny": TINY}, ["tff", "fedjax"], choose=False, say=said.append)
    found = result["tasks"]["tiny"]
    assert found["fedbridge"].pop("setting") == "default"
    assert set(found["fedbridge"]) == FIGURES
    assert all(value > 0 for value in found["fedbridge"].values())
    assert found["fedbridge"]["loss"] < np.log(62) * 1.2
    if sys.platform == "linux":
        assert "`fedbridge reference create`" in found["tff"]["absent"]
    assert found["fedjax"] == {"absent": "ModuleNotFoundError: No module named 'fedjax'"}
    machine = result["machine"]
    assert machine["matrix_product_gflops"] > 0
    assert machine["cores"] >= 1
    assert machine["versions"]["fedbridge"].keys() == {"fedbridge", "jax", "device"}
    assert said[-1] == "tiny: evaluation by fedbridge"
    assert "fedjax is absent: ModuleNotFoundError" in tables(result)


@pytest.mark.slow
def test_whole_scripts(tmp_path, monkeypatch):
    """A script that says when it was where, and one that says nothing, under fedbridge."""
    marks = "\n".join(f"print({word!r}, {value})" for word, value in MARKS.items())
    (tmp_path / "tells.py").write_text(marks)
    (tmp_path / "silent.py").write_text("print('nothing')")
    monkeypatch.setattr(script, "_FOLDER", tmp_path)
    here = lambda: Path(sys.executable)
    monkeypatch.setitem(script.SCRIPTS, "script", script.Script("tells.py", here, "seconds"))
    monkeypatch.setitem(script.SCRIPTS, "script_numpy", script.Script("silent.py", here, "seconds"))
    said = []
    scripts = ["script", "script_numpy"]
    result = rounds.run({}, ["fedjax"], scripts=scripts, turns=1, choose=False, say=said.append)
    assert said == ["script: first run", "script_numpy: first run", "script: turn 1 of 1"]
    found = result["tasks"]["script"]
    assert found["fedjax"] == {"absent": "it runs no TFF scripts"}
    assert found["fedbridge"]["seconds"] == found["fedbridge"]["cold_seconds"] == 3.5
    assert found["fedbridge"]["loss"] == 0.25
    assert found["fedbridge"]["process_seconds"] > 0
    silent = result["tasks"]["script_numpy"]["fedbridge"]
    assert silent == {"absent": "the script failed: nothing"}
    assert "| script | fedbridge | 3.5 s |" in tables(result)


MARKS = {"imported": 1.5, "loss": 0.25, "done": 5.0}


def test_a_ratio_is_tffs_time_over_ours():
    ours = [{"seconds": 2.0, "process_seconds": 10.0}, {"seconds": 1.0, "process_seconds": 5.0}]
    theirs = [{"seconds": 8.0, "process_seconds": 20.0}, {"seconds": 6.0, "process_seconds": 20.0}]
    assert script._ratios(ours, theirs, "seconds") == {
        "ratio": 5.0,
        "ratio_min": 4.0,
        "ratio_max": 6.0,
        "process_ratio": 3.0,
    }


@pytest.mark.slow
def test_both_settings_compute_the_same():
    losses = []
    for setting in peers.PEERS["fedbridge"].settings:
        with peers.Worker("fedbridge") as worker:
            worker.ask("open", task=TINY._asdict(), setting=setting)
            worker.ask("first")
            worker.ask("turn", first=2, count=2)
            losses.append(worker.ask("end")["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)  # sums in another order


def test_a_worker_that_ends_by_itself(monkeypatch):
    monkeypatch.setitem(peers.PEERS, "nobody", peers.Peer(("",), lambda: Path(sys.executable)))
    with (
        pytest.raises(peers.AbsentError, match=r"its process ended: .*benchmarks\.workers\.nobody"),
        peers.Worker("nobody") as worker,
    ):
        worker.ask("open")


def test_no_environment_for_fedjax(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDBRIDGE_FEDJAX", str(tmp_path / "none"))
    with pytest.raises(
        peers.AbsentError, match="no environment with FedJAX in none: `make fedjax`"
    ):
        peers.Worker("fedjax")


def test_ratios_are_taken_turn_by_turn():
    found = rounds._ratios([1.0, 2.0, 4.0], [3.0, 4.0, 20.0])
    assert found == {"ratio": 3.0, "ratio_min": 2.0, "ratio_max": 5.0}
    result = {
        "tasks": {"t": {"fedbridge": {"round_seconds": 0.5}, "tff": {"setting": "cores", **found}}},
        "machine": {
            "processor": "P",
            "cores": 2,
            "system": "S",
            "python": "3",
            "versions": {"tff": {"tensorflow": "2"}},
            "matrix_product_gflops": 180.0,
        },
    }
    text = tables(result)
    assert "| t | 3.00 x (2.00 to 5.00) |" in text
    assert "| t | tff (cores) |" in text


def test_examples_per_second():
    """Of every turn its own examples; the median of the turns."""
    task = TINY._replace(turns=3, rounds=1)
    sizes = [data.num_examples(task, round) for round in (2, 3, 4)]
    found = rounds._figures(task, 9.0, [1.0, 1.0, 1.0], {}, 0.0)
    assert found["examples_per_second"] == np.median(sizes)
    assert found["compile_seconds"] == 8.0


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--tasks", "mnist"], "there is no 'mnist'; choose among"),
        (["--tasks", ""], "name at least one task"),
        (["--peers", "tff,flower"], "there is no 'flower'; choose among tff, fedjax"),
        (["--json", "no/such/folder.json"], "there is no folder no/such"),
    ],
)
def test_wrong_command_line(arguments, words):
    app = typer.Typer()
    app.command()(rounds.main)
    run = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)
    assert run.exit_code == 2
    assert words in run.output


# ---------------------------------------------------------------------------------- the data


@pytest.mark.parametrize("name", data.TASKS)
def test_the_same_data_for_every_peer(name):
    task = data.quick(data.TASKS[name])._replace(population=6, clients=3)
    ours, theirs = data.clients(task), data.clients(task)
    for client_id, features in ours.items():
        for feature, rows in features.items():
            np.testing.assert_array_equal(rows, theirs[client_id][feature])
    drawn = data.cohort(task, 2)
    assert drawn == data.cohort(task, 2)
    assert len(set(drawn)) == 3
    sizes = [len(next(iter(ours[client_id].values()))) for client_id in drawn]
    assert max(sizes) <= task.most
    assert data.num_examples(task, 2) == sum(sizes)


def test_pixels_and_labels():
    examples = data.test_examples(TINY._replace(test=500))
    assert examples["pixels"].shape == (500, 28, 28)
    k = examples["pixels"] * np.float32(255)
    np.testing.assert_allclose(k, np.rint(k), atol=1e-4)
    assert set(examples["label"]) == set(range(62))


def test_sentences():
    """A word follows the one before it, the end follows the last, padding follows the end."""
    task = data.TASKS["stackoverflow_lstm"]._replace(test=400)
    examples = data.test_examples(task)
    x, y = examples["x"], examples["y"]
    assert x.shape == y.shape == (400, 20)
    assert (x[:, 0] == data.VOCABULARY + 2).all()
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    assert x.max() < data.VOCABULARY + 4
    ends = y == data.VOCABULARY + 3
    assert (ends.sum(axis=1) <= 1).all()
    after = np.cumsum(ends, axis=1) - ends > 0
    assert (y[after] == 0).all()
    assert (y[~after] > 0).all()


def test_sizes_are_those_of_emnist():
    """198 examples on average, as in TFF's file; six standard errors, of 86 over √2000."""
    rng = np.random.default_rng(0)
    sizes = [data._num_examples(data.TASKS["emnist_lr"], rng) for _ in range(2000)]
    assert abs(np.mean(sizes) - 198) < 6 * 86 / np.sqrt(2000)
    assert min(sizes) >= 20
    assert max(sizes) <= 460


# --------------------------------------------------------------------------- the full size


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="Linux")
def test_the_figures_of_a_conversion(tmp_path):
    figures = scale.run(tmp_path, clients=5, sentences=100, processes=[1], say=lambda line: None)
    assert figures["clients_compared"] == 5
    for step in ("generate", "convert_1"):
        assert figures[step]["seconds"] > 0
        assert figures[step]["peak_memory_mb"] > 20
    assert figures["cohort_ms"] <= figures["cohort_most_ms"]
