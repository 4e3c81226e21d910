"""Metadata: brokers, topics, leaders; makes unknown topics where it may."""

from __future__ import annotations

import contextlib
from typing import Any

from kafka.errors import (
    BrokerResponseError,
    InvalidRequestError,
    InvalidTopicError,
    LeaderNotAvailableError,
    NoError,
    UnknownTopicIdError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.metadata import MetadataRequest, MetadataResponse

from ..call import Api, Call
from ..topic import Topic, is_legal_name

__all__ = ["METADATA"]

_Broker = MetadataResponse.MetadataResponseBroker
_Topic = MetadataResponse.MetadataResponseTopic
_Partition = _Topic.MetadataResponsePartition
_NO_ID = None  # the id of zeros, as kafka-python has it


def _shown(topic: Topic, alive: list[int]) -> Any:
    partitions = []
    for partition in topic.partitions:
        error = NoError if partition.leader != -1 else LeaderNotAvailableError
        partitions.append(
            _Partition(
                error_code=error.errno,
                partition_index=partition.index,
                leader_id=partition.leader,
                leader_epoch=partition.leader_epoch,
                replica_nodes=partition.replicas,
                isr_nodes=partition.in_sync,
                offline_replicas=[node_id for node_id in partition.replicas if node_id not in alive],
            )
        )
    return _Topic(error_code=0, name=topic.name, topic_id=topic.topic_id, is_internal=False, partitions=partitions)


def _absent(name: str | None, topic_id: Any, error_code: int) -> Any:
    return _Topic(error_code=error_code, name=name, topic_id=topic_id, is_internal=False, partitions=[])


def _answer(call: Call, topics: list[Any]) -> Any:
    state = call.state
    brokers = []
    for node_id in state.available:
        broker = state.brokers[node_id]
        port = broker.ports[call.connection.listener]
        brokers.append(_Broker(node_id=node_id, host="127.0.0.1", port=port, rack=broker.settings.broker_rack or None))
    return call.answer(
        throttle_time_ms=0,
        brokers=brokers,
        cluster_id=state.cluster_id,
        controller_id=state.controller,
        topics=topics,
    )


async def _handle(call: Call) -> Any:
    state, request = call.state, call.request
    if request.topics is None or (call.version == 0 and not request.topics):
        return _answer(call, [_shown(topic, state.available) for topic in state.topics.values()])
    if 10 <= call.version < 12 and any(topic.name is None or topic.topic_id != _NO_ID for topic in request.topics):
        return _refuse(call, InvalidRequestError.errno)  # these versions have ids, but do not take them
    may_create = call.settings.auto_create_topics_enable and (call.version < 4 or request.allow_auto_topic_creation)
    topics = []
    for asked in request.topics:
        if call.version >= 12 and asked.topic_id != _NO_ID:
            topic = state.topic_by_id(asked.topic_id)
            unknown = _absent(None, asked.topic_id, UnknownTopicIdError.errno)
            topics.append(_shown(topic, state.available) if topic else unknown)
        elif asked.name in state.topics:
            topics.append(_shown(state.topics[asked.name], state.available))
        elif not is_legal_name(asked.name):
            topics.append(_absent(asked.name, _NO_ID, InvalidTopicError.errno))
        else:
            # As a real broker does, it says that the topic is unknown and has it made for those who ask again. Whether
            # that succeeds it does not say (AutoTopicCreationManager).
            if may_create:
                with contextlib.suppress(BrokerResponseError):
                    state.create_topic(asked.name)
            topics.append(_absent(asked.name, _NO_ID, UnknownTopicOrPartitionError.errno))
    return _answer(call, topics)


def _refuse(call: Call, error_code: int) -> Any:
    names = [topic.name or "" for topic in call.request.topics or ()] or list(call.state.topics)
    return _answer(call, [_absent(name, _NO_ID, error_code) for name in names])


METADATA = Api(MetadataRequest, MetadataResponse, (0, 12), _handle, _refuse)
