"""The requests of idempotent and transactional producers, and what an administrator may ask of transactions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kafka.errors import (
    BrokerResponseError,
    InvalidGroupIdError,
    InvalidProducerEpochError,
    InvalidProducerIdMappingError,
    InvalidRequestError,
    InvalidTransactionTimeoutError,
    InvalidTxnStateError,
    NoError,
    OffsetMetadataTooLargeError,
    OperationNotAttemptedError,
    ProducerFencedError,
    TransactionAbortableError,
    TransactionalIdNotFoundError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.admin import (
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
    ListTransactionsRequest,
    ListTransactionsResponse,
)
from kafka.protocol.producer import (
    AddOffsetsToTxnRequest,
    AddOffsetsToTxnResponse,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    EndTxnRequest,
    EndTxnResponse,
    InitProducerIdRequest,
    InitProducerIdResponse,
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
)

from ..call import Api, Call
from ..group import commit_group
from ..group_offsets import Committed
from ..transaction import Phase, Transaction
from .coordinators import check_coordinator

__all__ = ["TRANSACTIONS"]

_NO_PRODUCER = (-1, -1)


def _transaction(call: Call, transactional_id: str) -> Transaction:
    """The transactional id that this broker coordinates."""
    if not transactional_id:
        raise InvalidRequestError("a transactional id is empty")
    check_coordinator(call, transactional_id)
    return _known(call, transactional_id)


def _known(call: Call, transactional_id: str) -> Transaction:
    found = call.state.transactions.get(transactional_id)
    if found is None:
        raise InvalidProducerIdMappingError(f"transactional id {transactional_id!r} is not known")
    assert isinstance(found, Transaction)
    return found


def _code(call: Call, error: BrokerResponseError, fenced_from: int = 2) -> int:
    """The error's code; PRODUCER_FENCED came with a later version of each request."""
    if isinstance(error, ProducerFencedError) and call.version < fenced_from:
        return int(InvalidProducerEpochError.errno)
    return int(error.errno)


# -- InitProducerId ----------------------------------------------------------------------------------------------------


async def _init_producer_id(call: Call) -> Any:
    try:
        producer_id, epoch = _initialised(call)
    except BrokerResponseError as error:
        return _refuse_init(call, _code(call, error, fenced_from=4))
    return call.answer(throttle_time_ms=0, error_code=0, producer_id=producer_id, producer_epoch=epoch)


def _initialised(call: Call) -> tuple[int, int]:
    request, state = call.request, call.state
    expected = (request.producer_id, request.producer_epoch) if call.version >= 3 else _NO_PRODUCER
    if expected != _NO_PRODUCER and -1 in expected:
        raise InvalidRequestError("a producer id without an epoch, or the reverse")
    if request.transactional_id is None:
        return state.new_producer_id(), 0  # whatever producer it was before
    if not request.transactional_id:
        raise InvalidRequestError("the transactional id is empty")
    if not 0 < request.transaction_timeout_ms <= call.settings.transaction_max_timeout_ms:
        raise InvalidTransactionTimeoutError(
            f"{request.transaction_timeout_ms} ms; the most is {call.settings.transaction_max_timeout_ms}"
        )
    check_coordinator(call, request.transactional_id)
    if request.transactional_id not in state.transactions:
        state.transactions[request.transactional_id] = Transaction(state, request.transactional_id)
    transaction = _known(call, request.transactional_id)
    return transaction.initialise(request.transaction_timeout_ms, None if expected == _NO_PRODUCER else expected)


def _refuse_init(call: Call, error_code: int) -> Any:
    return call.answer(throttle_time_ms=0, error_code=error_code, producer_id=-1, producer_epoch=-1)


# -- AddPartitionsToTxn ------------------------------------------------------------------------------------------------


async def _add_partitions(call: Call) -> Any:
    request = call.request
    asked = [(topic.name, index) for topic in request.v3_and_below_topics for index in topic.partitions]
    unknown = {key for key in asked if not _exists(call, *key)}
    if unknown:  # then none is added
        codes = {True: UnknownTopicOrPartitionError.errno, False: OperationNotAttemptedError.errno}
        return _added(call, lambda topic, index: codes[(topic, index) in unknown])
    try:
        transaction = _transaction(call, request.v3_and_below_transactional_id)
        transaction.add(request.v3_and_below_producer_id, request.v3_and_below_producer_epoch, asked)
    except BrokerResponseError as error:
        return _refuse_partitions(call, _code(call, error))
    return _refuse_partitions(call, NoError.errno)


