"""What a consumer was answered for one partition, decoded as it is taken."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, repeat
from struct import Struct
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.default_records import ControlRecord, DefaultRecordBase, DefaultRecordBatch
from kafka.record.util import calc_crc32c

from pooledkafka._records import Columns, UndecodableError, decode, headers_size
from pooledkafka._wire.collector import listed
from pooledkafka._wire.decoded import DecodedBatches
from pooledkafka._wire.deserializing import Deserializing

__all__ = ["JoinedRecords", "PartitionRecords"]

_HEADER = DefaultRecordBase.HEADER_STRUCT
_PREFIX_SIZE = DefaultRecordBase.AFTER_LEN_OFFSET
_LENGTH = Struct(">i")
_record = partial(tuple.__new__, ConsumerRecord)


class JoinedRecords(bytes):
    """The records of answers that follow each other; its own bytes are those of the first."""

    parts: list[bytes]

    @classmethod
    def of(cls, parts: list[bytes]) -> JoinedRecords:
        joined = cls(parts[0])
        joined.parts = parts
        return joined


class _Batch:
    """A record batch of format v2, where it lies."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data = data
        self.at = at
        self.end = end
        (
            self.base_offset,
            _,
            self.leader_epoch,
            _,
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
        self.next_offset = self.base_offset + last_offset_delta + 1
        self.is_transactional = bool(attributes & DefaultRecordBase.TRANSACTIONAL_MASK)
        self.is_control_batch = bool(attributes & DefaultRecordBase.CONTROL_MASK)
        self._compressed = bool(attributes & DefaultRecordBase.CODEC_MASK)
        self.timestamp_type = int(bool(attributes & DefaultRecordBase.TIMESTAMP_TYPE_MASK))
        self.log_append_time = max_timestamp if self.timestamp_type else None

    def check(self, partition: Any) -> None:
        """Raise CorruptRecordError if these are not the bytes that were written."""
        covered = memoryview(self.data)[self.at + DefaultRecordBase.ATTRIBUTES_OFFSET : self.end]
        if calc_crc32c(covered) != self._crc:
            raise CorruptRecordError(
                f"Record batch for partition {partition} at offset {self.base_offset} failed crc check"
            )

    def decode(self) -> Columns:
        data, at, end = self.data, self.at + _HEADER.size, self.end
        if self._compressed:
            batch = DefaultRecordBatch(memoryview(self.data)[self.at : self.end])
            batch._maybe_uncompress()
            data, at, end = bytes(batch._buffer), 0, len(batch._buffer)
        return decode(data, at, end, self._count, self.base_offset, self._first_timestamp)


class PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """What kafka-python's fetcher takes records from, with each batch decoded once for all consumers of the pool.

    Its records, positions and errors are those of the class that it replaces, but for a record that cannot be read. One
    whose deserializer fails is met again by the next poll, until its consumer seeks past it, as in Kafka's own client;
    what is corrupt is fetched again. kafka-python 3.0.12 would look for more records for ever.
    """

    def __init__(
        self,
        decoded: DecodedBatches,
        deserializing: Deserializing,
        fetch_offset: int,
        tp: Any,
        records: Any,
        **options: Any,
    ) -> None:
        super().__init__(fetch_offset, tp, records, **options)
        self.next_fetch_offset: int = fetch_offset
        self._decoded = decoded
        self._deserializing = deserializing
        self._deserializers = options.get("key_deserializer"), options.get("value_deserializer")
        self._parts = list(getattr(records._buffer, "parts", (records._buffer,)))
        self._at = 0  # in the first part: where the next batch begins
        self._batch: _Batch | None = None  # the one that is being taken, until its last record is
        self._columns: Columns | None = None  # of it
        self._index = 0  # of the next record in it
        # For kafka-python's own decoder: a batch of an older format, or broken in a way that it explains.
        self._foreign: Callable[[], MemoryRecords] | None = None
        self._decoding: Iterator[Any] | None = None
        self._unreadable = False  # whether the last error was a deserializer's: it is met again, not fetched again

    def take(self, n: int | None = None) -> list[Any]:
        try:
            self._maybe_raise_next_inline_exception()
            self._unreadable = False
            return self._take_up_to(n)
        except Exception:
            if not self._unreadable:
                self.drain()  # what is broken may be good when it is fetched again
            raise

    def _deserialize(self, deserializer: Any, topic: str, headers: Any, data: Any) -> Any:
        try:
            return super()._deserialize(deserializer, topic, headers, data)
        except Exception:
            self._unreadable = True
            raise

    def _take_up_to(self, n: int | None) -> list[Any]:
        taken: list[Any] = []
        try:
            while n is None or len(taken) < n:
                if self._columns is None and self._foreign is None and not self._next_batch():
                    break
                self._take(taken, None if n is None else n - len(taken))
        except Exception as error:
            if not taken:
                raise
            self._next_inline_exception = error
        if not self._parts and self._columns is None and self._foreign is None:
            self.drain()
        return taken

    # -- from batch to batch -------------------------------------------------------------------------------------------

    def _next_batch(self) -> bool:
        """Go on to the next batch that has something for this consumer."""
        while self._parts:
            data, at = self._parts[0], self._at
            end = at + _PREFIX_SIZE
            if end <= len(data):
                end += _LENGTH.unpack_from(data, end - _LENGTH.size)[0]
            if end > len(data):  # a batch that was cut off; it is fetched again
                self._go_on(len(data))
                continue
            if end - at < MemoryRecords.MIN_SLICE:
                raise CorruptRecordError(
                    f"Record size is less than the minimum record overhead ({MemoryRecords.MIN_SLICE - _PREFIX_SIZE})"
                )
            if data[at + MemoryRecords.MAGIC_OFFSET] < 2:
                self._foreign = partial(MemoryRecords, data[at:end])
                self._go_on(end)
                return True
            batch = _Batch(data, at, end)
            if self._open(batch):
                self._batch = batch
                self._go_on(end)
                return True
            self._go_on(end)
            self.next_fetch_offset = max(self.next_fetch_offset, batch.next_offset)
        return False

    def _go_on(self, at: int) -> None:
        self._at = at
        if at >= len(self._parts[0]):
            del self._parts[0]
            self._at = 0

    def _open(self, batch: _Batch) -> bool:
        """Whether there is something to take of ``batch``, which is then in _columns or _decoding."""
        if self._is_of_aborted_transaction(batch) or batch.is_control_batch:
            if self.check_crcs:
                batch.check(self.topic_partition)
            if batch.is_control_batch:
                self._note_end_of_transaction(batch)
            self.leader_epoch = batch.leader_epoch
            return False
        try:
            columns = self._decoded.columns(batch.data, (batch.at, self.check_crcs), lambda: self._decode(batch))
        except UndecodableError:
            self._foreign = partial(MemoryRecords, batch.data[batch.at : batch.end])
            self.leader_epoch = batch.leader_epoch
            return True
        self.leader_epoch = batch.leader_epoch
        # The batch that has the offset asked for may begin before it.
        self._index = bisect_left(columns.offsets, self.fetch_offset)
        if self._index == len(columns.offsets):
            return False
        self._columns = columns
        return True

    def _decode(self, batch: _Batch) -> Columns:
        if self.check_crcs:
            batch.check(self.topic_partition)
        return batch.decode()

    def _is_of_aborted_transaction(self, batch: _Batch) -> bool:
        if self.isolation_level != IsolationLevel.READ_COMMITTED or batch.producer_id < 0:
            return False
        self._consume_aborted_transactions_up_to(batch.next_offset - 1)
        return batch.is_transactional and batch.producer_id in self.aborted_producer_ids

    def _note_end_of_transaction(self, batch: _Batch) -> None:
        if self.isolation_level == IsolationLevel.READ_COMMITTED:
            markers = batch.decode().keys
            if markers and ControlRecord.KEY_STRUCT.unpack(markers[0])[1] == 0:
                self.aborted_producer_ids.discard(batch.producer_id)

    # -- from record to record -----------------------------------------------------------------------------------------

    def _take(self, taken: list[Any], n: int | None) -> None:
        """Add at most ``n`` records of the open batch to ``taken``; those before one that cannot be read are added."""
        if self._columns is None:
            self._take_by_kafka_python(taken, n)
            return
        start, count = self._index, len(self._columns.offsets)
        stop = count if n is None else min(count, start + n)
        try:
            if self._deserializing.is_put_off or self._deserializers == (None, None):
                self._index = stop
                taken.extend(self._records(self._columns, start, stop))
            else:
                taken.extend(self._deserialized(self._columns, start, stop))
        finally:
            self.records_read += self._index - start
            if self._index > start:
                self.next_fetch_offset = self._columns.offsets[self._index - 1] + 1
        if self._index == count:
            assert self._batch is not None
            self.bytes_read += self._columns.size
            self.next_fetch_offset = self._batch.next_offset  # the records at its end may have been compacted away
            self._batch = self._columns = None

    def _records(self, columns: Columns, start: int, stop: int) -> list[Any]:
        if columns.headers is None:
            # Nothing in these can be changed, but for their empty lists of headers: all consumers have the same ones.
            made = columns.records
            if made is None:
                made = columns.records = listed(self._made(columns, 0, len(columns)))
            return made[start:stop]
        return listed(self._made(columns, start, stop))

    def _made(self, columns: Columns, start: int, stop: int) -> Iterator[Any]:
        batch = self._batch
        assert batch is not None
        part = slice(start, stop)
        return map(
            _record,
            zip(
                repeat(self.topic_partition.topic),
                repeat(self.topic_partition.partition),
                repeat(batch.leader_epoch),
                columns.offsets[part],
                columns.timestamps[part] if batch.log_append_time is None else repeat(batch.log_append_time),
                repeat(batch.timestamp_type),
                columns.keys[part],
                columns.values[part],
                # Lists of their own: what a consumer does to its headers is nothing to the others.
                map(list, columns.headers[part] if columns.headers else repeat((), stop - start)),
                repeat(None),  # checksum
                columns.key_sizes[part],
                columns.value_sizes[part],
                columns.header_sizes[part],
            ),
        )

    def _deserialized(self, columns: Columns, start: int, stop: int) -> Iterator[Any]:
        topic = self.topic_partition.topic
        of_key, of_value = self._deserializers
        for record in self._records(columns, start, stop):
            key = self._deserialize(of_key, topic, record.headers, record.key)
            value = self._deserialize(of_value, topic, record.headers, record.value)
            self._index += 1
            yield record._replace(key=key, value=value)

    def _take_by_kafka_python(self, taken: list[Any], n: int | None) -> None:
        if self._decoding is None:
            self._decoding = self._decoded_by_kafka_python()
        before = len(taken)
        try:
            taken.extend(islice(self._decoding, n))
        except Exception:
            self._decoding = None  # it has ended; another one comes to the same record
            raise
        if n is None or len(taken) - before < n:
            self._decoding = self._foreign = None

    def _decoded_by_kafka_python(self) -> Iterator[Any]:
        assert self._foreign is not None
        topic, partition = self.topic_partition
        batch = self._foreign().next_batch()
        if self.check_crcs and not batch.validate_crc():
            raise CorruptRecordError(
                f"Record batch for partition {self.topic_partition} at offset {batch.base_offset} failed crc check"
            )
        for record in batch:
            if self.check_crcs and not record.validate_crc():
                raise CorruptRecordError(
                    f"Record for partition {self.topic_partition} at offset {record.offset} failed crc check"
                )
            if record.offset < self.next_fetch_offset:
                continue
            headers = record.headers
            of_key, of_value = (None, None) if self._deserializing.is_put_off else self._deserializers
            key = self._deserialize(of_key, topic, headers, record.key)
            value = self._deserialize(of_value, topic, headers, record.value)
            self.records_read += 1
            self.bytes_read += record.size_in_bytes
            self.next_fetch_offset = record.offset + 1
            yield ConsumerRecord(
                topic,
                partition,
                self.leader_epoch,
                record.offset,
                record.timestamp,
                record.timestamp_type,
                key,
                value,
                headers,
                record.checksum,
                -1 if record.key is None else len(record.key),
                -1 if record.value is None else len(record.value),
                headers_size(headers),
            )
