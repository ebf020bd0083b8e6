"""`tff.program`: states saved and loaded, metrics released, in files that TFF reads and writes.

TFF's methods are coroutines, in its first releases they were not: what these return may be awaited,
given to an event loop, unpacked, or left alone.
"""

import csv
import enum
import logging
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fedbridge import jax_core as fc, tff_io
from fedbridge.tff._data_sources import (
    ClientIdDataSource as ClientIdDataSource,
    ClientIdDataSourceIterator as ClientIdDataSourceIterator,
    DatasetDataSource as DatasetDataSource,
    DatasetDataSourceIterator as DatasetDataSourceIterator,
    FederatedDataSource as FederatedDataSource,
    FederatedDataSourceIterator as FederatedDataSourceIterator,
)
from fedbridge.tff._errors import missing
from fedbridge.tff._process import LearningAlgorithmState, as_core, as_tff
from fedbridge.tff._program_bases import (
    MaterializableStructure as MaterializableStructure,
    MaterializedStructure as MaterializedStructure,
    ProgramStateManager as ProgramStateManager,
    ProgramStateStructure as ProgramStateStructure,
    ReleasableStructure as ReleasableStructure,
    ReleaseManager as ReleaseManager,
)
from fedbridge.tff._release_managers import (
    DelayedReleaseManager as DelayedReleaseManager,
    FilteringReleaseManager as FilteringReleaseManager,
    GroupingReleaseManager as GroupingReleaseManager,
    NotFilterableError as NotFilterableError,
    PeriodicReleaseManager as PeriodicReleaseManager,
)
from fedbridge.tff_io import (
    ProgramStateExistsError as ProgramStateExistsError,
    ProgramStateNotFoundError as ProgramStateNotFoundError,
)


class Done(Coroutine):
    """The result of something that is done: a coroutine that ends at once.

    Example:
        >>> import asyncio
        >>> state, version = Done(("state", 3))
        >>> asyncio.run(Done(("state", 3)))
        ('state', 3)
    """

    def __init__(self, value: Any = None):
        self.value = value

    def __await__(self) -> Iterator[Any]:
        yield from ()
        return self.value

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)

    def __getitem__(self, index: int) -> Any:
        return self.value[index]

    def send(self, value: Any) -> NoReturn:  # what a coroutine does that ends
        raise StopIteration(self.value)

    def throw(self, *error: Any) -> NoReturn:
        raise error[0]

    def close(self) -> None:
        """There is nothing to end."""


class FileProgramStateManager(ProgramStateManager):
    """Keeps the states of a program in a folder, as SavedModels that TFF reads.

    Args:
        root_dir: The folder.
        prefix: Of the names in it.
        keep_total: How many states stay; 0 for all.
        keep_first: Whether the first one is among them.
        keep_every_k: Only multiples of it stay, and the latest.
    """

    def __init__(
        self,
        root_dir: str | os.PathLike[str],
        prefix: str = "program_state_",
        keep_total: int = 5,
        keep_first: bool = True,
        keep_every_k: int = 1,
    ):
        Path(root_dir).mkdir(parents=True, exist_ok=True)
        self._root, self._prefix = root_dir, prefix
        self._keep: dict[str, Any] = dict(
            keep_total=max(keep_total, 0), keep_first=keep_first, keep_every_k=keep_every_k
        )

    def get_versions(self) -> Done:
        """The versions that there are, in order; None for none."""
        return Done(tff_io.program_state_versions(self._root, prefix=self._prefix) or None)

    def load(self, version: int, structure: Any) -> Done:
        """The state of that version, of the structure of another.

        Raises:
            ProgramStateNotFoundError: There is none.
            StateError: It is of another structure.
        """
        return Done(self._load(version, structure))

    def load_latest(self, structure: Any) -> Done:
        """(state, version) of the latest; (None, 0) where there is none."""
        versions = tff_io.program_state_versions(self._root, prefix=self._prefix)
        if not versions:
            return Done((None, 0))
        return Done((self._load(versions[-1], structure), versions[-1]))

    def _load(self, version: int, structure: Any) -> Any:
        like = _converted(structure, LearningAlgorithmState, as_core)
        found = tff_io.load_program_state(self._root, version, like, prefix=self._prefix)
        return _converted(found, fc.LearningAlgorithmState, as_tff)

    def save(self, program_state: Any, version: int) -> Done:
        """Saves a state.

        Raises:
            ProgramStateExistsError: There is that version already.
            StateError: The folder cannot be written to.
        """
        state = _converted(program_state, LearningAlgorithmState, as_core)
        tff_io.save_program_state(self._root, state, version, prefix=self._prefix, **self._keep)
        return Done()

    def remove_all(self) -> Done:
        """Removes all states."""
        for version in tff_io.program_state_versions(self._root, prefix=self._prefix):
            shutil.rmtree(Path(self._root, f"{self._prefix}{version}"))
        return Done()


def _converted(value: Any, kind: type, convert: Callable[[Any], Any]) -> Any:
    """A structure with the learning processes' states in it converted."""
    if isinstance(value, kind):
        return convert(value)
    inner = lambda part: _converted(part, kind, convert)
    make: Any = type(value)
    if isinstance(value, Mapping):
        return make((name, inner(part)) for name, part in value.items())
    if isinstance(value, tuple | list):
        return make(*map(inner, value)) if hasattr(value, "_fields") else make(map(inner, value))
    return value


def materialize_value(value: Any) -> Done:
    """The value: nothing is computed later here."""
    return Done(value)


