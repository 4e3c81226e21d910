"""The one kafka-python client of a pool, for requests that none of the pool's own clients makes."""

from __future__ import annotations

import os
import threading
from typing import Any

from kafka.errors import KafkaConnectionError, KafkaTimeoutError
from kafka.future import Future
from kafka.net.compat import KafkaNetClient

from pooledkafka._forking import belongs_to_parent
from pooledkafka._locks import check_free
from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka._wire.loop import Loop
from pooledkafka._wire.manager import SharedManager
from pooledkafka.errors import PoolError

__all__ = ["SharedClient"]


class SharedClient(KafkaNetClient):  # type: ignore[misc]
    """kafka-python's client over the pool's connections: node ids stand for their control lanes.

    kafka-python's own is for one thread, which drives the event loop by ``poll``. Here the I/O thread drives it, so all
    methods may be called from any other thread, and ``poll`` only waits. In a forked process all raise
    ForkedClientError: the pool has another client there.
    """

    def __init__(self, net: Loop, manager: SharedManager) -> None:
        self._made_by = os.getpid()
        super().__init__(net, manager)

    # Every method uses one of these two, kafka-python's own included.

    @property
    def _net(self) -> Loop:
        self._check_process()
        return self._loop

    @_net.setter
    def _net(self, net: Loop) -> None:
        self._loop = net

    @property
    def _manager(self) -> SharedManager:
        self._check_process()
        return self._connections

    @_manager.setter
    def _manager(self, manager: SharedManager) -> None:
        self._connections = manager

    def _check_process(self) -> None:
        if os.getpid() != self._made_by:
            raise belongs_to_parent("the client of the connection pool", self._made_by, "take pool.client here, anew")

    def connected(self, node_id: int) -> bool:
        return self._manager.is_connected(_key(node_id))

    def is_ready(self, node_id: int) -> bool:
        connection = self._control(node_id)
        return connection is not None and bool(connection.connected) and not connection.paused

    def ready(self, node_id: int, **_: Any) -> bool:
        if not self.is_ready(node_id):
            self.maybe_connect(node_id)
            return False
        return True

    def maybe_connect(self, node_id: int, **_: Any) -> None:
        self._open(node_id)

    def await_ready(self, node_id: int, timeout_ms: float = 30_000) -> bool:
        """Wait until the broker can be reached; raises KafkaConnectionError if it cannot within ``timeout_ms``."""
        if not self.is_ready(node_id):
            opened = self._open(node_id)
            self.poll(timeout_ms, opened)
            if not opened.succeeded():
                cause = opened.exception if opened.is_done else f"not within {timeout_ms:.0f} ms"
                raise KafkaConnectionError(f"broker {node_id} not ready: {cause}")
        return True

    def send(self, node_id: int, request: Any, **_: Any) -> Future:
        """Send on the broker's control lane; wait for the answer with ``poll``. No request that parks belongs there."""
        return self._net.call_soon_with_future(self._manager.send, request, node_id)

    def send_and_receive(self, node_id: int, request: Any, timeout_ms: float = 30_000) -> Any:
        """Send, and return the answer; raises KafkaTimeoutError after ``timeout_ms``."""
        future = self.send(node_id, request)
        self.poll(timeout_ms, future)
        if not future.is_done:
            raise KafkaTimeoutError(f"broker {node_id} did not answer within {timeout_ms:.0f} ms")
        if future.exception is not None:
            raise future.exception
        return future.value

    def poll(self, timeout_ms: float | None = None, future: Future | None = None) -> None:
        """Wait up to ``timeout_ms`` (None: as long as it takes) for ``future``; without one there is nothing to do."""
        if future is None:
            return
        if threading.current_thread() is self._net._io_thread:
            raise RuntimeError("the pool's I/O thread must not wait; add a callback to the future instead")
        check_free("waiting for an answer")
        done = threading.Event()
        future.add_both(lambda _: done.set())
        done.wait(None if timeout_ms is None else timeout_ms / 1000)

    def in_flight_request_count(self, node_id: int | None = None) -> int:
        """Requests not yet answered: on all lanes of all brokers, or on the control lane of one."""
        if node_id is None:
            return sum(len(connection.in_flight_requests) for _, connection in self._manager.connections())
        connection = self._control(node_id)
        return 0 if connection is None else len(connection.in_flight_requests)

    def throttle_delay(self, node_id: int) -> float:
        return float(super().throttle_delay(_key(node_id)))

    def connection_delay(self, node_id: int) -> float:
        return float(super().connection_delay(_key(node_id)))

    def check_version(self, node_id: int | None = None, timeout_ms: float = 10_000) -> Any:
        return super().check_version(None if node_id is None else _key(node_id), timeout_ms)

    def close(self, node_id: int | None = None) -> None:
        """Refused: the connections are everybody's."""
        raise PoolError("the pool's client cannot be closed; disconnect() the pool, or close() one of its clients")

    def _open(self, node_id: int) -> Future:
        return self._net.call_soon_with_future(self._manager.open, _key(node_id))

    def _control(self, node_id: int) -> Any | None:
        return self._manager.connection(_key(node_id))


def _key(node_id: int) -> LaneKey:
    return LaneKey(node_id, Lane.CONTROL)
