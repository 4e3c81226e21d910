"""The event loop says in the pool's terms that it has ended."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.future import Future

from pooledkafka import PoolClosedError
from pooledkafka._wire.loop import Loop


async def for_ever() -> Any:
    return await Future()


def test_what_is_under_way_fails_when_it_ends(loop: Loop) -> None:
    future = loop.call_soon_with_future(for_ever)
    waiting, errors = threading.Event(), []

    async def wait() -> Any:
        waiting.set()
        return await Future()

    def run() -> None:
        try:
            loop.run(wait)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert waiting.wait(5)
    loop.close()
    thread.join(5)
    assert isinstance(future.exception, PoolClosedError)
    assert [isinstance(error, PoolClosedError) for error in errors] == [True]


def test_what_comes_later_is_refused(loop: Loop) -> None:
    loop.close()
    for call in (
        loop.run,
        loop.call_soon_with_future,
        loop.call_soon_threadsafe,
        lambda task: loop.call_later(1, task),
    ):
        with pytest.raises(PoolClosedError, match="disconnected before the call was done"):
            call(for_ever)


def test_what_a_call_comes_to_is_passed_on(loop: Loop) -> None:
    async def fail() -> None:
        raise ValueError("no")

    async def work(number: int) -> int:
        return number + 1

    with pytest.raises(ValueError, match="no"):
        loop.run(fail)
    assert loop.run(work, 1) == 2
    done = threading.Event()
    future = loop.call_soon_with_future(work, 2).add_both(lambda _: done.set())
    assert done.wait(5)
    assert future.value == 3


class _Undescribed(socket.socket):
    def __repr__(self) -> str:
        raise AssertionError("its addresses were asked for")


@pytest.fixture
def ends(loop: Loop) -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with _Undescribed(fileno=here.detach()) as waited_for, there:
        yield waited_for, there


def test_a_wait_for_a_socket_does_not_describe_it(loop: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    here, there = ends

    async def read() -> bytes:
        await loop.wait_write(here)
        await loop.wait_read(here)
        return here.recv(10)

    for word in (b"one", b"two"):
        future = loop.call_soon_with_future(read)
        there.send(word)
        done = threading.Event()
        future.add_both(lambda _, done=done: done.set())
        assert done.wait(5)
        assert future.value == word


def test_a_socket_that_was_closed_while_it_is_waited_for_is_found(loop: Loop, ends: Any) -> None:
    here, _ = ends

    def wait_and_close() -> list[int]:
        loop.register_event(here, selectors.EVENT_READ, for_ever)
        known = [loop._selector.get_key(here).fd]
        here.close()
        loop.unregister_event(here, selectors.EVENT_READ)
        return known + [key for key in known if key in loop._selector.get_map()]

    assert len(loop.run(wait_and_close)) == 1, "and it is forgotten"
    with pytest.raises(ValueError, match="-1"):
        loop._selector.get_key(here)
