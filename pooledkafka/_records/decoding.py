"""Decodes the records of one batch, message format v2, for everybody who reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Columns", "UndecodableError", "decode", "headers_size"]


_Field = TypeVar("_Field")


class UndecodableError(ValueError):
    """The bytes are no records of that count."""


@dataclass(slots=True)
class Columns:
    """What a batch's records are made of, field by field."""

    offsets: Sequence[int]
    timestamps: list[int]
    keys: list[bytes | None] | None
    """None where no record has one."""
    values: list[bytes | None]
    headers: list[tuple[tuple[str, bytes | None], ...]] | None
    """None where no record has any."""
    size: int
    """Bytes of all records, without the varints that say how long each is."""

    def __len__(self) -> int:
        return len(self.values)

    def first(self, count: int, size: int) -> Columns:
        """Those of the first ``count`` records, which are of ``size`` bytes."""
        keys, headers = self.keys, self.headers
        return Columns(
            self.offsets[:count],
            self.timestamps[:count],
            None if keys is None else keys[:count],
            self.values[:count],
            None if headers is None else headers[:count],
            size,
        )

    def extend(self, following: Columns) -> None:
        """Add those of records that come after these."""
        self.keys = _joined(self.keys, len(self), following.keys, len(following), None)
        self.headers = _joined(self.headers, len(self), following.headers, len(following), ())
        ours, theirs = self.offsets, following.offsets
        if isinstance(ours, range) and isinstance(theirs, range) and ours.stop == theirs.start:
            self.offsets = range(ours.start, theirs.stop)
        else:
            self.offsets = [*ours, *theirs]
        self.timestamps += following.timestamps
        self.values += following.values
        self.size += following.size


def decode(data: bytes, at: int, end: int, count: int, base_offset: int, base_timestamp: int) -> Columns:
    """The ``count`` records in ``data`` from ``at`` up to ``end``, which are not compressed.

    Raises UndecodableError where they do not fill it exactly.

    A varint of one or two bytes is decoded where it stands: a call for each would cost more than all the rest.
    """
    # The first three are empty until a record differs from those in most batches: then they are what is filled.
    offsets: list[int] = []
    keys: list[bytes | None] = []
    headers: list[tuple[tuple[str, bytes | None], ...]] = []
    timestamps: list[int] = []
    values: list[bytes | None] = []
    add_timestamp, add_value = timestamps.append, values.append
    size = 0
    earlier, timestamp = 0, base_timestamp
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
            n = data[at + 1]  # after the attributes, of which there are none
            at += 2
            if n > 127:
                b = data[at]
                at += 1
                if b > 127:
                    n, at = _varint(data, at - 2)
                else:
                    n += (b << 7) - 128
            if n != earlier:  # else they may as well have the same object
                earlier = n
                timestamp = base_timestamp - (n >> 1) - 1 if n & 1 else base_timestamp + (n >> 1)
            add_timestamp(timestamp)
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
            if offsets:
                offsets.append(base_offset + n)
            elif n != index:
                offsets = [*range(base_offset, base_offset + index), base_offset + n]
            n = data[at]
            at += 1
            if n == 1:
                if keys:
                    keys.append(None)
            else:
                if not keys:
                    keys = [None] * index
                if n > 127:
                    b = data[at]
                    at += 1
                    if b > 127:
                        n, at = _varint(data, at - 2)
                    else:
                        n += (b << 7) - 128
                n >>= 1
                keys.append(data[at : at + n])
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
        offsets or range(base_offset, base_offset + count), timestamps, keys or None, values, headers or None, size
    )


def _joined(
    column: list[_Field] | None, length: int, following: list[_Field] | None, count: int, default: _Field
) -> list[_Field] | None:
    if column is None and following is None:
        return None
    column = [default] * length if column is None else column
    column += [default] * count if following is None else following
    return column


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


def headers_size(headers: Iterable[tuple[str, bytes | None]]) -> int:
    return sum(len(key.encode()) + len(value or b"") for key, value in headers) if headers else -1
