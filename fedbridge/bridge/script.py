"""A TFF script or notebook: its code in pieces, and how Python itself would run it.

A notebook is its code cells in order, without shell magics; every cell is a piece of its own, so
that an error can name cell and line.
"""

import ast
import importlib.util
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


_PYTHON_2 = "it is Python 2: rewrite it in Python 3"
_MAGIC_CURE = (
    "it is a notebook's: write it in Python or leave it out; of an .ipynb, lines that begin as "
    "magics are passed over"
)
_NO_PYTHON = tuple(
    (re.compile(pattern), meant)
    for pattern, meant in (
        (r"^[%!?]|=\s*[%!]|[\w.]\?{1,2}$", _MAGIC_CURE),
        (r"^print\b(?!\s*\()", _PYTHON_2),
        (r"^exec\s+[^(=]|^except\s+[\w.()]+\s*,\s*\w+\s*:|^raise\s+\w+\s*,", _PYTHON_2),
        (r"<>|`|\b0[0-7]+\b|\bur?'|\d[lL]\b", _PYTHON_2),
    )
)


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
        # As Python reads it: a byte-order mark, a line that names the coding.
        text = importlib.util.decode_source(script.read_bytes())
    except (OSError, UnicodeDecodeError, SyntaxError) as error:
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


def parsed(piece: Piece) -> ast.Module:
    """The syntax of a piece.

    Raises:
        ScriptError: It is no Python; the text names the line, what stands there, and the cure.
    """
    try:
        compile(piece.source, piece.name, "exec", dont_inherit=True)  # finds more than the parser
        return ast.parse(piece.source, piece.name)
    except SyntaxError as error:
        lines = piece.source.splitlines()
        line = (
            lines[error.lineno - 1].strip() if error.lineno and error.lineno <= len(lines) else ""
        )
        meant = next((meant for pattern, meant in _NO_PYTHON if pattern.search(line)), "mend it")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise ScriptError(
            f"{piece.name}, line {error.lineno}: {line!r} is not Python {version} ({error.msg}); "
            f"{meant}."
        ) from None
    except ValueError as error:  # null bytes
        raise ScriptError(f"{piece.name} is not Python ({error}); write it anew.") from None


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
    found = pieces(script)
    for piece in found:
        parsed(piece)
    for piece in found:
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
