"""One member of a group: what it said when it joined, and which of its requests are parked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription

__all__ = ["JoinAnswer", "Joining", "Member", "SyncAnswer", "subscribed_topics"]


@dataclass(frozen=True)
class Joining:
    """What a JoinGroup request says."""

    member_id: str
    """Empty for one that has none yet."""
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    """Names and metadata, the most preferred first."""
    session_timeout_s: float
    rebalance_timeout_s: float
    instance_id: str | None = None
    client_id: str | None = None
    client_host: str = "/127.0.0.1"
    must_know_its_id: bool = True
    """A new member is told its id and has to join again with it (KIP-394)."""
    may_skip_assignment: bool = False
    """It understands that it leads but that the assignment stands (KIP-814)."""


@dataclass(frozen=True)
class JoinAnswer:
    """What a JoinGroup response says; ``members`` are ids, instance ids and metadata, for the leader alone."""

    error_code: int = 0
    member_id: str = ""
    generation_id: int = -1
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader: str = ""
    skip_assignment: bool = False
    members: tuple[tuple[str, str | None, bytes], ...] = ()


@dataclass(frozen=True)
class SyncAnswer:
    """What a SyncGroup response says."""

    error_code: int = 0
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignment: bytes = b""


@dataclass
class Member:
    """A member as the coordinator knows it (ClassicGroupMember)."""

    member_id: str
    instance_id: str | None
    client_id: str | None
    client_host: str
    session_timeout_s: float
    rebalance_timeout_s: float
    protocols: tuple[tuple[str, bytes], ...]
    assignment: bytes = b""
    is_new: bool = False
    """It has not been told yet that it is a member, so it sends no heartbeats."""
    join: asyncio.Future[JoinAnswer | None] | None = field(default=None, repr=False)
    sync: asyncio.Future[SyncAnswer | None] | None = field(default=None, repr=False)
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    @classmethod
    def of(cls, joining: Joining, member_id: str) -> Member:
        """A new member with the id that it was given."""
        return cls(
            member_id,
            joining.instance_id,
            joining.client_id,
            joining.client_host,
            joining.session_timeout_s,
            joining.rebalance_timeout_s,
            joining.protocols,
            is_new=True,
        )

    def copy(self, member_id: str | None = None) -> Member:
        """The same member without its parked requests and its timer."""
        return replace(self, member_id=member_id or self.member_id, join=None, sync=None, timer=None)

    def metadata(self, protocol_name: str | None) -> bytes:
        """What it said with a protocol that it supports."""
        return dict(self.protocols)[protocol_name or ""]

    def vote(self, candidates: Iterable[str]) -> str:
        """The candidate that it prefers."""
        return next(name for name, _ in self.protocols if name in candidates)

    @property
    def is_excused(self) -> bool:
        """Whether it need send no heartbeats, since one of its requests is parked.

        Not if it is new: its client may be gone, which nobody notices while a join is parked.
        """
        return not self.is_new and (self.join is not None or self.sync is not None)

    def answer_join(self, answer: JoinAnswer | None) -> None:
        """Answer its parked join, if there is one; None: never, since a later one of it has taken its place."""
        future, self.join = self.join, None
        if future is not None and not future.done():  # done: cancelled with its connection
            future.set_result(answer)

    def answer_sync(self, answer: SyncAnswer | None) -> bool:
        """Answer its parked sync, if there is one; returns whether there was."""
        future, self.sync = self.sync, None
        if future is not None and not future.done():
            future.set_result(answer)
        return future is not None

    def cancel_timer(self) -> None:
        """Expect nothing more of it."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def subscribed_topics(members: Iterable[Member], protocol_name: str) -> frozenset[str] | None:
    """The topics of all members of a group of consumers; None where their metadata cannot be read."""
    topics: set[str] = set()
    for member in members:
        try:
            topics.update(ConsumerProtocolSubscription.decode(member.metadata(protocol_name)).topics)
        except Exception:  # whatever the decoder says of bytes that are no subscription
            return None
    return frozenset(topics)
