"""ListOffsets and OffsetForLeaderEpoch: where logs begin and end, by time or by leader epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafka.errors import BrokerResponseError, NotLeaderForPartitionError, UnsupportedVersionError
from kafka.protocol.consumer import (
    ListOffsetsRequest,
    ListOffsetsResponse,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
)

from ..call import Api, Call
from ..partition import Partition
from .fetch import check_epoch

__all__ = ["LIST_OFFSETS", "OFFSET_FOR_LEADER_EPOCH"]

_Listed = ListOffsetsResponse.ListOffsetsTopicResponse
_ListedPartition = _Listed.ListOffsetsPartitionResponse
_EpochTopic = OffsetForLeaderEpochResponse.OffsetForLeaderTopicResult
_EpochEnd = _EpochTopic.EpochEndOffset
_LATEST, _EARLIEST, _MAX_TIMESTAMP = -1, -2, -3


def _led(call: Call, topic: str, index: int, epoch: int) -> Partition:
    partition = call.state.partition(topic, index)
    if partition.leader != call.broker.node_id:
        raise NotLeaderForPartitionError(f"broker {partition.leader} leads {topic}-{index}")
    check_epoch(partition, epoch)
    return partition


# -- ListOffsets -------------------------------------------------------------------------------------------------------


def _listed(index: int, error_code: int, offset: int = -1, timestamp: int = -1, epoch: int = -1) -> Any:
    return _ListedPartition(
        partition_index=index, error_code=error_code, offset=offset, timestamp=timestamp, leader_epoch=epoch
    )


def _list(call: Call, topic: str, asked: Any) -> Any:
    partition = _led(call, topic, asked.partition_index, asked.current_leader_epoch)
    end = partition.readable_end(call.version >= 2 and call.request.isolation_level == 1)
    log = partition.log
    if asked.timestamp == _LATEST:
        return _listed(partition.index, 0, end, epoch=partition.leader_epoch)
    if asked.timestamp == _EARLIEST:
        epoch = log.epoch_at(log.start_offset)
        return _listed(partition.index, 0, log.start_offset, epoch=partition.leader_epoch if epoch == -1 else epoch)
    if asked.timestamp == _MAX_TIMESTAMP:
        found = log.newest(end)
    elif asked.timestamp >= 0:
        found = log.first_at_or_after(asked.timestamp, end)
    else:
        raise UnsupportedVersionError(f"timestamp {asked.timestamp} asks for tiered storage, which is not here")
    if found is None:
        return _listed(partition.index, 0)
    return _listed(partition.index, 0, *found, epoch=log.epoch_at(found[0]))


async def _handle_list(call: Call) -> Any:
    def one(topic: str, asked: Any) -> Any:
        try:
            return _list(call, topic, asked)
        except BrokerResponseError as error:
            return _listed(asked.partition_index, error.errno)

    return _list_response(call, one)


def _refuse_list(call: Call, error_code: int) -> Any:
    return _list_response(call, lambda _, asked: _listed(asked.partition_index, error_code))


def _list_response(call: Call, one: Callable[[str, Any], Any]) -> Any:
    topics = [
        _Listed(name=topic.name, partitions=[one(topic.name, asked) for asked in topic.partitions])
        for topic in call.request.topics
    ]
    return call.answer(throttle_time_ms=0, topics=topics)


LIST_OFFSETS = Api(ListOffsetsRequest, ListOffsetsResponse, (1, 7), _handle_list, _refuse_list)


# -- OffsetForLeaderEpoch ----------------------------------------------------------------------------------------------


def _epoch_end(index: int, error_code: int, epoch: int = -1, end_offset: int = -1) -> Any:
    return _EpochEnd(partition=index, error_code=error_code, leader_epoch=epoch, end_offset=end_offset)


async def _handle_epochs(call: Call) -> Any:
    def one(topic: str, asked: Any) -> Any:
        try:
            partition = _led(call, topic, asked.partition, asked.current_leader_epoch)
        except BrokerResponseError as error:
            return _epoch_end(asked.partition, error.errno)
        return _epoch_end(asked.partition, 0, *partition.end_of_epoch(asked.leader_epoch))

    return _epochs_response(call, one)


def _refuse_epochs(call: Call, error_code: int) -> Any:
    return _epochs_response(call, lambda _, asked: _epoch_end(asked.partition, error_code))


def _epochs_response(call: Call, one: Callable[[str, Any], Any]) -> Any:
    topics = [
        _EpochTopic(topic=topic.topic, partitions=[one(topic.topic, asked) for asked in topic.partitions])
        for topic in call.request.topics
    ]
    return call.answer(throttle_time_ms=0, topics=topics)


OFFSET_FOR_LEADER_EPOCH = Api(
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, (2, 4), _handle_epochs, _refuse_epochs
)
