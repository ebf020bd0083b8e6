"""Where the command `fedbridge` begins.

`fedbridge run SCRIPT` goes past the rest of the command line: what that is made of, Typer, rich and
pydantic, takes a tenth of the time that a short script takes altogether.
"""

import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from fedbridge.bridge.programs import keep_programs
from fedbridge.distributed import leave
from fedbridge.jax_core import FedbridgeError, use_cores


def main() -> None:
    """Does what the command line asks for, and ends with its exit code."""
    match sys.argv[1:]:
        case ["run", script, *arguments] if not _for_typer([script, *arguments]):
            sys.exit(_run(script, arguments))
    from fedbridge.cli import app

    app(prog_name="fedbridge")


def run_script(script: str | Path, arguments: Sequence[str], tff_version: str | None = None) -> int:
    """Runs a TFF script on JAX in this process, on all cores; programs are kept for the next time.

    Args:
        script: Its path.
        arguments: Its own command line.
        tff_version: As `fedbridge.tff._run.run` takes it.

    Returns:
        The exit code.

    Raises:
        FedbridgeError: The script asks for something that does not run here.
    """
    from fedbridge.tff._run import run

    keep_programs()
    use_cores()
    gc.freeze()  # what is imported by now stays, and the collector passes it over
    return run(script, arguments, tff_version)


def _run(script: str, arguments: list[str]) -> int:
    """`fedbridge run`, and what is said where it fails."""
    own = len(_before_dashes(arguments))
    try:
        return run_script(script, arguments[:own] + arguments[own + 1 :])
    except FedbridgeError as error:
        code, said = 2, str(error)
    except KeyboardInterrupt:
        code, said = 130, "interrupted."
    print(f"fedbridge: {said}", file=sys.stderr)
    leave(code)
    return code


def _for_typer(given: Sequence[str]) -> bool:
    """Whether there is more than a script and what goes to it: an option or a question."""
    own = {argument.partition("=")[0] for argument in _before_dashes(given)}
    return given[0].startswith("-") or bool({"-h", "--help", "--tff-version"} & own)


def _before_dashes(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments before a `--`."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments
