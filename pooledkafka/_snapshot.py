"""Makes ``PoolStats`` of what an engine holds and a tally has counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pooledkafka._wire import Engine, Lane, MeasuredDurations, Tally, Wait
from pooledkafka.stats import DURATION_BOUNDS_MS, Durations, PoolStats, Waits

__all__ = ["snapshot"]


def snapshot(engine: Engine | None, tally: Tally, clients: Counter[str], producers: int) -> PoolStats:
    """What a pool holds now; ``engine`` None: nothing. From any thread, and without stopping any."""
    connections: dict[int, dict[str, int]] = {}
    if engine is not None:
        for (node_id, lane), count in sorted(engine.open_connections().items()):
            if lane is not Lane.BOOTSTRAP:
                connections.setdefault(node_id, {})[lane.value] = count
    created, closed = dict(tally.created), dict(tally.closed)
    consumed, produced, undelivered = tally.records()
    return PoolStats(
        consumers=clients["consumer"],
        producers=producers,
        admins=clients["admin"],
        connections=connections,
        connections_created=sum(created.values()),
        connections_closed=sum(closed.values()),
        requests_in_flight=engine.client.in_flight_request_count() if engine else 0,
        requests_waiting=engine.permits.waiting + engine.joins.waiting if engine else 0,
        requests_resent=tally.resent,
        wire_fetches=tally.wire_fetches,
        logical_fetches=tally.logical_fetches,
        read_ahead_bytes=engine.fetching.read_ahead.total if engine else 0,
        metadata_age_ms=engine.manager.cluster.age_ms() if engine else None,
        created=_nested(created),
        closed=_nested(closed),
        failed=_nested(dict(tally.failed)),
        bytes_sent=_nested(dict(tally.bytes_sent)),
        bytes_received=_nested(dict(tally.bytes_received)),
        waits={
            "max_in_flight_requests": _waits(tally.waits_for_limit),
            "join_turn": _waits(tally.waits_for_turn),
            "leased_connection": _waits(tally.waits_for_lease),
        },
        throttled=dict(tally.throttled),
        throttled_ms=dict(tally.throttled_ms),
        records_consumed=_nested(consumed),
        records_produced=produced,
        records_failed=undelivered,
        durations={name: _durations(each) for name, each in list(tally.durations.items())},
        request_errors=_nested(dict(tally.errors)),
    )


def _nested(counts: Mapping[Any, int]) -> Any:
    """Counts by several things as ``connections`` are, a mapping in a mapping: what writes JSON can write that."""
    found: dict[Any, Any] = {}
    for (*outer, last), count in counts.items():
        inner = found
        for each in outer:
            inner = inner.setdefault(each, {})
        inner[last] = count
    return found


def _waits(wait: Wait) -> Waits:
    return Waits(wait.now, wait.count, wait.seconds * 1000)


def _durations(measured: MeasuredDurations) -> Durations:
    total_ms, counts = measured.seconds * 1000, tuple(measured.counts)
    return Durations(sum(counts), total_ms, DURATION_BOUNDS_MS, counts)
