"""The event loop says in the pool's terms that it has ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.future import Future

from pooledkafka import PoolClosedError
from pooledkafka._wire.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    loop.start()
    yield loop
    loop.close()


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
