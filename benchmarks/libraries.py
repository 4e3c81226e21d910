"""The libraries that are compared, behind one interface: the same options, polled and told of rebalances alike.

A library is imported when it is made, so a process has only the one that it measures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Protocol

__all__ = ["LIBRARIES", "Library", "Partitions", "Reader", "Sender", "Told", "missing", "version_of"]

POLL_S = 0.2
"""How long each call of poll() may wait, for all libraries."""

CONSUMER: dict[str, Any] = {
    "fetch_max_wait_ms": 500,
    "fetch_min_bytes": 1,
    "auto_offset_reset": "latest",
    "enable_auto_commit": True,
    "auto_commit_interval_ms": 5_000,
    "session_timeout_ms": 45_000,
    "heartbeat_interval_ms": 3_000,
    "check_crcs": True,
}
PRODUCER: dict[str, Any] = {"acks": "all", "linger_ms": 0, "enable_idempotence": True}
"""kafka-python's defaults, said aloud, because librdkafka's differ; all compression off, all assignors range."""

CONFLUENT_NAMES = {"fetch_max_wait_ms": "fetch.wait.max.ms"}
"""Where it is not the same with dots."""

Partitions = frozenset[tuple[str, int]]
Sender = Callable[[bytes, int, Callable[[Any], None]], None]
"""Sends a value to a partition; calls back with None when it is acknowledged, or with the error."""


class Told(Protocol):
    """Who is told what a consumer has, at the moment that its rebalance listener is."""

    def gained(self, partitions: Partitions) -> None: ...

    def lost(self, partitions: Partitions) -> None: ...


class Reader(Protocol):
    """One consumer."""

    def poll(self) -> list[bytes]:
        """The values that came within POLL_S."""

    def assignment(self) -> Partitions:
        """What it says that it has."""

    def close(self) -> None:
        """Leave the group and disconnect."""


class Library(Protocol):
    """One library's way to make clients."""

    def reader(self, topic: str, group: str, told: Told) -> Reader:
        """A consumer that reads from the end of the topic."""

    def sender(self, topic: str) -> Sender:
        """One more producer."""

    def close(self) -> None:
        """End the producers and what is shared."""


def pairs(partitions: Iterable[Any]) -> Partitions:
    return frozenset((partition.topic, partition.partition) for partition in partitions)


class KafkaPythonReader:
    """kafka-python's consumer, or pooledkafka's, which has the same methods."""

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


def kafka_python_sender(producer: Any, topic: str) -> Sender:
    def send(value: bytes, partition: int, done: Callable[[Any], None]) -> None:
        future = producer.send(topic, value, partition=partition)
        future.add_callback(lambda _: done(None))
        future.add_errback(done)

    return send


class Stock:
    """Stock kafka-python: a client of its own for each."""

    def __init__(self, bootstrap: str) -> None:
        import kafka

        self._kafka = kafka
        self._bootstrap = bootstrap
        self._producers: list[Any] = []

    def reader(self, topic: str, group: str, told: Told) -> Reader:
        consumer = self._kafka.KafkaConsumer(
            bootstrap_servers=self._bootstrap,
            group_id=group,
            partition_assignment_strategy=[range_assignor()],
            **CONSUMER,
        )
        return KafkaPythonReader(consumer, topic, told)

    def sender(self, topic: str) -> Sender:
        self._producers.append(self._kafka.KafkaProducer(bootstrap_servers=self._bootstrap, **PRODUCER))
        return kafka_python_sender(self._producers[-1], topic)

    def close(self) -> None:
        for producer in self._producers:
            producer.close()


class Pooled:
    """pooledkafka: all clients over one pool, with the pool's defaults."""

    def __init__(self, bootstrap: str) -> None:
        from pooledkafka import Kafka

        self._kafka = Kafka(bootstrap_servers=bootstrap)
        self._pool = self._kafka.connection_pool()

    def reader(self, topic: str, group: str, told: Told) -> Reader:
        consumer = self._kafka.consumer(
            connection_pool=self._pool,
            group_id=group,
            partition_assignment_strategy=[range_assignor()],
            **CONSUMER,
        )
        return KafkaPythonReader(consumer, topic, told)

    def sender(self, topic: str) -> Sender:
        return kafka_python_sender(self._kafka.producer(connection_pool=self._pool, **PRODUCER), topic)

    def close(self) -> None:
        self._pool.disconnect()


def range_assignor() -> Any:
    from kafka.coordinator.assignors.range import RangePartitionAssignor

    return RangePartitionAssignor


class ConfluentReader:
    def __init__(self, consumer: Any, topic: str, told: Told) -> None:
        self._consumer = consumer
        consumer.subscribe(
            [topic],
            on_assign=lambda _, assigned: told.gained(pairs(assigned)),
            on_revoke=lambda _, revoked: told.lost(pairs(revoked)),
        )

    def poll(self) -> list[bytes]:
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


def in_confluent_names(options: dict[str, Any]) -> dict[str, Any]:
    return {CONFLUENT_NAMES.get(name, name.replace("_", ".")): value for name, value in options.items()}


class Confluent:
    """confluent-kafka, which is librdkafka: a client of its own for each."""

    def __init__(self, bootstrap: str) -> None:
        import confluent_kafka

        self._module = confluent_kafka
        # kafka-python sets TCP_NODELAY; without it librdkafka would wait for more to send.
        self._options = {"bootstrap.servers": bootstrap, "socket.nagle.disable": True}
        self._producers: list[Any] = []
        self._stop = threading.Event()

    def reader(self, topic: str, group: str, told: Told) -> Reader:
        own = {"group.id": group, "partition.assignment.strategy": "range"}
        consumer = self._module.Consumer({**self._options, **in_confluent_names(CONSUMER), **own})
        return ConfluentReader(consumer, topic, told)

    def sender(self, topic: str) -> Sender:
        producer = self._module.Producer({**self._options, **in_confluent_names(PRODUCER)})
        self._producers.append(producer)

        def serve() -> None:  # callbacks run in poll(), which is the application's to call
            while not self._stop.is_set():
                producer.poll(0.1)

        threading.Thread(target=serve, daemon=True).start()

        def send(value: bytes, partition: int, done: Callable[[Any], None]) -> None:
            producer.produce(topic, value, partition=partition, on_delivery=lambda error, _: done(error))

        return send

    def close(self) -> None:
        for producer in self._producers:
            producer.flush(30)
        self._stop.set()


LIBRARIES: dict[str, Callable[[str], Library]] = {
    "pooledkafka": Pooled,
    "kafka-python": Stock,
    "confluent-kafka": Confluent,
}

MODULES = {"pooledkafka": "pooledkafka", "kafka-python": "kafka", "confluent-kafka": "confluent_kafka"}


def missing(library: str) -> bool:
    """Whether it is not installed."""
    return find_spec(MODULES[library]) is None


def version_of(library: str) -> str:
    return version(library)
