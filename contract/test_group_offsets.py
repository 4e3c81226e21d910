"""OffsetCommit and OffsetFetch."""

from __future__ import annotations

import pytest
from kafka.errors import (
    CoordinatorLoadInProgressError,
    IllegalGenerationError,
    NotCoordinatorError,
    OffsetMetadataTooLargeError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.consumer import OffsetFetchRequest

from contract.lab import Lab, until
from contract.membership import Member
from contract.requests import Key, commit, committed
from contract.wire import Wire


class Offsets:
    """A new group's offsets of one partition."""

    def __init__(self, lab: Lab) -> None:
        self.name, self.node_id = lab.group()
        self.wire: Wire = lab.connect(self.node_id)
        self.key: Key = (lab.topic(), 0)

    def commit(self, offset: int, generation: int = -1, member_id: str = "", metadata: str | None = "") -> int:
        request = commit(self.name, self.key, offset, generation=generation, member_id=member_id, metadata=metadata)
        return int(self.wire.ask(request, 7).topics[0].partitions[0].error_code)

    def committed(self) -> tuple[int, str | None]:
        """Offset and metadata."""
        (topic,) = self.wire.ask(committed(self.name, [self.key]), 7).topics
        (part,) = topic.partitions
        assert (topic.name, part.error_code) == (self.key[0], 0)
        return part.committed_offset, part.metadata


@pytest.fixture
def offsets(lab: Lab) -> Offsets:
    return Offsets(lab)


def test_who_has_no_group_protocol_commits_as_nobody(offsets: Offsets) -> None:
    assert offsets.committed() == (-1, "")
    assert offsets.commit(5, metadata="m") == 0
    assert offsets.committed() == (5, "m")
    assert offsets.commit(3, metadata=None) == 0
    assert offsets.committed() == (3, "")


def test_all_offsets_of_a_group(lab: Lab, offsets: Offsets) -> None:
    assert offsets.wire.ask(committed(offsets.name, None), 7).topics == []
    offsets.commit(5)
    topic = lab.topic(partitions=2)
    offsets.wire.ask(commit(offsets.name, (topic, 1), 7), 7)
    found = {
        (each.name, part.partition_index): part.committed_offset
        for each in offsets.wire.ask(committed(offsets.name, None), 7).topics
        for part in each.partitions
    }
    assert found == {offsets.key: 5, (topic, 1): 7}


def test_several_groups_are_answered_together_and_each_for_itself(lab: Lab, offsets: Offsets) -> None:
    """One of another coordinator has its own error, and one that nobody knows has committed nothing (KIP-709)."""
    offsets.commit(5)
    kind = OffsetFetchRequest.OffsetFetchRequestGroup
    topics = [kind.OffsetFetchRequestTopics(name=offsets.key[0], partition_indexes=[0])]
    names = {"elsewhere": "", "unknown": ""}
    while not all(names.values()):
        name, node_id = lab.group()
        names["unknown" if node_id == offsets.node_id else "elsewhere"] = name
    groups = [kind(group_id=name, topics=topics) for name in (names["elsewhere"], offsets.name, names["unknown"])]
    response = offsets.wire.ask(OffsetFetchRequest(groups=groups, require_stable=False), 8)
    answers = {group.group_id: group for group in response.groups}
    assert len(answers) == 3
    assert answers[names["elsewhere"]].error_code == NotCoordinatorError.errno
    for name, expected in ((offsets.name, 5), (names["unknown"], -1)):
        assert answers[name].error_code == 0
        assert answers[name].topics[0].partitions[0].committed_offset == expected


def test_only_members_of_this_generation_commit(lab: Lab, offsets: Offsets) -> None:
    member = Member(lab, offsets.name, offsets.node_id)
    member.join()
    member.lead()
    assert offsets.commit(1, member.generation, member.id) == 0
    assert offsets.commit(2, member.generation + 1, member.id) == IllegalGenerationError.errno
    assert offsets.commit(2, member.generation - 1, member.id) == IllegalGenerationError.errno
    assert offsets.commit(2, member.generation, "nobody") == UnknownMemberIdError.errno
    assert offsets.commit(2) == UnknownMemberIdError.errno
    assert offsets.committed()[0] == 1
    member.leave()
    assert offsets.commit(2, member.generation, member.id) == UnknownMemberIdError.errno
    assert offsets.commit(3) == 0


def test_a_generation_of_a_group_that_is_not_there(offsets: Offsets) -> None:
    assert offsets.commit(1, 3, "nobody") == IllegalGenerationError.errno


def test_commits_during_a_rebalance(lab: Lab, offsets: Offsets) -> None:
    """Members may commit until the new generation begins, and then not until they are told what is theirs."""
    a, b = Member(lab, offsets.name, offsets.node_id), Member(lab, offsets.name, offsets.node_id)
    a.join()
    assert offsets.commit(1, a.generation, a.id) == RebalanceInProgressError.errno
    a.lead()
    b.send_join()
    assert b.wire.is_silent()
    assert offsets.commit(2, a.generation, a.id) == 0
    a.join()
    b.joined()
    assert offsets.commit(3, a.generation, a.id) == RebalanceInProgressError.errno
    assert offsets.commit(3, a.generation - 1, a.id) == IllegalGenerationError.errno
    assert offsets.committed()[0] == 2


def test_an_unknown_partition_and_too_much_metadata_are_refused(lab: Lab, offsets: Offsets) -> None:
    for key in [(lab.name("unknown"), 0), (offsets.key[0], 7)]:
        response = offsets.wire.ask(commit(offsets.name, key, 1), 7)
        assert response.topics[0].partitions[0].error_code == UnknownTopicOrPartitionError.errno
    assert offsets.commit(1, metadata="x" * 4_097) == OffsetMetadataTooLargeError.errno
    assert offsets.commit(1, metadata="x" * 4_096) == 0


def test_a_partition_that_is_not_there_has_no_offset(lab: Lab, offsets: Offsets) -> None:
    unknown = lab.name("unknown")
    (topic,) = offsets.wire.ask(committed(offsets.name, [(unknown, 3)]), 7).topics
    (part,) = topic.partitions
    assert (part.error_code, part.committed_offset, part.committed_leader_epoch) == (0, -1, -1)


def test_a_group_without_a_name_may_commit(lab: Lab) -> None:
    topic = lab.topic()
    wire = lab.broker(lab.coordinator_of(""))
    response = until(
        lambda: wire.ask(commit("", (topic, 0), 4), 7),
        lambda answer: answer.topics[0].partitions[0].error_code != CoordinatorLoadInProgressError.errno,
    )
    assert response.topics[0].partitions[0].error_code == 0
    assert wire.ask(committed("", [(topic, 0)]), 7).topics[0].partitions[0].committed_offset == 4
