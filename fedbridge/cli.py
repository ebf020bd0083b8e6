"""The command line: one Typer app over the bridge.

Whatever fedbridge raises on purpose ends as one sentence on stderr and exit code 2. The verdict is
the exit code of `check`, `replay` and `demo`: 0 match, 1 differs, 3 not comparable.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from fedbridge._cli_console import (
    Json,
    Script,
    bar,
    check_targets,
    console_for,
    save_json,
    say,
)
from fedbridge._cli_data import data_app
from fedbridge._cli_run import run_script
from fedbridge._cli_scripts import LINT_EXAMPLES, MIGRATE_EXAMPLES, lint, migrate
from fedbridge._cli_train import TRAIN_EXAMPLES, train
from fedbridge._version import __version__
from fedbridge.bridge.result import Result, to_json
from fedbridge.distributed import leave
from fedbridge.jax_core import FedbridgeError

_VERDICT_CODES = {"match": 0, "differs": 1, "not comparable": 3}
_EXIT_CODES = (
    "Exit codes: 0 match, 1 differs, 2 an error (one sentence on stderr), 3 not comparable."
)
# What fedbridge does not know goes to the script, with or without "--" before it.
_FOR_THE_SCRIPT = {"ignore_unknown_options": True}


class _Sentences(TyperGroup):
    """A group of commands whose errors are sentences, never tracebacks."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FedbridgeError as error:
            typer.echo(f"fedbridge: {error}", err=True)
            leave(2)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("fedbridge: interrupted.", err=True)
            leave(130)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Sentences,
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Point it at your TensorFlow Federated script: it runs on JAX, it is checked against the "
        "real TFF, and you see the difference and the speed-up."
    ),
    epilog="Start with [bold]fedbridge demo[/bold]: any platform, offline, under a minute.",
)
reference_app = typer.Typer(
    no_args_is_help=True, help="The environment in which the real TFF runs: make it, examine it."
)
app.add_typer(reference_app, name="reference")
app.add_typer(data_app, name="data")

_Rounds = Annotated[
    int | None, typer.Option("--rounds", min=1, help="Stop the script after so many rounds.")
]
_Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="DIR", help="Save a page with plots: DIR/index.html."),
]
_Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- ARGS]", help="The script's own command line.", show_default=False),
]
_TraceFolder = Annotated[Path, typer.Argument(metavar="TRACE", help="A trace's folder.")]
_Path = Annotated[
    Path | None,
    typer.Option("--path", metavar="P", help="The environment's folder, if not the usual one."),
]


def _print_version(asked: bool | None) -> None:
    if asked:
        typer.echo(f"fedbridge {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = None,
) -> None:
    """Holds the options that belong to no command."""


@app.command(
    context_settings=_FOR_THE_SCRIPT,
    epilog="Examples: [bold]fedbridge check emnist_fedavg.py --report out[/bold] · "
    "[bold]fedbridge check experiment.ipynb --rounds 3 --json -[/bold] · "
    "[bold]fedbridge check train.py -- --model cnn --rounds 50[/bold]\n\n" + _EXIT_CODES,
)
def check(
    script: Script,
    arguments: _Arguments = None,
    rounds: _Rounds = None,
    json: Json = None,
    report: _Report = None,
    keep_trace: Annotated[
        Path | None,
        typer.Option("--keep-trace", metavar="DIR", help="Keep the trace in this new folder."),
    ] = None,
) -> None:
    """Run a TFF script under the real TFF and on JAX, and compare them round by round.

    The script stays as it is.
    """
    from fedbridge.bridge.check import check as run
    from fedbridge.bridge.programs import keep_programs

    check_targets(json, report)
    keep_programs()
    console = console_for(json)
    with _display(console, rounds) as show:
        result = run(script, arguments or [], rounds=rounds, keep_trace=keep_trace, on_event=show)
    _finish(console, result, json, report)


