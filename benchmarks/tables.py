"""The figures as tables for README.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.script import SCRIPTS

_COLUMNS = (
    ("round", "round_seconds", "{:.4g} s"),
    ("examples/s", "examples_per_second", "{:,.0f}"),
    ("of a matrix product", "fraction_of_matrix_product", "{:.1%}"),
    ("first round", "first_round_seconds", "{:.3g} s"),
    ("compile", "compile_seconds", "{:.3g} s"),
    ("evaluation", "evaluation_seconds", "{:.3g} s"),
    ("over all", "total_seconds", "{:.4g} s"),
    ("peak memory", "peak_memory_mb", "{:,.0f} MB"),
    ("of rounds", "rounds_memory_mb", "{:,.0f} MB"),
    ("loss", "loss", "{:.4f}"),
)
_OF_SCRIPTS = (
    ("after its imports", "seconds", "{:.3g} s"),
    ("whole process", "process_seconds", "{:.3g} s"),
    ("first time, after its imports", "cold_seconds", "{:.3g} s"),
    ("first time, whole process", "cold_process_seconds", "{:.3g} s"),
    ("faster as a whole process", "process_ratio", "{:.2f} x"),
    ("loss", "loss", "{:.4f}"),
)


def tables(result: Mapping[str, Any]) -> str:
    """A table of ratios, a table of all figures, and the machine: Markdown.

    Args:
        result: What `benchmarks.rounds` saves as JSON.
    """
    tasks, machine = result["tasks"], result["machine"]
    peers = list(dict.fromkeys(peer for found in tasks.values() for peer in found))
    rivals = [peer for peer in peers if peer != "fedbridge"]
    lines = []
    if rivals:
        lines += _rows(["fedbridge is faster by", *rivals])
        for task, found in tasks.items():
            lines += _rows([task, *(_ratio(found[peer]) for peer in rivals)], head=False)
        lines.append("")
    scripts = {task: found for task, found in tasks.items() if task in SCRIPTS}
    rounds = {task: found for task, found in tasks.items() if task not in SCRIPTS}
    lines += _figures(rounds, _COLUMNS) if rounds else []
    lines += ["", *_figures(scripts, _OF_SCRIPTS)] if scripts else []
    absent = {
        f["absent"]: peer for found in tasks.values() for peer, f in found.items() if "absent" in f
    }
    lines += ["", *(f"{peer} is absent: {reason}" for reason, peer in absent.items())]
    lines += [
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python "
        f"{machine['python']}{_product(machine)}"
        + "; ".join(_versions(p, v) for p, v in machine["versions"].items())
    ]
    return "\n".join(lines)


def _figures(
    tasks: Mapping[str, Mapping[str, Any]], columns: Sequence[tuple[str, str, str]]
) -> list[str]:
    lines = _rows(["task", "peer", *(title for title, _, _ in columns)])
    for task, found in tasks.items():
        for peer, figures in found.items():
            named = f"{peer} ({figures['setting']})" if "setting" in figures else peer
            cells = [
                pattern.format(figures[key]) if key in figures else ""
                for _, key, pattern in columns
            ]
            if "absent" in figures:
                cells[0] = "absent"
            lines += _rows([task, named, *cells], head=False)
    return lines


def _rows(cells: list[str], *, head: bool = True) -> list[str]:
    row = f"| {' | '.join(cells)} |"
    return [row, "|---" * len(cells) + "|"] if head else [row]


def _ratio(figures: Mapping[str, Any]) -> str:
    if "ratio" not in figures:
        return "absent" if "absent" in figures else ""
    return "{ratio:.2f} x ({ratio_min:.2f} to {ratio_max:.2f})".format(**figures)


def _product(machine: Mapping[str, Any]) -> str:
    """Nothing after a run of scripts alone, which measures none."""
    rate = machine["matrix_product_gflops"]
    return f"; a float32 matrix product: {rate:.0f} GFLOP/s. " if rate else ". "


def _versions(peer: str, versions: Mapping[str, str]) -> str:
    return f"{peer}: " + ", ".join(f"{name} {version}" for name, version in versions.items())
