"""The command line: one Typer app over the bridge.

Whatever fedbridge raises on purpose ends as one sentence on stderr and exit code 2. The verdict is
the exit code of `check`, `replay` and `demo`: 0 match, 1 differs, 3 not comparable.
"""

import contextlib
import difflib
import enum
import functools
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from fedbridge._version import __version__
from fedbridge.bridge.result import Result, to_json
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
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("fedbridge: interrupted.", err=True)
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
data_app = typer.Typer(
    no_args_is_help=True, help="Federated data: find it, generate some, convert it."
)
app.add_typer(reference_app, name="reference")
app.add_typer(data_app, name="data")

_Rounds = Annotated[
    int | None, typer.Option("--rounds", min=1, help="Stop the script after so many rounds.")
]
_Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Save as JSON; - is stdout.")
]
_Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="DIR", help="Save a page with plots: DIR/index.html."),
]
_Script = Annotated[Path, typer.Argument(metavar="SCRIPT", help="A TFF script or notebook.")]
_Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- ARGS]", help="The script's own command line.", show_default=False),
]
_TraceFolder = Annotated[Path, typer.Argument(metavar="TRACE", help="A trace's folder.")]
_Path = Annotated[
    Path | None,
    typer.Option("--path", metavar="P", help="The environment's folder, if not the usual one."),
]


class DataSet(enum.StrEnum):
    """The data sets that fedbridge can find and generate."""

    emnist = "emnist"
    stackoverflow = "stackoverflow"


class Preprocessing(enum.StrEnum):
    """The preprocessing that turns text into ids while it is converted."""

    words = "stackoverflow_word_prediction"
    tags = "stackoverflow_tag_prediction"


_DataSet = Annotated[DataSet, typer.Argument(metavar="DATA_SET", help="Which one.")]


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
    script: _Script,
    arguments: _Arguments = None,
    rounds: _Rounds = None,
    json: _Json = None,
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

    _check_targets(json, report)
    keep_programs()
    console = _console(json)
    with _display(console, rounds) as show:
        result = run(script, arguments or [], rounds=rounds, keep_trace=keep_trace, on_event=show)
    _finish(console, result, json, report)


@app.command(
    context_settings=_FOR_THE_SCRIPT,
    epilog="Examples: [bold]fedbridge run emnist_fedavg.py[/bold] · "
    "[bold]fedbridge run train.py -- --model cnn --rounds 50[/bold]\n\n"
    "Exit codes: the script's own; 1 after an exception of the script, 2 if it asks for something "
    "that does not run here.",
)
def run(script: _Script, arguments: _Arguments = None) -> None:
    """Run a TFF script on JAX, where TFF cannot be installed.

    The script stays as it is: for it, `tensorflow_federated` is `fedbridge.tff`. It needs whatever
    else it imports, TensorFlow for example.
    """
    from fedbridge.bridge.programs import keep_programs
    from fedbridge.tff._run import run as run_script

    keep_programs()
    raise typer.Exit(run_script(script, arguments or []))


