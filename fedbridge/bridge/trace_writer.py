"""Writes a trace, aside first: rows as they come, each kept once, and states once by content."""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedbridge.bridge.trace import (
    COMPUTATIONS,
    FORMAT,
    FRACTION255,
    MANIFEST,
    PLAIN,
    Call,
    Feature,
    Process,
    content,
    digest,
    manifest_digest,
    read,
    state_name,
)
from fedbridge.jax_core import TraceError
from fedbridge.jax_core._columns import Fraction255, encode_column

_SMALL = 4096


def write_manifest(path: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
    """Replaces the manifest of the trace at `path` in one step, with a fresh checksum of itself."""
    manifest = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    manifest["manifest_sha256"] = manifest_digest(manifest)
    aside = Path(path) / (MANIFEST + ".partial")
    aside.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    os.replace(aside, Path(path) / MANIFEST)


def pack(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Packs a trace into one file, which `read` takes as it takes the folder.

    Args:
        folder: the trace, verified first.
        out: the file, by custom called .zip; the same trace gives the same bytes.

    Raises:
        TraceError: as for `read`; or `out` exists already.
    """
    source, target = Path(folder), Path(out)
    names = [MANIFEST, *sorted(read(source).files)]
    if target.exists():
        raise TraceError(f"{target} exists already; name another file or remove it.")
    aside = target.with_name(target.name + ".partial")
    with zipfile.ZipFile(aside, "w") as archive:
        for name in names:
            # ZipInfo's own date is fixed.
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content(source, name), compresslevel=9)
    os.replace(aside, target)
    return target


class Batches(NamedTuple):
    """The batches of one call as numbers of rows; client c owns steps `step_offsets[c:c + 2]`."""

    rows: np.ndarray
    batch_sizes: np.ndarray
    step_offsets: np.ndarray


class Writer:
    """Writes a trace aside and moves it into place at `close`; an interrupted one leaves nothing.

    Rows are kept once over the whole trace, states once by content.

    Args:
        out: where the trace will lie; must not exist yet.
    """

    def __init__(self, out: str | os.PathLike[str]):
        self.out = Path(out)
        if self.out.exists():
            raise TraceError(f"{self.out} exists already; name another folder or remove it.")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(
            tempfile.mkdtemp(prefix=self.out.name + ".partial-", dir=self.out.parent)
        )
        self._states: dict[str, int] = {}
        self._rows: dict[bytes, int] = {}
        self._columns: dict[str, _Column] = {}
        self.processes: list[Process] = []
        self.calls: list[Call] = []

    def batches(self, clients: Sequence[Sequence[Mapping[str, np.ndarray]]]) -> Batches:
        """Stores the rows of `clients` (per client its batches, per batch its features).

        Raises:
            TraceError: the rows of the batches cannot be stacked (strings, shapes that vary).
        """
        numbers: list[int] = []
        sizes: list[int] = []
        offsets = [0]
        for steps in clients:
            for batch in steps:
                new = self._add_batch(batch)
                numbers.extend(new)
                sizes.append(len(new))
            offsets.append(len(sizes))
        return Batches(
            np.asarray(numbers, np.int32), np.asarray(sizes, np.int32), np.asarray(offsets)
        )

    def state(self, leaves: Mapping[str, np.ndarray]) -> int:
        """Stores a state once; the same content gives the same number."""
        digest = hashlib.sha256()
        for path, leaf in leaves.items():
            digest.update(f"{path} {leaf.dtype} {leaf.shape} ".encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        key = digest.hexdigest()
        if key not in self._states:
            self._states[key] = len(self._states)
            save(self._folder / state_name(self._states[key]), leaves)
        return self._states[key]

    def process(self, process: Process) -> int:
        """Adds a process; returns its number."""
        self.processes.append(process)
        return len(self.processes) - 1

    def call(
        self,
        process: int,
        batches: Batches | None,
        *,
        num_clients: int,
        state_before: int,
        state_after: int,
        metrics: dict[str, Any],
        probes: Sequence[Mapping[str, np.ndarray]] = (),
        probe_metrics: Sequence[dict[str, Any]] = (),
        server_step: Mapping[str, np.ndarray] | None = None,
    ) -> Call:
        """Adds one call of `next`; `batches` is None where they cannot be written down."""
        arrays = dict(batches._asdict()) if batches else {}
        for number, probe in enumerate(probes, start=1):
            arrays |= {f"probe_{number}/{path}": leaf for path, leaf in probe.items()}
        arrays |= {f"server_step/{path}": leaf for path, leaf in (server_step or {}).items()}
        name = f"call_{len(self.calls):04d}.npz"
        save(self._folder / name, arrays)
        self.calls.append(
            Call(
                file=name,
                process=process,
                round=1 + sum(call.process == process for call in self.calls),
                num_clients=num_clients,
                num_examples=len(batches.rows) if batches else 0,
                state_before=state_before,
                state_after=state_after,
                metrics=metrics,
                probe_metrics=list(probe_metrics),
            )
        )
        return self.calls[-1]

    def computations(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Stores what the script's own computations returned."""
        save(self._folder / COMPUTATIONS, arrays)

    def close(
        self,
        *,
        versions: Mapping[str, str],
        script: Mapping[str, Any],
        adapted: Iterable[str] = (),
        notes: Iterable[str] = (),
        not_replayable: str | None = None,
    ) -> Path:
        """Writes rows and manifest, and moves the whole trace to `out`."""
        save(self._folder / "rows.npz", {name: c.packed() for name, c in self._columns.items()})
        manifest = {
            "format": FORMAT,
            "versions": dict(versions),
            "script": dict(script),
            "files": {file.name: digest(file) for file in sorted(self._folder.iterdir())},
            "adapted": list(adapted),
            "notes": list(notes),
            "not_replayable": not_replayable,
            "features": {
                name: column.feature()._asdict() for name, column in self._columns.items()
            },
            "processes": [process._asdict() for process in self.processes],
            "calls": [call._asdict() for call in self.calls],
        }
        write_manifest(self._folder, manifest)
        os.chmod(self._folder, 0o755)  # noqa: S103 -- mkdtemp's 0700 would stay with it
        os.rename(self._folder, self.out)
        return self.out

    def discard(self) -> None:
        """Removes what was written so far."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _add_batch(self, batch: Mapping[str, np.ndarray]) -> list[int]:
        if self._columns and list(batch) != list(self._columns):
            raise TraceError(
                f"a batch has the features {list(batch)} and an earlier one {list(self._columns)}"
            )
        arrays = {name: np.asarray(array) for name, array in batch.items()}
        sizes = {name: array.shape[:1] for name, array in arrays.items()}
        if len(set(sizes.values())) != 1 or () in sizes.values():
            raise TraceError(f"the features of a batch do not have one first dimension: {sizes}")
        for name, array in arrays.items():
            self._columns.setdefault(name, _Column(array)).check(name, array)
        (count,) = next(iter(sizes.values()))
        keys = [array.reshape(count, -1) for array in map(np.ascontiguousarray, arrays.values())]
        numbers, fresh = [], []
        for i in range(count):
            # The key is the digest of the row's bytes: 32 bytes a row instead of the row itself.
            key = hashlib.sha256(b"".join(rows[i].tobytes() for rows in keys)).digest()
            if key not in self._rows:
                self._rows[key] = len(self._rows)
                fresh.append(i)
            numbers.append(self._rows[key])
        if fresh:
            for name, array in arrays.items():
                self._columns[name].add(array[fresh])
        return numbers


class _Column:
    """The rows of one feature, kept as uint8 for as long as every value is a 255th."""

    def __init__(self, first: np.ndarray):
        if first.dtype.kind not in "biuf":
            raise TraceError(f"a feature holds {first.dtype} values, which are not recorded yet")
        self.shape, self.dtype = first.shape[1:], first.dtype
        self.encoding = FRACTION255 if first.dtype == np.float32 else PLAIN
        self.parts: list[np.ndarray] = []

    def check(self, name: str, array: np.ndarray) -> None:
        if (array.shape[1:], array.dtype) != (self.shape, self.dtype):
            raise TraceError(
                f"feature {name!r} is {array.dtype}{array.shape[1:]} in one batch and "
                f"{self.dtype}{self.shape} in another"
            )

    def add(self, rows: np.ndarray) -> None:
        if self.encoding == FRACTION255:
            encoded = encode_column(np.ascontiguousarray(rows))
            if isinstance(encoded, Fraction255):
                self.parts.append(encoded.numerators)
                return
            self.parts = [Fraction255(part).decode() for part in self.parts]
            self.encoding = PLAIN
        self.parts.append(np.array(rows))

    def packed(self) -> np.ndarray:
        return np.concatenate(self.parts) if self.parts else np.zeros((0, *self.shape), self.dtype)

    def feature(self) -> Feature:
        return Feature(tuple(self.shape), str(self.dtype), self.encoding)


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as one .npz, the same bytes for the same arrays."""
    # An .npz by hand: np.savez cannot take a feature called "file", and stamps the time of day.
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(name + ".npy")
            # Small arrays are mostly headers, which `pack` compresses all together.
            small = np.asarray(array).nbytes < _SMALL
            entry.compress_type = zipfile.ZIP_STORED if small else zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
