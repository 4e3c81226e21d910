"""kafka-python, and pooledkafka, whose clients have the same methods."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from benchmarks.libraries import Chunks, Counted, Partitions, Polling, Reading, Sender, Told, pairs
from benchmarks.options import CONSUMER, POLL_S
from benchmarks.process import Moment, moment
from benchmarks.reading import Reader, poll_in_a_thread, read_in_threads

__all__ = ["Pooled", "Stock"]

ACKNOWLEDGED_WITHIN_S = 120.0


class KafkaPythonReader:
    def __init__(self, consumer: Any, topic: str, told: Told) -> None:
        from kafka import ConsumerRebalanceListener

        class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
            def on_partitions_assigned(self, assigned: Any) -> None:
                told.gained(pairs(assigned))

            def on_partitions_revoked(self, revoked: Any) -> None:
                told.lost(pairs(revoked))

            def on_partitions_lost(self, lost: Any) -> None:
                told.lost(pairs(lost))

        self._consumer = consumer
        consumer.subscribe([topic], listener=Listener())

    def poll(self) -> list[bytes]:
        batches = self._consumer.poll(timeout_ms=POLL_S * 1000)
        return [record.value for records in batches.values() for record in records]

    def assignment(self) -> Partitions:
        return pairs(self._consumer.assignment())

    def close(self) -> None:
        self._consumer.close()


class KafkaPythonBulkReader:
    def __init__(self, consumer: Any, reading: Reading) -> None:
        from kafka import TopicPartition

        self._consumer = consumer
        self._partitions = [TopicPartition(reading.topic, number) for number in reading.partitions]
        if reading.subscribes:
            consumer.subscribe([reading.topic])
        else:
            consumer.assign(self._partitions)

    def poll(self, most: int) -> tuple[int, int]:
        came = came_bytes = 0
        for records in self._consumer.poll(timeout_ms=POLL_S * 1000, max_records=most).values():
            came += len(records)
            for record in records:
                came_bytes += len(record.value)
        return came, came_bytes

    def positions(self) -> dict[int, int]:
        return {partition.partition: self._consumer.position(partition) for partition in self._partitions}

    def close(self) -> None:
        self._consumer.close()


class KafkaPythonApi:
    """What is done with the clients of either library."""

    threads_for_each = 1

    def _consumer(self, **options: Any) -> Any:
        raise NotImplementedError

    def _producer(self, **options: Any) -> Any:
        raise NotImplementedError

    def reader(self, topic: str, group: str, told: Told) -> Reader:
        consumer = self._consumer(group_id=group, partition_assignment_strategy=[range_assignor()], **CONSUMER)
        return KafkaPythonReader(consumer, topic, told)

    def start(self, topic: str, group: str, polling: Polling) -> Callable[[float], None]:
        return poll_in_a_thread(lambda: self.reader(topic, group, polling), polling)

    def sender(self, topic: str, options: dict[str, Any]) -> Sender:
        producer = self._producer(**options)

        def send(value: bytes, partition: int, done: Callable[[Any], None]) -> None:
            future = producer.send(topic, value, partition=partition)
            future.add_callback(lambda _: done(None))
            future.add_errback(done)

        return send

    def produce(
        self, topic: str, partitions: int, way: str, options: dict[str, Any], window: int, chunks: Chunks
    ) -> tuple[Moment, Moment]:
        producer = self._producer(**options)
        for partition in range(partitions):
            producer.send(topic, b"first", partition=partition).get(ACKNOWLEDGED_WITHIN_S)

        def one_by_one(values: list[bytes]) -> Any:
            send = producer.send
            for value in values:
                future = send(topic, value)
            return future

        def all_at_once(values: list[bytes]) -> Any:
            return producer.send_batch(topic, [{"value": value} for value in values])

        send = all_at_once if way == "send_batch" else one_by_one
        waiting: deque[tuple[int, Any]] = deque()
        unanswered = 0
        start = moment()
        for values in chunks:
            waiting.append((len(values), send(values)))
            unanswered += len(values)
            while unanswered > window:
                count, future = waiting.popleft()
                future.get(ACKNOWLEDGED_WITHIN_S)
                unanswered -= count
        producer.flush(ACKNOWLEDGED_WITHIN_S)
        return start, moment()

    def consume(self, readings: list[Reading], options: dict[str, Any]) -> tuple[Moment, list[Counted], int | None]:
        def make(reading: Reading) -> KafkaPythonBulkReader:
            consumer = self._consumer(
                group_id=reading.group, partition_assignment_strategy=[range_assignor()], **options
            )
            return KafkaPythonBulkReader(consumer, reading)

        return read_in_threads(make, readings)


class Stock(KafkaPythonApi):
    """Stock kafka-python: a client of its own for each. It uses the package crc32c, which pooledkafka brings."""

    def __init__(self, bootstrap: str) -> None:
        import kafka

        self._kafka = kafka
        self._bootstrap = bootstrap
        self._producers: list[Any] = []

    def _consumer(self, **options: Any) -> Any:
        return self._kafka.KafkaConsumer(bootstrap_servers=self._bootstrap, **options)

    def _producer(self, **options: Any) -> Any:
        self._producers.append(self._kafka.KafkaProducer(bootstrap_servers=self._bootstrap, **options))
        return self._producers[-1]

    def close(self) -> None:
        for producer in self._producers:
            producer.close()


class Pooled(KafkaPythonApi):
    """pooledkafka: all clients over one pool, with the pool's defaults."""

    def __init__(self, bootstrap: str) -> None:
        from pooledkafka import Kafka

        self._kafka = Kafka(bootstrap_servers=bootstrap)
        self._pool = self._kafka.connection_pool()

    def _consumer(self, **options: Any) -> Any:
        return self._kafka.consumer(connection_pool=self._pool, **options)

    def _producer(self, **options: Any) -> Any:
        return self._kafka.producer(connection_pool=self._pool, **options)

    def close(self) -> None:
        self._pool.disconnect()


def range_assignor() -> Any:
    from kafka.coordinator.assignors.range import RangePartitionAssignor

    return RangePartitionAssignor
