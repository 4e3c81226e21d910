"""Consumers that are polled all the time, as in an application, and what they are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from benchmarks.libraries import Library, Partitions

__all__ = ["PollingConsumer", "errors_of", "record", "wait_until"]

CLOSED_WITHIN_S = 60.0


def record(number: int, size: int = 0) -> bytes:
    """A value that says when it was sent, and which it is."""
    return (b"%d %d " % (time.monotonic_ns(), number)).ljust(size, b".")


class PollingConsumer:
    """One consumer, polled until all of those that began with it end."""

    def __init__(self, library: Library, topic: str, group: str) -> None:
        self.owned: Partitions = frozenset()  # replaced by the rebalance listener
        self.changed_at = 0.0
        self.held: Partitions = frozenset()  # what assignment() says when polling has ended
        self.received: list[tuple[int, float]] = []  # number, and ms since it was sent
        self.error: Exception | None = None
        self.stopping = threading.Event()
        self.leaving = threading.Event()
        self._stopped = threading.Event()
        self._join = library.start(topic, group, self)

    def gained(self, partitions: Partitions) -> None:
        self.changed_at = time.monotonic()
        self.owned |= partitions

    def lost(self, partitions: Partitions) -> None:
        self.changed_at = time.monotonic()
        self.owned -= partitions

    def took(self, values: list[bytes]) -> None:
        for value in values:
            sent, number, _ = value.split(b" ", 2)
            self.received.append((int(number), (time.monotonic_ns() - int(sent)) / 1e6))

    def stopped(self, held: Partitions) -> None:
        self.held = held
        self._stopped.set()

    def failed(self, error: Exception) -> None:
        self.error = error
        self._stopped.set()

    @staticmethod
    def end(consumers: list[PollingConsumer]) -> None:
        """Stop polling, and let the consumers leave when each has said what it holds: no leaving rebalances another."""
        for consumer in consumers:
            consumer.stopping.set()
        for consumer in consumers:
            consumer._stopped.wait(CLOSED_WITHIN_S)
        for consumer in consumers:
            consumer.leaving.set()
        for consumer in consumers:
            consumer._join(CLOSED_WITHIN_S)


def errors_of(consumers: list[PollingConsumer]) -> list[str]:
    return [repr(consumer.error) for consumer in consumers if consumer.error is not None]


def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return met
