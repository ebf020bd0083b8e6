"""The table that fills while a check runs, and the verdict under it.

`Display` follows the events of `record` and `replay`: TFF's side of the table fills first, then
fedbridge's. On a terminal the table is live; elsewhere (a log, a pipe) every event is a line.
"""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from fedbridge.bridge import words
from fedbridge.bridge.files import replace_text
from fedbridge.bridge.lint import Name
from fedbridge.bridge.result import Result, RoundResult

_COLORS = {"match": "green", "differs": "red", "not comparable": "yellow"}


class Row(NamedTuple):
    """One line of the table: what is known of a round so far; losses as they are shown."""

    round: int
    loss_reference: str = ""
    seconds_reference: float | None = None
    loss: str = ""
    seconds: float | None = None
    judged: RoundResult | None = None


class Display:
    """Shows a check while it runs; a context manager that is called with every event.

    Args:
        console: Where to show it.
        total: How many rounds there are, where that is known beforehand.
    """

    def __init__(self, console: Console, total: int | None = None):
        self._console = console
        self._total = total
        self._rows: dict[tuple[int, int], Row] = {}
        self._done = 0  # rounds of this phase
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("starting", total=total)
        self._live = Live(
            get_renderable=self._picture, console=console, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Takes one event of `record` or `replay`; those it does not know pass by."""
        match event["event"]:
            case "phase":
                self._begin(event["name"])
            case "round" if event["kind"] == "training":
                self._recorded(event)
            case "ran":
                key, row = self._next_row(event["round"])
                self._rows[key] = row._replace(
                    loss=words.loss(event["loss"]), seconds=event["seconds"]
                )
                self._advance()
            case "replayed":
                self._judged(event["round"])

    def _begin(self, phase: str) -> None:
        """A new phase goes through the same rounds again."""
        self._done = 0
        total = len(self._rows) or self._total
        self._progress.reset(self._task, total=total, description=escape(phase))
        self._say(phase)

    def _recorded(self, event: dict[str, Any]) -> None:
        """TFF's side of a round: once with the recorder, again (with its own time) without."""
        key = event["process"], event["round"]
        old = self._rows.get(key, Row(event["round"]))
        loss = old.loss_reference or words.loss(event["loss"])
        self._rows[key] = old._replace(loss_reference=loss, seconds_reference=event["seconds"])
        self._say(
            f"TFF  round {event['round']}: loss {words.loss(event['loss'])}, "
            f"{words.seconds(event['seconds'])} s"
        )
        self._advance()

    def _judged(self, one: RoundResult) -> None:
        key, _ = self._next_row(one.round)
        self._rows[key] = _row(one)
        self._say(words.plain_line(one))
        self._advance()

    def _next_row(self, number: int) -> tuple[tuple[int, int], Row]:
        """The row of this phase's next round: rounds come back in the order in which TFF ran."""
        keys = list(self._rows)
        key = keys[self._done] if self._done < len(keys) else (-1, self._done)
        return key, self._rows.get(key, Row(number))

    def _advance(self) -> None:
        self._done += 1
        self._progress.update(self._task, completed=self._done)

    def _say(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _picture(self) -> RenderableType:
        """The rows around the one that moves, as many as the window is high, and the bar."""
        rows = list(self._rows.values())
        room = max(self._console.size.height - 8, 3)
        first = max(0, min(self._done - room // 2, len(rows) - room))
        return Group(rounds_table(rows[first : first + room]), self._progress)


def rounds_table(rows: Iterable[Row]) -> Table:
    """The rounds, both sides beside each other."""
    table = _table()
    for name, style in (
        ("round", ""),
        ("TFF\nloss", "cyan"),
        ("JAX\nloss", "magenta"),
        ("probe\nerror", ""),
        ("round\nerror", ""),
        ("its\nfloor", "dim"),
        ("TFF\nseconds", "cyan"),
        ("JAX\nseconds", "magenta"),
        ("", ""),
    ):
        table.add_column(name, justify="right", style=style, no_wrap=True)
    for row in rows:
        one = row.judged
        table.add_row(
            str(row.round),
            row.loss_reference,
            row.loss,
            words.error(one and one.probe_error),
            words.error(one and one.round_error),
            words.error(one and one.noise_floor),
            words.seconds(row.seconds_reference),
            words.seconds(row.seconds),
            "" if one is None else _mark(words.mark(one)),
            style="bold red" if one is not None and words.mark(one) == "✗" else "",
        )
    return table


def evaluations_table(result: Result) -> Table:
    """The federated evaluations, both sides beside each other."""
    table = _table()
    for name in ("evaluation", "TFF\nloss", "JAX\nloss", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for one in result.evaluations:
        table.add_row(
            str(one.call),
            words.loss(one.loss_reference),
            words.loss(one.loss),
            _mark(words.mark(one)),
        )
    return table


def computations_table(result: Result) -> Table:
    """The calls of the script's own computations."""
    table = _table()
    for name in ("call", "computation", "error", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for one in result.computations:
        table.add_row(str(one.call), one.name, words.error(one.error), _mark(words.mark(one)))
    return table


def verdict_panel(result: Result) -> Panel:
    """The verdict, its reason, and what stands behind it."""
    color = _COLORS[result.verdict]
    lines: list[Text] = [Text(result.reason)]
    start = words.first_failure(result)
    if start is not None:
        lines.append(Text(start, style="bold"))
    lines += [Text(sentence) for sentence in words.speed(result)]
    items = Table.grid(padding=(0, 2, 0, 0))
    for title, said in (("adapted", result.adapted), ("note", result.notes)):
        for one in said:
            items.add_row(Text(title, style="dim"), Text(one))
    return Panel(
        Group(*lines, items) if items.rows else Group(*lines),
        title=Text(words.headline(result), style=f"bold {color}"),
        title_align="left",
        border_style=color,
        padding=(0, 1),
    )


def show(console: Console, result: Result) -> None:
    """Prints the finished table and the verdict; in a log every round was a line already."""
    if console.is_terminal:
        if result.rounds:
            console.print(rounds_table(map(_row, result.rounds)))
        if result.evaluations:
            console.print(evaluations_table(result))
        if result.computations:
            console.print(computations_table(result))
        console.print(verdict_panel(result))
        return
    start = words.first_failure(result)
    lines = [f"verdict: {words.headline(result)}", result.reason]
    lines += [
        f"evaluation {one.call}: loss {words.loss(one.loss)} (TFF {words.loss(one.loss_reference)})"
        for one in result.evaluations
    ]
    lines += [
        f"computation {one.call}, {one.name}: error {words.error(one.error)}"
        for one in result.computations
    ]
    lines += [*([start] if start else []), *words.speed(result)]
    lines += [f"adapted: {item}" for item in result.adapted]
    lines += [f"note: {item}" for item in result.notes]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def save_terminal_svg(result: Result, path: str | Path, *, width: int = 88) -> Path:
    """Saves what `check` shows at its end as a picture, without the font that rich links to."""
    console = Console(
        record=True, file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor"
    )
    show(console, result)
    picture = console.export_svg(title=f"fedbridge check {result.script}")
    return replace_text(path, re.sub(r"@font-face\s*{.*?}\s*", "", picture, flags=re.DOTALL))


def _row(one: RoundResult) -> Row:
    losses = words.loss(one.loss_reference), words.loss(one.loss)
    return Row(one.round, losses[0], one.seconds_reference, losses[1], one.seconds, one)


def _table() -> Table:
    return Table(
        box=box.SIMPLE_HEAD, collapse_padding=True, header_style="bold", border_style="dim"
    )


def _mark(mark: str) -> Text:
    return Text(mark, style={"✓": "bold green", "✗": "bold red"}.get(mark, "dim"))


def lint_table(names: Iterable[Name], width: int = 80) -> Table:
    """The TFF names that a script uses, each with its name in TFF 0.87.0 below it.

    Two long names do not fit beside each other in 80 columns, and a name that is broken in the
    middle of a word can be neither read nor copied.
    """
    table = _table()
    # What may not wrap is cut off in a window that is too narrow for it.
    table.add_column("name → in TFF 0.87.0", no_wrap=width >= 80, overflow="fold")
    for title in ("line", "era", "status"):
        table.add_column(title, overflow="fold")
    colors = {"checked": "green", "accepted": "green", "ignored": "dim"}
    for name in names:
        lines = _at_dots(name.symbol)
        if name.becomes not in ("", name.symbol):
            lines += "\n" + _at_dots(f"→ {name.becomes}")
        status = Text(name.status, style=colors.get(name.status, "red"))
        table.add_row(Text(lines), name.line, name.era, status)
    return table


def _at_dots(name: str, room: int = 50) -> str:
    """A long name over several lines, broken after dots only."""
    lines = [""]
    for part in re.split(r"(?<=\.)(?=\w)", name):
        if lines[-1] and len(lines[-1] + part) > room:
            lines.append("  ")
        lines[-1] += part
    return "\n".join(lines)
