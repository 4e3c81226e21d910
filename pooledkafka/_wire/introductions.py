"""Spares a connection the question which requests its broker understands, where another has just been answered."""

from __future__ import annotations

import math
import time
from typing import Any

__all__ = ["Introductions"]

_FRESH_S = 0.1
"""A broker that has answered no longer ago is there. One that stops just then is noticed as by a JoinGroup that is on
its way then: when that has run out of time, which is that of a rebalance."""
_DISTRUST_S = 60.0
"""For so long every connection asks, where one that did not was lost before it was answered anything."""


class Introductions:
    """What brokers were heard to say, by node id; on the I/O thread only.

    A new connection asks for the versions of all requests (ApiVersions), and for a JoinGroup that has one to itself
    that is half of the traffic. A broker tells the same on each of its connections, and none of them outlives it: so
    one that is up knows for the others. What the question also finds out, that somebody is there who answers, is known
    where something was answered just now.
    """

    def __init__(self) -> None:
        self._heard: dict[int, tuple[Any, float]] = {}  # the connection that was answered last, and when
        self._spared: set[Any] = set()  # connections that did not ask, and were not answered anything yet
        self._lost_at: dict[int, float] = {}  # one of these

    def heard(self, node_id: int, connection: Any) -> None:
        """Something was answered on this connection."""
        self._heard[node_id] = connection, time.monotonic()
        self._spared.discard(connection)

    def spare(self, node_id: int, connection: Any) -> None:
        """Let ``connection``, which has not begun, ask only what nobody knows when it has come so far."""
        ask = connection._get_api_versions

        async def introduce(timeout_at: float | None = None) -> None:
            informed = self._informed(node_id)
            if informed is None:
                await ask(timeout_at)
                self.heard(node_id, connection)
                return
            connection.broker_version_data = informed.broker_version_data
            self._spared.add(connection)
            connection.close_future.add_both(closed)

        def closed(error: BaseException | None) -> None:
            if error is not None and connection in self._spared:
                self._lost_at[node_id] = time.monotonic()
            self._spared.discard(connection)

        connection._get_api_versions = introduce

    def _informed(self, node_id: int) -> Any:
        """A connection that knows; None where none does, or the broker may not be there."""
        informed, at = self._heard.get(node_id, (None, 0.0))
        now = time.monotonic()
        fresh = informed is not None and not informed.closed and now - at <= _FRESH_S
        return informed if fresh and now - self._lost_at.get(node_id, -math.inf) >= _DISTRUST_S else None
