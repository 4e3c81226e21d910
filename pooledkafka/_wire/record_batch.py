"""A record batch of format v2 in the answer of a broker, and the records in it once they are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import repeat
from typing import Any

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

_record = partial(tuple.__new__, ConsumerRecord)


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
        self._taken_in: list[tuple[int, bytes]] = []  # where each of those begins, and its header
        self.columns: Columns  # once it is decoded
        self._made: list[Any] | None = None

    def is_at(self, data: bytes, at: int) -> bool:
        """Whether all that it has taken in lies there too, where its own header does: by their checksums."""
        return at + self.size <= len(data) and all(
            data.startswith(header, at + begin) for begin, header in self._taken_in
        )

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
        """Take in those that lie after it, as far as whoever reads it may read them with it.

        Where that ends depends on the log alone: who has been answered in other portions finds the same there.
        """
        end = self.base_offset // _TOGETHER + 1
        while self._may_go_on and self.next_offset // _TOGETHER < end:
            following = self._following(data, at + self.size)
            if following is None:
                break
            self._taken_in.append((self.size, data[at + self.size : at + self.size + HEADER_SIZE]))
            self.columns.extend(following.columns)
            self.size += following.size
            self.next_offset = following.next_offset

    @property
    def _may_go_on(self) -> bool:
        """Whether the offset after the last record is where the next batch begins: records may be compacted away."""
        offsets = self.columns.offsets
        return self._is_plain and bool(offsets) and offsets[-1] + 1 == self.next_offset

    @property
    def _is_plain(self) -> bool:
        """Whether it says the same to those who read only what is committed as to others."""
        return not (self.is_transactional or self.is_control_batch)

    def _following(self, data: bytes, at: int) -> RecordBatch | None:
        if at + HEADER_SIZE > len(data):
            return None
        following = RecordBatch(self.partition, data, at)
        if not HEADER_SIZE <= following.size <= len(data) - at:
            return None
        if not following._is_plain or following._alike != self._alike:
            return None
        try:
            following.check(data, at)
            following.decode(data, at)
        except Exception:  # whatever it is, it is met where that batch is the first
            return None
        return following

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
