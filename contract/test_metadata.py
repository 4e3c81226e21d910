"""Metadata: topics that are made when they are asked for, names that cannot be, ids."""

from __future__ import annotations

import uuid

import pytest
from kafka.errors import InvalidTopicError, UnknownTopicIdError, UnknownTopicOrPartitionError
from kafka.protocol.metadata import MetadataRequest

from contract.lab import Lab, until
from contract.requests import metadata

NO_ID = uuid.UUID(int=0)


def by_id(topic_id: uuid.UUID) -> MetadataRequest:
    asked = MetadataRequest.MetadataRequestTopic(topic_id=topic_id, name=None)
    return MetadataRequest(topics=[asked], allow_auto_topic_creation=False)


@pytest.mark.parametrize("version", [1, 4, 9, 12])
def test_an_unknown_topic_is_said_to_be_unknown_and_is_then_made(lab: Lab, version: int) -> None:
    name = lab.name()
    (first,) = lab.any.ask(metadata(name, may_create=True), version).topics
    assert (first.error_code, first.name, first.partitions) == (UnknownTopicOrPartitionError.errno, name, [])
    (later,) = until(
        lambda: lab.any.ask(metadata(name, may_create=True), version).topics, lambda topics: topics[0].error_code == 0
    )
    assert (later.name, later.is_internal, len(later.partitions)) == (name, False, 1)
    assert len(later.partitions[0].replica_nodes) == 3


@pytest.mark.parametrize("version", [4, 9, 12])
def test_a_topic_is_not_made_where_that_is_not_allowed(lab: Lab, version: int) -> None:
    name, marker = lab.name("unwanted"), lab.name("wanted")
    (answer,) = lab.any.ask(metadata(name, may_create=False), version).topics
    assert answer.error_code == UnknownTopicOrPartitionError.errno
    lab.any.ask(metadata(marker, may_create=True), version)
    lab.wait_for_topic(marker)
    (answer,) = lab.any.ask(metadata(name, may_create=False), version).topics
    assert answer.error_code == UnknownTopicOrPartitionError.errno


@pytest.mark.parametrize("may_create", [True, False])
@pytest.mark.parametrize("name", ["a b", ".", "..", "x" * 250, "", "ä"])
def test_a_name_that_cannot_be_is_refused(lab: Lab, name: str, may_create: bool) -> None:
    (answer,) = lab.any.ask(metadata(name, may_create=may_create), 9).topics
    assert (answer.error_code, answer.name) == (InvalidTopicError.errno, name)


def test_all_topics_or_none(lab: Lab) -> None:
    topic = lab.topic()
    assert topic in [each.name for each in lab.any.ask(metadata(), 9).topics]
    assert lab.any.ask(MetadataRequest(topics=[], allow_auto_topic_creation=False), 9).topics == []
    assert topic in [each.name for each in lab.any.ask(MetadataRequest(topics=[]), 0).topics]


def test_the_brokers_are_where_they_say(lab: Lab) -> None:
    for node_id in lab.cluster.node_ids:
        response = lab.broker(node_id).ask(metadata(), 9)
        addresses = {each.node_id: f"{each.host}:{each.port}" for each in response.brokers}
        assert addresses == {each: lab.cluster.address_of(each) for each in lab.cluster.node_ids}
        assert response.controller_id in lab.cluster.node_ids
        assert [each.rack for each in response.brokers] == [None] * 3
    assert len({lab.broker(node_id).ask(metadata(), 9).cluster_id for node_id in lab.cluster.node_ids}) == 1


def test_a_topic_has_one_id_everywhere(lab: Lab) -> None:
    topic = lab.topic()
    ids = {lab.broker(node_id).ask(metadata(topic), 12).topics[0].topic_id for node_id in lab.cluster.node_ids}
    (topic_id,) = ids
    assert topic_id != NO_ID
    (found,) = lab.any.ask(by_id(topic_id), 12).topics
    assert (found.error_code, found.name, len(found.partitions)) == (0, topic, 1)


def test_an_unknown_id_is_refused(lab: Lab) -> None:
    (found,) = lab.any.ask(by_id(uuid.uuid4()), 12).topics
    assert (found.error_code, found.partitions) == (UnknownTopicIdError.errno, [])


def test_partitions_show_their_leader_and_replicas(lab: Lab) -> None:
    topic = lab.topic(partitions=3)
    parts = lab.partitions(topic)
    assert [part.partition_index for part in parts] == [0, 1, 2]
    assert sorted(part.leader_id for part in parts) == [1, 2, 3]
    for part in parts:
        assert part.leader_id == part.replica_nodes[0]
        assert sorted(part.replica_nodes) == sorted(part.isr_nodes) == [1, 2, 3]
        assert (part.leader_epoch, part.offline_replicas) == (0, [])
