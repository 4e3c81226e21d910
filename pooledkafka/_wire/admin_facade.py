"""What a pooled ``KafkaAdminClient`` gets in place of a client of its own."""

from __future__ import annotations

from typing import Any

from kafka.errors import Cancelled
from kafka.future import Future

from pooledkafka._wire.cluster import ClusterView
from pooledkafka._wire.engine import Engine
from pooledkafka._wire.lanes import Lane, LaneKey, lane_of
from pooledkafka._wire.views import ManagerView, NetView
from pooledkafka.errors import PoolClosedError

__all__ = ["AdminFacade"]


class AdminFacade:
    """Looks like kafka-python's ``KafkaNetClient`` to one admin client, which goes past it to its manager."""

    def __init__(self, engine: Engine, request_timeout_ms: float) -> None:
        self._engine = engine
        self.cluster: ClusterView = engine.manager.cluster.attach_view()
        self._manager = AdminManager(engine, self.cluster, NetView(engine.net), request_timeout_ms)

    def close(self) -> None:
        """Detach this client; what others use stays as it is."""
        self.cluster.close()
        self._engine.call(self._engine.close_leases, self._manager.leases)

    def leave(self) -> None:
        """``close``, on the I/O thread."""
        self.cluster.close()
        self._engine.close_leases(self._manager.leases)


class AdminManager(ManagerView):
    """Sends an admin client's requests; on the I/O thread but for ``run``."""

    def __init__(self, engine: Engine, cluster: ClusterView, net: NetView, request_timeout_ms: float) -> None:
        super().__init__(engine, cluster, net)
        self._request_timeout_ms = request_timeout_ms
        self.leases: set[LaneKey] = set()  # connections lent to this client now

    def run(self, coro: Any, *args: Any) -> Any:
        try:
            return super().run(coro, *args)
        except Cancelled as error:
            if not self.cluster.closed:
                raise
            raise PoolClosedError(
                "the admin client was closed, or its pool disconnected, before the call was done"
            ) from error

    def send(self, request: Any, node_id: Any = None, request_timeout_ms: float | None = None) -> Future:
        timeout_ms = self._request_timeout_ms if request_timeout_ms is None else request_timeout_ms
        if node_id is None:
            node_id = self._engine.manager.least_loaded_node()
        if lane_of(request) is Lane.LEASED:
            leased = self._engine.send_leased
            return self.call_soon(leased, self.leases, node_id, request, timeout_ms, lambda: self.cluster.closed)
        return self._engine.manager.send_on(LaneKey(node_id, Lane.CONTROL), request, timeout_ms)

    async def get_connection(self, node_id: int) -> Any:
        """The broker's control connection, for its versions."""
        key = LaneKey(node_id, Lane.CONTROL)
        await self._engine.manager.open(key)
        return self._engine.manager.get_connection(key)
