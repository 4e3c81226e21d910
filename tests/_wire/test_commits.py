"""When a commit counts as slow, under a clock of the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kafka.future import Future

import pooledkafka._wire.commits as commits_module
from pooledkafka._wire.commits import Commits
from pooledkafka._wire.lanes import Lane


class Broker:
    """One that answers no commit, behind a control lane and leased connections; and the event loop with its timers."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.connected = True
        self.over: dict[Lane, list[Any]] = {Lane.CONTROL: [], Lane.LEASED: []}
        self.under_way = Future()
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def call_later(self, delay: float, action: Callable[[], None]) -> Any:
        self._timers.append((self.now + delay, action))
        return self._timers[-1]

    def cancel(self, timer: Any) -> None:
        self._timers = [each for each in self._timers if each is not timer]

    def call_soon(self, action: Callable[[], None]) -> None:
        action()

    def is_connected(self, _: Any) -> bool:
        return self.connected

    def send_on(self, key: Any, request: Any, _: float) -> Future:
        self.over[key.lane].append(request)
        self.under_way = Future()
        return self.under_way

    def send_leased(self, _: Any, __: int, request: Any, ___: float, ____: Any) -> Future:
        self.over[Lane.LEASED].append(request)
        return Future()

    def timer(self, late_s: float = 0.0) -> None:
        """Let the next timer run, though not when it is due."""
        when, action = self._timers.pop(0)
        self.now = max(self.now, when) + late_s
        action()


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(commits_module, "time", broker)
    return broker


@pytest.fixture
def commits(broker: Broker) -> Commits:
    """Two are to be sent: the second waits for the first."""
    commits = Commits(broker, broker, broker.send_leased)  # type: ignore[arg-type]
    for number in (1, 2):
        commit(commits, number)
    assert broker.over == {Lane.CONTROL: [1], Lane.LEASED: []}
    return commits


def commit(commits: Commits, number: int) -> None:
    commits.send(object(), set(), 1, number, 30_000, lambda: False)


def test_one_that_takes_long_keeps_nobody_waiting(broker: Broker, commits: Commits) -> None:
    broker.timer()
    commit(commits, 3)
    assert broker.over == {Lane.CONTROL: [1], Lane.LEASED: [2, 3]}
    assert commits.are_slow(1)
    broker.under_way.success(None)
    assert not commits.are_slow(1)
    commit(commits, 4)
    commit(commits, 5)
    assert broker.over == {Lane.CONTROL: [1, 4], Lane.LEASED: [2, 3]}, "the next one is to be waited for again"


def test_where_the_event_loop_is_late_none_has_taken_long(broker: Broker, commits: Commits) -> None:
    broker.now += 0.3
    commit(commits, 3)  # by what is run before the timer
    broker.timer()
    assert broker.over[Lane.LEASED] == []
    assert not commits.are_slow(1)
    broker.under_way.success(None)  # it was here all the time
    assert broker.over == {Lane.CONTROL: [1, 2], Lane.LEASED: []}


def test_when_the_event_loop_is_on_time_again_one_may_have_taken_long(broker: Broker, commits: Commits) -> None:
    broker.timer(late_s=0.3)
    broker.timer()
    assert broker.over[Lane.LEASED] == [2]


def test_an_event_loop_that_is_always_late_does_not_keep_them_for_ever(broker: Broker, commits: Commits) -> None:
    began = broker.now
    while not broker.over[Lane.LEASED]:
        broker.timer(late_s=0.2)
    assert commits.are_slow(1)
    assert 1.0 <= broker.now - began <= 1.3


def test_a_broker_that_is_not_connected_gets_no_more_connections(broker: Broker, commits: Commits) -> None:
    broker.connected = False
    for _ in range(50):
        broker.timer()
    assert broker.over[Lane.LEASED] == []
    broker.connected = True
    broker.timer()
    assert broker.over[Lane.LEASED] == [2]