@app.command(
    context_settings=_FOR_THE_SCRIPT,
    epilog="Examples: [bold]fedbridge run emnist_fedavg.py[/bold] · "
    "[bold]fedbridge run train.py -- --model cnn --rounds 50[/bold] · "
    "[bold]fedbridge run --tff-version 0.17 old.py[/bold]\n\n"
    "Exit codes: the script's own; 1 after an exception of the script, 2 if it asks for something "
    "that does not run here.",
)
def run(
    script: Script,
    arguments: _Arguments = None,
    *,
    tff_version: Annotated[
        str | None,
        typer.Option(
            "--tff-version",
            metavar="V",
            help="The TFF that the script was written for, 0.17 for example: fixes the metrics "
            "that build_federated_averaging_process and its like return, and how they print. "
            "Without it every shape that they had can be read.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a TFF script on JAX, where TFF cannot be installed.

    The script stays as it is: for it, `tensorflow_federated` is `fedbridge.tff`. It needs whatever
    else it imports, TensorFlow for example.
    """
    raise typer.Exit(run_script(script, arguments or [], tff_version))


@app.command(
    context_settings=_FOR_THE_SCRIPT,
    epilog="Example: [bold]fedbridge record emnist_fedavg.py -o trace -- --model softmax[/bold]",
)
def record(
    script: Script,
    arguments: _Arguments = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="TRACE", help="The new folder to write.")
    ],
    rounds: _Rounds = None,
) -> None:
    """Run a TFF script under the real TFF, and record all that is needed to repeat it.

    The script stays as it is.
    """
    from fedbridge.bridge.check import record as run

    console = console_for(None)
    with _display(console, rounds) as show:
        recorded = run(script, arguments or [], output, rounds=rounds, on_event=show)
    for note in recorded.notes:
        say(console, f"note: {note}")
    say(console, f"{recorded.trace}: repeat it with `fedbridge replay {recorded.trace}`.")


@app.command(
    epilog="Example: [bold]fedbridge replay trace --report out[/bold]\n\n" + _EXIT_CODES,
)
def replay(trace: _TraceFolder, json: Json = None, report: _Report = None) -> None:
    """Repeat a recorded run on JAX, without TensorFlow, and compare it with TFF's."""
    _replay(trace, json, report)


@app.command(epilog=_EXIT_CODES)
def demo(json: Json = None, report: _Report = Path("fedbridge-demo")) -> None:
    """Repeat a small recorded run that comes with fedbridge: offline, on any platform."""
    from fedbridge.bridge.check import DEMO_TRACE

    _replay(DEMO_TRACE, json, report)


app.command(epilog=MIGRATE_EXAMPLES)(migrate)
app.command(epilog=LINT_EXAMPLES)(lint)
app.command(epilog=TRAIN_EXAMPLES)(train)


@app.command(
    epilog="Examples: [bold]fedbridge parity[/bold] · [bold]fedbridge parity --only mimelite "
    "--json -[/bold]\n\nRows are named by algorithm and parts: weighted_fedavg.client_adam, "
    "fedsgd.server_yogi, k_means.cases.\n\nExit codes: 0 every cell agrees, 1 one does not, 2 an "
    "error."
)
def parity(
    json: Json = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Save as one HTML page.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="TEXT", help="Only the rows with this in their names."),
    ] = None,
) -> None:
    """Repeat recorded rounds of every TFF algorithm, optimizer and aggregator, and compare.

    The recordings come with fedbridge: offline, on any platform, about ten minutes of CPU time.
    """
    from fedbridge.bridge import parity as matrix, parity_tables
    from fedbridge.bridge.files import check_target, replace_text
    from fedbridge.bridge.programs import keep_programs

    check_targets(json, None)
    keep_programs()
    if html is not None:
        check_target(html)
    console = console_for(json)
    rows = list(matrix.index())
    wanted = (only or "").lower().replace(" ", "_")  # names as in the table, too
    names = [name for name in rows if wanted in name]
    if not names:
        near = difflib.get_close_matches(wanted, {part for row in rows for part in row.split(".")})
        cure = f"near are {', '.join(near)}" if near else f"one is {rows[0]!r}"
        raise FedbridgeError(f"no row of the matrix has {only!r} in its name; {cure}.")
    with bar(console, "rows replayed", len(names), every=20) as advance:
        result = matrix.parity(names, on_event=advance)
    parity_tables.show(console, result)
    if html is not None:
        say(console, f"The page: {replace_text(html, parity_tables.page(result))}")
    save_json(json, matrix.to_json(result))
    raise typer.Exit(0 if all(cell.passed for cell in result.cells) else 1)


@reference_app.command("create")
def reference_create(path: _Path = None) -> None:
    """Make the environment in which the real TFF runs; says first how much it will download."""
    from fedbridge.bridge.reference import create

    create(path, announce=typer.echo)


@reference_app.command("doctor", epilog="Exit codes: 0 all is well, 1 something is not.")
def reference_doctor(path: _Path = None) -> None:
    """Say what is wrong with the environment, and how to mend it."""
    from fedbridge.bridge.reference import doctor

    console = console_for(None)
    with console.status("examining the reference environment (the last step imports TFF)"):
        findings = doctor(path)
    for finding in findings:
        cure = "" if finding.ok else f": {finding.cure}"
        say(console, f"{'✓' if finding.ok else '✗'} {finding.what}{cure}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


def _replay(trace: Path, json: str | None, report: Path | None) -> None:
    from fedbridge.bridge.programs import keep_programs
    from fedbridge.bridge.replay import replay as run
    from fedbridge.bridge.trace import read

    check_targets(json, report)
    keep_programs()
    console = console_for(json)
    recorded = read(trace)
    training = [
        call for call in recorded.calls if recorded.processes[call.process].kind == "training"
    ]
    with _display(console, len(training)) as show:
        result = run(recorded, on_event=show)
    _finish(console, result, json, report)


def _finish(console: Console, result: Result, json: str | None, report: Path | None) -> None:
    """Shows and saves a result; its verdict is the exit code."""
    from fedbridge.bridge.report import save_report
    from fedbridge.bridge.terminal import show

    show(console, result)
    if report is not None:
        say(console, f"The page: {save_report(result, report)}")
    save_json(json, to_json(result))
    raise typer.Exit(_VERDICT_CODES[result.verdict])


def _display(console: Console, total: int | None = None) -> Any:
    from fedbridge.bridge.terminal import Display

    return Display(console, total)
