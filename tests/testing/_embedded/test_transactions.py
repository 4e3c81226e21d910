"""The requests of producers and transactions, as a client on the wire sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kafka.errors import (
    BrokerResponseError,
    ConcurrentTransactionsError,
    IllegalGenerationError,
    InvalidGroupIdError,
    InvalidProducerEpochError,
    InvalidProducerIdMappingError,
    InvalidRequestError,
    InvalidTransactionTimeoutError,
    InvalidTxnStateError,
    NotCoordinatorError,
    NotEnoughReplicasError,
    OffsetMetadataTooLargeError,
    OperationNotAttemptedError,
    ProducerFencedError,
    TransactionAbortableError,
    TransactionalIdNotFoundError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.admin import DescribeTransactionsRequest, ListTransactionsRequest
from kafka.protocol.producer import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    ProduceRequest,
    TxnOffsetCommitRequest,
)

from pooledkafka.testing import EmbeddedKafka, Error
from tests.testing._embedded.records import encoded
from tests.testing._embedded.wire import Wire, fetch, fetched

ID, GROUP = "id", "group"
MINUTE_MS = 60_000


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=3) as cluster:
        cluster.create_topic("a", assignment=[[1, 2, 3], [1, 2, 3]])
        for key in (ID, GROUP):
            cluster.move_coordinator(key, 1)
        yield cluster


@pytest.fixture
def wire(cluster: EmbeddedKafka) -> Iterator[Wire]:
    """To the broker that leads all partitions and coordinates the transactional id and the group."""
    with Wire(cluster.address_of(1)) as wire:
        yield wire


def error_of(error: type[BrokerResponseError]) -> int:
    return int(error.errno)


# -- requests ----------------------------------------------------------------------------------------------------------


def initialise(
    wire: Wire,
    version: int = 4,
    transactional_id: str | None = ID,
    timeout_ms: int = MINUTE_MS,
    expected: tuple[int, int] = (-1, -1),
) -> Any:
    request = InitProducerIdRequest(
        transactional_id=transactional_id,
        transaction_timeout_ms=timeout_ms,
        producer_id=expected[0],
        producer_epoch=expected[1],
    )
    return wire.ask(request, version)


def producer_of(wire: Wire) -> tuple[int, int]:
    response = initialise(wire)
    assert response.error_code == 0
    return response.producer_id, response.producer_epoch


def add(
    wire: Wire, producer: tuple[int, int], *keys: tuple[str, int], version: int = 3, transactional_id: str = ID
) -> dict[tuple[str, int], int]:
    topics = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic
    request = AddPartitionsToTxnRequest(
        v3_and_below_transactional_id=transactional_id,
        v3_and_below_producer_id=producer[0],
        v3_and_below_producer_epoch=producer[1],
        v3_and_below_topics=[
            topics(name=name, partitions=[index for each, index in keys if each == name])
            for name in sorted({name for name, _ in keys})
        ],
    )
    return {
        (topic.name, each.partition_index): each.partition_error_code
        for topic in wire.ask(request, version).results_by_topic_v3_and_below
        for each in topic.results_by_partition
    }


def add_offsets(wire: Wire, producer: tuple[int, int], version: int = 3, transactional_id: str = ID) -> int:
    request = AddOffsetsToTxnRequest(
        transactional_id=transactional_id, producer_id=producer[0], producer_epoch=producer[1], group_id=GROUP
    )
    return int(wire.ask(request, version).error_code)


def end(
    wire: Wire, producer: tuple[int, int], commits: bool = True, version: int = 3, transactional_id: str = ID
) -> int:
    request = EndTxnRequest(
        transactional_id=transactional_id, producer_id=producer[0], producer_epoch=producer[1], committed=commits
    )
    return int(wire.ask(request, version).error_code)


def commit(
    wire: Wire,
    producer: tuple[int, int],
    *keys: tuple[str, int],
    version: int = 3,
    group_id: str = GROUP,
    metadata: str | None = "m",
    generation_id: int = -1,
    member_id: str = "",
) -> list[int]:
    topics = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic
    partitions = topics.TxnOffsetCommitRequestPartition
    request = TxnOffsetCommitRequest(
        transactional_id=ID,
        group_id=group_id,
        producer_id=producer[0],
        producer_epoch=producer[1],
        generation_id=generation_id,
        member_id=member_id,
        group_instance_id=None,
        topics=[
            topics(
                name=name,
                partitions=[
                    partitions(
                        partition_index=index,
                        committed_offset=5,
                        committed_leader_epoch=-1,
                        committed_metadata=metadata,
                    )
                ],
            )
            for name, index in keys
        ],
    )
    return [each.error_code for topic in wire.ask(request, version).topics for each in topic.partitions]


def write(
    wire: Wire, producer: tuple[int, int], sequence: int, value: bytes = b"v", index: int = 0, version: int = 9
) -> int:
    topics = ProduceRequest.TopicProduceData
    data = encoded(value, producer=producer, sequence=sequence, transactional=True)
    request = ProduceRequest(
        transactional_id=ID,
        acks=-1,
        timeout_ms=5_000,
        topic_data=[topics(name="a", partition_data=[topics.PartitionProduceData(index=index, records=data)])],
    )
    return int(wire.ask(request, version).responses[0].partition_responses[0].error_code)


# -- InitProducerId ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(5))
def test_an_idempotent_producer_gets_an_id_of_its_own(cluster: EmbeddedKafka, version: int) -> None:
    ids = set()
    for node_id in cluster.node_ids:
        with Wire(cluster.address_of(node_id)) as wire:
            response = initialise(wire, version, transactional_id=None)
        assert (response.error_code, response.producer_epoch) == (0, 0)
        ids.add(response.producer_id)
    assert len(ids) == 3


@pytest.mark.parametrize("version", range(5))
def test_a_transactional_producer_gets_the_next_epoch(wire: Wire, version: int) -> None:
    first, second = initialise(wire, version), initialise(wire, version)
    assert (first.error_code, second.error_code) == (0, 0)
    assert first.producer_id == second.producer_id
    assert (first.producer_epoch, second.producer_epoch) == (0, 1)


@pytest.mark.parametrize(("version", "error"), [(3, InvalidProducerEpochError), (4, ProducerFencedError)])
def test_a_producer_goes_on_unless_another_has_come(wire: Wire, version: int, error: type[BrokerResponseError]) -> None:
    producer_id, epoch = producer_of(wire)
    response = initialise(wire, version, expected=(producer_id, epoch))
    assert (response.error_code, response.producer_id, response.producer_epoch) == (0, producer_id, epoch + 1)
    producer_of(wire)
    response = initialise(wire, version, expected=(producer_id, epoch + 1))
    assert (response.error_code, response.producer_id, response.producer_epoch) == (error_of(error), -1, -1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout_ms": 900_001}, InvalidTransactionTimeoutError),
        ({"timeout_ms": 0}, InvalidTransactionTimeoutError),
        ({"transactional_id": ""}, InvalidRequestError),
        ({"expected": (1, -1)}, InvalidRequestError),
        ({"expected": (-1, 1)}, InvalidRequestError),
    ],
)
def test_what_cannot_be_a_producer_is_refused(
    wire: Wire, options: dict[str, Any], error: type[BrokerResponseError]
) -> None:
    assert initialise(wire, **options).error_code == error_of(error)


def test_the_longest_timeout_is_a_property() -> None:
    config = {"transaction.max.timeout.ms": "5000"}
    with EmbeddedKafka(brokers=1, config=config) as cluster, Wire(cluster.address_of(1)) as wire:
        assert initialise(wire, timeout_ms=5_001).error_code == error_of(InvalidTransactionTimeoutError)
        assert initialise(wire, timeout_ms=5_000).error_code == 0


# -- AddPartitionsToTxn, AddOffsetsToTxn, EndTxn -----------------------------------------------------------------------


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("version", range(4))
def test_a_transaction(wire: Wire, cluster: EmbeddedKafka, version: int, commits: bool) -> None:
    producer = producer_of(wire)
    assert add(wire, producer, ("a", 0), ("a", 1), version=version) == {("a", 0): 0, ("a", 1): 0}
    assert add_offsets(wire, producer, version) == 0
    assert write(wire, producer, 0) == 0
    assert fetched(wire.ask(fetch("a", isolation_level=1), 11)) == []
    assert end(wire, producer, commits, version) == 0
    for index, length in ((0, 2), (1, 1)):  # one with a record and a marker, one with a marker alone
        assert cluster.high_watermark_of("a", index) == length
    partition = wire.ask(fetch("a", isolation_level=1), 11).responses[0].partitions[0]
    aborted = [(each.producer_id, each.first_offset) for each in partition.aborted_transactions]
    assert (partition.last_stable_offset, aborted) == (2, [] if commits else [(producer[0], 0)])


def test_no_partition_is_added_where_one_is_unknown(wire: Wire) -> None:
    producer = producer_of(wire)
    unknown, others = error_of(UnknownTopicOrPartitionError), error_of(OperationNotAttemptedError)
    assert add(wire, producer, ("a", 0), ("a", 7), ("b", 0)) == {("a", 0): others, ("a", 7): unknown, ("b", 0): unknown}
    assert write(wire, producer, 0) == error_of(InvalidTxnStateError)


@pytest.mark.parametrize(("version", "error"), [(1, InvalidProducerEpochError), (2, ProducerFencedError)])
def test_a_producer_that_was_replaced_hears_of_it(wire: Wire, version: int, error: type[BrokerResponseError]) -> None:
    old = producer_of(wire)
    producer_of(wire)
    code = error_of(error)
    assert add(wire, old, ("a", 0), version=version) == {("a", 0): code}
    assert add_offsets(wire, old, version) == code
    assert end(wire, old, version=version) == code


@pytest.mark.parametrize("transactional_id", [ID, "unknown"])
def test_a_producer_that_is_unknown_hears_of_it(wire: Wire, cluster: EmbeddedKafka, transactional_id: str) -> None:
    cluster.move_coordinator(transactional_id, 1)
    producer_id, epoch = producer_of(wire)
    other, code = (producer_id + 1, epoch), error_of(InvalidProducerIdMappingError)
    assert add(wire, other, ("a", 0), transactional_id=transactional_id) == {("a", 0): code}
    assert add_offsets(wire, other, transactional_id=transactional_id) == code
    assert end(wire, other, transactional_id=transactional_id) == code


def test_no_transactional_id_is_empty(wire: Wire) -> None:
    code = error_of(InvalidRequestError)
    assert add(wire, (1, 0), ("a", 0), transactional_id="") == {("a", 0): code}
    assert add_offsets(wire, (1, 0), transactional_id="") == code
    assert end(wire, (1, 0), transactional_id="") == code


def test_only_the_coordinator_answers_and_its_state_moves(wire: Wire, cluster: EmbeddedKafka) -> None:
    producer = producer_of(wire)
    add(wire, producer, ("a", 0))
    cluster.move_coordinator(ID, 2)
    code = error_of(NotCoordinatorError)
    assert initialise(wire).error_code == code
    assert add(wire, producer, ("a", 0)) == {("a", 0): code}
    assert add_offsets(wire, producer) == code
    assert end(wire, producer) == code
    with Wire(cluster.address_of(2)) as other:
        assert end(other, producer) == 0
    assert cluster.high_watermark_of("a") == 1


def test_an_end_that_was_not_begun_is_refused(wire: Wire) -> None:
    producer = producer_of(wire)
    assert end(wire, producer) == error_of(InvalidTxnStateError)


def test_all_is_to_wait_while_an_end_is_not_replicated(wire: Wire, cluster: EmbeddedKafka) -> None:
    producer = producer_of(wire)
    add(wire, producer, ("a", 0))
    cluster.slow_follower(3, None)
    assert end(wire, producer) == 0
    code = error_of(ConcurrentTransactionsError)
    assert initialise(wire).error_code == code
    assert add(wire, producer, ("a", 1)) == {("a", 1): code}
    assert end(wire, producer) == code
    assert write(wire, producer, 0) == error_of(NotEnoughReplicasError)
    cluster.slow_follower(3, 0)
    while (added := add(wire, producer, ("a", 1))) == {("a", 1): code}:
        pass
    assert added == {("a", 1): 0}


@pytest.mark.parametrize(("version", "error"), [(10, InvalidTxnStateError), (11, TransactionAbortableError)])
def test_a_write_to_a_partition_outside_the_transaction_is_refused(
    wire: Wire, version: int, error: type[BrokerResponseError]
) -> None:
    producer = producer_of(wire)
    add(wire, producer, ("a", 0))
    assert write(wire, producer, 0, index=1, version=version) == error_of(error)
    assert write(wire, producer, 0, index=0, version=version) == 0


def test_another_epoch_cannot_write_to_an_open_transaction(wire: Wire) -> None:
    producer_id, epoch = producer_of(wire)
    add(wire, (producer_id, epoch), ("a", 0))
    assert write(wire, (producer_id, epoch), 0) == 0
    assert write(wire, (producer_id, epoch + 1), 0) == error_of(InvalidProducerEpochError)
    assert write(wire, (producer_id, epoch), 1) == 0


def test_a_replaced_producer_cannot_write(wire: Wire) -> None:
    old = producer_of(wire)
    add(wire, old, ("a", 0))
    write(wire, old, 0)
    assert initialise(wire).error_code == error_of(ConcurrentTransactionsError)
    producer_of(wire)
    assert write(wire, old, 1) == error_of(InvalidProducerEpochError)


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("InitProducerId", lambda wire: initialise(wire).error_code),
        ("AddPartitionsToTxn", lambda wire: add(wire, (1, 0), ("a", 0))["a", 0]),
        ("AddOffsetsToTxn", lambda wire: add_offsets(wire, (1, 0))),
        ("EndTxn", lambda wire: end(wire, (1, 0))),
        ("TxnOffsetCommit", lambda wire: commit(wire, (1, 0), ("a", 0))[0]),
        ("ListTransactions", lambda wire: listed(wire).error_code),
        ("DescribeTransactions", lambda wire: described(wire).error_code),
    ],
)
def test_a_fault_answers_with_its_error(cluster: EmbeddedKafka, wire: Wire, name: str, ask: Any) -> None:
    with cluster.intercept(name, Error(NotCoordinatorError), times=1):
        assert ask(wire) == error_of(NotCoordinatorError)


# -- TxnOffsetCommit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(4))
def test_offsets_are_staged_for_the_transaction(wire: Wire, version: int) -> None:
    producer = producer_of(wire)
    assert commit(wire, producer, ("a", 0), version=version) == [error_of(InvalidTxnStateError)]
    add_offsets(wire, producer)
    unknown = error_of(UnknownTopicOrPartitionError)
    assert commit(wire, producer, ("a", 0), ("a", 5), ("b", 0), version=version) == [0, unknown, unknown]
    assert end(wire, producer) == 0
    assert commit(wire, producer, ("a", 0), version=version) == [error_of(InvalidTxnStateError)]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"group_id": ""}, InvalidGroupIdError),
        ({"metadata": "m" * 5_000}, OffsetMetadataTooLargeError),
        ({"generation_id": 3, "member_id": "gone"}, IllegalGenerationError),
    ],
)
def test_offsets_that_cannot_be_committed_are_refused(
    wire: Wire, options: dict[str, Any], error: type[BrokerResponseError]
) -> None:
    producer = producer_of(wire)
    add_offsets(wire, producer)
    assert commit(wire, producer, ("a", 0), **options) == [error_of(error)]
    assert commit(wire, producer, ("a", 0), metadata=None) == [0]


def test_offsets_are_committed_by_a_member_of_the_group(wire: Wire) -> None:
    producer = producer_of(wire)
    add_offsets(wire, producer)
    assert commit(wire, producer, ("a", 0)) == [0]  # which makes the group
    assert commit(wire, producer, ("a", 0), generation_id=0, member_id="gone") == [error_of(UnknownMemberIdError)]


def test_offsets_are_committed_by_the_producer_and_at_the_coordinator(wire: Wire, cluster: EmbeddedKafka) -> None:
    old = producer_of(wire)
    add_offsets(wire, old)
    assert initialise(wire).error_code == error_of(ConcurrentTransactionsError)
    producer_id, epoch = producer_of(wire)
    assert commit(wire, old, ("a", 0)) == [error_of(InvalidProducerEpochError)]
    assert commit(wire, (producer_id + 1, epoch), ("a", 0)) == [error_of(InvalidProducerIdMappingError)]
    cluster.move_coordinator(GROUP, 2)
    assert commit(wire, old, ("a", 0)) == [error_of(NotCoordinatorError)]


# -- ListTransactions, DescribeTransactions ----------------------------------------------------------------------------


def listed(wire: Wire, version: int = 1, duration_ms: int = -1, **filters: Any) -> Any:
    fields = {"state_filters": [], "producer_id_filters": [], **filters}
    return wire.ask(ListTransactionsRequest(duration_filter=duration_ms, **fields), version)


def described(wire: Wire, transactional_id: str = ID) -> Any:
    return wire.ask(DescribeTransactionsRequest(transactional_ids=[transactional_id]), 0).transaction_states[0]


def test_transactions_are_listed_by_their_coordinator(wire: Wire, cluster: EmbeddedKafka) -> None:
    producer = producer_of(wire)
    add(wire, producer, ("a", 0))

    def found(version: int = 1, **options: Any) -> list[tuple[str, int, str]]:
        states = listed(wire, version, **options).transaction_states
        return [(each.transactional_id, each.producer_id, each.transaction_state) for each in states]

    ongoing = [(ID, producer[0], "Ongoing")]
    assert found(0) == found(1) == ongoing
    assert found(state_filters=["Ongoing"], producer_id_filters=[producer[0]]) == ongoing
    assert found(state_filters=["Empty"]) == []
    assert found(producer_id_filters=[producer[0] + 1]) == []
    assert found(duration_ms=3_600_000) == []
    assert list(listed(wire, state_filters=["Odd"]).unknown_state_filters) == ["Odd"]
    cluster.move_coordinator(ID, 2)
    assert found() == []


def test_a_transaction_is_described(wire: Wire, cluster: EmbeddedKafka) -> None:
    producer = producer_of(wire)
    add(wire, producer, ("a", 1), ("a", 0))
    state = described(wire)
    assert (state.error_code, state.transaction_state, state.transaction_timeout_ms) == (0, "Ongoing", MINUTE_MS)
    assert (state.producer_id, state.producer_epoch) == producer
    assert state.transaction_start_time_ms > 0
    assert [(topic.topic, list(topic.partitions)) for topic in state.topics] == [("a", [0, 1])]
    end(wire, producer)
    state = described(wire)
    assert (state.transaction_state, list(state.topics)) == ("CompleteCommit", [])
    cluster.move_coordinator(ID, 2)
    assert described(wire).error_code == error_of(NotCoordinatorError)
    with Wire(cluster.address_of(cluster.coordinator_of("unknown"))) as other:
        assert described(other, "unknown").error_code == error_of(TransactionalIdNotFoundError)
