from __future__ import annotations

from types import SimpleNamespace

import pytest
from kafka.errors import KafkaConnectionError
from kafka.future import Future

from pooledkafka._wire import introductions
from pooledkafka._wire.introductions import Introductions


class Other:
    """A connection that is up."""

    def __init__(self) -> None:
        self.closed = False
        self.broker_version_data = "3.9"


class Connection:
    """A connection of kafka-python's that comes up when the test says so."""

    def __init__(self, introductions: Introductions, node_id: int = 1) -> None:
        self.closed = False
        self.close_future = Future()
        self.broker_version_data: str | None = None
        self.asked: list[float | None] = []
        self._answer = Future()
        introductions.spare(node_id, self)

    async def _get_api_versions(self, timeout_at: float | None = None) -> None:
        self.asked.append(timeout_at)
        await self._answer
        self.broker_version_data = "its own"

    def begin(self) -> Connection:
        self._task = self._get_api_versions(9.0)
        self.go_on()
        return self

    def go_on(self) -> None:
        try:
            self._task.send(None)
        except StopIteration:
            pass

    def answered(self) -> None:
        self._answer.success(None)
        self.go_on()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=5.0)
    monkeypatch.setattr(introductions, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def known(clock: SimpleNamespace) -> Introductions:
    """Broker 1 has just answered something."""
    known = Introductions()
    known.heard(1, Other())
    return known


def test_where_nobody_knows_it_asks(clock: SimpleNamespace) -> None:
    connection = Connection(Introductions()).begin()
    connection.answered()
    assert connection.asked == [9.0], "within the time that it has"
    assert connection.broker_version_data == "its own"


def test_what_it_was_told_the_next_one_need_not_ask(clock: SimpleNamespace) -> None:
    nobody = Introductions()
    Connection(nobody).begin().answered()
    assert not Connection(nobody).begin().asked


def test_where_the_broker_has_just_answered_another_it_does_not(known: Introductions) -> None:
    connection = Connection(known).begin()
    assert connection.asked == []
    assert connection.broker_version_data == "3.9"


def test_of_another_broker_that_says_nothing(known: Introductions) -> None:
    assert Connection(known, node_id=2).begin().asked


def test_an_answer_of_a_while_ago_says_nothing_of_now(known: Introductions, clock: SimpleNamespace) -> None:
    clock.now += 0.1
    assert not Connection(known).begin().asked
    clock.now += 0.01
    assert Connection(known).begin().asked


def test_nor_does_one_on_a_connection_that_has_ended(clock: SimpleNamespace) -> None:
    known = Introductions()
    other = Other()
    known.heard(1, other)
    other.closed = True  # the broker may have been started anew, as another version
    assert Connection(known).begin().asked


def test_one_that_was_spared_and_cut_off_lets_all_ask_for_a_while(known: Introductions, clock: SimpleNamespace) -> None:
    """What it would have found out, that the broker takes no more connections, others are to find out before."""
    spared = Connection(known).begin()
    spared.closed = True
    spared.close_future.failure(KafkaConnectionError("too many connections"))
    assert spared not in known._spared
    known.heard(1, Other())
    assert Connection(known).begin().asked
    assert Connection(known, node_id=2).begin().asked
    clock.now += 60.0
    known.heard(1, Other())
    assert not Connection(known).begin().asked


@pytest.mark.parametrize("how", ["on purpose", "after an answer"])
def test_not_where_that_has_another_reason(known: Introductions, how: str) -> None:
    spared = Connection(known).begin()
    if how == "on purpose":
        spared.close_future.success(None)
    else:
        known.heard(1, spared)
        spared.close_future.failure(KafkaConnectionError("the broker ends"))
    assert not known._spared, "it is kept no longer than it lives"
    assert not Connection(known).begin().asked
