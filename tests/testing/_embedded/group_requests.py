"""The requests of a group's members, as they go over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka.protocol.consumer import (
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    SyncGroupRequest,
)

from tests.testing._embedded.wire import Wire

__all__ = ["commit", "committed", "heartbeat", "join", "join_as_new", "leave", "offset_fetch", "sync"]

_Protocol = JoinGroupRequest.JoinGroupRequestProtocol
_Assignment = SyncGroupRequest.SyncGroupRequestAssignment
_Leaving = LeaveGroupRequest.MemberIdentity
_CommitTopic = OffsetCommitRequest.OffsetCommitRequestTopic
_CommitPartition = _CommitTopic.OffsetCommitRequestPartition
_FetchTopic = OffsetFetchRequest.OffsetFetchRequestTopic
_FetchGroup = OffsetFetchRequest.OffsetFetchRequestGroup


def join(member_id: str = "", group_id: str = "g", **options: Any) -> Any:
    """A JoinGroup request of one protocol, "range"."""
    fields: dict[str, Any] = {
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 10_000,
        "group_instance_id": None,
        "protocol_type": "consumer",
        "protocols": [_Protocol(name="range", metadata=b"topics")],
        "reason": None,
    }
    return JoinGroupRequest(group_id=group_id, member_id=member_id, **{**fields, **options})


def join_as_new(wire: Wire, group_id: str = "g", version: int = 9, **options: Any) -> str:
    """Send the join of a new member, which is left unanswered; returns the id that it was given before."""
    told = wire.ask(join(group_id=group_id, **options), version)
    assert told.error_code == 79, told
    wire.send(join(told.member_id, group_id, **options), version)
    return str(told.member_id)


def sync(
    member_id: str,
    generation_id: int,
    assignments: Mapping[str, bytes] | None = None,
    group_id: str = "g",
    **options: Any,
) -> Any:
    """A SyncGroup request."""
    fields: dict[str, Any] = {"group_instance_id": None, "protocol_type": "consumer", "protocol_name": "range"}
    return SyncGroupRequest(
        group_id=group_id,
        generation_id=generation_id,
        member_id=member_id,
        assignments=[_Assignment(member_id=each, assignment=part) for each, part in (assignments or {}).items()],
        **{**fields, **options},
    )


def heartbeat(member_id: str, generation_id: int, group_id: str = "g", instance_id: str | None = None) -> Any:
    """A Heartbeat request."""
    return HeartbeatRequest(
        group_id=group_id, generation_id=generation_id, member_id=member_id, group_instance_id=instance_id
    )


def leave(*members: tuple[str, str | None], group_id: str = "g", member_id: str = "") -> Any:
    """A LeaveGroup request: of members from version 3 on, of one before."""
    leaving = [_Leaving(member_id=each, group_instance_id=instance_id, reason=None) for each, instance_id in members]
    return LeaveGroupRequest(group_id=group_id, member_id=member_id, members=leaving)


def commit(
    offsets: Mapping[tuple[str, int], int],
    member_id: str = "",
    generation_id: int = -1,
    group_id: str = "g",
    metadata: str | None = "note",
    leader_epoch: int = 0,
) -> Any:
    """An OffsetCommit request."""
    topics = [
        _CommitTopic(
            name=topic,
            partitions=[
                _CommitPartition(
                    partition_index=index,
                    committed_offset=offset,
                    committed_leader_epoch=leader_epoch,
                    committed_metadata=metadata,
                )
            ],
        )
        for (topic, index), offset in offsets.items()
    ]
    return OffsetCommitRequest(
        group_id=group_id,
        generation_id_or_member_epoch=generation_id,
        member_id=member_id,
        group_instance_id=None,
        retention_time_ms=-1,
        topics=topics,
    )


def offset_fetch(
    topics: Mapping[str, list[int]] | None, *group_ids: str, version: int, require_stable: bool = False
) -> Any:
    """An OffsetFetch request; None: of all topics. Several groups from version 8 on."""
    if version >= 8:
        kind = _FetchGroup.OffsetFetchRequestTopics
        of_topics = None if topics is None else [kind(name=name, partition_indexes=ps) for name, ps in topics.items()]
        groups = [_FetchGroup(group_id=each, topics=of_topics, member_id=None, member_epoch=-1) for each in group_ids]
        return OffsetFetchRequest(groups=groups, require_stable=require_stable)
    asked = None if topics is None else [_FetchTopic(name=name, partition_indexes=ps) for name, ps in topics.items()]
    return OffsetFetchRequest(group_id=group_ids[0], topics=asked, require_stable=require_stable)


def committed(answer: Any) -> dict[tuple[str, int], tuple[int, int, str, int]]:
    """Offset, leader epoch, metadata and error of each partition in an OffsetFetch response, or one group of it."""
    return {
        (topic.name, each.partition_index): (
            each.committed_offset,
            each.committed_leader_epoch,
            each.metadata,
            each.error_code,
        )
        for topic in answer.topics
        for each in topic.partitions
    }
