"""Sends records to one topic, one by one or many at once, each as ``KafkaProducer.send`` would send it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from functools import partial
from types import FunctionType
from typing import Any

from kafka import KafkaProducer
from kafka.errors import BrokerResponseError, IllegalStateError, UnknownTopicOrPartitionError
from kafka.partitioner import DefaultPartitioner, StickyPartitioner
from kafka.producer import kafka as producer
from kafka.structs import TopicPartition

from pooledkafka._records import Record
from pooledkafka._wire.futures import keep
from pooledkafka._wire.runs import Run, append, append_one, failed

__all__ = ["TopicSender"]

_BYTES = (bytes, bytearray, memoryview)
_OVERHEAD = 128
"""More bytes than a record has beside key, value and headers, and its batch before it."""
_FIELDS = ("value", "key", "headers", "partition", "timestamp_ms")
_KEYS = 10_000
"""How many keys' partitions are remembered."""


_record = partial(tuple.__new__, Record)


class _Queue:
    """Records for one partition, or for any, in their order."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.positions: list[int] = []  # in what is sent together


class _Single:
    """One record, where each was sent by itself."""

    def __init__(self, future: Any, position: int) -> None:
        self._future = future
        self.positions = (position,)
        self.add_both = future.add_both

    @property
    def is_done(self) -> bool:
        return bool(self._future.is_done)

    @property
    def exception(self) -> Any:
        return self._future.exception

    def outcomes(self) -> tuple[Any]:
        return (self._future.exception or self._future.value,)


class _Partitions:
    """Of a topic, as long as the metadata is the same."""

    def __init__(self, metadata: Any, topic: str) -> None:
        self.metadata = metadata
        self.all = sorted(metadata)
        self.available = [number for number in self.all if metadata[number].leader_id != -1] or self.all
        self.by_number = {number: TopicPartition(topic, number) for number in self.all}
        self.of_key: dict[bytes, int] = {}


class TopicSender:
    """Sends the records of one handle to one topic, through the accumulator of its KafkaProducer. From any thread.

    What ``KafkaProducer.send`` works out anew for each record is known here from the last one: which partitions there
    are, and to which one a key belongs. A record is encoded in a third of the time.
    """

    def __init__(
        self, kafka: Any, topic: str, key_serializer: Any, value_serializer: Any, unfinished: set[Any]
    ) -> None:
        self._kafka = kafka
        self._unfinished = unfinished  # and not its handle, which a record that waits need not keep alive
        self._topic = topic
        self._of_handle = (key_serializer, value_serializer)
        self._for_keys = [s for s in (key_serializer, kafka.config["key_serializer"]) if s is not None]
        self._for_values = [s for s in (value_serializer, kafka.config["value_serializer"]) if s is not None]
        self._largest = kafka.config["max_request_size"] - _OVERHEAD
        self._transactions = kafka._transaction_manager
        self._partitioner = kafka.config["partitioner"]
        # What kafka-python's partitioners say depends on nothing but the key; any other one is asked for each record.
        self._by_key = type(self._partitioner) in (DefaultPartitioner, StickyPartitioner)
        self._at_random = type(self._partitioner) is DefaultPartitioner
        self._rotates = hasattr(self._partitioner, "on_new_batch")
        self._known: _Partitions | None = None  # replaced as a whole, by whichever thread sees newer metadata

    def send(self, value: Any, key: Any, headers: Any, partition: int | None, timestamp_ms: int | None) -> Any:
        """Send one record; returns kafka-python's future of its metadata. Raises what ``KafkaProducer.send`` raises."""
        kafka = self._kafka
        if _is_instrumented():
            future = self._sent_by_kafka_python(value, key, headers, partition, timestamp_ms)
            keep(self._unfinished, future)
            return future
        if kafka._closed:
            raise IllegalStateError("KafkaProducer already closed!")
        record = self._read(value, key, headers, int(time.time() * 1000) if timestamp_ms is None else timestamp_ms)
        try:
            known = self._partitions()
        except BrokerResponseError as error:
            return failed(TopicPartition(self._topic, partition), error)
        free = partition is None and record.key is None
        chosen = self._assigned(known, partition, key, value, record)
        future = self._append(known, chosen, record, open_new=not (free and self._rotates))
        if future is None:  # KIP-480: the record that would begin another batch goes on to another partition
            self._partitioner.on_new_batch(self._topic, kafka._metadata, chosen)
            future = self._append(known, self._assigned(known, None, key, value, record), record, open_new=True)
        return future

    def send_all(self, messages: Iterable[Mapping[str, Any]]) -> tuple[list[Any], Exception | None]:
        """Send many; returns what they became, and why one could not be sent, after which no more were.

        Records without key and partition go where the partitioner says, which is asked for each batch, and not for each
        record, where it is kafka-python's.
        """
        if self._kafka._closed:
            raise IllegalStateError("KafkaProducer already closed!")
        if _is_instrumented():
            return self._send_each(messages)
        try:
            known = self._partitions()
        except BrokerResponseError as error:
            return [], error
        now = int(time.time() * 1000)
        queues: dict[int, _Queue] = {}
        unsent = None
        free = _Queue()  # of the many that have nothing but a value
        plain = not self._for_values and not self._for_keys and self._by_key
        largest, add, at = self._largest, free.records.append, free.positions.append
        for position, message in enumerate(messages):
            get = message.get
            if plain and len(message) == 1 and type(value := get("value")) is bytes and len(value) <= largest:
                add(_record((None, value, (), now)))
                at(position)
                continue
            try:
                value, key, partition = get("value"), get("key"), get("partition")
                record = self._read(value, key, get("headers"), get("timestamp_ms", now))
                if partition is not None or record.key is not None or not self._by_key:
                    partition = self._assigned(known, partition, key, value, record)
            except Exception as error:  # of a serializer, say
                unsent = error
                break
            if partition is None:
                queue = free
            elif partition in queues:
                queue = queues[partition]
            else:
                queue = queues[partition] = _Queue()
            queue.records.append(record)
            queue.positions.append(position)
        runs: list[Run] = []
        try:
            for where, queue in (*queues.items(), (None, free)):
                self._enqueue(known, where, queue, runs)
        except Exception as error:  # the producer was closed meanwhile, say
            unsent = error
        return runs, unsent

    def _send_each(self, messages: Iterable[Mapping[str, Any]]) -> tuple[list[Any], Exception | None]:
        parts: list[Any] = []
        for position, message in enumerate(messages):
            try:
                future = self._sent_by_kafka_python(**{field: message.get(field) for field in _FIELDS})
            except Exception as error:
                return parts, error
            parts.append(_Single(future, position))
        return parts, None

    def _sent_by_kafka_python(
        self, value: Any, key: Any, headers: Any, partition: int | None, timestamp_ms: int | None
    ) -> Any:
        return self._kafka.send(
            self._topic,
            value=self._serialized(self._of_handle[1:], headers, value),
            key=self._serialized(self._of_handle[:1], headers, key),
            headers=headers,
            partition=partition,
            timestamp_ms=timestamp_ms,
        )

    def _enqueue(self, known: _Partitions, partition: int | None, queue: _Queue, runs: list[Run]) -> None:
        at = 0
        most = 4_096  # at once; what does not fit into the batch is copied in vain
        while at < len(queue.records):
            chosen = self._free(known) if partition is None else partition
            run, opened = append(self._kafka, self._joined(known, chosen), queue.records[at : at + most])
            most = max(64, 2 * len(run))
            run.positions = queue.positions[at : at + len(run)]
            runs.append(run)
            at += len(run)
            if opened and partition is None and self._rotates:
                self._partitioner.on_new_batch(self._topic, self._kafka._metadata, chosen)

    def _append(self, known: _Partitions, partition: int, record: Record, *, open_new: bool) -> Any:
        return append_one(self._kafka, self._joined(known, partition), record, self._unfinished, open_new=open_new)

    def _joined(self, known: _Partitions, partition: int) -> TopicPartition:
        """The partition, which belongs to the transaction now, where there is one."""
        there = known.by_number.get(partition) or TopicPartition(self._topic, partition)  # it may be a new one
        if self._transactions and self._transactions.is_transactional():
            self._transactions.maybe_add_partition_to_transaction(there)
        return there

    # -- partitions ----------------------------------------------------------------------------------------------------

    def _partitions(self) -> _Partitions:
        cluster = self._kafka._metadata
        metadata = cluster._partitions.get(self._topic)
        if not metadata:
            self._kafka._wait_on_metadata(self._topic, self._kafka.config["max_block_ms"])
            metadata = cluster._partitions.get(self._topic)
            if not metadata:  # it has gone again
                raise UnknownTopicOrPartitionError(self._topic)
        known = self._known
        if known is None or known.metadata is not metadata:
            known = self._known = _Partitions(metadata, self._topic)
        return known

    def _free(self, known: _Partitions) -> int:
        """Where a record goes for which it does not matter."""
        if self._at_random:
            chosen: int = random.choice(known.available)
            return chosen
        return self._asked(None, None, None, None)

    def _assigned(
        self, known: _Partitions, partition: int | None, given_key: Any, given_value: Any, record: Record
    ) -> int:
        if partition is not None:
            if partition not in known.by_number:
                self._kafka._partition(self._topic, partition, None, None, None, None)  # says what is wrong with it
                raise ValueError(f"Unrecognized partition {partition} for topic {self._topic}")
            return partition
        key = record.key
        if not self._by_key:
            return self._asked(given_key, given_value, key, record.value)
        if key is None:
            return self._free(known)
        if type(key) is not bytes:
            return self._asked(given_key, given_value, key, record.value)
        found = known.of_key.get(key)
        if found is None:
            if len(known.of_key) >= _KEYS:
                known.of_key.clear()
            found = known.of_key[key] = self._asked(given_key, given_value, key, record.value)
        return found

    def _asked(self, given_key: Any, given_value: Any, key: Any, value: Any) -> int:
        partition: int | None = self._kafka._partition(self._topic, None, given_key, given_value, key, value)
        if partition is None:
            raise ValueError(f"Partitioner did not assign a partition for topic {self._topic}!")
        return partition

    # -- reading -------------------------------------------------------------------------------------------------------

    def _serialized(self, serializers: Iterable[Any], headers: Any, data: Any) -> Any:
        for serializer in serializers:
            if serializer is not None:
                data = serializer.serialize(self._topic, headers or [], data)
        return data

    def _read(self, value: Any, key: Any, headers: Any, timestamp: Any) -> Record:
        """Read what ``KafkaProducer.send`` is given, with its errors."""
        if value is None and key is None:
            raise ValueError("Need at least one: key or value")
        if headers is not None:
            if not isinstance(headers, list):
                raise TypeError("headers must be list-type")
            for each in headers:
                if not (
                    isinstance(each, tuple)
                    and len(each) == 2
                    and isinstance(each[0], str)
                    and isinstance(each[1], bytes)
                ):
                    raise TypeError("All headers items must be (str, bytes) tuples")
        if self._for_keys:
            key = self._serialized(self._for_keys, headers, key)
        if self._for_values:
            value = self._serialized(self._for_values, headers, value)
        if key is not None and type(key) not in _BYTES:
            raise TypeError(f"Unsupported type for serialized key: {type(key)}")
        if value is not None and type(value) not in _BYTES:
            raise TypeError(f"Unsupported type for serialized value: {type(value)}")
        if type(timestamp) is not int:
            raise TypeError(timestamp)
        headers = headers or ()
        if len(value or b"") + len(key or b"") > self._largest or headers:
            self._kafka._ensure_valid_record_size(self._kafka._estimate_size_in_bytes(key, value, headers))
        return Record(key, value, headers, timestamp)


def _is_instrumented() -> bool:
    """Whether somebody has put another function in place of ``KafkaProducer.send``, to see what is sent."""
    send = KafkaProducer.send  # a wrapper may pretend to be what it wraps in all but these
    return type(send) is not FunctionType or send.__code__.co_filename != producer.__file__
