"""A trace: what one TFF script did, as a folder that numpy and json can read.

    TRACE/
      manifest.json      what ran: versions, processes, calls, a checksum for every other file
      rows.npz           every distinct row of every batch, once; one packed array per feature
      state_0000.npz     the distinct states; "after round r is before round r + 1" is one file
      call_0000.npz      per call of `next`: its batches as row numbers, and the probes' weights

Both halves of the bridge use this module: the recorder writes (inside the reference environment),
the replay reads (anywhere). A trace may also be packed, as one .zip of these files.
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedbridge.jax_core import TraceError

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights"
"""The path of a model that is one tensor and no tree: the centroids of k-means."""
PLAIN, FRACTION255 = "plain", "fraction255"
_SMALL = 4096


class Feature(NamedTuple):
    """One feature of a row: its shape, its dtype, and how `rows.npz` stores it."""

    shape: tuple[int, ...]
    dtype: str
    encoding: str

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """The rows as the script's model saw them."""
        return decode_fraction255(stored) if self.encoding == FRACTION255 else stored


class Process(NamedTuple):
    """One learning process: the builder that ran, the name the script used, every argument.

    `model`, the optimizers, `model_aggregator` and `arguments` are plain JSON; None is the
    builder's default (`client_optimizer`, `server_optimizer`: None where it has none).
    `metrics_dtypes` are TFF's, by path.
    """

    builder: str
    called_as: str
    kind: str
    model: dict[str, Any] | None = None
    client_optimizer: dict[str, Any] | None = None
    server_optimizer: dict[str, Any] | None = None
    client_weighting: str | None = None
    model_aggregator: dict[str, Any] | None = None
    arguments: dict[str, Any] | None = None
    metrics_dtypes: dict[str, str] | None = None
    seconds_build: float | None = None
    seconds_initialize: float | None = None


class Call(NamedTuple):
    """One call of a process's `next`: what went in (by number), what came out, how long it took."""

    file: str
    process: int
    round: int
    num_clients: int
    num_examples: int
    state_before: int
    state_after: int
    metrics: dict[str, Any]
    probe_metrics: list[dict[str, Any]]
    seconds: float | None = None
    metrics_timed: dict[str, Any] | None = None


