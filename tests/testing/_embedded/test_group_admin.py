"""DescribeGroups, ListGroups and DeleteGroups, over the wire and by kafka-python's admin client."""

from __future__ import annotations

from collections.abc import Iterator

import kafka.errors
import pytest
from kafka.admin import KafkaAdminClient
from kafka.protocol.admin import DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest
from kafka.structs import OffsetAndMetadata, TopicPartition

from pooledkafka.testing import EmbeddedKafka, Error
from tests.testing._embedded.group_requests import commit, committed, join, offset_fetch, sync
from tests.testing._embedded.wire import Wire


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=1) as cluster:
        cluster.create_topic("orders")
        yield cluster


@pytest.fixture
def wire(cluster: EmbeddedKafka) -> Iterator[Wire]:
    with Wire(cluster.address_of(1), "me") as wire:
        yield wire


def describe(*groups: str, operations: bool = False) -> DescribeGroupsRequest:
    return DescribeGroupsRequest(groups=list(groups), include_authorized_operations=operations)


def listing(*states: str, types: tuple[str, ...] = ()) -> ListGroupsRequest:
    return ListGroupsRequest(states_filter=list(states), types_filter=list(types))


@pytest.mark.parametrize("version", range(7))
def test_a_group_is_described_in_all_its_states(wire: Wire, version: int) -> None:
    member = wire.ask(join(group_instance_id="i"), 9)
    (group,) = wire.ask(describe("g", operations=True), version).groups
    assert (group.error_code, group.group_state, group.protocol_type) == (0, "CompletingRebalance", "consumer")
    assert (group.protocol_data, group.members[0].member_metadata) == ("", b"")
    wire.ask(sync(member.member_id, 1, {member.member_id: b"mine"}, group_instance_id="i"), 5)
    (group,) = wire.ask(describe("g", operations=True), version).groups
    assert (group.group_state, group.protocol_data) == ("Stable", "range")
    (shown,) = group.members
    assert (shown.member_id, shown.client_id, shown.client_host) == (member.member_id, "me", "/127.0.0.1")
    assert (shown.member_metadata, shown.member_assignment) == (b"topics", b"mine")
    if version >= 3:
        assert group.authorized_operations == {3, 6, 8, 10, 11}
        assert wire.ask(describe("g"), version).groups[0].authorized_operations is None
    if version >= 4:
        assert shown.group_instance_id == "i"


def test_a_group_that_is_not_there_is_dead_or_not_found(wire: Wire) -> None:
    for version in range(7):
        (group,) = wire.ask(describe("nothing"), version).groups
        assert (group.group_id, group.group_state, group.members) == ("nothing", "Dead", [])
        assert group.error_code == (kafka.errors.GroupIdNotFoundError.errno if version >= 6 else 0)
        if version >= 6:
            assert "nothing" in group.error_message


def test_groups_are_listed_by_state_and_type(wire: Wire) -> None:
    wire.ask(commit({("orders", 0): 1}, group_id="simple"), 8)
    member = wire.ask(join(group_id="busy"), 3)
    for version in range(6):
        groups = wire.ask(listing(), version).groups
        assert [(group.group_id, group.protocol_type) for group in groups] == [("simple", ""), ("busy", "consumer")]
    assert [(group.group_state, group.group_type) for group in groups] == [
        ("Empty", "classic"),
        ("CompletingRebalance", "classic"),
    ]
    wire.ask(sync(member.member_id, 1, group_id="busy"), 3)

    def listed(*states: str, types: tuple[str, ...] = ()) -> list[str]:
        return [group.group_id for group in wire.ask(listing(*states, types=types), 5).groups]

    assert listed("stable") == ["busy"]
    assert listed("Empty", "Stable") == ["simple", "busy"]
    assert listed("Dead") == []
    assert listed(types=("Classic",)) == ["simple", "busy"]
    assert listed(types=("consumer",)) == []


def test_only_empty_groups_are_deleted(wire: Wire) -> None:
    errors = kafka.errors
    wire.ask(commit({("orders", 0): 1}, group_id="simple"), 8)
    wire.ask(join(group_id="busy"), 3)
    for version in range(3):
        answer = wire.ask(DeleteGroupsRequest(groups_names=["simple", "busy", "nothing"]), version)
        assert {result.group_id: result.error_code for result in answer.results} == {
            "simple": 0,
            "busy": errors.NonEmptyGroupError.errno,
            "nothing": errors.GroupIdNotFoundError.errno,
        }
        found = wire.ask(offset_fetch({"orders": [0]}, "simple", version=5), 5)
        assert committed(found)["orders", 0][0] == -1
        wire.ask(commit({("orders", 0): 1}, group_id="simple"), 8)


def test_a_deleted_group_forgets_who_was_told_an_id(wire: Wire) -> None:
    told = wire.ask(join(), 9)
    assert told.error_code == kafka.errors.MemberIdRequiredError.errno
    assert wire.ask(DeleteGroupsRequest(groups_names=["g"]), 2).results[0].error_code == 0
    assert wire.ask(join(told.member_id), 9).error_code == kafka.errors.UnknownMemberIdError.errno


def test_refusing_is_well_formed_in_every_version(cluster: EmbeddedKafka, wire: Wire) -> None:
    error = kafka.errors.CoordinatorNotAvailableError
    with cluster.intercept(None, Error(error)):
        for version in range(7):
            answer = wire.ask(describe("a", "b"), version)
            assert [(group.group_id, group.error_code) for group in answer.groups] == [
                ("a", error.errno),
                ("b", error.errno),
            ]
        for version in range(6):
            assert wire.ask(listing(), version).error_code == error.errno
        for version in range(3):
            answer = wire.ask(DeleteGroupsRequest(groups_names=["a"]), version)
            assert [(result.group_id, result.error_code) for result in answer.results] == [("a", error.errno)]


def test_another_broker_says_that_it_is_no_coordinator() -> None:
    wrong = kafka.errors.NotCoordinatorError.errno
    with EmbeddedKafka(brokers=2) as cluster:
        cluster.create_topic("orders")
        coordinator = cluster.coordinator_of("g")
        with Wire(cluster.address_of(coordinator)) as right, Wire(cluster.address_of(3 - coordinator)) as other:
            right.ask(commit({("orders", 0): 1}), 8)
            assert other.ask(describe("g"), 6).groups[0].error_code == wrong
            assert other.ask(DeleteGroupsRequest(groups_names=["g"]), 2).results[0].error_code == wrong
            assert other.ask(listing(), 5).groups == []
            assert [group.group_id for group in right.ask(listing(), 5).groups] == ["g"]


def test_the_admin_client_sees_and_changes_groups() -> None:
    with EmbeddedKafka(brokers=3) as cluster:
        cluster.create_topic("orders")
        admin = KafkaAdminClient(**cluster.client_options())
        try:
            partition = TopicPartition("orders", 0)
            offsets = {partition: OffsetAndMetadata(5, "note", -1)}
            admin.alter_group_offsets("a", offsets)
            admin.alter_group_offsets("b", offsets)
            assert sorted(group["group_id"] for group in admin.list_groups()) == ["a", "b"]
            assert admin.list_group_offsets({"a": None, "b": [partition]}) == {"a": offsets, "b": offsets}
            assert admin.describe_groups(["a"])["a"]["group_state"] == "Empty"
            assert admin.delete_group_offsets("a", [partition]) == {partition: kafka.errors.NoError}
            assert admin.list_group_offsets({"a": None}) == {"a": {}}
            admin.delete_groups(["a", "b"])
            assert admin.list_groups() == []
        finally:
            admin.close()
