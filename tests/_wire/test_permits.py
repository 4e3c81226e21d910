from __future__ import annotations

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from pooledkafka._wire.permits import Permits


@settings(deadline=None)
@given(limit=st.integers(1, 4), steps=st.lists(st.sampled_from(["request", "poll", "release"]), max_size=40))
def test_never_more_than_the_limit_and_first_come_first_served(limit: int, steps: list[str]) -> None:
    granted: list[int] = []
    permits, came, released = Permits(limit), 0, 0
    for step in steps:
        if step == "release":
            if released < len(granted):
                released += 1
                permits.release()
        else:
            permits.acquire(lambda number=came: granted.append(number), long_poll=step == "poll")  # type: ignore[misc]
            came += 1
        assert permits.held == len(granted) - released <= limit
        assert granted == list(range(len(granted))), "in the order in which they came"
        assert permits.waiting == came - len(granted)
        assert permits.held == limit or not permits.waiting, "nobody waits while a permit is free"


def test_a_login_goes_before_those_that_wait() -> None:
    permits, order = Permits(1), list[str]()
    for name in ("running", "waiting"):
        permits.acquire(partial(order.append, name))
    permits.acquire(partial(order.append, "login"), first=True)
    permits.release()
    permits.release()
    assert order == ["running", "login", "waiting"]


def test_without_a_limit_nobody_waits() -> None:
    for limit in (None, 0):
        granted: list[str] = []
        permits = Permits(limit)
        for _ in range(100):
            permits.acquire(partial(granted.append, "granted"))
        assert len(granted) == 100


def test_one_that_gives_its_permit_back_at_once_lets_the_next_in() -> None:
    permits, order = Permits(1), []

    def fails_at_once() -> None:
        order.append("failed")
        permits.release()

    permits.acquire(lambda: order.append("first"))
    for _ in range(3):
        permits.acquire(fails_at_once)
    permits.acquire(lambda: order.append("last"))
    permits.release()
    assert order == ["first", "failed", "failed", "failed", "last"]
    assert (permits.held, permits.waiting) == (1, 0)


def test_it_knows_who_is_in_a_hurry() -> None:
    permits = Permits(1)
    permits.acquire(lambda: None)
    permits.acquire(lambda: None, long_poll=True)
    assert (permits.waiting, permits.urgent) == (1, 0), "a long poll may wait"
    permits.acquire(lambda: None)
    assert (permits.waiting, permits.urgent) == (2, 1)
    permits.release()
    permits.release()
    assert (permits.waiting, permits.urgent) == (0, 0)
