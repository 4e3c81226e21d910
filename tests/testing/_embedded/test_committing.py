"""OffsetCommit, OffsetFetch and OffsetDelete over the wire."""

from __future__ import annotations

from collections.abc import Iterator

import kafka.errors
import pytest
from kafka.protocol.consumer import OffsetDeleteRequest
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription

from pooledkafka.testing import EmbeddedKafka, Error
from pooledkafka.testing._embedded.group import group_of
from pooledkafka.testing._embedded.group_offsets import Committed
from tests.testing._embedded.group_requests import commit, committed, join, join_as_new, offset_fetch, sync
from tests.testing._embedded.wire import Wire

NOTHING = (-1, -1, "", 0)
_DeleteTopic = OffsetDeleteRequest.OffsetDeleteRequestTopic


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=1, config={"offset.metadata.max.bytes": "10"}) as cluster:
        cluster.create_topic("orders", partitions=2)
        yield cluster


def delete(*keys: tuple[str, int], group_id: str = "g") -> OffsetDeleteRequest:
    topics = [
        _DeleteTopic(name=topic, partitions=[_DeleteTopic.OffsetDeleteRequestPartition(partition_index=index)])
        for topic, index in keys
    ]
    return OffsetDeleteRequest(group_id=group_id, topics=topics)


def errors_of(answer: object) -> list[int]:
    return [each.error_code for topic in answer.topics for each in topic.partitions]  # type: ignore[attr-defined]


def stage(cluster: EmbeddedKafka, offset: int, index: int = 0) -> None:
    offsets = {("orders", index): Committed(offset, -1, "")}
    cluster._call(lambda: group_of(cluster._state, "g").offsets.stage(7, offsets))


@pytest.mark.parametrize("version", range(2, 10))
def test_what_is_committed_is_fetched_in_every_version(wire: Wire, version: int) -> None:
    assert errors_of(wire.ask(commit({("orders", 0): version}, leader_epoch=3), version)) == [0]
    epoch = 3 if version >= 6 else -1
    for fetching in range(1, 10):
        answer = wire.ask(offset_fetch({"orders": [0, 1]}, "g", version=fetching), fetching)
        shown = epoch if fetching >= 5 else -1
        found = committed(answer.groups[0] if fetching >= 8 else answer)
        assert found == {("orders", 0): (version, shown, "note", 0), ("orders", 1): NOTHING}


def test_all_that_a_group_has_committed(wire: Wire) -> None:
    for version in (2, 7, 8):
        answer = wire.ask(offset_fetch(None, "g", version=version), version)
        assert committed(answer.groups[0] if version == 8 else answer) == {}
    wire.ask(commit({("orders", 0): 4, ("orders", 1): 5}, metadata=None), 8)
    for version in (2, 7, 8):
        answer = wire.ask(offset_fetch(None, "g", version=version), version)
        found = committed(answer.groups[0] if version == 8 else answer)
        assert {key: (offset, metadata) for key, (offset, _, metadata, _) in found.items()} == {
            ("orders", 0): (4, ""),
            ("orders", 1): (5, ""),
        }


def test_several_groups_at_once() -> None:
    with EmbeddedKafka(brokers=2) as cluster:
        cluster.create_topic("orders")
        ids = [f"group-{number}" for number in range(20)]
        here = [each for each in ids if cluster.coordinator_of(each) == 1]
        assert 0 < len(here) < len(ids)
        with Wire(cluster.address_of(1)) as wire:
            for number, group_id in enumerate(here):
                assert errors_of(wire.ask(commit({("orders", 0): number}, group_id=group_id), 8)) == [0]
            answer = wire.ask(offset_fetch({"orders": [0]}, *ids, version=8), 8)
            assert [group.group_id for group in answer.groups] == ids
            for group in answer.groups:
                if group.group_id in here:
                    assert committed(group)["orders", 0][0] == here.index(group.group_id)
                else:
                    assert (group.error_code, group.topics) == (kafka.errors.NotCoordinatorError.errno, [])
            elsewhere = next(each for each in ids if each not in here)
            for version in range(1, 8):
                answer = wire.ask(offset_fetch({"orders": [0]}, elsewhere, version=version), version)
                error = committed(answer)["orders", 0][3] if version == 1 else answer.error_code
                assert error == kafka.errors.NotCoordinatorError.errno


def test_a_commit_is_refused_partition_by_partition(wire: Wire) -> None:
    unknown = kafka.errors.UnknownTopicOrPartitionError.errno
    answer = wire.ask(commit({("orders", 0): 1, ("orders", 2): 1, ("nothing", 0): 1}), 9)
    assert errors_of(answer) == [0, unknown, unknown]
    assert errors_of(wire.ask(commit({("orders", 1): 1}, metadata="x" * 11), 9)) == [
        kafka.errors.OffsetMetadataTooLargeError.errno
    ]
    answer = wire.ask(offset_fetch(None, "g", version=8), 8)
    assert set(committed(answer.groups[0])) == {("orders", 0)}


