"""One connection: one request at a time, in order; what is malformed ends it and nothing else."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator

import pytest
from kafka.errors import UnsupportedVersionError
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.producer import ProduceRequest

from pooledkafka.testing import EmbeddedKafka, Hold
from tests.testing._embedded.wire import Wire, fetch, fetched, produce


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=1, config={"socket.request.max.bytes": "100000"}) as cluster:
        cluster.create_topic("t")
        yield cluster


def still_serves(cluster: EmbeddedKafka) -> bool:
    with Wire(cluster.address_of(1)) as wire:
        return bool(wire.ask(ApiVersionsRequest(), 0).error_code == 0)


def test_a_parked_fetch_holds_what_is_behind_it_and_nothing_else(cluster: EmbeddedKafka, wire: Wire) -> None:
    topic = cluster.create_topic("parked")
    parked = wire.send(fetch(topic, max_wait_ms=60_000), 11)
    behind = wire.send(ApiVersionsRequest(), 0)
    with Wire(cluster.address_of(1), "other") as other:
        assert other.ask(ApiVersionsRequest(), 0).error_code == 0
        (record,) = [each for each in cluster.connections if each.exchanges and each.exchanges[0].api == "Fetch"]
        assert [exchange.answered_at for exchange in record.exchanges] == [None, None]
        assert record.most_outstanding == 2
        other.ask(produce(topic, b"a"), 9)
    number, response = wire.receive()
    assert (number, fetched(response)) == (parked, [b"a"])
    assert wire.receive()[0] == behind


def test_many_pipelined_requests_are_answered_in_order(cluster: EmbeddedKafka, wire: Wire) -> None:
    sent = [wire.send(ApiVersionsRequest(), 0) for _ in range(500)]
    assert [wire.receive()[0] for _ in sent] == sent


def test_requests_before_a_half_close_are_answered(cluster: EmbeddedKafka, wire: Wire) -> None:
    with cluster.intercept("ApiVersions", Hold()) as hold:
        sent = [wire.send(ApiVersionsRequest(), 0) for _ in range(3)]
        hold.wait_for(1)
        wire.socket.shutdown(socket.SHUT_WR)
        hold.release()
        assert [wire.receive()[0] for _ in sent] == sent
    assert wire.has_ended()


def test_a_frame_that_comes_in_pieces_is_one_request(cluster: EmbeddedKafka, wire: Wire) -> None:
    request = ApiVersionsRequest()
    request.API_VERSION = 0
    request.with_header(correlation_id=7)
    data = request.encode(header=True, framed=True)
    for index in range(len(data)):
        wire.socket.sendall(data[index : index + 1])
    frame = wire.socket.recv(8, socket.MSG_WAITALL)
    assert struct.unpack(">ii", frame)[1] == 7


def test_an_unknown_version_of_api_versions_is_told_what_is_served(wire: Wire) -> None:
    wire.socket.sendall(struct.pack(">ihhi", 8, 18, 99, 5))
    (size,) = struct.unpack(">i", wire.socket.recv(4, socket.MSG_WAITALL))
    number, error_code, count = struct.unpack_from(">ihi", wire.socket.recv(size, socket.MSG_WAITALL))
    assert (number, error_code) == (5, UnsupportedVersionError.errno)
    assert count == 1  # ApiVersions itself


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">i", -1),
        struct.pack(">i", 100_001),
        struct.pack(">i", 0),
        struct.pack(">ihh", 4, 18, 0),
        struct.pack(">ihhi", 8, 1_234, 0, 1),
        struct.pack(">ihhi", 8, 0, 99, 1),
        struct.pack(">ihhi", 8, 1, 11, 1),  # a Fetch without a body
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["negative", "oversized", "empty", "short", "unknown api", "unknown version", "cut off", "http"],
)
def test_what_is_no_request_ends_the_connection(cluster: EmbeddedKafka, wire: Wire, data: bytes) -> None:
    wire.socket.sendall(data)
    assert wire.has_ended()
    assert still_serves(cluster)


def test_a_request_is_answered_before_what_is_malformed_behind_it(cluster: EmbeddedKafka, wire: Wire) -> None:
    number = wire.send(ApiVersionsRequest(), 0)
    wire.socket.sendall(struct.pack(">ihhi", 8, 1_234, 0, 1))
    assert wire.receive()[0] == number
    assert wire.has_ended()


@pytest.mark.parametrize("seed", range(20))
def test_a_broker_survives_damaged_requests(cluster: EmbeddedKafka, seed: int) -> None:
    """Bytes of good requests, some changed; each connection is answered or closed, and the broker serves on."""
    rng = random.Random(seed)
    requests = [(produce("t", b"v" * 50), 9), (fetch("t"), 11), (MetadataRequest(topics=None), 9)]
    for _ in range(10):
        request, version = rng.choice(requests)
        request.API_VERSION = version
        request.with_header(correlation_id=1)
        data = bytearray(request.encode(header=True, framed=True))
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(4, len(data))] = rng.randrange(256)
        with Wire(cluster.address_of(1)) as wire:
            wire.socket.sendall(data)
            wire.socket.shutdown(socket.SHUT_WR)
            while True:
                try:
                    if not wire.socket.recv(65_536):
                        break
                except ConnectionResetError:
                    break
    assert still_serves(cluster)


def test_a_produce_without_acks_has_no_answer(cluster: EmbeddedKafka, wire: Wire) -> None:
    topic = cluster.create_topic("no-acks")
    wire.send(produce(topic, b"a", acks=0), 9)
    number = wire.send(ApiVersionsRequest(), 0)
    assert wire.receive()[0] == number
    assert cluster.high_watermark_of(topic) == 1


def test_a_client_that_does_not_read_stops_only_its_own_connection(cluster: EmbeddedKafka, wire: Wire) -> None:
    topic = cluster.create_topic("big", config={"max.message.bytes": "100000"})
    wire.ask(produce(topic, b"x" * 80_000), 9)
    asked = 400  # of 80 kB each: more than any socket's buffers hold
    for _ in range(asked):
        wire.send(fetch(topic), 11)
    assert still_serves(cluster)
    assert sum(len(fetched(wire.receive()[1])) for _ in range(asked)) == asked


def test_api_versions_lists_what_is_served(wire: Wire) -> None:
    listed = {each.api_key: (each.min_version, each.max_version) for each in wire.ask(ApiVersionsRequest(), 3).api_keys}
    assert listed[ProduceRequest.API_KEY] == (0, 11)
    assert listed[ApiVersionsRequest.API_KEY] == (0, 4)
