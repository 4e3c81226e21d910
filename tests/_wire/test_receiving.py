from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import InvalidReceiveError, KafkaConnectionError
from kafka.net.transport import KafkaSSLTransport
from kafka.protocol.consumer import FetchRequest, FetchResponse
from kafka.protocol.parser import KafkaProtocol

from pooledkafka._wire.receiving import receive_in_bulk

Topic = FetchResponse.FetchableTopicResponse


class Counted:
    """A socket that notes how much it was asked for."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.asked: list[int] = []
        self.in_place: list[int] = []

    def recv(self, size: int) -> bytes:
        self.asked.append(size)
        data: bytes = self._sock.recv(size)
        return data

    def recv_into(self, room: memoryview) -> int:
        self.in_place.append(len(room))
        came: int = self._sock.recv_into(room)
        return came


class Connection:
    """kafka-python's, as far as its transport knows it; with its parser, which is asked for so many answers."""

    def __init__(self) -> None:
        self.parser = KafkaProtocol(client_id="test")
        self.answers: list[Any] = []
        self.counted = 0
        self._sensors = SimpleNamespace(bytes_received=SimpleNamespace(record=self._count))

    def _count(self, came: int) -> None:
        self.counted += came

    def expects(self, answers: int) -> None:
        for _ in range(answers):
            self.parser.send_request(FetchRequest(version=12), correlation_id=1)

    def data_received(self, data: bytes) -> None:
        self.answers += [response for _, response in self.parser.receive_bytes(data)]


def answer(size: int) -> bytes:
    """A Fetch answer with records of so many bytes, as it is sent."""
    data = Topic.PartitionData(
        partition_index=0,
        error_code=0,
        high_watermark=1,
        last_stable_offset=1,
        log_start_offset=0,
        aborted_transactions=[],
        preferred_read_replica=-1,
        records=bytes(at * 7 % 251 for at in range(size)),
    )
    response = FetchResponse(
        version=12, throttle_time_ms=0, error_code=0, session_id=0, responses=[Topic(topic="t", partitions=[data])]
    )
    response.with_header(correlation_id=1)
    encoded: bytes = response.encode(framed=True, header=True)
    return encoded


