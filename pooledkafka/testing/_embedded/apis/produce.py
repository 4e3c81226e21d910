"""Produce: checks batches and appends them; with ``acks=all`` it waits for the followers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kafka.errors import (
    BrokerResponseError,
    ConcurrentTransactionsError,
    CoordinatorNotAvailableError,
    InvalidProducerEpochError,
    InvalidProducerIdMappingError,
    InvalidRequiredAcksError,
    InvalidTxnStateError,
    NotEnoughReplicasError,
    NotLeaderForPartitionError,
    ProducerFencedError,
    TransactionAbortableError,
    TransactionalIdAuthorizationFailedError,
    UnsupportedCompressionTypeError,
)
from kafka.protocol.producer import ProduceRequest, ProduceResponse
from kafka.record.default_records import DefaultRecordBatch

from ..batches import Batch, only_batch
from ..call import Api, Call
from ..faults import Hangup
from ..partition import Partition

__all__ = ["PRODUCE"]

_Topic = ProduceResponse.TopicProduceResponse
_Partition = _Topic.PartitionProduceResponse
_MOST_AHEAD_MS = 3_600_000  # message.timestamp.after.max.ms


@dataclass
class _Written:
    """Where a batch lies in a log, and in which leader epoch it was found there or appended."""

    partition: Partition
    batch: Batch
    epoch: int


async def _handle(call: Call) -> Any:
    request, now = call.request, call.state.now
    if request.acks not in (-1, 0, 1):
        return _refuse(call, InvalidRequiredAcksError.errno)
    batches = [
        (topic.name, each.index, _batch(call, each)) for topic in request.topic_data for each in topic.partition_data
    ]
    of_transactions = [batch for *_, batch in batches if isinstance(batch, Batch) and batch.is_transactional]
    if of_transactions and request.transactional_id is None:
        return _refuse(call, TransactionalIdAuthorizationFailedError.errno)
    if len({(batch.producer_id, batch.producer_epoch) for batch in of_transactions}) > 1:
        return _refuse(call, InvalidProducerIdMappingError.errno)
    # All are appended before any is waited for, as on a broker.
    outcomes = [(name, index, _append(call, name, index, batch)) for name, index, batch in batches]
    size = sum(len(each.records or b"") for topic in request.topic_data for each in topic.partition_data)
    call.throttle_time_ms = call.state.quotas.sent_ms(call.client_id, size)
    deadline = now() + request.timeout_ms / 1000
    answers: dict[tuple[str, int], Any] = {}
    for name, index, outcome in outcomes:
        answers[name, index] = await _answer(call, name, index, outcome, deadline - now())
    if request.acks == 0:
        if any(answer.error_code for answer in answers.values()):
            raise Hangup  # the only way to say so
        return None
    return _response(call, lambda topic, index: answers[topic, index])


# -- appending ---------------------------------------------------------------------------------------------------------


def _batch(call: Call, asked: Any) -> Batch | BrokerResponseError:
    """As ProduceRequest.validateRecords."""
    try:
        batch = only_batch(bytes(asked.records or b""))
        if call.version < 7 and batch.compression == DefaultRecordBatch.CODEC_ZSTD:
            raise UnsupportedCompressionTypeError("zstd came with version 7 of Produce")
        return batch
    except BrokerResponseError as error:
        return error


def _append(call: Call, topic: str, index: int, batch: Batch | BrokerResponseError) -> _Written | BrokerResponseError:
    """In the order of KafkaApis, ReplicaManager, Partition and UnifiedLog, whose errors these are."""
    try:
        partition = call.state.partition(topic, index)
        if isinstance(batch, BrokerResponseError):
            return batch
        if partition.leader != call.broker.node_id:
            raise NotLeaderForPartitionError(f"broker {partition.leader} leads {topic}-{index}")
        log = partition.log
        if batch.is_transactional and not log.is_open(batch.producer_id, batch.producer_epoch):
            _verify(call, batch, topic, index)
        if call.request.acks == -1:
            partition.check_in_sync()
        most_bytes = call.state.topics[topic].setting("max.message.bytes", call.settings.message_max_bytes)
        batch.check(most_bytes, round(time.time() * 1000) + _MOST_AHEAD_MS)
        written = None
        if batch.producer_id >= 0:
            written = log.sequences.duplicate_of(batch)
            if written is None:
                log.sequences.check(batch)
                if log.is_open(batch.producer_id) and not batch.is_transactional:
                    raise InvalidTxnStateError(f"a transaction of producer {batch.producer_id} is open")
        return _Written(partition, written or partition.append(batch), partition.leader_epoch)
    except BrokerResponseError as error:
        return error


def _verify(call: Call, batch: Batch, topic: str, index: int) -> None:
    """Ask the coordinator whether a transaction that is new here may write here; as AddPartitionsToTxnManager."""
    transaction = call.state.transactions.get(call.request.transactional_id)
    try:
        if call.state.coordinator_of(call.request.transactional_id) == -1:
            raise CoordinatorNotAvailableError("no broker is up")
        if transaction is None:
            raise InvalidProducerIdMappingError(f"transactional id {call.request.transactional_id!r} is not known")
        transaction.check_writes(batch.producer_id, batch.producer_epoch, (topic, index))
    except ProducerFencedError as error:
        raise InvalidProducerEpochError(*error.args) from error
    except (ConcurrentTransactionsError, CoordinatorNotAvailableError) as error:
        raise NotEnoughReplicasError(*error.args) from error  # which older clients know to retry
    except TransactionAbortableError as error:
        if call.version > 10:
            raise
        raise InvalidTxnStateError(*error.args) from error


# -- answering ---------------------------------------------------------------------------------------------------------


async def _answer(call: Call, topic: str, index: int, outcome: _Written | BrokerResponseError, timeout_s: float) -> Any:
    if isinstance(outcome, _Written):
        try:
            if call.request.acks == -1:
                await outcome.partition.committed(outcome.batch.last_offset + 1, outcome.epoch, timeout_s)
            return _Partition(
                index=index,
                error_code=0,
                base_offset=outcome.batch.base_offset,
                log_append_time_ms=-1,
                log_start_offset=outcome.partition.log.start_offset,
                record_errors=[],
                error_message=None,
            )
        except BrokerResponseError as error:
            outcome = error
    answer = _refused(index, outcome.errno, str(outcome.args[0]) if outcome.args else None)
    if call.version >= 10 and isinstance(outcome, NotLeaderForPartitionError) and topic in call.state.topics:
        partition = call.state.partition(topic, index)
        answer.current_leader = _Partition.LeaderIdAndEpoch(
            leader_id=partition.leader, leader_epoch=partition.leader_epoch
        )
    return answer


def _refused(index: int, error_code: int, message: str | None = None) -> Any:
    return _Partition(
        index=index,
        error_code=error_code,
        base_offset=-1,
        log_append_time_ms=-1,
        log_start_offset=-1,
        record_errors=[],
        error_message=message,
    )


def _refuse(call: Call, error_code: int) -> Any:
    if call.request.acks == 0:
        raise Hangup
    return _response(call, lambda _, index: _refused(index, error_code))


def _response(call: Call, one: Callable[[str, int], Any]) -> Any:
    topics = [
        _Topic(name=topic.name, partition_responses=[one(topic.name, each.index) for each in topic.partition_data])
        for topic in call.request.topic_data
    ]
    return call.answer(responses=topics, throttle_time_ms=0, node_endpoints=_endpoints(call, topics))


def _endpoints(call: Call, topics: list[Any]) -> list[Any]:
    """Where the leaders are that the partitions' answers name (KIP-951)."""
    if call.version < 10:
        return []
    told = (each.current_leader for topic in topics for each in topic.partition_responses)
    leaders = {leader.leader_id for leader in told if leader is not None}
    return [
        ProduceResponse.NodeEndpoint(
            node_id=node_id,
            host="127.0.0.1",
            port=call.state.brokers[node_id].ports[call.connection.listener],
            rack=call.state.settings[node_id].broker_rack or None,
        )
        for node_id in sorted(leaders - {-1})
    ]


PRODUCE = Api(ProduceRequest, ProduceResponse, (3, 11), _handle, _refuse)
