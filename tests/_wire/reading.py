"""A consumer that reads from a scripted broker with a log, for the tests of idle polls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka.protocol.consumer import FetchRequest, FetchResponse
from kafka.structs import TopicPartition

from pooledkafka._wire.engine import Engine
from tests._fetch.test_multiplexer_turns import real_batch
from tests._wire.engines import new_engine
from tests._wire.test_consumer_facade import new_consumer, settle
from tests.scripted_broker import VERSION, ScriptedBroker, metadata_answer

__all__ = ["ORDERS", "OTHERS", "Log", "Reading", "connected", "metadata"]

ORDERS, OTHERS = TopicPartition("orders", 0), TopicPartition("orders", 1)
Topic = FetchResponse.FetchableTopicResponse


class Log:
    """The partitions of ``orders`` on the broker; a fetch is answered with what is there, or after its max_wait_ms."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._closed = False  # guarded by _changed, as are the batches
        self._batches: dict[int, list[tuple[int, bytes]]] = {0: [], 1: []}  # by partition: next offset, bytes

    def append(self, partition: int, count: int = 1) -> None:
        with self._changed:
            end = self._end(partition)
            self._batches[partition].append((end + count, real_batch(end, count)))
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of all fetches."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def fetch(self, request: Any) -> Any:
        asked = [
            (topic.topic, each.partition, each.fetch_offset) for topic in request.topics for each in topic.partitions
        ]
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or any(self._read(number, offset) for _, number, offset in asked),
                request.max_wait_ms / 1000,
            )
            data = [
                Topic.PartitionData(
                    partition_index=number,
                    error_code=0,
                    high_watermark=self._end(number),
                    last_stable_offset=self._end(number),
                    log_start_offset=0,
                    aborted_transactions=[],
                    preferred_read_replica=-1,
                    records=self._read(number, offset),
                )
                for _, number, offset in asked
            ]
        return FetchResponse(
            version=request.API_VERSION,
            throttle_time_ms=0,
            error_code=0,
            session_id=0,
            responses=[Topic(topic="orders", partitions=data)],
        )

    def _end(self, partition: int) -> int:
        batches = self._batches[partition]
        return batches[-1][0] if batches else 0

    def _read(self, partition: int, offset: int) -> bytes:
        return b"".join(data for following, data in self._batches[partition] if following > offset)


@contextmanager
def connected(broker: ScriptedBroker, log: Log) -> Iterator[Engine]:
    """An engine that knows the broker, which serves ``log``."""
    broker.on(FetchRequest, log.fetch)
    engine = new_engine(bootstrap_servers=broker.address, api_version=VERSION)
    engine.manager.cluster.update_metadata(metadata(broker))
    engine.net.start()
    try:
        yield engine
    finally:
        engine.stop()
        log.close()


def metadata(broker: ScriptedBroker, leader_epoch: int = 0) -> Any:
    answer = metadata_answer({"orders": 2}, brokers={1: ("127.0.0.1", broker.port)})
    for partition in answer.topics[0].partitions:
        partition.leader_epoch = leader_epoch
    return answer


class Reading:
    """A consumer that reads partitions from their beginning."""

    def __init__(self, engine: Engine, *partitions: TopicPartition, **options: Any) -> None:
        self.engine = engine
        self.wired = new_consumer(engine, **{"fetch_max_wait_ms": 20, **options})
        self.kafka = self.wired.kafka
        self.idling = self.wired._idling
        self.manager = self.wired._facade._manager  # type: ignore[union-attr]
        self.passes = 0
        self._pass = self.wired._pass
        self.wired._pass = self._counted
        self.kafka._coordinator.coordinator_id = 1
        self.assign(*partitions)

    def _counted(self, *args: Any, **kwargs: Any) -> Any:
        self.passes += 1
        return self._pass(*args, **kwargs)

    def assign(self, *partitions: TopicPartition) -> None:
        before = self.kafka.assignment()
        self.kafka.assign(list(partitions))
        for partition in set(partitions) - before:
            self.kafka.seek(partition, 0)
        self.wired.stir()

    def state(self, partition: TopicPartition = ORDERS) -> Any:
        return self.kafka._subscription.assignment[partition]

    def poll(self, timeout_ms: float) -> dict[TopicPartition, list[int]]:
        """The offsets of what comes."""
        batches = self.wired.poll(timeout_ms, None)
        return {partition: [each.offset for each in records] for partition, records in batches.items()}

    def poll_until(self, condition: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < give_up_at, "it never came to that"
            self.poll(20)

    @property
    def fetching(self) -> set[TopicPartition]:
        """The partitions that a fetch of the consumer's waits for."""
        return {partition for partitions in list(self.manager.fetching.values()) for partition in partitions}

    def come_to_rest(self) -> None:
        """Poll until all there is has been read, and the consumer has been told how far the logs go."""
        self.poll_until(self._at_rest)
        self.passes = 0

    def _at_rest(self) -> bool:
        settle(self.engine)
        told = all(state.highwater is not None for state in self.kafka._subscription.assignment.values())
        return told and self.idling.wait(0)

    def close(self) -> None:
        self.wired.close(autocommit=False, timeout_ms=1_000)
