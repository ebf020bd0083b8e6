"""Protocol buffers without a schema: messages written as pairs of field number and value, and read.

Reference: the protobuf wire format; the numbers stand in TensorFlow's .proto files.
"""

from collections.abc import Iterable, Mapping

Value = int | str | bytes
"""A number, a text, or bytes: those of a nested message, say."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class DamagedBytesError(ValueError):
    """Bytes that are not what they should be; becomes a StateError that says where."""


def message(*fields: tuple[int, Value]) -> bytes:
    """A message of some fields.

    Example:
        >>> message((1, 300), (2, "ab"), (3, message((1, 1))))
        b'\\x08\\xac\\x02\\x12\\x02ab\\x1a\\x02\\x08\\x01'
    """
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [varint(number << 3 | _VARINT), varint(value)]
        else:
            content = value.encode() if isinstance(value, str) else value
            parts += [varint(number << 3 | _LENGTH), varint(len(content)), content]
    return b"".join(parts)


def fixed32(number: int, value: int) -> bytes:
    """A field of four bytes; messages can be concatenated."""
    return varint(number << 3 | _FIXED32) + value.to_bytes(4, "little")


def repeated(number: int, values: Iterable[Value]) -> list[tuple[int, Value]]:
    """The fields of a repeated field."""
    return [(number, value) for value in values]


def mapping(number: int, entries: Mapping[str, bytes]) -> list[tuple[int, Value]]:
    """The fields of a map from names to messages."""
    return [(number, message((1, key), (2, value))) for key, value in entries.items()]


def varint(value: int) -> bytes:
    """A number, seven bits a byte."""
    value &= 0xFFFFFFFFFFFFFFFF
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def read_varint(data: bytes, start: int) -> tuple[int, int]:
    """A number, and where the bytes go on.

    Raises:
        DamagedBytesError: The bytes end within it, or it has more than 64 bits.
    """
    value = 0
    for i, byte in enumerate(data[start : start + 10]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80 and value < 1 << 64:
            return value, start + i + 1
    raise DamagedBytesError(f"a number without an end at byte {start}")


def read_fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a message, in their order: number, and an int or the bytes.

    Raises:
        DamagedBytesError: The bytes are no message.
    """
    fields: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = read_varint(data, at)
            fields.append((tag >> 3, value))
            continue
        if wire == _LENGTH:
            size, at = read_varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise DamagedBytesError(f"wire type {wire} at byte {at}")
        if at + size > len(data):
            raise DamagedBytesError(f"it ends within the value at byte {at}")
        content = data[at : at + size]
        fields.append((tag >> 3, content if wire == _LENGTH else int.from_bytes(content, "little")))
        at += size
    return fields
