"""A trace: what one TFF script did, as a folder that numpy and json can read.

    TRACE/
      manifest.json      what ran: versions, processes, calls, a checksum for every other file
      rows.npz           every distinct row of every batch, once; one packed array per feature
      state_0000.npz     the distinct states; "after round r is before round r + 1" is one file
      call_0000.npz      per call of `next`: its batches as row numbers, and the probes' weights
      computations.npz   what the script's own computations returned, where it has some

`trace_writer` writes it, in the recorder, inside the reference environment; this module reads it,
anywhere. A trace may also be packed, as one .zip of these files.
"""

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedbridge.jax_core import Fraction255, TraceError

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights"
"""The path of a model that is one tensor and no tree: the centroids of k-means."""
COMPUTATIONS, COMPUTATIONS_TIMED = "computations.npz", "computations_timed.npz"
"""What the script's own computations returned, in the first pass and in the timed one."""
PLAIN, FRACTION255 = "plain", "fraction255"


class Feature(NamedTuple):
    """One feature of a row: its shape, its dtype, and how `rows.npz` stores it."""

    shape: tuple[int, ...]
    dtype: str
    encoding: str

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """The rows as the script's model saw them."""
        return Fraction255(stored).decode() if self.encoding == FRACTION255 else stored


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
        return _load(self.path, state_name(number))

    def call(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of call `number`: rows, batch_sizes, step_offsets, probe_1/…, server_step/…"""
        return _load(self.path, self.calls[number].file)

    def called(self) -> list[int]:
        """The processes whose `next` was called; a script may build one for its types only."""
        return sorted({call.process for call in self.calls})

    def computations(self, name: str = COMPUTATIONS) -> dict[str, np.ndarray]:
        """What computations returned, as arrays; none where the script has no computations."""
        return _load(self.path, name) if name in self.files else {}


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
            digest = hashlib.sha256(content(folder, name)).hexdigest()
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
        manifest = json.loads(content(folder, MANIFEST).decode("utf-8"))
        version = manifest["format"]
    except FileNotFoundError:
        raise TraceError(
            f"{folder} is not a trace: it holds no {MANIFEST}; make one with "
            "`fedbridge record SCRIPT -o TRACE`."
        ) from None
    except _NotPackedError:
        raise TraceError(
            f"{folder} is a file, and a trace is a folder; give the folder that "
            "`fedbridge record` wrote, or what `trace_writer.pack` made of it."
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
    if manifest.get("manifest_sha256") != manifest_digest(manifest):
        raise TraceError(
            f"{folder / MANIFEST} was changed after recording (its checksum differs); copy the "
            "trace afresh or record it again."
        )
    return manifest


def state_name(number: int) -> str:
    return f"state_{number:04d}.npz"


class _NotPackedError(Exception):
    """The path is a file that is no packed trace."""


def content(path: Path, name: str) -> bytes:
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


def arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of one .npz file; raises `TraceError` as `read` does."""
    return _load(file.parent, file.name)


def _load(path: Path, name: str) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(content(path, name)), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise TraceError(
            f"{path / name} cannot be read ({error}); copy the trace afresh or record it again."
        ) from None


def digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
