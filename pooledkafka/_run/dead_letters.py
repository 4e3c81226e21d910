"""The topic for records that could not be handled."""

from __future__ import annotations

import traceback
from typing import Any

from pooledkafka.pool import ConnectionPool
from pooledkafka.producer import Producer

__all__ = ["DeadLetters"]

_TRACEBACK_BYTES = 8_000


class DeadLetters:
    """Sends records on as they were written, with headers that say where they come from and what went wrong.

    These are ``dead-letter.topic``, ``.partition``, ``.offset``, ``.timestamp``, ``.group``, ``.attempts``,
    ``.error.type``, ``.error.message`` and ``.error.traceback`` (its last 8,000 bytes), all text in UTF-8; the headers
    that the record had come before them.
    """

    def __init__(self, topic: str, pool: ConnectionPool, group: str | None) -> None:
        self.topic = topic
        self._group = group
        # Idempotent, as kafka-python's are by default, and acknowledged by all replicas in sync: what is not there yet
        # is not committed, so it would be handled again.
        self._producer = Producer(connection_pool=pool, acks="all")

    def add(self, records: list[Any], error: Exception, attempts: int) -> None:
        """Send these, and wait until all are acknowledged; raises the KafkaError that hinders it."""
        reasons = self._reasons(error, attempts)
        futures = [
            self._producer.send(
                self.topic,
                record.value,
                key=record.key,
                headers=[*(record.headers or ()), *self._origin(record), *reasons],
            )
            for record in records
        ]
        for future in futures:
            future.get()  # for delivery_timeout_ms at most

    def close(self) -> None:
        self._producer.close()

    def _origin(self, record: Any) -> list[tuple[str, bytes]]:
        origin = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "group": self._group or "",
        }
        return [(f"dead-letter.{name}", str(value).encode()) for name, value in origin.items()]

    def _reasons(self, error: Exception, attempts: int) -> list[tuple[str, bytes]]:
        kind = type(error)
        trace = "".join(traceback.format_exception(kind, error, error.__traceback__))
        reasons = {
            "attempts": str(attempts),
            "error.type": f"{kind.__module__}.{kind.__qualname__}",
            "error.message": str(error),
            "error.traceback": trace,
        }
        return [
            (f"dead-letter.{name}", value.encode("utf-8", "backslashreplace")[-_TRACEBACK_BYTES:])
            for name, value in reasons.items()
        ]