def _exists(call: Call, topic: str, index: int) -> bool:
    return topic in call.state.topics and 0 <= index < len(call.state.topics[topic].partitions)


def _refuse_partitions(call: Call, error_code: int) -> Any:
    return _added(call, lambda *_: error_code)


def _added(call: Call, code_of: Callable[[str, int], int]) -> Any:
    of_topic = AddPartitionsToTxnResponse.AddPartitionsToTxnTopicResult
    of_partition = of_topic.AddPartitionsToTxnPartitionResult
    results = [
        of_topic(
            name=topic.name,
            results_by_partition=[
                of_partition(partition_index=index, partition_error_code=code_of(topic.name, index))
                for index in topic.partitions
            ],
        )
        for topic in call.request.v3_and_below_topics
    ]
    return call.answer(throttle_time_ms=0, results_by_topic_v3_and_below=results)


# -- AddOffsetsToTxn and EndTxn ----------------------------------------------------------------------------------------


async def _add_offsets(call: Call) -> Any:
    request = call.request
    try:
        transaction = _transaction(call, request.transactional_id)
        transaction.add(request.producer_id, request.producer_epoch, group_id=request.group_id)
    except BrokerResponseError as error:
        return _refuse(call, _code(call, error))
    return _refuse(call, NoError.errno)


async def _end(call: Call) -> Any:
    request = call.request
    try:
        transaction = _transaction(call, request.transactional_id)
        transaction.end(request.producer_id, request.producer_epoch, request.committed)
    except BrokerResponseError as error:
        return _refuse(call, _code(call, error))
    return _refuse(call, NoError.errno)  # though markers may be missing yet


def _refuse(call: Call, error_code: int) -> Any:
    return call.answer(throttle_time_ms=0, error_code=error_code)


# -- TxnOffsetCommit ---------------------------------------------------------------------------------------------------


async def _commit_offsets(call: Call) -> Any:
    asked = {(topic.name, each.partition_index): each for topic in call.request.topics for each in topic.partitions}
    codes = {key: UnknownTopicOrPartitionError.errno for key in asked if not _exists(call, *key)}
    known = {key: each for key, each in asked.items() if key not in codes}
    try:
        codes.update(_staged(call, known) if known else {})
    except BrokerResponseError as error:
        codes.update(dict.fromkeys(known, error.errno))
    return _offsets_committed(call, lambda topic, index: codes[topic, index])


def _staged(call: Call, asked: dict[tuple[str, int], Any]) -> dict[tuple[str, int], int]:
    """As GroupCoordinatorService and OffsetMetadataManager; returns the partitions' error codes."""
    request = call.request
    if not request.group_id:
        raise InvalidGroupIdError("the group id is empty")
    check_coordinator(call, request.group_id)
    transaction = _known(call, request.transactional_id)
    try:
        transaction.check_commits(request.producer_id, request.producer_epoch, request.group_id)
    except ProducerFencedError as error:
        raise InvalidProducerEpochError(*error.args) from error
    except TransactionAbortableError as error:
        raise InvalidTxnStateError(*error.args) from error
    member = (request.generation_id, request.member_id, request.group_instance_id)
    generation_id, member_id, instance_id = member if call.version >= 3 else (-1, "", None)
    group = commit_group(call.state, request.group_id, generation_id)
    group.check_commit(generation_id, member_id, instance_id, transactional=True)
    longest = call.settings.offset_metadata_max_bytes
    too_long = {key for key, each in asked.items() if len(each.committed_metadata or "") > longest}
    group.offsets.stage(
        request.producer_id,
        {
            key: Committed(
                each.committed_offset,
                each.committed_leader_epoch if call.version >= 2 else -1,
                each.committed_metadata or "",
            )
            for key, each in asked.items()
            if key not in too_long
        },
    )
    return {key: OffsetMetadataTooLargeError.errno if key in too_long else 0 for key in asked}


def _refuse_commit(call: Call, error_code: int) -> Any:
    return _offsets_committed(call, lambda *_: error_code)


