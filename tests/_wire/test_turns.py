"""A thread that is busy with records lets the event loop's pass come first, and never waits for one that is not due."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pooledkafka._wire.loop import Loop
from pooledkafka._wire.turns import LoopSelector, Turn
from tests.pooled.waiting import until

LONG_S = 20.0


def test_while_the_loop_waits_nobody_does(loop: Loop) -> None:
    until(lambda: loop._selector.is_waiting and not loop._ready)
    turn = Turn(loop._selector, LONG_S)
    begun = time.monotonic()
    for _ in range(100):
        turn._go_on_until = 0.0
        turn.give_way()
    assert time.monotonic() - begun < LONG_S / 2
    assert not loop._selector.behind


def test_a_pass_that_is_on_its_way_comes_to_its_end(loop: Loop) -> None:
    entered, go_on = threading.Event(), threading.Event()

    async def work() -> None:
        entered.set()
        assert go_on.wait(10)

    loop.call_soon_threadsafe(work)
    assert entered.wait(5)
    turns = [Turn(loop._selector, LONG_S) for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(turn.give_way) for turn in turns]
        until(lambda: len(loop._selector.behind) == 3)
        assert not any(each.done() for each in waiting)
        begun = time.monotonic()
        go_on.set()
        for each in waiting:
            each.result(10)
    assert time.monotonic() - begun < LONG_S / 2


def test_a_pass_that_is_due_comes_first() -> None:
    """The loop's thread is what another thread keeps waiting: here it has not even begun."""
    selector = LoopSelector()
    here, there = socket.socketpair()
    with here, there, ThreadPoolExecutor(1) as threads:
        selector.register(here, selectors.EVENT_READ)
        selector.is_waiting = True
        turn = Turn(selector, LONG_S)
        turn.give_way()  # nothing is due
        turn._go_on_until = 0.0
        there.send(b"x")
        waiting = threads.submit(turn.give_way)
        until(lambda: bool(selector.behind))
        assert not waiting.done()
        assert selector.select(0), "the pass; and then it looks again"
        here.recv(1)
        selector.select(0)
        waiting.result(10)
    selector.close()


def test_one_that_takes_long_is_waited_for_once() -> None:
    selector = LoopSelector()  # whose loop never comes to its end
    turn = Turn(selector, 0.001)
    for _ in range(100):
        turn._go_on_until = 0.0
        turn.give_way()
    assert len(selector.behind) == 1
    selector.select(0)
    assert not selector.behind
    turn._go_on_until = 0.0
    turn.give_way()
    assert len(selector.behind) == 1, "the next one"
    selector.close()


def test_who_has_just_given_way_goes_on() -> None:
    selector = LoopSelector()
    turn = Turn(selector, 0.001)
    turn.give_way()
    turn._outlasted = -1
    turn._go_on_until = float("inf")
    turn.give_way()
    assert len(selector.behind) == 1
    selector.close()


@pytest.mark.parametrize("selector", [selectors.SelectSelector, selectors.PollSelector])
def test_with_another_selector_nobody_waits(selector: Any) -> None:
    loop = Loop(selector=selector)
    loop.turn().give_way()
    loop.close()


def test_behind_a_loop_that_has_ended_nobody_waits_long() -> None:
    loop = Loop()
    loop.start()
    turn = Turn(loop._selector, 0.001)
    loop.close()
    for _ in range(100):
        turn._go_on_until = 0.0
        turn.give_way()
    assert len(loop._selector.behind) <= 1, "and not again and again"
