"""The page of a result: one HTML file that opens anywhere, without a network."""

import importlib.util
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fedbridge.bridge import words
from fedbridge.bridge.files import check_target, replace_text
from fedbridge.bridge.result import Result, RoundResult

_CSS = """
:root { color-scheme: light dark;
  --ground: #fbfbfa; --card: #ffffff; --ink: #1d2126; --soft: #667079; --line: #dfe3e6;
  --tff: #2f8ac6; --jax: #a0359b; --probe: #c77a12; --floor: #8b949c;
  --match: #1a7f45; --differs: #c22f2f; --notcomparable: #a97400; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #14171a; --card: #1c2024; --ink: #e6e9ec; --soft: #98a2ab; --line: #333a41;
  --tff: #5fb4ea; --jax: #dc7fd6; --probe: #eaa84d; --floor: #7c868f;
  --match: #4cc37f; --differs: #f07171; --notcomparable: #e0b04a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.25rem 1rem 4rem; }
h1 { font-size: 1.05rem; font-weight: 600; margin: 0 0 .9rem; color: var(--soft);
  overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .7rem; }
code, td.n { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { font-size: .92em; overflow-wrap: anywhere; }
.verdict { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  border-left: 7px solid var(--verdict); padding: 1rem 1.2rem; }
.verdict b { display: block; font-size: 1.7rem; line-height: 1.25; color: var(--verdict); }
.verdict p { margin: .35rem 0 0; overflow-wrap: anywhere; }
.cards { display: grid; gap: .75rem; margin: .75rem 0 0;
  grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: .7rem 1rem; }
.card b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; }
.card span, figcaption, .soft { color: var(--soft); font-size: .875rem; }
.plots { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: .8rem 1rem; min-width: 0; }
figure h3 { margin: 0 0 .3rem; font-size: 1rem; }
figure svg { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .38rem .8rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 600; }
td.n { font-variant-numeric: tabular-nums; }
.left, .text td, .text th { text-align: left; }
.text td { white-space: normal; overflow-wrap: anywhere; }
.text td:first-child { white-space: nowrap; color: var(--soft); width: 1%; }
tr.failed td { color: var(--differs); font-weight: 600; }
.ok { color: var(--match); font-weight: 700; } .no { color: var(--differs); font-weight: 700; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  margin-bottom: .5rem; }
summary { cursor: pointer; padding: .5rem 1rem; overflow-wrap: anywhere; }
details .wide { border: 0; border-top: 1px solid var(--line); border-radius: 0 0 12px 12px; }
details p { margin: 0; padding: 0 1rem .6rem; }
ul { margin: 0; padding-left: 1.2rem; } li { margin: .2rem 0; overflow-wrap: anywhere; }
"""


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
        _list("Adapted while recording", result.adapted),
        _list("Notes", result.notes),
        _how_to_read() if result.rounds else "",
        _pairs("Times apart from the rounds, in seconds", _seconds(result)),
        _pairs("Versions", result.versions.items()),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(result.verdict)}: {escape(result.script)}</title>\n"
        f"<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _header(result: Result) -> str:
    variable = f"var(--{result.verdict.replace(' ', '')})"
    start = words.first_failure(result)
    more = f"<p><strong>{escape(start)}</strong></p>" if start else ""
    return (
        f"<h1>fedbridge check <code>{escape(result.script)}</code></h1>\n"
        f'<div class="verdict" style="--verdict: {variable}"><b>{escape(result.verdict)}</b>'
        f"<p>{escape(result.reason)}</p>{more}</div>"
    )


def _cards(result: Result) -> str:
    cards = [
        (words.times(value), text)
        for value, text in (
            (result.speedup, "TFF's speed in a round (median, first round apart)"),
            (result.speedup_with_compile, "TFF's speed in the whole run, compiling included"),
        )
        if value is not None and math.isfinite(value)
    ]
    if result.verdict != "not comparable":
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
    return "<h2>Rounds</h2>\n" + _table(titles.split("|"), rows)


def _tensors(result: Result) -> str:
    """One fold per round: its tensors, the worst first, and both sides' metrics."""
    first = next((one for one in result.rounds if words.mark(one) == "✗"), None)
    folds = [_fold(one, one is first) for one in result.rounds]
    return "<h2>Tensor by tensor</h2>\n" + "\n".join(folds) if folds else ""


def _fold(one: RoundResult, unfolded: bool) -> str:
    said = f"Round {one.round}: {_sign(words.mark(one))} "
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
    tensors = _table(["tensor", "probe error", "round error", "noise floor"], rows) if rows else ""
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
    table = _table(["evaluation", "TFF loss", "JAX loss", ""], rows)
    return f"<h2>Evaluations</h2>\n{table}\n<p></p>\n" + "\n".join(folds)


def _metrics(reference: Any, ours: Any) -> str:
    """Both sides' metrics, leaf by leaf."""
    left, right = dict(_leaves(reference)), dict(_leaves(ours))
    rows = [
        f'<tr><td class="left"><code>{escape(path)}</code></td>'
        f'<td class="n">{escape(left.get(path, ""))}</td>'
        f'<td class="n">{escape(right.get(path, ""))}</td></tr>'
        for path in {**left, **right}
    ]
    return _table(["metric", "TFF", "JAX"], rows) if rows else ""


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


def _list(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    return f"<h2>{title}</h2>\n<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def _pairs(title: str, pairs: Iterable[tuple[str, Any]]) -> str:
    rows = [f"<tr><td>{escape(a)}</td><td>{escape(str(b))}</td></tr>" for a, b in pairs]
    if not rows:
        return ""
    return f'<h2>{title}</h2>\n<div class="wide"><table class="text">{"".join(rows)}</table></div>'


def _row(cells: Sequence[str], mark: str) -> str:
    numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
    opening = '<tr class="failed">' if mark == "✗" else "<tr>"
    return f"{opening}{numbers}<td>{_sign(mark)}</td></tr>"


def _sign(mark: str) -> str:
    return f'<span class="{ {"✓": "ok", "✗": "no"}.get(mark, "soft") }">{mark}</span>'


def _table(titles: Sequence[str], rows: Sequence[str]) -> str:
    left = {"tensor", "metric"}
    head = "".join(
        f'<th class="left">{title}</th>' if title in left else f"<th>{title}</th>"
        for title in titles
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
