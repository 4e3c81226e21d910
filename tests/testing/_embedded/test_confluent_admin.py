"""librdkafka's admin client, which asks in versions of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import ElectionType, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from pooledkafka.testing import EmbeddedKafka


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=3) as cluster:
        yield cluster


@pytest.fixture
def admin(cluster: EmbeddedKafka) -> AdminClient:
    return AdminClient({"bootstrap.servers": cluster.bootstrap_servers})


def results(futures: dict[Any, Any]) -> list[Any]:
    return [future.result(timeout=10) for future in futures.values()]


def test_topics_come_grow_and_go(cluster: EmbeddedKafka, admin: AdminClient) -> None:
    results(admin.create_topics([NewTopic("t", num_partitions=2, config={"min.insync.replicas": "1"})]))
    with pytest.raises(KafkaException, match="topic 't' already exists"):
        results(admin.create_topics([NewTopic("t")]))
    results(admin.create_partitions([NewPartitions("t", 3)]))
    assert len(admin.list_topics(timeout=10).topics["t"].partitions) == 3
    results(admin.delete_topics(["t"]))
    assert admin.list_topics(timeout=10).topics == {}


def test_configurations_are_shown_and_changed(cluster: EmbeddedKafka, admin: AdminClient) -> None:
    cluster.create_topic("t")
    changed = ConfigEntry("max.message.bytes", "7", incremental_operation=AlterConfigOpType.SET)
    results(admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, "t", incremental_configs=[changed])]))
    (configs,) = results(admin.describe_configs([ConfigResource(ResourceType.TOPIC, "t")]))
    assert (configs["max.message.bytes"].value, configs["min.insync.replicas"].value) == ("7", "2")
    (properties,) = results(admin.describe_configs([ConfigResource(ResourceType.BROKER, "2")]))
    assert properties["default.replication.factor"].value == "3"


def test_the_cluster_its_records_and_its_leaders(cluster: EmbeddedKafka, admin: AdminClient) -> None:
    cluster.create_topic("t", assignment=[[2, 3]])
    described = admin.describe_cluster().result(timeout=10)
    assert [node.id for node in described.nodes] == [1, 2, 3]
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    producer.produce("t", b"x")
    assert producer.flush(10) == 0
    (deleted,) = results(admin.delete_records([TopicPartition("t", 0, 1)]))
    assert deleted.low_watermark == 1
    cluster.move_leader("t", 0, 3)
    elected = admin.elect_leaders(ElectionType.PREFERRED, [TopicPartition("t", 0)]).result(timeout=10)
    assert list(elected.values()) == [None]
    assert cluster.leader_of("t") == 2