class MemoryReleaseManager(ReleaseManager):
    """Keeps what is released."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def release(self, value: Any, key: Hashable) -> Done:
        """Keeps a value under its key."""
        self._kept[key] = value
        return Done()

    def values(self) -> OrderedDict[Hashable, Any]:
        """All of them by their keys."""
        return self._kept.copy()

    def remove_all(self) -> None:
        """Forgets them."""
        self._kept.clear()


class LoggingReleaseManager(ReleaseManager):
    """Writes what is released to Python's log."""

    def release(self, value: Any, key: Any = None) -> Done:
        """Logs a value and its key."""
        log = logging.getLogger("fedbridge.tff")
        log.info("Releasing")
        log.info("  value: %s", value)
        if key is not None:
            log.info("  key: %s", key)
        return Done()


class CSVFileReleaseManager(ReleaseManager):
    """A line of a CSV file for each key; lines of the key or of later ones are replaced.

    Args:
        file_path: The file.
        save_mode: Changes nothing here: the file is written aside and renamed.
        key_fieldname: The column of the key.
    """

    def __init__(
        self,
        file_path: str | os.PathLike[str],
        save_mode: Any = None,
        key_fieldname: str = "key",
    ):
        self._path, self._key = Path(file_path), key_fieldname
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            self._write([key_fieldname], [])
        elif key_fieldname not in self._read()[0]:
            raise fc.ArgumentError(
                f"{self._path} has no column {key_fieldname!r}; name another file, or the "
                "key_fieldname that it was written with."
            )

    def release(self, value: Any, key: int) -> Done:
        """Writes a line: the key, and every leaf by its path."""
        columns, lines = self._read()
        line = {self._key: key}
        line |= {name: np.asarray(leaf).tolist() for name, leaf in _flat(value)}
        earlier = [other for other in lines if int(other[self._key]) < key]
        columns = columns if earlier else [self._key]  # a file that begins anew has new columns
        columns += [name for name in line if name not in columns]
        self._write(columns, [*earlier, line])
        return Done()

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        with self._path.open(newline="") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or ()), list(reader)

    def _write(self, columns: list[str], lines: list[dict[str, Any]]) -> None:
        with tempfile.NamedTemporaryFile(
            "w", newline="", dir=self._path.parent, delete=False
        ) as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(lines)
        os.replace(file.name, self._path)


class TensorBoardReleaseManager(ReleaseManager):
    """Scalars and histograms for TensorBoard; needs TensorFlow."""

    def __init__(self, summary_dir: str | os.PathLike[str]):
        import tensorflow as tf

        self._writer = tf.summary.create_file_writer(os.fspath(summary_dir))

    def release(self, value: Any, key: int) -> Done:
        """Writes every number by its path."""
        import tensorflow as tf

        with self._writer.as_default():
            for name, leaf in _flat(value):
                array = np.asarray(leaf)
                if array.dtype.kind in "biuf":
                    write = tf.summary.histogram if array.shape else tf.summary.scalar
                    write(name, leaf, step=key)
        return Done()


class SavedModelFileReleaseManager(ReleaseManager):
    """A SavedModel for each key, which TFF reads; needs TensorFlow.

    Args:
        root_dir: The folder; it is made.
        prefix: Of the names of the SavedModels.
    """

    def __init__(self, root_dir: str | os.PathLike[str], prefix: str = "release_"):
        fc.check_argument(bool(os.fspath(root_dir)), "root_dir", root_dir, "the name of a folder")
        self._root, self._prefix = Path(root_dir), prefix
        self._root.mkdir(parents=True, exist_ok=True)

    def release(self, value: Any, key: Hashable) -> Done:
        """Writes the numbers and strings of a value, in place of what its key had."""
        import tensorflow as tf

        def variable(leaf: Any) -> Any:
            given: Any = leaf if type(leaf) in _PLAIN else np.asarray(leaf)
            return tf.Variable(given)

        held: Any = tf.Module()
        held.value = tf.nest.map_structure(variable, value)
        held.__call__ = tf.function(lambda: held.value, input_signature=())
        with tempfile.TemporaryDirectory(dir=self._root) as folder:
            made = Path(folder) / "made"
            tf.saved_model.save(held, os.fspath(made), signatures={})
            shutil.rmtree(self._path(key), ignore_errors=True)
            made.rename(self._path(key))
        return Done()

    def get_value(self, key: Hashable) -> Done:
        """The value that was released, as NumPy arrays in the containers of TensorFlow.

        Raises:
            StateError: Nothing was released under the key.
        """
        import tensorflow as tf

        if not self._path(key).is_dir():
            raise fc.StateError(f"{self._path(key)}: nothing was released under the key {key!r}.")
        found = tf.saved_model.load(os.fspath(self._path(key)))()
        return Done(tf.nest.map_structure(lambda leaf: leaf.numpy(), found))

    def _path(self, key: Hashable) -> Path:
        return self._root / f"{self._prefix}{key}"


_PLAIN = (bool, int, float, str, bytes)  # their dtypes are TensorFlow's choice


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves by their paths, in TFF's order: "a/b", "a/0"; empty containers have none."""
    if isinstance(value, Mapping):
        parts = ((name, value[name]) for name in sorted(value))
    elif hasattr(value, "_fields"):
        parts = value._asdict().items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        yield path, value
        return
    for name, part in parts:
        yield from _flat(part, f"{path}/{name}" if path else str(name))


class CSVSaveMode(enum.Enum):
    """`save_mode` of a `CSVFileReleaseManager`; it changes nothing."""

    APPEND = "append"
    WRITE = "write"


def NativeFederatedContext(context: Any = None) -> Any:
    """Dropped: execution contexts do not change results."""
    return context


__getattr__ = missing("tff.program")
