from __future__ import annotations

import logging
import threading

import pytest

from pooledkafka._feed import Feed
from pooledkafka.events import ClientAttached, PoolEvent


def event(n: int) -> PoolEvent:
    return ClientAttached(f"client {n}")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "pooledkafka-events"]


def test_listeners_hear_every_event_in_order_on_a_thread_of_their_own() -> None:
    feed = Feed()
    heard: list[list[PoolEvent]] = [[], []]
    where: set[str] = set()

    def first(event: PoolEvent) -> None:
        where.add(threading.current_thread().name)
        heard[0].append(event)

    feed.add(first)
    feed.add(heard[1].append)
    for n in range(1_000):
        feed.tell(event(n))
    feed.drain(5)
    assert heard[0] == heard[1] == [event(n) for n in range(1_000)]
    assert where == {"pooledkafka-events"}
    assert threads() == [], "the thread ends when there is nothing left to tell"


def test_events_of_several_threads_come_one_at_a_time() -> None:
    feed, inside = Feed(), threading.Lock()
    overlaps: list[PoolEvent] = []
    heard: list[PoolEvent] = []

    def listener(event: PoolEvent) -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(event)
            return
        heard.append(event)
        inside.release()

    feed.add(listener)

    def tell() -> None:
        for n in range(500):
            feed.tell(event(n))

    tellers = [threading.Thread(target=tell) for _ in range(4)]
    for teller in tellers:
        teller.start()
    for teller in tellers:
        teller.join()
    feed.drain(5)
    assert (len(heard), overlaps) == (2_000, [])


def test_without_listeners_nothing_is_kept_and_no_thread_starts() -> None:
    feed = Feed()
    heard: list[PoolEvent] = []
    feed.tell(event(1))
    assert threads() == []
    feed.add(heard.append)
    feed.tell(event(2))
    feed.drain(5)
    assert heard == [event(2)]


def test_one_that_was_removed_hears_no_more() -> None:
    feed = Feed()
    heard: list[PoolEvent] = []
    feed.add(heard.append)
    feed.remove(heard.append)
    feed.remove(heard.append)  # is not there any more, which is no error
    feed.tell(event(1))
    assert heard == []


def test_a_listener_that_fails_is_logged_and_keeps_nobody_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed()
    heard: list[PoolEvent] = []

    def fails(event: PoolEvent) -> None:
        raise RuntimeError("no space left")

    feed.add(fails)
    feed.add(heard.append)
    with caplog.at_level(logging.WARNING):
        feed.tell(event(1))
        feed.tell(event(2))
        feed.drain(5)
    assert heard == [event(1), event(2)]
    assert caplog.text.count("no space left") == 2


def test_draining_is_bounded_and_a_listener_may_do_it_itself() -> None:
    feed, go_on, drained = Feed(), threading.Event(), threading.Event()

    def listener(event: PoolEvent) -> None:
        feed.drain(60)  # would wait for itself
        drained.set()
        assert go_on.wait(5)

    feed.add(listener)
    feed.tell(event(1))
    assert drained.wait(5)
    feed.drain(0.01)
    assert threads(), "it was given up waiting for"
    go_on.set()
    feed.drain(5)
    assert threads() == []
