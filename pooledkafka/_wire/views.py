"""The shared event loop and connection manager, as the parts of kafka-python see them that one client is made of."""

from __future__ import annotations

from typing import Any

from kafka.future import Future

from pooledkafka._wire.cluster import ClusterView
from pooledkafka._wire.engine import Engine

__all__ = ["ManagerView", "NetView"]


class NetView:
    """The shared event loop. One client can neither start nor stop it; everything else is the loop's own."""

    def __init__(self, net: Any) -> None:
        self._shared = net

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared, name)

    def start(self) -> None:
        """The pool has started the I/O thread."""

    def stop(self, timeout_ms: float | None = None) -> None:
        """The pool stops it."""


class ManagerView:
    """The shared connections, with one client's view of the cluster."""

    def __init__(self, engine: Engine, cluster: ClusterView, net: NetView) -> None:
        self._engine = engine
        self._net = net
        self.cluster = cluster
        self.config = engine.manager.config

    @property
    def broker_version_data(self) -> Any:
        return self._engine.manager.broker_version_data

    @property
    def broker_version(self) -> Any:
        return self._engine.manager.broker_version

    def bootstrap(self, timeout_ms: float | None = None, refresh: bool = True) -> None:
        """The pool has found the cluster."""

    def run(self, coro: Any, *args: Any) -> Any:
        return self._engine.net.run(coro, *args)

    def call_soon(self, coro: Any, *args: Any) -> Future:
        return self._engine.net.call_soon_with_future(coro, *args)

    async def wait_for(self, future: Future, timeout_ms: float | None) -> Any:
        return await self._engine.manager.wait_for(future, timeout_ms)
