"""What the commands share: a console, a line, progress bars for people; JSON for machines."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Save as JSON; - is stdout.")
]
Script = Annotated[Path, typer.Argument(metavar="SCRIPT", help="A TFF script or notebook.")]


def console_for(json: str | None) -> Console:
    """Where people read: stdout, unless JSON goes there."""
    stream = sys.stderr if json == "-" else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # a ✓ must not end a run on an ASCII terminal
    return Console(file=stream)


def say(console: Console, line: str) -> None:
    """Prints a line as it is."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def bar(
    console: Console, description: str, total: int, every: int = 0
) -> Iterator[Callable[..., None]]:
    """A progress bar; what it yields is called once for every piece of work done.

    With `every`, output that is no terminal gets a line on stderr after so many pieces.
    """
    from rich.progress import Progress

    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)

        def advance(*_: Any) -> None:
            progress.advance(task)
            done = int(progress.tasks[0].completed)
            if every and not console.is_terminal and (done % every == 0 or done == total):
                typer.echo(f"{description}: {done} of {total}", err=True)

        yield advance


@contextlib.contextmanager
def meter(console: Console, description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with its rate; what it yields is told how much is done, and of how much."""
    from rich import progress as bars

    columns = (*bars.Progress.get_default_columns(), bars.TextColumn("{task.fields[rate]}"))
    with bars.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(description, total=None, rate="")

        def show(done: int, total: int) -> None:
            speed = progress.tasks[0].speed
            rate = f"{speed:,.0f}/s" if speed else ""
            progress.update(task, completed=done, total=total, rate=rate)

        yield show


def save_json(target: str | None, tree: Any) -> None:
    """Saves what a command found, if that is asked for."""
    from fedbridge.bridge.files import json_text, replace_text

    if target == "-":
        typer.echo(json_text(tree), nl=False)
    elif target is not None:
        replace_text(target, json_text(tree))


def check_targets(json: str | None, folder: Path | None) -> None:
    """What cannot be written should be known before an hour of work, not after it."""
    from fedbridge.bridge.files import check_target

    if json not in (None, "-"):
        check_target(json)
    if folder is not None:
        check_target(folder, folder=True)
