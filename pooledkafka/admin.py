"""An admin client over a shared pool."""

from __future__ import annotations

from typing import Any

from kafka import KafkaAdminClient

from pooledkafka._client import PooledClient
from pooledkafka._forking import abandon, inherit, notice_fork
from pooledkafka._locks import LockName, new_lock
from pooledkafka._wire import WiredAdmin
from pooledkafka.config import ADMIN_OPTIONS
from pooledkafka.pool import ConnectionPool

__all__ = ["Admin"]


class Admin(PooledClient):
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
    _what = "an admin client"
    _known_options = ADMIN_OPTIONS

    def __init__(self, *, connection_pool: ConnectionPool | None = None, **options: Any) -> None:
        super().__init__(connection_pool, options)
        # Guards the field below and that _closed is set; never held while the pool connects or answers are waited for.
        self._opening = new_lock(LockName.OPENING)
        self._wired: WiredAdmin | None = None
        inherit(self)

    def close(self, timeout_ms: float = 30_000) -> None:
        """Detach; the pool and its other clients go on. Idempotent."""
        notice_fork()
        with self._opening:
            self._closed = True
        self._pool._forget(self)
        try:
            self._detach(timeout_ms)
        finally:
            self._close_private_pool(timeout_ms)

    def _in_child(self) -> None:
        self._opening = new_lock(LockName.OPENING)
        abandon(self._wired)
        self._wired = None

    def _waits_for_me(self) -> bool:
        return False

    def _detach(self, timeout_ms: float) -> None:
        with self._opening:
            wired, self._wired = self._wired, None
        if wired is not None:
            wired.close()

    def __getattr__(self, name: str) -> Any:
        """``KafkaAdminClient``'s methods.

        Raises:
            PoolClosedError: the client is closed, or its pool disconnected.
        """
        if name.startswith("_") or not hasattr(KafkaAdminClient, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        notice_fork()
        self._connect_pool()
        with self._opening:
            self._check_open()
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
