"""Consumers on threads of their own, as the pool's integration tests need them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from kafka.structs import TopicPartition

from pooledkafka import Consumer

__all__ = ["Reader", "eventually"]


class Reader:
    """Polls one consumer on a thread until stopped, and keeps what it got; closes the consumer at the end."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.values: Counter[bytes] = Counter()  # the thread's, read by the test when it waits for a count
        self.order: dict[TopicPartition, list[int]] = {}  # offsets by partition, as they came
        self.assigned: set[TopicPartition] = set()  # replaced after each poll
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self.consumer:
                while not self._stop.is_set():
                    batches = self.consumer.poll(timeout_ms=200)
                    self.assigned = self.consumer.assignment()
                    for partition, records in batches.items():
                        self.order.setdefault(partition, []).extend(record.offset for record in records)
                        self.values.update(record.value for record in records)
        except BaseException as error:
            self.error = error

    def tell_to_stop(self) -> None:
        """Let the thread end, without waiting for it."""
        self._stop.set()

    def stop(self, timeout_s: float = 30) -> None:
        """End the thread; raises what the consumer raised."""
        self.tell_to_stop()
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the consumer did not stop"
        if self.error is not None:
            raise self.error


def eventually(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Wait until ``condition()`` is true and return it; fails naming ``what`` after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)
    return result
