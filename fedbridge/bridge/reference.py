"""The reference environment: Python 3.11 with the real TFF 0.87.0.

No installer can make it from TFF's own metadata, so it is made from `reference.txt`, a flat list
of pinned packages, installed as it stands. It is a folder with a virtual environment and one file
more, the mark, which is written first as "begun" and last as "complete": what has no complete mark
was never finished.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import platformdirs

import fedbridge.bridge.child as child
from fedbridge.jax_core import ReferenceEnvironmentError

REQUIREMENTS = Path(__file__).with_name("reference.txt")
DOWNLOAD = "0.9 GB"  # the wheels of reference.txt, measured: 870 MB
DISK = "2.8 GB"  # the environment, measured: 2.78 GB
_DISK_BYTES = 2_900_000_000
_MARK = "fedbridge-reference.json"
_CURE = "run `fedbridge reference create`"


class Finding(NamedTuple):
    """One thing that `doctor` looked at.

    Attributes:
        ok: Whether it is as it should be.
        what: What was found.
        cure: How to mend it; empty where nothing is wrong.
    """

    ok: bool
    what: str
    cure: str = ""


def folder(path: str | os.PathLike[str] | None = None) -> Path:
    """Where the environment is, or would be.

    Args:
        path: A folder; None for $FEDBRIDGE_REFERENCE, else the user's data folder.
    """
    chosen = path or os.environ.get("FEDBRIDGE_REFERENCE")
    chosen = chosen or platformdirs.user_data_path("fedbridge") / "reference"
    return Path(chosen).expanduser().absolute()


def python(path: str | os.PathLike[str] | None = None) -> Path:
    """The interpreter of a complete reference environment.

    Args:
        path: The environment's folder; None as in `folder`.

    Raises:
        ReferenceEnvironmentError: The platform has no TFF, or there is no complete environment.
    """
    _require_platform()
    where = folder(path)
    if not _mark(where).get("complete"):
        state = "was never finished" if _mark(where) else "is not there"
        raise ReferenceEnvironmentError(
            f"the reference environment, in which the real TFF runs, {state} ({where}): {_CURE}"
        )
    interpreter = _interpreter(where)
    if not interpreter.exists():
        raise ReferenceEnvironmentError(
            f"the reference environment has lost its interpreter ({interpreter}): {_CURE}"
        )
    return interpreter


def create(
    path: str | os.PathLike[str] | None = None, *, announce: Callable[[str], object] = print
) -> Path:
    """Makes the reference environment; does nothing where it is there and up to date.

    Args:
        path: The folder to make; None as in `folder`.
        announce: Gets each line that a person should see, the sizes before anything is fetched.

    Returns:
        Its interpreter.

    Raises:
        ReferenceEnvironmentError: The platform has no TFF, the folder holds something else, the
            disk is too small, or an installer failed.
    """
    _require_platform()
    where = folder(path)
    mark = _mark(where)
    if (
        mark.get("complete")
        and mark.get("requirements") == _digest()
        and _runs_311(_interpreter(where))
    ):
        announce(f"The reference environment is there: {where}")
        return _interpreter(where)
    if where.exists() and not mark and (not where.is_dir() or any(where.iterdir())):
        raise ReferenceEnvironmentError(
            f"{where} holds something that is no reference environment: name another folder with "
            "--path, or empty this one"
        )
    free = _free_bytes(where)
    if free < _DISK_BYTES:
        raise ReferenceEnvironmentError(
            f"the reference environment takes {DISK} and {where} has {free / 1e9:.1f} GB free: "
            "make room, or name a folder on another disk with --path"
        )
    announce(f"The reference environment: a download of {DOWNLOAD}, {DISK} on disk, in {where}")
    if where.exists():
        shutil.rmtree(where)  # ours: it has the mark, or is empty
    where.mkdir(parents=True)
    _write_mark(where, complete=False)
    with tempfile.TemporaryDirectory(prefix="fedbridge-") as scratch:
        _install(where, Path(scratch), announce)
    _write_mark(where, complete=True)
    announce("The reference environment is ready.")
    return _interpreter(where)


def doctor(path: str | os.PathLike[str] | None = None) -> list[Finding]:
    """Looks for what is wrong with a reference environment, down to a computation by TFF.

    Args:
        path: The environment's folder; None as in `folder`.

    Returns:
        What was looked at, in order; it stops where nothing further can be looked at.
    """
    where = folder(path)
    if lacking := _platform_lacks():
        return [Finding(False, lacking, _OTHER_PLATFORM)]
    findings = [Finding(True, f"platform: Linux, {platform.machine()}")]

    mark = _mark(where)
    room = 500_000_000 if mark.get("complete") else _DISK_BYTES
    free = _free_bytes(where)
    findings.append(
        Finding(
            free >= room, f"disk: {free / 1e9:.1f} GB free", "" if free >= room else "make room"
        )
    )
    if not mark.get("complete"):
        state = "begun and never finished" if mark else "absent"
        return [*findings, Finding(False, f"environment: {state} ({where})", _CURE)]
    same = mark.get("requirements") == _digest()
    findings.append(
        Finding(True, f"environment: {where}")
        if same
        else Finding(False, "environment: made from another version's list of packages", _CURE)
    )

    interpreter = _interpreter(where)
    if not _runs_311(interpreter):
        return [*findings, Finding(False, f"interpreter: {interpreter} is no Python 3.11", _CURE)]
    findings.append(Finding(True, f"interpreter: {interpreter}"))

    wrong = _wrong_packages(interpreter)
    findings.append(
        Finding(False, f"packages: {'; '.join(wrong)}", f"delete {where} and {_CURE}")
        if wrong
        else Finding(True, f"packages: all {len(_pins())} as pinned")
    )
    return [*findings, _try_tff(where)]


def run_child(
    module: str,
    arguments: Sequence[str] = (),
    *,
    path: str | os.PathLike[str] | None = None,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    poll: Callable[[], None] | None = None,
    timeout: float | None = None,
) -> int | None:
    """Runs `python -m module arguments` in the reference environment, with this very fedbridge.

    Both environments run the same code: the child sees a folder that holds nothing but a link to
    the package that is running here. The current folder is not put on the child's module path.

    Args:
        module: A module of fedbridge, or of the reference environment.
        arguments: Its command line.
        path: The environment's folder; None as in `folder`.
        log: Gets what it prints; see `child.run`, also for the other arguments.
        env: Environment variables to add to ours.
        cwd: Where it runs.
        poll: Called while it runs.
        timeout: Seconds after which it is killed.

    Returns:
        The exit code, negative for the signal that ended it; None if it was killed at `timeout`.

    Raises:
        ReferenceEnvironmentError: There is no complete reference environment.
    """
    interpreter = python(path)
    with tempfile.TemporaryDirectory(prefix="fedbridge-") as scratch:
        Path(scratch, "fedbridge").symlink_to(Path(__file__).parents[1], target_is_directory=True)
        return child.run(
            [interpreter, "-P", "-m", module, *arguments],
            log=log,
            env={**_child_environment(), "PYTHONPATH": scratch, **(env or {})},
            cwd=cwd,
            poll=poll,
            timeout=timeout,
        )


# ------------------------------------------------------------------------------ platform and mark

_OTHER_PLATFORM = (
    "`fedbridge replay` and `fedbridge demo` work here; to record, use a Linux x86-64 machine or "
    "the repository's Dockerfile"
)


def _platform_lacks() -> str:
    """What keeps TFF's wheel from running here; empty where nothing does."""
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in ("x86_64", "AMD64"):
        return f"the real TFF runs on Linux x86-64 only, and this is {system} {machine}"
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 31):
        found = f"{library} {version}".strip() or "another C library"
        return f"the real TFF wants glibc 2.31 or newer, and this is {found}"
    return ""


