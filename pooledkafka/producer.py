"""A producer over a shared pool."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from pooledkafka._wire import WiredProducer
from pooledkafka.config import CONNECTION_OPTIONS, PRODUCER_OPTIONS, client_options
from pooledkafka.errors import PoolClosedError, PoolTimeoutError
from pooledkafka.pool import ConnectionPool

__all__ = ["Producer"]


class Producer:
    """A Kafka producer whose connections are the pool's; its methods are ``KafkaProducer``'s.

    Args:
        connection_pool: the pool to share. None: a private pool, made from the connection options given here and
            closed with this producer.
        options: kafka-python's producer options (``acks``, ``linger_ms``, ``value_serializer``, ...), with its names,
            defaults and meaning. Connection and security options belong to the pool.

    Thread-safe. Nothing connects and no thread starts until the first use.

    Raises:
        ConfigurationError: an option is unknown, cannot work, or contradicts the pool's.

    Example:
        >>> with Producer(connection_pool=pool) as producer:
        ...     producer.send("orders", b"value", key=b"k").get(timeout=10)
    """

    kind = "producer"

    def __init__(self, *, connection_pool: ConnectionPool | None = None, **options: Any) -> None:
        self._private_pool: ConnectionPool | None = None
        if connection_pool is None:
            connection = {name: value for name, value in options.items() if name in CONNECTION_OPTIONS}
            options = {name: value for name, value in options.items() if name not in CONNECTION_OPTIONS}
            connection_pool = self._private_pool = ConnectionPool(**connection)
        self._pool = connection_pool
        self._options = client_options(options, PRODUCER_OPTIONS, "a producer", connection_pool.options)
        # Lock order: _opening, then the pool's. _opening guards the two fields below; it is held while the pool
        # connects, never while records are sent.
        self._opening = threading.Lock()
        self._wired: WiredProducer | None = None
        self._closed = False

    # -- life cycle ----------------------------------------------------------------------------------------------------

    def connect(self, timeout_ms: float | None = None) -> None:
        """Connect the complete pool; see ``ConnectionPool.connect``."""
        if self._closed:
            raise PoolClosedError("the producer is closed; make a new one")
        self._pool.connect(timeout_ms)

    def disconnect(self, timeout_ms: float = 30_000) -> None:
        """Disconnect the complete pool, and with it every client that shares it; see ``ConnectionPool.disconnect``."""
        self._pool.disconnect(timeout_ms)

    def close(self, timeout_ms: float = 30_000) -> None:
        """Send what is buffered and detach; the pool and its other clients go on. Idempotent.

        Args:
            timeout_ms: milliseconds to wait for acknowledgements.

        Raises:
            PoolTimeoutError: records were left undelivered; the message says how many. The producer is closed.
        """
        with self._opening:
            self._closed = True
        self._pool._forget(self)
        try:
            undelivered = self._detach(timeout_ms)
        finally:
            if self._private_pool is not None:
                self._private_pool.disconnect(timeout_ms)
        if undelivered:
            raise PoolTimeoutError(
                f"the producer is closed, but {undelivered} records could not be delivered within {timeout_ms:.0f} ms; "
                "their futures have failed. Call flush() before close(), or give it a longer timeout_ms."
            )

    def _detach(self, timeout_ms: float) -> int:
        with self._opening:
            wired, self._wired = self._wired, None
        return wired.close(timeout_ms) if wired is not None else 0

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> WiredProducer:
        wired = self._wired
        if wired is not None:
            return wired
        with self._opening:
            if self._closed:
                raise PoolClosedError("the producer is closed; make a new one")
            if self._wired is None:
                self._wired = WiredProducer(self._pool._attach(self), self._options)
            return self._wired

    # -- sending -------------------------------------------------------------------------------------------------------

    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Any:
        """Send a record; returns kafka-python's future of its metadata. See ``KafkaProducer.send``.

        Raises:
            PoolClosedError: the producer is closed, or its pool disconnected.
        """
        return self._opened().kafka.send(
            topic, value=value, key=key, headers=headers, partition=partition, timestamp_ms=timestamp_ms
        )

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all records sent so far are acknowledged or have failed.

        Args:
            timeout: seconds, for all of them together. Default: no limit.

        Raises:
            KafkaTimeoutError: some were not acknowledged in time.
        """
        wired = self._wired
        if wired is not None:
            wired.flush(None if timeout is None else timeout * 1000)

    def partitions_for(self, topic: str) -> set[int]:
        """The partitions of ``topic``."""
        return set(self._opened().kafka.partitions_for(topic))

    def metrics(self, raw: bool = False) -> Any:
        """kafka-python's metrics of this producer."""
        return self._opened().kafka.metrics(raw)

    # -- transactions --------------------------------------------------------------------------------------------------

    def init_transactions(self) -> None:
        """Register ``transactional_id``, once, before the first transaction."""
        self._opened().kafka.init_transactions()

    def begin_transaction(self) -> None:
        """Begin a transaction; all that is sent until its end becomes visible together, or not at all."""
        self._opened().kafka.begin_transaction()

    def send_offsets_to_transaction(self, offsets: Any, group_metadata: Any) -> None:
        """Commit a consumer's offsets as part of the transaction."""
        self._opened().kafka.send_offsets_to_transaction(offsets, group_metadata)

    def commit_transaction(self) -> None:
        """Make what was sent visible."""
        self._opened().kafka.commit_transaction()

    def abort_transaction(self) -> None:
        """Withdraw what was sent."""
        self._opened().kafka.abort_transaction()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "attached" if self._wired is not None else "not attached"
        return f"<Producer [{state}] of {self._pool!r}>"
