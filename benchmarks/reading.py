"""Consumers on threads, for the libraries whose calls wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.libraries import Counted, Partitions, Polling, Reading, Sender, Told
from benchmarks.options import POLL_RECORDS
from benchmarks.process import Moment, moment, received_bytes

__all__ = [
    "STUCK_S",
    "BulkReader",
    "NothingCameError",
    "Reader",
    "ThreadedLibrary",
    "poll_in_a_thread",
    "read_in_threads",
]

STUCK_S = 10.0
"""A reader that gets nothing for so long gets nothing any more."""


class NothingCameError(Exception):
    """A reader has got nothing for long, though there is more to read."""


class Reader(Protocol):
    """One consumer."""

    def poll(self) -> list[bytes]:
        """The values that came within POLL_S."""

    def assignment(self) -> Partitions:
        """What it says that it has."""

    def close(self) -> None:
        """Leave the group and disconnect."""


class ThreadedLibrary(Protocol):
    """A library whose consumers are each for a thread of its own."""

    def reader(self, topic: str, group: str, told: Told) -> Reader:
        """A consumer that reads from the end of the topic; to be made and polled on one thread."""

    def sender(self, topic: str, options: dict[str, Any]) -> Sender:
        """One more producer."""


class BulkReader(Protocol):
    """One consumer that reads as fast as it can."""

    def poll(self, most: int) -> tuple[int, int]:
        """How many records came within POLL_S, and the bytes of their values."""

    def positions(self) -> dict[int, int]:
        """Where it is in each partition."""

    def close(self) -> None:
        """Disconnect."""


def poll_in_a_thread(make: Callable[[], Reader], polling: Polling) -> Callable[[float], None]:
    def run() -> None:
        try:
            reader = make()
            while not polling.stopping.is_set():
                if values := reader.poll():
                    polling.took(values)
            polling.stopped(reader.assignment())
            polling.leaving.wait()
            reader.close()
        except Exception as error:
            polling.failed(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread.join


@dataclass
class _Running:
    """One reader's thread; its fields are read when that has ended."""

    reading: Reading
    make: Callable[[Reading], BulkReader]
    ready: threading.Barrier
    reader: BulkReader | None = None
    counted: Counted | None = None
    error: Exception | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.reader = self.make(self.reading)
            self.ready.wait(60)
            self.counted = self._read(self.reader)
        except Exception as error:
            self.error = error
            self.ready.abort()

    def _read(self, reader: BulkReader) -> Counted:
        records = value_bytes = 0
        first: Moment | None = None
        latest = time.monotonic()
        while records < self.reading.expected:
            # No more than are left: confluent-kafka would wait for those that do not come.
            came, came_bytes = reader.poll(min(POLL_RECORDS, self.reading.expected - records))
            if came:
                latest = time.monotonic()
                first = first or moment()
                records += came
                value_bytes += came_bytes
            elif time.monotonic() - latest > STUCK_S:
                raise NothingCameError(f"{records} of {self.reading.expected} records came, then nothing")
        last = moment()
        return Counted(records, value_bytes, reader.positions(), first or last, last)


def read_in_threads(
    make: Callable[[Reading], BulkReader], readings: list[Reading]
) -> tuple[Moment, list[Counted], int | None]:
    """Make all readers, then let each be polled by a thread of its own until it has what it has to read."""
    ready = threading.Barrier(len(readings) + 1)
    running = [_Running(reading, make, ready) for reading in readings]
    try:
        ready.wait(60)
    except threading.BrokenBarrierError:
        pass  # the error of the reader that could not be made says more
    start = moment()
    for one in running:
        one.thread.join()
    for one in running:
        if one.error is not None and not isinstance(one.error, threading.BrokenBarrierError):
            raise one.error
    received = received_bytes()
    for one in running:
        if one.reader is not None:
            one.reader.close()
    return start, [one.counted for one in running if one.counted is not None], received
