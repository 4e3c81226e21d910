"""The cluster that everything is measured on, and what is asked of it beside the measurements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import NewPartitions, NewTopic, OffsetSpec

from benchmarks.cases import Topic
from benchmarks.polling import wait_until
from pooledkafka.testing import Cluster, EmbeddedKafka, ExternalCluster, KafkaCluster

__all__ = ["RunningBrokers", "running"]

CONFIG = {"log.segment.delete.delay.ms": "1000"}  # what was sent only to be timed need not stay for a minute
CREATED_WITHIN_MS = 300_000
AT_A_TIME = 1_000
"""Partitions: a request for many more may take a controller longer than it is given."""


@contextmanager
def running(backend: str, bootstrap: str | None) -> Iterator[RunningBrokers]:
    """Three brokers, or those that run already."""
    with (
        _cluster(backend, bootstrap) as cluster,
        closing(KafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers)) as admin,
    ):
        yield RunningBrokers(cluster, admin)


def _cluster(backend: str, bootstrap: str | None) -> Cluster:
    if bootstrap is not None:
        return ExternalCluster(bootstrap)
    return EmbeddedKafka(brokers=3) if backend == "embedded" else KafkaCluster(brokers=3, config=CONFIG)


class RunningBrokers:
    def __init__(self, cluster: Cluster, admin: Any) -> None:
        self._cluster = cluster
        self._admin = admin
        self.bootstrap = cluster.bootstrap_servers

    def __str__(self) -> str:
        version = self._admin.get_broker_version_data(self._cluster.node_ids[0]).broker_version
        kind = "embedded brokers that speak like" if isinstance(self._cluster, EmbeddedKafka) else "brokers of"
        return f"{len(self._cluster.node_ids)} {kind} Kafka {'.'.join(map(str, version))}"

    def create(self, topics: list[Topic]) -> None:
        brokers = len(self._cluster.node_ids)
        for topic in topics:
            now = min(AT_A_TIME, topic.partitions)
            new = NewTopic(topic.name, now, min(topic.replicas, brokers))
            self._admin.create_topics([new], timeout_ms=CREATED_WITHIN_MS)
            while now < topic.partitions:
                now = min(now + AT_A_TIME, topic.partitions)
                self._admin.create_partitions({topic.name: NewPartitions(now)}, timeout_ms=CREATED_WITHIN_MS)
            self._wait_for(topic)
        self._cluster.wait_until_healthy(CREATED_WITHIN_MS / 1000)

    def _wait_for(self, topic: Topic) -> None:
        """The brokers may agree on what they have heard of so far, which of thousands need not be all for a while."""
        if not wait_until(lambda: self._partitions(topic.name) == topic.partitions, CREATED_WITHIN_MS / 1000):
            raise RuntimeError(
                f"{self._partitions(topic.name)} of {topic.partitions} partitions of {topic.name} are there after "
                f"{CREATED_WITHIN_MS / 1000:g} s; the brokers cannot take so many"
            )

    def _partitions(self, topic: str) -> int:
        return len(self._admin.describe_topics([topic])[0]["partitions"])

    def delete(self, topics: list[str]) -> None:
        if topics:
            self._admin.delete_topics(topics, timeout_ms=CREATED_WITHIN_MS)

    def ends(self, topic: str) -> list[int]:
        partitions = [TopicPartition(topic, number) for number in range(self._partitions(topic))]
        found = self._admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        return [found[partition].offset for partition in partitions]
