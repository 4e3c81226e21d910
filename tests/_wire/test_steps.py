"""What is run, when, and in which order; everything by the tasks of kafka-python, so on its own loop too."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.future import Future
from kafka.net.selector import NetworkSelector

from pooledkafka._wire.loop import Loop
from pooledkafka._wire.steps import Steps
from tests.pooled.waiting import until


@pytest.fixture(params=[NetworkSelector, Steps])
def any_loop(request: pytest.FixtureRequest) -> Iterator[Any]:
    net = request.param()
    yield net
    net.close()


@pytest.fixture
def net() -> Iterator[Steps]:
    net = Steps()
    yield net
    net.close()


# -- as kafka-python does ----------------------------------------------------------------------------------------------


def test_a_call_may_return_what_is_to_be_waited_for(any_loop: Any) -> None:
    told: list[str] = []
    future = Future()

    async def work() -> None:
        told.append("coroutine")
        await future
        told.append("done")

    any_loop.call_soon(work)
    any_loop.call_soon(lambda number=1: work())
    any_loop.call_soon(lambda: future)
    any_loop.call_soon(lambda: None)
    any_loop.call_soon(lambda: future.success(None))
    for _ in range(5):
        any_loop.poll(timeout_ms=0)
    assert told == ["coroutine", "coroutine", "done", "done"]
    assert not any_loop._pending_tasks


def test_whatever_can_be_called_is_run(net: Steps) -> None:
    told: list[int] = []

    async def work(number: int) -> None:
        told.append(number)

    net.call_soon(partial(told.append, 1))
    net.call_soon(told.clear)
    net.call_soon(partial(work, 2))
    net.poll(timeout_ms=0)
    assert told == [2]


def test_what_is_no_work_is_refused(any_loop: Any) -> None:
    with pytest.raises(TypeError):
        any_loop.call_soon(5)


def test_an_error_is_logged_and_the_others_run(any_loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    async def fail() -> None:
        raise ValueError("of a coroutine")

    def fail_at_once() -> None:
        raise ValueError("of a call")

    def end_too_soon() -> None:
        next(iter(()))

    any_loop.call_soon(fail)
    task = any_loop.call_soon(fail_at_once)
    any_loop.call_soon(end_too_soon)
    any_loop.call_soon(lambda: told.append("ran"))
    with caplog.at_level(logging.ERROR, "kafka.net.selector"):
        any_loop.poll(timeout_ms=0)
    errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert [type(error) for error in errors] == [ValueError, ValueError, RuntimeError]
    assert [str(error) for error in errors[:2]] == ["of a coroutine", "of a call"]
    assert task.exception is errors[1]
    assert told == ["ran"]
    assert not any_loop._pending_tasks


def test_what_takes_long_is_told(any_loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    any_loop.config["slow_task_threshold_secs"] = 0.001
    any_loop.call_soon(lambda: time.sleep(0.01))
    any_loop.poll(timeout_ms=0)
    assert "It is blocking the event loop" in caplog.text


def test_a_slow_handler_of_the_log_makes_no_other_task_slow(any_loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def warn(*args: Any) -> None:
        told.append(args)
        time.sleep(0.01)

    monkeypatch.setattr("kafka.net.selector.log.warning", warn)
    any_loop.config["slow_task_threshold_secs"] = 0.005
    any_loop.call_soon(lambda: time.sleep(0.01))
    for _ in range(3):
        any_loop.call_soon(lambda: None)
    any_loop.poll(timeout_ms=0)
    assert len(told) == 1


def test_a_wait_for_ever_is_one_for_very_long(any_loop: Any) -> None:
    any_loop.wakeup()
    any_loop.poll(timeout_ms=1e15)


def test_a_task_may_cancel_itself_and_others(any_loop: Any) -> None:
    told: list[str] = []
    tasks: dict[str, Any] = {}

    async def work() -> None:
        try:
            any_loop.cancel(tasks["other"])
            any_loop.cancel(tasks["later"])
            any_loop.cancel(tasks["self"])
            await any_loop.sleep(0)
            told.append("went on")
        finally:
            told.append("ended")

    tasks["self"] = any_loop.call_soon(work)
    tasks["other"] = any_loop.call_soon(lambda: told.append("other"))
    tasks["later"] = any_loop.call_later(0, lambda: told.append("later"))
    for _ in range(3):
        any_loop.poll(timeout_ms=1)
    any_loop.cancel(tasks["self"])  # again: nothing happens
    assert told == ["ended"]
    assert not any_loop._pending_tasks


def test_two_threads_cannot_run_it(any_loop: Any) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        go_on.wait(5)
        with pytest.raises(RuntimeError, match="Recursive"):
            any_loop.poll(timeout_ms=0)

    any_loop.call_soon(hold)
    with ThreadPoolExecutor(1) as threads:
        polling = threads.submit(any_loop.poll, 0)
        assert entered.wait(5)
        with pytest.raises(RuntimeError, match="Concurrent"):
            any_loop.poll(timeout_ms=0)
        go_on.set()
        polling.result(5)


@given(
    st.lists(st.tuples(st.sampled_from(["at", "cancel", "now"]), st.integers(0, 30)), max_size=60),
    st.sampled_from([NetworkSelector, Steps]),
)
def test_timers_run_in_their_order_but_for_those_that_were_cancelled(steps: list[tuple[str, int]], kind: Any) -> None:
    net, told, expected, timers = kind(), [], {}, {}
    past = time.monotonic() - 100
    for number, (what, at) in enumerate(steps):
        if what == "at":
            timers[number] = net.call_at(past + at, lambda number=number: told.append(number))
            expected[number] = at
        elif what == "cancel" and timers:
            which = sorted(timers)[at % len(timers)]
            net.cancel(timers.pop(which))
            del expected[which]
        elif what == "now":
            net.call_soon(lambda: None)
    net.poll(timeout_ms=0)
    assert sorted(told) == sorted(expected)
    assert [expected[number] for number in told] == sorted(expected.values())
    assert not net._pending_tasks
    net.close()


# -- what takes less ---------------------------------------------------------------------------------------------------


def test_what_becomes_ready_is_run_before_the_sockets_are_looked_at_again(loop: Loop) -> None:
    async def chain() -> int:
        for _ in range(5):
            future = Future()
            loop.call_soon(lambda future=future: future.success(None))
            await future
        return int(loop._selector.passes)

    began: list[int] = []
    loop.call_soon_threadsafe(lambda: began.append(loop._selector.passes))
    until(lambda: began and loop._selector.is_waiting)
    ended = loop.run(chain)
    assert ended - began[0] <= 3, "kafka-python takes twelve"


def test_those_that_make_each_other_ready_do_not_keep_the_sockets_from_being_looked_at(loop: Loop) -> None:
    here, there = socket.socketpair()
    going = [True]

    def again() -> None:
        if going[0]:
            loop.call_soon(again)

    async def read() -> bytes:
        await loop.wait_read(here)
        return here.recv(10)

    with here, there:
        loop.call_soon_threadsafe(again)
        came = loop.call_soon_with_future(read)
        there.send(b"word")
        until(lambda: came.is_done)
        for _ in range(50):  # another thread has its turn, too
            time.sleep(0)
        going[0] = False
    assert came.value == b"word"


def test_timers_that_were_cancelled_are_not_kept_for_long(net: Steps) -> None:
    def left() -> int:
        return len(net._scheduled)

    kept = [net.call_later(1_000 + number, lambda: None) for number in range(10)]
    for _ in range(10_000):  # as the timeout of each request
        net.cancel(net.call_later(2_000, lambda: None))
        assert left() <= 10 + 200
    for each in kept:
        net.cancel(each)
    net.poll(timeout_ms=0)
    for _ in range(200):
        net.cancel(net.call_later(-1, lambda: None))
    net.poll(timeout_ms=0)
    assert net._cancelled == left(), "it counts only those that are still there"


def test_a_cancelled_timer_wakes_nobody(loop: Loop) -> None:
    async def set_and_cancel() -> int:
        for delay in (0.02, 0.03, 0.04):
            loop.cancel(loop.call_later(delay, lambda: None))
        return int(loop._selector.passes)

    before = loop.run(set_and_cancel)
    until(lambda: loop._selector.is_waiting)
    time.sleep(0.1)  # more than these would have taken; what must not happen shows by that only
    assert loop._selector.passes - before <= 2


def test_a_time_that_is_far_away_is_waited_for(loop: Loop) -> None:
    async def set_timer() -> None:
        loop.call_later(1e12, lambda: None)

    loop.run(set_timer)
    until(lambda: loop._selector.is_waiting)
    loop.run(set_timer)


def test_a_call_from_another_thread_is_never_missed(loop: Loop) -> None:
    """Each waits for the one before it: a wakeup that was spared in vain would leave it waiting."""
    rounds, told = 1_000, [0, 0, 0]

    def call(which: int) -> None:
        done = threading.Event()

        def tell() -> None:
            told[which] += 1
            done.set()

        for _ in range(rounds):
            loop.call_soon_threadsafe(tell)
            assert done.wait(10), "the loop was not woken"
            done.clear()

    with ThreadPoolExecutor(3) as threads:
        for each in [threads.submit(call, which) for which in range(3)]:
            each.result(60)
    assert told == [rounds] * 3


def test_a_call_that_comes_when_the_loop_has_just_looked_wakes_it(loop: Loop) -> None:
    """The worst moment: after it has found nothing ready, and before it waits."""
    select, called = loop._selector.select, threading.Event()

    def call_first(timeout: float | None = None) -> Any:
        if timeout is None and not called.is_set():
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(called.set,))
            thread.start()
            thread.join(5)
            loop._selector.select = select
        return select(timeout)

    loop._selector.select = call_first
    loop.wakeup()
    assert called.wait(5)


def test_while_the_loop_is_busy_it_is_not_woken(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[None] = []
    entered, go_on, told = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        go_on.wait(5)

    loop.call_soon_threadsafe(hold)
    assert entered.wait(5)
    monkeypatch.setattr(loop, "wakeup", lambda: woken.append(None))
    loop.call_soon_threadsafe(told.set)
    assert woken == []
    monkeypatch.undo()
    go_on.set()
    assert told.wait(5), "it looks by itself"
