"""The parity matrix: it covers what is promised, its cells agree, a wrong one fails.

A tenth of the rows are replayed here; all of them by `fedbridge parity`.
"""

import itertools
import json
import re
import shutil
from pathlib import Path

import jax
import pytest
from typer.testing import CliRunner

from fedbridge.bridge import distribution, parity, parity_tables, trace
from fedbridge.cli import app
from fedbridge.jax_core import ArgumentError, TraceError

ROWS = parity.index()
RECORDED = [name for name, row in ROWS.items() if "trace" in row]
TENTH = RECORDED[::10]

ALGORITHMS = {
    *("weighted FedAvg", "unweighted FedAvg", "FedAvg, schedule"),
    *("weighted FedProx", "unweighted FedProx", "FedSGD", "FedRecon"),
    *("weighted MimeLite", "unweighted MimeLite", "MimeLite, schedule"),
}
OPTIMIZERS = {
    *("sgd", "momentum", "adagrad", "adam", "adamw", "rmsprop", "yogi", "adafactor", "scheduled"),
}
CASES = {
    *("ragged", "empty client", "one example"),
    *("NaN client", "only NaN clients", "zero clients"),
}


@pytest.fixture(scope="module")
def matrix(request):
    """A tenth of it, or those of them that are to run; several rows at a time."""
    tests = (getattr(item, "callspec", None) for item in request.session.items)
    named = {test.params.get("name") for test in tests if test}
    return parity.parity([name for name in TENTH if name in named] or TENTH[:2])


@pytest.mark.parametrize("name", TENTH)
def test_cells_agree(matrix, name):
    row = ROWS[name]
    attributes = {key: row[key] for key in parity.Cell._fields[:6]}
    cells = [cell for cell in matrix.cells if attributes.items() <= cell._asdict().items()
             and cell.case in row["cases"]]  # fmt: skip
    assert {cell.case for cell in cells} == set(row["cases"])
    for cell in cells:
        assert cell.passed, cell
        assert cell.counters_equal, cell
        assert cell.failure is None, cell


def test_it_covers_what_is_promised():
    rows = list(ROWS.values())
    missing = {("FedAvg, schedule", "client", "scheduled")}  # as the index says
    wanted = set(itertools.product(ALGORITHMS, ("client", "server"), OPTIMIZERS)) - missing
    wanted -= {("FedSGD", "client", name) for name in OPTIMIZERS}
    found = {(row["algorithm"], row["side"], row["optimizer"]) for row in rows}
    assert wanted <= found

    aggregators = {(r["algorithm"].split()[-1], r["aggregator"]) for r in rows
                   if r["about"] == "aggregators"}  # fmt: skip
    names = {aggregator for _, aggregator in aggregators}
    assert len(names) >= 15
    assert aggregators == set(itertools.product(("FedAvg", "FedProx", "MimeLite"), names))

    models = {"softmax regression", "smooth CNN", "ReLU CNN", "LSTM", "functional linear"}
    found = {(row["algorithm"], row["model"]) for row in rows}
    assert set(itertools.product(("weighted FedAvg", "FedSGD"), models)) <= found

    of = [
        (*row["optimizer"].split(" + "), row["aggregator"], row["model"], row["cases"][-1],
         row["algorithm"].split()[-1])
        for row in rows if row["about"] == "pairs"
    ]  # fmt: skip
    for one, other in itertools.combinations(range(6), 2):
        values = [{row[place] for row in of} for place in (one, other)]
        lacking = set(itertools.product(*values)) - {(row[one], row[other]) for row in of}
        # Words have no NaN, and max-pooling may drop it: see docs/differences.
        assert all("NaN" in case and model in ("LSTM", "ReLU CNN") for model, case in lacking)

    evaluations = {"evaluation", "FedRecon, evaluation", "k-means"}
    found = {(row["algorithm"], case) for row in rows for case in row.get("cases", ())}
    assert set(itertools.product(ALGORITHMS | evaluations, CASES)) <= found


