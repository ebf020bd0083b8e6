import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from results import one_round, result
from typer.testing import CliRunner

from fedbridge import jax_core as fc
from fedbridge.bridge.lint import Lint, Name
from fedbridge.bridge.reference import Finding
from fedbridge.cli import app

DEMO = Path("the demo's trace")
CODES = {"match": 0, "differs": 1, "not comparable": 3}


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def stand_ins(monkeypatch):
    """What the commands call, replaced by what remembers the call; the display is the real one."""
    calls = SimpleNamespace(verdict="match", raises=None, seen={})

    def remember(name, answer):
        def stand_in(*positional, on_event=lambda event: None, **named):
            calls.seen[name] = (positional, named)
            on_event({"event": "phase", "name": "at work"})
            if calls.raises is not None:
                raise calls.raises
            if name in ("check", "replay"):
                on_event({"event": "replayed", "round": one_round(1)})
            return answer()

        return stand_in

    def module(name, **content):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**content))

    module(
        "fedbridge.bridge.check",
        check=remember("check", lambda: result(calls.verdict)),
        record=remember("record", lambda: SimpleNamespace(trace="TRACE", notes=("stand-in",))),
        DEMO_TRACE=DEMO,
    )
    module("fedbridge.bridge.programs", keep_programs=lambda: None)
    module("fedbridge.bridge.replay", replay=remember("replay", lambda: result(calls.verdict)))
    processes = [SimpleNamespace(kind="training"), SimpleNamespace(kind="evaluation")]
    recorded = SimpleNamespace(
        processes=processes, calls=[SimpleNamespace(process=process) for process in (0, 1, 0)]
    )
    module("fedbridge.bridge.trace", read=remember("read", lambda: recorded))
    linted = Lint(
        [Name("tff.learning.x", "3", "0.1 to 0.20", "tff.y", "checked")], [], ["a note"], True
    )
    module("fedbridge.bridge.lint", lint=remember("lint", lambda: linted), Name=Name)

    def migrate(script):
        raise fc.ScriptError(f"{script} cannot be migrated: line 3")

    module("fedbridge.bridge.migrate", migrate=migrate)
    module("fedbridge.tff")
    module("fedbridge.tff._errors", runs=lambda symbol: symbol != "tff.learning.x")
    module(
        "fedbridge.tff_io",
        generate_emnist=remember("generate", lambda: "FILE"),
        find_data=remember("find", lambda: ("FOLDER", "FEDBRIDGE_DATA")),
    )
    return calls


# -------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("given", "for_the_script"),
    [
        (["--", "--model", "cnn", "--rounds", "50"], ["--model", "cnn", "--rounds", "50"]),
        (["--model", "cnn"], ["--model", "cnn"]),
        (["--rounds", "3", "--", "-o", "x y"], ["-o", "x y"]),
        ([], []),
    ],
)
def test_what_follows_goes_to_the_script(stand_ins, given, for_the_script):
    assert invoke("check", "train.py", *given).exit_code == 0
    (script, arguments), named = stand_ins.seen["check"]
    assert (str(script), arguments) == ("train.py", for_the_script)
    assert named["rounds"] == (3 if "3" in given else None)


def test_record_takes_its_output_and_the_script_the_rest(stand_ins):
    done = invoke("record", "train.py", "-o", "TRACE", "--rounds", 2, "--", "-o", "model.h5")
    assert done.exit_code == 0
    (_, arguments, output), named = stand_ins.seen["record"]
    assert (arguments, str(output), named["rounds"]) == (["-o", "model.h5"], "TRACE", 2)
    assert "note: stand-in" in done.output
    assert "fedbridge replay TRACE" in done.output


@pytest.mark.parametrize(
    "arguments",
    [["check"], ["check", "train.py", "--rounds", "0"], ["record", "train.py"], ["nonsense"]],
)
def test_a_wrong_command_line_ends_with_2(stand_ins, arguments):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_version_and_help():
    from fedbridge._version import __version__

    assert invoke("--version").output == f"fedbridge {__version__}\n"
    text = invoke("--help").output
    for command in ("check", "record", "replay", "demo", "lint", "reference", "data"):
        assert command in text
    assert "3 not comparable" in " ".join(invoke("check", "--help").output.split())


# ---------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize("command", ["check train.py", "replay TRACE"])
@pytest.mark.parametrize("verdict", CODES)
def test_the_verdict_is_the_exit_code(stand_ins, command, verdict):
    stand_ins.verdict = verdict
    done = invoke(*command.split())
    assert done.exit_code == CODES[verdict]
    assert f"verdict: {verdict}" in done.stdout


