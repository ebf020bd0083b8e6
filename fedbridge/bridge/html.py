"""What the pages of fedbridge share: one HTML file each, with all it needs inside."""

from collections.abc import Sequence
from html import escape

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


def document(title: str, sections: Sequence[str]) -> str:
    """A whole page of these sections; empty ones are left out.

    >>> document("a < b", ["<p>b</p>", ""]).splitlines()[-5:]
    ['<main>', '<p>b</p>', '</main>', '</body>', '</html>']
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def verdict_box(verdict: str, reason: str, more: str = "") -> str:
    """The verdict in its colour, with its reason; `more` is HTML."""
    variable = f"var(--{verdict.replace(' ', '')})"
    return (
        f'<div class="verdict" style="--verdict: {variable}"><b>{escape(verdict)}</b>'
        f"<p>{escape(reason)}</p>{more}</div>"
    )


def bullets(title: str, items: Sequence[str]) -> str:
    """A list of plain texts under a title; nothing where there are none."""
    if not items:
        return ""
    return f"<h2>{title}</h2>\n<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def sign(mark: str) -> str:
    """A mark in the colour of what it means."""
    return f'<span class="{ {"✓": "ok", "✗": "no"}.get(mark[:1], "soft") }">{mark}</span>'


def table(titles: Sequence[str], rows: Sequence[str]) -> str:
    """A table of rows that are HTML already, `<tr>` and all."""
    left = {"tensor", "metric", "cell", "algorithm", "aggregator", "model"}
    head = "".join(
        f'<th class="left">{title}</th>' if title in left else f"<th>{title}</th>"
        for title in titles
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
