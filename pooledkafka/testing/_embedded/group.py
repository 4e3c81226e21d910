"""A consumer group of the classic protocol, as the requests of its members drive it (GroupMetadataManager)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kafka.errors import (
    BrokerResponseError,
    CoordinatorNotAvailableError,
    FencedInstanceIdError,
    GroupMaxSizeReachedError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    MemberIdRequiredError,
    RebalanceInProgressError,
    UnknownError,
    UnknownMemberIdError,
)

from .group_generations import Generations, GroupState
from .group_member import JoinAnswer, Joining, Member, SyncAnswer
from .group_offsets import GroupOffsets

if TYPE_CHECKING:
    from .state import State

__all__ = ["Group", "commit_group", "group_of"]

_NEW_MEMBER_TIMEOUT_S = 300.0  # how long the join of a new member is parked at most, as Kafka has it


def group_of(state: State, group_id: str) -> Group:
    """The group of this id; made, and empty, where there is none."""
    group = state.groups.get(group_id)
    if group is None:
        group = state.groups[group_id] = Group(state, group_id)
    assert isinstance(group, Group)
    return group


def commit_group(state: State, group_id: str, generation_id: int) -> Group:
    """The group whose offsets are to be committed; one that never had members is made by its first commit.

    Raises IllegalGenerationError for the commit of a member of a group that is not known.
    """
    if generation_id >= 0 and group_id not in state.groups:
        raise IllegalGenerationError(f"there is no group {group_id!r}")
    return group_of(state, group_id)


class Group(Generations):
    """Members and committed offsets of one group.

    Joins and syncs may park: their answers are futures. None as the answer means that there is none, since a later
    request of that member has taken its place.
    """

    def __init__(self, state: State, group_id: str) -> None:
        super().__init__(state, group_id)
        self.offsets = GroupOffsets()

    # -- joining -------------------------------------------------------------------------------------------------------

    def join(self, joining: Joining) -> asyncio.Future[JoinAnswer | None]:
        """Let a member join, or join again; None as the answer: there is none, as a later join took its place."""
        answer: asyncio.Future[JoinAnswer | None] = asyncio.get_running_loop().create_future()
        try:
            self._join(joining, answer)
        except BrokerResponseError as error:
            answer.set_result(JoinAnswer(error.errno, joining.member_id))
        return answer

    def _join(self, joining: Joining, answer: asyncio.Future[JoinAnswer | None]) -> None:
        member_id = joining.member_id
        if not self._has_room(member_id):
            self._remove(member_id)
            answer.set_result(JoinAnswer(GroupMaxSizeReachedError.errno))
            return
        self._check_alive()
        if not self._supports(joining):
            raise InconsistentGroupProtocolError(f"the group has {self.protocol_type!r}, {self.protocol_name!r}")
        if not member_id:
            self._join_unknown(joining, answer)
        elif member_id in self._pending:
            if joining.instance_id is not None:
                raise UnknownError(f"{member_id!r} was no static member when it got its id")
            self._add(joining, member_id, answer)
        else:
            self.check_member(member_id, joining.instance_id)
            self._rejoin(joining, self.members[member_id], answer)

    def _has_room(self, member_id: str) -> bool:
        limit = self._settings.group_max_size
        if self.state is GroupState.PREPARING:
            parked = sum(member.join is not None for member in self.members.values())
            return parked < limit or (member_id in self.members and self.members[member_id].join is not None)
        return self.state in (GroupState.EMPTY, GroupState.DEAD) or (
            member_id in self.members or len(self.members) < limit
        )

    def _supports(self, joining: Joining) -> bool:
        """Whether one of its protocols is one that all members have."""
        if self.state is GroupState.EMPTY:
            return bool(joining.protocol_type and joining.protocols)
        common = self._common_protocols()
        is_one = any(name in common or not self.members for name, _ in joining.protocols)
        return is_one and joining.protocol_type == self.protocol_type

    def _join_unknown(self, joining: Joining, answer: asyncio.Future[JoinAnswer | None]) -> None:
        name = joining.client_id if joining.instance_id is None else joining.instance_id
        member_id = f"{name or ''}-{uuid.uuid4()}"
        if joining.instance_id is not None and joining.instance_id in self._static:
            self._replace_static(joining, self._static[joining.instance_id], member_id, answer)
        elif joining.instance_id is None and joining.must_know_its_id:
            self._pending[member_id] = self._cluster.later(joining.session_timeout_s, self._expired, member_id)
            answer.set_result(JoinAnswer(MemberIdRequiredError.errno, member_id))
        else:
            self._add(joining, member_id, answer)

    def _add(self, joining: Joining, member_id: str, answer: asyncio.Future[JoinAnswer | None]) -> None:
        if self.state is GroupState.PREPARING and self._previous is GroupState.EMPTY:
            self._member_added = True
        if not self.members:
            self.protocol_type = joining.protocol_type
        if joining.instance_id is not None:
            self._static[joining.instance_id] = member_id
        if member_id in self._pending:
            self._pending.pop(member_id).cancel()
        self.leader = self.leader or member_id
        member = self.members[member_id] = Member.of(joining, member_id)
        member.join = answer
        self._expect(member, _NEW_MEMBER_TIMEOUT_S)
        self._rebalance_or_complete()

    def _rejoin(self, joining: Joining, member: Member, answer: asyncio.Future[JoinAnswer | None]) -> None:
        is_same = member.protocols == joining.protocols
        leads = member.member_id == self.leader
        # The leader of a stable group wants an assignment anew, though nothing of it has changed; others, and all in a
        # group that is just being assigned, have missed their answer.
        if is_same and (self.state is GroupState.COMPLETING or (self.state is GroupState.STABLE and not leads)):
            answer.set_result(self._joined(member))
        elif self.state is GroupState.EMPTY:
            raise UnknownMemberIdError("the group is empty")
        else:
            self._update(joining, member, answer)
            self._rebalance_or_complete()

    def _update(self, joining: Joining, member: Member, answer: asyncio.Future[JoinAnswer | None]) -> None:
        member.protocols = joining.protocols
        member.rebalance_timeout_s = joining.rebalance_timeout_s
        member.session_timeout_s = joining.session_timeout_s
        member.answer_join(None)
        member.join = answer

    def _replace_static(
        self, joining: Joining, old_id: str, member_id: str, answer: asyncio.Future[JoinAnswer | None]
    ) -> None:
        """A static member has started anew: it takes the place, and the assignment, of the one it was (KIP-345)."""
        assert joining.instance_id is not None
        leader = self.leader or ""
        old = self.members.pop(old_id)
        old.answer_join(JoinAnswer(FencedInstanceIdError.errno, old_id))
        old.answer_sync(SyncAnswer(FencedInstanceIdError.errno))
        old.cancel_timer()
        member = self.members[member_id] = old.copy(member_id)
        self._static[joining.instance_id] = member_id
        if leader == old_id:
            self.leader = member_id
        self._expect(member)
        self._update(joining, member, answer)
        if self.state is GroupState.COMPLETING:
            self._prepare()  # the leader may have assigned to its old id
        elif self.state is not GroupState.STABLE or self._selected_protocol() != self.protocol_name:
            self._rebalance_or_complete()
        else:
            self._store()
            if joining.may_skip_assignment:
                member.answer_join(self._joined(member, skip_assignment=self.leader == member_id))
            else:  # named a leader that is not it, it makes no assignment, which nobody would be told of
                member.answer_join(
                    JoinAnswer(0, member_id, self.generation_id, self.protocol_type, self.protocol_name, leader)
                )

    # -- syncing -------------------------------------------------------------------------------------------------------

    def sync(
        self,
        member_id: str,
        instance_id: str | None,
        generation_id: int,
        protocol_type: str | None,
        protocol_name: str | None,
        assignments: Mapping[str, bytes],
    ) -> asyncio.Future[SyncAnswer | None]:
        """Ask for the assignment; the leader brings it. None as the answer: there is none, as with joins."""
        answer: asyncio.Future[SyncAnswer | None] = asyncio.get_running_loop().create_future()
        try:
            self._check_generation(member_id, instance_id, generation_id)
            for said, known in ((protocol_type, self.protocol_type), (protocol_name, self.protocol_name)):
                if said is not None and known is not None and said != known:
                    raise InconsistentGroupProtocolError(f"{said!r} is not {known!r}")
            if self.state is GroupState.PREPARING:
                raise RebalanceInProgressError("the members have to join")
        except BrokerResponseError as error:
            answer.set_result(SyncAnswer(error.errno))
            return answer
        self._unsynced.discard(member_id)
        if not self._unsynced:
            self._cancel_sync_timer()
        member = self.members[member_id]
        if self.state is GroupState.STABLE:
            answer.set_result(SyncAnswer(0, self.protocol_type, self.protocol_name, member.assignment))
            return answer
        member.answer_sync(None)
        member.sync = answer
        if member_id == self.leader:
            for each in self.members.values():
                each.assignment = assignments.get(each.member_id, b"")
            self._become(GroupState.STABLE)
            self._store()
            self._answer_syncs(0)
        return answer

    # -- staying and leaving -------------------------------------------------------------------------------------------

    def heartbeat(self, member_id: str, instance_id: str | None, generation_id: int) -> None:
        """A member is alive. Raises RebalanceInProgressError when it has to join, or the error of one that is none."""
        self._check_generation(member_id, instance_id, generation_id)
        self._expect(self.members[member_id])
        if self.state is GroupState.PREPARING:
            raise RebalanceInProgressError("the members have to join")

    def leave(self, leaving: Sequence[tuple[str, str | None]]) -> list[int]:
        """Let members go, by their ids and instance ids, or the latter alone; returns an error code for each."""
        self._check_alive()
        error_codes = []
        for member_id, instance_id in leaving:
            try:
                self._leave(member_id, instance_id)
                error_codes.append(0)
            except BrokerResponseError as error:
                error_codes.append(error.errno)
        if 0 in error_codes:
            if self.state in (GroupState.STABLE, GroupState.COMPLETING):
                self._prepare()
            else:
                self._complete_if_all_joined()
        return error_codes

    def _leave(self, member_id: str, instance_id: str | None) -> None:
        if not member_id:  # an administrator may name the instance alone
            if instance_id not in self._static:
                raise UnknownMemberIdError(f"there is no static member {instance_id!r}")
            member_id = self._static[instance_id]
        elif member_id not in self._pending:
            self.check_member(member_id, instance_id)
        self._remove(member_id)

    # -- checks --------------------------------------------------------------------------------------------------------

    def _check_alive(self) -> None:
        if self.state is GroupState.DEAD:
            raise CoordinatorNotAvailableError(f"group {self.group_id!r} was deleted")

    def check_member(self, member_id: str, instance_id: str | None) -> None:
        """Raise UnknownMemberIdError, or FencedInstanceIdError where another has taken a static member's place."""
        if instance_id is not None:
            if instance_id not in self._static:
                raise UnknownMemberIdError(f"there is no static member {instance_id!r}")
            if self._static[instance_id] != member_id:
                raise FencedInstanceIdError(f"{instance_id!r} is {self._static[instance_id]!r} now, not {member_id!r}")
        if member_id not in self.members:
            raise UnknownMemberIdError(f"there is no member {member_id!r}")

    def _check_generation(self, member_id: str, instance_id: str | None, generation_id: int) -> None:
        self._check_alive()
        self.check_member(member_id, instance_id)
        if generation_id != self.generation_id:
            raise IllegalGenerationError(f"generation {generation_id}; it is {self.generation_id}")

    def check_commit(
        self, generation_id: int, member_id: str, group_instance_id: str | None, transactional: bool = False
    ) -> None:
        """Raise the error of an OffsetCommit, or with ``transactional`` of a TxnOffsetCommit, that is not allowed.

        Who is no member (generation -1) may commit while the group is empty; a transaction always.
        """
        self._check_alive()
        if generation_id < 0 and self.state is GroupState.EMPTY:
            return
        if generation_id >= 0 or member_id or group_instance_id is not None:
            self._check_generation(member_id, group_instance_id, generation_id)
        elif not transactional:
            raise UnknownMemberIdError("the group has members, of which this is none")
        if self.state is GroupState.COMPLETING and not transactional:
            raise RebalanceInProgressError("the assignment has not come yet")

    def committed_by(self, member_id: str) -> None:
        """A commit keeps a member's session alive too."""
        if member_id in self.members and self.state in (GroupState.STABLE, GroupState.PREPARING):
            self._expect(self.members[member_id])
