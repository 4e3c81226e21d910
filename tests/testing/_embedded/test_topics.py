"""CreateTopics, DeleteTopics, CreatePartitions and DeleteRecords, as clients see them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import (
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidReplicationAssignmentError,
    InvalidReplicationFactorError,
    InvalidRequestError,
    InvalidTopicError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    UnknownTopicIdError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.admin import (
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DeleteTopicsRequest,
)
from kafka.structs import TopicPartition

from pooledkafka.testing import EmbeddedKafka, Error
from tests.testing._embedded.wire import Wire, fetch, fetched, produce

_New = CreateTopicsRequest.CreatableTopic


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=3) as cluster:
        yield cluster


@pytest.fixture
def admin(cluster: EmbeddedKafka) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(**cluster.client_options())
    yield admin
    admin.close()


def new(name: str, partitions: int = -1, factor: int = -1, **options: Any) -> Any:
    assignments = [
        _New.CreatableReplicaAssignment(partition_index=index, broker_ids=replicas)
        for index, replicas in options.get("assignments", [])
    ]
    configs = [_New.CreatableTopicConfig(name=key, value=value) for key, value in options.get("configs", {}).items()]
    return _New(
        name=name, num_partitions=partitions, replication_factor=factor, assignments=assignments, configs=configs
    )


def create(wire: Wire, *topics: Any, version: int = 7, validate_only: bool = False) -> Any:
    request = CreateTopicsRequest(topics=list(topics), timeout_ms=1_000, validate_only=validate_only)
    return wire.ask(request, version).topics


# -- CreateTopics ------------------------------------------------------------------------------------------------------


def test_a_topic_is_made_as_asked(cluster: EmbeddedKafka, admin: KafkaAdminClient) -> None:
    made = admin.create_topics(
        {"t": {"num_partitions": 4, "replication_factor": 2, "configs": {"min.insync.replicas": "1"}}}
    )["topics"][0]
    assert (made["num_partitions"], made["replication_factor"]) == (4, 2)
    assert made["configs"]["min.insync.replicas"] == {
        "value": "1",
        "read_only": False,
        "config_source": "DYNAMIC_TOPIC_CONFIG",
        "is_sensitive": False,
    }
    assert made["configs"]["max.message.bytes"]["config_source"] == "DEFAULT_CONFIG"
    described = admin.describe_topics(["t"])[0]
    assert str(described["topic_id"]) == str(made["topic_id"])
    assert [partition["partition_index"] for partition in described["partitions"]] == [0, 1, 2, 3]
    assert {len(partition["replica_nodes"]) for partition in described["partitions"]} == {2}
    assert {cluster.leader_of("t", index) for index in range(4)} == {1, 2, 3}


def test_the_brokers_properties_say_how_many_where_nothing_else_does() -> None:
    config = {"num.partitions": "3", "default.replication.factor": "1"}
    with EmbeddedKafka(brokers=2, config=config) as cluster, Wire(cluster.address_of(2)) as wire:
        (made,) = create(wire, new("t"))
        assert (made.error_code, made.num_partitions, made.replication_factor) == (0, 3, 1)


@pytest.mark.parametrize("version", range(2, 8))
def test_all_versions_of_create_and_delete(wire: Wire, version: int) -> None:
    (made,) = create(wire, new("t", 2, 1), version=version)
    assert (made.name, made.error_code) == ("t", 0)
    (again,) = create(wire, new("t", 2, 1), version=version)
    assert again.error_code == TopicAlreadyExistsError.errno
    assert again.error_message == "topic 't' already exists"
    version = min(version, 6)
    named: dict[str, Any] = {"topics": [DeleteTopicsRequest.DeleteTopicState(name="t")]}
    (deleted,) = wire.ask(DeleteTopicsRequest(timeout_ms=0, **named), version - 1).responses
    assert (deleted.name, deleted.error_code) == ("t", 0)


def test_replicas_are_where_the_manual_assignment_puts_them(cluster: EmbeddedKafka, admin: KafkaAdminClient) -> None:
    admin.create_topics({"t": {"assignments": {1: [3, 1], 0: [2, 3]}}})
    described = admin.describe_topics(["t"])[0]["partitions"]
    assert [partition["replica_nodes"] for partition in described] == [[2, 3], [3, 1]]
    assert [cluster.leader_of("t", index) for index in (0, 1)] == [2, 3]


def test_validating_makes_nothing(cluster: EmbeddedKafka, wire: Wire) -> None:
    good, bad = create(wire, new("t", 2), new("u", configs={"segment.ms": "1"}), validate_only=True)
    assert (good.error_code, good.num_partitions, good.replication_factor) == (0, 2, 3)
    assert bad.error_code == InvalidConfigurationError.errno
    (manual,) = create(wire, new("t", assignments=[(0, [1]), (1, [2])]), validate_only=True)
    assert (manual.error_code, manual.num_partitions, manual.replication_factor) == (0, 2, 1)
    with pytest.raises(UnknownTopicOrPartitionError):
        cluster.leader_of("t")


@pytest.mark.parametrize(
    ("topic", "error", "said"),
    [
        (new("a b"), InvalidTopicError, "'a b' is no legal name"),
        (new(".."), InvalidTopicError, "'..' is no legal name"),
        (new("there"), TopicAlreadyExistsError, "already exists"),
        (new("there.too"), InvalidTopicError, "collides with existing topic 'there_too'"),
        (new("t", 0), InvalidPartitionsError, "0 partitions; expected 1 or more"),
        (new("t", -2), InvalidPartitionsError, "-2 partitions; expected 1 or more"),
        (new("t", 1, 0), InvalidReplicationFactorError, "replication factor 0"),
        (new("t", 0, 0), InvalidReplicationFactorError, "replication factor 0"),
        (new("t", 1, 4), InvalidReplicationFactorError, "only 3 broker(s) are registered"),
        (new("t", configs={"x": "1"}), InvalidConfigurationError, "Unknown topic config name: x"),
        (new("t", 0, configs={"x": "1"}), InvalidConfigurationError, "Unknown topic config name: x"),
        (new("t", configs={"retention.ms": None}), InvalidConfigurationError, "Null value not supported"),
        (new("t", 1, assignments=[(0, [1])]), InvalidRequestError, "numPartitions was not set to -1"),
        (new("t", -1, 1, assignments=[(0, [1])]), InvalidRequestError, "replication factor was not set to -1"),
        (new("t", assignments=[(0, [1]), (0, [2])]), InvalidReplicationAssignmentError, "multiple manual"),
        (new("t", assignments=[(0, [1]), (2, [2])]), InvalidReplicationAssignmentError, "consecutive 0-based"),
        (new("t", assignments=[(0, [9])]), InvalidReplicationAssignmentError, "no such broker is registered"),
        (new("t", 10_001), PolicyViolationError, "Excessively large number of partitions"),
    ],
)
def test_a_topic_that_cannot_be_is_refused(
    cluster: EmbeddedKafka, wire: Wire, topic: Any, error: Any, said: str
) -> None:
    cluster.create_topic("there")
    cluster.create_topic("there_too")
    for validate_only in (True, False):
        (refused,) = create(wire, topic, validate_only=validate_only)
        assert refused.error_code == error.errno
        assert said in refused.error_message
    with pytest.raises(UnknownTopicOrPartitionError):
        cluster.leader_of("t")


def test_a_topic_that_is_named_twice_is_refused_and_others_are_made(wire: Wire) -> None:
    results = {result.name: result for result in create(wire, new("t"), new("u"), new("t"))}
    assert results["t"].error_code == InvalidRequestError.errno
    assert results["t"].error_message == "Duplicate topic name."
    assert results["u"].error_code == 0
    assert len(results) == 2


def test_replicas_may_be_on_brokers_that_are_down_but_do_not_lead(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.kill(2)
    (made,) = create(wire, new("t", 3, 3))
    assert made.error_code == 0
    assert 2 not in {cluster.leader_of("t", index) for index in range(3)}
    cluster.start(2)
    cluster.wait_until_healthy(timeout_s=5)


# -- DeleteTopics ------------------------------------------------------------------------------------------------------


def test_topics_are_deleted_by_name_and_by_id(cluster: EmbeddedKafka, admin: KafkaAdminClient) -> None:
    made = admin.create_topics(["a", "b"])["topics"]
    ids = {topic["name"]: uuid.UUID(str(topic["topic_id"])) for topic in made}
    answered = admin.delete_topics(["a", ids["b"]])["topics"]
    assert {topic["name"] for topic in answered} == {"a", "b"}
    assert admin.list_topics() == []
    with pytest.raises(UnknownTopicOrPartitionError):
        admin.delete_topics(["a"])
    with pytest.raises(UnknownTopicIdError):
        admin.delete_topics([ids["b"]])


def test_deletions_that_cannot_be_are_refused(cluster: EmbeddedKafka, wire: Wire) -> None:
    state = DeleteTopicsRequest.DeleteTopicState
    (made,) = create(wire, new("t"))
    create(wire, new("u"))

    def delete(*topics: Any) -> list[tuple[str | None, int, str | None]]:
        responses = wire.ask(DeleteTopicsRequest(topics=list(topics), timeout_ms=0), 6).responses
        return [(each.name, each.error_code, each.error_message) for each in responses]

    refused = InvalidRequestError.errno
    assert delete(state(name=None)) == [(None, refused, "Neither topic name nor id were specified.")]
    assert delete(state(name="t", topic_id=made.topic_id)) == [
        ("t", refused, "You may not specify both topic name and topic id.")
    ]
    assert delete(state(name="t"), state(name="t")) == [("t", refused, "Duplicate topic name.")]
    assert delete(state(topic_id=made.topic_id), state(topic_id=made.topic_id)) == [
        (None, refused, "Duplicate topic id.")
    ]
    same = "The provided topic name maps to an ID that was already supplied."
    assert delete(state(name="u"), state(topic_id=made.topic_id), state(name="t")) == [
        ("u", 0, None),
        (None, refused, same),
        ("t", refused, same),
    ]
    assert cluster.leader_of("t") > 0


def test_a_topic_that_is_made_again_is_another(cluster: EmbeddedKafka, admin: KafkaAdminClient) -> None:
    first = admin.create_topics(["t"])["topics"][0]["topic_id"]
    with Wire(cluster.address_of(cluster.leader_of("t"))) as wire:
        wire.ask(produce("t", b"old"), 9)
    admin.delete_topics(["t"])
    assert admin.create_topics(["t"])["topics"][0]["topic_id"] != first
    assert cluster.high_watermark_of("t") == 0


# -- CreatePartitions --------------------------------------------------------------------------------------------------


def grow(wire: Wire, name: str, count: int, assignments: Any = None, **options: Any) -> tuple[int, str | None]:
    topic = CreatePartitionsRequest.CreatePartitionsTopic
    chosen = None
    if assignments is not None:
        chosen = [topic.CreatePartitionsAssignment(broker_ids=replicas) for replicas in assignments]
    request = CreatePartitionsRequest(
        topics=[topic(name=name, count=count, assignments=chosen)],
        timeout_ms=0,
        validate_only=options.get("validate_only", False),
    )
    (result,) = wire.ask(request, options.get("version", 3)).results
    return result.error_code, result.error_message


def test_a_topic_grows(cluster: EmbeddedKafka, admin: KafkaAdminClient) -> None:
    cluster.create_topic("t", partitions=1, replication_factor=2)
    admin.create_partitions({"t": 3})
    assert [len(each["replica_nodes"]) for each in admin.describe_topics(["t"])[0]["partitions"]] == [2, 2, 2]
    admin.create_partitions({"t": {"count": 4, "assignments": [[3, 2]]}})
    assert admin.describe_topics(["t"])[0]["partitions"][3]["replica_nodes"] == [3, 2]
    producer = KafkaProducer(**cluster.client_options())
    assert producer.send("t", b"x", partition=3).get(timeout=10).offset == 0
    producer.close()


@pytest.mark.parametrize("version", range(4))
def test_all_versions_of_create_partitions(cluster: EmbeddedKafka, wire: Wire, version: int) -> None:
    cluster.create_topic("t")
    assert grow(wire, "t", 2, version=version, validate_only=True) == (0, None)
    assert grow(wire, "t", 2, version=version) == (0, None)
    code, said = grow(wire, "t", 2, version=version)
    assert (code, said) == (InvalidPartitionsError.errno, "Topic already has 2 partition(s).")


def test_growth_that_cannot_be_is_refused(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.create_topic("t", partitions=3, replication_factor=2)

    def refused(*arguments: Any) -> tuple[int, str]:
        code, said = grow(wire, *arguments)
        assert said is not None
        return code, said

    assert refused("missing", 2)[0] == UnknownTopicOrPartitionError.errno
    code, said = refused("t", 2)
    assert code == InvalidPartitionsError.errno
    assert "currently has 3 partition(s); 2 would not be an increase" in said
    code, said = refused("t", 5, [[1, 2]])
    assert code == InvalidReplicationAssignmentError.errno
    assert "Attempted to add 2 additional partition(s), but only 1" in said
    code, said = refused("t", 4, [[1]])
    assert code == InvalidReplicationAssignmentError.errno
    assert "not consistent" in said
    topic = CreatePartitionsRequest.CreatePartitionsTopic
    twice = [topic(name="t", count=count, assignments=None) for count in (4, 5)]
    (result,) = wire.ask(CreatePartitionsRequest(topics=twice, timeout_ms=0, validate_only=False), 3).results
    assert (result.error_code, result.error_message) == (InvalidRequestError.errno, "Duplicate topic name.")
    with pytest.raises(UnknownTopicOrPartitionError):
        cluster.leader_of("t", 3)


# -- DeleteRecords -----------------------------------------------------------------------------------------------------


def delete_records(wire: Wire, topic: str, offset: int, version: int = 2, partition: int = 0) -> tuple[int, int]:
    """The error code and the low watermark."""
    kind = DeleteRecordsRequest.DeleteRecordsTopic
    asked = kind(name=topic, partitions=[kind.DeleteRecordsPartition(partition_index=partition, offset=offset)])
    answered = wire.ask(DeleteRecordsRequest(topics=[asked], timeout_ms=0), version).topics[0].partitions[0]
    return answered.error_code, answered.low_watermark


@pytest.mark.parametrize("version", range(3))
def test_records_are_deleted(cluster: EmbeddedKafka, wire: Wire, version: int) -> None:
    topic = cluster.create_topic("t", assignment=[[1, 2]])
    for value in (b"a", b"b", b"c"):
        wire.ask(produce(topic, value), 9)
    assert delete_records(wire, topic, 2, version) == (0, 2)
    assert fetched(wire.ask(fetch(topic, 2), 11)) == [b"c"]
    early = wire.ask(fetch(topic, 1), 11).responses[0].partitions[0]
    assert early.error_code == OffsetOutOfRangeError.errno
    assert delete_records(wire, topic, 1, version) == (0, 2), "it does not go back"
    assert delete_records(wire, topic, -1, version) == (0, 3), "all"
    assert wire.ask(produce(topic, b"d"), 9).responses[0].partition_responses[0].base_offset == 3
    assert fetched(wire.ask(fetch(topic, 3), 11)) == [b"d"]


def test_records_that_cannot_be_deleted(cluster: EmbeddedKafka, wire: Wire) -> None:
    topic = cluster.create_topic("t", assignment=[[1], [2]])
    wire.ask(produce(topic, b"a"), 9)
    assert delete_records(wire, topic, 2) == (OffsetOutOfRangeError.errno, -1)
    assert delete_records(wire, topic, -2) == (OffsetOutOfRangeError.errno, -1)
    assert delete_records(wire, topic, 0, partition=1) == (NotLeaderForPartitionError.errno, -1)
    assert delete_records(wire, topic, 0, partition=2) == (UnknownTopicOrPartitionError.errno, -1)
    assert delete_records(wire, "missing", 0) == (UnknownTopicOrPartitionError.errno, -1)


def test_records_are_deleted_through_the_admin_client(cluster: EmbeddedKafka, admin: KafkaAdminClient) -> None:
    topic = cluster.create_topic("t", partitions=2)
    producer = KafkaProducer(**cluster.client_options())
    for partition in (0, 1):
        for _ in range(3):
            producer.send(topic, b"x", partition=partition).get(timeout=10)
    producer.close()
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    answered = admin.delete_records({first: 1, second: -1})
    assert {partition: result["low_watermark"] for partition, result in answered.items()} == {first: 1, second: 3}
    consumer = KafkaConsumer(**cluster.client_options())
    try:
        assert consumer.beginning_offsets([first, second]) == {first: 1, second: 3}
        assert consumer.end_offsets([first, second]) == {first: 3, second: 3}
    finally:
        consumer.close()


# -- faults ------------------------------------------------------------------------------------------------------------


def test_a_fault_refuses_all_that_was_asked_and_does_nothing(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.create_topic("t", assignment=[[1]])
    refused = InvalidRequestError.errno
    with cluster.intercept(action=Error(InvalidRequestError)):
        assert [result.error_code for result in create(wire, new("a"), new("b"))] == [refused, refused]
        by_name = DeleteTopicsRequest(topics=[DeleteTopicsRequest.DeleteTopicState(name="t")], timeout_ms=0)
        assert wire.ask(by_name, 6).responses[0].error_code == refused
        assert grow(wire, "t", 2)[0] == refused
        assert delete_records(wire, "t", 0) == (refused, -1)
    assert cluster.leader_of("t") == 1
    for name, partition in (("a", 0), ("t", 1)):
        with pytest.raises(UnknownTopicOrPartitionError):
            cluster.leader_of(name, partition)
