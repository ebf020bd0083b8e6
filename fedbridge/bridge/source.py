"""The text of a script, changed node by node; what is not changed keeps every character."""

import ast
from collections.abc import Callable, Iterator
from typing import Any

Change = Callable[[ast.AST], str | None]
"""The new text of a node, or None: it stays as it is, but for what is inside it."""


class Source:
    """The text behind the nodes of one tree.

    Example:
        >>> source = Source("x = old(1)  # kept")
        >>> source.text(source.tree, lambda node: "new" if node_is(node, "old") else None)
        'x = new(1)  # kept'
    """

    def __init__(self, text: str):
        self.tree = ast.parse(text)
        self._bytes = text.encode()
        lines = self._bytes.splitlines(keepends=True)
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line))
        self.parents = {
            id(child): node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)
        }

    def text(self, node: ast.AST, change: Change) -> str:
        """The text of a node with all changes inside it."""
        start, end = self._span(node)
        return self._between(start, end, node, change)

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes around a node, from the inside out."""
        while (node := self.parents.get(id(node))) is not None:  # type: ignore[assignment]
            yield node

    def _between(self, start: int, end: int, node: ast.AST, change: Change) -> str:
        pieces, at = [], start
        for child, new in _changes(node, change):
            first, last = self._span(child)
            if new == "" and isinstance(child, ast.stmt):  # a line of its own goes as a whole
                first, last = self._line(first, last)
            if first < at:
                continue
            pieces += [self._bytes[at:first].decode(), new]
            at = last
        return "".join([*pieces, self._bytes[at:end].decode()])

    def _span(self, node: ast.AST) -> tuple[int, int]:
        if isinstance(node, ast.Module):
            return 0, len(self._bytes)
        first: Any = next(iter(getattr(node, "decorator_list", ())), node)
        start = self._starts[first.lineno - 1] + first.col_offset
        start -= 1 if first is not node else 0  # the @
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def _line(self, first: int, last: int) -> tuple[int, int]:
        begin = self._bytes.rfind(b"\n", 0, first) + 1
        after = self._bytes.find(b"\n", last)
        after = len(self._bytes) if after < 0 else after + 1
        alone = not self._bytes[begin:first].strip()
        comment = self._bytes[last:after].strip()
        return (begin, after) if alone and (not comment or comment[:1] == b"#") else (first, last)


def node_is(node: ast.AST, name: str) -> bool:
    """Whether a node is this very name."""
    return isinstance(node, ast.Name) and node.id == name


def _changes(node: ast.AST, change: Change) -> Iterator[tuple[ast.AST, str]]:
    """The outermost changed nodes inside a node, in the text's order."""
    found = []
    for child in ast.iter_child_nodes(node):
        new = change(child) if hasattr(child, "lineno") else None
        found += _changes(child, change) if new is None else [(child, new)]
    yield from sorted(found, key=lambda pair: (pair[0].lineno, pair[0].col_offset))  # type: ignore[attr-defined]
