"""The plots of the HTML page: matplotlib's SVG, made to live inside a page.

Colours come out as CSS variables of the page (so that light and dark both work), text in the
page's font, identifiers with a prefix of their own, and nothing refers to anything outside.
"""

import io
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from fedbridge.bridge import words
from fedbridge.bridge.result import Result

# Stand-ins while matplotlib draws; each becomes a CSS variable of the page.
_COLORS = {
    "#010203": "var(--ink)",
    "#010204": "var(--line)",
    "#010205": "var(--tff)",
    "#010206": "var(--jax)",
    "#010207": "var(--probe)",
    "#010208": "var(--floor)",
}
_INK, _LINE, _TFF, _JAX, _PROBE, _FLOOR = _COLORS
# Where an error of exactly zero is drawn on a logarithmic axis.
_ZERO = 1e-10


class Plot(NamedTuple):
    """One figure of the page."""

    title: str
    caption: str
    svg: str


def plots(result: Result) -> list[Plot]:
    """The figures of a result: losses, errors, times, drift; those that have something to show.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    if not result.rounds:
        return []
    numbers = [one.round for one in result.rounds]
    if len(set(numbers)) < len(numbers):  # several processes in one script
        numbers = list(range(1, len(numbers) + 1))
    drawn = [
        _losses(result, numbers),
        _errors(result, numbers),
        _times(result, numbers),
        _drift(result, numbers),
    ]
    return [plot for plot in drawn if plot is not None]


def _losses(result: Result, numbers: Sequence[int]) -> Plot | None:
    known = lambda loss: math.nan if loss is None else loss
    reference = [known(one.loss_reference) for one in result.rounds]
    ours = [known(one.loss) for one in result.rounds]
    if not _anything([*reference, *ours]):
        return None
    figure, axes = _figure()
    # TFF broad and pale underneath, JAX thin on top: equal curves stay visible as two.
    axes.plot(numbers, reference, color=_TFF, lw=6, alpha=0.45, label="TFF", solid_capstyle="round")
    axes.plot(numbers, ours, color=_JAX, lw=1.6, marker="o", ms=3.5, label="JAX")
    axes.set_ylabel("training loss")
    return Plot(
        "Loss",
        "Every round of the JAX side starts from TFF's own state, so the curves should coincide.",
        _finish(figure, axes, "loss"),
    )


def _errors(result: Result, numbers: Sequence[int]) -> Plot | None:
    figure, axes = _figure()
    series = {
        "noise floor": ([one.noise_floor for one in result.rounds], _FLOOR, "s", "--"),
        "probe error": ([one.probe_error for one in result.rounds], _PROBE, "^", "-"),
        "round error": ([one.round_error for one in result.rounds], _JAX, "o", "-"),
    }
    if not _anything([value for values, *_ in series.values() for value in values]):
        return None
    for name, (values, color, marker, style) in series.items():
        shown = [max(value, _ZERO) if math.isfinite(value) else math.nan for value in values]
        axes.plot(numbers, shown, color=color, marker=marker, ms=4, lw=1.6, ls=style, label=name)
    axes.axhline(1e-6, color=_INK, lw=0.8, ls=":", label="1e-6")
    _logarithmic(axes)
    axes.set_ylabel("error / norm of the update")
    return Plot(
        "Errors and noise floors",
        "The noise floor is how much fedbridge's own round moves when its starting weights move "
        "by one unit in the last place.",
        _finish(figure, axes, "errors"),
    )


def _times(result: Result, numbers: Sequence[int]) -> Plot | None:
    reference = [one.seconds_reference for one in result.rounds]
    ours = [one.seconds for one in result.rounds]
    if not any(map(words.usable, [*reference, *ours])):
        return None
    figure, axes = _figure()
    for shift, values, color, name in ((-0.2, reference, _TFF, "TFF"), (0.2, ours, _JAX, "JAX")):
        places = [number + shift for number in numbers]
        axes.bar(places, [value or 0.0 for value in values], 0.38, color=color, label=name)
    axes.set_ylabel("seconds per round")
    return Plot(
        "Time",
        "TFF timed without the recorder. The first round of either side holds what is done once.",
        _finish(figure, axes, "time"),
    )


def _drift(result: Result, numbers: Sequence[int]) -> Plot | None:
    values = [one.drift for one in result.rounds]
    if not _anything(values):
        return None
    figure, axes = _figure()
    shown = [max(value, _ZERO) if math.isfinite(value) else math.nan for value in values]
    axes.plot(numbers, shown, color=_JAX, lw=1.6, marker="o", ms=3.5, label="free run")
    _logarithmic(axes)
    axes.set_ylabel("distance from TFF")
    return Plot(
        "Drift of the free run",
        "A run that starts once from TFF's first state and is never put back on TFF's track. "
        "Reported, not judged.",
        _finish(figure, axes, "drift"),
    )


def _anything(values: Sequence[float]) -> bool:
    return any(math.isfinite(value) for value in values)


def _figure() -> tuple[Any, Any]:
    """An empty figure that belongs to nobody: pyplot and its global state stay out of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.1))
    # Margins that hold every label here; a layout engine would draw everything twice.
    axes = figure.add_axes((0.13, 0.14, 0.86, 0.73))
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_LINE)
    axes.tick_params(colors=_INK, labelsize=10)
    axes.grid(axis="y", color=_LINE, lw=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _logarithmic(axes: Any) -> None:
    """A logarithmic axis over whole decades: labels between them would not fit the margin."""
    from matplotlib.ticker import NullFormatter

    drawn = [value for line in axes.get_lines() for value in line.get_ydata()]
    finite = [math.log10(value) for value in drawn if math.isfinite(value)]
    low = math.floor(min(finite))
    axes.set_yscale("log")
    axes.set_ylim(0.8 * 10.0**low, 1.25 * 10.0 ** max(math.ceil(max(finite)), low + 1))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _finish(figure: Any, axes: Any, name: str) -> str:
    """Draws the figure and makes its SVG a part of the page."""
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("round", color=_INK)
    axes.yaxis.label.set_color(_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="upper left", ncols=4, frameon=False, labelcolor=_INK, fontsize=10)
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return _inline(drawn.getvalue(), name)


def _inline(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\s(width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    # One of these two, by matplotlib's version: the page's font serves.
    svg = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", svg)
    svg = re.sub(r"\s*font-family: [^;\"]+;", "", svg)
    for stand_in, variable in _COLORS.items():
        svg = svg.replace(stand_in, variable)
    return svg.strip()
