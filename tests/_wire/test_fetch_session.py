"""A session says what changed, and all anew wherever the broker may have lost track."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.errors import (
    FetchSessionIdNotFoundError,
    InvalidFetchSessionEpochError,
    NoError,
    NotLeaderForPartitionError,
)
from kafka.protocol.consumer import FetchResponse
from kafka.structs import TopicPartition

from pooledkafka._fetch import Line, Position, WireFetch
from pooledkafka._wire.fetch_session import FetchSession, without_session

A, B, C = (TopicPartition("orders", n) for n in range(3))


def wire() -> WireFetch:
    """Of A and B, of which B changed, and no longer of C."""
    return WireFetch(Line.PARKED, {A: Position(1), B: Position(2)}, 500, 1, {B: Position(2)}, [C])


def response(session_id: int, error: type[Any] = NoError) -> FetchResponse:
    return FetchResponse(version=12, throttle_time_ms=0, error_code=error.errno, session_id=session_id, responses=[])


def said(data: Any) -> tuple[int, int, list[tuple[int, int]], list[int]]:
    """Session, epoch, partitions with their offsets, and partitions to forget."""
    asked = [(p.partition, p.fetch_offset) for topic in data.to_send for p in topic.partitions]
    return data.id, data.epoch, asked, [p for topic in data.to_forget for p in topic.partitions]


ALL = [(0, 1), (1, 2)]


def begun() -> FetchSession:
    session = FetchSession()
    assert said(session.data_of(wire())) == (0, 0, ALL, [])
    assert session.answered(response(7))
    assert said(session.data_of(wire())) == (7, 1, [(1, 2)], [2])
    return session


def test_each_good_answer_moves_it_on() -> None:
    session = begun()
    assert session.answered(response(7))
    assert said(session.data_of(wire())) == (7, 2, [(1, 2)], [2])


def test_one_that_the_broker_does_not_know_begins_anew() -> None:
    session = begun()
    assert not session.answered(response(0, FetchSessionIdNotFoundError))
    assert said(session.data_of(wire())) == (0, 0, ALL, [])


@pytest.mark.parametrize("error", [InvalidFetchSessionEpochError, NotLeaderForPartitionError])
def test_one_that_went_wrong_is_replaced(error: type[Any]) -> None:
    session = begun()
    assert not session.answered(response(7, error))
    assert said(session.data_of(wire())) == (7, 0, ALL, [])


def test_one_whose_request_was_lost_is_replaced() -> None:
    session = begun()
    session.failed()
    assert said(session.data_of(wire())) == (7, 0, ALL, [])


def test_a_broker_that_keeps_none_is_told_all_each_time() -> None:
    session = FetchSession()
    assert session.answered(response(0))
    assert said(session.data_of(wire())) == (0, 0, ALL, [])
    session = begun()
    assert session.answered(response(0)), "it closed the session, and answered all the same"
    assert said(session.data_of(wire())) == (0, 0, ALL, [])


def test_a_throttled_answer_leaves_it_where_it_is() -> None:
    session = begun()
    assert session.answered(response(-1))
    assert said(session.data_of(wire())) == (7, 1, [(1, 2)], [2])


def test_catching_up_is_outside_any_session() -> None:
    assert said(without_session(wire())) == (0, -1, ALL, [])
