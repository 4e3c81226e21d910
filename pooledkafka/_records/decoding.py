"""Decodes the records of one batch, message format v2, for everybody who reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Columns", "UndecodableError", "decode", "headers_size"]


class UndecodableError(ValueError):
    """The bytes are no records of that count."""


@dataclass(slots=True)
class Columns:
    """What a batch's records are made of, field by field; sizes in bytes, -1 for what is not there."""

    offsets: list[int]
    timestamps: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[tuple[tuple[str, bytes | None], ...]] | None
    """None where no record has any."""
    key_sizes: list[int]
    value_sizes: list[int]
    header_sizes: list[int]
    size: int
    """Bytes of all records, without the varints that say how long each is."""
    records: list[Any] | None = None
    """What a consumer has made of them that others may have as it is; set by any thread, each to the same."""

    def __len__(self) -> int:
        return len(self.offsets)


def decode(data: bytes, at: int, end: int, count: int, base_offset: int, base_timestamp: int) -> Columns:
    """The ``count`` records in ``data`` from ``at`` up to ``end``, which are not compressed.

    Raises UndecodableError where they do not fill it exactly.

    A varint of one or two bytes is decoded where it stands: a call for each would cost more than all the rest.
    """
    offsets: list[int] = []
    timestamps: list[int] = []
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    headers: list[tuple[tuple[str, bytes | None], ...]] = []
    add_offset, add_timestamp, add_key, add_value = offsets.append, timestamps.append, keys.append, values.append
    size = 0
    try:
        for index in range(count):
            n = data[at]
            at += 1
            if n > 127:
                b = data[at]
                at += 1
                if b > 127:
                    n, at = _varint(data, at - 2)
                else:
                    n += (b << 7) - 128
            n >>= 1
            size += n
            following = at + n
            at += 1  # attributes, of which there are none
            n = data[at]
            at += 1
            if n > 127:
                b = data[at]
                at += 1
                if b > 127:
                    n, at = _varint(data, at - 2)
                else:
                    n += (b << 7) - 128
            add_timestamp(base_timestamp - (n >> 1) - 1 if n & 1 else base_timestamp + (n >> 1))
            n = data[at]
            at += 1
            if n > 127:
                b = data[at]
                at += 1
                if b > 127:
                    n, at = _varint(data, at - 2)
                else:
                    n += (b << 7) - 128
            add_offset(base_offset + (n >> 1))
            n = data[at]
            at += 1
            if n == 1:
                add_key(None)
            else:
                if n > 127:
                    b = data[at]
                    at += 1
                    if b > 127:
                        n, at = _varint(data, at - 2)
                    else:
                        n += (b << 7) - 128
                n >>= 1
                add_key(data[at : at + n])
                at += n
            n = data[at]
            at += 1
            if n == 1:
                add_value(None)
            else:
                if n > 127:
                    b = data[at]
                    at += 1
                    if b > 127:
                        n, at = _varint(data, at - 2)
                    else:
                        n += (b << 7) - 128
                n >>= 1
                add_value(data[at : at + n])
                at += n
            if data[at]:
                if not headers:
                    headers = [()] * index
                found, at = _headers(data, at)
                headers.append(found)
            else:
                at += 1
                if headers:
                    headers.append(())
            if at != following:
                raise UndecodableError(f"record {index} of {count} ends at {at}, not at {following}")
    except (IndexError, UnicodeDecodeError) as error:
        raise UndecodableError(f"a record of {count} is incomplete: {error}") from error
    if at != end:
        raise UndecodableError(f"{count} records end at {at}, not at {end}")
    return Columns(
        offsets,
        timestamps,
        keys,
        values,
        headers or None,
        _sizes(keys),
        _sizes(values),
        [headers_size(each) for each in headers] if headers else [-1] * count,
        size,
    )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The varint at ``at``, still zigzag-encoded, and where what follows it begins."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise UndecodableError(f"the varint that ends at {at} is longer than ten bytes")


def _length(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (-1 if value & 1 else value >> 1), at


def _headers(data: bytes, at: int) -> tuple[tuple[tuple[str, bytes | None], ...], int]:
    count, at = _length(data, at)
    found: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        length, at = _length(data, at)
        if length < 0:
            raise UndecodableError("a header has no key")
        key = data[at : at + length].decode()
        at += length
        length, at = _length(data, at)
        if length < 0:
            found.append((key, None))
        else:
            found.append((key, data[at : at + length]))
            at += length
    return tuple(found), at


def _sizes(column: Sequence[bytes | None]) -> list[int]:
    return [-1 if each is None else len(each) for each in column]


def headers_size(headers: Iterable[tuple[str, bytes | None]]) -> int:
    return sum(len(key.encode()) + len(value or b"") for key, value in headers) if headers else -1