@pytest.fixture
def ends() -> Iterator[tuple[Any, socket.socket]]:
    """A transport, with its socket, and the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
        transport = SimpleNamespace(_sock=Counted(ours), _protocol=Connection(), _closed=False)
        receive_in_bulk(transport)
        yield transport, theirs


def receive(transport: Any) -> KafkaConnectionError | None:
    """As the task that reads does it."""
    error: KafkaConnectionError | None
    data, error = transport._sock_recv()
    if error is None:
        transport._protocol._count(len(data))
        transport._protocol.data_received(data)
    return error


def test_an_answer_is_received_by_one_call(ends: tuple[Any, socket.socket]) -> None:
    transport, theirs = ends
    theirs.sendall(b"an answer")
    assert transport._sock_recv() == (b"an answer", None)
    assert transport._sock.asked == [4_096]


def test_a_long_one_is_received_where_it_is_decoded(ends: tuple[Any, socket.socket]) -> None:
    transport, theirs = ends
    transport._protocol.expects(1)
    sent = answer(100_000)
    theirs.sendall(sent)
    assert receive(transport) is None
    (got,) = transport._protocol.answers
    assert got.responses[0].partitions[0].records == bytes(at * 7 % 251 for at in range(100_000))
    assert transport._sock.asked == [4_096, 4_096], "how long it is, and its last byte"
    assert transport._sock.in_place == [len(sent) - 4_096 - 1]
    assert transport._protocol.counted == len(sent)


@pytest.mark.parametrize("size", [10, 4_000, 4_096, 5_000, 8_150, 8_192, 50_000])
@pytest.mark.parametrize("step", [1_000, 4_096, 7_777, 1_000_000])
def test_answers_that_come_in_pieces_are_the_same(ends: tuple[Any, socket.socket], size: int, step: int) -> None:
    transport, theirs = ends
    transport._protocol.expects(6)
    sent = b"".join([answer(size), answer(3), answer(9_000), answer(size), answer(size + 1), answer(0)])
    for at in range(0, len(sent), step):
        theirs.sendall(sent[at : at + step])
        assert receive(transport) is None
    lengths = [len(got.responses[0].partitions[0].records or b"") for got in transport._protocol.answers]
    assert lengths == [size, 3, 9_000, size, size + 1, 0]
    assert transport._protocol.counted == len(sent)


def test_nothing_is_there(ends: tuple[Any, socket.socket]) -> None:
    transport, _ = ends
    assert transport._sock_recv() == (b"", None)


def test_the_end_comes_after_what_was_sent_before_it(ends: tuple[Any, socket.socket]) -> None:
    transport, theirs = ends
    theirs.sendall(b"last words")
    theirs.close()
    assert transport._sock_recv() == (b"last words", None)
    data, error = transport._sock_recv()
    assert (data, str(error)) == (b"", "KafkaConnectionError: socket disconnected")


@pytest.mark.parametrize("size", [4_096 - 50, 100_000], ids=["in a part that is full", "in place"])
def test_the_end_right_behind_an_answer_comes_after_it(ends: tuple[Any, socket.socket], size: int) -> None:
    transport, theirs = ends
    transport._protocol.expects(1)
    theirs.sendall(answer(size))
    theirs.close()
    errors = [receive(transport), receive(transport)]
    assert len(transport._protocol.answers) == 1
    assert str(errors[-1]) == "KafkaConnectionError: socket disconnected"


def test_the_end_within_a_long_answer_is_an_end(ends: tuple[Any, socket.socket]) -> None:
    transport, theirs = ends
    transport._protocol.expects(1)
    theirs.sendall(answer(100_000)[:-10])
    theirs.close()
    while (error := receive(transport)) is None:
        pass
    assert str(error) == "KafkaConnectionError: socket disconnected"
    assert not transport._protocol.answers


def test_a_connection_that_is_broken_is_an_error(ends: tuple[Any, socket.socket]) -> None:
    transport, _ = ends

    def broken(size: int) -> bytes:
        raise ConnectionResetError("reset by peer")

    transport._sock.recv = broken
    data, error = transport._sock_recv()
    assert data == b""
    assert "reset by peer" in str(error)
    assert error.__cause__.__traceback__ is None, "it would keep what was being received"


def test_an_answer_that_ends_the_connection_is_the_last_that_is_received(ends: tuple[Any, socket.socket]) -> None:
    transport, theirs = ends

    def close(data: bytes) -> None:
        transport._sock = transport._protocol = None
        transport._closed = True

    transport._protocol.data_received = close
    theirs.sendall(bytes(10_000))
    data, error = transport._sock_recv()
    assert data == b""
    assert isinstance(error, KafkaConnectionError)


def test_a_frame_that_is_too_long_is_refused_before_it_is_received(ends: tuple[Any, socket.socket]) -> None:
    transport, theirs = ends
    transport._protocol.parser._max_frame_size = 50_000
    theirs.sendall(answer(100_000))
    data, error = transport._sock_recv()
    assert (data, type(error)) == (b"", InvalidReceiveError), "the task that reads ends the connection by it"
    assert not transport._sock.in_place


def over_tls(*records: bytes) -> Any:
    """A transport that has these records, and then nothing, or the end where that is the last of them."""
    left = list(records)

    def recv(size: int) -> bytes:
        assert size >= 16_384, "the longest record"
        if not left:
            raise ssl.SSLWantReadError
        return left.pop(0)

    def recv_into(room: memoryview) -> int:
        data = recv(16_384)
        if len(data) > len(room):
            left.insert(0, data[len(room) :])
            data = data[: len(room)]
        room[: len(data)] = data
        return len(data)

    transport = KafkaSSLTransport.__new__(KafkaSSLTransport)
    transport._sock = SimpleNamespace(recv=recv, recv_into=recv_into)
    transport._protocol = Connection()
    transport._closed = False
    receive_in_bulk(transport)
    return transport


def test_of_tls_all_records_are_received_that_are_there() -> None:
    sent = answer(50_000)
    transport = over_tls(*(sent[at : at + 9_000] for at in range(0, len(sent), 9_000)))
    transport._protocol.expects(1)
    assert receive(transport) is None
    assert len(transport._protocol.answers[0].responses[0].partitions[0].records) == 50_000
    assert transport._protocol.counted == len(sent)


def test_of_tls_the_end_comes_after_what_was_sent_before_it() -> None:
    transport = over_tls(answer(3), b"")
    transport._protocol.expects(1)
    while (error := receive(transport)) is None:
        pass
    assert len(transport._protocol.answers) == 1
    assert isinstance(error, KafkaConnectionError)
