"""Snapshots of what a pool holds and has counted, and of how far its consumers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["DURATION_BOUNDS_MS", "ConsumerProgress", "Durations", "PoolStats", "Waits"]

_SHORT = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)
_LONG = (1_000.0, 2_500.0, 5_000.0, 10_000.0, 30_000.0)
DURATION_BOUNDS_MS = _SHORT + _LONG
"""The upper bounds of the classes in which durations are counted."""


@dataclass(frozen=True)
class Waits:
    """How requests have waited for one thing before they could be sent."""

    now: int
    """How many wait now."""
    count: int
    """How many have waited; those that went at once are not among them."""
    total_ms: float
    """How long these have waited, all together."""


@dataclass(frozen=True)
class Durations:
    """How long the requests of one kind took, from when they were sent, or given to a lane that was being opened."""

    count: int
    """How many were answered."""
    total_ms: float
    """How long they took, all together."""
    bounds_ms: tuple[float, ...]
    """``DURATION_BOUNDS_MS``."""
    counts: tuple[int, ...]
    """How many took no longer than each bound, and longer than the one before; last, how many took longer than all."""


@dataclass(frozen=True)
class ConsumerProgress:
    """How far a consumer is; made by ``ConnectionPool.progress()``, without asking any broker."""

    group: str | None
    """Its ``group_id``."""
    poll_age_ms: float | None
    """Milliseconds since a thread was last seen in a poll of it; a poll that waits shows itself every few seconds. None
    without a group, and before the first poll. Where it grows, the application is busy, or stuck, with what it got."""
    partitions: Mapping[str, Mapping[int, tuple[int, int]]]
    """By topic and partition the offset that it reads next, and the end of the log, as the last answer for anybody in
    the pool said. As long as nobody takes what was read of a partition, no more is read, and no end heard of."""

    @property
    def lag(self) -> int:
        """How many records of its partitions it has not read yet."""
        return sum(max(0, end - position) for each in self.partitions.values() for position, end in each.values())


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
    """Requests sent again, since the connection they were on ended because of another; as what is counted below."""
    wire_fetches: int
    """Fetch requests sent to brokers; as what is counted below."""
    logical_fetches: int
    """Fetch requests of consumers that these answered."""
    read_ahead_bytes: int
    """Bytes of records read and not yet taken by every consumer that they are for; see ``fetch_buffer_bytes``."""
    metadata_age_ms: float | None
    """Milliseconds since the last successful metadata refresh; None before the first."""
    # What is below was counted since the pool was made, or this process forked from the one that made it.
    created: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    """``connections_created`` by node id and lane; -1 is the bootstrap address."""
    closed: Mapping[int, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    """``connections_closed`` by node id, lane and reason; see ``pooledkafka.events.ConnectionClosed``."""
    failed: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    """Connections that could not be opened, by node id and lane."""
    bytes_sent: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    """Bytes written to brokers, before TLS, by node id and lane."""
    bytes_received: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    """Bytes read from brokers, after TLS, by node id and lane."""
    waits: Mapping[str, Waits] = field(default_factory=dict)
    """Waits by what was waited for: ``max_in_flight_requests``, ``join_turn`` (of a group, for others that join) and
    ``leased_connection`` (see ``leased_connections_per_second``)."""
    throttled: Mapping[int, int] = field(default_factory=dict)
    """How often a broker asked for a pause because of a quota, by node id."""
    throttled_ms: Mapping[int, int] = field(default_factory=dict)
    """For how many milliseconds they asked, all together, by node id."""
    records_consumed: Mapping[str | None, Mapping[str, int]] = field(default_factory=dict)
    """Records that polls and iterations have returned, and runs have dealt with, by group and topic."""
    records_produced: Mapping[str, int] = field(default_factory=dict)
    """Records that brokers have acknowledged, by topic; with ``acks=0``, that were sent."""
    records_failed: Mapping[str, int] = field(default_factory=dict)
    """Records whose futures have failed after they were buffered, by topic."""
    durations: Mapping[str, Durations] = field(default_factory=dict)
    """How long requests took by their name, such as ``Produce``; see ``ConnectionPool.measure_durations``. A Fetch at
    the end of the log waits for records half a second, or two while nothing comes, a JoinGroup for its group, a Produce
    for replicas."""
    request_errors: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Requests that were sent and got no answer, by their name and the error's; measured with ``durations``."""

    @property
    def connections_open(self) -> int:
        """Open connections to all brokers."""
        return sum(count for lanes in self.connections.values() for count in lanes.values())