def test_what_tff_cannot_run_is_told_in_its_own_words():
    reasons = {name: row["why"] for name, row in ROWS.items() if "trace" not in row}
    assert all(why.startswith("TFF 0.87.0 raises ") and "Error: " in why
               for why in reasons.values())  # fmt: skip
    adafactor = {name for name, row in ROWS.items() if row["optimizer"] == "adafactor"}
    schedules = {"fedavg_schedule.client_rmsprop", "mimelite_schedule.client_scheduled"}
    assert set(reasons) == adafactor | schedules


def test_what_is_no_cell_says_which_test_compares_it():
    reasons = [entry["why"] for entry in parity.parity([]).excluded]
    named = [re.findall(r"\w*tests/test_\w+\.py", why) for why in reasons]
    assert all(tests or "TFF" in why for tests, why in zip(named, reasons, strict=True))
    root = Path(__file__).parents[1]
    assert all((root / test).is_file() for tests in named for test in tests)


def test_the_traces_are_small_and_of_the_real_tff():
    files = sorted(parity.TRACES.glob("*.zip"))
    assert [file.name for file in files] == sorted(ROWS[name]["trace"] for name in RECORDED)
    assert sum(file.stat().st_size for file in files) < 10_000_000
    for file in files[::40]:
        assert trace.read(file).versions["tensorflow_federated"] == "0.87.0"


def test_json_is_the_promised_one(matrix):
    found = parity.to_json(matrix)
    assert found["total"] == len(found["cells"])
    assert sum(len(set(ROWS[name]["cases"])) for name in RECORDED) >= 400
    assert found["passed"] == sum(cell["passed"] for cell in found["cells"])
    keys = {"algorithm", "optimizer", "side", "aggregator", "model", "case", "probe_error"}
    keys |= {"round_error", "noise_floor", "counters_equal", "passed"}
    assert all(keys <= set(cell) for cell in found["cells"])
    alone = [c["server_step_error"] for c in found["cells"] if c["server_step_error"] is not None]
    assert alone and max(alone) <= 1e-6
    json.dumps(found, allow_nan=False)


def test_tables_and_page_show_the_cells(matrix):
    text = parity_tables.markdown(matrix)
    page = parity_tables.page(matrix)
    for cell in matrix.cells:
        assert cell.algorithm.split()[-1] in text
        assert cell.model in page
        assert cell.case in page
    assert "✗" not in text
    assert page.startswith("<!doctype html>")


def _folder(tmp_path, name, **changes):
    """A folder with one row, whose description is changed."""
    row = {**ROWS[name], **changes}
    shutil.copy(parity.TRACES / ROWS[name]["trace"], tmp_path)
    content = {"rows": {name: row}, "not_recorded": []}
    (tmp_path / "index.json").write_text(json.dumps(content))
    return tmp_path


class LouderThanTold(trace.Trace):
    """TFF's state says that its noise has half again the standard deviation that it had."""

    def state(self, number):
        state = super().state(number)
        factor = {path: 1.5 if path.endswith("/stddev") else 1 for path in state}
        return {path: leaf * factor[path] if factor[path] != 1 else leaf
                for path, leaf in state.items()}  # fmt: skip


@pytest.mark.slow
def test_noise_of_another_size_differs():
    recorded = trace.read(parity.TRACES / ROWS["unweighted_fedavg.dp_noise"]["trace"])
    assert distribution.drawn(recorded).p_value > 0.01
    assert distribution.drawn(LouderThanTold(*recorded)).p_value < parity.LEAST_P


