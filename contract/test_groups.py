"""Groups: joins and syncs that park, generations, heartbeats, who is thrown out."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.errors import (
    FencedInstanceIdError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    MemberIdRequiredError,
    NotCoordinatorError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from kafka.protocol.admin import DescribeGroupsRequest

from contract.lab import Lab, until
from contract.membership import Member
from contract.requests import commit, committed, find_coordinator, heartbeat, join, leave, sync


@pytest.fixture
def group(lab: Lab) -> tuple[str, int]:
    """A new group, and its coordinator."""
    return lab.group()


def led(lab: Lab, group: tuple[str, int], **options: Any) -> Member:
    """The only member of a group, with its assignment."""
    member = Member(lab, *group, **options)
    assert member.join().error_code == 0
    member.lead()
    return member


def pair(lab: Lab, group: tuple[str, int], **options: Any) -> tuple[Member, Member]:
    """The leader and another member of a group, with their assignments."""
    a, b = led(lab, group, **options), Member(lab, *group, **options)
    b.send_join()
    until(a.heartbeat, lambda code: code == RebalanceInProgressError.errno)
    assert a.join().error_code == b.joined().error_code == 0
    a.lead(b)
    assert b.sync().assignment == b.id.encode()
    return a, b


# -- joining -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5, 7, 9])
def test_a_new_member_is_given_an_id_first(lab: Lab, group: tuple[str, int], version: int) -> None:
    name, node_id = group
    wire = lab.connect(node_id, "who")
    response = wire.ask(join(name), version)
    assert (response.error_code, response.generation_id) == (MemberIdRequiredError.errno, -1)
    assert response.member_id.startswith("who-")
    response = wire.ask(join(name, response.member_id), version)
    assert (response.error_code, response.generation_id, response.leader) == (0, 1, response.member_id)
    assert [member.member_id for member in response.members] == [response.member_id]
    assert response.protocol_name == "range"


@pytest.mark.parametrize("version", [0, 2, 3])
def test_an_old_client_is_let_in_at_once(lab: Lab, group: tuple[str, int], version: int) -> None:
    name, node_id = group
    response = lab.connect(node_id).ask(join(name), version)
    assert (response.error_code, response.generation_id, response.leader) == (0, 1, response.member_id)


def test_an_unknown_member_cannot_join(lab: Lab, group: tuple[str, int]) -> None:
    name, node_id = group
    assert lab.connect(node_id).ask(join(name, "nobody"), 5).error_code == UnknownMemberIdError.errno
    led(lab, group)
    assert lab.connect(node_id).ask(join(name, "nobody"), 5).error_code == UnknownMemberIdError.errno


def test_a_join_parks_until_all_members_have_joined(lab: Lab, group: tuple[str, int]) -> None:
    a, b, c = led(lab, group), Member(lab, *group), Member(lab, *group)
    b.send_join()
    assert b.wire.is_silent()
    assert a.heartbeat() == RebalanceInProgressError.errno
    c.send_join()
    assert c.wire.is_silent()
    a.send_join()
    answers = [member.joined() for member in (a, b, c)]
    assert [(each.error_code, each.generation_id, each.leader) for each in answers] == [(0, 2, a.id)] * 3
    assert {member.member_id for member in answers[0].members} == {a.id, b.id, c.id}
    assert [answers[1].members, answers[2].members] == [[], []]


def test_a_sync_parks_until_the_leader_assigns(lab: Lab, group: tuple[str, int]) -> None:
    a, b = led(lab, group), Member(lab, *group)
    b.send_join()
    assert b.wire.is_silent()
    a.join()
    b.joined()
    syncing = b.wire.send(sync(b.group, b.generation, b.id), 3)
    assert b.wire.is_silent()
    assert a.heartbeat() == 0
    a.lead(b)
    response = b.wire.answer(syncing)
    assert (response.error_code, response.assignment) == (0, b.id.encode())
    # Asked again, it says the same.
    assert b.sync().assignment == b.id.encode()
    assert (a.heartbeat(), b.heartbeat()) == (0, 0)


def test_a_parked_sync_ends_when_another_joins(lab: Lab, group: tuple[str, int]) -> None:
    a, b = led(lab, group), Member(lab, *group)
    b.send_join()
    assert b.wire.is_silent()
    a.join()
    b.joined()
    syncing = b.wire.send(sync(b.group, b.generation, b.id), 3)
    assert b.wire.is_silent()
    c = Member(lab, *group)
    c.send_join()
    assert b.wire.answer(syncing).error_code == RebalanceInProgressError.errno
    assert a.sync().error_code == RebalanceInProgressError.errno


def test_who_does_not_join_in_time_is_left_out(lab: Lab, group: tuple[str, int]) -> None:
    a = led(lab, group, rebalance_timeout_ms=700)
    b = Member(lab, *group, rebalance_timeout_ms=700)
    response = b.join()
    assert (response.error_code, response.generation_id, response.leader) == (0, 2, b.id)
    assert [member.member_id for member in response.members] == [b.id]
    assert a.heartbeat() == UnknownMemberIdError.errno


def test_the_leader_may_join_again_and_all_must(lab: Lab, group: tuple[str, int]) -> None:
    a, b = pair(lab, group)
    a.send_join()
    assert a.wire.is_silent()
    assert b.heartbeat() == RebalanceInProgressError.errno
    b.join()
    assert a.joined().generation_id == b.generation == 3


def test_another_member_that_joins_again_unchanged_disturbs_nobody(lab: Lab, group: tuple[str, int]) -> None:
    a, b = pair(lab, group)
    response = b.join()
    assert (response.error_code, response.generation_id, response.leader, response.members) == (0, 2, a.id, [])
    assert a.heartbeat() == 0


def test_the_protocol_is_one_that_all_know(lab: Lab, group: tuple[str, int]) -> None:
    a = led(lab, group, protocols=("new", "old"))
    b = Member(lab, *group, protocols=("old",))
    b.send_join()
    assert b.wire.is_silent()
    assert a.join().protocol_name == b.joined().protocol_name == "old"
    for options in ({"protocols": ("other",)}, {"protocol_type": "connect"}, {"protocols": ()}):
        stranger = lab.connect(group[1]).ask(join(group[0], **options), 5)
        assert stranger.error_code == InconsistentGroupProtocolError.errno, options


@pytest.mark.parametrize("timeout_ms", [499, 1_800_001])
def test_a_session_timeout_out_of_bounds_is_refused(lab: Lab, group: tuple[str, int], timeout_ms: int) -> None:
    response = lab.connect(group[1]).ask(join(group[0], session_timeout_ms=timeout_ms), 5)
    assert response.error_code == InvalidSessionTimeoutError.errno


def test_a_group_has_a_name(lab: Lab) -> None:
    assert lab.any.ask(join(""), 5).error_code == InvalidGroupIdError.errno


# -- being a member ----------------------------------------------------------------------------------------------------


def test_only_members_of_this_generation_are_heard(lab: Lab, group: tuple[str, int]) -> None:
    a = led(lab, group)
    wire = a.wire
    for generation, member_id, error in [
        (a.generation + 1, a.id, IllegalGenerationError),
        (a.generation - 1, a.id, IllegalGenerationError),
        (a.generation, "nobody", UnknownMemberIdError),
    ]:
        assert wire.ask(heartbeat(a.group, generation, member_id), 3).error_code == error.errno
        assert wire.ask(sync(a.group, generation, member_id), 3).error_code == error.errno
    assert a.heartbeat() == 0


def test_an_unknown_group_has_no_members(lab: Lab, group: tuple[str, int]) -> None:
    wire = lab.connect(group[1])
    assert wire.ask(heartbeat(group[0], 1, "nobody"), 3).error_code == UnknownMemberIdError.errno
    assert wire.ask(sync(group[0], 1, "nobody"), 3).error_code == UnknownMemberIdError.errno
    assert wire.ask(leave(group[0], "nobody"), 3).members[0].error_code == UnknownMemberIdError.errno


def test_a_silent_member_is_thrown_out_after_its_session_timeout(lab: Lab, group: tuple[str, int]) -> None:
    a, b = pair(lab, group, session_timeout_ms=1_500)
    until(a.heartbeat, lambda code: code == RebalanceInProgressError.errno)
    response = a.join()
    assert [member.member_id for member in response.members] == [a.id]
    assert b.heartbeat() == UnknownMemberIdError.errno


def test_a_parked_join_needs_no_heartbeats(lab: Lab, group: tuple[str, int]) -> None:
    a = led(lab, group)
    b = Member(lab, *group, session_timeout_ms=500)
    b.send_join()
    assert b.wire.is_silent(1.0)
    a.join()
    assert b.joined().error_code == 0


def test_who_leaves_is_missed_at_once(lab: Lab, group: tuple[str, int]) -> None:
    a, b = pair(lab, group)
    assert b.leave() == 0
    assert a.heartbeat() == RebalanceInProgressError.errno
    assert b.heartbeat() == UnknownMemberIdError.errno
    assert b.leave() == UnknownMemberIdError.errno
    response = a.join()
    assert [member.member_id for member in response.members] == [a.id]


def test_a_rebalance_does_not_wait_for_who_leaves(lab: Lab, group: tuple[str, int]) -> None:
    a, b = pair(lab, group)
    c = Member(lab, *group)
    c.send_join()
    a.send_join()
    assert c.wire.is_silent()
    b.leave()
    assert {member.member_id for member in a.joined().members} == {a.id, c.id}
    assert c.joined().error_code == 0


def test_a_member_may_beat_and_commit_while_its_join_is_parked(lab: Lab, group: tuple[str, int]) -> None:
    a, b = pair(lab, group)
    topic, wire = lab.topic(), lab.connect(group[1])
    a.send_join()
    assert a.wire.is_silent()
    beat = heartbeat(a.group, a.generation, a.id)
    assert wire.ask(beat, 3).error_code == RebalanceInProgressError.errno
    request = commit(a.group, (topic, 0), 7, generation=a.generation, member_id=a.id)
    assert wire.ask(request, 7).topics[0].partitions[0].error_code == 0
    b.join()
    a.joined()
    assert wire.ask(beat, 3).error_code == IllegalGenerationError.errno


def test_a_join_that_is_sent_again_takes_the_place_of_the_parked_one(lab: Lab, group: tuple[str, int]) -> None:
    a, b = pair(lab, group)
    lost = lab.connect(group[1])
    lost.send(join(a.group, a.id), 5)
    assert lost.is_silent()
    a.send_join()
    assert a.wire.is_silent()
    b.join()
    assert a.joined().generation_id == b.generation
    assert lost.is_silent()


def test_a_member_whose_connection_ends_stays_until_its_session_does(lab: Lab, group: tuple[str, int]) -> None:
    a = led(lab, group)
    b = Member(lab, *group)
    b.send_join()
    assert b.wire.is_silent()
    b.wire.close()
    a.send_join()
    response = a.joined()
    assert {member.member_id for member in response.members} == {a.id, b.id}
    again = lab.connect(group[1])
    assert again.ask(heartbeat(b.group, response.generation_id, b.id), 3).error_code == 0


def test_a_sync_names_the_protocol_that_was_chosen(lab: Lab, group: tuple[str, int]) -> None:
    a = Member(lab, *group)
    a.join()
    request = sync(a.group, a.generation, a.id, {a.id: b"all"})
    request.protocol_name = "other"
    assert a.wire.ask(request, 5).error_code == InconsistentGroupProtocolError.errno
    assert a.wire.ask(sync(a.group, a.generation, a.id, {a.id: b"all"}), 5).error_code == 0


# -- static members ----------------------------------------------------------------------------------------------------


def test_a_static_member_comes_back_without_a_rebalance(lab: Lab, group: tuple[str, int]) -> None:
    a = led(lab, group)
    b = Member(lab, *group, instance_id="b")
    b.send_join()
    until(a.heartbeat, lambda code: code == RebalanceInProgressError.errno)
    a.join()
    assert b.joined().error_code == 0
    a.lead(b)
    b.sync()
    again = Member(lab, *group, instance_id="b")
    response = again.join()
    assert (response.error_code, response.generation_id, response.leader) == (0, b.generation, a.id)
    assert again.id != b.id
    assert a.heartbeat() == 0
    response = again.wire.ask(sync(again.group, again.generation, again.id, instance_id="b"), 3)
    assert response.assignment == b.id.encode()  # which was made for the old one
    wire = b.wire
    assert (
        wire.ask(heartbeat(b.group, b.generation, b.id, instance_id="b"), 3).error_code == FencedInstanceIdError.errno
    )
    assert wire.ask(join(b.group, b.id, instance_id="b"), 5).error_code == FencedInstanceIdError.errno
    assert wire.ask(leave(b.group, b.id, instance_id="b"), 3).members[0].error_code == FencedInstanceIdError.errno


def test_a_static_member_may_be_removed_by_its_instance(lab: Lab, group: tuple[str, int]) -> None:
    b = Member(lab, *group, instance_id="b")
    assert b.join().error_code == 0
    b.lead()
    response = lab.connect(group[1]).ask(leave(group[0], "", instance_id="b"), 3)
    assert response.members[0].error_code == 0
    assert b.heartbeat() == UnknownMemberIdError.errno


# -- coordinators ------------------------------------------------------------------------------------------------------


def test_all_brokers_name_the_same_coordinator(lab: Lab, group: tuple[str, int]) -> None:
    name, node_id = group
    for each in lab.cluster.node_ids:
        response = lab.broker(each).ask(find_coordinator(name), 3)
        assert (response.error_code, response.node_id) == (0, node_id)
        assert f"{response.host}:{response.port}" == lab.cluster.address_of(node_id)


def test_other_brokers_are_not_the_coordinator(lab: Lab, group: tuple[str, int]) -> None:
    name, node_id = group
    a = led(lab, group)
    wire = lab.broker(lab.other_than(node_id))
    topic = lab.topic()
    code = NotCoordinatorError.errno
    assert wire.ask(join(name), 5).error_code == code
    assert wire.ask(sync(name, a.generation, a.id), 3).error_code == code
    assert wire.ask(heartbeat(name, a.generation, a.id), 3).error_code == code
    assert wire.ask(leave(name, a.id), 3).error_code == code
    assert wire.ask(commit(name, (topic, 0), 1), 7).topics[0].partitions[0].error_code == code
    assert wire.ask(committed(name, [(topic, 0)]), 7).error_code == code
    (described,) = wire.ask(DescribeGroupsRequest(groups=[name]), 3).groups
    assert described.error_code == code


def test_a_group_is_described(lab: Lab, group: tuple[str, int]) -> None:
    name, node_id = group

    def state() -> tuple[str, str, list[str]]:
        (found,) = lab.broker(node_id).ask(DescribeGroupsRequest(groups=[name]), 3).groups
        assert found.error_code == 0
        return found.group_state, found.protocol_type, [member.member_id for member in found.members]

    assert state() == ("Dead", "", [])
    a = led(lab, group)  # it is there for others to see once the assignment is written
    assert state() == ("Stable", "consumer", [a.id])
    b = Member(lab, *group)
    b.send_join()
    until(state, lambda found: (found[0], len(found[2])) == ("PreparingRebalance", 2))
    a.leave()
    b.joined()
    b.leave()
    assert state() == ("Empty", "consumer", [])