def _require_platform() -> None:
    if lacking := _platform_lacks():
        raise ReferenceEnvironmentError(f"{lacking}: {_OTHER_PLATFORM}")


def _mark(where: Path) -> dict:
    """The content of the mark; empty without one."""
    try:
        return dict(json.loads((where / _MARK).read_text()))
    except (OSError, ValueError):
        return {}


def _write_mark(where: Path, *, complete: bool) -> None:
    content = {"complete": complete, "requirements": _digest()}
    aside = where / f"{_MARK}.new"
    aside.write_text(json.dumps(content))
    aside.replace(where / _MARK)


def _digest() -> str:
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()


def _free_bytes(where: Path) -> int:
    while not where.exists():
        where = where.parent
    return shutil.disk_usage(where).free


# ------------------------------------------------------------------------------------ interpreters


def _interpreter(where: Path) -> Path:
    return where / "bin" / "python"


def _runs_311(interpreter: str | os.PathLike[str]) -> bool:
    """Whether a program really is a Python 3.11: one on PATH may be a shim that only says no."""
    return _succeeds([interpreter, "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 11))"])


def _succeeds(command: Sequence[str | os.PathLike[str]]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _python_311() -> str | None:
    """A Python 3.11 that runs: ours, or one on PATH."""
    if sys.version_info[:2] == (3, 11):
        return sys.executable
    for place in os.get_exec_path():
        candidate = Path(place, "python3.11")
        if candidate.is_file() and _runs_311(candidate):
            return str(candidate)
    return None


# ------------------------------------------------------------------------------------ installation


def _install(where: Path, scratch: Path, announce: Callable[[str], object]) -> None:
    """Makes the virtual environment and installs the list: with uv where it is, else with pip."""
    base = _python_311()
    uv = _find_uv()
    if base is None and uv is None:
        announce("There is no Python 3.11 here: installing uv, for a while, to fetch one.")
        uv = _fetch_uv(scratch)
    if uv is None:
        assert base is not None
        _step([base, "-m", "venv", where], "the virtual environment could not be made")
        installer = [_interpreter(where), "-m", "pip", "install", "--disable-pip-version-check"]
    else:
        if base is None:
            announce("Fetching Python 3.11 with uv.")
        _step(
            [*uv, "venv", "--quiet", "--allow-existing", "--python", base or "3.11", where],
            "uv could not make a virtual environment with Python 3.11",
        )
        installer = [*uv, "pip", "install", "--python", _interpreter(where)]
    announce(f"Installing {len(_pins())} packages; this takes some minutes.")
    _step(
        [*installer, "--quiet", "--no-deps", "-r", REQUIREMENTS],
        "the packages could not be installed",
    )


def _step(command: Sequence[str | os.PathLike[str]], failure: str) -> None:
    """Runs an installer, whose own words go to the terminal."""
    environment = _child_environment()
    code = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, check=False
    ).returncode
    if code:
        raise ReferenceEnvironmentError(
            f"{failure} (exit code {code}, its reason is printed above): check the network and the "
            "disk, then run `fedbridge reference create` again"
        )