def test_a_member_commits_in_its_generation_alone(wire: Wire) -> None:
    errors = kafka.errors
    assert errors_of(wire.ask(commit({("orders", 0): 1}, "m", 3), 8)) == [errors.IllegalGenerationError.errno]
    assert errors_of(wire.ask(commit({("orders", 0): 1}, "m", 3), 9)) == [errors.GroupIdNotFoundError.errno]
    member = wire.ask(join(), 3)
    assert errors_of(wire.ask(commit({("orders", 0): 1}, member.member_id, 1), 8)) == [
        errors.RebalanceInProgressError.errno
    ]
    wire.ask(sync(member.member_id, 1), 3)
    assert errors_of(wire.ask(commit({("orders", 0): 1}, member.member_id, 1), 8)) == [0]
    assert errors_of(wire.ask(commit({("orders", 0): 2}, member.member_id, 0), 8)) == [
        errors.IllegalGenerationError.errno
    ]
    assert errors_of(wire.ask(commit({("orders", 0): 2}), 8)) == [errors.UnknownMemberIdError.errno]
    answer = wire.ask(offset_fetch({"orders": [0]}, "g", version=5), 5)
    assert committed(answer)["orders", 0][0] == 1


def test_an_offset_that_a_transaction_may_change_is_unstable_to_those_who_ask(
    cluster: EmbeddedKafka, wire: Wire
) -> None:
    wire.ask(commit({("orders", 0): 1}), 8)
    stage(cluster, 5)
    for version in (7, 8):

        def fetched(require_stable: bool, version: int = version) -> tuple[int, int, str, int]:
            request = offset_fetch({"orders": [0]}, "g", version=version, require_stable=require_stable)
            answer = wire.ask(request, version)
            return committed(answer.groups[0] if version == 8 else answer)["orders", 0]

        assert fetched(False)[0] == 1
        assert fetched(True) == (-1, -1, "", kafka.errors.UnstableOffsetCommitError.errno)
    cluster._call(lambda: group_of(cluster._state, "g").offsets.resolve(7, True))
    assert fetched(True)[0] == 5


def test_a_deleted_topic_takes_its_offsets_along(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.create_topic("others")
    wire.ask(commit({("orders", 0): 1, ("others", 0): 2}), 8)
    stage(cluster, 5, index=1)
    cluster._call(cluster._state.delete_topic, "orders")
    cluster._call(lambda: group_of(cluster._state, "g").offsets.resolve(7, True))
    answer = wire.ask(offset_fetch(None, "g", version=8), 8)
    assert set(committed(answer.groups[0])) == {("others", 0)}


def test_offsets_are_deleted_unless_the_group_reads_the_topic(cluster: EmbeddedKafka, wire: Wire) -> None:
    errors = kafka.errors
    unknown = errors.UnknownTopicOrPartitionError.errno
    cluster.create_topic("others")
    assert wire.ask(delete(("orders", 0)), 0).error_code == errors.GroupIdNotFoundError.errno
    assert wire.ask(delete(("orders", 0), group_id=""), 0).error_code == errors.InvalidGroupIdError.errno
    wire.ask(commit({("orders", 0): 1, ("orders", 1): 1, ("others", 0): 2}), 8)
    assert errors_of(wire.ask(delete(("orders", 0), ("orders", 9)), 0)) == [0, unknown]

    metadata = ConsumerProtocolSubscription(version=0, topics=["orders"], user_data=b"").encode()
    protocols = join().protocols
    protocols[0].metadata = metadata
    member = wire.ask(join(protocols=protocols), 3)
    assert errors_of(wire.ask(delete(("orders", 1), ("others", 0)), 0)) == [
        errors.GroupSubscribedToTopicError.errno,
        0,
    ]
    answer = wire.ask(offset_fetch(None, "g", version=8), 8)
    assert set(committed(answer.groups[0])) == {("orders", 1)}
    assert member.error_code == 0
    with cluster.intercept("OffsetDelete", Error(errors.CoordinatorNotAvailableError)):
        assert wire.ask(delete(("orders", 1)), 0).error_code == errors.CoordinatorNotAvailableError.errno


def test_offsets_of_a_group_of_another_kind_are_kept_while_it_has_members(wire: Wire) -> None:
    wire.ask(commit({("orders", 0): 1}), 8)
    join_as_new(wire, protocol_type="connect")
    assert wire.receive()[1].error_code == 0
    assert wire.ask(delete(("orders", 0)), 0).error_code == kafka.errors.NonEmptyGroupError.errno


def test_what_a_group_with_unreadable_subscriptions_reads_is_not_deleted(wire: Wire) -> None:
    assert wire.ask(join(), 3).error_code == 0  # its metadata is no subscription
    assert errors_of(wire.ask(delete(("orders", 0)), 0)) == [kafka.errors.GroupSubscribedToTopicError.errno]
