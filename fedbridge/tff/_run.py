"""Runs a script that imports `tensorflow_federated`, with this namespace under that name."""

import importlib.util
import os
import sys
import traceback
import types
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedbridge.bridge import script as scripts
from fedbridge.jax_core import FedbridgeError, ScriptError
from fedbridge.tff import install
from fedbridge.tff._errors import Note


def run(script: str | os.PathLike[str], arguments: Sequence[str] = ()) -> int:
    """Runs a script or notebook as Python would, TFF's name being this namespace.

    Args:
        script: Its path.
        arguments: Its command line.

    Returns:
        The exit code: 0, the script's own, or 1 after an exception of the script, which is printed
        as Python prints it.

    Raises:
        ScriptError: There is no such script; or it asks for something that does not run here. The
            text names the line.
    """
    install()
    if importlib.util.find_spec("tensorflow") is None:
        os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras would look for TensorFlow
    if int(np.__version__.partition(".")[0]) >= 2:
        np.set_printoptions(legacy="1.25")  # numbers print as under TFF's NumPy: 0.5
    previous = warnings.showwarning
    warnings.showwarning = lambda message, category, *rest, **others: (
        print(f"note: {message}", file=sys.stderr)
        if issubclass(category, Note)
        else previous(message, category, *rest, **others)
    )
    try:
        scripts.run(script, arguments)
    except FedbridgeError as error:
        where = scripts.place(script, error)
        if where is None:
            raise
        raise ScriptError(f"{script}, {where.text}: {error}") from error
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.split(".")[0] not in ("tensorflow_federated", "tensorflow"):
            return _show(error, script)
        where = scripts.place(script, error)
        cure = (
            "the script needs TensorFlow: install it beside fedbridge, `pip install tensorflow`"
            if missing.split(".")[0] == "tensorflow"
            else f"{missing} is no module of fedbridge.tff; `fedbridge lint` says which name to "
            "import"
        )
        raise ScriptError(f"{script}, {where.text if where else 'an import'}: {cure}.") from error
    except SystemExit as error:
        return _exit_code(error)
    except Exception as error:
        return _show(error, script)
    finally:
        warnings.showwarning = previous
    return 0


def _show(error: Exception, script: str | os.PathLike[str]) -> int:
    """Prints an exception of the script as Python does, and gives the exit code."""
    traceback.print_exception(error.with_traceback(_of_script(error, str(script))))
    return 1


def _of_script(error: Exception, script: str) -> types.TracebackType | None:
    """The traceback from the script's own first line on."""
    found = error.__traceback__
    while found is not None and not found.tb_frame.f_code.co_filename.startswith(script):
        found = found.tb_next
    return found or error.__traceback__


def _exit_code(error: SystemExit) -> int:
    """What Python makes of `sys.exit(...)`."""
    code: Any = error.code
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1