@app.command(
    context_settings=_FOR_THE_SCRIPT,
    epilog="Example: [bold]fedbridge record emnist_fedavg.py -o trace -- --model softmax[/bold]",
)
def record(
    script: _Script,
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

    console = _console(None)
    with _display(console, rounds) as show:
        recorded = run(script, arguments or [], output, rounds=rounds, on_event=show)
    for note in recorded.notes:
        _print(console, f"note: {note}")
    _print(console, f"{recorded.trace}: repeat it with `fedbridge replay {recorded.trace}`.")


@app.command(
    epilog="Example: [bold]fedbridge replay trace --report out[/bold]\n\n" + _EXIT_CODES,
)
def replay(trace: _TraceFolder, json: _Json = None, report: _Report = None) -> None:
    """Repeat a recorded run on JAX, without TensorFlow, and compare it with TFF's."""
    _replay(trace, json, report)


@app.command(epilog=_EXIT_CODES)
def demo(json: _Json = None, report: _Report = Path("fedbridge-demo")) -> None:
    """Repeat a small recorded run that comes with fedbridge: offline, on any platform."""
    from fedbridge.bridge.check import DEMO_TRACE

    _replay(DEMO_TRACE, json, report)


@app.command(
    epilog="Example: [bold]fedbridge lint train.py[/bold]\n\n"
    "Exit codes: 0 the script can be checked, 1 it cannot, 2 an error."
)
def lint(script: _Script, json: _Json = None) -> None:
    """List the TFF names a script uses, what each becomes, and whether it can be checked."""
    from fedbridge.bridge.lint import lint as look

    _check_targets(json, None)
    found = look(script)
    _show_lint(_console(json), found)
    _save_json(json, found._asdict())
    raise typer.Exit(0 if found.checkable else 1)


@app.command(
    epilog="Examples: [bold]fedbridge parity[/bold] · [bold]fedbridge parity --only mimelite "
    "--json -[/bold]\n\nExit codes: 0 every cell agrees, 1 one does not, 2 an error."
)
def parity(
    json: _Json = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Save as one HTML page.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="TEXT", help="Only the rows with this in their names."),
    ] = None,
) -> None:
    """Repeat recorded rounds of every TFF algorithm, optimizer and aggregator, and compare.

    The recordings come with fedbridge: offline, on any platform, a few minutes.
    """
    from fedbridge.bridge import parity as matrix, parity_tables
    from fedbridge.bridge.files import check_target, replace_text
    from fedbridge.bridge.programs import keep_programs

    _check_targets(json, None)
    keep_programs()
    if html is not None:
        check_target(html)
    console = _console(json)
    rows = list(matrix.index())
    wanted = (only or "").lower().replace(" ", "_")  # names as in the table, too
    names = [name for name in rows if wanted in name]
    if not names:
        near = difflib.get_close_matches(wanted, {part for row in rows for part in row.split(".")})
        cure = f"near are {', '.join(near)}" if near else f"one is {rows[0]!r}"
        raise FedbridgeError(f"no row of the matrix has {only!r} in its name; {cure}.")
    with _bar(console, "replaying TFF's rounds", len(names)) as advance:
        result = matrix.parity(names, on_event=advance)
    parity_tables.show(console, result)
    if html is not None:
        _print(console, f"The page: {replace_text(html, parity_tables.page(result))}")
    _save_json(json, matrix.to_json(result))
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

    console = _console(None)
    with console.status("examining the reference environment (the last step imports TFF)"):
        findings = doctor(path)
    for finding in findings:
        cure = "" if finding.ok else f": {finding.cure}"
        _print(console, f"{'✓' if finding.ok else '✗'} {finding.what}{cure}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@data_app.command(
    "generate",
    epilog="Examples: [bold]fedbridge data generate emnist --clients 100 --out data[/bold], "
    "then [bold]FEDBRIDGE_DATA=data[/bold] · [bold]fedbridge data generate stackoverflow "
    "--clients 50000 --sentences 5000000 --out data[/bold]",
)
def data_generate(
    dataset: _DataSet,
    clients: Annotated[int, typer.Option("--clients", min=1, help="How many, in training.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write to.")],
    sentences: Annotated[
        int | None,
        typer.Option("--sentences", min=1, help="Of stackoverflow's train; default 397 a client."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed, the same data.")] = 0,
) -> None:
    """Generate a stand-in for a data set, in TFF's own file format, without a network."""
    if dataset is DataSet.stackoverflow:
        from fedbridge.tff_io import generate_stackoverflow

        generate = functools.partial(generate_stackoverflow, sentences=sentences)
    else:
        from fedbridge.tff_io import generate_emnist as generate

        if sentences is not None:
            raise FedbridgeError("--sentences: handwriting has none; leave it out.")
    console = _console(None)
    with _meter(console, f"generating {dataset.value}") as show:
        path = generate(clients, out, seed=seed, progress=show)
    _print(console, f"{path}: {clients} clients; use it with FEDBRIDGE_DATA={out}")


@data_app.command(
    "convert",
    epilog="Example: [bold]fedbridge data convert data/stackoverflow.sqlite --split train "
    "--preprocess stackoverflow_word_prediction --out data/train[/bold], then "
    "[bold]fb.from_converted('data/train')[/bold].",
)
def data_convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A TFF SQLite file, also packed.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The new folder.")],
    split: Annotated[str | None, typer.Option("--split", help="Which of its splits.")] = None,
    preprocess: Annotated[
        Preprocessing | None,
        typer.Option("--preprocess", help="Store ids; without it, the features as they are."),
    ] = None,
    word_counts: Annotated[
        Path | None,
        typer.Option("--word-counts", metavar="FILE", help="Default: beside the data."),
    ] = None,
    tag_counts: Annotated[
        Path | None,
        typer.Option("--tag-counts", metavar="FILE", help="Default: beside the data."),
    ] = None,
    vocab_size: Annotated[int, typer.Option("--vocab-size", min=1, help="Words.")] = 10_000,
    tag_vocab_size: Annotated[int, typer.Option("--tag-vocab-size", min=1, help="Tags.")] = 500,
    sequence_length: Annotated[
        int, typer.Option("--sequence-length", min=1, help="Words of a sentence.")
    ] = 20,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="Default: one a core, at most 4.")
    ] = None,
) -> None:
    """Convert a file of any size into memory-mapped arrays; run again, it goes on."""
    from fedbridge import preprocessing
    from fedbridge.tff_io import convert, read_tag_counts, read_word_counts

    function = None
    if preprocess is not None:
        words = word_counts or file.with_name("stackoverflow.word_count")
        vocabulary = list(read_word_counts(words, vocab_size))
        if preprocess is Preprocessing.words:
            function = functools.partial(
                preprocessing.stackoverflow_word_prediction,
                vocab=vocabulary,
                sequence_length=sequence_length,
            )
        else:
            tags = tag_counts or file.with_name("stackoverflow.tag_count")
            function = functools.partial(
                preprocessing.stackoverflow_tag_prediction,
                word_vocab=vocabulary,
                tag_vocab=list(read_tag_counts(tags))[:tag_vocab_size],
            )
    console = _console(None)
    with _meter(console, f"converting {file.name}") as show:
        data = convert(file, out, split, preprocess=function, processes=processes, progress=show)
    _print(console, f"{out}: {data!r}; read it with fb.from_converted({str(out)!r})")


