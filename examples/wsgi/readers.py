"""Consumers in the background of a web application: one of each group, on threads of the process that serves."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Sequence
from typing import Any

from kafka.errors import KafkaError

from pooledkafka import ConnectionPool, Kafka

__all__ = ["Readers"]

STOP_WITHIN_S = 10.0
TRY_AGAIN_S = 5.0

log = logging.getLogger(__name__)


class Reader(threading.Thread):
    """Counts the records that one group gets in this process, until it is stopped."""

    def __init__(self, kafka: Kafka, pool: ConnectionPool, topic: str, group: str) -> None:
        # A thread that is no daemon would be waited for before atexit runs, which is what stops it.
        super().__init__(name=f"reader-{group}", daemon=True)
        self.group = group
        self.count = 0  # written by this thread alone
        self._stopped = threading.Event()
        # Without auto-commit, run() commits after each batch: the least is read again when workers come and go.
        self._consumer = kafka.consumer(
            topic,
            group_id=f"{topic}.{group}",
            connection_pool=pool,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )

    def run(self) -> None:
        with self._consumer:
            while not self._stopped.is_set():
                try:
                    self._consumer.run(self._read)
                except KafkaError as error:  # no broker was there to begin with, say
                    log.warning("%s waits to try again: %s", self.name, error)
                    self._stopped.wait(TRY_AGAIN_S)

    def _read(self, record: Any) -> None:
        self.count += 1

    def stop(self) -> None:
        """Let it commit what it has read and leave its group; does not wait for that."""
        self._stopped.set()
        self._consumer.stop()


class Readers:
    """The readers of a process, which are started by its first request: not at import, which may be before a fork."""

    def __init__(self, kafka: Kafka, pool: ConnectionPool, topic: str, groups: Sequence[str]) -> None:
        self._what = [(kafka, pool, topic, group) for group in groups]
        self._starting = threading.Lock()
        self._running: list[Reader] = []  # set once, under that lock

    def start_once(self) -> None:
        if self._running:
            return
        with self._starting:
            if not self._running:
                running = [Reader(*what) for what in self._what]
                for reader in running:
                    reader.start()
                atexit.register(self._stop)  # runs before what the library does at exit, which commits nothing
                self._running = running

    def counts(self) -> dict[str, int]:
        return {reader.group: reader.count for reader in self._running}

    def _stop(self) -> None:
        for reader in self._running:
            reader.stop()
        for reader in self._running:
            reader.join(STOP_WITHIN_S)
