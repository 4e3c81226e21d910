"""Which configurations of topics are understood, and that those that are numbers are heeded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from kafka.errors import InvalidConfigurationError, MessageSizeTooLargeError, NotEnoughReplicasError

from pooledkafka.testing import EmbeddedKafka
from pooledkafka.testing._embedded.topic_config import TOPIC_CONFIGS, checked_config
from tests.testing._embedded.wire import Wire, produce


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=2) as cluster:
        yield cluster


def produced(cluster: EmbeddedKafka, topic: str, value: bytes) -> int:
    """The error code for one record with ``acks=all``."""
    with Wire(cluster.address_of(cluster.leader_of(topic))) as wire:
        response = wire.ask(produce(topic, value), 9)
    return int(response.responses[0].partition_responses[0].error_code)


def test_what_the_cluster_does_anyway_is_accepted() -> None:
    config = {
        "cleanup.policy": "delete",
        "compression.type": "producer",
        "max.message.bytes": "1000",
        "message.timestamp.type": "CreateTime",
        "min.insync.replicas": " 2 ",
        "retention.ms": "-1",
    }
    assert checked_config(config) == config
    assert set(config) == set(TOPIC_CONFIGS)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cleanup.policy", "compact", "Invalid value compact .* knows 'delete' alone"),
        ("retention.ms", "604800000", "knows '-1' alone"),
        ("message.timestamp.type", "LogAppendTime", "knows 'CreateTime' alone"),
        ("compression.type", "gzip", "knows 'producer' alone"),
        ("segment.bytes", "1", "Unknown topic config name: segment.bytes; the embedded cluster knows cleanup.policy"),
        ("min.insync.replicas", "0", "Value must be at least 1"),
        ("min.insync.replicas", "many", "Not a number of type INT"),
        ("min.insync.replicas", "1_0", "Not a number of type INT"),
        ("max.message.bytes", "2147483648", "Not a number of type INT"),
        ("max.message.bytes", "-1", "Value must be at least 0"),
        ("max.message.bytes", None, "Null value not supported for topic configs: max.message.bytes"),
    ],
)
def test_anything_else_is_refused(name: str, value: str | None, said: str) -> None:
    with pytest.raises(InvalidConfigurationError, match=said):
        checked_config({name: value})


def test_the_cluster_refuses_it_too_and_makes_nothing(cluster: EmbeddedKafka) -> None:
    with pytest.raises(InvalidConfigurationError, match=r"Unknown topic config name: flush\.ms"):
        cluster.create_topic("t", config={"flush.ms": "1"})
    with pytest.raises(InvalidConfigurationError, match=r"min\.insync\.replicas is 1; expected a string"):
        cluster.create_topic("t", config={"min.insync.replicas": 1})  # type: ignore[dict-item]
    cluster.create_topic("t")


def test_max_message_bytes_is_heeded_and_can_be_changed(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", config={"max.message.bytes": "200"})
    assert produced(cluster, topic, b"x" * 20) == 0
    assert produced(cluster, topic, b"x" * 200) == MessageSizeTooLargeError.errno
    _alter(cluster, topic, {"max.message.bytes": "1000"})
    assert produced(cluster, topic, b"x" * 200) == 0


def test_min_insync_replicas_is_heeded_and_can_be_changed(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", config={"min.insync.replicas": "2"})
    assert produced(cluster, topic, b"x") == 0
    cluster.kill(2)
    assert produced(cluster, topic, b"x") == NotEnoughReplicasError.errno
    _alter(cluster, topic, {"min.insync.replicas": "1"})
    assert produced(cluster, topic, b"x") == 0


def _alter(cluster: EmbeddedKafka, topic: str, config: dict[str, str]) -> None:
    admin = KafkaAdminClient(bootstrap_servers=cluster.address_of(1))
    try:
        assert admin.alter_configs([ConfigResource("TOPIC", topic, config)]) == {"topic": {topic: "OK"}}
    finally:
        admin.close()
