"""What consumers, producers and admin clients have in common: a pool, their own or a shared one."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection
from types import TracebackType
from typing import Any, TypeVar

from pooledkafka._connection import exiting
from pooledkafka._forking import belongs_to_parent, notice_fork
from pooledkafka._unclosed import Place, warn_unclosed
from pooledkafka._wire import PARKED_WAIT_MS
from pooledkafka.config import CONNECTION_OPTIONS, check_sizes, client_options
from pooledkafka.errors import PoolClosedError
from pooledkafka.pool import ConnectionPool

__all__ = ["PooledClient"]

_Client = TypeVar("_Client", bound="PooledClient")


class PooledClient(ABC):
    """A client of a pool; without one it makes a private pool of the connection options it was given.

    A subclass calls ``inherit`` at the end of its constructor, and ``notice_fork`` wherever its user comes in.
    """

    _what: str
    """How messages name it, with its article."""
    _known_options: Collection[str]

    def __init__(self, connection_pool: ConnectionPool | None, options: dict[str, Any]) -> None:
        self._private_pool: ConnectionPool | None = None
        self._made_at: Place | None = None  # None: it may be dropped without a word
        if connection_pool is None:
            check_sizes(options)
            connection = {name: value for name, value in options.items() if name in CONNECTION_OPTIONS}
            if "request_timeout_ms" in options:
                connection["request_timeout_ms"] = max(options["request_timeout_ms"], PARKED_WAIT_MS + 1)
            options = {name: value for name, value in options.items() if name not in CONNECTION_OPTIONS}
            connection_pool = self._private_pool = ConnectionPool(**connection)
            connection_pool._made_at = None  # what is said of it is said of this client
        self._pool = connection_pool
        self._options = client_options(options, self._known_options, self._what, connection_pool.options)
        self._closed = False  # set once, by close()
        self._made_by = os.getpid()
        self._forked = False  # set once, in a process that was forked from the one that made this client

    def connect(self, timeout_ms: float | None = None) -> None:
        """Connect the complete pool; see ``ConnectionPool.connect``."""
        notice_fork()
        self._check_open()
        self._pool.connect(timeout_ms)

    def disconnect(self, timeout_ms: float = 30_000) -> None:
        """Disconnect the complete pool, and with it every client that shares it; see ``ConnectionPool.disconnect``."""
        self._pool.disconnect(timeout_ms)

    @abstractmethod
    def close(self) -> None:
        """Detach this client; the pool and its other clients go on."""

    def _connect_pool(self) -> None:
        """Connect the pool at the first use, before any lock of this client is taken."""
        self._check_open()
        self._pool._connect_if_new()
        if self._closed and self._private_pool is not None:
            # Closed by another thread meanwhile, which may not have waited for this one.
            self._private_pool.disconnect(timeout_ms=0)

    def _close_private_pool(self, timeout_ms: float) -> None:
        if self._private_pool is not None:
            self._private_pool.disconnect(timeout_ms)

    @abstractmethod
    def _in_child(self) -> None:
        """See ``_forking.Inheritable``."""

    @abstractmethod
    def _let_go(self) -> bool:
        """Release in the background what a client that is not closed holds; whether there was anything.

        Called by the garbage collector, on any thread in the middle of anything: it takes no lock and waits for
        nothing.
        """

    def __del__(self) -> None:
        if exiting() or "_closed" not in self.__dict__:  # or its options were refused
            return
        private = self._private_pool
        held = self._let_go() or (private is not None and private._connection is not None)
        if held and self._made_at is not None:
            warn_unclosed(self._what, self._made_at, "what it held is released now")

    def _check_open(self) -> None:
        self._check_process()
        if self._closed:
            raise PoolClosedError(f"the {self._name()} is closed; make a new one")

    def _check_process(self) -> None:
        notice_fork()
        if self._forked:
            instead = f"make {self._what} here (its pool can be used: it connects anew)"
            raise belongs_to_parent(f"the {self._name()}", self._made_by, instead)

    def _name(self) -> str:
        return self._what.partition(" ")[2]

    def __enter__(self: _Client) -> _Client:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
