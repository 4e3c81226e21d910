"""What a consumer was answered for one partition, decoded as it is taken."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from itertools import islice
from struct import Struct
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.default_records import ControlRecord

from pooledkafka._records import UndecodableError, headers_size
from pooledkafka._wire.decoded import DecodedBatches
from pooledkafka._wire.deserializing import Deserializing
from pooledkafka._wire.record_batch import HEADER_SIZE, PREFIX_SIZE, RecordBatch

__all__ = ["PartitionRecords", "SharedRecords"]

_LENGTH = Struct(">i")


class SharedRecords(bytes):
    """The records of answers that follow each other, and how many consumers read there.

    kafka-python's fetcher hands it over as it is, and may look at it as bytes, of which it has none: to copy even the
    first part for each consumer would cost more than to read it.
    """

    parts: list[bytes]
    readers: int

    def __new__(cls, parts: list[bytes], readers: int) -> SharedRecords:
        shared = super().__new__(cls)
        shared.parts = parts
        shared.readers = readers
        return shared


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
        shared = records._buffer if isinstance(records._buffer, SharedRecords) else SharedRecords([records._buffer], 1)
        self._readers = shared.readers
        self._parts = shared.parts[:]
        self._at = 0  # in the first part: where the next batch begins
        self._batch: RecordBatch | None = None  # the one that is being taken, until its last record is
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
        except BaseException:
            # What is broken may be good when it is fetched again. And where a signal handler's exception has come
            # between two steps, so that one would be left out, all is fetched again from the consumer's position.
            if not self._unreadable:
                self.drain()
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
                if self._batch is None and self._foreign is None and not self._next_batch():
                    break
                self._take(taken, None if n is None else n - len(taken))
        except Exception as error:
            if not taken:
                raise
            self._next_inline_exception = error
        if not self._parts and self._batch is None and self._foreign is None:
            self.drain()
        return taken

    # -- from batch to batch -------------------------------------------------------------------------------------------

    def _next_batch(self) -> bool:
        """Go on to the next batch that has something for this consumer."""
        while self._parts:
            data, at = self._parts[0], self._at
            end = self._end_of_batch(data, at)
            if end > len(data):  # a batch that was cut off; it is fetched again
                self._go_on(len(data))
                continue
            key = (self.topic_partition, data[at : at + HEADER_SIZE]) if self._readers > 1 else None
            batch = None if key is None else self._decoded.find(key)
            known = batch is not None
            if batch is None:
                if data[at + MemoryRecords.MAGIC_OFFSET] < 2:
                    return self._leave_to_kafka_python(data, at, end)
                batch = RecordBatch(self.topic_partition, data, at)
            else:
                batch = batch.as_far_as_it_is(data, at)
            if self._is_of_aborted_transaction(batch) or batch.is_control_batch:
                if not known:
                    self._pass_over(batch, data, at)
            else:
                if not known:
                    try:
                        batch = self._decoded_batch(key, batch, data, at)
                    except UndecodableError:
                        self.leader_epoch = batch.leader_epoch
                        return self._leave_to_kafka_python(data, at, end)
                # The batch that has the offset asked for may begin before it.
                offsets, asked = batch.columns.offsets, self.fetch_offset
                self._index = bisect_left(offsets, asked) if asked > batch.base_offset else 0
                if self._index < len(offsets):
                    self._batch = batch
            self.leader_epoch = batch.leader_epoch
            self._go_on(at + batch.size)
            if self._batch is not None:
                return True
            self.next_fetch_offset = max(self.next_fetch_offset, batch.next_offset)
        return False

    def _leave_to_kafka_python(self, data: bytes, at: int, end: int) -> bool:
        self._foreign = partial(MemoryRecords, data[at:end])
        self._go_on(end)
        return True

    def _end_of_batch(self, data: bytes, at: int) -> int:
        end: int = at + PREFIX_SIZE
        if end <= len(data):
            end += _LENGTH.unpack_from(data, end - _LENGTH.size)[0]
        if end <= len(data) and end - at < MemoryRecords.MIN_SLICE:
            raise CorruptRecordError(
                f"Record size is less than the minimum record overhead ({MemoryRecords.MIN_SLICE - PREFIX_SIZE})"
            )
        return end

    def _go_on(self, at: int) -> None:
        self._at = at
        if at >= len(self._parts[0]):
            del self._parts[0]
            self._at = 0

    def _decoded_batch(self, key: Hashable | None, batch: RecordBatch, data: bytes, at: int) -> RecordBatch:
        def decode_for_all() -> RecordBatch:
            # Whatever this consumer wants checked: others will not see these bytes, but what was made of them.
            batch.check(data, at)
            batch.decode(data, at)
            batch.take_in_following(data, at)
            batch.make()
            return batch

        if key is not None:
            try:
                return self._decoded.batch(key, self._readers, decode_for_all).as_far_as_it_is(data, at)
            except CorruptRecordError:
                if self.check_crcs:
                    raise
        elif self.check_crcs:
            batch.check(data, at)
        batch.decode(data, at)
        return batch

    def _pass_over(self, batch: RecordBatch, data: bytes, at: int) -> None:
        if self.check_crcs:
            batch.check(data, at)
        if batch.is_control_batch and self.isolation_level == IsolationLevel.READ_COMMITTED:
            batch.decode(data, at)
            markers = batch.columns.keys
            if markers and ControlRecord.KEY_STRUCT.unpack(markers[0])[1] == 0:
                self.aborted_producer_ids.discard(batch.producer_id)

    def _is_of_aborted_transaction(self, batch: RecordBatch) -> bool:
        if self.isolation_level != IsolationLevel.READ_COMMITTED or batch.producer_id < 0:
            return False
        self._consume_aborted_transactions_up_to(batch.next_offset - 1)
        return batch.is_transactional and batch.producer_id in self.aborted_producer_ids

    # -- from record to record -----------------------------------------------------------------------------------------

    def _take(self, taken: list[Any], n: int | None) -> None:
        """Add at most ``n`` records of the open batch to ``taken``; those before one that cannot be read are added."""
        batch = self._batch
        if batch is None:
            self._take_by_kafka_python(taken, n)
            return
        columns, start = batch.columns, self._index
        count = len(columns.values)
        stop = count if n is None or start + n > count else start + n
        try:
            if self._deserializing.is_put_off or self._deserializers == (None, None):
                self._index = stop
                taken.extend(batch.records(start, stop))
            else:
                taken.extend(self._deserialized(batch.records(start, stop)))
        finally:
            self.records_read += self._index - start
            if self._index > start:
                self.next_fetch_offset = columns.offsets[self._index - 1] + 1
        if self._index == count:
            self.bytes_read += columns.size
            self.next_fetch_offset = batch.next_offset  # the records at its end may have been compacted away
            self._batch = None

    def _deserialized(self, records: list[Any]) -> Iterator[Any]:
        topic = self.topic_partition.topic
        of_key, of_value = self._deserializers
        for record in records:
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
