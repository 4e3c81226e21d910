"""What ApiVersions lists is what Kafka 4.1 has, and is served in every version that is listed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kafka.protocol.admin import DeleteTopicsRequest, DescribeGroupsRequest
from kafka.protocol.consumer import LeaveGroupRequest, OffsetFetchRequest
from kafka.protocol.metadata import FindCoordinatorRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from contract.lab import Lab, until
from contract.membership import Member
from contract.records import batch, values
from contract.requests import (
    LATEST,
    api_versions,
    commit,
    create_partitions,
    create_topics,
    end_of_epoch,
    fetch,
    find_coordinator,
    heartbeat,
    join,
    list_offsets,
    metadata,
    new_topic,
    of_partitions,
    produce,
    sync,
)
from contract.wire import Ended

# Lowest and highest versions by API key, of clients' requests in Kafka 4.1.
KAFKA = {
    0: (0, 13),
    1: (4, 18),
    2: (1, 10),
    3: (0, 13),
    8: (2, 9),
    9: (1, 9),
    10: (0, 6),
    11: (0, 9),
    12: (0, 4),
    13: (0, 5),
    14: (0, 5),
    15: (0, 6),
    16: (0, 5),
    17: (0, 1),
    18: (0, 4),
    19: (2, 7),
    20: (1, 6),
    21: (0, 2),
    22: (0, 5),
    23: (2, 4),
    24: (0, 5),
    25: (0, 4),
    26: (0, 5),
    28: (0, 5),
    32: (1, 4),
    33: (0, 2),
    36: (0, 2),
    37: (0, 3),
    42: (0, 2),
    43: (0, 2),
    44: (0, 1),
    47: (0, 0),
    48: (0, 1),
    49: (0, 1),
    60: (0, 2),
    65: (0, 0),
    66: (0, 2),
}
BY_TOPIC_ID = {0: 13, 1: 13, 3: 13}  # from these versions on topics have no names: not tried here


def listed(lab: Lab) -> dict[int, tuple[int, int]]:
    return {each.api_key: (each.min_version, each.max_version) for each in lab.any.ask(api_versions(), 3).api_keys}


def test_what_is_listed_is_what_kafka_has(lab: Lab) -> None:
    found = listed(lab)
    assert KAFKA.keys() <= found.keys()
    for key, (lowest, highest) in KAFKA.items():
        assert found[key][0] == lowest, key
        assert found[key][1] <= highest, key


def test_old_versions_of_produce_are_listed_but_gone(lab: Lab) -> None:
    """Old clients look there for what they may compress; none speaks them."""
    wire = lab.connect(1)
    wire.send(produce({(lab.name(), 0): batch(b"a")}), 2)
    with pytest.raises(Ended):
        wire.receive()


def tried(lab: Lab, request_class: Any, lowest: int, ask: Callable[[int], None]) -> None:
    """Ask in every version that is listed."""
    key = request_class.API_KEY
    highest = min(listed(lab)[key][1], BY_TOPIC_ID.get(key, 99) - 1)
    assert highest >= lowest
    for version in range(lowest, highest + 1):
        try:
            ask(version)
        except (AssertionError, Ended) as error:
            raise AssertionError(f"version {version}") from error


def test_produce_and_fetch(lab: Lab) -> None:
    topic = lab.topic_led_by(1)
    wire = lab.connect(1)
    written: list[bytes] = []

    def write(version: int) -> None:
        part = of_partitions(wire.ask(produce({(topic, 0): batch(b"%d" % version)}), version))[topic, 0]
        assert (part.error_code, part.base_offset) == (0, len(written))
        written.append(b"%d" % version)

    def read(version: int) -> None:
        part = of_partitions(wire.ask(fetch({(topic, 0): 0}), version))[topic, 0]
        assert (part.error_code, values(part)) == (0, written)

    tried(lab, ProduceRequest, 3, write)
    tried(lab, type(fetch({})), 4, read)


def test_metadata_and_offsets(lab: Lab) -> None:
    topic = lab.topic_led_by(1)
    wire = lab.connect(1)

    def show(version: int) -> None:
        (found,) = wire.ask(metadata(topic), version).topics
        assert (found.error_code, found.name, found.partitions[0].leader_id) == (0, topic, 1)

    def find(version: int) -> None:
        part = of_partitions(wire.ask(list_offsets({(topic, 0): LATEST}), version))[topic, 0]
        assert (part.error_code, part.offset) == (0, 0)

    def end(version: int) -> None:
        part = of_partitions(wire.ask(end_of_epoch((topic, 0), 0), version))[topic, 0]
        assert (part.error_code, part.end_offset) == (0, 0)

    tried(lab, type(metadata()), 0, show)
    tried(lab, type(list_offsets({})), 1, find)
    tried(lab, type(end_of_epoch((topic, 0), 0)), 2, end)
    tried(lab, type(api_versions()), 0, lambda version: wire.ask(api_versions(), version))


def test_topics(lab: Lab) -> None:
    names: list[str] = []

    def create(version: int) -> None:
        names.append(lab.name())
        (result,) = lab.any.ask(create_topics(new_topic(names[-1], 1, 3)), version).topics
        assert (result.error_code, result.name) == (0, names[-1])

    def grow(version: int) -> None:
        (result,) = lab.any.ask(create_partitions(names[0], 2 + version), version).results
        assert (result.error_code, result.name) == (0, names[0])

    def delete(version: int) -> None:
        name = names.pop()
        states = [DeleteTopicsRequest.DeleteTopicState(name=name)]
        request = DeleteTopicsRequest(topics=states, topic_names=[name], timeout_ms=10_000)
        (result,) = lab.any.ask(request, version).responses
        assert (result.error_code, result.name) == (0, name)

    tried(lab, type(create_topics()), 2, create)
    tried(lab, type(create_partitions("", 1)), 0, grow)
    tried(lab, DeleteTopicsRequest, 1, delete)


def test_finding_a_coordinator(lab: Lab) -> None:
    group, node_id = lab.group()

    def find(version: int) -> None:
        request = FindCoordinatorRequest(coordinator_keys=[group]) if version >= 4 else find_coordinator(group)
        response = lab.any.ask(request, version)
        found = response.coordinators[0] if version >= 4 else response
        assert (found.error_code, found.node_id) == (0, node_id)

    tried(lab, FindCoordinatorRequest, 0, find)


def test_being_in_a_group(lab: Lab) -> None:
    group, node_id = lab.group()
    wire = lab.connect(node_id)
    member = Member(lab, group, node_id)

    def joins(version: int) -> None:
        if not member.id:
            member.join()
        response = wire.ask(join(group, member.id), version)
        assert (response.error_code, response.member_id) == (0, member.id)
        member.generation = response.generation_id

    def syncs(version: int) -> None:
        response = wire.ask(sync(group, member.generation, member.id, {member.id: b"all"}), version)
        assert (response.error_code, response.assignment) == (0, b"all")

    def beats(version: int) -> None:
        assert wire.ask(heartbeat(group, member.generation, member.id), version).error_code == 0

    def describe(version: int) -> None:
        (found,) = wire.ask(DescribeGroupsRequest(groups=[group]), version).groups
        assert (found.error_code, found.group_state) == (0, "Stable")

    tried(lab, type(join("")), 0, joins)
    tried(lab, type(sync("", 0, "")), 0, syncs)
    tried(lab, type(heartbeat("", 0, "")), 0, beats)
    tried(lab, DescribeGroupsRequest, 0, describe)


def test_leaving_a_group(lab: Lab) -> None:
    group, node_id = lab.group()

    def leaves(version: int) -> None:
        member = Member(lab, group, node_id)
        member.join()
        identity = LeaveGroupRequest.MemberIdentity(member_id=member.id, group_instance_id=None)
        request = LeaveGroupRequest(group_id=group, member_id=member.id, members=[identity])
        response = member.wire.ask(request, version)
        assert response.error_code == 0
        assert [each.error_code for each in response.members or ()] == ([0] if version >= 3 else [])

    tried(lab, LeaveGroupRequest, 0, leaves)


def test_offsets_of_a_group(lab: Lab) -> None:
    group, node_id = lab.group()
    wire, topic = lab.connect(node_id), lab.topic()

    def commits(version: int) -> None:
        response = wire.ask(commit(group, (topic, 0), version), version)
        assert response.topics[0].partitions[0].error_code == 0
        last.append(version)

    def reads(version: int) -> None:
        kind = OffsetFetchRequest.OffsetFetchRequestGroup
        of_group = kind(
            group_id=group,
            topics=[kind.OffsetFetchRequestTopics(name=topic, partition_indexes=[0])],
            member_epoch=-1,
        )
        topics = [OffsetFetchRequest.OffsetFetchRequestTopic(name=topic, partition_indexes=[0])]
        response = wire.ask(OffsetFetchRequest(group_id=group, topics=topics, groups=[of_group]), version)
        (found,) = (response.groups[0] if version >= 8 else response).topics
        assert (found.name, found.partitions[0].committed_offset) == (topic, last[-1])

    last: list[int] = []
    tried(lab, type(commit("", ("", 0), 0)), 2, commits)
    tried(lab, OffsetFetchRequest, 1, reads)


def test_producer_ids(lab: Lab) -> None:
    found: set[int] = set()

    def init(version: int) -> None:
        request = InitProducerIdRequest(
            transactional_id=None, transaction_timeout_ms=0, producer_id=-1, producer_epoch=-1
        )
        response = until(lambda: lab.any.ask(request, version), lambda answer: answer.error_code == 0)
        assert response.producer_id not in found
        found.add(response.producer_id)

    tried(lab, InitProducerIdRequest, 0, init)
