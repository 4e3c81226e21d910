"""When a commit counts as slow, under a clock of the test."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from kafka.errors import RequestTimedOutError
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
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self._soon: deque[Callable[[], None]] = deque()

    def monotonic(self) -> float:
        return self.now

    def call_later(self, delay: float, action: Callable[[], None]) -> Any:
        self.timers.append((self.now + delay, action))
        return self.timers[-1]

    def cancel(self, timer: Any) -> None:
        self.timers = [each for each in self.timers if each is not timer]

    def call_soon(self, action: Callable[[], None]) -> None:
        self._soon.append(action)

    def settle(self) -> None:
        while self._soon:
            self._soon.popleft()()

    def is_connected(self, _: Any) -> bool:
        return self.connected

    def send_on(self, key: Any, request: Any, _: float) -> Future:
        if isinstance(request, Exception):
            raise request
        self.over[key.lane].append(request)
        self.under_way = Future()
        return self.under_way

    def send_leased(self, _: Any, __: int, request: Any, ___: float, ____: Any) -> Future:
        self.over[Lane.LEASED].append(request)
        return Future()

    def timer(self, late_s: float = 0.0) -> None:
        """Let the next timer run, though not when it is due."""
        when, action = self.timers.pop(0)
        self.now = max(self.now, when) + late_s
        action()
        self.settle()

    def answer(self) -> None:
        """Answer the commit on the control lane."""
        self.under_way.success(None)
        self.settle()


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


def commit(commits: Commits, number: Any, owner: object = None, timeout_ms: float = 30_000) -> Future:
    return commits.send(owner or object(), set(), 1, number, timeout_ms, lambda: False)


@pytest.mark.parametrize("late_s", [0.0, 0.005])
def test_one_that_takes_long_keeps_nobody_waiting(broker: Broker, commits: Commits, late_s: float) -> None:
    broker.timer(late_s)
    commit(commits, 3)
    assert broker.over == {Lane.CONTROL: [1], Lane.LEASED: [2, 3]}
    assert commits.are_slow(1)
    broker.answer()
    assert not commits.are_slow(1)
    commit(commits, 4)
    commit(commits, 5)
    assert broker.over == {Lane.CONTROL: [1, 4], Lane.LEASED: [2, 3]}, "the next one is to be waited for again"


def test_one_that_is_answered_is_not_watched_any_more(broker: Broker, commits: Commits) -> None:
    (_, look) = broker.timers[0]
    broker.answer()
    assert len(broker.timers) == 1, "that of the second"
    commit(commits, 3)
    look()  # it was ready to run already
    assert broker.over == {Lane.CONTROL: [1, 2], Lane.LEASED: []}


@pytest.mark.parametrize("late_s", [0.02, 0.3])
def test_where_the_event_loop_is_late_none_is_sent_over_a_lease(
    broker: Broker, commits: Commits, late_s: float
) -> None:
    broker.timer(late_s)
    assert broker.over[Lane.LEASED] == []
    assert commits.are_slow(1), "what waits on the control lane is behind it all the same"
    broker.answer()
    assert broker.over == {Lane.CONTROL: [1, 2], Lane.LEASED: []}
    assert not commits.are_slow(1)


def test_when_the_event_loop_is_on_time_again_one_may_have_taken_long(broker: Broker, commits: Commits) -> None:
    broker.timer(late_s=0.3)
    broker.timer()
    assert broker.over[Lane.LEASED] == [2]


@pytest.mark.parametrize(("late_s", "within_s"), [(0.015, 0.15), (0.1, 0.5), (0.3, 1.1), (2.0, 2.1)])
def test_an_event_loop_that_is_always_late_is_given_three_times_that(
    broker: Broker, commits: Commits, late_s: float, within_s: float
) -> None:
    began = broker.now
    for _ in range(20):
        if not broker.over[Lane.LEASED]:
            broker.timer(late_s)
    assert broker.over == {Lane.CONTROL: [1], Lane.LEASED: [2]}
    assert min(3 * late_s, 1.0) < broker.now - began <= within_s


def test_a_broker_that_is_not_connected_gets_no_more_connections(broker: Broker, commits: Commits) -> None:
    broker.connected = False
    for _ in range(50):
        broker.timer()
    assert broker.over[Lane.LEASED] == []
    assert not commits.are_slow(1)
    broker.connected = True
    broker.timer(late_s=0.3)
    assert broker.over[Lane.LEASED] == [], "until then none was waited for"
    broker.timer()
    assert broker.over[Lane.LEASED] == [2]


def test_one_whose_time_is_over_is_not_sent(broker: Broker, commits: Commits) -> None:
    late = commit(commits, 3, timeout_ms=1_000)
    broker.connected = False
    for _ in range(30):
        broker.timer()
    broker.connected = True
    broker.timer()
    assert isinstance(late.exception, RequestTimedOutError)
    assert broker.over == {Lane.CONTROL: [1], Lane.LEASED: [2]}


def test_one_that_cannot_even_be_sent_holds_up_nobody(broker: Broker, commits: Commits) -> None:
    refused = commit(commits, OSError("as kafka-python's transport while it closes"))
    commit(commits, 4)
    for _ in range(2):
        broker.answer()
    assert isinstance(refused.exception, OSError)
    assert broker.over[Lane.CONTROL] == [1, 2, 4]


def test_who_commits_all_the_time_lets_others_go_first(broker: Broker) -> None:
    commits = Commits(broker, broker, broker.send_leased)  # type: ignore[arg-type]
    busy = object()
    for number in (1, 2, 3):
        commit(commits, number, busy)
    commit(commits, 100)
    for _ in range(3):
        broker.answer()
    assert broker.over[Lane.CONTROL] == [1, 100, 2, 3]
