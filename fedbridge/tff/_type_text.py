"""How types are printed: as lines, of which there is one where nothing is broken."""

from collections.abc import Iterable


def struct_lines(elements: Iterable[tuple[str | None, list[str]]], formatted: bool) -> list[str]:
    """`<a=int32,b=float32[10]>`, or an element a line.

    Args:
        elements: The name of each, or None, and its own lines.
        formatted: Whether each has a line of its own.

    Example:
        >>> struct_lines([("a", ["int32"]), (None, ["bool"])], formatted=True)
        ['<', '  a=int32,', '  bool', '>']
    """
    pieces: list[list[str]] = []
    for name, lines in elements:
        if pieces:
            pieces.append([",", ""] if formatted else [","])
        label = [] if name is None else [[f"{name}="]]
        pieces.append(joined(*label, lines))
    if not pieces:
        return ["<>"]
    inside = joined(*pieces)
    if not formatted:
        return joined(["<"], inside, [">"])
    return joined(["<", ""], [f"  {line}" for line in inside], ["", ">"])


def joined(*pieces: list[str]) -> list[str]:
    """Lines where each piece goes on in the last line of the one before."""
    lines = [""]
    for first, *rest in pieces:
        lines[-1] += first
        lines += rest
    return lines
