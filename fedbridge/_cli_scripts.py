"""The commands that read a script and run nothing: `fedbridge lint`, `fedbridge migrate`."""

import enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fedbridge._cli_console import Json, Script, check_targets, console_for, save_json, say
from fedbridge.jax_core import ScriptError

MIGRATE_EXAMPLES = (
    "Examples: [bold]fedbridge migrate train.py[/bold] (writes train_fedbridge.py) · "
    "[bold]fedbridge migrate notebook.ipynb -o train.py[/bold]\n\n"
    "Exit codes: 0 it is written, 2 the script needs what has no counterpart, or an error."
)
LINT_EXAMPLES = (
    "Examples: [bold]fedbridge lint train.py[/bold] · "
    "[bold]fedbridge lint train.py --for run --json -[/bold]\n\n"
    "Exit codes: 0 the script can be checked (or what --for names), 1 it cannot, 2 an error."
)


def migrate(
    script: Script,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The new script, if not beside it."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite it.")] = False,
) -> None:
    """Write a TFF script anew against fedbridge's own API, beside the old one.

    For the common shapes: client data, a tf.data pipeline, a Keras model, a builder and a loop. The
    new script computes what `fedbridge run` computes for the old one. Nothing is run.
    """
    from fedbridge.bridge.files import replace_text
    from fedbridge.bridge.migrate import migrate as migrated

    found = migrated(script)
    target = output or script.with_name(f"{script.stem}_fedbridge.py")
    if target.exists() and not force:
        raise ScriptError(f"{target} is there already; give --force, or another --output.")
    replace_text(target, found.text)
    console = console_for(None)
    for note in found.notes:
        say(console, f"note: {note}")
    say(console, f"{target}: run it with `python {target}`.")


class _Purpose(enum.StrEnum):
    """What a script is looked at for."""

    check = "check"
    run = "run"
    migrate = "migrate"


def lint(
    script: Script,
    json: Json = None,
    purpose: Annotated[
        _Purpose, typer.Option("--for", help="What the exit code answers for.")
    ] = _Purpose.check,
) -> None:
    """List the TFF names a script uses, what each becomes, and what can be done with it.

    Whether it can be checked, run and migrated; what will not come out the same, and why.
    """
    from fedbridge.bridge.lint import lint as look
    from fedbridge.bridge.migrate import migrate as migrated
    from fedbridge.tff._errors import runs

    check_targets(json, None)
    found = look(script)
    not_run = [name.symbol for name in found.names if not runs(name.symbol)]
    try:
        migrated(script)
        not_migrated = ""
    except ScriptError as error:
        not_migrated = str(error)
    _show_lint(console_for(json), found, not_run, not_migrated)
    more = {"not_run": not_run, "not_migrated": not_migrated}
    save_json(json, found._asdict() | more)
    well = {"check": found.checkable, "run": not not_run, "migrate": not not_migrated}
    raise typer.Exit(0 if well[purpose] else 1)


def _show_lint(console: Console, found: Any, not_run: list[str], not_migrated: str) -> None:
    from fedbridge.bridge.terminal import lint_table

    console.print(lint_table(found.names, console.width))
    for obstacle in found.obstacles:
        say(console, f"✗ {obstacle}")
    for note in found.notes:
        say(console, f"note: {note}")
    say(console, "The script can be checked." if found.checkable else "It cannot be checked.")
    cannot = f"`fedbridge run` has no {', '.join(not_run)}."
    say(console, cannot if not_run else "`fedbridge run` has all its names of TFF.")
    say(console, not_migrated or "`fedbridge migrate` writes it against fedbridge's own API.")
