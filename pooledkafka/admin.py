"""An admin client over a shared pool."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from kafka import KafkaAdminClient

from pooledkafka._wire import WiredAdmin
from pooledkafka.config import ADMIN_OPTIONS, CONNECTION_OPTIONS, client_options
from pooledkafka.errors import PoolClosedError
from pooledkafka.pool import ConnectionPool

__all__ = ["Admin"]


class Admin:
    """A Kafka admin client whose connections are the pool's; its methods are ``KafkaAdminClient``'s.

    Args:
        connection_pool: the pool to share. None: a private pool, made from the connection options given here and
            closed with this client.
        options: kafka-python's admin options (``request_timeout_ms``, ``retry_backoff_ms``, ...), with its names,
            defaults and meaning. Connection and security options belong to the pool.

    May be used from any thread. Nothing connects until the first use.

    Raises:
        ConfigurationError: an option is unknown, cannot work, or contradicts the pool's.

    Example:
        >>> with Admin(connection_pool=pool) as admin:
        ...     admin.create_topics({"orders": {"num_partitions": 6}})
    """

    kind = "admin"

    def __init__(self, *, connection_pool: ConnectionPool | None = None, **options: Any) -> None:
        self._private_pool: ConnectionPool | None = None
        if connection_pool is None:
            connection = {name: value for name, value in options.items() if name in CONNECTION_OPTIONS}
            options = {name: value for name, value in options.items() if name not in CONNECTION_OPTIONS}
            connection_pool = self._private_pool = ConnectionPool(**connection)
        self._pool = connection_pool
        self._options = client_options(options, ADMIN_OPTIONS, "an admin client", connection_pool.options)
        # Lock order: _opening, then the pool's. _opening guards the two fields below.
        self._opening = threading.Lock()
        self._wired: WiredAdmin | None = None
        self._closed = False

    def connect(self, timeout_ms: float | None = None) -> None:
        """Connect the complete pool; see ``ConnectionPool.connect``."""
        if self._closed:
            raise PoolClosedError("the admin client is closed; make a new one")
        self._pool.connect(timeout_ms)

    def disconnect(self, timeout_ms: float = 30_000) -> None:
        """Disconnect the complete pool, and with it every client that shares it; see ``ConnectionPool.disconnect``."""
        self._pool.disconnect(timeout_ms)

    def close(self, timeout_ms: float = 30_000) -> None:
        """Detach; the pool and its other clients go on. Idempotent."""
        with self._opening:
            self._closed = True
        self._pool._forget(self)
        try:
            self._detach(timeout_ms)
        finally:
            if self._private_pool is not None:
                self._private_pool.disconnect(timeout_ms)

    def _detach(self, timeout_ms: float) -> None:
        with self._opening:
            wired, self._wired = self._wired, None
        if wired is not None:
            wired.close()

    def __enter__(self) -> Admin:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        """``KafkaAdminClient``'s methods.

        Raises:
            PoolClosedError: the client is closed, or its pool disconnected.
        """
        if name.startswith("_") or not hasattr(KafkaAdminClient, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with self._opening:
            if self._closed:
                raise PoolClosedError("the admin client is closed; make a new one")
            if self._wired is None:
                try:
                    self._wired = WiredAdmin(self._pool._attach(self), self._options)
                except BaseException:
                    self._pool._forget(self)
                    raise
            return getattr(self._wired.kafka, name)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "attached" if self._wired is not None else "not attached"
        return f"<Admin [{state}] of {self._pool!r}>"
