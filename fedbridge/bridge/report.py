"""The page of a result: one HTML file that opens anywhere, without a network."""

import importlib.util
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fedbridge.bridge import words
from fedbridge.bridge.files import check_target, replace_text
from fedbridge.bridge.html import bullets, document, sign, table, verdict_box
from fedbridge.bridge.result import Result, RoundResult


def save_report(result: Result, folder: str | Path) -> Path:
    """Writes the page of a result.

    Args:
        result: What `replay` or `check` returned.
        folder: Where `index.html` goes; made if it is not there.

    Returns:
        The page's path.

    Raises:
        FedbridgeError: If it cannot be written there.
    """
    return replace_text(check_target(folder, folder=True) / "index.html", page(result))


def page(result: Result) -> str:
    """The page as text: everything it needs is inside, all text of others is escaped."""
    sections = [
        _header(result),
        _cards(result),
        _plots(result),
        _rounds(result),
        _tensors(result),
        _evaluations(result),
        _computations(result),
        bullets("Adapted while recording", result.adapted),
        bullets("Notes", result.notes),
        _how_to_read() if result.rounds else "",
        _pairs("Times apart from the rounds, in seconds", _seconds(result)),
        _pairs("Versions", result.versions.items()),
    ]
    return document(f"{result.verdict}: {result.script}", sections)


def _header(result: Result) -> str:
    start = words.first_failure(result)
    more = f"<p><strong>{escape(start)}</strong></p>" if start else ""
    title = f"<h1>fedbridge check <code>{escape(result.script)}</code></h1>\n"
    return title + verdict_box(result.verdict, result.reason, more)


def _cards(result: Result) -> str:
    cards = [
        (words.times(value), text)
        for value, text in (
            (result.speedup, "TFF's speed in a round (median, first round apart)"),
            (result.speedup_with_compile, "TFF's speed in the whole run, compiling included"),
        )
        if value is not None and math.isfinite(value)
    ]
    if result.verdict != "not comparable" and result.computations:
        agree = sum(one.passed for one in result.computations)
        cards.append((f"{agree} of {len(result.computations)}", "calls of computations agree"))
    if result.verdict != "not comparable" and result.rounds:
        agree = sum(one.passed for one in result.rounds)
        cards += [
            (f"{agree} of {len(result.rounds)}", "rounds agree"),
            (words.error(words.worst(result, "probe_error")), "largest probe error"),
            (words.error(words.worst(result, "round_error")), "largest error of a whole round"),
        ]
    shown = [f'<div class="card"><b>{value}</b><span>{text}</span></div>' for value, text in cards]
    return f'<div class="cards">{"".join(shown)}</div>' if shown else ""


def _plots(result: Result) -> str:
    if not result.rounds:
        return ""
    if importlib.util.find_spec("matplotlib") is None:
        return (
            '<h2>Plots</h2>\n<p class="soft">The plots need matplotlib: '
            "<code>pip install 'fedbridge[plots]'</code>, then run the command again.</p>"
        )
    from fedbridge.bridge.report_plots import plots

    figures = [
        f"<figure><h3>{plot.title}</h3>{plot.svg}<figcaption>{plot.caption}</figcaption></figure>"
        for plot in plots(result)
    ]
    return f'<h2>Plots</h2>\n<div class="plots">{"".join(figures)}</div>' if figures else ""


def _rounds(result: Result) -> str:
    if not result.rounds:
        return ""
    titles = "round|TFF loss|JAX loss|probe error|round error|noise floor|drift|TFF s|JAX s|"
    rows = [
        _row(
            [
                str(one.round),
                words.loss(one.loss_reference),
                words.loss(one.loss),
                words.error(one.probe_error),
                words.error(one.round_error),
                words.error(one.noise_floor),
                words.error(one.drift),
                words.seconds(one.seconds_reference),
                words.seconds(one.seconds),
            ],
            words.mark(one),
        )
        for one in result.rounds
    ]
    return "<h2>Rounds</h2>\n" + table(titles.split("|"), rows)


def _tensors(result: Result) -> str:
    """One fold per round: its tensors, the worst first, and both sides' metrics."""
    first = next((one for one in result.rounds if words.mark(one) == "✗"), None)
    folds = [_fold(one, one is first) for one in result.rounds]
    return "<h2>Tensor by tensor</h2>\n" + "\n".join(folds) if folds else ""