@pytest.mark.parametrize("command", ["check x.py", "replay T", "record x.py -o T"])
@pytest.mark.parametrize(
    "error",
    [
        fc.ScriptError("train.py: line 3: NameError: no such name; run it under TFF first."),
        fc.TraceError("TRACE: rows.npz is missing from the trace; record it again."),
        fc.ReferenceEnvironmentError("TFF runs on Linux x86-64 only: see the Dockerfile"),
    ],
)
def test_an_error_is_one_sentence_and_a_2(stand_ins, command, error):
    stand_ins.raises = error
    done = invoke(*command.split())
    assert done.exit_code == 2
    assert done.stderr == f"fedbridge: {error}\n"


def test_ctrl_c_ends_cleanly(stand_ins):
    stand_ins.raises = KeyboardInterrupt()
    done = invoke("check", "train.py")
    assert done.exit_code == 130
    assert done.stderr == "fedbridge: interrupted.\n"


def test_an_unexpected_error_keeps_its_traceback(stand_ins):
    stand_ins.raises = ZeroDivisionError("a mistake of ours")
    assert isinstance(invoke("check", "train.py").exception, ZeroDivisionError)


# ---------------------------------------------------------------------------------------- results


def test_json_alone_on_stdout(stand_ins):
    done = invoke("check", "train.py", "--json", "-")
    assert json.loads(done.stdout)["verdict"] == "match"
    assert "verdict: match" in done.stderr


@pytest.mark.parametrize("verdict", CODES)
def test_json_and_page_are_written_whatever_the_verdict(stand_ins, tmp_path, verdict):
    stand_ins.verdict = verdict
    file, folder = tmp_path / "new" / "out.json", tmp_path / "report"
    invoke("replay", "TRACE", "--json", file, "--report", folder)
    assert json.loads(file.read_text())["verdict"] == verdict
    assert verdict in (folder / "index.html").read_text()


def test_targets_are_checked_before_the_work(stand_ins, tmp_path):
    done = invoke("check", "train.py", "--json", tmp_path)
    assert done.exit_code == 2
    assert "it is a folder" in done.stderr
    assert "check" not in stand_ins.seen


@pytest.mark.parametrize("command", ["check train.py", "replay TRACE"])
def test_a_failed_run_leaves_no_folder(stand_ins, tmp_path, command):
    stand_ins.raises = fc.TraceError("TRACE is not a trace; record it again.")
    options = "--report", tmp_path / "report", "--json", tmp_path / "new" / "out.json"
    assert invoke(*command.split(), *options).exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_trace(tmp_path):
    (tmp_path / "train.py").write_text("")
    done = invoke("replay", tmp_path / "train.py")
    assert done.exit_code == 2
    assert "train.py is a file, and a trace is a folder; give" in done.stderr