def _offsets_committed(call: Call, code_of: Callable[[str, int], int]) -> Any:
    of_topic = TxnOffsetCommitResponse.TxnOffsetCommitResponseTopic
    of_partition = of_topic.TxnOffsetCommitResponsePartition
    topics = [
        of_topic(
            name=topic.name,
            partitions=[
                of_partition(partition_index=each.partition_index, error_code=code_of(topic.name, each.partition_index))
                for each in topic.partitions
            ],
        )
        for topic in call.request.topics
    ]
    return call.answer(throttle_time_ms=0, topics=topics)


# -- ListTransactions and DescribeTransactions -------------------------------------------------------------------------


async def _list(call: Call) -> Any:
    request = call.request
    names = {phase.value for phase in Phase}
    least_ms = request.duration_filter if call.version >= 1 else -1
    now_ms = round(time.time() * 1000)
    found = [
        ListTransactionsResponse.TransactionState(
            transactional_id=each.transactional_id, producer_id=each.producer_id, transaction_state=each.phase.value
        )
        for each in call.state.transactions.values()
        if call.state.coordinator_of(each.transactional_id) == call.broker.node_id
        and (not request.producer_id_filters or each.producer_id in request.producer_id_filters)
        and (not request.state_filters or each.phase.value in request.state_filters)
        and (least_ms < 0 or now_ms - each.started_at_ms > least_ms)
    ]
    unknown = [name for name in request.state_filters if name not in names]
    return _listed(call, 0, unknown, found)


def _refuse_list(call: Call, error_code: int) -> Any:
    return _listed(call, error_code, [], [])


def _listed(call: Call, error_code: int, unknown: list[str], found: list[Any]) -> Any:
    return call.answer(
        throttle_time_ms=0, error_code=error_code, unknown_state_filters=unknown, transaction_states=found
    )


async def _describe(call: Call) -> Any:
    return _described(call, lambda transactional_id: _description(call, transactional_id))


def _description(call: Call, transactional_id: str) -> Any:
    try:
        transaction = _transaction(call, transactional_id)
    except InvalidProducerIdMappingError:
        return _no_description(transactional_id, TransactionalIdNotFoundError.errno)
    except BrokerResponseError as error:
        return _no_description(transactional_id, error.errno)
    by_topic: dict[str, list[int]] = {}
    for topic, index in sorted(transaction.partitions):
        by_topic.setdefault(topic, []).append(index)
    described = _no_description(transactional_id, 0)
    described.transaction_state = transaction.phase.value
    described.transaction_timeout_ms = transaction.timeout_ms
    described.transaction_start_time_ms = transaction.started_at_ms
    described.producer_id = transaction.producer_id
    described.producer_epoch = transaction.producer_epoch
    of_topic = DescribeTransactionsResponse.TransactionState.TopicData
    described.topics = [of_topic(topic=topic, partitions=indexes) for topic, indexes in by_topic.items()]
    return described


def _no_description(transactional_id: str, error_code: int) -> Any:
    return DescribeTransactionsResponse.TransactionState(
        error_code=error_code,
        transactional_id=transactional_id,
        transaction_state="",
        transaction_timeout_ms=0,
        transaction_start_time_ms=0,
        producer_id=0,
        producer_epoch=0,
        topics=[],
    )


def _refuse_describe(call: Call, error_code: int) -> Any:
    return _described(call, lambda transactional_id: _no_description(transactional_id, error_code))


def _described(call: Call, one: Callable[[str], Any]) -> Any:
    states = [one(transactional_id) for transactional_id in call.request.transactional_ids]
    return call.answer(throttle_time_ms=0, transaction_states=states)


TRANSACTIONS = (
    Api(InitProducerIdRequest, InitProducerIdResponse, (0, 4), _init_producer_id, _refuse_init),
    Api(AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, (0, 3), _add_partitions, _refuse_partitions),
    Api(AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, (0, 3), _add_offsets, _refuse),
    Api(EndTxnRequest, EndTxnResponse, (0, 3), _end, _refuse),
    Api(TxnOffsetCommitRequest, TxnOffsetCommitResponse, (0, 3), _commit_offsets, _refuse_commit),
    Api(ListTransactionsRequest, ListTransactionsResponse, (0, 1), _list, _refuse_list),
    Api(DescribeTransactionsRequest, DescribeTransactionsResponse, (0, 0), _describe, _refuse_describe),
)
