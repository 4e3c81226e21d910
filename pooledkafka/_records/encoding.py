"""Encodes many records at once as those of a batch, message format v2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Encoded", "Record", "encode"]

_TABLE_SIZE = 1 << 14


def _varint(value: int) -> bytes:
    """``value``, zigzag-encoded."""
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    encoded = bytearray()
    while rest > 127:
        encoded.append(rest & 127 | 128)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


_VARINTS = [_varint(value) for value in range(_TABLE_SIZE)]
"""Most lengths and offsets are in here: looking one up costs a tenth of encoding it."""


class Record(NamedTuple):
    """What is sent."""

    key: bytes | bytearray | memoryview | None
    value: bytes | bytearray | memoryview | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp: int


class Encoded(NamedTuple):
    """Records of a batch, without its header and not compressed."""

    data: bytes
    number: int
    """How many they are."""
    max_timestamp: int
    largest: int
    """Bytes of the largest of them."""


def encode(records: Sequence[Record], first: int, since: int, room: int) -> Encoded:
    """Encode as many of ``records`` as fit into ``room`` bytes of a batch that has ``first`` records already.

    Of a new batch it is one at least. ``since`` is the batch's first timestamp.
    """
    parts: list[bytes | bytearray | memoryview] = []
    varints = _VARINTS
    size = largest = 0
    latest = since
    index = first
    for key, value, headers, timestamp in records:
        try:
            since_first = timestamp - since
            if headers or value is None or since_first < 0:
                raise IndexError  # not one of the many that look alike
            of_time, of_index, of_value = varints[since_first], varints[index], varints[len(value)]
            n = 3 + len(of_time) + len(of_index) + len(of_value) + len(value)
            if key is None:
                of_record = varints[n]
                n += len(of_record)
                if size + n > room and index:
                    break
                parts += (of_record, b"\0", of_time, of_index, b"\1", of_value, value, b"\0")
            else:
                of_key = varints[len(key)]
                n += len(of_key) + len(key) - 1
                of_record = varints[n]
                n += len(of_record)
                if size + n > room and index:
                    break
                parts += (of_record, b"\0", of_time, of_index, of_key, key, of_value, value, b"\0")
        except IndexError:
            record = _encode_one(index, timestamp - since, key, value, headers)
            n = len(record)
            if size + n > room and index:
                break
            parts.append(record)
        size += n
        index += 1
        if timestamp > latest:
            latest = timestamp
        if n > largest:
            largest = n
    return Encoded(b"".join(parts), index - first, latest, largest)


def _encode_one(
    index: int,
    timestamp_delta: int,
    key: bytes | bytearray | memoryview | None,
    value: bytes | bytearray | memoryview | None,
    headers: Sequence[tuple[str, bytes | None]],
) -> bytes:
    parts = [b"\0", _varint(timestamp_delta), _varint(index), *_sized(key), *_sized(value), _varint(len(headers))]
    for name, content in headers:
        parts += (*_sized(name.encode()), *_sized(content))
    body = b"".join(parts)
    return _varint(len(body)) + body


def _sized(content: bytes | bytearray | memoryview | None) -> tuple[bytes | bytearray | memoryview, ...]:
    return (b"\1",) if content is None else (_varint(len(content)), content)
