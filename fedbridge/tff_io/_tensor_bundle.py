"""TensorFlow's tensor bundles, `PREFIX.index` and `PREFIX.data-00000-of-00001`, without TensorFlow.

The index is a LevelDB table: blocks of (key, value), each with a checksum, and a footer that says
where the block of blocks lies. Its first value is a BundleHeaderProto, the others are
BundleEntryProtos: dtype, shape, and where in the data file the tensor lies, with its checksum.

Reference: tensorflow/core/util/tensor_bundle/tensor_bundle.cc, tsl/lib/io/{table,block,format}.cc,
tensorflow/core/protobuf/tensor_bundle.proto.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from fedbridge.jax_core import StateError
from fedbridge.tff_io._crc32c import masked_crc32c
from fedbridge.tff_io._proto import (
    DamagedBytesError,
    fixed32,
    message,
    read_fields,
    read_varint,
    repeated,
    varint,
)

DTYPES = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    8: np.dtype("<c8"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    14: np.dtype(jnp.bfloat16),
    17: np.dtype("<u2"),
    18: np.dtype("<c16"),
    19: np.dtype("<f2"),
    22: np.dtype("<u4"),
    23: np.dtype("<u8"),
}
"""TensorFlow's numbers of dtypes (tensorflow/core/framework/types.proto)."""

STRING = 7
"""TensorFlow's number of strings; in NumPy, objects that are bytes."""

_NUMBERS = {dtype: number for number, dtype in DTYPES.items()}
_INDEX, _SHARD = ".index", ".data-00000-of-00001"
_MAGIC = 0xDB4775248B80FB57
_FOOTER, _TRAILER = 48, 5  # after a block: one byte of compression, four of checksum


def dtype_number(array: np.ndarray) -> int | None:
    """TensorFlow's number of an array's dtype; None where it has none."""
    return STRING if array.dtype == object else _NUMBERS.get(array.dtype.newbyteorder("<"))


def shape_proto(shape: tuple[int, ...]) -> bytes:
    """A TensorShapeProto."""
    return message(*repeated(2, (message((1, size)) for size in shape)))


