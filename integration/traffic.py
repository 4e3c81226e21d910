"""A steady stream of records through stock kafka-python, and the proof that none was lost, repeated or reordered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

_PAUSE_BETWEEN_RECORDS_S = 0.005


def create_topic(options: Mapping[str, Any], topic: str, partitions: int) -> None:
    """Create a topic with the cluster's own number of replicas."""
    with KafkaAdminClient(**options) as admin:
        admin.create_topics({topic: {"num_partitions": partitions}}, wait_for_metadata=True)


def read_log(options: Mapping[str, Any], topic: str) -> dict[int, list[int]]:
    """Every record of the topic by partition, from the first to the last, as numbers."""
    with KafkaConsumer(**options, enable_auto_commit=False, auto_offset_reset="earliest") as consumer:
        partitions = [TopicPartition(topic, index) for index in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        log: dict[int, list[int]] = {partition.partition: [] for partition in partitions}
        deadline = time.monotonic() + 30
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            assert time.monotonic() < deadline, f"the log of {topic} could not be read to its end"
            for partition, records in consumer.poll(timeout_ms=500).items():
                log[partition.partition].extend(int(record.value) for record in records)
        return log


def group_consumer(topic: str, **options: Any) -> KafkaConsumer:
    """A consumer of the topic in a group, from the beginning.

    It has the topic's metadata before it joins: kafka-python 3.0.12 may otherwise join first, assign nothing, and on a
    busy machine never recover from it.
    """
    consumer = KafkaConsumer(**options, auto_offset_reset="earliest")
    consumer.partitions_for_topic(topic)
    consumer.subscribe([topic])
    return consumer


class Traffic:
    """An idempotent acks=all producer and a group's consumer, each on a thread of its own, over one topic.

    The records are the numbers from 0. `check()` ends it and compares what was sent, logged and consumed.
    """

    def __init__(self, options: Mapping[str, Any], topic: str, group_id: str) -> None:
        self._options = options
        self._topic = topic
        self._group_id = group_id
        self._stop_producing = threading.Event()
        self._stop_consuming = threading.Event()
        self._futures: list[Any] = []  # appended to by the producing thread alone
        self.consumed: set[int] = set()  # added to by the consuming thread alone
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__, daemon=True)
            for work in (self._produce, self._consume)
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_producing.set()
        self._stop_consuming.set()
        for thread in self._threads:
            thread.join(60)

    @property
    def acked(self) -> int:
        """How many records the brokers have acknowledged."""
        return sum(future.succeeded() for future in list(self._futures))

    def wait_for_acks(self, more: int, timeout_s: float = 60.0) -> None:
        """Wait until so many more records than now are acknowledged."""
        target = self.acked + more
        self._wait(lambda: self.acked >= target, f"{more} more acknowledged records", timeout_s)

    def wait_for_consumed(self, more: int, timeout_s: float = 60.0) -> None:
        """Wait until so many more records than now are consumed."""
        target = len(self.consumed) + more
        self._wait(lambda: len(self.consumed) >= target, f"{more} more consumed records", timeout_s)

    def check(self) -> None:
        """Stop producing, wait for the rest, and compare: all acknowledged, all consumed, each once in the log."""
        self._stop_producing.set()
        self._threads[0].join(90)
        assert not self._threads[0].is_alive(), "the producer did not flush"
        failed = {number: future.exception for number, future in enumerate(self._futures) if not future.succeeded()}
        assert not failed, f"records that were not acknowledged: {failed}"
        sent = set(range(len(self._futures)))
        self._wait(lambda: self.consumed >= sent, "all records consumed", 60.0)
        assert self.consumed == sent
        log = read_log(self._options, self._topic)
        assert sorted(number for numbers in log.values() for number in numbers) == sorted(sent)
        for partition, numbers in log.items():
            assert numbers == sorted(numbers), f"partition {partition} is out of order"

    def _produce(self) -> None:
        producer = KafkaProducer(
            **self._options,
            enable_idempotence=True,
            acks="all",
            request_timeout_ms=5_000,
            delivery_timeout_ms=90_000,
            max_block_ms=60_000,
        )
        with producer:
            while not self._stop_producing.wait(_PAUSE_BETWEEN_RECORDS_S):
                number = b"%d" % len(self._futures)
                self._futures.append(producer.send(self._topic, number, key=number))
            producer.flush(timeout=90)

    def _consume(self) -> None:
        consumer = group_consumer(
            self._topic,
            **self._options,
            group_id=self._group_id,
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_000,
            request_timeout_ms=7_000,
        )
        with consumer:
            while not self._stop_consuming.is_set():
                for records in consumer.poll(timeout_ms=200).values():
                    self.consumed.update(int(record.value) for record in records)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._errors.append(error)

    def _wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert not self._errors, f"the traffic ended: {self._errors!r}"
            assert time.monotonic() < deadline, (
                f"not within {timeout_s:g} s: {what}; sent {len(self._futures)}, acknowledged {self.acked}, "
                f"consumed {len(self.consumed)}"
            )
            time.sleep(0.05)
