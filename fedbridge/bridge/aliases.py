"""Which dotted name stands behind an expression of a script, followed through its imports."""

import ast
from collections.abc import Iterator

TFF = "tensorflow_federated"


class Aliases:
    """The names that a script gives to packages and to what is in them.

    Example:
        >>> tree = ast.parse("import tensorflow_federated as tff; learning = tff.learning; "
        ...                  "learning.models.from_keras_model")
        >>> names = Aliases()
        >>> names.read(tree)
        >>> names.symbol(tree.body[-1].value)
        'tff.learning.models.from_keras_model'
    """

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def read(self, tree: ast.AST) -> None:
        """Takes over what a piece of the script imports and assigns."""
        # Imports first: a function's body may use what is imported below it.
        for node in ast.walk(tree):
            for full, name in imported(node):
                top = full.partition(".")[0]
                self._found[name or top] = full if name else top
        for node in ast.walk(tree):
            self._assignment(node)

    def full(self, node: ast.AST) -> str | None:
        """The dotted name behind an expression, as it is imported."""
        if isinstance(node, ast.Name):
            return self._found.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self.full(node.value)
            return f"{base}.{node.attr}" if base else None
        return None

    def symbol(self, node: ast.AST) -> str | None:
        """The same, with `tff.` for TFF's package."""
        full = self.full(node)
        return short(full) if full else None

    def _assignment(self, node: ast.AST) -> None:
        if (
            isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Attribute)
            and (symbol := self.full(node.value))
            and (symbol.startswith(TFF) or "keras" in symbol)
        ):
            self._found.setdefault(node.targets[0].id, symbol)


def imported(node: ast.AST) -> Iterator[tuple[str, str | None]]:
    """What a statement imports, each with its name here; None where `import a.b` gives `a`."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield _packed(alias.name), alias.asname
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for alias in node.names:
            yield _packed(f"{node.module}.{alias.name}"), alias.asname or alias.name


def _packed(full: str) -> str:
    """`tensorflow_federated.python`, whole, is TFF's package as scripts of 2019 import it."""
    return TFF if full == f"{TFF}.python" else full


def short(full: str) -> str:
    """`tensorflow_federated.learning.Model` as `tff.learning.Model`."""
    return "tff" + full[len(TFF) :] if full == TFF or full.startswith(TFF + ".") else full
