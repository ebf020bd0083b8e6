"""Runs a script that imports `tensorflow_federated`, with this namespace under that name."""

import difflib
import importlib.util
import inspect
import os
import re
import sys
import traceback
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge.bridge import script as scripts
from fedbridge.jax_core import FedbridgeError, ScriptError
from fedbridge.tff import install
from fedbridge.tff._errors import Note, public_function


def run(
    script: str | os.PathLike[str],
    arguments: Sequence[str] = (),
    tff_version: str | None = None,
) -> int:
    """Runs a script or notebook as Python would, TFF's name being this namespace.

    Args:
        script: Its path.
        arguments: Its command line.
        tff_version: The TFF that it was written for, "0.17.0" for example: fixes the metrics that
            the builders of its time return, and how they print. None: what the builders' names say.

    Returns:
        The exit code: 0, the script's own, or 1 after an exception of the script, which is printed
        as Python prints it.

    Raises:
        ScriptError: There is no such script or no such TFF; or it asks for something that does not
            run here. The text names the line.
    """
    if tff_version is None:
        install()
    elif re.fullmatch(r"0\.\d{1,2}(\.\w+)*", tff_version):
        install(tff_version)
    else:
        raise ScriptError(
            f"there is no TFF {tff_version!r}; --tff-version takes a release, 0.17.0 for example."
        )
    sys.path.append(str(Path(__file__).with_name("_in_children")))
    if importlib.util.find_spec("tensorflow") is None:
        os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras would look for TensorFlow
    elif importlib.util.find_spec("tf_keras") is not None:
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # Keras 2, which scripts of TFF are for
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
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError):
            return _explained(error, script)
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
    except (NameError, TypeError) as error:
        return _explained(error, script)
    except SystemExit as error:
        return _exit_code(error)
    except Exception as error:
        return _show(error, script)
    finally:
        warnings.showwarning = previous
    return 0


def _explained(error: Exception, script: str | os.PathLike[str]) -> int:
    """Shows an exception that the script raised itself; says more of one that it did not mean.

    Raises:
        ScriptError: It asks for a name that is not in the namespace, or gives a function of it an
            argument that it does not have, or asks for the notebook that it is not run in.
    """
    cure = _cure(error)
    where = scripts.place(script, error)
    if cure is None or where is None:
        return _show(error, script)
    raise ScriptError(f"{script}, {where.text}: {cure}") from error


def _cure(error: Exception) -> str | None:
    if isinstance(error, NameError):
        notebook = error.name == "get_ipython"
        return (
            "get_ipython is Jupyter's, which does not run here: leave the line out, or make it a "
            "magic, which a notebook's cells are read without."
            if notebook
            else None
        )
    if isinstance(error, ImportError):
        asked = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
        module = sys.modules.get(asked[2]) if asked else None
        if asked is None or not asked[2].startswith("fedbridge.tff"):
            return None
        try:
            getattr(module, asked[1])
        except AttributeError as why:
            return str(why)
        return None
    asked = re.match(r"(\w+)\(\) got an unexpected keyword argument '(\w+)'", str(error))
    function = public_function(asked[1]) if asked else None
    if asked is None or function is None:
        return None
    if getattr(sys.modules["__main__"], asked[1], function) is not function:
        return None  # a function of the script's own, which has that name
    known = list(inspect.signature(function).parameters)
    if not known:
        return f"{asked[1]} takes no arguments; leave {asked[2]!r} out."
    near = difflib.get_close_matches(asked[2], known, n=1)
    nearest = f"; the nearest is {near[0]}" if near else ""
    if "model_aggregator" in known and re.search(r"privacy|\bdp\b|noise", asked[2]):
        nearest = "; write model_aggregator=tff.learning.dp_aggregator(...)"
    return f"{asked[1]} has no argument {asked[2]!r}{nearest}; it has {', '.join(known)}."


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