def write_bundle(prefix: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors under their names, in one shard.

    Args:
        prefix: What the names of both files begin with.
        tensors: Arrays of a dtype of `DTYPES`, or of bytes objects.

    Example:
        >>> import tempfile
        >>> prefix = Path(tempfile.mkdtemp(), "variables")
        >>> write_bundle(prefix, {"w": np.arange(3), "name": np.array(b"a", object)})
        >>> read_bundle(prefix)
        {'name': array(b'a', dtype=object), 'w': array([0, 1, 2])}
    """
    entries = {b"": message((1, 1), (3, message((1, 1))))}  # one shard, little-endian, version 1
    offset = 0
    with prefix.with_name(prefix.name + _SHARD).open("wb") as file:
        for name, array in sorted(tensors.items(), key=lambda item: item[0].encode()):
            content, checksum = _encode(array)
            number = dtype_number(array)
            assert number is not None
            entries[name.encode()] = message(
                (1, number), (2, shape_proto(array.shape)), (4, offset), (5, len(content))
            ) + fixed32(6, checksum)
            file.write(content)
            offset += len(content)
    prefix.with_name(prefix.name + _INDEX).write_bytes(_table(entries))


def read_bundle(prefix: Path) -> dict[str, np.ndarray]:
    """All tensors under their names; every checksum is verified.

    Raises:
        StateError: A file is absent or damaged, or holds what this cannot read: several shards,
            slices of a tensor, big-endian numbers, another dtype.
    """
    index, data = (prefix.with_name(prefix.name + end) for end in (_INDEX, _SHARD))
    try:
        entries = dict(_entries(_read(index)))
        _check_header(entries.pop(b"", b""))
        content = _read(data)
        return {name.decode(): _tensor(name, entry, content) for name, entry in entries.items()}
    except DamagedBytesError as error:
        raise StateError(
            f"{prefix}: {error}; use the state of an earlier round, or save it again."
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StateError(
            f"{path}: {error.strerror}; give a folder that TensorFlow or fedbridge saved."
        ) from None


# The table of the index.


def _table(entries: Mapping[bytes, bytes]) -> bytes:
    """A table of one block; the keys are in order."""
    content = _with_trailer(_block(entries))
    handles = [varint(0) + varint(len(content) - _TRAILER)]
    for block in ({}, {max(entries): handles[0]}):  # the meta index, and the index
        start, block = len(content), _block(block)
        content += _with_trailer(block)
        handles.append(varint(start) + varint(len(block)))
    return content + b"".join(handles[1:]).ljust(_FOOTER - 8, b"\0") + _MAGIC.to_bytes(8, "little")


def _block(entries: Mapping[bytes, bytes]) -> bytes:
    """(bytes shared with the last key, other bytes of the key, bytes of the value)*, restarts."""
    records = [
        varint(0) + varint(len(key)) + varint(len(value)) + key + value
        for key, value in entries.items()
    ]
    restarts = [0, *itertools.accumulate(map(len, records))][: len(records) or 1]
    return b"".join(records) + np.array([*restarts, len(restarts)], "<u4").tobytes()


def _with_trailer(block: bytes) -> bytes:
    content = block + b"\0"  # not compressed
    return content + masked_crc32c(content).to_bytes(4, "little")


def _entries(index: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a table."""
    footer = index[-_FOOTER:]
    if len(footer) < _FOOTER or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise DamagedBytesError("its index is no table, or cut off")
    meta, at = _handle(footer, 0)
    if list(_records(index, *meta)):
        raise DamagedBytesError("its index has filters, which TensorFlow writes none of")
    last = None
    for _, handle in _records(index, *_handle(footer, at)[0]):
        for key, value in _records(index, *_handle(handle, 0)[0]):
            if last is not None and key <= last:
                raise DamagedBytesError("the keys of its index are not in order")
            last = key
            yield key, value


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    start, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (start, size), at


def _records(index: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a block."""
    end = start + size
    if end + _TRAILER > len(index) - _FOOTER or size < 4:
        raise DamagedBytesError("its index is cut off")
    stored = int.from_bytes(index[end + 1 : end + _TRAILER], "little")
    if masked_crc32c(index[start : end + 1]) != stored:
        raise DamagedBytesError("its index is damaged (a checksum differs)")
    if index[end]:
        raise DamagedBytesError(f"its index is compressed (type {index[end]}), which is not read")
    block = index[start:end]
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")
    at, key = 0, b""
    while at < end:
        shared, at = read_varint(block, at)
        own, at = read_varint(block, at)
        length, at = read_varint(block, at)
        if shared > len(key) or at + own + length > end:
            raise DamagedBytesError("its index is damaged (a record ends after its block)")
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _check_header(header: bytes) -> None:
    """Refuses what is read differently: several shards, another byte order, a later version."""
    fields = dict(read_fields(header))
    version = dict(read_fields(_bytes(fields.get(3, b""))))
    if fields.get(1) != 1:
        raise DamagedBytesError(f"it is written in {fields.get(1, 0)} shards, and one can be read")
    if fields.get(2, 0):
        raise DamagedBytesError("its numbers are big-endian, and little-endian ones can be read")
    if _int(version.get(2, 0)) > 1:
        raise DamagedBytesError(f"it is for readers of version {version[2]}, and this is version 1")


# The tensors of the data file.


def _encode(array: np.ndarray) -> tuple[bytes, int]:
    """A tensor's bytes, and their checksum."""
    if array.dtype != object:
        content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        return content, masked_crc32c(content)
    values = [bytes(value) for value in array.ravel()]
    lengths = b"".join(varint(len(value)) for value in values)
    head = _lengths_checksum([len(value) for value in values])
    text = b"".join(values)
    return lengths + head[-4:] + text, masked_crc32c(head + text)


def _lengths_checksum(lengths: list[int]) -> bytes:
    """What is checksummed in place of the strings' lengths: fixed numbers, and their checksum."""
    fixed = b"".join(size.to_bytes(4 if size < 1 << 32 else 8, "little") for size in lengths)
    return fixed + masked_crc32c(fixed).to_bytes(4, "little")


def _tensor(name: bytes, entry: bytes, data: bytes) -> np.ndarray:
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise DamagedBytesError(f"the name {name!r} is not UTF-8") from None
    fields: dict[int, int | bytes] = dict(read_fields(entry))
    shape = _shape(text, _bytes(fields.get(2, b"")))
    shard, start, size, checksum = (_int(fields.get(number, 0)) for number in (3, 4, 5, 6))
    if fields.get(7):
        raise DamagedBytesError(f"{text!r} is cut into slices, and whole tensors can be read")
    if shard:
        raise DamagedBytesError(f"{text!r} lies in shard {shard}, and there is only one")
    if start + size > len(data):
        raise DamagedBytesError(f"its data are cut off: {text!r} ends at byte {start + size}")
    content = data[start : start + size]
    number = _int(fields.get(1, 0))
    if number == STRING:
        return _strings(text, shape, content, checksum)
    if number not in DTYPES:
        raise DamagedBytesError(f"{text!r} is of TensorFlow's dtype {number}, which is not read")
    if size != math.prod(shape) * DTYPES[number].itemsize:
        raise DamagedBytesError(f"{text!r} has {size} bytes, which its shape {shape} has not")
    if masked_crc32c(content) != checksum:
        raise DamagedBytesError(f"{text!r} is damaged (its checksum differs)")
    if number == _NUMBERS[np.dtype(bool)] and content.translate(None, b"\0\1"):
        raise DamagedBytesError(f"{text!r} holds bytes that are neither true nor false")
    return _reshaped(text, np.frombuffer(content, DTYPES[number]).copy(), shape)


def _strings(name: str, shape: tuple[int, ...], content: bytes, checksum: int) -> np.ndarray:
    lengths, at = [], 0
    for _ in range(math.prod(shape)):
        if at >= len(content):
            break
        size, at = read_varint(content, at)
        lengths.append(size)
    if len(lengths) != math.prod(shape) or at + 4 + sum(lengths) != len(content):
        raise DamagedBytesError(f"{name!r} has other lengths of strings than its size")
    if masked_crc32c(_lengths_checksum(lengths)[:-4] + content[at:]) != checksum:
        raise DamagedBytesError(f"{name!r} is damaged (its checksum differs)")
    array = np.empty(len(lengths), object)
    at += 4
    for i, size in enumerate(lengths):
        array[i] = content[at : at + size]
        at += size
    return _reshaped(name, array, shape)


def _reshaped(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return array.reshape(shape)
    except ValueError:  # more dimensions than NumPy has, or no entry and a huge size
        raise DamagedBytesError(f"{name!r} has the shape {shape}, which NumPy has not") from None


def _shape(name: str, proto: bytes) -> tuple[int, ...]:
    fields = read_fields(proto)
    sizes = [
        _int(dict(read_fields(_bytes(dim))).get(1, 0)) for number, dim in fields if number == 2
    ]
    if any(size >> 63 for size in sizes) or dict(fields).get(3):
        raise DamagedBytesError(f"{name!r} has no shape")
    return tuple(sizes)


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise DamagedBytesError("a message where a number belongs")
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise DamagedBytesError("a number where a message belongs")
    return value
