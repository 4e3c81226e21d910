"""Faults that spoil answers: wrong bytes, errors for some partitions, throttling."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.consumer import KafkaConsumer
from kafka.errors import CorruptRecordError, NotLeaderForPartitionError, RequestTimedOutError
from kafka.protocol.consumer import ListOffsetsRequest, OffsetCommitRequest, OffsetFetchRequest
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.parser import KafkaProtocol
from kafka.structs import TopicPartition

from pooledkafka.testing import Corrupt, EmbeddedKafka, Error, Throttle
from tests.testing._embedded.wire import Wire, fetch, fetched, produce

FRAMES = ["negative length", "huge length", "correlation id", "garbage", "flipped", "short"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=1) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def topic(cluster: EmbeddedKafka, request: pytest.FixtureRequest) -> str:
    return cluster.create_topic(re.sub(r"\W", "-", request.node.name), partitions=2)


def received(wire: Wire, size: int) -> bytes:
    return wire.socket.recv(size, socket.MSG_WAITALL)


@pytest.mark.parametrize("what", FRAMES)
def test_an_answer_is_spoiled_and_the_connection_goes_on(
    cluster: EmbeddedKafka, wire: Wire, topic: str, what: str
) -> None:
    reference = wire.send(produce(topic, b"a"), 9)
    whole = received(wire, 8)
    whole += received(wire, int.from_bytes(whole[:4], "big") - 4)
    assert int.from_bytes(whole[4:8], "big") == reference
    with cluster.intercept("Produce", Corrupt(what), times=1):
        correlation_id = wire.send(produce(topic, b"b"), 9)
        head = received(wire, 8)
        length, said_id = int.from_bytes(head[:4], "big", signed=True), int.from_bytes(head[4:], "big")
        expected = {"negative length": -1, "huge length": 2**31 - 1, "garbage": 32, "short": 4 + (len(whole) - 8) // 2}
        assert length == expected.get(what, len(whole) - 4)
        assert (said_id == correlation_id) == (what != "correlation id")
        body = received(wire, length - 4 if 0 < length < 1_000 else len(whole) - 8)
        spoiled = body[4:12] != whole[12:20]  # the topic's name, which both answers have
        assert spoiled == (what in ("garbage", "flipped"))
    assert cluster.high_watermark_of(topic) == 2, "it was served"
    assert wire.ask(ApiVersionsRequest(), 0).error_code == 0


@pytest.mark.parametrize("what", [what for what in FRAMES if what != "flipped"])
def test_kafka_python_refuses_what_is_spoiled(cluster: EmbeddedKafka, wire: Wire, what: str) -> None:
    parser = KafkaProtocol(client_id="test")
    request = MetadataRequest(topics=[], allow_auto_topic_creation=False)
    request.API_VERSION = 7
    with cluster.intercept("Metadata", Corrupt(what), times=1):
        parser.send_request(request)
        wire.socket.sendall(parser.send_bytes())
        refusal: Exception | None = None
        while refusal is None:
            try:
                parser.receive_bytes(received(wire, 1))
            except Exception as error:
                refusal = error
    assert not isinstance(refusal, TimeoutError), "it waits for more"


def test_the_checksums_in_a_fetch_response_are_wrong_and_those_in_the_log_are_not(
    cluster: EmbeddedKafka, wire: Wire, topic: str
) -> None:
    for value in (b"a", b"b"):
        wire.ask(produce(topic, value), 9)
    consumer = KafkaConsumer(**cluster.client_options())
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek(TopicPartition(topic, 0), 0)
    with consumer, cluster.intercept("Fetch", Corrupt("checksum"), times=1), pytest.raises(CorruptRecordError):
        next(consumer)
    assert fetched(wire.ask(fetch(topic), 11)) == [b"a", b"b"]


def test_some_partitions_fail_among_good_ones(cluster: EmbeddedKafka, wire: Wire, topic: str) -> None:
    wire.ask(produce(topic, b"a"), 9)
    error = Error(NotLeaderForPartitionError, partitions=[(topic, 1)])
    two = [ListOffsetsRequest.ListOffsetsTopic.ListOffsetsPartition(partition_index=n, timestamp=-1) for n in (0, 1)]
    listing = ListOffsetsRequest(
        replica_id=-1,
        isolation_level=0,
        topics=[ListOffsetsRequest.ListOffsetsTopic(name=topic, partitions=two)],
    )
    with cluster.intercept("ListOffsets", error, times=1):
        (answer,) = wire.ask(listing, 2).topics
    assert [(each.partition_index, each.error_code) for each in answer.partitions] == [(0, 0), (1, 6)]
    assert answer.partitions[0].offset == 1

    asked = fetch(topic)
    asked.topics[0].partitions.append(fetch(topic, partition=1).topics[0].partitions[0])
    with cluster.intercept("Fetch", error, times=1):
        response = wire.ask(asked, 11)
    assert fetched(response) == [b"a"]
    assert [each.error_code for each in response.responses[0].partitions] == [0, 6]

    with cluster.intercept("Produce", Error(RequestTimedOutError, partitions=[(topic, 0)]), times=1):
        (answer,) = wire.ask(produce(topic, b"b"), 9).responses
    assert answer.partition_responses[0].error_code == RequestTimedOutError.errno
    assert cluster.high_watermark_of(topic) == 2, "said to have failed, but served"


def test_some_partitions_of_a_group_fail(cluster: EmbeddedKafka, wire: Wire, topic: str) -> None:
    error = Error(NotLeaderForPartitionError, partitions=[(topic, 1)])
    commits = [
        OffsetCommitRequest.OffsetCommitRequestTopic.OffsetCommitRequestPartition(
            partition_index=n, committed_offset=5, committed_leader_epoch=-1, committed_metadata=""
        )
        for n in (0, 1)
    ]
    commit = OffsetCommitRequest(
        group_id=topic,
        generation_id_or_member_epoch=-1,
        member_id="",
        group_instance_id=None,
        topics=[OffsetCommitRequest.OffsetCommitRequestTopic(name=topic, partitions=commits)],
    )
    with cluster.intercept("OffsetCommit", error, times=1):
        (answer,) = wire.ask(commit, 7).topics
    assert [each.error_code for each in answer.partitions] == [0, 6]
    group = OffsetFetchRequest.OffsetFetchRequestGroup(group_id=topic, topics=None, member_id=None, member_epoch=-1)
    with cluster.intercept("OffsetFetch", error, times=1):
        response = wire.ask(OffsetFetchRequest(groups=[group], require_stable=False), 8)
    ((of_topic,),) = [each.topics for each in response.groups]
    assert sorted((each.partition_index, each.error_code) for each in of_topic.partitions) == [(0, 0), (1, 6)]


def test_a_throttled_connection_is_told_and_not_read(cluster: EmbeddedKafka, wire: Wire, topic: str) -> None:
    with cluster.intercept("Produce", Throttle(0.05), times=1):
        assert wire.ask(produce(topic, b"a"), 9).throttle_time_ms == 50
        wire.ask(ApiVersionsRequest(), 0)
    first, second = cluster.connections[-1].exchanges[-2:]
    assert first.answered_at is not None
    assert second.answered_at is not None
    assert second.answered_at - first.answered_at >= 0.05


@pytest.mark.parametrize(
    ("make", "argument", "said"),
    [
        (Corrupt, "crc", "what is 'crc'; expected one of negative length, .*, checksum"),
        (Throttle, 0, "throttled for 0; expected seconds, more than 0"),
        (Throttle, float("inf"), "throttled for inf"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(make: Any, argument: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(argument)
