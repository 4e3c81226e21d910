"""A record batch of format v2 in the answer of a broker, and the records in it once they are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBase, DefaultRecordBatch
from kafka.record.util import calc_crc32c
from kafka.structs import TopicPartition

from pooledkafka._records import Columns, decode, headers_size
from pooledkafka._wire.collector import listed

__all__ = ["HEADER_SIZE", "PREFIX_SIZE", "RecordBatch"]

_HEADER = DefaultRecordBase.HEADER_STRUCT
HEADER_SIZE = _HEADER.size
PREFIX_SIZE = DefaultRecordBase.AFTER_LEN_OFFSET
"""Bytes of a batch that its length does not count."""

_TOGETHER = 512
"""Batches up to the next multiple of so many offsets are read together: about what a poll returns."""
_TOGETHER_BYTES = 131_072
"""Or of fewer, where these would be more bytes than that."""

_record = partial(tuple.__new__, ConsumerRecord)


class _Portion(NamedTuple):
    """A batch that was taken in by another one: where it lies in that."""

    begin: int
    end: int
    header: bytes
    records: int  # how many come before it,
    content: int  # of how many bytes,
    offset: int  # and where those end


class RecordBatch:
    """What its header says, and its records, once they are decoded.

    It is as large as its producer made it, often of a few records, and what is done for a batch costs more than those.
    So it can take in the batches that follow it, before it is shared. From then on it does not change.
    """

    def __init__(self, partition: TopicPartition, data: bytes, at: int) -> None:
        self.partition = partition
        (
            self.base_offset,
            length,
            self.leader_epoch,
            magic,
            self._crc,
            attributes,
            last_offset_delta,
            self._first_timestamp,
            max_timestamp,
            self.producer_id,
            _,
            _,
            self._count,
        ) = _HEADER.unpack_from(data, at)
        self.size = PREFIX_SIZE + length
        self.next_offset = self.base_offset + last_offset_delta + 1
        self.is_transactional = bool(attributes & DefaultRecordBase.TRANSACTIONAL_MASK)
        self.is_control_batch = bool(attributes & DefaultRecordBase.CONTROL_MASK)
        self._compressed = bool(attributes & DefaultRecordBase.CODEC_MASK)
        self._timestamp_type = int(bool(attributes & DefaultRecordBase.TIMESTAMP_TYPE_MASK))
        self._log_append_time = max_timestamp if self._timestamp_type else None
        self._alike = magic, self.leader_epoch, self._timestamp_type  # in all that are read together
        self._taken_in: list[_Portion] = []
        self.columns: Columns  # once it is decoded
        self._made: list[Any] | None = None

    @property
    def taken_in(self) -> int:
        """How many others it has taken in."""
        return len(self._taken_in)

    def check(self, data: bytes, at: int) -> None:
        """Raise CorruptRecordError if what lies there are not the bytes that were written."""
        if calc_crc32c(memoryview(data)[at + DefaultRecordBase.ATTRIBUTES_OFFSET : at + self.size]) != self._crc:
            raise CorruptRecordError(
                f"Record batch for partition {self.partition} at offset {self.base_offset} failed crc check"
            )

    def decode(self, data: bytes, at: int) -> None:
        """Decode what lies there; raises UndecodableError."""
        start, end = at + HEADER_SIZE, at + self.size
        if self._compressed:
            batch = DefaultRecordBatch(memoryview(data)[at:end])
            batch._maybe_uncompress()
            data, start, end = bytes(batch._buffer), 0, len(batch._buffer)
        self.columns = decode(data, start, end, self._count, self.base_offset, self._first_timestamp)
        if self._log_append_time is not None:
            self.columns.timestamps = [self._log_append_time] * len(self.columns)

    def take_in_following(self, data: bytes, at: int) -> None:
        """Take in those that lie after it, as far as whoever reads it may read them with it, and none is large.

        Whether one goes on with the next depends on these two alone: who has been answered in other portions finds the
        same again after the first few.
        """
        last = self
        while self.columns.size < _TOGETHER_BYTES:
            begin = self.size
            following = last._following(data, at + begin)
            if following is None:
                return
            header = data[at + begin : at + begin + HEADER_SIZE]
            end = begin + following.size
            before = self.columns
            self._taken_in.append(_Portion(begin, end, header, len(before), before.size, self.next_offset))
            self.columns.extend(following.columns)
            self.size, self.next_offset = end, following.next_offset
            last = following

    def _following(self, data: bytes, at: int) -> RecordBatch | None:
        """The one that lies there, decoded, if it is to be read with this one."""
        offsets = self.columns.offsets
        # Where its last records were compacted away, the position after it is not the one after its last record.
        if not self._is_plain or not offsets or offsets[-1] + 1 != self.next_offset or at + HEADER_SIZE > len(data):
            return None
        following = RecordBatch(self.partition, data, at)
        if not HEADER_SIZE <= following.size <= len(data) - at or following.base_offset < self.next_offset:
            return None
        window = min(self._window, following._window)
        if self.base_offset // window != following.base_offset // window:
            return None
        if not following._is_plain or following._alike != self._alike:
            return None
        try:
            following.check(data, at)
            following.decode(data, at)
        except Exception:  # whatever it is, it is met where that batch is the first
            return None
        return following

    @property
    def _is_plain(self) -> bool:
        """Whether it says the same to those who read only what is committed as to others."""
        return not (self.is_transactional or self.is_control_batch)

    @property
    def _window(self) -> int:
        """How many offsets are read together where records are as large as these: a power of two."""
        fitting: int = _TOGETHER_BYTES * self._count // self.size
        return 1 << min(_TOGETHER, max(1, fitting)).bit_length() - 1

    def as_far_as_it_is(self, data: bytes, at: int) -> RecordBatch:
        """It, or as much of it as lies there too, where its own header does: told by the headers and their checksums.

        What it has taken in may be cut off there, or have been written anew since.
        """
        for index, portion in enumerate(self._taken_in):
            if at + portion.end > len(data) or not data.startswith(portion.header, at + portion.begin):
                part = copy(self)
                part.size, part.next_offset, part._taken_in = portion.begin, portion.offset, self._taken_in[:index]
                part.columns = self.columns.first(portion.records, portion.content)
                part._made = self._made and self._made[: portion.records]
                return part
        return self

    def make(self) -> None:
        """Make all records at once, where all who read them may have the same.

        Nothing can be changed in those without headers, but for their empty lists of them.
        """
        if self.columns.headers is None:
            self._made = listed(self._records(0, len(self.columns)))

    def records(self, start: int, stop: int) -> list[Any]:
        """Those from ``start`` up to ``stop``, as ConsumerRecords whose keys and values are as they were written."""
        made = self._made
        if made is None:
            return listed(self._records(start, stop))
        return made if stop - start == len(made) else made[start:stop]

    def _records(self, start: int, stop: int) -> Iterator[Any]:
        columns, part = self.columns, slice(start, stop)
        keys, values, headers = columns.keys, columns.values[part], columns.headers
        return map(
            _record,
            zip(
                repeat(self.partition.topic),
                repeat(self.partition.partition),
                repeat(self.leader_epoch),
                columns.offsets[part],
                columns.timestamps[part],
                repeat(self._timestamp_type),
                keys[part] if keys else repeat(None),
                values,
                # Lists of their own: what a consumer does to its headers is nothing to the others.
                map(list, headers[part] if headers else repeat(())),
                repeat(None),  # checksum
                _sizes(keys[part]) if keys else repeat(-1),
                _sizes(values),
                map(headers_size, headers[part]) if headers else repeat(-1),
            ),
        )


def _sizes(contents: list[bytes | None]) -> list[int]:
    return [-1 if each is None else len(each) for each in contents]
