"""What a pool's metrics are now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from pooledkafka.contrib.prometheus._families import FAMILIES, Family
from pooledkafka.pool import ConnectionPool
from pooledkafka.stats import Durations, PoolStats

__all__ = ["Sample", "samples"]


class Sample(NamedTuple):
    """One value of one metric; ``labels`` are those after ``pool``."""

    family: Family
    labels: tuple[str, ...]
    value: float | Durations


def samples(pool: ConnectionPool, *, lag: bool) -> Iterator[Sample]:
    """All of them; ``lag``: those of each partition of each consumer too."""
    for name, labels, value in _of_stats(pool.stats()):
        yield Sample(FAMILIES[name], tuple(map(str, labels)), value)
    if lag:
        for name, labels, value in _of_consumers(pool):
            yield Sample(FAMILIES[name], tuple(map(str, labels)), value)


_Values = Iterator[tuple[str, tuple[str | int, ...], float | Durations]]


def _of_stats(stats: PoolStats) -> _Values:
    yield "clients", ("consumer",), stats.consumers
    yield "clients", ("producer",), stats.producers
    yield "clients", ("admin",), stats.admins
    for node_id, lanes in stats.connections.items():
        for lane, count in lanes.items():
            yield "connections", (node_id, lane), count
    for name, counts in (
        ("connections_created", stats.created),
        ("connections_failed", stats.failed),
        ("sent_bytes", stats.bytes_sent),
        ("received_bytes", stats.bytes_received),
    ):
        for node_id, of_lanes in counts.items():
            for lane, count in of_lanes.items():
                yield name, (node_id, lane), count
    for node_id, of_reasons in stats.closed.items():
        for lane, reasons in of_reasons.items():
            for reason, count in reasons.items():
                yield "connections_closed", (node_id, lane, reason), count
    yield "requests_in_flight", (), stats.requests_in_flight
    for reason, waits in stats.waits.items():
        yield "requests_waiting", (reason,), waits.now
        yield "request_waits", (reason,), waits.count
        yield "request_wait_seconds", (reason,), waits.total_ms / 1000
    yield "requests_resent", (), stats.requests_resent
    for api, durations in stats.durations.items():
        yield "request_duration_seconds", (api,), durations
    for api, errors in stats.request_errors.items():
        for error, count in errors.items():
            yield "request_errors", (api, error), count
    for node_id, count in stats.throttled.items():
        yield "throttles", (node_id,), count
    for node_id, milliseconds in stats.throttled_ms.items():
        yield "throttle_seconds", (node_id,), milliseconds / 1000
    yield "wire_fetches", (), stats.wire_fetches
    yield "logical_fetches", (), stats.logical_fetches
    yield "read_ahead_bytes", (), stats.read_ahead_bytes
    consumed: Counter[tuple[str, str]] = Counter()
    for group, topics in stats.records_consumed.items():
        for topic, count in topics.items():
            consumed[group or "", topic] += count  # Kafka has a group of the name "", too
    for which, count in consumed.items():
        yield "consumed_records", which, count
    for topic, count in stats.records_produced.items():
        yield "produced_records", (topic,), count
    for topic, count in stats.records_failed.items():
        yield "failed_records", (topic,), count
    if stats.metadata_age_ms is not None:
        yield "metadata_age_seconds", (), stats.metadata_age_ms / 1000


def _of_consumers(pool: ConnectionPool) -> _Values:
    lags: dict[tuple[str, str, int], int] = {}
    ages: dict[str, float] = {}
    for consumer in pool.progress():
        group = consumer.group or ""
        if consumer.poll_age_ms is not None:
            ages[group] = max(consumer.poll_age_ms / 1000, ages.get(group, 0.0))
        for topic, partitions in consumer.partitions.items():
            for partition, (position, end) in partitions.items():
                # Consumers without a group may read the same partition; the slowest one counts.
                lags[group, topic, partition] = max(0, end - position, lags.get((group, topic, partition), 0))
    for which, lag in lags.items():
        yield "consumer_lag_records", which, lag
    for group, age in ages.items():
        yield "consumer_poll_age_seconds", (group,), age