class Trace(NamedTuple):
    """A verified trace. The arrays stay on disk until a method asks for them."""

    path: Path
    versions: dict[str, str]
    script: dict[str, Any]
    files: dict[str, str]
    adapted: list[str]
    notes: list[str]
    not_replayable: str | None
    features: dict[str, Feature]
    processes: list[Process]
    calls: list[Call]

    def rows(self) -> dict[str, np.ndarray]:
        """Every distinct row, as stored; `features[name].decode` gives the values."""
        return _load(self.path, "rows.npz")

    def state(self, number: int) -> dict[str, np.ndarray]:
        """State `number` as a flat dictionary from path ("finalizer/learning_rate") to array."""
        return _load(self.path, _state_name(number))

    def call(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of call `number`: rows, batch_sizes, step_offsets, probe_1/…, server_step/…"""
        return _load(self.path, self.calls[number].file)


def read(path: str | os.PathLike[str]) -> Trace:
    """Opens a trace and verifies every checksum.

    Args:
        path: the trace's folder, or the file that `pack` made of it.

    Returns:
        The trace; its arrays are loaded by `rows()`, `state(i)` and `call(i)`.

    Raises:
        TraceError: there is no trace, it is of a newer format, or a file is missing or changed.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        try:
            digest = hashlib.sha256(_content(folder, name)).hexdigest()
        except FileNotFoundError:
            raise TraceError(
                f"{folder}: {name} is missing from the trace; record it again."
            ) from None
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error):
            digest = ""
        if digest != expected:
            raise TraceError(
                f"{folder}: {name} is not the file that was recorded (its checksum differs); "
                "copy the trace afresh or record it again."
            )
    return Trace(
        path=folder,
        **{key: manifest[key] for key in ("versions", "script", "files", "adapted", "notes")},
        not_replayable=manifest["not_replayable"],
        features={
            name: Feature(tuple(feature["shape"]), feature["dtype"], feature["encoding"])
            for name, feature in manifest["features"].items()
        },
        processes=[Process(**process) for process in manifest["processes"]],
        calls=[Call(**call) for call in manifest["calls"]],
    )


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest as JSON, its own checksum verified; raises `TraceError` as `read` does."""
    folder = Path(path)
    try:
        manifest = json.loads(_content(folder, MANIFEST).decode("utf-8"))
        version = manifest["format"]
    except FileNotFoundError:
        raise TraceError(
            f"{folder} is not a trace: it holds no {MANIFEST}; make one with "
            "`fedbridge record SCRIPT -o TRACE`."
        ) from None
    except _NotPackedError:
        raise TraceError(
            f"{folder} is a file, and a trace is a folder; give the folder that "
            "`fedbridge record` wrote, or what `trace.pack` made of it."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise TraceError(
            f"{folder / MANIFEST} cannot be read ({error}); copy the trace afresh or record it "
            "again."
        ) from None
    if version != FORMAT:
        raise TraceError(
            f"{folder} is a trace of format {version}, and this fedbridge reads format {FORMAT}; "
            "upgrade fedbridge."
        )
    if manifest.get("manifest_sha256") != _manifest_digest(manifest):
        raise TraceError(
            f"{folder / MANIFEST} was changed after recording (its checksum differs); copy the "
            "trace afresh or record it again."
        )
    return manifest


def write_manifest(path: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
    """Replaces the manifest of the trace at `path` in one step, with a fresh checksum of itself."""
    manifest = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    manifest["manifest_sha256"] = _manifest_digest(manifest)
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
            archive.writestr(entry, _content(source, name), compresslevel=9)
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
            _save(self._folder / _state_name(self._states[key]), leaves)
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
        _save(self._folder / name, arrays)
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
        _save(self._folder / "rows.npz", {name: c.packed() for name, c in self._columns.items()})
        manifest = {
            "format": FORMAT,
            "versions": dict(versions),
            "script": dict(script),
            "files": {file.name: _digest(file) for file in sorted(self._folder.iterdir())},
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
            encoded = encode_fraction255(rows)
            if encoded is not None:
                self.parts.append(encoded)
                return
            self.parts = [decode_fraction255(part) for part in self.parts]
            self.encoding = PLAIN
        self.parts.append(np.array(rows))

    def packed(self) -> np.ndarray:
        return np.concatenate(self.parts) if self.parts else np.zeros((0, *self.shape), self.dtype)

    def feature(self) -> Feature:
        return Feature(tuple(self.shape), str(self.dtype), self.encoding)


def encode_fraction255(values: np.ndarray) -> np.ndarray | None:
    """The numerators k where every value is bitwise float32(k) / float32(255), else None.

    >>> encode_fraction255(np.float32([0, 1]) / np.float32(255))
    array([0, 1], dtype=uint8)
    >>> encode_fraction255(np.float32([0.3])) is None
    True
    """
    with np.errstate(invalid="ignore"):  # NaN and infinity fail the comparison below
        numerators = np.rint(np.clip(values, 0, 1) * np.float32(255)).astype(np.uint8)
    same = decode_fraction255(numerators).view(np.uint32) == np.asarray(values).view(np.uint32)
    return numerators if same.all() else None


def decode_fraction255(numerators: np.ndarray) -> np.ndarray:
    """float32(k) / float32(255) for every numerator k."""
    return numerators.astype(np.float32) / np.float32(255)


def _state_name(number: int) -> str:
    return f"state_{number:04d}.npz"


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # An .npz by hand: np.savez cannot take a feature called "file", and stamps the time of day.
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(name + ".npy")
            # Small arrays are mostly headers, which `pack` compresses all together.
            small = np.asarray(array).nbytes < _SMALL
            entry.compress_type = zipfile.ZIP_STORED if small else zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)


class _NotPackedError(Exception):
    """The path is a file that is no packed trace."""


def _content(path: Path, name: str) -> bytes:
    """One file of a trace, from the folder or the packed file."""
    if not path.is_file():
        return (path / name).read_bytes()
    if not zipfile.is_zipfile(path):
        raise _NotPackedError
    with zipfile.ZipFile(path) as archive:
        try:
            return archive.read(name)
        except KeyError:
            raise FileNotFoundError(name) from None
        except RuntimeError as error:  # a flipped bit names another compression, or a password
            raise zipfile.BadZipFile(str(error)) from None


def _load(path: Path, name: str) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(_content(path, name)), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise TraceError(
            f"{path / name} cannot be read ({error}); copy the trace afresh or record it again."
        ) from None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
