"""Consumers that are polled, on a thread of their own or on the test's, and what they got."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from kafka.structs import TopicPartition

from pooledkafka import Consumer
from tests.pooled.waiting import TIMEOUT_S, until

__all__ = ["Reader", "read"]

_POLL_MS = 100


class Reader:
    """Polls one consumer on a thread until stopped, keeps what it got, and closes the consumer at the end."""

    def __init__(self, consumer: Consumer, *, max_records: int | None = None) -> None:
        self.consumer = consumer
        self._max_records = max_records
        self._changed = threading.Condition()  # guards the four below
        self._records: list[Any] = []
        self._assignment: set[TopicPartition] = set()
        self._polls = 0
        self._error: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            with self.consumer:
                while not self._stopping.is_set():
                    batches = self.consumer.poll(timeout_ms=_POLL_MS, max_records=self._max_records)
                    assignment = self.consumer.assignment()
                    with self._changed:
                        for records in batches.values():
                            self._records.extend(records)
                        self._assignment = assignment
                        self._polls += 1
                        self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    @property
    def error(self) -> BaseException | None:
        """What the consumer raised, if it did; it polls no more then."""
        with self._changed:
            return self._error

    @property
    def records(self) -> list[Any]:
        """What it got so far, in the order of its coming."""
        with self._changed:
            return list(self._records)

    @property
    def values(self) -> list[bytes]:
        """The values of what it got so far."""
        return [record.value for record in self.records]

    @property
    def assignment(self) -> set[TopicPartition]:
        """The partitions that it had after its last poll."""
        with self._changed:
            return set(self._assignment)

    def of_partition(self, partition: int) -> list[bytes]:
        """The values of one partition, in their order."""
        return [record.value for record in self.records if record.partition == partition]

    def gets(self, values: Sequence[bytes]) -> None:
        """Wait until it has got as many records, and check that they are these, in this order, each once."""
        self._wait(lambda: len(self._records) >= len(values), f"{len(values)} records")
        assert self.values == list(values)

    def is_assigned(self, count: int | None = None) -> set[TopicPartition]:
        """Wait until it has partitions, or as many of them; returns them."""
        self._wait(
            lambda: len(self._assignment) == count if count is not None else bool(self._assignment),
            f"{'its' if count is None else count} partitions",
        )
        return self.assignment

    def polls_again(self) -> None:
        """Wait until a poll that began after this has returned."""
        polls = self._polls
        self._wait(lambda: self._polls > polls + 1, "another poll")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            met = self._changed.wait_for(lambda: self._error is not None or condition(), TIMEOUT_S)
            if self._error is not None:
                raise self._error
            got = [record.value for record in self._records]
            assert met, f"no {what} after {TIMEOUT_S:g} s; it has {sorted(self._assignment)} and got {got}"

    def tell_to_stop(self) -> None:
        """Let the thread end, without waiting for it."""
        self._stopping.set()
        self.consumer.wakeup()

    def stop(self) -> None:
        """End the thread; raises what the consumer raised."""
        self.tell_to_stop()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "the consumer did not stop"
        if self._error is not None:
            raise self._error


def read(consumer: Consumer, count: int) -> list[bytes]:
    """Poll on this thread until so many records have come; returns their values."""
    values: list[bytes] = []

    def more() -> list[bytes]:
        for records in consumer.poll(timeout_ms=_POLL_MS).values():
            values.extend(record.value for record in records)
        return values

    return until(more, lambda got: len(got) >= count)
