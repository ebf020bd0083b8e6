"""Damages data files and reads them: equal to another reader's result, or refused in one sentence.

    python scripts/fuzz_readers.py [--cases 10000] [--seed 0] [--rows 1] [--reader sqlite ...]

Each case is one seed: it chooses cuts, flipped bits, overwritten, inserted, removed and repeated
bytes. A case that takes more than `LIMIT` seconds of processor time fails; a reader's process that
says nothing for `PATIENCE` seconds (others may keep the processor busy) is ended and counts as a
hang, one that dies as a crash; both go on with the next seed. The references are SQLite itself,
Google's protobuf, h5py, json, lzma and numpy. Exit code 1 where any case failed.

Memory (on Linux): what a case takes is by how much the resident memory of its process rises while
the file is read, and that of the processes it starts; what was freed before is given back to the
system first. A case may take what the sound file takes (the most of three times), and `TIMES` times
the size of that file, and `SLACK`, below which allocators and pages count. The files are small, so
that damage meets every part of them; with `--rows 100` they have a hundred times the rows, and
`TIMES` outweighs `SLACK`.
"""

import argparse
import contextlib
import ctypes
import io
import json
import lzma
import multiprocessing
import os
import sqlite3
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from fedbridge.jax_core import FedbridgeError
from fedbridge.tff_io import from_hdf5, from_leaf, from_sql, weights_from_npz, write_sql

LIMIT, PATIENCE = 10.0, 60.0  # seconds; from_hdf5 alone allows its child five
TIMES, SLACK = 4, 1024  # of the file; KiB
_UNKNOWN = -(1 << 40)
Clients = dict[str, dict[str, np.ndarray]]


class Case(NamedTuple):
    """What came of a case.

    Attributes:
        verdict: "read", "refused", or what is wrong.
        seconds: Processor time of the reader alone, and of the processes that it starts.
        kib: What it took of memory; 0 where that cannot be known.
    """

    verdict: str
    seconds: float
    kib: int


class Reader(NamedTuple):
    """What is damaged, and the two that read it.

    Attributes:
        name: The file's name.
        make: A sound file's bytes.
        damage: Those bytes, damaged with a generator.
        read: fedbridge's reader.
        reference: The other one.
        share: How many of a hundred cases; some readers are slow.
    """

    name: str
    make: Callable[[], bytes]
    damage: Callable[[bytes, np.random.Generator], bytes]
    read: Callable[[Path], Any]
    reference: Callable[[Path, Any], Any]
    share: int


# --- damage -----------------------------------------------------------------------------------


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes of bytes."""
    data = bytearray(whole)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(data) + 1))
        size = int(min(rng.geometric(0.1), 200))
        kind = rng.choice(["flip", "flip", "flip", "cut", "write", "insert", "remove", "repeat"])
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == "cut":
            del data[at:]
        elif kind == "write":
            data[at : at + size] = rng.bytes(size) if rng.random() < 0.5 else bytes(size)
        elif kind == "insert":
            data[at:at] = rng.bytes(size)
        elif kind == "remove":
            del data[at : at + size]
        elif kind == "repeat":
            data[at:at] = data[at : at + size]
    return bytes(data)


def _damaged_record(whole: bytes, rng: np.random.Generator) -> bytes:
    """An SQLite file with one damaged record, or one of another type."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(whole)
        rows = connection.execute("SELECT rowid, serialized_example_proto FROM examples").fetchall()
        row, record = rows[int(rng.integers(len(rows)))]
        other: Any = damaged(record, rng)
        if rng.random() < 0.03:
            other = [None, 3, 0.5, "text", b""][int(rng.integers(5))]
        connection.execute(
            "UPDATE examples SET serialized_example_proto = ? WHERE rowid = ?", (other, row)
        )
        connection.commit()
        return connection.serialize()


def _damaged_json(whole: bytes, rng: np.random.Generator) -> bytes:
    """A JSON file with one value put in the place of another, or damaged bytes."""
    if rng.random() < 0.5:
        return damaged(whole, rng)
    tree = json.loads(whole)
    places = [(tree, key) for key in tree]
    for holder, key in places:
        inner = holder[key]
        if isinstance(inner, dict | list):
            places.extend(
                (inner, k) for k in (inner if isinstance(inner, dict) else range(len(inner)))
            )
    holder, key = places[int(rng.integers(len(places)))]
    others = [None, True, 3, -1.5, 1e400, 10**30, "text", "\ud800", [], [1, [2]], {}, {"a": 1}]
    holder[key] = others[int(rng.integers(len(others)))]
    return json.dumps(tree).encode()


