import importlib.util
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from results import REASONS, one_round, result
from rich.console import Console

from fedbridge.bridge import words
from fedbridge.bridge.files import check_target, json_text, replace_text
from fedbridge.bridge.replay import _verdict
from fedbridge.bridge.report import page, save_report
from fedbridge.bridge.result import strict, to_json
from fedbridge.bridge.terminal import Display, save_terminal_svg, show
from fedbridge.jax_core import FedbridgeError

VERDICTS = ["match", "differs", "not comparable"]
VOID = {"meta", "br", "path", "use"}


class Balanced(HTMLParser):
    """Reads a page strictly: every tag that opens is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(html):
    reader = Balanced()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


def shown(one, *, terminal):
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    show(console, one)
    return console.file.getvalue()


# ------------------------------------------------------------------------------------------- JSON


def test_json_has_the_promised_keys():
    tree = json.loads(json_text(to_json(result())))
    promised = {"verdict", "reason", "adapted", "rounds", "speedup", "speedup_with_compile"}
    assert promised | {"versions"} <= set(tree)
    errors = {"probe_error", "round_error", "noise_floor"}
    sides = {"round", "loss_reference", "loss", "seconds_reference", "seconds"}
    assert errors | sides <= set(tree["rounds"][0])
    assert tree["rounds"][0]["tensors"][0]["name"] == "trainable/1"


def test_json_is_strict_where_numbers_are_not_finite():
    text = json_text(to_json(result("differs", nan=True)))

    def refuse(constant):
        raise AssertionError(constant)

    tree = json.loads(text, parse_constant=refuse)
    assert tree["rounds"][0]["loss"] is None
    assert tree["rounds"][0]["drift"] is None
    assert tree["speedup"] is None


def test_strict_takes_numpy():
    tree = strict({1: np.float32(0.5), "n": np.int64(3), "a": np.array([1.0, np.nan])})
    assert json.loads(json.dumps(tree, allow_nan=False)) == {"1": 0.5, "n": 3, "a": [1.0, None]}


# --------------------------------------------------------------------------------------- terminal


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_terminal_shows_verdict_and_reason(verdict, terminal):
    text = shown(result(verdict), terminal=terminal)
    assert verdict in text
    assert REASONS[verdict] in text
    assert "build_sgdm(learning_rate=0.02)" in text
    assert ("12.3×" in text) == (verdict != "not comparable")
    assert max(map(len, text.splitlines())) <= 80 or not terminal


def test_a_failure_that_the_reason_does_not_tell_is_told():
    text = shown(result("differs")._replace(reason="something differs."), terminal=False)
    assert "Round 2: the probe differs by 2.0e-03 in trainable/1." in text


def test_a_round_that_was_not_judged_is_neither_right_nor_wrong():
    nan = math.nan
    untold = one_round(1)._replace(
        loss=nan, probe_error=nan, round_error=nan, noise_floor=nan, drift=nan, seconds=None,
        passed=False, tensors=(), metrics={},
    )  # fmt: skip
    one = result("not comparable")._replace(rounds=(untold,))
    for text in (shown(one, terminal=True), page(one)):
        assert "–" in text
        assert "✓" not in text
        assert "✗" not in text
    assert "rounds agree" not in page(one)
    assert words.plain_line(untold).endswith("not judged")


def test_nan_reaches_the_reader():
    text = shown(result("differs", nan=True), terminal=True)
    assert "nan" in text
    assert "A round:" not in text  # a speed-up that is no number is not claimed


@pytest.mark.parametrize("terminal", [True, False])
def test_no_loss_is_a_dash_and_no_nan(terminal):
    told = result("match")
    less = [one._replace(loss=None, loss_reference=None) for one in told.rounds]
    evaluations = [one._replace(loss=None, loss_reference=None) for one in told.evaluations]
    told = told._replace(rounds=tuple(less), evaluations=tuple(evaluations))
    text = shown(told, terminal=terminal)
    assert "nan" not in text.lower()
    assert (" -  " if terminal else "evaluation 1: loss - (TFF -)") in text
    assert page(told).count('<td class="n">-</td>') == 2 * (len(told.rounds) + 1)


def recorded(number, loss, seconds, kind="training"):
    process = int(kind == "evaluation")
    numbers = {"process": process, "round": number, "loss": loss, "seconds": seconds}
    return {"event": "round", "kind": kind, **numbers}


def events():
    yield {"event": "phase", "name": "recording [x] with TFF"}
    yield from (recorded(number, 2.0, 30.0) for number in (1, 2))
    yield recorded(1, 9.0, 1.0, "evaluation")
    yield {"event": "adapted", "line": "an event of another kind"}
    yield {"event": "phase", "name": "timing"}
    yield from (recorded(number, 2.5, 7.5) for number in (1, 2))
    yield {"event": "phase", "name": "running freely"}
    yield from ({"event": "ran", "round": n, "loss": 2.25, "seconds": 0.5} for n in (1, 2))
    yield {"event": "phase", "name": "judging"}
    yield from ({"event": "replayed", "round": one_round(n, passed=n == 1)} for n in (1, 2))


def test_the_live_table_fills_from_left_to_right():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    display = Display(console)
    pictures = []
    for event in events():
        display(event)
        console.print(display._picture())
        pictures.append(console.file.getvalue())
        console.file.seek(0)
        console.file.truncate()
    recorded_, timed, ran, judged = pictures[2], pictures[7], pictures[10], pictures[-1]
    assert "2.000000" in recorded_
    assert "30.00" in recorded_
    assert "2/?" in recorded_  # how many there will be, only the script knows
    # the second pass draws an unseeded shuffle anew: its times count, its losses do not
    assert "2.000000" in timed
    assert "2.500000" not in timed
    assert "7.50" in timed
    assert "2.250000" in ran
    assert "0/2" in pictures[8]
    assert "✓" in judged
    assert "✗" in judged


@pytest.mark.parametrize("terminal", [True, False])
def test_the_display_takes_both_streams(terminal):
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    with Display(console) as display:
        for event in events():
            display(event)
    text = console.file.getvalue()
    if not terminal:
        assert "recording [x] with TFF" in text
        assert "TFF  round 2: loss 2.500000, 7.50 s" in text
        assert "3.0e-08" in text
        assert "\x1b" not in text
        assert "JAX  round 2" in text
        assert "DIFFERS" in text


def test_the_live_table_stays_within_the_window():
    console = Console(
        file=io.StringIO(), width=80, height=12, force_terminal=True, color_system=None
    )
    display = Display(console, total=50)
    for number in range(1, 51):
        display({"event": "replayed", "round": one_round(number)})
    console.print(display._picture())
    text = console.file.getvalue()
    assert len(text.splitlines()) <= 12
    assert "50/50" in text


def test_the_picture_of_the_terminal_needs_no_network(tmp_path):
    svg = save_terminal_svg(result(), tmp_path / "docs" / "check.svg").read_text()
    assert "url(http" not in svg
    assert "@font-face" not in svg
    assert "match" in svg


# ------------------------------------------------------------------------------------------- page


@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_page_stands_alone(verdict, nan):
    html = page(result(verdict, nan=nan))
    reader = read(html)
    assert REASONS[verdict] in "".join(reader.text)
    assert not re.search(r"https?:|//\w|@import|src=|<link|<script", html)
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', html))
    assert ("svg" in reader.seen) == (verdict != "not comparable")


def test_every_reference_within_the_page_has_its_target():
    html = page(result())
    targets = set(re.findall(r'\bid="([^"]*)"', html))
    assert set(re.findall(r'href="#([^"]*)"', html)) <= targets
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= targets
    assert len(targets) == len(re.findall(r'\bid="', html))


def test_the_page_escapes_what_others_wrote():
    evil = "<script>alert(1)</script>"
    one = result("differs", script=evil)
    spoiled = one.rounds[1]._replace(
        failure=evil,
        tensors=(one.rounds[1].tensors[0]._replace(name=evil),),
        metrics={evil: evil},
    )
    html = page(
        one._replace(
            reason=evil,
            adapted=(evil,),
            notes=(evil,),
            versions={evil: evil},
            seconds={evil: 1.0},
            rounds=(one.rounds[0], spoiled),
        )
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 9


def test_only_the_first_failure_is_unfolded():
    assert page(result("differs")).count("<details open>") == 1
    assert page(result("match")).count("<details open>") == 0


def test_without_matplotlib_the_page_says_how_to_get_plots(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    html = page(result())
    assert "<svg" not in html
    assert "fedbridge[plots]" in html
    assert "4.000000" in html


def test_infinite_and_zero_numbers_are_drawn():
    one = result()
    rounds = tuple(r._replace(loss=math.inf, probe_error=0.0, drift=0.0) for r in one.rounds)
    assert "<svg" in page(one._replace(rounds=rounds))


def test_two_processes_share_one_axis():
    one = result()
    assert "<svg" in page(one._replace(rounds=one.rounds + one.rounds))


# ------------------------------------------------------------------------------------------ files


def test_the_page_is_one_file(tmp_path):
    path = save_report(result(), tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "index.html"
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = replace_text(tmp_path / "out.json", "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(FedbridgeError, match="No space left on device.*another folder"):
        replace_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_target_that_cannot_be_written_is_known_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FedbridgeError, match="cannot be written"):
        check_target(tmp_path / "file", folder=True)
    with pytest.raises(FedbridgeError, match="it is a folder"):
        check_target(tmp_path)


def test_trying_a_target_leaves_nothing(tmp_path):
    check_target(tmp_path / "new" / "deep", folder=True)
    check_target(tmp_path / "new" / "out.json")
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    check_target(tmp_path / "there", folder=True)
    assert (tmp_path / "there").is_dir()
    (tmp_path / "there" / "file").write_text("")
    with pytest.raises(FedbridgeError, match="Not a directory"):
        check_target(tmp_path / "there" / "file" / "deep" / "out.json")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux' /proc")
def test_a_folder_that_only_looks_writable_is_refused():
    with pytest.raises(FedbridgeError, match=r"/proc/x\.json: cannot be written"):
        check_target("/proc/x.json")


@pytest.mark.parametrize(
    ("rounds", "evaluations", "words_"),
    [
        (3, 1, "3 rounds and 1 evaluation agree with"),
        (1, 0, "1 round agrees with"),
        (1, 2, "1 round and 2 evaluations agree with"),
    ],
)
def test_the_reason_counts(rounds, evaluations, words_):
    one = result(rounds=rounds)
    verdict, reason = _verdict(list(one.rounds), list(one.evaluations) * evaluations, None)
    assert verdict == "match" and reason.startswith(words_)


# ------------------------------------------------------------------------------------------ words


def test_the_headline_counts():
    assert words.headline(result()) == "match · 3 rounds and 1 evaluation · TFF 0.87.0"
    assert words.headline(result(rounds=1)._replace(evaluations=(), versions={})) == (
        "match · 1 round"
    )


def test_the_worst_is_nan_where_one_is():
    one = result()
    assert words.worst(one, "round_error") == 3e-8
    spoiled = (one.rounds[0], one.rounds[1]._replace(round_error=math.nan))
    assert math.isnan(words.worst(one._replace(rounds=spoiled), "round_error"))
    assert words.worst(result("not comparable"), "round_error") is None