def test_demo_ends_with_a_page(stand_ins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke("demo").exit_code == 0
    assert stand_ins.seen["read"][0] == (DEMO,)
    assert (tmp_path / "fedbridge-demo" / "index.html").exists()


# --------------------------------------------------------------------------------- other commands


def test_lint_lists_names_and_judges(stand_ins, monkeypatch, tmp_path):
    done = invoke("lint", "train.py", "--json", tmp_path / "lint.json")
    assert done.exit_code == 0
    assert "tff.learning.x" in done.output
    assert "The script can be checked." in done.output
    assert "`fedbridge run` has no tff.learning.x." in done.output
    written = json.loads((tmp_path / "lint.json").read_text())
    assert written["checkable"] is True
    assert written["not_run"] == ["tff.learning.x"]
    assert "cannot be migrated" in written["not_migrated"]
    assert invoke("lint", "train.py", "--for", "run").exit_code == 1
    assert invoke("lint", "train.py", "--for", "migrate").exit_code == 1

    refused = Lint([], ["dropout cannot be compared"], [], False)
    monkeypatch.setitem(
        sys.modules,
        "fedbridge.bridge.lint",
        SimpleNamespace(lint=lambda script: refused, Name=Name),
    )
    assert invoke("lint", "train.py", "--for", "run").exit_code == 0
    done = invoke("lint", "train.py")
    assert done.exit_code == 1
    assert "dropout cannot be compared" in done.output
    assert "`fedbridge run` has all its names of TFF." in done.output


def test_the_doctor_names_the_cure(monkeypatch):
    from fedbridge.bridge import reference

    findings = [Finding(True, "platform: Linux"), Finding(False, "absent", "run create")]
    monkeypatch.setattr(reference, "doctor", lambda path: findings)
    done = invoke("reference", "doctor")
    assert done.exit_code == 1
    assert "✓ platform: Linux" in done.output
    assert "✗ absent: run create" in done.output
    monkeypatch.setattr(reference, "doctor", lambda path: findings[:1])
    assert invoke("reference", "doctor").exit_code == 0


def test_create_announces(monkeypatch, tmp_path):
    from fedbridge.bridge import reference

    monkeypatch.setattr(reference, "create", lambda path, announce: announce(f"to {path}"))
    done = invoke("reference", "create", "--path", tmp_path)
    assert (done.exit_code, done.output) == (0, f"to {tmp_path}\n")


def test_data_commands(stand_ins, tmp_path):
    done = invoke("data", "generate", "emnist", "--clients", 5, "--out", tmp_path, "--seed", 3)
    assert done.exit_code == 0
    (clients, _), named = stand_ins.seen["generate"]
    assert (clients, named["seed"]) == (5, 3)
    assert "FOLDER (FEDBRIDGE_DATA)" in invoke("data", "find", "emnist").output
    assert "FOLDER (FEDBRIDGE_DATA)" in invoke("data", "find", "cifar100").output


def test_stackoverflow_generated_and_converted(tmp_path):
    """The real commands, small."""
    import fedbridge as fb

    data, out = tmp_path / "data", tmp_path / "train"
    done = invoke(
        "data", "generate", "stackoverflow", "--clients", 4, "--sentences", 60, "--out", data
    )
    assert done.exit_code == 0
    assert "4 clients; use it with FEDBRIDGE_DATA=" in done.output
    command = ("data", "convert", data / "stackoverflow.sqlite", "--split", "train", "--out")
    vocabulary, length = ("--vocab-size", 50), ("--sequence-length", 7)
    words = ("--preprocess", "stackoverflow_word_prediction", *vocabulary)
    done = invoke(*command, out, *words, *length)
    assert done.exit_code == 0
    assert "4 clients, 60 examples" in done.output
    assert fb.from_converted(out).features["tokens"].shape == (60, 8)
    tags = ("--preprocess", "stackoverflow_tag_prediction", *vocabulary, "--tag-vocab-size", 3)
    assert invoke(*command, tmp_path / "tags", *tags).exit_code == 0
    assert list(fb.from_converted(tmp_path / "tags").features) == ["words", "tags"]
    refused = "--sequence-length: stackoverflow_tag_prediction has no use for it; leave it out."
    assert refused in invoke(*command, tmp_path / "no", *tags, *length).stderr
    refused = "--vocab-size: a conversion without --preprocess has no use for it; leave it out."
    assert refused in invoke(*command, tmp_path / "no", *vocabulary).stderr
    done = invoke(*command, out, "--processes", 1)
    assert (done.exit_code, "Traceback" in done.output) == (2, False)
    missing = ("--preprocess", "stackoverflow_word_prediction", "--word-counts", tmp_path / "none")
    assert "none: there is no such file" in invoke(*command, tmp_path / "x", *missing).stderr
    done = invoke("data", "generate", "emnist", "--clients", 1, "--sentences", 2, "--out", data)
    assert "--sentences: handwriting has none" in done.stderr


def test_generating_writes_over_nothing(tmp_path):
    (tmp_path / "stackoverflow.word_count").write_text("real 5\n")
    generate = ("data", "generate", "stackoverflow", "--clients", 2, "--sentences", 9, "--out")
    done = invoke(*generate, tmp_path)
    assert done.exit_code == 2
    assert "stackoverflow.word_count: it is there already" in done.stderr
    assert (tmp_path / "stackoverflow.word_count").read_text() == "real 5\n"
    assert invoke(*generate, tmp_path, "--force").exit_code == 0
    assert (tmp_path / "stackoverflow.word_count").read_text() != "real 5\n"


SHOWS_ITSELF = """\
import sys
import jax
print(sys.argv[1:], jax.local_device_count(), {"typer", "rich", "pydantic"} & set(sys.modules))
"""


@pytest.mark.slow
def test_run_goes_past_what_other_commands_are_made_of(tmp_path):
    script = tmp_path / "shows.py"
    script.write_text(SHOWS_ITSELF)
    env = {**os.environ, "FEDBRIDGE_CACHE": str(tmp_path), "JAX_NUM_CPU_DEVICES": "3"}

    def run(*arguments):
        command = [sys.executable, "-m", "fedbridge", "run", *map(str, arguments)]
        return subprocess.run(command, env=env, capture_output=True, text=True)

    done = run(script, "--rounds", "3", "--", "--help", "--", "x")
    assert done.stdout == "['--rounds', '3', '--help', '--', 'x'] 3 set()\n", done.stderr
    done = run(tmp_path / "none.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fedbridge: ")
    assert "none.py" in done.stderr
    assert "Usage" in run(script, "--help").stdout


def test_every_core_becomes_a_device(monkeypatch):
    made = []
    monkeypatch.setattr("fedbridge.jax_core._compat.cpu_devices", made.append)
    monkeypatch.setattr("fedbridge.jax_core._default_execution.num_cores", lambda: 6)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    fc.use_cores()
    monkeypatch.setattr("fedbridge.jax_core._default_execution.num_cores", lambda: 64)
    fc.use_cores()
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    fc.use_cores()
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    fc.use_cores()
    assert made == [6, 8]


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from fedbridge.cli import app\n"
        "assert CliRunner().invoke(app, ['check', '--help']).exit_code == 0\n"
        "heavy = {'flax', 'matplotlib', 'tensorflow', 'keras', 'fedbridge.bridge.check'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or None)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
