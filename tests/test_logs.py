"""The metrics of a run in files: what a killed run leaves, and what goes on."""

import numpy as np
import pytest

import fedbridge as fb
from fedbridge.logs import metrics_files, read_metrics, save_curves


def metrics(round):
    train = {"loss": np.float32(1 / round), "num_examples": np.int64(7 * round)}
    more = {"evaluation": {"accuracy": np.float32(0.1) * round}} if round % 2 == 0 else {}
    return {"client_work": {"train": train, "histogram": np.arange(3)}, **more}


def write(folder, rounds, done=0):
    log = metrics_files(folder, done=done)
    for round in rounds:
        log(round, metrics(round))


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("done", [0, 1, 2, 3, 4, 5])
def test_a_log_that_goes_on_is_that_of_a_run_that_never_stopped(tmp_path, killed_after, done):
    if done > killed_after:
        return
    write(tmp_path / "straight", range(1, 7))
    write(tmp_path / "killed", range(1, killed_after + 1))
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"round": ')  # in the middle of a line
    write(tmp_path / "killed", range(done + 1, 7), done=done)
    assert content(tmp_path / "killed") == content(tmp_path / "straight")


def test_numbers_are_written_as_short_as_float32_allows_and_come_back(tmp_path):
    write(tmp_path, [1, 3])
    metrics_files(tmp_path, done=2)(3, {"client_work": {"train": {"loss": np.float32("nan")}}})
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "round,client_work/train/loss,client_work/train/num_examples"
    assert lines[2:] == ["3,0.33333334,21", "3,,"]
    first, second, third = read_metrics(tmp_path)
    assert np.float32(second["client_work/train/loss"]) == np.float32(1 / 3)
    assert third == {"round": 3, "client_work/train/loss": None}


def test_what_cannot_go_on_is_refused(tmp_path):
    write(tmp_path, [1, 2])
    with pytest.raises(fb.StateError, match=r"metrics\.jsonl: it has 2 rounds, and 3 are done"):
        metrics_files(tmp_path, done=3)
    with pytest.raises(fb.StateError, match=r"metrics\.jsonl.*name the folder of a run"):
        read_metrics(tmp_path / "elsewhere")
    for damage in (b"{", b"3", b"\xff"):
        (tmp_path / "metrics.jsonl").write_bytes(damage)
        for read in (read_metrics, lambda folder: metrics_files(folder, done=1)):
            with pytest.raises(
                fb.StateError, match=r"metrics\.jsonl: it is damaged; run the rounds"
            ):
                read(tmp_path)
    with pytest.raises(fb.StateError, match="cannot be written there"):
        metrics_files(tmp_path / "metrics.csv" / "below")


def test_curves_are_the_same_bytes_for_the_same_metrics(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, range(1, 5))
        save_curves(tmp_path / name)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    svg = (tmp_path / "a" / "curves.svg").read_text()
    assert svg.count("<path") > 10
    metrics_files(tmp_path / "empty")
    assert save_curves(tmp_path / "empty") == []
