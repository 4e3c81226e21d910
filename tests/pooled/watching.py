"""What the embedded cluster's recorder tells of the pool under test."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from pooledkafka.testing import EmbeddedKafka
from tests.pooled.waiting import until

__all__ = ["POOL", "asked_offsets", "most_at_once", "open_connections", "outstanding", "wait_until_parked"]

POOL = "pool"
"""The client id of the pool under test; that of what tests do beside it is another."""
_PARKED_AFTER_S = 0.1  # a fetch of a reader that catches up is answered after 50 ms at the latest


def outstanding(cluster: EmbeddedKafka, api: str, node_id: int | None = None) -> list[float]:
    """When the pool's requests of one kind that are not answered arrived."""
    return [
        exchange.arrived_at
        for connection in cluster.connections
        if connection.closed_at is None and node_id in (None, connection.node_id)
        for exchange in connection.exchanges
        if exchange.api == api and exchange.client_id == POOL and exchange.answered_at is None
    ]


def wait_until_parked(cluster: EmbeddedKafka, node_id: int) -> None:
    """Wait until the pool has a long poll with a broker, which waits there for data."""
    until(lambda: any(time.monotonic() - at > _PARKED_AFTER_S for at in outstanding(cluster, "Fetch", node_id)))


def open_connections(cluster: EmbeddedKafka) -> Counter[int]:
    """How many connections the pool holds to each broker."""
    return Counter(
        connection.node_id
        for connection in cluster.connections
        if connection.closed_at is None and POOL in connection.client_ids
    )


def asked_offsets(requests: Iterable[Any], topic: str, partition: int = 0) -> list[int]:
    """From where Fetch requests asked for a partition; a session does not say again what has not changed."""
    return [
        asked.fetch_offset
        for request in requests
        for each in request.topics
        if each.topic == topic
        for asked in each.partitions
        if asked.partition == partition
    ]


def most_at_once(cluster: EmbeddedKafka, *apis: str) -> int:
    """The most requests of these kinds that waited for their answers at any one instant."""
    changes = []
    for connection in cluster.connections:
        for exchange in connection.exchanges:
            if exchange.api in apis:
                changes += [(exchange.arrived_at, 1), (connection.ended(exchange), -1)]
    return max(itertools.accumulate(change for _, change in sorted(changes)), default=0)
