from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import KafkaConnectionError
from kafka.net.transport import KafkaSSLTransport

from pooledkafka._wire.last_words import hear_last_words
from pooledkafka._wire.receiving import receive_in_bulk


class Counted:
    """A socket that notes how much it was asked for."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.asked: list[int] = []

    def recv(self, size: int) -> bytes:
        self.asked.append(size)
        data: bytes = self._sock.recv(size)
        return data


@pytest.fixture
def ends() -> Iterator[tuple[Any, socket.socket]]:
    """A transport, with its socket, and the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
        theirs.setblocking(False)
        transport = SimpleNamespace(_sock=Counted(ours))
        receive_in_bulk(transport)
        yield transport, theirs


def test_an_answer_is_received_by_one_call(ends: tuple[Any, socket.socket]) -> None:
    transport, theirs = ends
    theirs.send(b"an answer")
    assert transport._sock_recv() == (b"an answer", None)
    assert len(transport._sock.asked) == 1


def test_a_long_one_is_received_in_growing_parts(ends: tuple[Any, socket.socket]) -> None:
    transport, theirs = ends
    data = bytes(range(250)) * 1_000
    sent = theirs.send(data)
    assert sent > 100_000
    assert transport._sock_recv() == (data[:sent], None)
    assert transport._sock.asked == [4_096, 32_768, 262_144]


def test_nothing_is_there(ends: tuple[Any, socket.socket]) -> None:
    transport, _ = ends
    assert transport._sock_recv() == (b"", None)


def test_the_end_comes_after_what_was_sent_before_it(ends: tuple[Any, socket.socket]) -> None:
    transport, theirs = ends
    theirs.send(b"last words")
    theirs.close()
    assert transport._sock_recv() == (b"last words", None)
    data, error = transport._sock_recv()
    assert data == b""
    assert isinstance(error, KafkaConnectionError)


def test_a_connection_that_is_broken_is_an_error(ends: tuple[Any, socket.socket]) -> None:
    transport, _ = ends

    def broken(size: int) -> bytes:
        raise ConnectionResetError("reset by peer")

    transport._sock.recv = broken
    data, error = transport._sock_recv()
    assert data == b""
    assert "reset by peer" in str(error)


def test_the_end_right_behind_a_part_that_is_full_comes_after_it(ends: tuple[Any, socket.socket]) -> None:
    transport, theirs = ends
    transport._protocol = transport._sock_send = None
    hear_last_words(transport)
    theirs.send(b"x" * 4_096)
    theirs.close()
    assert transport._sock_recv() == (b"x" * 4_096, None)
    data, error = transport._sock_recv()
    assert (data, str(error)) == (b"", "KafkaConnectionError: socket disconnected")


def over_tls(*records: bytes) -> Any:
    """A transport that has these records, and then nothing, or the end where that is the last of them."""
    left = list(records)

    def recv(size: int) -> bytes:
        assert size >= 16_384, "the longest record"
        if not left:
            raise ssl.SSLWantReadError
        return left.pop(0)

    transport = KafkaSSLTransport.__new__(KafkaSSLTransport)
    transport._sock = SimpleNamespace(recv=recv)
    transport._protocol = None
    receive_in_bulk(transport)
    return transport


def test_of_tls_all_records_are_received_that_are_there() -> None:
    data, error = over_tls(b"a" * 16_384, b"b", b"c" * 100)._sock_recv()
    assert (len(data), error) == (16_485, None)


def test_of_tls_the_end_comes_after_what_was_sent_before_it() -> None:
    transport = over_tls(b"last words", b"")
    hear_last_words(transport)
    assert transport._sock_recv() == (b"last words", None)
    assert isinstance(transport._sock_recv()[1], KafkaConnectionError)
