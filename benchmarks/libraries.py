"""The libraries that are compared, behind one interface.

A library is imported when it is made, so a process has only the one that it measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from threading import Event
from typing import Any, Protocol

from benchmarks.process import Moment

__all__ = [
    "LIBRARIES",
    "WAYS",
    "Counted",
    "Library",
    "Partitions",
    "Polling",
    "Reading",
    "Sender",
    "Told",
    "made",
    "missing",
    "pairs",
    "version_of",
]

Partitions = frozenset[tuple[str, int]]
Sender = Callable[[bytes, int, Callable[[Any], None]], None]
"""Sends a value to a partition; calls back with None when it is acknowledged, or with the error."""
Chunks = Iterator[list[bytes]]
"""Values to send, so many at a time that looking at the clock in between costs nothing."""


class Told(Protocol):
    """Who is told what a consumer has, at the moment that its rebalance listener is."""

    def gained(self, partitions: Partitions) -> None: ...

    def lost(self, partitions: Partitions) -> None: ...


class Polling(Told, Protocol):
    """A consumer that is polled all the time, as in an application."""

    stopping: Event
    leaving: Event

    def took(self, values: list[bytes]) -> None:
        """A poll returned these."""

    def stopped(self, held: Partitions) -> None:
        """It is no longer polled, and says that it has these."""

    def failed(self, error: Exception) -> None: ...


@dataclass(frozen=True)
class Reading:
    """What one consumer has to read: a topic as the only member of a group, or these partitions of it."""

    topic: str
    group: str
    partitions: tuple[int, ...]
    subscribes: bool
    expected: int


@dataclass(frozen=True)
class Counted:
    """What it has read."""

    records: int
    value_bytes: int
    positions: dict[int, int]
    first: Moment
    last: Moment


class Library(Protocol):
    """One library's way to make clients."""

    threads_for_each: int
    """How many threads the application needs for each consumer that it polls."""

    def start(self, topic: str, group: str, polling: Polling) -> Callable[[float], None]:
        """Poll one more consumer, from the end of the topic; what is returned waits so many seconds for its end."""

    def sender(self, topic: str, options: dict[str, Any]) -> Sender:
        """One more producer."""

    def produce(
        self, topic: str, partitions: int, way: str, options: dict[str, Any], window: int, chunks: Chunks
    ) -> tuple[Moment, Moment]:
        """Send all chunks with one producer; from the first record sent until the last was acknowledged.

        Before that, one record was sent to each partition. No more than about ``window`` records wait at a time.
        """

    def consume(self, readings: list[Reading], options: dict[str, Any]) -> tuple[Moment, list[Counted], int | None]:
        """Read with so many consumers at a time; when they began to poll, what came, and the bytes received by then."""

    def close(self) -> None:
        """End the producers and what is shared."""


@dataclass(frozen=True)
class Known:
    """Where a library is found, where what drives it is, and how it can send many records."""

    module: str
    driver: str
    name: str
    ways: tuple[str, ...]


KNOWN = {
    "pooledkafka": Known("pooledkafka", "benchmarks.kafka_python", "Pooled", ("send", "send_batch")),
    "kafka-python": Known("kafka", "benchmarks.kafka_python", "Stock", ("send",)),
    "confluent-kafka": Known("confluent_kafka", "benchmarks.confluent", "Confluent", ("produce", "produce_batch")),
    "aiokafka": Known("aiokafka", "benchmarks.aio", "Aiokafka", ("send",)),
}
LIBRARIES = tuple(KNOWN)
WAYS = tuple(f"{library} {way}" for library, known in KNOWN.items() for way in known.ways)
"""All ways to send many records, each with its library."""


def made(library: str, bootstrap: str) -> Library:
    known = KNOWN[library]
    made_here: Library = getattr(import_module(known.driver), known.name)(bootstrap)
    return made_here


def pairs(partitions: Iterable[Any]) -> Partitions:
    """What a library calls TopicPartition, as all of them say it here."""
    return frozenset((partition.topic, partition.partition) for partition in partitions)


def missing(library: str) -> bool:
    """Whether it is not installed."""
    return find_spec(KNOWN[library].module) is None


def version_of(library: str) -> str:
    return version(library)
