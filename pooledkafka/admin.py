"""An admin client over a shared pool."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from kafka import KafkaAdminClient

from pooledkafka._client import PooledClient
from pooledkafka._forking import abandon, inherit, notice_fork
from pooledkafka._locks import LockName, new_lock
from pooledkafka._unclosed import made_here
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
        ...     admin.create_topics({"bills": {"num_partitions": 6}})
    """

    kind = "admin"
    _what = "an admin client"
    _known_options = ADMIN_OPTIONS
    _wired: WiredAdmin | None = None

    def __init__(self, *, connection_pool: ConnectionPool | None = None, **options: Any) -> None:
        super().__init__(connection_pool, options)
        if self._private_pool is not None:  # in a shared one it holds nothing but while a call of it is under way
            self._made_at = made_here()
        # Guards the field below and that _closed is set; never held while the pool connects or answers are waited for.
        self._opening = new_lock(LockName.OPENING)
        self._wired = None
        inherit(self)

    def close(self, timeout_ms: float = 30_000) -> None:
        """Detach; the pool and its other clients go on. Idempotent."""
        self._pool._check_may_wait("close an admin client")
        with self._opening:
            self._closed = True
        self._pool._forget(self)
        try:
            self._detach(timeout_ms, timeout_ms)
        finally:
            self._close_private_pool(timeout_ms)

    def _in_child(self) -> None:
        self._opening = new_lock(LockName.OPENING)
        abandon(self._wired)
        self._wired = None

    def _waits_for_me(self) -> bool:
        return False

    def _tell_to_end(self) -> None:
        pass

    def _let_go(self) -> bool:
        wired = self._wired
        if wired is None or wired.ended:
            return False
        wired.drop(self._pool._told_of_dropped(self.kind))
        return True

    def _detach(self, timeout_ms: float, wait_ms: float) -> bool:
        with self._opening:
            wired, self._wired = self._wired, None
        if wired is not None:
            wired.close()
        return True

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
            found = getattr(self._wired.kafka, name)
        return functools.partial(self._call, found) if callable(found) else found

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # Holds this client, which may be in no one else's hands, until the method has returned.
        return method(*args, **kwargs)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "attached" if self._wired is not None else "not attached"
        return f"<Admin [{state}] of {self._pool!r}>"
