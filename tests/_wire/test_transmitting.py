from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.errors import InvalidReceiveError
from kafka.net.transport import KafkaTCPTransport

from pooledkafka._wire.steps import Steps
from pooledkafka._wire.transmitting import transmit_directly


class Protocol:
    """kafka-python's connection, as far as its transport knows it."""

    _sensors = None

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.came: list[bytes] = []
        self.lost: list[Any] = []
        self.closes = self.fails = False

    def data_received(self, data: bytes) -> None:
        self.came.append(data)
        if self.closes:
            self.transport.close()
        if self.fails:
            raise InvalidReceiveError("no frame")

    def connection_lost(self, error: Any) -> None:
        self.lost.append(error)


class Ends:
    """A transport and the other end of its socket."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.theirs.settimeout(5)
        self.ours = ours
        self.net = Steps()
        self.transport = KafkaTCPTransport(self.net, ours)
        self.protocol = Protocol(self.transport)
        self.transport.set_protocol(self.protocol)
        transmit_directly(self.transport)

    def turn(self, times: int = 3) -> None:
        for _ in range(times):
            self.net.poll(timeout_ms=0)

    @property
    def waited_for(self) -> int:
        """The events that the loop waits for on the socket."""
        if self.ours.fileno() < 0:
            return 0
        key = self.net._selector.get_map().get(self.ours.fileno())
        return key.events if key else 0


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.transport.abort()
    ends.net.close()
    ends.theirs.close()


# -- writing -----------------------------------------------------------------------------------------------------------


def test_what_is_written_is_sent_by_then(ends: Ends) -> None:
    ends.transport.write(b"one ")
    ends.transport.write(b"two")
    assert ends.theirs.recv(100) == b"one two"
    assert not ends.net._ready
    assert not ends.transport._writing


def test_what_does_not_fit_follows_in_order(ends: Ends) -> None:
    ends.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    chunks = [bytes([number]) * 50_000 for number in range(10)]
    for chunk in chunks[:5]:
        ends.transport.write(chunk)
    assert ends.transport._writing
    wanted, came, left = b"".join(chunks), b"", chunks[5:]
    while len(came) < len(wanted):
        came += ends.theirs.recv(30_000)
        if left:
            ends.transport.write(left.pop(0))  # behind what waits, though there is room now
        ends.turn()
    assert came == wanted
    assert not ends.transport._writing
    ends.transport.write(b"and at once again")
    assert ends.theirs.recv(100) == b"and at once again"


def test_one_that_is_closed_sends_first_what_waits(ends: Ends) -> None:
    ends.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    ends.transport.write(b"." * 200_000)
    ends.transport.close()
    with pytest.raises(RuntimeError, match="closed"):
        ends.transport.write(b"more")
    came = 0
    while len(data := ends.theirs.recv(50_000)):
        came += len(data)
        ends.turn()
    assert came == 200_000
    assert ends.protocol.lost == [None]


def test_an_end_that_is_met_while_writing_is_told_later(ends: Ends) -> None:
    """Whoever writes has more to do with the connection than to see it closed under its hands."""
    ends.transport.resume_reading()
    ends.theirs.close()
    ends.transport.write(b"one")
    ends.transport.write(b"two")
    assert ends.protocol.lost == []
    ends.turn()
    (error,) = ends.protocol.lost
    assert "Broken pipe" in str(error)
    assert not ends.net._pending_tasks


def test_what_a_failure_was_is_what_the_system_said_first(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reset(socket.socket):
        """A socket tells an error once."""

        told = False

        def send(self, *_: Any) -> int:
            if self.told:
                raise BrokenPipeError("later")
            self.told = True
            raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(ends.transport, "_sock", Reset(fileno=ends.ours.detach()))
    ends.transport.write(b"one")
    ends.turn()
    (error,) = ends.protocol.lost
    assert "reset by peer" in str(error)


def test_what_is_left_by_a_task_that_failed_is_not_overtaken(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    ends.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    ends.transport.write(b"a" * 100_000)
    monkeypatch.setattr(ends.net, "wait_write", lambda sock, timeout_at=None: 1 / 0)
    ends.turn()
    assert not ends.transport._writing
    assert ends.transport._write_buffer
    monkeypatch.undo()
    came = ends.theirs.recv(200_000)
    ends.transport.write(b"b")
    while len(came) < 100_001:
        ends.turn()
        came += ends.theirs.recv(200_000)
    assert came == b"a" * 100_000 + b"b"


def test_nothing_cannot_be_written(ends: Ends) -> None:
    with pytest.raises(ValueError, match="empty"):
        ends.transport.write(b"")


# -- reading -----------------------------------------------------------------------------------------------------------


def test_it_is_waited_for_once(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: list[str] = []

    def noted(name: str, change: Any) -> Any:
        def noting(*args: Any) -> Any:
            changes.append(name)
            return change(*args)

        return noting

    for name in ("register", "modify", "unregister"):
        monkeypatch.setattr(ends.net._selector, name, noted(name, getattr(ends.net._selector, name)))
    ends.transport.resume_reading()
    for number in range(10):
        ends.theirs.send(b"%d" % number)
        ends.turn()
    assert b"".join(ends.protocol.came) == b"0123456789"
    assert len(ends.protocol.came) == 10
    assert changes == ["register"]


@pytest.mark.parametrize("ended", ["closed", "closed by what came", "broken", "lost"])
def test_when_it_ends_nothing_is_waited_for(ends: Ends, ended: str) -> None:
    ends.transport.resume_reading()
    ends.turn()
    assert ends.waited_for == selectors.EVENT_READ
    if ended == "closed":
        ends.transport.close()
    elif ended == "lost":
        ends.theirs.close()
    else:
        ends.protocol.closes, ends.protocol.fails = ended == "closed by what came", ended == "broken"
        ends.theirs.send(b"what comes")
    ends.turn()
    (error,) = ends.protocol.lost
    assert isinstance(error, InvalidReceiveError) == (ended == "broken")
    assert (error is None) == ended.startswith("closed")
    assert ends.waited_for == 0
    assert len(ends.net._selector.get_map()) == 1, "only what wakes the loop"
    assert not ends.net._pending_tasks


def test_it_may_pause_and_go_on(ends: Ends) -> None:
    ends.transport.resume_reading()
    ends.turn()
    ends.transport.pause_reading()
    ends.theirs.send(b"one")
    ends.turn()
    assert ends.protocol.came == [b"one"], "as kafka-python's, which has waited for it already"
    assert ends.waited_for == 0
    ends.theirs.send(b"two")
    ends.turn()
    assert ends.protocol.came == [b"one"]
    ends.transport.resume_reading()
    ends.turn()
    assert ends.protocol.came == [b"one", b"two"]


def test_it_reads_while_it_cannot_write(ends: Ends) -> None:
    ends.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    ends.transport.resume_reading()
    ends.transport.write(b"." * 500_000)
    ends.turn()
    assert ends.waited_for == selectors.EVENT_READ | selectors.EVENT_WRITE
    ends.theirs.send(b"word")
    ends.turn()
    assert ends.protocol.came == [b"word"]
    came = 0
    while came < 500_000:
        came += len(ends.theirs.recv(50_000))
        ends.turn()
    assert ends.waited_for == selectors.EVENT_READ
