"""CreateTopics, CreatePartitions and DeleteTopics."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from kafka.errors import (
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidReplicationAssignmentError,
    InvalidReplicationFactorError,
    InvalidRequestError,
    InvalidTopicError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.admin import DeleteTopicsRequest

from contract.lab import Lab, until
from contract.requests import create_partitions, create_topics, fetch, metadata, new_topic, of_partitions


def created(lab: Lab, *topics: Any, validate_only: bool = False) -> dict[str, Any]:
    response = lab.any.ask(create_topics(*topics, validate_only=validate_only), 5)
    return {each.name: each for each in response.topics}


def shown(lab: Lab, topic: str, node_id: int) -> int:
    """The error code with which a broker shows a topic."""
    return int(lab.broker(node_id).ask(metadata(topic), 9).topics[0].error_code)


REFUSED: dict[str, tuple[dict[str, Any], type]] = {
    "no partitions": ({"partitions": 0}, InvalidPartitionsError),
    "negative partitions": ({"partitions": -2}, InvalidPartitionsError),
    "no replicas": ({"replicas": 0}, InvalidReplicationFactorError),
    "too many replicas": ({"replicas": 4}, InvalidReplicationFactorError),
    "unknown configuration": ({"config": {"no.such": "1"}}, InvalidConfigurationError),
    "wrong configuration": ({"config": {"retention.ms": "soon"}}, InvalidConfigurationError),
    "unknown broker": ({"assignment": [[9]]}, InvalidReplicationAssignmentError),
    "broker named twice": ({"assignment": [[1, 1]]}, InvalidReplicationAssignmentError),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_topic_that_cannot_be_is_refused_and_the_others_are_made(lab: Lab, what: str) -> None:
    options, error = REFUSED[what]
    bad, good = lab.name("bad"), lab.name("good")
    results = created(lab, new_topic(bad, **options), new_topic(good, 2))
    assert results[bad].error_code == error.errno  # type: ignore[attr-defined]
    assert results[good].error_code == 0
    assert (results[good].num_partitions, results[good].replication_factor) == (2, 3)
    lab.wait_for_topic(good, 2)
    assert lab.any.ask(metadata(bad), 9).topics[0].error_code == UnknownTopicOrPartitionError.errno


@pytest.mark.parametrize("name", ["a b", ".", "", "x" * 250])
def test_a_name_that_cannot_be_is_refused(lab: Lab, name: str) -> None:
    assert created(lab, new_topic(name))[name].error_code == InvalidTopicError.errno


def test_a_topic_that_there_is_already_is_refused(lab: Lab) -> None:
    topic = lab.topic()
    assert created(lab, new_topic(topic))[topic].error_code == TopicAlreadyExistsError.errno


def test_a_name_that_differs_in_dots_alone_is_refused(lab: Lab) -> None:
    """Their metrics would have one name."""
    name = lab.name()
    assert created(lab, new_topic(name + ".a"))[name + ".a"].error_code == 0
    assert created(lab, new_topic(name + "_a"))[name + "_a"].error_code == InvalidTopicError.errno


def test_a_name_that_comes_twice_is_refused(lab: Lab) -> None:
    name = lab.name()
    assert created(lab, new_topic(name), new_topic(name))[name].error_code == InvalidRequestError.errno


def test_validating_makes_nothing(lab: Lab) -> None:
    name, there = lab.name(), lab.topic()
    results = created(lab, new_topic(name), new_topic(there), validate_only=True)
    assert results[name].error_code == 0
    assert results[there].error_code == TopicAlreadyExistsError.errno
    assert created(lab, new_topic(name))[name].error_code == 0


def test_replicas_may_be_named(lab: Lab) -> None:
    name = lab.name()
    assert created(lab, new_topic(name, assignment=[[2, 3], [3, 1]]))[name].error_code == 0
    lab.wait_for_topic(name, 2)
    assert [part.replica_nodes for part in lab.partitions(name)] == [[2, 3], [3, 1]]
    assert [part.leader_id for part in lab.partitions(name)] == [2, 3]


def test_partitions_are_added(lab: Lab) -> None:
    topic = lab.topic(partitions=2)
    (result,) = lab.any.ask(create_partitions(topic, 3), 2).results
    assert result.error_code == 0
    lab.wait_for_topic(topic, 3)


@pytest.mark.parametrize("count", [2, 1, 0, -1])
def test_partitions_are_never_taken_away(lab: Lab, count: int) -> None:
    topic = lab.topic(partitions=2)
    (result,) = lab.any.ask(create_partitions(topic, count), 2).results
    assert result.error_code == InvalidPartitionsError.errno


def test_partitions_of_an_unknown_topic(lab: Lab) -> None:
    (result,) = lab.any.ask(create_partitions(lab.name(), 3), 2).results
    assert result.error_code == UnknownTopicOrPartitionError.errno


def test_a_deleted_topic_is_gone_and_may_come_again(lab: Lab) -> None:
    topic, unknown = lab.topic(), lab.name("unknown")
    lab.write(topic, b"a")
    wire = lab.parked_at(topic)
    parked = wire.send(fetch({(topic, 0): 1}, max_wait_ms=60_000), 11)
    assert wire.is_silent()
    response = lab.any.ask(DeleteTopicsRequest(topic_names=[topic, unknown], timeout_ms=10_000), 5)
    results = {each.name: each.error_code for each in response.responses}
    assert results == {topic: 0, unknown: UnknownTopicOrPartitionError.errno}
    assert of_partitions(wire.answer(parked))[topic, 0].error_code != 0  # which depends on how far the broker is
    for node_id in lab.cluster.node_ids:
        until(partial(shown, lab, topic, node_id), lambda code: code == UnknownTopicOrPartitionError.errno)
    assert created(lab, new_topic(topic))[topic].error_code == 0
    lab.wait_for_topic(topic)
    assert lab.write(topic, b"b") == 0
