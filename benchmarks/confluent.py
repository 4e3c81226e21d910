"""confluent-kafka, which is librdkafka: a client of its own for each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from benchmarks.libraries import Chunks, Counted, Partitions, Polling, Reading, Sender, Told, pairs
from benchmarks.options import CONSUMER, POLL_S, for_confluent
from benchmarks.process import Moment, moment
from benchmarks.reading import Reader, poll_in_a_thread, read_in_threads

__all__ = ["Confluent"]

ACKNOWLEDGED_WITHIN_S = 120.0


class ConfluentReader:
    def __init__(self, consumer: Any, topic: str, told: Told) -> None:
        self._consumer = consumer
        consumer.subscribe(
            [topic],
            on_assign=lambda _, assigned: told.gained(pairs(assigned)),
            on_revoke=lambda _, revoked: told.lost(pairs(revoked)),
        )

    def poll(self) -> list[bytes]:
        # consume() would wait for more than the one record that is there
        message = self._consumer.poll(POLL_S)
        if message is None:
            return []
        if message.error() is not None:
            raise RuntimeError(message.error())
        return [message.value()]

    def assignment(self) -> Partitions:
        return pairs(self._consumer.assignment())

    def close(self) -> None:
        self._consumer.close()


class ConfluentBulkReader:
    def __init__(self, module: Any, consumer: Any, reading: Reading) -> None:
        self._consumer = consumer
        self._partitions = [module.TopicPartition(reading.topic, number) for number in reading.partitions]
        if reading.subscribes:
            consumer.subscribe([reading.topic])
        else:
            begin = module.OFFSET_BEGINNING
            consumer.assign([module.TopicPartition(p.topic, p.partition, begin) for p in self._partitions])

    def poll(self, most: int) -> tuple[int, int]:
        messages = self._consumer.consume(most, POLL_S)
        came_bytes = 0
        for message in messages:
            if message.error() is not None:
                raise RuntimeError(message.error())
            came_bytes += len(message.value())
        return len(messages), came_bytes

    def positions(self) -> dict[int, int]:
        return {p.partition: p.offset for p in self._consumer.position(self._partitions)}

    def close(self) -> None:
        self._consumer.close()


class Confluent:
    threads_for_each = 1

    def __init__(self, bootstrap: str) -> None:
        import confluent_kafka

        self._module = confluent_kafka
        # kafka-python sets TCP_NODELAY; without it librdkafka would wait for more to send.
        self._options = {"bootstrap.servers": bootstrap, "socket.nagle.disable": True}
        self._producers: list[Any] = []
        self._stop = threading.Event()

    def _consumer(self, group: str, options: dict[str, Any]) -> Any:
        own = {"group.id": group, "partition.assignment.strategy": "range"}
        return self._module.Consumer({**self._options, **for_confluent(options), **own})

    def _producer(self, options: dict[str, Any]) -> Any:
        self._producers.append(self._module.Producer({**self._options, **options}))
        return self._producers[-1]

    def reader(self, topic: str, group: str, told: Told) -> Reader:
        return ConfluentReader(self._consumer(group, CONSUMER), topic, told)

    def start(self, topic: str, group: str, polling: Polling) -> Callable[[float], None]:
        return poll_in_a_thread(lambda: self.reader(topic, group, polling), polling)

    def sender(self, topic: str, options: dict[str, Any]) -> Sender:
        producer = self._producer(for_confluent(options))

        def serve() -> None:  # callbacks run in poll(), which is the application's to call
            while not self._stop.is_set():
                producer.poll(0.1)

        threading.Thread(target=serve, daemon=True).start()

        def send(value: bytes, partition: int, done: Callable[[Any], None]) -> None:
            producer.produce(topic, value, partition=partition, on_delivery=lambda error, _: done(error))

        return send

    def produce(
        self, topic: str, partitions: int, way: str, options: dict[str, Any], window: int, chunks: Chunks
    ) -> tuple[Moment, Moment]:
        producer = self._producer({**for_confluent(options), "queue.buffering.max.messages": window})
        failed: list[Any] = []

        def told(error: Any, _: Any) -> None:  # the application must hear what became of each, as others' futures tell
            if error is not None:
                failed.append(error)

        def one_by_one(values: list[bytes]) -> None:
            produce = producer.produce
            for value in values:
                produce(topic, value, on_delivery=told)

        def all_at_once(values: list[bytes]) -> None:
            producer.produce_batch(topic, [{"value": value} for value in values], on_delivery=told)

        for partition in range(partitions):
            producer.produce(topic, b"first", partition=partition, on_delivery=told)
        producer.flush(ACKNOWLEDGED_WITHIN_S)
        send = all_at_once if way == "produce_batch" else one_by_one
        start = moment()
        for values in chunks:
            producer.poll(0)
            while len(producer) + len(values) > window:
                producer.poll(0.1)
            send(values)
        left = producer.flush(ACKNOWLEDGED_WITHIN_S)
        end = moment()
        if left or failed:
            raise RuntimeError(f"{left} records were not acknowledged in time, {len(failed)} failed: {failed[:1]}")
        return start, end

    def consume(self, readings: list[Reading], options: dict[str, Any]) -> tuple[Moment, list[Counted], int | None]:
        return read_in_threads(
            lambda reading: ConfluentBulkReader(self._module, self._consumer(reading.group, options), reading), readings
        )

    def close(self) -> None:
        for producer in self._producers:
            producer.flush(30)
        self._stop.set()
