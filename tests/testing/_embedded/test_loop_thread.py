"""The thread of the embedded cluster: calls into it, and its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from pooledkafka.testing import ClusterError
from pooledkafka.testing._embedded.loop_thread import LoopThread


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("tested")
    yield thread
    if not thread.loop.is_closed():
        thread.stop(lambda: None)


def test_a_call_returns_what_the_function_returns_on_the_thread(thread: LoopThread) -> None:
    assert thread.call(lambda: threading.current_thread().name) == "tested"
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 / 0)


def test_a_call_that_waits_is_told_that_the_thread_ends(thread: LoopThread) -> None:
    waits = threading.Event()
    errors: list[BaseException] = []

    async def wait_for_ever() -> None:
        waits.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            thread.run(wait_for_ever())
        except BaseException as error:
            errors.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert waits.wait(5)
    thread.stop(lambda: None)
    caller.join(5)
    assert [str(error) for error in errors] == ["the cluster was closed by another thread meanwhile"]
    with pytest.raises(ClusterError, match="is being closed by another thread"):
        thread.call(lambda: None)


def test_a_call_that_was_handed_over_just_before_the_end_is_answered(thread: LoopThread) -> None:
    answers: list[object] = []

    def call() -> None:
        try:
            answers.append(thread.call(lambda: "done"))
        except ClusterError as error:
            answers.append(error)

    held, begun = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        held.wait(5)

    thread.loop.call_soon_threadsafe(hold)
    assert begun.wait(5)
    callers = [threading.Thread(target=call) for _ in range(20)]
    for caller in callers:
        caller.start()
    stopper = threading.Thread(target=thread.stop, args=(lambda: None,))
    stopper.start()
    held.set()
    for each in (*callers, stopper):
        each.join(5)
        assert not each.is_alive()
    assert len(answers) == 20


def test_the_last_function_may_fail_and_the_thread_ends_all_the_same(thread: LoopThread) -> None:
    with pytest.raises(ZeroDivisionError):
        thread.stop(lambda: 1 / 0)  # type: ignore[arg-type]
    assert thread.loop.is_closed()


def test_what_blocks_the_thread_is_said_and_does_not_block_the_end(thread: LoopThread) -> None:
    go_on = threading.Event()
    thread.loop.call_soon_threadsafe(go_on.wait, 30)
    with pytest.raises(ClusterError, match="blocks the embedded cluster's thread"):
        thread.stop(lambda: None)
    go_on.set()
    thread._thread.join(5)
    assert thread.loop.is_closed()
