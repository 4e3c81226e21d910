"""The state machine of a consumer group, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from kafka.errors import (
    BrokerResponseError,
    FencedInstanceIdError,
    GroupMaxSizeReachedError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    MemberIdRequiredError,
    NotCoordinatorError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from pooledkafka.testing._embedded.group import Group, commit_group, group_of
from pooledkafka.testing._embedded.group_generations import GroupState
from pooledkafka.testing._embedded.group_member import JoinAnswer, Joining, SyncAnswer
from pooledkafka.testing._embedded.settings import Settings
from pooledkafka.testing._embedded.state import State
from tests.testing._embedded.virtual_time import run

RANGE = (("range", b"topics"),)
Test = Callable[[Group], Coroutine[Any, Any, None]]


def in_group(test: Test, **settings: Any) -> None:
    """Run a test on an empty group."""

    async def main() -> None:
        await test(group_of(State({1: Settings(**settings), 2: Settings(**settings)}), "g"))

    run(main())


def joining(member_id: str = "", **options: Any) -> Joining:
    defaults: dict[str, Any] = {
        "protocol_type": "consumer",
        "protocols": RANGE,
        "session_timeout_s": 10.0,
        "rebalance_timeout_s": 60.0,
        "client_id": "client",
        "must_know_its_id": False,
    }
    return Joining(member_id, **{**defaults, **options})


async def joined(group: Group, member_id: str = "", **options: Any) -> JoinAnswer:
    answer = await group.join(joining(member_id, **options))
    assert answer is not None
    return answer


def syncing(group: Group, member: JoinAnswer, **assignments: bytes) -> asyncio.Future[SyncAnswer | None]:
    by_id = {group_member_id: assignments.get("all", b"") for group_member_id, _, _ in member.members}
    return group.sync(member.member_id, None, member.generation_id, "consumer", "range", by_id)


async def stable(group: Group, count: int = 2, **options: Any) -> list[JoinAnswer]:
    """Let some dynamic members join at once, and sync; the leader is the first."""
    joins = [group.join(joining(**options)) for _ in range(count)]
    answers = [answer for answer in await asyncio.gather(*joins) if answer is not None]
    assert len(answers) == count
    answers.sort(key=lambda answer: answer.member_id != answer.leader)
    syncs = [syncing(group, answer, all=b"yours") for answer in reversed(answers)]
    assert {answer.assignment for answer in await asyncio.gather(*syncs) if answer} == {b"yours"}
    assert state_of(group) is GroupState.STABLE
    return answers


def state_of(group: Group) -> GroupState:
    return group.state


def error_of(call: Callable[..., Any], *arguments: Any) -> Any:
    """The class of what a call raises; None: nothing."""
    try:
        call(*arguments)
    except BrokerResponseError as error:
        return type(error)
    return None


# -- joining and syncing -----------------------------------------------------------------------------------------------


def test_members_that_join_at_once_are_one_generation() -> None:
    async def test(group: Group) -> None:
        first, second = group.join(joining()), group.join(joining())
        assert not first.done()
        assert state_of(group) is GroupState.PREPARING
        leader, follower = await first, await second
        assert leader is not None
        assert follower is not None
        assert leader.generation_id == follower.generation_id == 1
        assert leader.leader == follower.leader == leader.member_id
        assert [member_id for member_id, _, _ in leader.members] == [leader.member_id, follower.member_id]
        assert follower.members == ()
        assert leader.protocol_name == "range"
        assert state_of(group) is GroupState.COMPLETING

        waiting = syncing(group, follower)
        await asyncio.sleep(1)
        assert not waiting.done()
        by_id = {leader.member_id: b"a", follower.member_id: b"b"}
        assert await group.sync(leader.member_id, None, 1, "consumer", "range", by_id) == SyncAnswer(
            0, "consumer", "range", b"a"
        )
        assert await waiting == SyncAnswer(0, "consumer", "range", b"b")
        assert state_of(group) is GroupState.STABLE

    in_group(test)


def test_the_first_members_wait_for_others() -> None:
    async def test(group: Group) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        joins = [group.join(joining())]
        for _ in range(2):  # each of them prolongs it, but by no more than what is left of the rebalance timeout
            await asyncio.sleep(2)
            joins.append(group.join(joining()))
        answers = await asyncio.gather(*joins)
        assert loop.time() - began == pytest.approx(9)
        assert {answer.generation_id for answer in answers if answer} == {1}

    in_group(test, group_initial_rebalance_delay_ms=3_000)


def test_the_initial_delay_ends_with_the_rebalance_timeout() -> None:
    async def test(group: Group) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        first = group.join(joining(rebalance_timeout_s=4.0))
        await asyncio.sleep(1)
        second = group.join(joining(rebalance_timeout_s=4.0))
        await asyncio.gather(first, second)
        assert loop.time() - began == pytest.approx(4)

    in_group(test, group_initial_rebalance_delay_ms=3_000)


def test_a_join_parks_until_all_members_have_joined() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group)
        third = group.join(joining())
        assert error_of(group.heartbeat, leader.member_id, None, 1) is RebalanceInProgressError
        again = group.join(joining(follower.member_id))
        await asyncio.sleep(1)
        assert not third.done()
        assert not again.done()
        last = await joined(group, leader.member_id)
        assert last.generation_id == 2
        assert len(last.members) == 3
        assert third.done()
        assert again.done()

    in_group(test)


def test_members_that_do_not_join_in_the_rebalance_timeout_are_out() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group, session_timeout_s=100.0)
        began = asyncio.get_running_loop().time()
        answer = await joined(group, session_timeout_s=100.0)
        assert asyncio.get_running_loop().time() - began == pytest.approx(60)
        assert list(group.members) == [answer.member_id]
        assert answer.leader == answer.member_id
        for gone in (leader, follower):
            assert error_of(group.heartbeat, gone.member_id, None, 2) is UnknownMemberIdError

    in_group(test)


def test_members_that_do_not_sync_in_the_rebalance_timeout_are_out() -> None:
    async def test(group: Group) -> None:
        first, second = await asyncio.gather(
            *(group.join(joining(session_timeout_s=100.0, rebalance_timeout_s=60.0)) for _ in range(2))
        )
        assert first is not None
        assert second is not None
        waiting = syncing(group, second)
        answer = await waiting
        assert answer is not None
        assert answer.error_code == RebalanceInProgressError.errno  # since the leader never brought the assignment
        assert list(group.members) == [second.member_id]
        assert (await joined(group, second.member_id)).leader == second.member_id

    in_group(test)


def test_the_protocol_that_most_prefer_among_the_common_ones_is_chosen() -> None:
    async def test(group: Group) -> None:
        a, b, c = ("a", b"1"), ("b", b"2"), ("c", b"3")
        answers = await asyncio.gather(
            *(group.join(joining(protocols=each)) for each in ((c, a, b), (b, a), (b, a, c)))
        )
        assert {answer.protocol_name for answer in answers if answer} == {"b"}
        assert answers[0] is not None
        assert {metadata for _, _, metadata in answers[0].members} == {b"2"}
        for other in (joining(protocols=(c,)), joining(protocol_type="connect"), joining(protocols=())):
            refused = await group.join(other)
            assert refused is not None
            assert refused.error_code == InconsistentGroupProtocolError.errno

    in_group(test)


def test_an_empty_group_wants_a_protocol() -> None:
    async def test(group: Group) -> None:
        for options in ({"protocol_type": ""}, {"protocols": ()}):
            assert (await joined(group, **options)).error_code == InconsistentGroupProtocolError.errno

    in_group(test)


def test_a_member_that_joins_again_with_nothing_new_is_told_what_it_missed() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group)
        assert await joined(group, follower.member_id) == follower
        assert state_of(group) is GroupState.STABLE
        rebalancing = group.join(joining(leader.member_id))  # the leader wants an assignment anew
        assert state_of(group) is GroupState.PREPARING
        await joined(group, follower.member_id)
        answer = await rebalancing
        assert answer is not None
        assert answer.generation_id == 2
        assert await joined(group, leader.member_id) == answer  # once more, before it has synced

    in_group(test)


def test_new_metadata_of_a_follower_is_a_rebalance() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group)
        other = group.join(joining(follower.member_id, protocols=(("range", b"other topics"),)))
        answer = await joined(group, leader.member_id)
        assert {member_id: metadata for member_id, _, metadata in answer.members} == {
            leader.member_id: b"topics",
            follower.member_id: b"other topics",
        }
        assert other.done()

    in_group(test)


def test_a_rebalance_ends_the_syncs_that_are_parked() -> None:
    async def test(group: Group) -> None:
        _, second = await asyncio.gather(group.join(joining()), group.join(joining()))
        assert second is not None
        waiting = syncing(group, second)
        group.join(joining())
        assert await waiting == SyncAnswer(RebalanceInProgressError.errno)
        assert await syncing(group, second) == SyncAnswer(RebalanceInProgressError.errno)

    in_group(test)


def test_a_sync_must_be_of_this_generation_and_protocol() -> None:
    async def test(group: Group) -> None:
        leader, _ = await stable(group)

        async def error(generation_id: int = 1, kind: str | None = "consumer", name: str | None = "range") -> int:
            answer = await group.sync(leader.member_id, None, generation_id, kind, name, {})
            assert answer is not None
            return answer.error_code

        assert await error() == 0
        assert await error(kind=None, name=None) == 0
        assert await error(generation_id=2) == IllegalGenerationError.errno
        assert await error(kind="connect") == InconsistentGroupProtocolError.errno
        assert await error(name="sticky") == InconsistentGroupProtocolError.errno

    in_group(test)


def test_a_join_takes_the_place_of_an_earlier_one_of_the_member() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group)
        first = group.join(joining(follower.member_id, protocols=(("range", b"new"),)))
        second = group.join(joining(follower.member_id, protocols=(("range", b"new"),)))
        assert await first is None
        assert not second.done()
        await joined(group, leader.member_id)
        assert second.done()

    in_group(test)


def test_a_cancelled_join_leaves_the_member_where_it_is() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group)
        third = group.join(joining())
        third.cancel()
        group.join(joining(follower.member_id))
        answer = await joined(group, leader.member_id)
        assert len(answer.members) == 3

    in_group(test)


# -- ids, sessions and leaving -----------------------------------------------------------------------------------------


def test_a_new_member_is_told_its_id_first() -> None:
    async def test(group: Group) -> None:
        told = await joined(group, must_know_its_id=True)
        assert told.error_code == MemberIdRequiredError.errno
        assert told.member_id.startswith("client-")
        assert state_of(group) is GroupState.EMPTY
        answer = await joined(group, told.member_id, must_know_its_id=True)
        assert (answer.error_code, answer.member_id) == (0, told.member_id)
        assert (await joined(group, "invented")).error_code == UnknownMemberIdError.errno

    in_group(test)


def test_a_rebalance_waits_for_who_was_told_its_id_but_no_longer_than_its_session() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group)
        await joined(group, must_know_its_id=True)
        assert state_of(group) is GroupState.STABLE  # nobody is disturbed by an id alone
        began = asyncio.get_running_loop().time()
        group.join(joining(leader.member_id))
        answer = await joined(group, follower.member_id)
        assert asyncio.get_running_loop().time() - began == pytest.approx(10)
        assert answer.generation_id == 2

    in_group(test)


def test_an_id_that_is_never_used_ends_without_a_rebalance() -> None:
    async def test(group: Group) -> None:
        (leader,) = await stable(group, 1, session_timeout_s=100.0)
        told = await joined(group, must_know_its_id=True)
        await asyncio.sleep(20)
        assert state_of(group) is GroupState.STABLE
        assert (await joined(group, told.member_id)).error_code == UnknownMemberIdError.errno
        group.heartbeat(leader.member_id, None, 1)

    in_group(test)


def test_a_silent_member_is_out_after_its_session() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group)
        for _ in range(3):
            await asyncio.sleep(6)
            error_of(group.heartbeat, follower.member_id, None, 1)
        assert list(group.members) == [follower.member_id]
        assert error_of(group.heartbeat, follower.member_id, None, 1) is RebalanceInProgressError
        assert error_of(group.heartbeat, leader.member_id, None, 1) is UnknownMemberIdError
        answer = await joined(group, follower.member_id)
        assert (answer.generation_id, answer.leader) == (2, follower.member_id)

    in_group(test)


def test_a_group_whose_members_all_fall_silent_is_empty() -> None:
    async def test(group: Group) -> None:
        await stable(group)
        await asyncio.sleep(11)
        assert state_of(group) is GroupState.EMPTY
        assert group.generation_id == 2
        assert (await joined(group)).generation_id == 3

    in_group(test)


def test_a_parked_join_of_a_known_member_needs_no_heartbeats_but_that_of_a_new_one_ends() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group, rebalance_timeout_s=1_000.0)
        new = group.join(joining(rebalance_timeout_s=1_000.0))
        known = group.join(joining(follower.member_id, rebalance_timeout_s=1_000.0))
        for _ in range(60):
            assert error_of(group.heartbeat, leader.member_id, None, 1) is RebalanceInProgressError
            await asyncio.sleep(5.1)
        assert await new == JoinAnswer(UnknownMemberIdError.errno)
        assert not known.done()
        assert list(group.members) == [leader.member_id, follower.member_id]

    in_group(test)


def test_leaving_is_a_rebalance_at_once() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group)
        assert group.leave([(leader.member_id, None), ("unknown", None)]) == [0, UnknownMemberIdError.errno]
        assert error_of(group.heartbeat, follower.member_id, None, 1) is RebalanceInProgressError
        assert (await joined(group, follower.member_id)).leader == follower.member_id
        assert group.leave([(follower.member_id, None)]) == [0]
        assert state_of(group) is GroupState.EMPTY
        assert group.leave([(follower.member_id, None)]) == [UnknownMemberIdError.errno]

    in_group(test)


def test_who_leaves_while_its_join_is_parked_is_answered() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group)
        parked = group.join(joining(follower.member_id, protocols=(("range", b"new"),)))
        group.leave([(follower.member_id, None)])
        assert await parked == JoinAnswer(UnknownMemberIdError.errno)
        assert (await joined(group, leader.member_id)).generation_id == 2

    in_group(test)


def test_a_group_takes_no_more_members_than_its_size() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group)
        assert await joined(group) == JoinAnswer(GroupMaxSizeReachedError.errno)
        assert await joined(group, follower.member_id) == follower
        group.leave([(follower.member_id, None)])
        third = group.join(joining())
        fourth = group.join(joining())
        assert await joined(group, leader.member_id) == JoinAnswer(GroupMaxSizeReachedError.errno)
        answers = await asyncio.gather(third, fourth)
        assert [answer.error_code for answer in answers if answer] == [0, 0]

    in_group(test, group_max_size=2)


# -- static members ----------------------------------------------------------------------------------------------------


async def static(group: Group, **options: Any) -> tuple[JoinAnswer, JoinAnswer]:
    """A stable group of a dynamic leader and a static member, "i"."""
    (leader,) = await stable(group, 1)
    member = group.join(joining(instance_id="i", **options))
    leader = await joined(group, leader.member_id)
    answer = await member
    assert answer is not None
    waiting = group.sync(answer.member_id, "i", 2, "consumer", "range", {})
    await group.sync(leader.member_id, None, 2, "consumer", "range", {answer.member_id: b"mine"})
    assert await waiting == SyncAnswer(0, "consumer", "range", b"mine")
    return leader, answer


def test_a_static_member_that_starts_anew_keeps_its_assignment_and_fences_the_old_one() -> None:
    async def test(group: Group) -> None:
        leader, old = await static(group)
        assert old.member_id.startswith("i-")
        new = await joined(group, instance_id="i", must_know_its_id=True)
        assert (new.error_code, new.generation_id, new.leader) == (0, 2, leader.member_id)
        assert new.member_id != old.member_id
        assert state_of(group) is GroupState.STABLE
        answer = await group.sync(new.member_id, "i", 2, "consumer", "range", {})
        assert answer is not None
        assert answer.assignment == b"mine"
        assert error_of(group.heartbeat, old.member_id, "i", 2) is FencedInstanceIdError
        assert (await joined(group, old.member_id, instance_id="i")).error_code == FencedInstanceIdError.errno
        assert error_of(group.check_commit, 2, old.member_id, "i") is FencedInstanceIdError
        assert error_of(group.heartbeat, old.member_id, None, 2) is UnknownMemberIdError
        assert group.leave([(old.member_id, "i")]) == [FencedInstanceIdError.errno]
        group.heartbeat(leader.member_id, None, 2)

    in_group(test)


def test_a_static_leader_that_starts_anew_makes_no_assignment() -> None:
    async def test(group: Group) -> None:
        old = await joined(group, instance_id="i")
        await group.sync(old.member_id, "i", 1, "consumer", "range", {old.member_id: b"mine"})
        told = await joined(group, instance_id="i")
        assert told.leader == old.member_id  # so it does not take itself for the leader
        assert told.members == ()
        skipping = await joined(group, instance_id="i", may_skip_assignment=True)
        assert skipping.leader == skipping.member_id
        assert skipping.skip_assignment
        assert [member_id for member_id, _, _ in skipping.members] == [skipping.member_id]

    in_group(test)


def test_a_static_member_that_starts_anew_with_another_protocol_is_a_rebalance() -> None:
    async def test(group: Group) -> None:
        old = await joined(group, instance_id="i", protocols=(("a", b""), ("b", b"")))
        await group.sync(old.member_id, "i", 1, "consumer", "a", {})
        answer = await joined(group, instance_id="i", protocols=(("b", b""), ("a", b"")))
        assert (answer.generation_id, answer.protocol_name) == (2, "b")

    in_group(test)


def test_a_second_instance_ends_the_parked_requests_of_the_first() -> None:
    async def test(group: Group) -> None:
        leader, old = await static(group)
        parked = group.join(joining(old.member_id, instance_id="i", protocols=(("range", b"new"),)))
        second = group.join(joining(instance_id="i"))
        assert await parked == JoinAnswer(FencedInstanceIdError.errno, old.member_id)
        assert (await joined(group, leader.member_id)).generation_id == 3
        answer = await second
        assert answer is not None
        waiting = group.sync(answer.member_id, "i", 3, "consumer", "range", {})
        third = group.join(joining(instance_id="i"))
        assert await waiting == SyncAnswer(FencedInstanceIdError.errno)
        assert state_of(group) is GroupState.PREPARING  # the leader may just be assigning to the second one
        await joined(group, leader.member_id)
        assert third.done()

    in_group(test)


def test_a_static_member_that_is_away_stays_until_its_session_ends() -> None:
    async def test(group: Group) -> None:
        leader, old = await static(group, session_timeout_s=100.0)
        group.leave([(leader.member_id, None)])
        assert state_of(group) is GroupState.PREPARING
        await asyncio.sleep(70)  # longer than the rebalance timeout
        assert list(group.members) == [old.member_id]
        new = await joined(group, instance_id="i")
        assert new.leader == new.member_id

    in_group(test)


def test_an_administrator_removes_a_static_member_by_its_instance_alone() -> None:
    async def test(group: Group) -> None:
        leader, old = await static(group)
        assert group.leave([("", "i"), ("", "i"), ("", None)]) == [0, *[UnknownMemberIdError.errno] * 2]
        assert list(group.members) == [leader.member_id]
        assert (await joined(group, old.member_id, instance_id="i")).error_code == UnknownMemberIdError.errno

    in_group(test)


# -- commits -----------------------------------------------------------------------------------------------------------


def test_who_may_commit() -> None:
    async def test(group: Group) -> None:
        assert error_of(group.check_commit, -1, "", None) is None
        assert error_of(group.check_commit, 0, "m", None) is UnknownMemberIdError
        first, second = await asyncio.gather(group.join(joining()), group.join(joining()))
        assert first is not None
        assert second is not None
        assert error_of(group.check_commit, 1, first.member_id, None) is RebalanceInProgressError
        assert error_of(group.check_commit, 1, first.member_id, None, True) is None  # a transaction's may come
        await syncing(group, first)
        assert error_of(group.check_commit, 1, first.member_id, None) is None
        assert error_of(group.check_commit, 0, first.member_id, None) is IllegalGenerationError
        assert error_of(group.check_commit, 1, "other", None) is UnknownMemberIdError
        assert error_of(group.check_commit, -1, "", None) is UnknownMemberIdError
        assert error_of(group.check_commit, -1, "", None, True) is None  # of a producer that names no group metadata
        group.join(joining())
        assert error_of(group.check_commit, 1, first.member_id, None) is None  # what was consumed before the rebalance

    in_group(test)


def test_the_first_commit_makes_a_group_but_not_that_of_a_member() -> None:
    async def main() -> None:
        state = State({1: Settings()})
        with pytest.raises(IllegalGenerationError):
            commit_group(state, "g", 3)
        assert "g" not in state.groups
        assert commit_group(state, "g", -1) is state.groups["g"]

    run(main())


def test_a_commit_keeps_the_session_alive() -> None:
    async def test(group: Group) -> None:
        (member,) = await stable(group, 1)
        for _ in range(4):
            await asyncio.sleep(6)
            group.committed_by(member.member_id)
        assert list(group.members) == [member.member_id]

    in_group(test)


# -- coordinators ------------------------------------------------------------------------------------------------------


def move(group: Group) -> None:
    state = group._cluster
    state.move_coordinator("g", 3 - state.coordinator_of("g"))


def test_another_coordinator_knows_the_members_that_have_synced() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group)
        await asyncio.sleep(9)
        move(group)
        await asyncio.sleep(9)  # their sessions began anew
        for member in (leader, follower):
            group.heartbeat(member.member_id, None, 1)
        answer = await syncing(group, follower)
        assert answer is not None
        assert answer.assignment == b"yours"
        await asyncio.sleep(11)
        assert state_of(group) is GroupState.EMPTY

    in_group(test)


def test_who_is_parked_is_told_that_the_coordinator_has_moved() -> None:
    async def test(group: Group) -> None:
        leader, follower = await stable(group)
        new = group.join(joining())
        known = group.join(joining(follower.member_id))
        move(group)
        for parked in (new, known):
            answer = await parked
            assert answer is not None
            assert answer.error_code == NotCoordinatorError.errno
        group.heartbeat(leader.member_id, None, 1)  # of the rebalance that had begun the new coordinator knows nothing
        assert list(group.members) == [leader.member_id, follower.member_id]

    in_group(test)


def test_a_parked_sync_is_told_too_and_what_was_not_stored_is_lost() -> None:
    async def test(group: Group) -> None:
        _, second = await asyncio.gather(group.join(joining()), group.join(joining()))
        assert second is not None
        waiting = syncing(group, second)
        move(group)
        assert await waiting == SyncAnswer(NotCoordinatorError.errno)
        assert (state_of(group), group.generation_id, group.members) == (GroupState.EMPTY, 0, {})
        assert error_of(group.heartbeat, second.member_id, None, 1) is UnknownMemberIdError

    in_group(test)


def test_a_move_of_other_coordinators_disturbs_nobody() -> None:
    async def test(group: Group) -> None:
        await stable(group)
        parked = group.join(joining())
        state = group._cluster
        state.move_coordinator("g", state.coordinator_of("g"))
        state.set_available(3 - state.coordinator_of("g"), False)
        assert not parked.done()
        assert state_of(group) is GroupState.PREPARING

    in_group(test)


def test_offsets_outlive_the_move() -> None:
    async def test(group: Group) -> None:
        offsets = group.offsets
        group._cluster.set_available(group._cluster.coordinator_of("g"), False)
        assert group_of(group._cluster, "g").offsets is offsets

    in_group(test)