def _find_uv() -> list[str] | None:
    for command in ([sys.executable, "-m", "uv"], ["uv"]):
        if _succeeds([*command, "--version"]):
            return command
    return None


def _fetch_uv(scratch: Path) -> list[str]:
    _step([sys.executable, "-m", "venv", scratch / "uv"], "a virtual environment for uv failed")
    fetched = scratch / "uv" / Path(sysconfig.get_path("scripts")).name / "python"
    _step([fetched, "-m", "pip", "install", "--quiet", "uv"], "uv could not be installed")
    return [str(fetched), "-m", "uv"]


def _child_environment() -> dict[str, str]:
    """Our environment variables, less those that would carry our packages or devices over."""
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "UV_PROJECT_ENVIRONMENT"}
    ours.add("XLA_FLAGS")  # the older jaxlib refuses to start with a flag that it does not know
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {**kept, "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1", "JAX_PLATFORMS": "cpu"}


# ------------------------------------------------------------------------------------------ doctor

_LIST_PACKAGES = """
import importlib.metadata, json
print(json.dumps({d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}))
"""

_COMPUTE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np
import tensorflow_federated as tff
double = tff.tensorflow.computation(lambda x: x + x, np.int32)
assert double(21) == 42
print("fedbridge: computed with TFF", tff.__version__, flush=True)
"""


def _pins() -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines())
    return {name: version for name, _, version in (line.partition("==") for line in lines) if name}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _wrong_packages(interpreter: Path) -> list[str]:
    """What is missing or of another version, one phrase each."""
    answer = subprocess.run(
        [interpreter, "-I", "-c", _LIST_PACKAGES], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        return ["its packages cannot be listed"]
    found = {_canonical(name): version for name, version in json.loads(answer.stdout).items()}
    wrong = {name: found.get(name) for name, pin in _pins().items() if found.get(name) != pin}
    return [
        f"{name} is {have}, not {_pins()[name]}" if have else f"{name} is missing"
        for name, have in wrong.items()
    ]


def _try_tff(where: Path, timeout: float = 300) -> Finding:
    """Lets TFF compute something; its worker ends with it."""
    with tempfile.TemporaryDirectory(prefix="fedbridge-") as scratch:
        log = Path(scratch, "log")
        code = child.run(
            [_interpreter(where), "-I", "-c", _COMPUTE],
            log=log,
            env=_child_environment(),
            timeout=timeout,
        )
        printed = log.read_text(errors="replace").strip().splitlines()
    said = [line for line in printed if line.startswith("fedbridge: ")]
    if said and code is not None:
        return Finding(True, said[-1].removeprefix("fedbridge: "))
    last = printed[-1] if printed else "it said nothing"
    reason = f"gave no answer in {timeout:.0f} s" if code is None else f"failed: {last}"
    return Finding(False, f"TFF: a computation {reason}", f"delete {where} and {_CURE}")
