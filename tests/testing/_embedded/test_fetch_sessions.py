"""Which session makes room for another, and when."""

from __future__ import annotations

import pytest
from kafka.errors import FetchSessionIdNotFoundError

from pooledkafka.testing._embedded.fetch_sessions import FetchSession, FetchSessions, Followed


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> FetchSessions:
    return FetchSessions(2, clock)


def opened(sessions: FetchSessions, size: int) -> FetchSession:
    session = sessions.open(size)
    assert session is not None
    session.partitions.update({("t", index): Followed(None) for index in range(size)})
    return session


def test_none_is_kept_where_there_is_no_room_at_all(clock: Clock) -> None:
    assert FetchSessions(0, clock).open(1) is None


def test_young_sessions_make_no_room(sessions: FetchSessions, clock: Clock) -> None:
    kept = [opened(sessions, 1), opened(sessions, 1)]
    clock.now += 120
    assert sessions.open(100) is None
    assert [sessions.resume(each.session_id, 1) for each in kept] == kept


def test_one_that_was_not_used_for_two_minutes_makes_room(sessions: FetchSessions, clock: Clock) -> None:
    used, unused = opened(sessions, 1), opened(sessions, 9)
    clock.now += 121
    sessions.resume(used.session_id, 1)
    assert sessions.open(1) is not None
    assert sessions.resume(used.session_id, 2) is used
    with pytest.raises(FetchSessionIdNotFoundError):
        sessions.resume(unused.session_id, 1)


def test_an_old_one_makes_room_for_one_of_more_partitions(sessions: FetchSessions, clock: Clock) -> None:
    small, large = opened(sessions, 2), opened(sessions, 3)
    clock.now += 121
    for session in (small, large):
        sessions.resume(session.session_id, 1)
    assert sessions.open(2) is None
    assert sessions.open(3) is not None
    with pytest.raises(FetchSessionIdNotFoundError):
        sessions.resume(small.session_id, 2)
    assert sessions.resume(large.session_id, 2) is large


def test_one_that_is_closed_makes_room(sessions: FetchSessions) -> None:
    sessions.close(opened(sessions, 1).session_id)
    assert len(sessions) == 0
    opened(sessions, 1)
    opened(sessions, 1)
    assert sessions.open(1) is None
