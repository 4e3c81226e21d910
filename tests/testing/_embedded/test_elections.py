"""DescribeCluster and ElectLeaders, as clients see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.errors import (
    ElectionNotNeededError,
    EligibleLeadersNotAvailableError,
    InvalidRequestError,
    MismatchedEndpointTypeError,
    PreferredLeaderNotAvailableError,
    UnknownTopicOrPartitionError,
    UnsupportedEndpointTypeError,
)
from kafka.protocol.admin import DescribeClusterRequest, ElectionType, ElectLeadersRequest

from pooledkafka.testing import EmbeddedKafka, Error
from tests.testing._embedded.wire import Wire


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=3, broker_config={2: {"broker.rack": "b"}}) as cluster:
        yield cluster


@pytest.fixture
def admin(cluster: EmbeddedKafka) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(bootstrap_servers=cluster.address_of(1))
    yield admin
    admin.close()


# -- DescribeCluster ---------------------------------------------------------------------------------------------------


def test_the_cluster_is_described(cluster: EmbeddedKafka, admin: KafkaAdminClient) -> None:
    described = admin.describe_cluster()
    assert len(described["cluster_id"]) == 22
    assert described["controller_id"] == 1
    assert [(f"{each['host']}:{each['port']}", each["rack"], each["is_fenced"]) for each in described["brokers"]] == [
        (cluster.address_of(1), None, False),
        (cluster.address_of(2), "b", False),
        (cluster.address_of(3), None, False),
    ]


@pytest.mark.parametrize("version", range(3))
def test_a_broker_that_is_down_is_described_only_to_who_asks(cluster: EmbeddedKafka, wire: Wire, version: int) -> None:
    cluster.kill(3)
    seen = wire.ask(DescribeClusterRequest(), version).brokers
    assert [each.broker_id for each in seen] == [1, 2]
    with_fenced = wire.ask(DescribeClusterRequest(include_fenced_brokers=True), 2).brokers
    assert [(each.broker_id, each.is_fenced) for each in with_fenced] == [(1, False), (2, False), (3, True)]


@pytest.mark.parametrize(("endpoint", "error"), [(2, MismatchedEndpointTypeError), (3, UnsupportedEndpointTypeError)])
def test_only_brokers_are_described(wire: Wire, endpoint: int, error: Any) -> None:
    answered = wire.ask(DescribeClusterRequest(endpoint_type=endpoint), 1)
    assert (answered.error_code, answered.brokers) == (error.errno, [])
    assert answered.error_message


# -- ElectLeaders ------------------------------------------------------------------------------------------------------


def elect(wire: Wire, topics: Any, kind: int = ElectionType.PREFERRED, version: int = 2) -> dict[str, dict[int, int]]:
    """The error code of each partition by its topic."""
    asked = None
    if topics is not None:
        one = ElectLeadersRequest.TopicPartitions
        asked = [one(topic=topic, partitions=partitions) for topic, partitions in topics.items()]
    request = ElectLeadersRequest(election_type=kind, topic_partitions=asked, timeout_ms=1_000)
    answered = wire.ask(request, version)
    assert version == 0 or answered.error_code == 0
    return {
        result.topic: {each.partition_id: each.error_code for each in result.partition_result}
        for result in answered.replica_election_results
    }


@pytest.mark.parametrize("version", range(3))
def test_the_preferred_replica_leads_again(cluster: EmbeddedKafka, wire: Wire, version: int) -> None:
    cluster.create_topic("t", assignment=[[2, 3], [2, 1], [1, 2]])
    cluster.restart(2)
    assert [cluster.leader_of("t", index) for index in range(3)] == [3, 1, 1]
    assert elect(wire, {"t": [0, 2, 3], "u": [0]}, version=version) == {
        "t": {0: 0, 2: ElectionNotNeededError.errno, 3: UnknownTopicOrPartitionError.errno},
        "u": {0: UnknownTopicOrPartitionError.errno},
    }
    assert [cluster.leader_of("t", index) for index in range(3)] == [2, 1, 1]
    assert elect(wire, None, version=version) == {"t": {1: 0}}, "those that need none are not told"
    assert [cluster.leader_of("t", index) for index in range(3)] == [2, 2, 1]


def test_leaders_are_elected_through_the_admin_client(cluster: EmbeddedKafka, admin: KafkaAdminClient) -> None:
    cluster.create_topic("t", assignment=[[2, 3], [1, 2]])
    cluster.move_leader("t", 0, 3)
    admin.elect_leaders(ElectionType.PREFERRED, {"t": [0, 1]})
    assert cluster.leader_of("t", 0) == 2
    described = admin.describe_topics(["t"])[0]["partitions"]
    assert [partition["leader_epoch"] for partition in described] == [2, 0]


def test_a_preferred_replica_that_is_not_in_sync_does_not_lead(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.create_topic("t", assignment=[[2, 3]])
    cluster.kill(2)
    assert elect(wire, {"t": [0]}) == {"t": {0: PreferredLeaderNotAvailableError.errno}}
    assert cluster.leader_of("t") == 3


def test_an_unclean_election_lets_any_replica_lead_where_nobody_does(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.create_topic("t", assignment=[[2, 3]])
    assert elect(wire, {"t": [0]}, ElectionType.UNCLEAN) == {"t": {0: ElectionNotNeededError.errno}}
    cluster.kill(3)
    cluster.kill(2)
    assert elect(wire, {"t": [0]}, ElectionType.UNCLEAN) == {"t": {0: EligibleLeadersNotAvailableError.errno}}
    cluster.start(3)
    assert cluster.leader_of("t") == -1, "broker 2 alone was in sync"
    assert elect(wire, {"t": [0]}, ElectionType.UNCLEAN) == {"t": {0: 0}}
    assert cluster.leader_of("t") == 3


def test_another_kind_of_election_is_refused(wire: Wire) -> None:
    request = ElectLeadersRequest(election_type=2, topic_partitions=None, timeout_ms=1_000)
    assert wire.ask(request, 2).error_code == InvalidRequestError.errno


def test_a_fault_refuses_all_that_was_asked(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.create_topic("t", assignment=[[2, 3]])
    cluster.move_leader("t", 0, 3)
    asked = [ElectLeadersRequest.TopicPartitions(topic="t", partitions=[0])]
    with cluster.intercept(action=Error(InvalidRequestError)):
        answered = wire.ask(ElectLeadersRequest(election_type=0, topic_partitions=asked, timeout_ms=0), 2)
        assert answered.error_code == InvalidRequestError.errno
        assert answered.replica_election_results[0].partition_result[0].error_code == InvalidRequestError.errno
        assert wire.ask(DescribeClusterRequest(), 0).error_code == InvalidRequestError.errno
    assert cluster.leader_of("t") == 3