@data_app.command("find")
def data_find(dataset: _DataSet) -> None:
    """Say which copy of a data set will be used."""
    from fedbridge.tff_io import find_data

    folder, source = find_data(dataset.value)
    _print(_console(None), f"{folder} ({source})")


def _replay(trace: Path, json: str | None, report: Path | None) -> None:
    from fedbridge.bridge.programs import keep_programs
    from fedbridge.bridge.replay import replay as run
    from fedbridge.bridge.trace import read

    _check_targets(json, report)
    keep_programs()
    console = _console(json)
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
        _print(console, f"The page: {save_report(result, report)}")
    _save_json(json, to_json(result))
    raise typer.Exit(_VERDICT_CODES[result.verdict])


def _save_json(target: str | None, tree: Any) -> None:
    from fedbridge.bridge.files import json_text, replace_text

    if target == "-":
        typer.echo(json_text(tree), nl=False)
    elif target is not None:
        replace_text(target, json_text(tree))


def _check_targets(json: str | None, report: Path | None) -> None:
    """What cannot be written should be known before an hour of work, not after it."""
    from fedbridge.bridge.files import check_target

    if json not in (None, "-"):
        check_target(json)
    if report is not None:
        check_target(report, folder=True)


def _console(json: str | None) -> Console:
    """Where people read: stdout, unless JSON goes there."""
    stream = sys.stderr if json == "-" else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # a ✓ must not end a run on an ASCII terminal
    return Console(file=stream)


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _display(console: Console, total: int | None = None) -> Any:
    from fedbridge.bridge.terminal import Display

    return Display(console, total)


@contextlib.contextmanager
def _bar(console: Console, description: str, total: int) -> Iterator[Callable[..., None]]:
    """A progress bar; what it yields is called once for every piece of work done."""
    from rich.progress import Progress

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda *_: progress.advance(task)


@contextlib.contextmanager
def _meter(console: Console, description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with its rate; what it yields is told how much is done, and of how much."""
    from rich import progress as bars

    columns = (*bars.Progress.get_default_columns(), bars.TextColumn("{task.fields[rate]}"))
    with bars.Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(description, total=None, rate="")

        def show(done: int, total: int) -> None:
            speed = progress.tasks[0].speed
            rate = f"{speed:,.0f}/s" if speed else ""
            progress.update(task, completed=done, total=total, rate=rate)

        yield show


def _show_lint(console: Console, found: Any) -> None:
    from fedbridge.bridge.terminal import lint_table

    console.print(lint_table(found.names, console.width))
    for obstacle in found.obstacles:
        _print(console, f"✗ {obstacle}")
    for note in found.notes:
        _print(console, f"note: {note}")
    _print(console, "The script can be checked." if found.checkable else "It cannot be checked.")
