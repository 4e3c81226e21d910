"""A way round a control lane that a slow commit holds up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kafka.errors import Cancelled
from kafka.future import Future

from pooledkafka._wire.lanes import LaneKey

__all__ = ["Bypass"]


@dataclass(eq=False)
class _Way:
    key: Future  # of the connection that is borrowed
    users: int = 0


class Bypass:
    """One borrowed connection to a broker for all short requests that would stand behind its slow commits.

    Its requests follow each other as on the control lane. A connection for each, as for requests that park, would be
    hundreds where the broker is slow to everybody, and cost it more than the heartbeats that they carry.

    On the I/O thread only.

    Args:
        borrow: begins to borrow a connection to a node; the future is of its key.
        give_back: takes it back.
        send_on: sends a request on it.
    """

    def __init__(
        self,
        borrow: Callable[[int], Future],
        give_back: Callable[[LaneKey], None],
        send_on: Callable[[LaneKey, Any, float], Future],
    ) -> None:
        self._borrow = borrow
        self._give_back = give_back
        self._send_on = send_on
        self._ways: dict[int, _Way] = {}  # by node id, as long as anybody uses it

    async def send(self, node_id: int, request: Any, timeout_ms: float, gone: Callable[[], bool]) -> Any:
        """The response; Cancelled where the client has gone by the time there is a connection."""
        way = self._ways.get(node_id)
        if way is None or way.key.failed():
            way = self._ways[node_id] = _Way(self._borrow(node_id))
        way.users += 1
        try:
            key = await way.key
            if gone():
                raise Cancelled("the client was closed while it waited for a connection")
            return await self._send_on(key, request, timeout_ms)
        finally:
            way.users -= 1
            if not way.users:
                if self._ways.get(node_id) is way:
                    del self._ways[node_id]
                if way.key.succeeded():
                    self._give_back(way.key.value)