@pytest.mark.slow
def test_rounding_to_another_number_of_bits_differs():
    recorded = trace.read(parity.TRACES / ROWS["weighted_fedavg.compression_random"]["trace"])
    assert distribution.drawn(recorded).p_value > 0.01
    (process,) = recorded.processes
    described = json.loads(json.dumps(process.model_aggregator))
    described["arguments"]["value_sum_factory"]["arguments"]["quantization_bits"] = 5
    process = process._replace(model_aggregator=described)
    other = recorded._replace(processes=[process])
    assert distribution.drawn(other).p_value < parity.LEAST_P


def test_another_counter_fails_a_random_cell_too(monkeypatch):
    row = ROWS["weighted_fedavg.compression_random"]
    recorded = trace.read(parity.TRACES / row["trace"])
    one, *others = recorded.calls
    counted = json.loads(json.dumps(one.metrics))
    counted["client_work"]["train"]["num_examples"] += 1
    changed = recorded._replace(calls=[one._replace(metrics=counted), *others])
    monkeypatch.setattr(distribution, "DRAWS", 1)
    monkeypatch.setattr(parity.trace, "read", lambda path: changed)
    (cell,) = parity.judge_row(row, parity.TRACES)
    assert not cell.counters_equal and not cell.passed
    assert "num_examples is" in cell.failure


def test_a_cell_that_differs_fails_and_is_named(tmp_path, monkeypatch):
    name = "weighted_fedprox.cases"
    monkeypatch.setattr(parity, "TRACES", _folder(tmp_path, name))
    from fedbridge import algorithms

    monkeypatch.setattr(algorithms, "away_from_server", algorithms.toward_server)
    result = parity.parity(folder=tmp_path)
    failed = {cell.case for cell in result.cells if not cell.passed}
    # One local step starts where the proximal term is zero, and so does a round of nobody.
    assert failed == {"ragged", "empty client"} or failed == {
        "ragged",
        "empty client",
        "NaN client",
    }
    assert "✗" in parity_tables.markdown(result)
    assert "weighted FedProx, softmax regression, ragged: after" in parity_tables.page(result)


def test_command_line(tmp_path):
    out, page = tmp_path / "cells.json", tmp_path / "cells.html"
    arguments = ["parity", "--only", "k_means", "--json", str(out), "--html", str(page)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "6 of 6 cells agree with TFF 0.87.0" in result.output
    assert result.stderr == "rows replayed: 1 of 1\n"
    assert json.loads(out.read_text())["passed"] == 6
    assert "k-means" in page.read_text(encoding="utf-8")
    result = CliRunner().invoke(app, ["parity", "--only", "no such row"])
    assert result.exit_code == 2


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(ArgumentError, match="has no row 'nothing'"):
        parity.parity(["nothing"])
    with pytest.raises(TraceError, match="make traces"):
        parity.index(tmp_path)
    _folder(tmp_path, "k_means.cases", trace="gone.zip")
    with pytest.raises(TraceError, match=r"gone\.zip"):
        parity.parity(folder=tmp_path)


def test_a_process_that_starts_otherwise_is_noticed(monkeypatch):
    class Other(parity.Player):
        def __init__(self, recorded):
            super().__init__(recorded)
            self.processes = {n: _seven_times(process) for n, process in self.processes.items()}

    def _seven_times(process):
        times = lambda tree: jax.tree.map(lambda leaf: leaf * 7, tree)
        state = process.initialize()
        wrong = state._replace(finalizer=times(state.finalizer))
        return process._replace(initialize=lambda: wrong)

    row = parity.index()["weighted_fedavg.server_yogi"]
    recorded = trace.read(parity.TRACES / row["trace"])
    assert parity.start_failure(recorded) is None
    monkeypatch.setattr(parity, "Player", Other)
    assert re.match("the first state: 'finalizer/.*, and TFF's is", parity.start_failure(recorded))


def test_an_unknown_row_names_those_that_are_near():
    told = CliRunner().invoke(app, ["parity", "--only", "mime lite"]).output
    assert "no row of the matrix has 'mime lite' in its name; near are" in " ".join(told.split())
