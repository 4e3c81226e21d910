"""Fetch: long polls, sessions, both isolation levels, followers that are nearer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from kafka.errors import (
    BrokerResponseError,
    FencedLeaderEpochError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    UnknownLeaderEpochError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.consumer import FetchRequest, FetchResponse

from ..call import Api, Call
from ..fetch_sessions import FetchSession, Followed, Key
from ..partition import Partition
from ..settings import RACK_AWARE_SELECTOR

__all__ = ["FETCH", "check_epoch"]

_Topic = FetchResponse.FetchableTopicResponse
_Data = _Topic.PartitionData
_FINAL_EPOCH = -1


def check_epoch(partition: Partition, epoch: int) -> None:
    """Compare the leader epoch that a client believes in, if it says one (KIP-320)."""
    if epoch >= 0 and epoch < partition.leader_epoch:
        raise FencedLeaderEpochError(f"leader epoch {epoch} is over; it is {partition.leader_epoch}")
    if epoch > partition.leader_epoch:
        raise UnknownLeaderEpochError(f"leader epoch {epoch} is not known yet; it is {partition.leader_epoch}")


async def _handle(call: Call) -> Any:
    request = call.request
    session: FetchSession | None = None
    followed: OrderedDict[Key, Followed] = OrderedDict()
    incremental = False
    sessions = call.broker.fetch_sessions
    if call.version >= 7 and request.session_epoch not in (0, _FINAL_EPOCH):
        try:
            session = sessions.resume(request.session_id, request.session_epoch)
        except BrokerResponseError as error:
            return _refuse(call, error.errno)
        followed, incremental = session.partitions, True
        for topic in request.forgotten_topics_data or ():
            for index in topic.partitions:
                followed.pop((topic.topic, index), None)
        if not followed and not request.topics:
            sessions.close(session.session_id)  # it has nothing to follow any more (FetchManager.newContext)
            return _response(call, {}, 0)
    elif call.version >= 7 and request.session_id:
        sessions.close(request.session_id)
    for topic in request.topics:
        for asked in topic.partitions:
            key = (topic.topic, asked.partition)
            if key in followed:
                followed[key].asked = asked
            else:
                followed[key] = Followed(asked)
    asked_of = dict(followed)  # while it waits, another request of the session may change that
    results = await _Reading(call, list(asked_of.items())).results()
    told = {key: data for key, data in results.items() if not incremental or _is_news(asked_of[key], data)}
    size = sum(len(data.records or b"") for data in told.values())
    call.throttle_time_ms = call.state.quotas.read_ms(call.client_id, size)
    if call.throttle_time_ms:
        # A client that is held back is sent nothing, and no session begins (KIP-219, FetchContext).
        return _response(call, {}, session.session_id if session else 0)
    if call.version >= 7 and request.session_epoch == 0:
        session = sessions.open(len(followed))
        if session is not None:
            session.partitions = followed
    for key, data in told.items():
        if key in followed:  # another request of the session may have removed it
            followed[key].told = _position(data)
            if data.records and incremental:
                followed.move_to_end(key)  # others have their turn first
    return _response(call, told, session.session_id if session else 0)


def _position(data: Any) -> tuple[int, int, int]:
    return data.high_watermark, data.last_stable_offset, data.log_start_offset


def _is_news(followed: Followed, data: Any) -> bool:
    return bool(
        data.records
        or data.error_code
        or data.preferred_read_replica != -1
        or "diverging_epoch" in (data.tags or ())
        or followed.told != _position(data)
    )


def _response(call: Call, results: dict[Key, Any], session_id: int, error_code: int = 0) -> Any:
    by_topic: dict[str, list[Any]] = {}
    for (topic, _), data in results.items():
        by_topic.setdefault(topic, []).append(data)
    return call.answer(
        throttle_time_ms=0,
        error_code=error_code,
        session_id=session_id,
        responses=[_Topic(topic=topic, partitions=partitions) for topic, partitions in by_topic.items()],
    )


@dataclass
class _Reading:
    """What one request reads, and its wait for there being enough."""

    call: Call
    partitions: list[tuple[Key, Followed]]

    def __post_init__(self) -> None:
        # What is unknown at first is set aside, and ends no wait (KafkaApis.handleFetchRequest).
        self._unknown = {key for key, _ in self.partitions if not self._is_known(*key)}

    def _is_known(self, topic: str, index: int) -> bool:
        topics = self.call.state.topics
        return topic in topics and 0 <= index < len(topics[topic].partitions)

    async def results(self) -> dict[Key, Any]:
        """Read at once where there is enough or an error, else as soon as there is, or when the wait is over."""
        request, state = self.call.request, self.call.state
        deadline = state.now() + request.max_wait_ms / 1000
        changed = asyncio.Event()
        watched: list[Partition] = []
        try:
            while True:
                results, enough = self._read()
                left_s = deadline - state.now()
                if enough or left_s <= 0 or len(self._unknown) == len(self.partitions):
                    return results
                if not watched:
                    watched = self._known_partitions()
                    for partition in watched:
                        partition.watch(changed)
                try:
                    await asyncio.wait_for(changed.wait(), left_s)
                except asyncio.TimeoutError:
                    continue
                changed.clear()
        finally:
            for partition in watched:
                partition.unwatch(changed)

    def _known_partitions(self) -> list[Partition]:
        return [self.call.state.partition(*key) for key, _ in self.partitions if self._is_known(*key)]

    def _read(self) -> tuple[dict[Key, Any], bool]:
        request = self.call.request
        # The client's quota caps both (KafkaApis.handleFetchRequest).
        most = min(request.max_bytes, self.call.state.quotas.most_to_read(self.call.client_id))
        least = min(request.min_bytes, most)
        left, found, results, enough = most, 0, {}, least <= 0
        for (topic, index), followed in self.partitions:
            if (topic, index) in self._unknown:
                results[topic, index] = _failed(index, UnknownTopicOrPartitionError.errno)
                continue
            data = self._read_one(topic, index, followed.asked, left, found == 0)
            results[topic, index] = data
            if data.error_code or data.preferred_read_replica != -1 or "diverging_epoch" in (data.tags or ()):
                enough = True
            size = len(data.records or b"")
            left -= size
            found += size
        return results, enough or found >= least

    def _read_one(self, topic: str, index: int, asked: Any, left: int, at_least_one: bool) -> Any:
        try:
            partition = self.call.state.partition(topic, index)
            return self._read_from(partition, asked, left, at_least_one)
        except BrokerResponseError as error:
            return _failed(index, error.errno)

    def _read_from(self, partition: Partition, asked: Any, left: int, at_least_one: bool) -> Any:
        call, node_id, log = self.call, self.call.broker.node_id, partition.log
        may_follow = call.version >= 11 and node_id in partition.replicas
        if partition.deleted or (partition.leader != node_id and not may_follow):
            raise NotLeaderForPartitionError(f"broker {partition.leader} leads {partition.topic}-{partition.index}")
        check_epoch(partition, asked.current_leader_epoch)
        read_committed = call.request.isolation_level == 1
        end = min(partition.readable_end(read_committed), partition.end_of(node_id))
        offset = asked.fetch_offset
        answer: dict[str, Any] = {
            "partition_index": partition.index,
            "error_code": 0,
            "high_watermark": partition.high_watermark,
            "last_stable_offset": partition.last_stable_offset,
            "log_start_offset": log.start_offset,
            "aborted_transactions": [] if read_committed else None,
            "preferred_read_replica": -1,
            "records": b"",
        }
        if call.version >= 12 and asked.last_fetched_epoch >= 0:
            epoch, epoch_end = partition.end_of_epoch(asked.last_fetched_epoch)
            if epoch == -1 or offset < log.start_offset:
                raise OffsetOutOfRangeError(f"epoch {asked.last_fetched_epoch} has not begun, or is gone")
            if epoch < asked.last_fetched_epoch or epoch_end < offset:
                diverging = _Data.EpochEndOffset(epoch=epoch, end_offset=epoch_end)
                return _Data(**answer, diverging_epoch=diverging)
        copied = partition.end_of(node_id)
        if not log.start_offset <= offset <= copied:
            raise OffsetOutOfRangeError(f"offset {offset}; the log here goes from {log.start_offset} to {copied}")
        nearer = self._nearer_replica(partition, offset)
        if nearer is not None:
            answer["preferred_read_replica"] = nearer
            return _Data(**answer)
        answer["records"] = log.read(offset, end, min(left, asked.partition_max_bytes), at_least_one)
        if read_committed:
            answer["aborted_transactions"] = [
                _Data.AbortedTransaction(producer_id=each.producer_id, first_offset=each.first_offset)
                for each in log.aborted(offset, end)
            ]
        return _Data(**answer)

    def _nearer_replica(self, partition: Partition, offset: int) -> int | None:
        """The in-sync replica in the client's own rack, if the brokers choose by rack (KIP-392) and it is not this."""
        call, rack = self.call, self.call.request.rack_id
        if (
            call.version < 11
            or not rack
            or call.settings.replica_selector_class != RACK_AWARE_SELECTOR
            or partition.leader != call.broker.node_id
            or call.settings.broker_rack == rack
        ):
            return None
        for node_id in partition.in_sync:
            if call.state.settings[node_id].broker_rack == rack and partition.end_of(node_id) >= offset:
                return node_id
        return None


def _failed(index: int, error_code: int) -> Any:
    return _Data(
        partition_index=index,
        error_code=error_code,
        high_watermark=-1,
        last_stable_offset=-1,
        log_start_offset=-1,
        aborted_transactions=None,
        preferred_read_replica=-1,
        records=b"",
    )


def _refuse(call: Call, error_code: int) -> Any:
    """A session's request names no partitions; so from version 7 on the error is that of all."""
    if call.version >= 7:
        return _response(call, {}, 0, error_code)
    asked = {(topic.topic, each.partition): each for topic in call.request.topics for each in topic.partitions}
    return _response(call, {key: _failed(key[1], error_code) for key in asked}, 0)


FETCH = Api(FetchRequest, FetchResponse, (4, 12), _handle, _refuse)
