"""The parity matrix as tables: what the terminal, the page and the documentation show."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from rich.console import Console
from rich.table import Table as RichTable

from fedbridge.bridge import words
from fedbridge.bridge.html import bullets, document, sign, table as html_table, verdict_box
from fedbridge.bridge.parity import Cell, Parity

# Title, what the rows are about, and what names a table's rows and columns.
_GROUPS = (
    ("Optimizers on the clients", "client", "algorithm", "optimizer"),
    ("Optimizers on the server", "server", "algorithm", "optimizer"),
    ("Aggregators", "aggregators", "aggregator", "algorithm"),
    ("Models", "models", "model", "algorithm"),
    ("What the clients are like", "cases", "algorithm", "case"),
    ("Pairs of all the others", "pairs", "aggregator", "model"),
)


class Table(NamedTuple):
    """A table of text; the first column names the rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(result: Parity) -> list[Table]:
    """The matrix by what its cells are about, a table each; what has no cell is left out."""
    found = []
    for title, about, row, column in _GROUPS:
        cells = [cell for cell in result.cells if about in (cell.about, cell.side)]
        if cells:
            found.append(_grid(title, cells, row, column))
    return found


def summary(result: Parity) -> str:
    """One line: how many cells pass, and the largest errors."""
    passed = sum(cell.passed for cell in result.cells)
    line = f"{passed} of {len(result.cells)} cells agree with TFF 0.87.0"
    probed = [cell for cell in result.cells if cell.probe_error is not None]
    largest = lambda cells: words.error(max(cell.probe_error for cell in cells))
    at_server = [cell for cell in probed if cell.side in ("server", "both")]
    others = [cell for cell in probed if cell.side not in ("server", "both")]
    if others:
        line += f"; largest error after one local step {largest(others)} of the update"
    if at_server:
        line += (
            f"{', and' if others else '; largest error after one local step'} {largest(at_server)} "
            "where the server has another optimizer than SGD"
        )
    rounds = [cell.round_error for cell in result.cells if cell.round_error is not None]
    return f"{line}; after a whole round {words.error(max(rounds))}" if rounds else line


def failures(result: Parity) -> list[str]:
    """A line for every cell that does not pass."""
    return [f"{name(cell)}: {cell.failure}" for cell in result.cells if not cell.passed]


def name(cell: Cell) -> str:
    """A cell in words."""
    parts = [cell.algorithm]
    parts += [f"{cell.optimizer} ({cell.side})"] if cell.side != "-" else []
    parts += [cell.aggregator] if cell.aggregator != "default" else []
    return ", ".join([*parts, cell.model, cell.case])


def exclusions(result: Parity) -> list[tuple[str, str]]:
    """What is no cell and why; equal reasons stand together."""
    reasons: dict[str, list[str]] = {}
    for entry in result.excluded:
        about = [
            f"{entry[key]} ({entry['side']})" if key == "optimizer" and "side" in entry
            else entry[key]
            for key in ("algorithm", "optimizer", "aggregator", "model", "case")
            if entry.get(key) not in (None, "default", "softmax regression")
        ]  # fmt: skip
        reasons.setdefault(entry["why"], []).append(", ".join(about))
    return [("; ".join(which), why) for why, which in reasons.items()]


def show(console: Console, result: Parity) -> None:
    """The matrix in the terminal."""
    for table in tables(result):
        shown = RichTable(title=table.title, title_justify="left", title_style="bold")
        for column in table.columns:
            shown.add_column(column, justify="left" if column == table.columns[0] else "center")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    for line in failures(result):
        console.print(f"✗ {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{summary(result)}.", markup=False, highlight=False, soft_wrap=True)


def page(result: Parity) -> str:
    """The matrix as one HTML page that opens anywhere."""
    all_pass = all(cell.passed for cell in result.cells)
    verdict = "match" if all_pass else "differs"
    sections = ["<h1>fedbridge parity</h1>", verdict_box(verdict, f"{summary(result)}.")]
    if lines := failures(result):
        sections.append(bullets("What does not agree", lines))
    for table in tables(result):
        rows = [
            f'<tr><td class="left">{escape(first)}</td>'
            + "".join(f"<td>{sign(mark)}</td>" for mark in marks)
            + "</tr>"
            for first, *marks in table.rows
        ]
        shown = html_table([escape(column) for column in table.columns], rows)
        sections.append(f"<h2>{escape(table.title)}</h2>\n{shown}")
    sections.append(
        bullets("Not among the cells", [f"{which}: {why}" for which, why in exclusions(result)])
    )
    rows = [_html_row(cell) for cell in result.cells]
    titles = ["cell", "probe error", "round error", "noise floor", ""]
    sections.append(f"<h2>Cell by cell</h2>\n{html_table(titles, rows)}")
    return document(f"{verdict}: fedbridge parity", sections)


def markdown(result: Parity) -> str:
    """The matrix for the documentation."""
    lines = [f"{summary(result)}.", ""]
    for table in tables(result):
        lines += [f"## {table.title}", ""]
        lines += [f"| {' | '.join(table.columns)} |", "|---" * len(table.columns) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in table.rows] + [""]
    lines += ["## Not among the cells", "", "| what | why |", "|---|---|"]
    lines += [f"| {which} | {why} |" for which, why in exclusions(result)]
    return "\n".join(lines) + "\n"


def _grid(title: str, cells: Iterable[Cell], row_key: str, column_key: str) -> Table:
    entries: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        place = _named(cell, row_key), _named(cell, column_key)
        entries.setdefault(place, []).append(cell)
    columns = list(dict.fromkeys(column for _, column in entries))
    rows = [
        (row, *(_mark(entries.get((row, column), [])) for column in columns))
        for row in dict.fromkeys(row for row, _ in entries)
    ]
    return Table(title, (row_key, *columns), tuple(rows))


def _named(cell: Cell, key: str) -> str:
    value = getattr(cell, key)
    # An aggregator says already whether it weighs clients.
    weighing = key == "algorithm" and cell.about == "aggregators"
    return value.removeprefix("weighted ").removeprefix("unweighted ") if weighing else value


def _mark(cells: Sequence[Cell]) -> str:
    """What stands in an entry; several cells share it in the table of pairs."""
    passed = sum(cell.passed for cell in cells)
    if passed < len(cells):
        return f"✗ {passed} of {len(cells)}"
    return "–" if not cells else "✓" if len(cells) == 1 else f"✓ {len(cells)}"


def _html_row(cell: Cell) -> str:
    errors = (cell.probe_error, cell.round_error, cell.noise_floor)
    shown = "".join(f'<td class="n">{"" if e is None else words.error(e)}</td>' for e in errors)
    p = "" if cell.p_value is None else f" (p = {cell.p_value:.2g})"
    mark = sign("✓" if cell.passed else "✗")
    opening = "<tr>" if cell.passed else '<tr class="failed">'
    return f'{opening}<td class="left">{escape(name(cell) + p)}</td>{shown}<td>{mark}</td></tr>'
