"""Metadata: what clients learn of brokers and topics, and how topics come to be by being asked for."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import (
    InvalidRequestError,
    InvalidTopicError,
    LeaderNotAvailableError,
    UnknownTopicIdError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.metadata import MetadataRequest

from pooledkafka.testing import EmbeddedKafka, Error
from tests.testing._embedded.wire import Wire

_Topic = MetadataRequest.MetadataRequestTopic
UNKNOWN = UnknownTopicOrPartitionError.errno


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=3) as cluster:
        yield cluster


def ask(wire: Wire, *names: str, version: int = 9, create: bool = True) -> dict[str, Any]:
    """The topics of an answer by their names."""
    topics = [_Topic(name=name) for name in names]
    answered = wire.ask(MetadataRequest(topics=topics, allow_auto_topic_creation=create), version)
    return {topic.name: topic for topic in answered.topics}


# -- topics that are made by being asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(13))
def test_a_topic_is_unknown_first_and_then_there(cluster: EmbeddedKafka, wire: Wire, version: int) -> None:
    first = ask(wire, "new", version=version)["new"]
    assert (first.error_code, first.partitions) == (UNKNOWN, [])
    again = ask(wire, "new", version=version)["new"]
    assert again.error_code == 0
    (partition,) = again.partitions
    assert partition.leader_id == cluster.leader_of("new")
    assert sorted(partition.replica_nodes) == sorted(partition.isr_nodes) == [1, 2, 3]
    assert not again.is_internal


def test_who_does_not_want_it_made_does_not_make_it(wire: Wire) -> None:
    for _ in range(2):
        assert ask(wire, "new", create=False)["new"].error_code == UNKNOWN
    assert wire.ask(MetadataRequest(topics=None, allow_auto_topic_creation=True), 9).topics == []


def test_a_cluster_that_makes_none() -> None:
    config = {"auto.create.topics.enable": "false"}
    with EmbeddedKafka(brokers=1, config=config) as cluster, Wire(cluster.address_of(1)) as wire:
        for _ in range(2):
            assert ask(wire, "new")["new"].error_code == UNKNOWN


def test_a_topic_that_cannot_be_made_stays_unknown() -> None:
    config = {"default.replication.factor": "2"}
    with EmbeddedKafka(brokers=1, config=config) as cluster, Wire(cluster.address_of(1)) as wire:
        for _ in range(2):
            assert ask(wire, "new")["new"].error_code == UNKNOWN
        cluster.create_topic("a.b", replication_factor=1)
        for _ in range(2):
            assert ask(wire, "a_b")["a_b"].error_code == UNKNOWN, "it would collide with a.b"


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "\u00e4", "a" * 250])
def test_names_that_no_topic_can_have(wire: Wire, name: str) -> None:
    for create in (True, False):
        assert ask(wire, name, create=create)[name].error_code == InvalidTopicError.errno


def test_the_longest_name_is_legal(wire: Wire) -> None:
    name = "a" * 249
    ask(wire, name)
    assert ask(wire, name)[name].error_code == 0


def test_kafka_pythons_clients_make_topics(cluster: EmbeddedKafka) -> None:
    with KafkaProducer(**cluster.client_options()) as producer:
        assert producer.send("made", b"x").get(timeout=10).offset == 0
    consumer = KafkaConsumer(**cluster.client_options())
    assert consumer.topics() == {"made"}
    consumer.close()


# -- topics that are there ---------------------------------------------------------------------------------------------


def test_all_topics_or_none(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.create_topic("a", partitions=2)
    cluster.create_topic("b")

    def names(topics: Any, version: int) -> list[str]:
        return [topic.name for topic in wire.ask(MetadataRequest(topics=topics), version).topics]

    assert names([], 0) == ["a", "b"], "an empty list means all in the first version alone"
    for version in range(1, 13):
        assert names(None, version) == ["a", "b"]
        assert names([], version) == []


def test_topics_have_ids_and_can_be_asked_for_by_them(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.create_topic("t")
    topic_id = ask(wire, "t", version=10)["t"].topic_id
    assert isinstance(topic_id, uuid.UUID)
    asked = [_Topic(name=None, topic_id=topic_id), _Topic(name=None, topic_id=uuid.UUID(int=7))]
    found, unknown = wire.ask(MetadataRequest(topics=asked, allow_auto_topic_creation=True), 12).topics
    assert (found.name, found.topic_id, found.error_code) == ("t", topic_id, 0)
    assert (unknown.name, unknown.topic_id) == (None, uuid.UUID(int=7))
    assert (unknown.error_code, unknown.partitions) == (UnknownTopicIdError.errno, [])


@pytest.mark.parametrize("version", [10, 11])
def test_older_versions_show_ids_but_do_not_take_them(cluster: EmbeddedKafka, wire: Wire, version: int) -> None:
    cluster.create_topic("t")
    topic_id = ask(wire, "t", version=12)["t"].topic_id
    asked = [_Topic(name="t", topic_id=topic_id)]
    (refused,) = wire.ask(MetadataRequest(topics=asked, allow_auto_topic_creation=True), version).topics
    assert (refused.name, refused.error_code) == ("t", InvalidRequestError.errno)


def test_a_partition_without_a_leader(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.create_topic("t", assignment=[[2], [3]])
    cluster.kill(2)
    alone, other = ask(wire, "t")["t"].partitions
    assert (alone.error_code, alone.leader_id) == (LeaderNotAvailableError.errno, -1)
    assert (alone.replica_nodes, alone.isr_nodes, alone.offline_replicas) == ([2], [2], [2])
    assert (other.error_code, other.leader_id, other.offline_replicas) == (0, 3, [])
    cluster.start(2)
    alone, _ = ask(wire, "t")["t"].partitions
    assert (alone.error_code, alone.leader_id, alone.offline_replicas) == (0, 2, [])
    assert alone.leader_epoch == 2


# -- brokers -----------------------------------------------------------------------------------------------------------


def brokers(wire: Wire) -> dict[int, str]:
    answered = wire.ask(MetadataRequest(topics=[]), 9)
    return {broker.node_id: f"{broker.host}:{broker.port}" for broker in answered.brokers}


def test_a_broker_that_is_down_is_not_listed(cluster: EmbeddedKafka, wire: Wire) -> None:
    everybody = {node_id: cluster.address_of(node_id) for node_id in (1, 2, 3)}
    assert brokers(wire) == everybody
    cluster.kill(3)
    assert brokers(wire) == {1: everybody[1], 2: everybody[2]}
    cluster.start(3)
    assert brokers(wire) == everybody


def test_the_controller_is_a_broker_that_is_up(cluster: EmbeddedKafka) -> None:
    with Wire(cluster.address_of(3)) as wire:
        cluster_id = wire.ask(MetadataRequest(topics=[]), 9).cluster_id
        assert wire.ask(MetadataRequest(topics=[]), 9).controller_id == 1
        cluster.kill(1)
        answered = wire.ask(MetadataRequest(topics=[]), 9)
        assert (answered.controller_id, answered.cluster_id) == (2, cluster_id)


def test_each_listener_advertises_its_own_ports() -> None:
    with EmbeddedKafka(brokers=2, listeners=["sasl_plain"], credentials={"bob": "pw"}) as cluster:
        options = cluster.client_options("sasl_plain")
        with KafkaProducer(**options) as producer:
            producer.send("t", b"x").get(timeout=10)
        seen = {(record.node_id, record.listener) for record in cluster.connections if "Produce" in apis(record)}
        assert seen == {(cluster.leader_of("t"), "sasl_plain")}
        with Wire(cluster.address_of(1)) as wire:
            assert ",".join(brokers(wire).values()) == cluster.bootstrap_servers
            assert set(brokers(wire).values()).isdisjoint(options["bootstrap_servers"].split(","))


def apis(record: Any) -> set[str]:
    return {exchange.api for exchange in record.exchanges}


def test_racks_are_told(cluster: EmbeddedKafka) -> None:
    of_brokers = {1: {"broker.rack": "a"}, 3: {"broker.rack": "b"}}
    with EmbeddedKafka(brokers=3, broker_config=of_brokers) as racked, Wire(racked.address_of(2)) as wire:
        answered = wire.ask(MetadataRequest(topics=[]), 9)
        assert [broker.rack for broker in answered.brokers] == ["a", None, "b"]
        racked.create_topic("t", partitions=6, replication_factor=2)
        rack_of = {broker.node_id: broker.rack for broker in answered.brokers}
        for partition in ask(wire, "t")["t"].partitions:
            first, second = partition.replica_nodes
            assert rack_of[first] != rack_of[second]


# -- faults ------------------------------------------------------------------------------------------------------------


def test_a_fault_refuses_every_topic_and_makes_none(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.create_topic("t")
    with cluster.intercept("Metadata", Error(LeaderNotAvailableError)):
        refused = ask(wire, "t", "new")
        assert {name: topic.error_code for name, topic in refused.items()} == {
            "t": LeaderNotAvailableError.errno,
            "new": LeaderNotAvailableError.errno,
        }
        everything = wire.ask(MetadataRequest(topics=None), 9).topics
        assert [(topic.name, topic.error_code) for topic in everything] == [("t", LeaderNotAvailableError.errno)]
        assert brokers(wire).keys() == {1, 2, 3}
    assert ask(wire, "new", create=False)["new"].error_code == UNKNOWN
