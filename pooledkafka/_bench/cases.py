"""One measurement with one client library, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psutil
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition

from pooledkafka.kafka import Kafka

__all__ = ["CASES", "CLIENTS", "Task", "measure"]

CLIENTS = ("pooledkafka", "kafka-python")
CASES = {
    "send": "records sent by send() and acknowledged, a second",
    "send_batch": "records sent 500 at once by send_batch() and acknowledged, a second (kafka-python: by send())",
    "consume": "records read by one consumer that began at the beginning, a second",
    "idle": "what consumers in groups of their own hold while nothing is sent",
}
_BATCH = 500
_ACKNOWLEDGED_S = 120.0
_JOINED_S = 60.0
_SETTLE_S = 6.0  # connections that only joining needed are closed when they have been idle for 5 s


@dataclass(frozen=True)
class Task:
    """What to measure, in what, and how much of it."""

    case: str
    client: str
    topic: str
    options: dict[str, Any]
    """Of the connection."""
    records: int
    size: int
    """Bytes of a value."""
    consumers: int
    seconds: float
    """How long idle consumers are watched."""


def measure(task: Task) -> dict[str, float]:
    """What was measured, by name.

    Raises:
        KafkaError: the cluster did not do its part.
        TimeoutError: it did not do so in time.
    """
    return _MEASURES[task.case](task)


def _send(task: Task) -> dict[str, float]:
    value = bytes(task.size)
    with ExitStack() as stack:
        producer = stack.enter_context(_producer(task))
        producer.send(task.topic, value).get(_ACKNOWLEDGED_S)  # connected, and with its metadata
        began = _Clock()
        futures = [producer.send(task.topic, value) for _ in range(task.records)]
        for future in futures:
            future.get(_ACKNOWLEDGED_S)
        return began.rate(task.records)


def _send_batch(task: Task) -> dict[str, float]:
    if task.client != "pooledkafka":
        return _send(task)
    value = bytes(task.size)
    with ExitStack() as stack:
        producer = stack.enter_context(_producer(task))
        producer.send(task.topic, value).get(_ACKNOWLEDGED_S)
        messages = [{"value": value}] * _BATCH
        began = _Clock()
        futures = [producer.send_batch(task.topic, messages) for _ in range(-(-task.records // _BATCH))]
        for future in futures:
            future.get(_ACKNOWLEDGED_S)
        return began.rate(len(futures) * _BATCH)


def _consume(task: Task) -> dict[str, float]:
    with ExitStack() as stack:
        consumer = stack.enter_context(_consumer(task))
        partitions = [
            TopicPartition(task.topic, number) for number in sorted(consumer.partitions_for_topic(task.topic))
        ]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        wanted = min(task.records, sum(consumer.end_offsets(partitions).values()))
        read = 0
        began = _Clock()
        until = time.monotonic() + _ACKNOWLEDGED_S
        while read < wanted:
            if time.monotonic() > until:
                raise TimeoutError(f"{read} of {wanted} records were read within {_ACKNOWLEDGED_S:g} s")
            read += sum(len(records) for records in consumer.poll(200).values())
        return began.rate(read)


def _idle(task: Task) -> dict[str, float]:
    before = _held()
    stop = threading.Event()
    joined = [threading.Event() for _ in range(task.consumers)]

    def read(number: int, consumer: Any) -> None:
        while not stop.is_set():
            consumer.poll(500)
            if consumer.assignment():
                joined[number].set()

    with ExitStack() as stack:
        make = _consumers(task, stack)
        consumers = [make(f"{task.topic}-{task.client}-{number}") for number in range(task.consumers)]
        threads = [threading.Thread(target=read, args=each, daemon=True) for each in enumerate(consumers)]
        for thread in threads:
            thread.start()
        try:
            until = time.monotonic() + _JOINED_S
            for event in joined:  # kafka-python leaves some consumers without partitions for ever
                event.wait(max(0.0, until - time.monotonic()))
            time.sleep(_SETTLE_S)
            used = time.process_time()
            time.sleep(task.seconds)
            cpu = (time.process_time() - used) / task.seconds * 100
            held = _held()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        return {
            "connections": held["connections"] - before["connections"],
            "threads": held["threads"] - before["threads"] - task.consumers,
            "rss_mb": held["rss_mb"] - before["rss_mb"],
            "cpu_percent": cpu,
            "assigned": sum(event.is_set() for event in joined),
        }


_MEASURES: dict[str, Callable[[Task], dict[str, float]]] = {
    "send": _send,
    "send_batch": _send_batch,
    "consume": _consume,
    "idle": _idle,
}


def _producer(task: Task) -> Any:
    return Kafka(**task.options).producer() if task.client == "pooledkafka" else KafkaProducer(**task.options)


def _consumer(task: Task) -> Any:
    return Kafka(**task.options).consumer() if task.client == "pooledkafka" else KafkaConsumer(**task.options)


def _consumers(task: Task, stack: ExitStack) -> Callable[[str], Any]:
    """Makes consumers of the topic in a group of this name; those of pooledkafka over one pool."""
    if task.client == "pooledkafka":
        kafka = Kafka(**task.options)
        pool = stack.enter_context(kafka.connection_pool())
        return lambda group: stack.enter_context(kafka.consumer(task.topic, group_id=group, connection_pool=pool))
    return lambda group: stack.enter_context(KafkaConsumer(task.topic, group_id=group, **task.options))


def _held() -> dict[str, float]:
    process = psutil.Process()
    connections = process.net_connections(kind="tcp")
    return {
        "connections": sum(each.status == psutil.CONN_ESTABLISHED for each in connections),
        "threads": process.num_threads(),
        "rss_mb": process.memory_info().rss / 1e6,
    }


class _Clock:
    """Begins when it is made."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def rate(self, records: int) -> dict[str, float]:
        """Records a second, and the processor's time for one."""
        took, used = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        return {"records_per_second": records / took, "cpu_us_per_record": used / records * 1e6}
