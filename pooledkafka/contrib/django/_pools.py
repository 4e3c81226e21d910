"""Pools by alias, one of each in a process, made when they are first asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pooledkafka.consumer import Consumer
from pooledkafka.contrib.django._settings import AliasSettings, alias_settings, aliases
from pooledkafka.errors import ConfigurationError
from pooledkafka.pool import ConnectionPool
from pooledkafka.producer import Producer

__all__ = ["Alias", "Pools"]


class Alias:
    """What this process has of one alias. From any thread.

    There is no lock, which a process that is forked meanwhile would find taken for ever: what two threads make at once
    is made twice, ``dict.setdefault`` says which one it is, and the other, which has connected to nothing, is dropped.
    """

    def __init__(self, settings: AliasSettings) -> None:
        self.settings = settings
        self._made: dict[str, Any] = {}  # by setdefault alone, from any thread

    @property
    def pool(self) -> ConnectionPool:
        """The pool; nothing connects before its first use.

        Raises:
            ConfigurationError: the settings cannot work, or the backend is ``memory``.
        """
        made: ConnectionPool | None = self._made.get("pool")
        if made is None:
            made = self._made.setdefault("pool", ConnectionPool(**self._pool_options()))
        return made

    def producer(self, *, encoded: bool = False) -> Producer:
        """The producer, with the settings' serializers, or for what is encoded already."""
        name = "raw producer" if encoded else "producer"
        made: Producer | None = self._made.get(name)
        if made is None:
            options = {
                option: value
                for option, value in self.settings.producer.items()
                if not (encoded and option.endswith("_serializer"))
            }
            made = self._made.setdefault(name, Producer(connection_pool=self.pool, **options))
        return made

    def producers(self) -> list[Producer]:
        """Those that were made."""
        return [self._made[name] for name in ("producer", "raw producer") if name in self._made]

    def consumer(self, *topics: str, **options: Any) -> Consumer:
        """A new consumer over the pool, with the settings' options and these."""
        return Consumer(*topics, connection_pool=self.pool, **{**self.settings.consumer, **options})

    @property
    def cluster(self) -> Any:
        """The ``EmbeddedKafka``, which starts now if it has not.

        Raises:
            ConfigurationError: the backend is not ``embedded``.
        """
        if self.settings.backend != "embedded":
            raise ConfigurationError(
                f"POOLEDKAFKA[{self.settings.alias!r}] has the backend {self.settings.backend!r}, and no cluster in "
                "this process; set its BACKEND to 'embedded'"
            )
        from pooledkafka.testing import EmbeddedKafka

        options = {"brokers": 1, **self.settings.cluster}
        cluster = self._made.get("cluster") or self._made.setdefault("cluster", EmbeddedKafka(**options))
        cluster.open()
        return cluster

    def _pool_options(self) -> dict[str, Any]:
        if self.settings.backend == "memory":
            raise ConfigurationError(
                f"POOLEDKAFKA[{self.settings.alias!r}] has the backend 'memory', which keeps what is sent in a list "
                "and has no pool. For consumers in a test, set its BACKEND to 'embedded'."
            )
        options = dict(self.settings.pool)
        if self.settings.backend == "embedded":
            options.update(self.cluster.client_options())
        return options

    def close(self, timeout_ms: float) -> None:
        """Disconnect the pool, delivering what is buffered, and end the embedded cluster."""
        try:
            if "pool" in self._made:
                self._made["pool"].disconnect(timeout_ms)
        finally:
            if "cluster" in self._made:
                self._made["cluster"].close()


class Pools:
    """The connection pools of ``settings.POOLEDKAFKA``, by alias.

    Each is made when it is first asked for, once in a process; nothing connects before its first use. A process that is
    forked later has them anew. From any thread.

    Example:
        >>> pools["default"].stats()
        >>> for alias in pools:
        ...     print(alias, pools[alias])
    """

    def __init__(self) -> None:
        self._aliases: dict[str, Alias] = {}  # by setdefault and pop alone, from any thread

    def __getitem__(self, alias: str) -> ConnectionPool:
        """The pool of ``alias``.

        Raises:
            ConfigurationError: there is no such alias, its settings cannot work, or its backend is ``memory``.
        """
        return self.alias(alias).pool

    def __iter__(self) -> Iterator[str]:
        return iter(aliases())

    def __len__(self) -> int:
        return len(aliases())

    def __contains__(self, alias: object) -> bool:
        return alias in aliases()

    def alias(self, alias: str) -> Alias:
        """All that this process has of ``alias``: its settings, pool and producers."""
        made = self._aliases.get(alias)
        if made is None:
            made = self._aliases.setdefault(alias, Alias(alias_settings(alias)))
        return made

    def close_all(self, timeout_ms: float = 30_000) -> None:
        """Disconnect all pools, and forget them: the next use makes them anew. Idempotent.

        Args:
            timeout_ms: milliseconds for all of them together.

        Raises:
            PoolTimeoutError: the first that could not deliver all in time; all are closed.
        """
        deadline = time.monotonic() + timeout_ms / 1000
        errors: list[Exception] = []
        while self._aliases:
            try:
                _, alias = self._aliases.popitem()
            except KeyError:  # another thread was faster
                break
            try:
                alias.close(max(0.0, deadline - time.monotonic()) * 1000)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def __repr__(self) -> str:
        return f"<Pools of {', '.join(aliases()) or 'no alias'}: {len(self._aliases)} in use>"
