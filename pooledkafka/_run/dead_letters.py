"""The topic for records that could not be handled."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from pooledkafka.errors import PoolTimeoutError
from pooledkafka.pool import ConnectionPool
from pooledkafka.producer import Producer

__all__ = ["DeadLetters"]

_TRACEBACK_BYTES = 8_000
_ASK_AGAIN_S = 0.2
_CLOSE_MS = 1_000

Headers = list[tuple[str, bytes]]


class DeadLetters:
    """Sends records on as they were written, with headers that say where they come from and what went wrong.

    These are ``dead-letter.topic``, ``.partition``, ``.offset``, ``.timestamp``, ``.group``, ``.attempts``,
    ``.error.type``, ``.error.message`` and ``.error.traceback`` (its last 8,000 bytes), all text in UTF-8; the headers
    that the record had come before them. Where a record is too large with them, the last two are left out, or all.
    kafka-python writes no header without a value, and no record without key and value: they are empty then, and
    ``dead-letter.null`` names what was null, as in ``value,header trace``.
    """

    def __init__(self, topic: str, pool: ConnectionPool, group: str | None) -> None:
        self.topic = topic
        self._group = group
        # Acknowledged by all replicas in sync: what is not there yet is not committed, so it is handled again. Whether
        # a record is too large is for the broker to say; and not idempotent, since one that is refused for that must
        # not end what other records depend on. A record may so be there twice, as where the run ends meanwhile.
        self._producer = Producer(
            connection_pool=pool, acks="all", enable_idempotence=False, max_request_size=2**31 - 1
        )

    def add(self, records: list[Any], error: Exception, attempts: int, goes_on: Callable[[], bool]) -> bool:
        """Send these, and wait until all are acknowledged; False where the run does not go on before that.

        Raises the KafkaError that hinders it.
        """
        kind = type(error)
        short = _texts({"attempts": attempts, "error.type": f"{kind.__module__}.{kind.__qualname__}"})
        trace = "".join(traceback.format_exception(kind, error, error.__traceback__))
        reasons = short + _texts({"error.message": error, "error.traceback": trace})
        futures = [self._send(record, self._origin(record) + reasons) for record in records]
        return all(
            self._arrives(future, record, [self._origin(record) + short, []], goes_on)
            for record, future in zip(records, futures, strict=True)
        )

    def _arrives(self, future: Any, record: Any, fewer: list[Headers], goes_on: Callable[[], bool]) -> bool:
        try:
            return _is_done(future, goes_on)
        except MessageSizeTooLargeError:
            if not fewer:
                raise
            return self._arrives(self._send(record, fewer[0]), record, fewer[1:], goes_on)

    def close(self) -> None:
        # What is not acknowledged was waited for already, and is not committed.
        with suppress(PoolTimeoutError):
            self._producer.close(timeout_ms=_CLOSE_MS)

    def _send(self, record: Any, more: Headers) -> Any:
        headers = [(name, b"" if value is None else value) for name, value in record.headers or ()]
        value = b"" if record.key is None and record.value is None else record.value
        return self._producer.send(self.topic, value, key=record.key, headers=headers + more)

    def _origin(self, record: Any) -> Headers:
        nulls = [f"header {name}" for name, value in record.headers or () if value is None]
        if record.key is None and record.value is None:
            nulls.insert(0, "value")
        return _texts(
            {
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "timestamp": record.timestamp,
                "group": self._group or "",
                **({"null": ",".join(nulls)} if nulls else {}),
            }
        )


def _texts(values: dict[str, Any]) -> Headers:
    return [
        (f"dead-letter.{name}", str(value).encode("utf-8", "backslashreplace")[-_TRACEBACK_BYTES:])
        for name, value in values.items()
    ]


def _is_done(future: Any, goes_on: Callable[[], bool]) -> bool:
    """Wait until it is, as long as the run goes on; raises why a record was not taken."""
    while not future.is_done:
        try:
            future.get(timeout=_ASK_AGAIN_S)
        except KafkaTimeoutError:
            if not future.is_done and not goes_on():
                return False
    future.get()
    return True
