"""CreateTopics, DeleteTopics, CreatePartitions and DeleteRecords.

Any broker serves them, as any forwards them to the controller. What they do is done when they answer, on all brokers;
so their timeouts are of no consequence.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from kafka.errors import (
    BrokerResponseError,
    InvalidReplicationAssignmentError,
    InvalidRequestError,
    NotLeaderForPartitionError,
    PolicyViolationError,
    UnknownTopicIdError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.admin import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
)

from ..call import Api, Call, message_of
from ..topic_config import checked_config
from .configs import topic_entries

__all__ = ["CREATE_PARTITIONS", "CREATE_TOPICS", "DELETE_RECORDS", "DELETE_TOPICS"]

_Created = CreateTopicsResponse.CreatableTopicResult
_Deleted = DeleteTopicsResponse.DeletableTopicResult
_Grown = CreatePartitionsResponse.CreatePartitionsTopicResult
_Shortened = DeleteRecordsResponse.DeleteRecordsTopicResult
_NO_ID = None  # the id of zeros, as kafka-python has it
_MOST_PARTITIONS = 10_000  # of one request


# -- CreateTopics ------------------------------------------------------------------------------------------------------


async def _handle_create(call: Call) -> Any:
    defaults = call.state.defaults
    asked = sum(
        len(topic.assignments) or (defaults.num_partitions if topic.num_partitions == -1 else topic.num_partitions)
        for topic in call.request.topics
    )
    if asked > _MOST_PARTITIONS:
        error = PolicyViolationError("Excessively large number of partitions per request.")
        return _create_response(call, lambda topic: _not_created(topic.name, error))
    times = Counter(topic.name for topic in call.request.topics)

    def one(topic: Any) -> Any:
        try:
            if times[topic.name] > 1:
                raise InvalidRequestError("Duplicate topic name.")
            return _create(call, topic)
        except BrokerResponseError as error:
            return _not_created(topic.name, error)

    return _create_response(call, one)


def _create(call: Call, asked: Any) -> Any:
    state = call.state
    state.check_new_name(asked.name)
    config = checked_config({each.name: each.value for each in asked.configs})
    assignment = _assignment(asked) if asked.assignments else None
    new = (asked.name, asked.num_partitions, asked.replication_factor, config, assignment)
    if call.request.validate_only:
        state.check_new_topic(*new)
        topic_id = uuid.uuid4()  # Kafka tells one too
        partitions = asked.num_partitions if asked.num_partitions != -1 else state.defaults.num_partitions
        factor = asked.replication_factor
        factor = factor if factor != -1 else state.defaults.default_replication_factor
        if assignment is not None:
            partitions, factor = len(assignment), len(assignment[0])
    else:
        topic = state.create_topic(*new)
        topic_id, partitions, factor = topic.topic_id, len(topic.partitions), len(topic.partitions[0].replicas)
    return _Created(
        name=asked.name,
        topic_id=topic_id,
        error_code=0,
        error_message=None,
        num_partitions=partitions,
        replication_factor=factor,
        configs=[
            _Created.CreatableTopicConfigs(
                name=entry.name, value=entry.value, read_only=False, config_source=entry.source, is_sensitive=False
            )
            for entry in topic_entries(config, call.settings)
        ],
    )


def _assignment(asked: Any) -> list[list[int]]:
    """The replicas of each partition, in order."""
    if asked.replication_factor != -1:
        raise InvalidRequestError(
            "A manual partition assignment was specified, but replication factor was not set to -1."
        )
    if asked.num_partitions != -1:
        raise InvalidRequestError("A manual partition assignment was specified, but numPartitions was not set to -1.")
    by_index: dict[int, list[int]] = {}
    for each in asked.assignments:
        if each.partition_index in by_index:
            raise InvalidReplicationAssignmentError(
                f"Found multiple manual partition assignments for partition {each.partition_index}"
            )
        by_index[each.partition_index] = list(each.broker_ids)
    if sorted(by_index) != list(range(len(by_index))):
        raise InvalidReplicationAssignmentError("partitions should be a consecutive 0-based integer sequence")
    return [by_index[index] for index in range(len(by_index))]


def _not_created(name: str, error: BrokerResponseError) -> Any:
    return _Created(name=name, topic_id=_NO_ID, error_code=error.errno, error_message=message_of(error), configs=[])


def _create_response(call: Call, one: Callable[[Any], Any]) -> Any:
    # Of topics that were named more than once, each is answered once.
    results = {topic.name: one(topic) for topic in call.request.topics}
    return call.answer(throttle_time_ms=0, topics=list(results.values()))


def _refuse_create(call: Call, error_code: int) -> Any:
    refused = [
        _Created(name=topic.name, topic_id=_NO_ID, error_code=error_code, error_message=None, configs=[])
        for topic in call.request.topics
    ]
    return call.answer(throttle_time_ms=0, topics=refused)


CREATE_TOPICS = Api(CreateTopicsRequest, CreateTopicsResponse, (2, 7), _handle_create, _refuse_create)


# -- DeleteTopics ------------------------------------------------------------------------------------------------------


def _to_delete(call: Call) -> list[tuple[str | None, uuid.UUID | None]]:
    if call.version < 6:
        return [(name, _NO_ID) for name in call.request.topic_names]
    return [(topic.name, topic.topic_id) for topic in call.request.topics]


async def _handle_delete(call: Call) -> Any:
    asked = _to_delete(call)
    times = Counter(asked)
    found_as = {
        each: call.state.topic_by_id(each[1]) if each[0] is None else call.state.topics.get(each[0]) for each in asked
    }
    ids = Counter(found.topic_id for found in found_as.values() if found is not None)
    results = []
    for (name, topic_id), found in found_as.items():
        try:
            if name is None and topic_id == _NO_ID:
                raise InvalidRequestError("Neither topic name nor id were specified.")
            if name is not None and topic_id != _NO_ID:
                raise InvalidRequestError("You may not specify both topic name and topic id.")
            if times[name, topic_id] > 1:
                raise InvalidRequestError(f"Duplicate topic {'id' if name is None else 'name'}.")
            if found is None:
                unknown = UnknownTopicIdError if name is None else UnknownTopicOrPartitionError
                raise unknown(unknown.description)
            if ids[found.topic_id] > 1:
                raise InvalidRequestError("The provided topic name maps to an ID that was already supplied.")
            call.state.delete_topic(found.name)
        except BrokerResponseError as error:
            results.append(
                _Deleted(name=name, topic_id=topic_id, error_code=error.errno, error_message=message_of(error))
            )
        else:
            results.append(_Deleted(name=found.name, topic_id=found.topic_id, error_code=0, error_message=None))
    return call.answer(throttle_time_ms=0, responses=results)


def _refuse_delete(call: Call, error_code: int) -> Any:
    refused = [
        _Deleted(name=name, topic_id=topic_id, error_code=error_code, error_message=None)
        for name, topic_id in _to_delete(call)
    ]
    return call.answer(throttle_time_ms=0, responses=refused)


DELETE_TOPICS = Api(DeleteTopicsRequest, DeleteTopicsResponse, (1, 6), _handle_delete, _refuse_delete)


# -- CreatePartitions --------------------------------------------------------------------------------------------------


async def _handle_partitions(call: Call) -> Any:
    times = Counter(topic.name for topic in call.request.topics)

    def one(asked: Any) -> BrokerResponseError | None:
        try:
            if times[asked.name] > 1:
                raise InvalidRequestError("Duplicate topic name.")
            topic = call.state.topic(asked.name)
            assignment = None
            if asked.assignments is not None:
                assignment = [list(each.broker_ids) for each in asked.assignments]
            if call.request.validate_only:
                call.state.check_more_partitions(topic, asked.count, assignment)
            else:
                call.state.add_partitions(topic, asked.count, assignment)
        except BrokerResponseError as error:
            return error
        return None

    results = {}
    for asked in call.request.topics:
        error = one(asked)
        results[asked.name] = _Grown(
            name=asked.name,
            error_code=error.errno if error else 0,
            error_message=message_of(error) if error else None,
        )
    return call.answer(throttle_time_ms=0, results=list(results.values()))


def _refuse_partitions(call: Call, error_code: int) -> Any:
    refused = [_Grown(name=topic.name, error_code=error_code, error_message=None) for topic in call.request.topics]
    return call.answer(throttle_time_ms=0, results=refused)


CREATE_PARTITIONS = Api(
    CreatePartitionsRequest, CreatePartitionsResponse, (0, 3), _handle_partitions, _refuse_partitions
)


# -- DeleteRecords -----------------------------------------------------------------------------------------------------


def _shortened(index: int, error_code: int, low_watermark: int = -1) -> Any:
    return _Shortened.DeleteRecordsPartitionResult(
        partition_index=index, low_watermark=low_watermark, error_code=error_code
    )


async def _handle_records(call: Call) -> Any:
    def one(topic: str, asked: Any) -> Any:
        try:
            partition = call.state.partition(topic, asked.partition_index)
            if partition.leader != call.broker.node_id:
                raise NotLeaderForPartitionError(f"broker {partition.leader} leads {topic}-{asked.partition_index}")
            return _shortened(asked.partition_index, 0, partition.delete_before(asked.offset))
        except BrokerResponseError as error:
            return _shortened(asked.partition_index, error.errno)

    return _records_response(call, one)


def _refuse_records(call: Call, error_code: int) -> Any:
    return _records_response(call, lambda _, asked: _shortened(asked.partition_index, error_code))


def _records_response(call: Call, one: Callable[[str, Any], Any]) -> Any:
    topics = [
        _Shortened(name=topic.name, partitions=[one(topic.name, asked) for asked in topic.partitions])
        for topic in call.request.topics
    ]
    return call.answer(throttle_time_ms=0, topics=topics)


DELETE_RECORDS = Api(DeleteRecordsRequest, DeleteRecordsResponse, (0, 2), _handle_records, _refuse_records)
