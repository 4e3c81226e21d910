"""Produce, as a client on the wire sees it."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.errors import (
    BrokerResponseError,
    CorruptRecordError,
    InvalidProducerIdMappingError,
    InvalidRecordError,
    InvalidRequiredAcksError,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumberError,
    RequestTimedOutError,
    TransactionalIdAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedCompressionTypeError,
)
from kafka.protocol.producer import ProduceRequest
from kafka.record.default_records import DefaultRecordBatch

from pooledkafka.testing import EmbeddedKafka, Error, Hold
from pooledkafka.testing._embedded.batches import control_batch
from tests.testing._embedded.records import encoded, signed
from tests.testing._embedded.wire import Wire, fetch, fetched

Records = dict[tuple[str, int], bytes]
PRODUCER = (7, 0)


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=3) as cluster:
        cluster.create_topic("a", assignment=[[1, 2, 3], [1, 2, 3], [2, 3, 1]])
        yield cluster


def request(records: Records, acks: int = -1, timeout_ms: int = 5_000, transactional_id: str | None = None) -> Any:
    topics = ProduceRequest.TopicProduceData
    return ProduceRequest(
        transactional_id=transactional_id,
        acks=acks,
        timeout_ms=timeout_ms,
        topic_data=[
            topics(name=name, partition_data=[topics.PartitionProduceData(index=index, records=data)])
            for (name, index), data in records.items()
        ],
    )


def answers(response: Any) -> dict[tuple[str, int], Any]:
    return {(topic.name, each.index): each for topic in response.responses for each in topic.partition_responses}


def put(wire: Wire, data: bytes, version: int = 9, key: tuple[str, int] = ("a", 0), **options: Any) -> Any:
    """The answer to one batch."""
    return answers(wire.ask(request({key: data}, **options), version))[key]


def error_of(error: type[BrokerResponseError]) -> int:
    return int(error.errno)


@pytest.mark.parametrize("version", range(3, 12))
@pytest.mark.parametrize("acks", [1, -1])
def test_a_batch_is_appended(wire: Wire, cluster: EmbeddedKafka, version: int, acks: int) -> None:
    for offset in (0, 2):
        answer = put(wire, encoded(b"one", b"two"), version, acks=acks)
        assert (answer.error_code, answer.base_offset, answer.log_append_time_ms) == (0, offset, -1)
        assert version < 5 or answer.log_start_offset == 0
    assert fetched(wire.ask(fetch("a"), 11)) == [b"one", b"two"] * 2


def test_partitions_are_answered_for_themselves(wire: Wire) -> None:
    records = {("a", 0): encoded(b"v"), ("a", 2): encoded(b"v"), ("a", 9): encoded(b"v"), ("b", 0): encoded(b"v")}
    found = {key: each.error_code for key, each in answers(wire.ask(request(records), 9)).items()}
    assert found == {
        ("a", 0): 0,
        ("a", 2): error_of(NotLeaderForPartitionError),
        ("a", 9): error_of(UnknownTopicOrPartitionError),
        ("b", 0): error_of(UnknownTopicOrPartitionError),
    }


@pytest.mark.parametrize("version", [9, 10])
def test_who_asks_the_wrong_broker_is_told_which_is_the_right_one(
    cluster: EmbeddedKafka, wire: Wire, version: int
) -> None:
    response = wire.ask(request({("a", 2): encoded(b"v")}), version)
    answer = answers(response)["a", 2]
    assert answer.error_code == error_of(NotLeaderForPartitionError)
    if version >= 10:
        assert (answer.current_leader.leader_id, answer.current_leader.leader_epoch) == (2, 0)
        (node,) = response.node_endpoints
        assert (node.node_id, f"{node.host}:{node.port}") == (2, cluster.address_of(2))
    else:
        assert not answer.current_leader
        assert not response.node_endpoints


def with_count(count: int) -> bytes:
    data = bytearray(encoded(b"v"))
    struct.pack_into(">i", data, DefaultRecordBatch.HEADER_STRUCT.size - 4, count)
    return signed(data)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", InvalidRecordError),
        (encoded(b"v") + encoded(b"v"), InvalidRecordError),
        (encoded(b"v")[:-2] + b"xy", CorruptRecordError),
        (with_count(5), InvalidRecordError),
        (control_batch(1, 0, True, 1_000, 0).data, TransactionalIdAuthorizationFailedError),
        (encoded(b"v" * 2_000_000), MessageSizeTooLargeError),
        (encoded(b"v", timestamp=round(time.time() * 1000) + 40_000_000), InvalidTimestampError),
        (encoded(b"v", producer=PRODUCER), InvalidRecordError),
    ],
    ids=["none", "two", "checksum", "count", "marker", "size", "future", "sequence"],
)
def test_what_is_no_batch_to_append_is_refused(wire: Wire, data: bytes, error: type[BrokerResponseError]) -> None:
    answer = put(wire, data)
    assert (answer.error_code, answer.base_offset) == (error_of(error), -1)
    assert put(wire, encoded(b"v")).base_offset == 0


def test_the_size_of_a_batch_is_limited_by_its_topic(cluster: EmbeddedKafka) -> None:
    cluster.create_topic("small", assignment=[[1]], config={"max.message.bytes": "100", "min.insync.replicas": "1"})
    with Wire(cluster.address_of(1)) as wire:
        assert put(wire, encoded(b"v" * 100), key=("small", 0)).error_code == error_of(MessageSizeTooLargeError)
        assert put(wire, encoded(b"v"), key=("small", 0)).error_code == 0


def test_compressed_records_come_back_as_they_were_sent(wire: Wire) -> None:
    data = encoded(b"value" * 50, b"value" * 50, compression=1)
    assert put(wire, data).error_code == 0
    assert bytes(wire.ask(fetch("a"), 11).responses[0].partitions[0].records)[16:] == data[16:]


def test_zstd_needs_a_client_that_knows_it(wire: Wire) -> None:
    data = bytearray(encoded(b"v"))
    struct.pack_into(">h", data, DefaultRecordBatch.ATTRIBUTES_OFFSET, DefaultRecordBatch.CODEC_ZSTD)
    assert put(wire, signed(data), 6).error_code == error_of(UnsupportedCompressionTypeError)
    assert put(wire, signed(data), 7).error_code == 0


# -- idempotent producers ----------------------------------------------------------------------------------------------


def test_a_repeated_batch_is_answered_with_its_offset(wire: Wire) -> None:
    batches = [encoded(b"v", b"v", producer=PRODUCER, sequence=2 * number) for number in range(6)]
    assert [put(wire, batch).base_offset for batch in batches] == [0, 2, 4, 6, 8, 10]
    assert [put(wire, batch).base_offset for batch in batches[1:]] == [2, 4, 6, 8, 10]
    assert put(wire, batches[0]).error_code == error_of(OutOfOrderSequenceNumberError)
    assert put(wire, encoded(b"v", producer=PRODUCER, sequence=13)).error_code == error_of(
        OutOfOrderSequenceNumberError
    )
    assert put(wire, encoded(b"v", producer=PRODUCER, sequence=12)).base_offset == 12


def test_a_repeated_batch_waits_for_the_followers_too(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.slow_follower(3, None)
    batch = encoded(b"v", producer=PRODUCER, sequence=0)
    for _ in range(2):
        assert put(wire, batch, timeout_ms=10).error_code == error_of(RequestTimedOutError)
    number = wire.send(request({("a", 0): batch}), 9)
    cluster.slow_follower(3, 0)
    assert wire.receive()[0] == number
    assert cluster.high_watermark_of("a") == 1


def test_sequences_survive_a_new_leader(cluster: EmbeddedKafka, wire: Wire) -> None:
    batch = encoded(b"v", producer=PRODUCER, sequence=0)
    assert put(wire, batch).base_offset == 0
    cluster.move_leader("a", 0, 2)
    with Wire(cluster.address_of(2)) as other:
        assert put(other, batch).base_offset == 0
        assert put(other, encoded(b"v", producer=PRODUCER, sequence=1)).base_offset == 1


# -- acks --------------------------------------------------------------------------------------------------------------


def test_other_acks_are_refused(wire: Wire) -> None:
    assert put(wire, encoded(b"v"), acks=2).error_code == error_of(InvalidRequiredAcksError)


def test_without_acks_an_error_ends_the_connection(cluster: EmbeddedKafka, wire: Wire) -> None:
    wire.send(request({("a", 0): encoded(b"v")}, acks=0), 9)
    assert put(wire, encoded(b"v")).base_offset == 1
    wire.send(request({("a", 2): encoded(b"v")}, acks=0), 9)
    wire.send(request({("a", 0): encoded(b"v")}), 9)
    assert wire.has_ended()
    assert cluster.high_watermark_of("a") == 2  # what was asked behind it is not done


def test_without_acks_an_error_by_a_fault_ends_the_connection_too(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.intercept("Produce", Error(NotLeaderForPartitionError))
    wire.send(request({("a", 0): encoded(b"v")}, acks=0), 9)
    assert wire.has_ended()
    assert cluster.high_watermark_of("a") == 0


def test_acks_of_the_leader_do_not_wait_for_followers(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.slow_follower(3, None)
    assert put(wire, encoded(b"v"), acks=1, timeout_ms=0).base_offset == 0
    assert cluster.high_watermark_of("a") == 0


def test_followers_that_are_too_slow_time_out_all_partitions_together(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.slow_follower(3, None)
    records = {("a", 0): encoded(b"v"), ("a", 1): encoded(b"v"), ("b", 0): encoded(b"v")}
    found = {key: each.error_code for key, each in answers(wire.ask(request(records, timeout_ms=20), 9)).items()}
    late, unknown = error_of(RequestTimedOutError), error_of(UnknownTopicOrPartitionError)
    assert found == {("a", 0): late, ("a", 1): late, ("b", 0): unknown}


def test_acks_of_all_need_enough_replicas(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.kill(2)
    cluster.kill(3)
    assert put(wire, encoded(b"v")).error_code == error_of(NotEnoughReplicasError)
    assert put(wire, encoded(b"v"), acks=1).base_offset == 0


def test_replicas_that_are_lost_meanwhile_are_too_few_afterwards(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.slow_follower(3, None)
    cluster.slow_follower(2, None)
    wire.send(request({("a", 0): encoded(b"v")}), 9)
    with (
        cluster.intercept("Produce", Hold(), client_id="marker") as met,
        Wire(cluster.address_of(1), "marker") as other,
    ):
        other.send(request({("a", 1): encoded(b"v")}), 9)
        met.wait_for(1)  # so the request before has been served up to its wait
        cluster.kill(2)
        cluster.kill(3)
        _, response = wire.receive()
    assert answers(response)["a", 0].error_code == error_of(NotEnoughReplicasAfterAppendError)


def test_a_leader_that_moves_answers_who_waits(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.slow_follower(3, None)
    cluster.slow_follower(2, None)
    wire.send(request({("a", 0): encoded(b"v")}), 9)
    with (
        cluster.intercept("Produce", Hold(), client_id="marker") as met,
        Wire(cluster.address_of(1), "marker") as other,
    ):
        other.send(request({("a", 1): encoded(b"v")}), 9)
        met.wait_for(1)
        cluster.move_leader("a", 0, 2)
        _, response = wire.receive()
    assert answers(response)["a", 0].error_code == error_of(NotLeaderForPartitionError)
    assert cluster.high_watermark_of("a") == 0


# -- transactions ------------------------------------------------------------------------------------------------------


def test_records_of_a_transaction_need_its_id(wire: Wire) -> None:
    data = encoded(b"v", producer=PRODUCER, sequence=0, transactional=True)
    records = {("a", 0): data, ("a", 1): encoded(b"v")}
    codes = {each.error_code for each in answers(wire.ask(request(records), 9)).values()}
    assert codes == {error_of(TransactionalIdAuthorizationFailedError)}
    assert put(wire, data, transactional_id="unknown").error_code == error_of(InvalidProducerIdMappingError)


def test_a_request_has_records_of_one_transactional_producer(wire: Wire) -> None:
    records = {("a", index): encoded(b"v", producer=(index, 0), sequence=0, transactional=True) for index in range(2)}
    codes = {each.error_code for each in answers(wire.ask(request(records, transactional_id="id"), 9)).values()}
    assert codes == {error_of(InvalidProducerIdMappingError)}