def _fold(one: RoundResult, unfolded: bool) -> str:
    said = f"Round {one.round}: {sign(words.mark(one))} "
    if one.failure is not None:
        said += escape(one.failure)
    elif one.tensors:
        said += f"worst tensor <code>{escape(one.tensors[0].name)}</code>"
    rows = [
        f'<tr><td class="left"><code>{escape(tensor.name)}</code></td>'
        + "".join(
            f'<td class="n">{words.error(value)}</td>'
            for value in (tensor.probe_error, tensor.round_error, tensor.noise_floor)
        )
        + "</tr>"
        for tensor in one.tensors
    ]
    beside = f"<p>Rest of the state: {words.error(one.state_error)}"
    if one.server_step_error is not None:
        beside += f"; the server's step alone: {words.error(one.server_step_error)}"
    tensors = table(["tensor", "probe error", "round error", "noise floor"], rows) if rows else ""
    metrics = _metrics(one.metrics_reference, one.metrics)
    return (
        f"<details{' open' if unfolded else ''}><summary>{said}</summary>"
        f"{tensors}{beside}.</p>{metrics}</details>"
    )


def _evaluations(result: Result) -> str:
    if not result.evaluations:
        return ""
    rows = [
        _row([str(one.call), words.loss(one.loss_reference), words.loss(one.loss)], words.mark(one))
        for one in result.evaluations
    ]
    folds = [
        f"<details{' open' if words.mark(one) == '✗' else ''}><summary>Evaluation {one.call}: "
        f"{escape(one.failure or 'metrics')}</summary>"
        f"{_metrics(one.metrics_reference, one.metrics)}</details>"
        for one in result.evaluations
    ]
    losses = table(["evaluation", "TFF loss", "JAX loss", ""], rows)
    return f"<h2>Evaluations</h2>\n{losses}\n<p></p>\n" + "\n".join(folds)


def _computations(result: Result) -> str:
    rows = [
        f'<tr><td class="n">{one.call}</td><td class="left"><code>{escape(one.name)}</code></td>'
        f'<td class="n">{words.error(one.error)}</td><td>{sign(words.mark(one))}</td></tr>'
        for one in result.computations
    ]
    titles = ["call", "computation", "error", ""]
    return "<h2>The script's own computations</h2>\n" + table(titles, rows) if rows else ""


def _metrics(reference: Any, ours: Any) -> str:
    """Both sides' metrics, leaf by leaf."""
    left, right = dict(_leaves(reference)), dict(_leaves(ours))
    rows = [
        f'<tr><td class="left"><code>{escape(path)}</code></td>'
        f'<td class="n">{escape(left.get(path, ""))}</td>'
        f'<td class="n">{escape(right.get(path, ""))}</td></tr>'
        for path in {**left, **right}
    ]
    return table(["metric", "TFF", "JAX"], rows) if rows else ""


def _leaves(tree: Any, path: str = "") -> Iterable[tuple[str, str]]:
    if hasattr(tree, "_asdict"):
        tree = tree._asdict()
    if hasattr(tree, "tolist"):
        tree = tree.tolist()
    if isinstance(tree, list | tuple):
        tree = dict(enumerate(tree))
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{path}/{key}" if path else str(key))
    else:
        yield path, f"{tree:.9g}" if isinstance(tree, float) else str(tree)


def _how_to_read() -> str:
    return (
        "<h2>How to read the numbers</h2>\n<ul>"
        "<li>Every round starts from TFF's own recorded state, and every error is the largest "
        "difference of a weight over the norm of the round's update.</li>"
        "<li><b>Probe error</b>: after each client's first batch, and after its first two. This is "
        "where a wrong formula shows; at most 1e-6 and two units in the last place, 5e-6 where a "
        "client optimizer is adaptive.</li>"
        "<li><b>Round error</b>: after all batches. Rounding grows over many local steps, so the "
        "measure is the <b>noise floor</b>: how much fedbridge's own result moves when its "
        "starting weights move by one unit in the last place. At most ten floors, or 1e-6 where "
        "the floor is below 1e-7.</li>"
        "<li><b>Rest of the state</b>: optimizer slots, norm estimates, counts after the round; "
        "the largest difference of an entry over the norm of its tensor, with the same bound.</li>"
        "<li><b>Server step</b>: an adaptive server optimizer alone, on an update that TFF's own "
        "optimizer was given too; at most 1e-6 and two units in the last place.</li>"
        "<li><b>Drift</b>: a free run that starts from TFF's first state and is never put back "
        "on its track; reported, not judged.</li></ul>"
    )


def _seconds(result: Result) -> list[tuple[str, str]]:
    return [(name, words.seconds(value)) for name, value in result.seconds.items() if value]


def _pairs(title: str, pairs: Iterable[tuple[str, Any]]) -> str:
    rows = [f"<tr><td>{escape(a)}</td><td>{escape(str(b))}</td></tr>" for a, b in pairs]
    if not rows:
        return ""
    return f'<h2>{title}</h2>\n<div class="wide"><table class="text">{"".join(rows)}</table></div>'


def _row(cells: Sequence[str], mark: str) -> str:
    numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
    opening = '<tr class="failed">' if mark == "✗" else "<tr>"
    return f"{opening}{numbers}<td>{sign(mark)}</td></tr>"
