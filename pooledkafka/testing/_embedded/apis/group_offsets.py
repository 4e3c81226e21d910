"""OffsetCommit, OffsetFetch and OffsetDelete: how far a group has come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kafka.errors import (
    BrokerResponseError,
    GroupIdNotFoundError,
    GroupSubscribedToTopicError,
    InvalidGroupIdError,
    NonEmptyGroupError,
    NotCoordinatorError,
    OffsetMetadataTooLargeError,
    UnknownTopicOrPartitionError,
    UnstableOffsetCommitError,
)
from kafka.protocol.consumer import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
)

from ..call import Api, Call
from ..group import Group, commit_group, group_of
from ..group_generations import GroupState
from ..group_offsets import Committed, GroupOffsets
from .coordinators import check_coordinator

__all__ = ["OFFSET_COMMIT", "OFFSET_DELETE", "OFFSET_FETCH"]

_CommittedTopic = OffsetCommitResponse.OffsetCommitResponseTopic
_CommittedPartition = _CommittedTopic.OffsetCommitResponsePartition
_FetchedTopic = OffsetFetchResponse.OffsetFetchResponseTopic
_FetchedPartition = _FetchedTopic.OffsetFetchResponsePartition
_FetchedGroup = OffsetFetchResponse.OffsetFetchResponseGroup
_GroupTopic = _FetchedGroup.OffsetFetchResponseTopics
_GroupPartition = _GroupTopic.OffsetFetchResponsePartitions
_DeletedTopic = OffsetDeleteResponse.OffsetDeleteResponseTopic
_DeletedPartition = _DeletedTopic.OffsetDeleteResponsePartition


def _exists(call: Call, topic: str, index: int) -> bool:
    try:
        call.state.partition(topic, index)
    except UnknownTopicOrPartitionError:
        return False
    return True


# -- OffsetCommit ------------------------------------------------------------------------------------------------------


async def _handle_commit(call: Call) -> Any:
    """What is not there is refused before the coordinator is asked for the rest, as KafkaApis does."""
    known = {
        (topic.name, asked.partition_index)
        for topic in call.request.topics
        for asked in topic.partitions
        if _exists(call, topic.name, asked.partition_index)
    }
    offsets: dict[tuple[str, int], Committed] = {}
    refused = 0

    def one(topic: str, asked: Any) -> int:
        key = (topic, asked.partition_index)
        metadata = asked.committed_metadata or ""
        if key not in known:
            return int(UnknownTopicOrPartitionError.errno)
        if not refused and len(metadata) > call.settings.offset_metadata_max_bytes:
            return int(OffsetMetadataTooLargeError.errno)
        offsets[key] = Committed(asked.committed_offset, max(-1, asked.committed_leader_epoch), metadata)
        return refused

    if not known:
        return _commit_response(call, one)
    try:
        group = _committing_group(call)
    except BrokerResponseError as error:
        refused = error.errno
        return _commit_response(call, one)
    response = _commit_response(call, one)
    group.offsets.commit(offsets)
    return response


def _committing_group(call: Call) -> Group:
    request = call.request
    check_coordinator(call, request.group_id)
    if call.version >= 9 and request.generation_id_or_member_epoch >= 0 and request.group_id not in call.state.groups:
        raise GroupIdNotFoundError(f"there is no group {request.group_id!r}")  # KIP-848
    group = commit_group(call.state, request.group_id, request.generation_id_or_member_epoch)
    group.check_commit(request.generation_id_or_member_epoch, request.member_id, request.group_instance_id)
    group.committed_by(request.member_id)
    return group


def _commit_response(call: Call, one: Callable[[str, Any], int]) -> Any:
    topics = [
        _CommittedTopic(
            name=topic.name,
            partitions=[
                _CommittedPartition(partition_index=asked.partition_index, error_code=one(topic.name, asked))
                for asked in topic.partitions
            ],
        )
        for topic in call.request.topics
    ]
    return call.answer(throttle_time_ms=0, topics=topics)


def _refuse_commit(call: Call, error_code: int) -> Any:
    return _commit_response(call, lambda *_: error_code)


OFFSET_COMMIT = Api(OffsetCommitRequest, OffsetCommitResponse, (2, 9), _handle_commit, _refuse_commit)


# -- OffsetFetch -------------------------------------------------------------------------------------------------------


async def _handle_fetch(call: Call) -> Any:
    request = call.request
    if call.version >= 8:
        return _groups_response(call, [_fetched_group(call, group) for group in request.groups])
    try:
        check_coordinator(call, request.group_id)
    except NotCoordinatorError as error:
        return _refuse_fetch(call, error.errno)
    topics = [
        _FetchedTopic(name=name, partitions=[_FetchedPartition(**fields) for fields in partitions])
        for name, partitions in _fetched(call, request.group_id, request.topics)
    ]
    return call.answer(throttle_time_ms=0, topics=topics, error_code=0)


def _fetched_group(call: Call, asked: Any) -> Any:
    try:
        check_coordinator(call, asked.group_id)
    except NotCoordinatorError as error:
        return _FetchedGroup(group_id=asked.group_id, topics=[], error_code=error.errno)
    topics = [
        _GroupTopic(name=name, partitions=[_GroupPartition(**fields) for fields in partitions])
        for name, partitions in _fetched(call, asked.group_id, asked.topics)
    ]
    return _FetchedGroup(group_id=asked.group_id, topics=topics, error_code=0)


def _groups_response(call: Call, groups: list[Any]) -> Any:
    return call.answer(throttle_time_ms=0, groups=groups)


def _fetched(call: Call, group_id: str, topics: Any) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    """The partitions of each topic that is asked for; None: of all in which the group has committed something."""
    known = call.state.groups.get(group_id)
    offsets = known.offsets if known is not None else GroupOffsets()
    if topics is not None:
        asked = [(topic.name, list(topic.partition_indexes)) for topic in topics]
    else:
        by_topic: dict[str, list[int]] = {}
        for name, index in offsets.all():
            by_topic.setdefault(name, []).append(index)
        asked = list(by_topic.items())
    require_stable = call.version >= 7 and call.request.require_stable
    return [(name, [_shown(offsets, name, index, require_stable) for index in indexes]) for name, indexes in asked]


def _shown(offsets: GroupOffsets, topic: str, index: int, require_stable: bool) -> dict[str, Any]:
    key = (topic, index)
    if require_stable and offsets.is_pending(key):
        return _partition(index, None, UnstableOffsetCommitError.errno)  # KIP-447
    return _partition(index, offsets.committed(key))


def _partition(index: int, committed: Committed | None, error_code: int = 0) -> dict[str, Any]:
    return {
        "partition_index": index,
        "committed_offset": committed.offset if committed else -1,
        "committed_leader_epoch": committed.leader_epoch if committed else -1,
        "metadata": committed.metadata if committed else "",
        "error_code": error_code,
    }


def _refuse_fetch(call: Call, error_code: int) -> Any:
    """From version 2 on the error is that of the group, not of each partition."""
    request = call.request
    if call.version >= 8:
        groups = [_FetchedGroup(group_id=each.group_id, topics=[], error_code=error_code) for each in request.groups]
        return _groups_response(call, groups)
    topics = [
        _FetchedTopic(
            name=topic.name,
            partitions=[_FetchedPartition(**_partition(index, None, error_code)) for index in topic.partition_indexes],
        )
        for topic in (request.topics if call.version < 2 else ())
    ]
    return call.answer(throttle_time_ms=0, topics=topics, error_code=error_code)


OFFSET_FETCH = Api(OffsetFetchRequest, OffsetFetchResponse, (1, 9), _handle_fetch, _refuse_fetch)


# -- OffsetDelete ------------------------------------------------------------------------------------------------------


async def _handle_delete(call: Call) -> Any:
    request = call.request
    asked = [(topic.name, each.partition_index) for topic in request.topics for each in topic.partitions]
    known = [key for key in asked if _exists(call, *key)]
    error_codes = dict.fromkeys(asked, UnknownTopicOrPartitionError.errno)
    try:
        if not request.group_id:
            raise InvalidGroupIdError("the group id is empty")
        if known:
            error_codes.update(_deleted(call, known))
    except BrokerResponseError as error:
        return _refuse_delete(call, error.errno)
    topics = [
        _DeletedTopic(
            name=topic.name,
            partitions=[
                _DeletedPartition(
                    partition_index=each.partition_index, error_code=error_codes[topic.name, each.partition_index]
                )
                for each in topic.partitions
            ],
        )
        for topic in request.topics
    ]
    return call.answer(error_code=0, throttle_time_ms=0, topics=topics)


def _deleted(call: Call, keys: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
    group_id = call.request.group_id
    check_coordinator(call, group_id)
    if group_id not in call.state.groups:
        raise GroupIdNotFoundError(f"there is no group {group_id!r}")
    group = group_of(call.state, group_id)
    if group.state is not GroupState.EMPTY and group.protocol_type != "consumer":
        raise NonEmptyGroupError("what its members read is not known")
    error_codes = {key: int(GroupSubscribedToTopicError.errno) if group.subscribes_to(key[0]) else 0 for key in keys}
    for key, error_code in error_codes.items():
        if not error_code:
            group.offsets.delete(key)
    return error_codes


def _refuse_delete(call: Call, error_code: int) -> Any:
    return call.answer(error_code=error_code, throttle_time_ms=0, topics=[])


OFFSET_DELETE = Api(OffsetDeleteRequest, OffsetDeleteResponse, (0, 0), _handle_delete, _refuse_delete)
