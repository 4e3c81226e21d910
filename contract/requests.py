"""The requests of the suite, with what their tests do not care about filled in; and parts of their answers."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kafka.protocol.admin import AlterClientQuotasRequest, CreatePartitionsRequest, CreateTopicsRequest
from kafka.protocol.consumer import (
    FetchRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    ListOffsetsRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    OffsetForLeaderEpochRequest,
    SyncGroupRequest,
)
from kafka.protocol.metadata import ApiVersionsRequest, FindCoordinatorRequest, MetadataRequest
from kafka.protocol.producer import ProduceRequest

__all__ = [
    "EARLIEST",
    "LATEST",
    "MAX_TIMESTAMP",
    "Ask",
    "api_versions",
    "commit",
    "committed",
    "create_partitions",
    "create_topics",
    "end_of_epoch",
    "fetch",
    "find_coordinator",
    "heartbeat",
    "join",
    "leave",
    "limit",
    "list_offsets",
    "metadata",
    "new_topic",
    "of_partitions",
    "produce",
    "sync",
]

Key = tuple[str, int]
LATEST, EARLIEST, MAX_TIMESTAMP = -1, -2, -3
SUBSCRIPTION = struct.pack(">hii", 0, 0, -1)
"""What a consumer that subscribes to nothing says of itself, in version 0; brokers read it."""


def api_versions() -> Any:
    return ApiVersionsRequest(client_software_name="contract", client_software_version="1")


# -- topics ------------------------------------------------------------------------------------------------------------


def metadata(*topics: str, may_create: bool = False) -> Any:
    """Metadata of these topics; of all, without any."""
    asked = [MetadataRequest.MetadataRequestTopic(name=topic) for topic in topics]
    return MetadataRequest(topics=asked or None, allow_auto_topic_creation=may_create)


def new_topic(
    name: str,
    partitions: int = 1,
    replicas: int = -1,
    config: Mapping[str, str] | None = None,
    assignment: list[list[int]] | None = None,
) -> Any:
    """A topic for `create_topics`."""
    kind = CreateTopicsRequest.CreatableTopic
    return kind(
        name=name,
        num_partitions=-1 if assignment else partitions,
        replication_factor=-1 if assignment else replicas,
        assignments=[
            kind.CreatableReplicaAssignment(partition_index=index, broker_ids=ids)
            for index, ids in enumerate(assignment or ())
        ],
        configs=[kind.CreatableTopicConfig(name=key, value=value) for key, value in (config or {}).items()],
    )


def create_topics(*topics: Any, validate_only: bool = False) -> Any:
    return CreateTopicsRequest(topics=list(topics), timeout_ms=10_000, validate_only=validate_only)


def create_partitions(topic: str, count: int) -> Any:
    asked = CreatePartitionsRequest.CreatePartitionsTopic(name=topic, count=count, assignments=None)
    return CreatePartitionsRequest(topics=[asked], timeout_ms=10_000, validate_only=False)


# -- records -----------------------------------------------------------------------------------------------------------


def produce(
    records: Mapping[Key, bytes | None],
    *,
    acks: int = -1,
    timeout_ms: int = 10_000,
    transactional_id: str | None = None,
) -> Any:
    kind = ProduceRequest.TopicProduceData
    return ProduceRequest(
        transactional_id=transactional_id,
        acks=acks,
        timeout_ms=timeout_ms,
        topic_data=[
            kind(name=topic, partition_data=[kind.PartitionProduceData(index=index, records=records[topic, index])])
            for topic, index in records
        ],
    )


@dataclass
class Ask:
    """What a fetch asks of one partition."""

    offset: int = 0
    max_bytes: int = 1 << 20
    leader_epoch: int = -1
    last_fetched_epoch: int = -1


def fetch(
    asks: Mapping[Key, Ask | int],
    *,
    max_wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = 1 << 24,
    read_committed: bool = False,
    session: tuple[int, int] = (0, -1),
    forget: Iterable[Key] = (),
) -> Any:
    """A fetch of partitions, from an offset each, in the order given; ``session`` is its id and epoch."""
    kind = FetchRequest.FetchTopic
    topics: dict[str, list[Any]] = {}
    for (topic, index), each in asks.items():
        ask = each if isinstance(each, Ask) else Ask(each)
        topics.setdefault(topic, []).append(
            kind.FetchPartition(
                partition=index,
                current_leader_epoch=ask.leader_epoch,
                fetch_offset=ask.offset,
                last_fetched_epoch=ask.last_fetched_epoch,
                log_start_offset=-1,
                partition_max_bytes=ask.max_bytes,
            )
        )
    return FetchRequest(
        replica_id=-1,
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        isolation_level=int(read_committed),
        session_id=session[0],
        session_epoch=session[1],
        topics=[kind(topic=topic, partitions=partitions) for topic, partitions in topics.items()],
        forgotten_topics_data=[FetchRequest.ForgottenTopic(topic=topic, partitions=[index]) for topic, index in forget],
        rack_id="",
    )


def list_offsets(asks: Mapping[Key, int], *, leader_epoch: int = -1, read_committed: bool = False) -> Any:
    """The offsets of partitions at timestamps in ms, or `LATEST`, `EARLIEST`, `MAX_TIMESTAMP`."""
    kind = ListOffsetsRequest.ListOffsetsTopic
    return ListOffsetsRequest(
        replica_id=-1,
        isolation_level=int(read_committed),
        topics=[
            kind(
                name=topic,
                partitions=[
                    kind.ListOffsetsPartition(
                        partition_index=index, current_leader_epoch=leader_epoch, timestamp=timestamp
                    )
                ],
            )
            for (topic, index), timestamp in asks.items()
        ],
    )


def end_of_epoch(key: Key, epoch: int, *, leader_epoch: int = -1) -> Any:
    """Where a leader epoch of a partition ends."""
    kind = OffsetForLeaderEpochRequest.OffsetForLeaderTopic
    asked = kind.OffsetForLeaderPartition(partition=key[1], current_leader_epoch=leader_epoch, leader_epoch=epoch)
    return OffsetForLeaderEpochRequest(replica_id=-1, topics=[kind(topic=key[0], partitions=[asked])])


def of_partitions(response: Any) -> dict[Key, Any]:
    """The parts of a response by topic and partition, whatever it calls them."""
    found = {}
    topics = getattr(response, "responses", None) or getattr(response, "topics", None) or []
    for topic in topics:
        for part in getattr(topic, "partitions", None) or getattr(topic, "partition_responses", None) or []:
            names = ("partition_index", "index", "partition")
            index = next(getattr(part, name) for name in names if name in part.fields)
            found[getattr(topic, "topic", None) or topic.name, index] = part
    return found


# -- groups ------------------------------------------------------------------------------------------------------------


def find_coordinator(key: str, transactional: bool = False) -> Any:
    return FindCoordinatorRequest(key=key, key_type=int(transactional))


def join(
    group: str,
    member_id: str = "",
    *,
    instance_id: str | None = None,
    session_timeout_ms: int = 30_000,
    rebalance_timeout_ms: int = 30_000,
    protocol_type: str = "consumer",
    protocols: Iterable[str] = ("range",),
) -> Any:
    kind = JoinGroupRequest.JoinGroupRequestProtocol
    return JoinGroupRequest(
        group_id=group,
        session_timeout_ms=session_timeout_ms,
        rebalance_timeout_ms=rebalance_timeout_ms,
        member_id=member_id,
        group_instance_id=instance_id,
        protocol_type=protocol_type,
        protocols=[kind(name=name, metadata=SUBSCRIPTION) for name in protocols],
    )


def sync(
    group: str,
    generation: int,
    member_id: str,
    assignments: Mapping[str, bytes] | None = None,
    *,
    instance_id: str | None = None,
) -> Any:
    kind = SyncGroupRequest.SyncGroupRequestAssignment
    return SyncGroupRequest(
        group_id=group,
        generation_id=generation,
        member_id=member_id,
        group_instance_id=instance_id,
        protocol_type="consumer",
        protocol_name="range",
        assignments=[kind(member_id=member, assignment=each) for member, each in (assignments or {}).items()],
    )


def heartbeat(group: str, generation: int, member_id: str, *, instance_id: str | None = None) -> Any:
    return HeartbeatRequest(
        group_id=group, generation_id=generation, member_id=member_id, group_instance_id=instance_id
    )


def leave(group: str, member_id: str, *, instance_id: str | None = None) -> Any:
    """For versions from 3 on."""
    member = LeaveGroupRequest.MemberIdentity(member_id=member_id, group_instance_id=instance_id)
    return LeaveGroupRequest(group_id=group, members=[member])


def commit(
    group: str, key: Key, offset: int, *, generation: int = -1, member_id: str = "", metadata: str | None = ""
) -> Any:
    kind = OffsetCommitRequest.OffsetCommitRequestTopic
    asked = kind.OffsetCommitRequestPartition(
        partition_index=key[1], committed_offset=offset, committed_leader_epoch=-1, committed_metadata=metadata
    )
    return OffsetCommitRequest(
        group_id=group,
        generation_id_or_member_epoch=generation,
        member_id=member_id,
        group_instance_id=None,
        topics=[kind(name=key[0], partitions=[asked])],
    )


def committed(group: str, keys: Iterable[Key] | None, *, stable: bool = False) -> Any:
    """What a group has committed; for versions from 7 on, up to 7. None: of all partitions."""
    kind = OffsetFetchRequest.OffsetFetchRequestTopic
    topics = None if keys is None else [kind(name=topic, partition_indexes=[index]) for topic, index in keys]
    return OffsetFetchRequest(group_id=group, topics=topics, require_stable=stable)


# -- quotas ------------------------------------------------------------------------------------------------------------


def limit(client_id: str, bytes_a_second: float | None, name: str = "producer_byte_rate") -> Any:
    """Set a client's quota, or end it."""
    kind = AlterClientQuotasRequest.EntryData
    return AlterClientQuotasRequest(
        entries=[
            kind(
                entity=[kind.EntityData(entity_type="client-id", entity_name=client_id)],
                ops=[kind.OpData(key=name, value=bytes_a_second or 0.0, remove=bytes_a_second is None)],
            )
        ],
        validate_only=False,
    )
