"""Folders of TFF's `FileProgramStateManager`, read and written without TensorFlow.

    ROOT/program_state_VERSION/saved_model.pb
                               variables/variables.index
                               variables/variables.data-00000-of-00001

What fedbridge writes TFF loads (`manager.load(version, structure)`), and so does TensorFlow alone
(`tf.saved_model.load(folder)()`, `tf.train.load_checkpoint(folder + "/variables/variables")`).

Reference: tensorflow_federated/python/program/{file_program_state_manager,file_utils}.py.
"""

import os
import secrets
import shutil
from pathlib import Path
from typing import TypeVar

from jaxtyping import PyTree

from fedbridge.jax_core import StateError, check_argument, check_path, check_whole
from fedbridge.tff_io._files import to_disk
from fedbridge.tff_io._saved_model import program_state, variable_path
from fedbridge.tff_io._tensor_bundle import read_bundle, write_bundle
from fedbridge.tff_io._tff_state import as_in_tff, fit_leaves

_Tree = TypeVar("_Tree")
_PREFIX = "program_state_"
_BUNDLE = Path("variables", "variables")


class ProgramStateExistsError(StateError):
    """There is a state of that version already."""


class ProgramStateNotFoundError(StateError):
    """There is no state of that version."""


def program_state_versions(root: str | os.PathLike[str], *, prefix: str = _PREFIX) -> list[int]:
    """The versions that a folder holds, in order; none where there is no such folder.

    Example:
        >>> program_state_versions("there/is/no/such/folder")
        []
    """
    check_path("root", root)
    folder = Path(root)
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    suffixes = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return sorted(int(suffix) for suffix in suffixes if _is_version(suffix))


def load_program_state(
    root: str | os.PathLike[str],
    version: int,
    like: _Tree,
    *,
    part: str = "",
    prefix: str = _PREFIX,
) -> _Tree:
    """Reads a state that TFF's `FileProgramStateManager` or `save_program_state` saved.

    Args:
        root: The manager's folder.
        version: Which state, in most programs the number of rounds done.
        like: A state of the same algorithm and model, e.g. `process.initialize()`: the structure,
            shapes and dtypes, which the files do not tell.
        part: Where in what was saved the state is: "state" for `tff.learning.programs.train_model`,
            which saves its own counters beside it.
        prefix: As the manager's.

    Returns:
        A state of the structure, shapes and dtypes of `like`.

    Raises:
        ProgramStateNotFoundError: There is no such version.
        StateError: It is damaged, or of another algorithm or model.

    Example:
        >>> import tempfile, numpy as np
        >>> root = tempfile.mkdtemp()
        >>> folder = save_program_state(root, {"steps": np.arange(3)}, 1)
        >>> load_program_state(root, 1, like={"steps": np.zeros(3, int)})
        {'steps': array([0, 1, 2])}
    """
    check_path("root", root)
    folder = Path(root, f"{prefix}{version}")
    if not folder.is_dir():
        there = program_state_versions(root, prefix=prefix)
        have = f"its versions are {', '.join(map(str, there))}" if there else "it holds none"
        raise ProgramStateNotFoundError(f"{root}: there is no version {version}; {have}.")
    within = "/".join(["_value", *filter(None, [part])])
    found = {variable_path(key): leaf for key, leaf in read_bundle(folder / _BUNDLE).items()}
    leaves = {
        path.removeprefix(within).removeprefix("/"): leaf
        for path, leaf in found.items()
        if path is not None and (path == within or path.startswith(f"{within}/"))
    }
    return fit_leaves(leaves, like, str(folder))


def load_latest_program_state(
    root: str | os.PathLike[str], like: _Tree, *, part: str = "", prefix: str = _PREFIX
) -> tuple[_Tree | None, int]:
    """Reads the state of the latest version: (state, version), or (None, 0) where there is none.

    Args:
        root: The manager's folder.
        like: As `load_program_state`.
        part: As `load_program_state`.
        prefix: As the manager's.

    Raises:
        StateError: As `load_program_state`.
    """
    versions = program_state_versions(root, prefix=prefix)
    if not versions:
        return None, 0
    latest = versions[-1]
    return load_program_state(root, latest, like, part=part, prefix=prefix), latest


def save_program_state(
    root: str | os.PathLike[str],
    state: PyTree,
    version: int,
    *,
    prefix: str = _PREFIX,
    keep_total: int = 5,
    keep_first: bool = True,
    keep_every_k: int = 1,
) -> Path:
    """Saves a state as TFF's `FileProgramStateManager` does: aside first, then renamed.

    Args:
        root: The manager's folder; it is made where it is absent.
        state: Named tuples, dictionaries, lists and tuples of arrays. TFF compares containers when
            it loads: where its state has others than fedbridge's, pass what `to_tff_state` gives.
        version: A whole number of at least 0, larger in every round.
        prefix: As the manager's.
        keep_total: How many versions stay; with 0, all of them.
        keep_first: Whether the first version is one of those that stay.
        keep_every_k: Versions that are no multiple of it do not stay, but for the latest.

    Returns:
        The folder of the version.

    Raises:
        ProgramStateExistsError: There is this version already.
        StateError: The folder cannot be written to, or the state holds what TensorFlow cannot
            save.
        ArgumentError: No path, no version, or None as the state.
    """
    if keep_every_k < 1:
        raise StateError(f"keep_every_k is {keep_every_k}; allowed are 1 (all versions) and more.")
    if keep_total == 1 and keep_first:
        raise StateError(
            "keep_total=1 with keep_first=True would remove what was just saved: allowed are "
            "keep_total=2 and more, 0 for all, or keep_first=False."
        )
    check_path("root", root)
    check_whole("version", version, 0)
    check_argument(state is not None, "state", state, "a tree of arrays")
    folder = Path(root, f"{prefix}{version}")
    if folder.exists():
        raise ProgramStateExistsError(
            f"{root}: there is a version {version} already; save a later one, or remove {folder}."
        )
    saved_model, tensors = program_state(as_in_tff(state))
    aside = folder.with_name(f"{folder.name}_temp{secrets.token_hex(4)}")
    try:
        bundle = aside / _BUNDLE
        bundle.parent.mkdir(parents=True)
        write_bundle(bundle, tensors)
        (aside / "saved_model.pb").write_bytes(saved_model)
        for file in aside.rglob("*.*"):
            to_disk(file)
        os.rename(aside, folder)
    except OSError as error:
        raise StateError(
            f"{folder}: it cannot be written ({error.strerror}); name another folder."
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    versions = program_state_versions(root, prefix=prefix)
    for old in set(versions) - set(_kept(versions, keep_total, keep_first, keep_every_k)):
        shutil.rmtree(Path(root, f"{prefix}{old}"), ignore_errors=True)
    return folder


def _kept(versions: list[int], keep_total: int, keep_first: bool, keep_every_k: int) -> list[int]:
    """The versions that stay, as TFF's `_remove_old_program_state` has it."""
    first = versions[:1] if keep_first else []
    kept = [v for v in versions if v % keep_every_k == 0 or v in (*first, versions[-1])]
    if 0 < keep_total < len(kept):
        kept = first + kept[len(kept) - (keep_total - len(first)) :]
    return kept


def _is_version(suffix: str) -> bool:
    """Whether it is a number as it is written: TFF's `_temp1234` folders are none."""
    return suffix.removeprefix("-").isdecimal() and suffix == str(int(suffix))
