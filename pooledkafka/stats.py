"""A snapshot of what a pool holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PoolStats"]


@dataclass(frozen=True)
class PoolStats:
    """What a pool holds at one moment; made by ``ConnectionPool.stats()``.

    Counts are read without stopping the pool, so they may be a moment apart from each other.
    """

    consumers: int
    """Consumers that are attached now."""
    producers: int
    """Producer handles that are attached now."""
    admins: int
    """Admin clients that are attached now."""
    connections: Mapping[int, Mapping[str, int]]
    """Open connections by node id and lane, e.g. ``{1: {"control": 1, "produce": 1}}``."""
    connections_created: int
    """Connections that became ready since the pool was made."""
    connections_closed: int
    """Of those, how many have ended."""
    requests_in_flight: int
    """Requests sent and not yet answered."""
    requests_waiting: int
    """Requests that wait for ``max_in_flight_requests`` or for their group's turn to join."""
    requests_resent: int
    """Requests sent again since the pool connected, since the connection they were on ended because of another."""
    wire_fetches: int
    """Fetch requests sent to brokers since the pool connected."""
    logical_fetches: int
    """Fetch requests of consumers that these answered."""
    read_ahead_bytes: int
    """Bytes of records read and not yet taken by every consumer that they are for; see ``fetch_buffer_bytes``."""
    metadata_age_ms: float | None
    """Milliseconds since the last successful metadata refresh; None before the first."""

    @property
    def connections_open(self) -> int:
        """Open connections to all brokers."""
        return sum(count for lanes in self.connections.values() for count in lanes.values())
