"""aiokafka: a client of its own for each, all on one event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any

from benchmarks.libraries import Chunks, Counted, Polling, Reading, Sender, pairs
from benchmarks.options import CONSUMER, POLL_RECORDS, POLL_S, for_aiokafka
from benchmarks.process import Moment, moment, received_bytes
from benchmarks.reading import STUCK_S, NothingCameError

__all__ = ["Aiokafka"]

ACKNOWLEDGED_WITHIN_S = 120.0


class Aiokafka:
    threads_for_each = 0
    """Its consumers are polled by tasks of the one loop."""

    def __init__(self, bootstrap: str) -> None:
        import aiokafka

        self._module = aiokafka
        self._bootstrap = bootstrap
        self._producers: list[Any] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _consumer(self, group: str, options: dict[str, Any]) -> Any:
        from aiokafka.coordinator.assignors.range import RangePartitionAssignor

        return self._module.AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            group_id=group,
            partition_assignment_strategy=[RangePartitionAssignor],
            **for_aiokafka(options),
        )

    async def _producer(self, options: dict[str, Any]) -> Any:
        producer = self._module.AIOKafkaProducer(bootstrap_servers=self._bootstrap, **for_aiokafka(options))
        await producer.start()
        self._producers.append(producer)
        return producer

    # -- consumers that wait, and their latency ------------------------------------------------------------------------

    def start(self, topic: str, group: str, polling: Polling) -> Callable[[float], None]:
        running = self._spawn(self._poll(topic, group, polling))
        return lambda seconds: void(wait([running], seconds))

    async def _poll(self, topic: str, group: str, polling: Polling) -> None:
        class Listener(self._module.ConsumerRebalanceListener):  # type: ignore[misc, name-defined]
            async def on_partitions_assigned(self, assigned: Any) -> None:
                polling.gained(pairs(assigned))

            async def on_partitions_revoked(self, revoked: Any) -> None:
                polling.lost(pairs(revoked))

        try:
            consumer = self._consumer(group, CONSUMER)
            consumer.subscribe([topic], listener=Listener())
            await consumer.start()
            while not polling.stopping.is_set():
                batches = await consumer.getmany(timeout_ms=round(POLL_S * 1000))
                if batches:
                    polling.took([record.value for records in batches.values() for record in records])
            polling.stopped(pairs(consumer.assignment()))
            while not polling.leaving.is_set():
                await asyncio.sleep(0.01)
            await consumer.stop()
        except Exception as error:
            polling.failed(error)

    def sender(self, topic: str, options: dict[str, Any]) -> Sender:
        producer = self._spawn(self._producer(options)).result(60)

        async def sent(value: bytes, partition: int, done: Callable[[Any], None]) -> None:
            try:
                await producer.send_and_wait(topic, value, partition=partition)
            except Exception as error:
                done(error)
            else:
                done(None)

        def send(value: bytes, partition: int, done: Callable[[Any], None]) -> None:
            self._spawn(sent(value, partition, done))

        return send

    # -- throughput ----------------------------------------------------------------------------------------------------

    def produce(
        self, topic: str, partitions: int, way: str, options: dict[str, Any], window: int, chunks: Chunks
    ) -> tuple[Moment, Moment]:
        times: tuple[Moment, Moment] = self._spawn(self._produce(topic, partitions, options, window, chunks)).result()
        return times

    async def _produce(
        self, topic: str, partitions: int, options: dict[str, Any], window: int, chunks: Chunks
    ) -> tuple[Moment, Moment]:
        producer = await self._producer(options)
        for partition in range(partitions):
            await producer.send_and_wait(topic, b"first", partition=partition)
        waiting: deque[tuple[int, Any]] = deque()
        unanswered = 0
        send = producer.send
        start = moment()
        for values in chunks:
            for value in values:
                future = await send(topic, value)
            waiting.append((len(values), future))
            unanswered += len(values)
            while unanswered > window:
                count, future = waiting.popleft()
                await asyncio.wait_for(future, ACKNOWLEDGED_WITHIN_S)
                unanswered -= count
            await asyncio.sleep(0)  # send() need not wait, and then nothing else would run
        await asyncio.wait_for(producer.flush(), ACKNOWLEDGED_WITHIN_S)
        return start, moment()

    def consume(self, readings: list[Reading], options: dict[str, Any]) -> tuple[Moment, list[Counted], int | None]:
        read: tuple[Moment, list[Counted], int | None] = self._spawn(self._consume(readings, options)).result()
        return read

    async def _consume(
        self, readings: list[Reading], options: dict[str, Any]
    ) -> tuple[Moment, list[Counted], int | None]:
        consumers = [self._consumer(reading.group, options) for reading in readings]
        for consumer, reading in zip(consumers, readings, strict=True):
            if reading.subscribes:
                consumer.subscribe([reading.topic])
            else:
                consumer.assign(self._partitions_of(reading))
        start = moment()  # start() reads ahead already
        await asyncio.gather(*(consumer.start() for consumer in consumers))
        work = [self._read(consumer, reading) for consumer, reading in zip(consumers, readings, strict=True)]
        counted = list(await asyncio.gather(*work))
        received = received_bytes()
        for consumer in consumers:
            await consumer.stop()
        return start, counted, received

    def _partitions_of(self, reading: Reading) -> list[Any]:
        return [self._module.TopicPartition(reading.topic, number) for number in reading.partitions]

    async def _read(self, consumer: Any, reading: Reading) -> Counted:
        records = value_bytes = 0
        first: Moment | None = None
        latest = time.monotonic()
        while records < reading.expected:
            most = min(POLL_RECORDS, reading.expected - records)
            batches = await consumer.getmany(timeout_ms=round(POLL_S * 1000), max_records=most)
            if batches:
                latest = time.monotonic()
                first = first or moment()
                for batch in batches.values():
                    records += len(batch)
                    for record in batch:
                        value_bytes += len(record.value)
            elif time.monotonic() - latest > STUCK_S:
                raise NothingCameError(f"{records} of {reading.expected} records came, then nothing")
        last = moment()
        positions = {p.partition: await consumer.position(p) for p in self._partitions_of(reading)}
        return Counted(records, value_bytes, positions, first or last, last)

    def close(self) -> None:
        async def stop() -> None:
            for producer in self._producers:
                await producer.stop()

        self._spawn(stop()).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


def void(_: Any) -> None: ...
