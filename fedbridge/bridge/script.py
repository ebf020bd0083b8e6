"""A TFF script or notebook: its code in pieces, and how Python itself would run it.

A notebook is its code cells in order, without shell magics; every cell is a piece of its own, so
that an error can name cell and line.
"""

import json
import linecache
import os
import re
import sys
import traceback
import types
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fedbridge.jax_core import ScriptError

_FOREIGN_CELLS = re.compile(
    r"%%(bash|sh|script|html|javascript|js|latex|markdown|svg|writefile|perl|ruby|file)\b"
)


_MAGIC = re.compile(r"%%?[A-Za-z_]|!(?!=)|\?|[\w.]+\?{1,2}$")


class Piece(NamedTuple):
    """Code that is run in one go: a script, or one cell of a notebook."""

    source: str
    name: str
    """What a traceback shows: the script's path, or "notebook.ipynb, cell 3"."""


class Place(NamedTuple):
    """Where in the script an error came up, in words ("line 12", "cell 3, line 2")."""

    text: str
    code: str


def pieces(path: str | os.PathLike[str]) -> list[Piece]:
    """The code of a script or notebook.

    Raises:
        ScriptError: no such file, not a text file, or not a notebook.
    """
    script = Path(path)
    if not script.is_file():
        raise ScriptError(f"{script}: there is no such script; give the path of a .py or .ipynb.")
    try:
        text = script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScriptError(f"{script} cannot be read as text ({error}).") from None
    if script.suffix != ".ipynb":
        return [Piece(text, str(script))]
    try:
        notebook = json.loads(text)
        cells = notebook.get("cells") or notebook["worksheets"][0]["cells"]
        sources = [
            cell.get("source", cell.get("input", ""))
            for cell in cells
            if cell["cell_type"] == "code"
        ]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise ScriptError(f"{script} is not a Jupyter notebook; save it again as .ipynb.") from None
    return [
        Piece(_without_magics("".join(source)), f"{script}, cell {number}")
        for number, source in enumerate(sources, start=1)
    ]


def run(path: str | os.PathLike[str], arguments: Sequence[str]) -> None:
    """Runs a script as `python path arguments` would: as `__main__`, beside its own modules."""
    script = Path(path)
    main = types.ModuleType("__main__")
    main.__file__ = str(script)
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    sys.argv = [str(path), *arguments]
    # `python -P` puts no folder of its own in front.
    sys.path[: 0 if sys.flags.safe_path else 1] = [str(script.resolve().parent)]
    for piece in pieces(script):
        # AutoGraph reads the source of every function it compiles through linecache.
        lines = piece.source.splitlines(keepends=True)
        linecache.cache[piece.name] = (len(piece.source), None, lines, piece.name)
        exec(compile(piece.source, piece.name, "exec", dont_inherit=True), main.__dict__)


def place(path: str | os.PathLike[str], error: BaseException) -> Place | None:
    """The innermost line of the script that `error` passed through."""
    if isinstance(error, SyntaxError) and error.filename and error.filename.startswith(str(path)):
        return _place(error.filename, error.lineno or 0, error.text or "")
    found = None
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.startswith(str(path)):
            found = _place(frame.filename, frame.lineno or 0, frame.line or "")
    return found


def _place(name: str, line: int, code: str) -> Place:
    cell = name.rpartition(", ")[2] + ", " if ".ipynb, cell " in name else ""
    return Place(f"{cell}line {line}", code.strip())


def _without_magics(source: str) -> str:
    """A cell with its magics and shell lines blanked; line numbers stay.

    >>> _without_magics("%%time\\n!pip install tff\\nx = 1\\n")
    '\\n\\nx = 1\\n'
    """
    if _FOREIGN_CELLS.match(source.lstrip()):
        return ""
    kept = []
    for line in source.splitlines(keepends=True):
        bare = line.lstrip()
        ending = "\n" if line.endswith("\n") else ""
        if _MAGIC.match(bare.rstrip()):
            # `pass` keeps an indented block ("if x:\n    !pip install") whole.
            indent = line[: len(line) - len(bare)]
            kept.append((indent + "pass" if indent else "") + ending)
        else:
            kept.append(line)
    return "".join(kept)
