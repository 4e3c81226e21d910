"""How a consumer group comes from one generation to the next: members, rebalances, timeouts (ClassicGroup)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from kafka.errors import NotCoordinatorError, RebalanceInProgressError, UnknownMemberIdError

from .group_member import JoinAnswer, Member, SyncAnswer, subscribed_topics

if TYPE_CHECKING:
    from .settings import Settings
    from .state import State

__all__ = ["Generations", "GroupState"]


class GroupState(Enum):
    """Its value is the name that DescribeGroups and ListGroups use."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


@dataclass(frozen=True)
class _Stored:
    """What would be in the offsets topic: with this a new coordinator begins."""

    generation_id: int = 0
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader: str | None = None
    topics: frozenset[str] | None = None
    members: tuple[Member, ...] = ()


class Generations:
    """The state machine without the requests that drive it; those are in ``group``."""

    def __init__(self, state: State, group_id: str) -> None:
        self.group_id = group_id
        self.state = GroupState.EMPTY
        self.generation_id = 0
        self.protocol_type: str | None = None
        self.protocol_name: str | None = None
        self.leader: str | None = None
        self.members: dict[str, Member] = {}
        self._cluster = state
        self._coordinator = state.coordinator_of(group_id)
        self._previous = GroupState.EMPTY
        self._topics: frozenset[str] | None = None  # subscribed to by the members, where that can be told
        self._pending: dict[str, asyncio.TimerHandle] = {}  # ids that were given to members that have not joined yet
        self._unsynced: set[str] = set()
        self._static: dict[str, str] = {}  # member ids by instance id
        self._member_added = False  # during the initial delay
        self._join_timer: asyncio.TimerHandle | None = None
        self._sync_timer: asyncio.TimerHandle | None = None
        self._stored = _Stored()

    @property
    def _settings(self) -> Settings:
        return self._cluster.settings.get(self._coordinator, self._cluster.defaults)

    def subscribes_to(self, topic: str) -> bool:
        """Whether members read this topic; True too for consumers of which that cannot be told."""
        if self._topics is None:
            return self.protocol_type == "consumer"
        return topic in self._topics

    # -- rebalancing ---------------------------------------------------------------------------------------------------

    def _rebalance_or_complete(self) -> None:
        if self.state in (GroupState.EMPTY, GroupState.COMPLETING, GroupState.STABLE):
            self._prepare()
        else:
            self._complete_if_all_joined()

    def _complete_if_all_joined(self) -> None:
        """Not in the initial delay: that is over when it is over."""
        if self._previous is not GroupState.EMPTY and self._all_joined():
            self._complete()

    def _all_joined(self) -> bool:
        return (
            self.state is GroupState.PREPARING
            and not self._pending
            and all(member.join is not None for member in self.members.values())
        )

    def _prepare(self) -> None:
        """Begin a rebalance: all members have to join."""
        if self.state is GroupState.COMPLETING:
            for member in self.members.values():
                member.assignment = b""
            self._answer_syncs(RebalanceInProgressError.errno)
        self._unsynced.clear()
        self._cancel_sync_timer()
        is_initial = self.state is GroupState.EMPTY
        self._become(GroupState.PREPARING)
        if is_initial:
            self._member_added = False
            delay_s = self._settings.group_initial_rebalance_delay_ms / 1000
            self._complete_after(delay_s, max(0.0, self._rebalance_timeout_s - delay_s))
        elif self._all_joined():
            self._complete()
        else:
            self._start_join_timer(self._rebalance_timeout_s)

    def _complete_after(self, delay_s: float, left_s: float) -> None:
        """The first members of an empty group are given time for others to join; each one that does prolongs it."""

        def over() -> None:
            if self._member_added and left_s:
                self._member_added = False
                self._complete_after(min(delay_s, left_s), max(0.0, left_s - delay_s))
            else:
                self._complete()

        self._cancel_join_timer()
        self._join_timer = self._cluster.later(delay_s, over)

    def _complete(self) -> None:
        """Begin the next generation, with the members that have joined and the static ones that have not yet."""
        self._cancel_join_timer()
        for member in list(self.members.values()):
            if member.join is None and member.instance_id is None:
                self._remove(member.member_id)
        if self.members and not self._elect():
            self._start_join_timer(self._rebalance_timeout_s)
            return
        self.generation_id += 1
        self.protocol_name = self._selected_protocol() if self.members else None
        is_consumers = self.protocol_type == "consumer"
        self._topics = subscribed_topics(self.members.values(), self.protocol_name or "") if is_consumers else None
        if not self.members:
            self._become(GroupState.EMPTY)
            self._store()
            return
        self._become(GroupState.COMPLETING)
        self._unsynced = set(self.members)
        for member in self.members.values():
            member.answer_join(self._joined(member))
            member.is_new = False
            self._expect(member)
        self._sync_timer = self._cluster.later(self._rebalance_timeout_s, self._syncs_are_late)

    def _elect(self) -> bool:
        """See that the leader is one who has joined; False: nobody has."""
        joined = [member.member_id for member in self.members.values() if member.join is not None]
        if joined and self.leader not in joined:
            self.leader = joined[0]
        return bool(joined)

    def _common_protocols(self) -> list[str]:
        """What all members support."""
        counts = Counter(name for member in self.members.values() for name, _ in member.protocols)
        return [name for name, count in counts.items() if count == len(self.members)]

    def _selected_protocol(self) -> str:
        """What most members prefer among what all support."""
        candidates = self._common_protocols()
        votes = Counter(member.vote(candidates) for member in self.members.values())
        return votes.most_common(1)[0][0]

    def _joined(self, member: Member, skip_assignment: bool = False) -> JoinAnswer:
        members: Iterable[Member] = self.members.values() if member.member_id == self.leader else ()
        return JoinAnswer(
            0,
            member.member_id,
            self.generation_id,
            self.protocol_type,
            self.protocol_name,
            self.leader or "",
            skip_assignment,
            tuple((each.member_id, each.instance_id, each.metadata(self.protocol_name)) for each in members),
        )

    def _answer_syncs(self, error_code: int) -> None:
        for member in self.members.values():
            if error_code:
                answer = SyncAnswer(error_code)
            else:
                answer = SyncAnswer(0, self.protocol_type, self.protocol_name, member.assignment)
            if member.answer_sync(answer):
                self._expect(member)

    def _become(self, state: GroupState) -> None:
        self._previous, self.state = self.state, state

    # -- timeouts ------------------------------------------------------------------------------------------------------

    @property
    def _rebalance_timeout_s(self) -> float:
        return max((member.rebalance_timeout_s for member in self.members.values()), default=0.0)

    def _expect(self, member: Member, within_s: float | None = None) -> None:
        """Let a member's session time out unless it says something before."""
        member.cancel_timer()
        member.timer = self._cluster.later(
            member.session_timeout_s if within_s is None else within_s, self._expired, member.member_id
        )

    def _expired(self, member_id: str) -> None:
        member = self.members.get(member_id)
        if member is not None and member.is_excused:
            return  # it is expected anew when it is answered
        self._remove(member_id)
        if member is not None and self.state in (GroupState.STABLE, GroupState.COMPLETING):
            self._prepare()
        elif self._all_joined():
            self._complete()

    def _syncs_are_late(self) -> None:
        """Members that have joined but do not sync in the rebalance timeout leave the group."""
        if self._unsynced and self.state in (GroupState.COMPLETING, GroupState.STABLE):
            for member_id in list(self._unsynced):
                self._remove(member_id)
            self._prepare()

    def _remove(self, member_id: str) -> None:
        """Take a member out, known or pending; a join of it that is parked is answered, so that it may come back."""
        if member_id in self._pending:
            self._pending.pop(member_id).cancel()
        self._unsynced.discard(member_id)
        member = self.members.pop(member_id, None)
        if member is None:
            return
        member.cancel_timer()
        member.answer_join(JoinAnswer(UnknownMemberIdError.errno))
        member.answer_sync(None)
        if member.instance_id is not None:
            self._static.pop(member.instance_id, None)
        if self.leader == member_id:
            self.leader = next(iter(self.members), None)

    def _start_join_timer(self, delay_s: float) -> None:
        self._cancel_join_timer()
        self._join_timer = self._cluster.later(delay_s, self._complete)

    def _cancel_join_timer(self) -> None:
        if self._join_timer is not None:
            self._join_timer.cancel()
            self._join_timer = None

    def _cancel_sync_timer(self) -> None:
        if self._sync_timer is not None:
            self._sync_timer.cancel()
            self._sync_timer = None

    def _cancel_timers(self) -> None:
        for member in self.members.values():
            member.cancel_timer()
        for timer in self._pending.values():
            timer.cancel()
        self._pending.clear()
        self._cancel_join_timer()
        self._cancel_sync_timer()

    # -- its end and its coordinators ----------------------------------------------------------------------------------

    def delete(self) -> None:
        """End it; only an empty group may be."""
        self._cancel_timers()
        self._become(GroupState.DEAD)

    def follow_coordinator(self) -> None:
        """Begin anew with what is stored, where another broker coordinates now; who is parked is told."""
        coordinator = self._cluster.coordinator_of(self.group_id)
        if coordinator == self._coordinator:
            return
        self._coordinator = coordinator
        for member in self.members.values():
            member.answer_join(JoinAnswer(NotCoordinatorError.errno, member.member_id))
            member.answer_sync(SyncAnswer(NotCoordinatorError.errno))
        self._cancel_timers()
        stored = self._stored
        self.generation_id, self.leader, self._topics = stored.generation_id, stored.leader, stored.topics
        self.protocol_type, self.protocol_name = stored.protocol_type, stored.protocol_name
        self.members = {member.member_id: member.copy() for member in stored.members}
        self._static = {each.instance_id: each.member_id for each in stored.members if each.instance_id is not None}
        self._unsynced.clear()
        self._previous = self.state = GroupState.STABLE if self.members else GroupState.EMPTY
        for member in self.members.values():
            self._expect(member)
        if len(self.members) > self._settings.group_max_size:
            self._prepare()

    def _store(self) -> None:
        self._stored = _Stored(
            self.generation_id,
            self.protocol_type,
            self.protocol_name,
            self.leader,
            self._topics,
            tuple(member.copy() for member in self.members.values()),
        )