# --- sound files, and the two readers of each ---------------------------------------------------

SPEC: Any = {"label": ((), "int32"), "pixels": ((2, 2), "float32"), "text": ((), bytes)}


def _clients(times: int = 1) -> Clients:
    rng = np.random.default_rng(0)
    return {
        client_id: {
            "label": rng.integers(0, 62, size).astype(np.int32),
            "pixels": rng.random((size, 2, 2)).astype(np.float32),
            "text": np.array([b"word " * int(n) for n in rng.integers(0, 5, size)], object),
        }
        for client_id, size in (("a", 12 * times), ("b", 5 * times), ("none", 0), ("c", 1))
    }


def _sqlite(times: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_sql(Path(folder, "x.sqlite"), {"train": _clients(times)}).read_bytes()


def _packed(times: int) -> bytes:
    return lzma.compress(_sqlite(times))


def _hdf5(times: int) -> bytes:
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as made:
        for client_id, features in _clients(times).items():
            for name, rows in features.items():
                text = {"dtype": h5py.string_dtype()} if rows.dtype == object else {}
                packed = {"compression": "gzip"} if client_id == "a" and not text else {}
                made.create_dataset(f"examples/{client_id}/{name}", data=rows, **text, **packed)
    return file.getvalue()


def _leaf(times: int) -> bytes:
    clients = _clients(times)
    data = {
        c: {"x": f["pixels"].tolist(), "y": [t.decode() for t in f["text"]]}
        for c, f in clients.items()
    }
    counts = [len(f["x"]) for f in data.values()]
    return json.dumps({"users": list(data), "num_samples": counts, "user_data": data}).encode()


def _weights(times: int) -> dict[str, np.ndarray]:
    rows = np.arange(12 * times, dtype=np.float32).reshape(-1, 3)
    return {"b": np.zeros(3, np.float32), "w": rows}


def _npz(times: int) -> bytes:
    from fedbridge.tff_io import weights_to_npz

    with tempfile.TemporaryDirectory() as folder:
        weights_to_npz(_weights(times), Path(folder, "w.npz"))
        return Path(folder, "w.npz").read_bytes()


def _as_dict(data: Any) -> Clients:
    return {client_id: data.client(client_id) for client_id in data.client_ids}


def _example_class() -> Any:
    """tf.train.Example, from its definition (tensorflow/core/example/*.proto)."""
    proto = descriptor_pb2.FileDescriptorProto(name="x.proto", package="x", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields: tuple[str, int, int, str, bool, bool]) -> Any:
        made = proto.message_type.add(name=name)
        for field, number, kind, type_name, many, in_oneof in fields:
            made.field.add(
                name=field,
                number=number,
                type=kind,
                type_name=type_name or None,
                label=kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL,
                **({"oneof_index": 0} if in_oneof else {}),
            )
        return made

    inner = kinds.TYPE_MESSAGE
    message("BytesList", ("value", 1, kinds.TYPE_BYTES, "", True, False))
    message("FloatList", ("value", 1, kinds.TYPE_FLOAT, "", True, False))
    message("Int64List", ("value", 1, kinds.TYPE_INT64, "", True, False))
    lists = ("BytesList", "FloatList", "Int64List")
    feature = message(
        "Feature",
        *((f"f{i}", i, inner, f".x.{name}", False, True) for i, name in enumerate(lists, 1)),
    )
    feature.oneof_decl.add(name="kind")
    features = message("Features", ("feature", 1, inner, ".x.Features.FeatureEntry", True, False))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    one = kinds.LABEL_OPTIONAL
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=one)
    entry.field.add(name="value", number=2, type=inner, type_name=".x.Feature", label=one)
    message("Example", ("features", 1, inner, ".x.Features", False, False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("x.Example"))


_Example = _example_class()


def _sql_reference(path: Path, found: Clients) -> Clients:
    clients: Clients = {}
    query = (
        "SELECT serialized_example_proto FROM examples NOT INDEXED "
        "WHERE client_id = ? AND split_name IS ? ORDER BY rowid"
    )
    connection = sqlite3.connect(path)
    try:
        (split,) = connection.execute("SELECT DISTINCT split_name FROM client_metadata").fetchone()
        for (client_id,) in connection.execute("SELECT client_id FROM client_metadata"):
            rows = []
            for (record,) in connection.execute(query, (client_id, split)):
                features = _Example.FromString(record).features.feature
                rows.append(
                    (
                        list(features["label"].f3.value),
                        list(features["pixels"].f2.value),
                        list(features["text"].f1.value),
                    )
                )
            labels, pixels, texts = ([row[i] for row in rows] for i in range(3))
            text = np.empty(len(rows), object)
            text[:] = [value for (value,) in texts]
            clients[client_id] = {
                "label": np.array(labels, np.int64).reshape(len(rows)),
                "pixels": np.array(pixels, np.float32).reshape(-1, 2, 2),
                "text": text,
            }
    finally:
        connection.close()
    return clients


def _packed_reference(path: Path, found: Clients) -> Clients:
    unpacked = path.with_name("unpacked.sqlite")
    unpacked.write_bytes(lzma.decompress(path.read_bytes()))
    return _sql_reference(unpacked, found)


def _hdf5_reference(path: Path, found: Clients) -> Clients:
    import h5py

    with h5py.File(path) as file:
        groups: Any = file["examples"]
        return {c: {n: d[()] for n, d in group.items()} for c, group in groups.items()}


def _leaf_reference(path: Path, found: Clients) -> Clients:
    """The values that JSON has, in the dtypes that were found."""
    tree = json.loads(path.read_bytes())["user_data"]
    values: Clients = {}
    for client_id, features in found.items():
        rows = tree[client_id]
        # A feature "x/0" or "x/key" is one of the fields of rows that are lists or dictionaries.
        values[client_id] = {}
        for name, array in features.items():
            column: Any = rows.get(name, None) if isinstance(rows, dict) else None
            if column is None and "/" in name:
                base, field = name.split("/", 1)
                column = [r[field] if isinstance(r, dict) else r[int(field)] for r in rows[base]]
            column = column or []
            if array.dtype == object:
                strings = np.empty(len(column), object)
                strings[:] = [
                    (c if isinstance(c, str) else " ".join(t for ts in c for t in ts)).encode()
                    for c in column
                ]
                values[client_id][name] = strings
            else:
                values[client_id][name] = np.array(column, array.dtype).reshape(array.shape)
    return values


def _npz_reference(path: Path, found: Any) -> Clients:
    with np.load(path, allow_pickle=False) as stored:
        return {"": {name: stored[name] for name in stored.files}}


def readers(times: int = 1) -> dict[str, Reader]:
    """Every reader by its name, with so many times the rows of a small file."""
    return {
        "sqlite": Reader(
            "x.sqlite",
            lambda: _sqlite(times),
            damaged,
            lambda path: _as_dict(from_sql(path, element_spec=SPEC, cache=False)),
            _sql_reference,
            35,
        ),
        "packed": Reader(
            "x.sqlite.lzma",
            lambda: _packed(times),
            damaged,
            lambda path: _as_dict(from_sql(path, element_spec=SPEC, cache=False)),
            _packed_reference,
            5,
        ),
        "example": Reader(
            "x.sqlite",
            lambda: _sqlite(times),
            _damaged_record,
            lambda path: _as_dict(from_sql(path, element_spec=SPEC, cache=False)),
            _sql_reference,
            25,
        ),
        "hdf5": Reader(
            "x.h5",
            lambda: _hdf5(times),
            damaged,
            lambda path: _as_dict(from_hdf5(path, cache=False)),
            _hdf5_reference,
            5,
        ),
        "leaf": Reader(
            "x.json",
            lambda: _leaf(times),
            _damaged_json,
            lambda path: _as_dict(from_leaf(path)),
            _leaf_reference,
            20,
        ),
        "npz": Reader(
            "x.npz",
            lambda: _npz(times),
            damaged,
            lambda path: {"": weights_from_npz(path, _weights(times))},
            _npz_reference,
            10,
        ),
    }


# --- one case ---------------------------------------------------------------------------------


def run_case(reader: Reader, whole: bytes, seed: int, folder: Path) -> Case:
    """Runs one case."""
    path = folder / reader.name
    path.write_bytes(reader.damage(whole, np.random.default_rng(seed)))
    found, error, began, before = None, None, sum(os.times()[:4]), _memory()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = reader.read(path)
        except Exception as raised:  # noqa: BLE001 -- that is what is looked for
            error = raised
    seconds, kib = sum(os.times()[:4]) - began, _taken(before)
    return Case(_verdict(reader, path, found, error), seconds, kib)


def _verdict(reader: Reader, path: Path, found: Any, error: Exception | None) -> str:
    words = str(error)
    if error is not None and not isinstance(error, FedbridgeError):
        return f"{type(error).__name__}: {words}"
    if error is not None and reader.name not in words:
        return f"the file is not named: {words!r}"
    if error is not None:
        return f"several lines: {words!r}" if "\n" in words else "refused"
    try:
        expected = reader.reference(path, found)
    except Exception as raised:  # noqa: BLE001
        return f"read, and the reference cannot ({type(raised).__name__}: {raised})"
    return _difference(found, expected) or "read"


class _Memory(NamedTuple):
    """Resident memory in KiB: of this process, and the most of one that it has waited for."""

    own: int
    children: int


def _memory() -> _Memory | None:
    """What there is now; the record of the most there was begins anew."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(AttributeError):  # not of every C library
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _Memory(_status("VmRSS"), _children())


def _taken(before: _Memory | None) -> int:
    """KiB since then. A child is counted whole, where it takes more than all before it."""
    if before is None:
        return 0
    child = _children()
    return max(_status("VmHWM") - before.own, child if child > before.children else 0)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _children() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def _difference(found: Clients, expected: Clients) -> str:
    if set(found) != set(expected):
        return f"clients {sorted(found)} instead of {sorted(expected)}"
    for client_id, features in expected.items():
        if set(features) != set(found[client_id]):
            return f"client {client_id!r}: features {sorted(found[client_id])}"
        for name, rows in features.items():
            got = np.asarray(found[client_id][name])
            same = got.shape == rows.shape and (
                got.tolist() == rows.tolist()
                if rows.dtype == object
                else np.array_equal(got, rows, equal_nan=True)
            )
            if not same:
                return f"client {client_id!r}, feature {name!r}: other values"
    return ""


# --- many cases, in a process that may hang or die ------------------------------------------------


def allowed(reader: Reader, whole: bytes, folder: Path) -> int:
    """How many KiB a case of these bytes may take."""
    sound = reader._replace(damage=lambda whole, rng: whole)
    most = max(run_case(sound, whole, 0, folder).kib for _ in range(3))
    return most + (TIMES * len(whole) >> 10) + SLACK


def _work(name: str, times: int, seeds: range, connection: Any) -> None:
    reader = readers(times)[name]
    whole = reader.make()
    with tempfile.TemporaryDirectory() as folder:
        most = allowed(reader, whole, Path(folder))
        for seed in seeds:
            case = run_case(reader, whole, seed, Path(folder))
            if case.kib > most:
                case = case._replace(verdict=f"it took {case.kib} KiB, and may take {most}")
            if case.seconds > LIMIT:
                case = case._replace(verdict=f"it took {case.seconds:.1f} s of processor time")
            connection.send((seed, case._replace(kib=case.kib - most)))
    connection.close()


def run_reader(name: str, times: int, seeds: range) -> Iterator[tuple[int, Case]]:
    """Seed and case, whose `kib` is by how much it passes what is allowed, for each case."""
    context = multiprocessing.get_context("spawn")
    at = seeds.start
    while at < seeds.stop:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(name, times, range(at, seeds.stop), theirs))
        process.start()
        theirs.close()
        patience = 120.0  # it starts
        try:
            while at < seeds.stop:
                if not ours.poll(patience):
                    yield at, Case(f"hang of more than {patience} s", patience, _UNKNOWN)
                    at += 1
                    break
                yield ours.recv()
                at, patience = at + 1, PATIENCE
        except EOFError:
            yield at, Case(f"crash: exit code {process.exitcode}", 0.0, _UNKNOWN)
            at += 1
        finally:
            process.kill()
            process.join()


def main() -> int:
    """Runs the cases and prints a summary."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--cases", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--rows", type=int, default=1, help="so many times those of a small file")
    options.add_argument("--reader", choices=readers(), action="append")
    given = options.parse_args()
    every = readers(given.rows)
    names = given.reader or list(every)
    shares = sum(every[name].share for name in names)
    failed = 0
    for name in names:
        began, counts, longest, nearest = time.monotonic(), Counter(), 0.0, _UNKNOWN
        cases = max(1, given.cases * every[name].share // shares)
        seeds = range(given.seed, given.seed + cases)
        for done, (seed, case) in enumerate(run_reader(name, given.rows, seeds), 1):
            longest, nearest = max(longest, case.seconds), max(nearest, case.kib)
            counts[case.verdict if case.verdict in ("read", "refused") else "failed"] += 1
            if case.verdict not in ("read", "refused"):
                print(f"{name}, seed {seed}: {case.verdict}", flush=True)
            if done % 100 == 0:
                print(f"  {name}: {done} of {cases}", flush=True)
        failed += counts["failed"]
        print(
            f"{name}: {cases} cases of {len(every[name].make())} bytes, "
            f"{counts['read']} read as the reference reads them, {counts['refused']} refused, "
            f"{counts['failed']} failed; {longest:.1f} s of processor time at most; memory "
            f"{-nearest} KiB below what is allowed; {time.monotonic() - began:.0f} s",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
