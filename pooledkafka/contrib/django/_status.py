"""What there is to say of an alias: its brokers, its pool, and how far its handlers lag."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from kafka.structs import TopicPartition

from pooledkafka.admin import Admin
from pooledkafka.contrib.django._handlers import Handler
from pooledkafka.contrib.django._pools import Pools

__all__ = ["status_of"]


def status_of(pools: Pools, alias: str, handlers: Iterable[Handler], timeout_ms: float) -> dict[str, Any]:
    """What ``kafka_status`` shows of ``alias``, as JSON can say it.

    Raises:
        KafkaError: the cluster cannot be reached.
    """
    pool = pools[alias]
    pool.connect(timeout_ms)
    with Admin(connection_pool=pool) as admin:
        cluster = admin.describe_cluster()
    groups: dict[str, dict[str, Any]] = {}
    for handler in handlers:
        topics = groups.setdefault(handler.group_id, {})
        for topic in handler.topics:
            topics[topic] = _lag(pools, alias, handler.group_id, topic)
    stats = pool.stats()
    return {
        "bootstrap_servers": pool.options["bootstrap_servers"],
        "brokers": [
            {"node_id": broker["broker_id"], "address": f"{broker['host']}:{broker['port']}"}
            for broker in sorted(cluster["brokers"], key=lambda each: each["broker_id"])
        ],
        "pool": {**asdict(stats), "connections_open": stats.connections_open},
        "groups": groups,
    }


def _lag(pools: Pools, alias: str, group_id: str, topic: str) -> dict[str, Any]:
    """Records that the group has not committed yet; those of partitions where it has committed nothing apart."""
    with pools.alias(alias).consumer(group_id=group_id, enable_auto_commit=False) as consumer:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:
            return {"partitions": 0, "lag": None, "uncommitted_partitions": 0}
        ends = consumer.end_offsets(partitions)
        committed = {partition: consumer.committed(partition) for partition in partitions}
    known = [max(0, ends[each] - offset) for each, offset in committed.items() if offset is not None]
    return {
        "partitions": len(partitions),
        "lag": sum(known) if known else None,
        "uncommitted_partitions": len(partitions) - len(known),
    }
