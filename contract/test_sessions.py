"""Incremental fetch sessions (KIP-227)."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.errors import (
    FetchSessionIdNotFoundError,
    InvalidFetchSessionEpochError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)

from contract.lab import Lab
from contract.records import values
from contract.requests import Ask, fetch, of_partitions
from contract.wire import Wire

FOREVER_MS = 60_000
VERSION = 11


@pytest.fixture
def topic(lab: Lab) -> str:
    """Three partitions, all led by broker 1."""
    return lab.topic_led_by(1, 1, 1)


@pytest.fixture
def wire(lab: Lab) -> Wire:
    return lab.connect(1)


def opened(wire: Wire, topic: str, **options: Any) -> int:
    """The id of a new session with all partitions, from the start."""
    response = wire.ask(fetch({(topic, index): 0 for index in range(3)}, session=(0, 0), **options), VERSION)
    assert response.error_code == 0
    assert response.session_id > 0
    return int(response.session_id)


def test_a_new_session_answers_with_all_partitions(wire: Wire, topic: str) -> None:
    response = wire.ask(fetch({(topic, index): 0 for index in range(3)}, session=(0, 0)), VERSION)
    assert response.session_id > 0
    assert sorted(of_partitions(response)) == [(topic, 0), (topic, 1), (topic, 2)]


def test_only_changes_are_told(lab: Lab, wire: Wire, topic: str) -> None:
    session = opened(wire, topic)
    response = wire.ask(fetch({}, session=(session, 1)), VERSION)
    assert (response.error_code, response.session_id, of_partitions(response)) == (0, session, {})

    lab.write(topic, b"a", partition=1)
    parts = of_partitions(wire.ask(fetch({}, session=(session, 2)), VERSION))
    assert list(parts) == [(topic, 1)]
    assert values(parts[topic, 1]) == [b"a"]

    # The session asks from the old offset on until it is told another.
    parts = of_partitions(wire.ask(fetch({}, session=(session, 3)), VERSION))
    assert values(parts[topic, 1]) == [b"a"]
    assert of_partitions(wire.ask(fetch({(topic, 1): 1}, session=(session, 4)), VERSION)) == {}


def test_a_session_may_park(lab: Lab, wire: Wire, topic: str) -> None:
    session = opened(wire, topic)
    parked = wire.send(fetch({}, session=(session, 1), max_wait_ms=FOREVER_MS), VERSION)
    assert wire.is_silent()
    lab.write(topic, b"a", partition=2)
    assert list(of_partitions(wire.answer(parked))) == [(topic, 2)]


def test_a_new_high_watermark_alone_is_told(lab: Lab, wire: Wire, topic: str) -> None:
    lab.write(topic, b"a", partition=1)
    asked = {(topic, 0): 0, (topic, 1): 1}
    session = wire.ask(fetch(asked, session=(0, 0)), VERSION).session_id
    lab.write(topic, b"b", partition=1)
    # A limit of which the first partition's data takes all.
    lab.write(topic, b"x" * 500, partition=0)
    parts = of_partitions(wire.ask(fetch({}, session=(session, 1), max_bytes=10), VERSION))
    assert len(values(parts[topic, 0])) == 1
    assert not parts[topic, 1].records
    assert parts[topic, 1].high_watermark == 2


def test_partitions_are_added_and_forgotten(lab: Lab, wire: Wire, topic: str) -> None:
    session = wire.ask(fetch({(topic, 0): 0}, session=(0, 0)), VERSION).session_id
    added = of_partitions(wire.ask(fetch({(topic, 1): 0}, session=(session, 1)), VERSION))
    assert list(added) == [(topic, 1)]
    for partition in range(3):
        lab.write(topic, b"a", partition=partition)
    parts = of_partitions(wire.ask(fetch({}, session=(session, 2), forget=[(topic, 0)]), VERSION))
    assert list(parts) == [(topic, 1)]


def test_a_session_without_partitions_ends(wire: Wire, topic: str) -> None:
    session = wire.ask(fetch({(topic, 0): 0}, session=(0, 0)), VERSION).session_id
    response = wire.ask(fetch({}, session=(session, 1), forget=[(topic, 0)], max_wait_ms=FOREVER_MS), VERSION)
    assert (response.error_code, response.session_id, of_partitions(response)) == (0, 0, {})
    assert wire.ask(fetch({}, session=(session, 2)), VERSION).error_code == FetchSessionIdNotFoundError.errno


def test_a_wrong_epoch_is_refused_and_the_session_goes_on(wire: Wire, topic: str) -> None:
    session = opened(wire, topic)
    for epoch in (2, 7):
        response = wire.ask(fetch({}, session=(session, epoch), max_wait_ms=FOREVER_MS), VERSION)
        assert response.error_code == InvalidFetchSessionEpochError.errno
        assert (response.session_id, of_partitions(response)) == (0, {})
    assert wire.ask(fetch({}, session=(session, 1)), VERSION).error_code == 0
    assert wire.ask(fetch({}, session=(session, 1)), VERSION).error_code == InvalidFetchSessionEpochError.errno


def test_an_unknown_session_is_refused(wire: Wire) -> None:
    response = wire.ask(fetch({}, session=(123_456_789, 1), max_wait_ms=FOREVER_MS), VERSION)
    assert response.error_code == FetchSessionIdNotFoundError.errno
    assert (response.session_id, of_partitions(response)) == (0, {})


def test_the_final_epoch_ends_a_session(lab: Lab, wire: Wire, topic: str) -> None:
    session = opened(wire, topic)
    lab.write(topic, b"a")
    response = wire.ask(fetch({(topic, 0): 0}, session=(session, -1)), VERSION)
    assert (response.error_code, response.session_id) == (0, 0)
    assert values(of_partitions(response)[topic, 0]) == [b"a"]
    assert wire.ask(fetch({}, session=(session, 1)), VERSION).error_code == FetchSessionIdNotFoundError.errno


def test_the_initial_epoch_ends_the_old_session(wire: Wire, topic: str) -> None:
    session = opened(wire, topic)
    response = wire.ask(fetch({(topic, 0): 0}, session=(session, 0)), VERSION)
    assert response.session_id not in (0, session)
    assert list(of_partitions(response)) == [(topic, 0)]
    assert wire.ask(fetch({}, session=(session, 1)), VERSION).error_code == FetchSessionIdNotFoundError.errno


def test_a_session_belongs_to_the_broker_not_to_the_connection(lab: Lab, wire: Wire, topic: str) -> None:
    session = opened(wire, topic)
    wire.close()
    assert lab.connect(1, "another client").ask(fetch({}, session=(session, 1)), VERSION).error_code == 0
    elsewhere = lab.broker(2).ask(fetch({}, session=(session, 2)), VERSION)
    assert elsewhere.error_code == FetchSessionIdNotFoundError.errno


def test_an_error_is_told_again_and_again(lab: Lab, wire: Wire, topic: str) -> None:
    unknown = (lab.name("unknown"), 0)
    response = wire.ask(fetch({(topic, 0): 0, (topic, 1): 5, unknown: 0}, session=(0, 0)), VERSION)
    for epoch in (1, 2):
        parts = of_partitions(wire.ask(fetch({}, session=(response.session_id, epoch)), VERSION))
        assert parts[topic, 1].error_code == OffsetOutOfRangeError.errno
        assert parts[unknown].error_code == UnknownTopicOrPartitionError.errno
        assert len(parts) == 2


def test_who_got_data_comes_last_in_the_next_answer(lab: Lab, wire: Wire, topic: str) -> None:
    for partition in range(3):
        lab.write(topic, b"x" * 500, partition=partition)
    asked = {(topic, index): Ask(0) for index in range(3)}
    response = wire.ask(fetch(asked, session=(0, 0), max_bytes=10), VERSION)
    turns = []
    for epoch in range(1, 7):
        turns.append([index for (_, index), part in of_partitions(response).items() if part.records])
        response = wire.ask(fetch({}, session=(response.session_id, epoch), max_bytes=10), VERSION)
    assert turns == [[0], [0], [1], [2], [0], [1]]  # the first answer, of all partitions, counts for nobody's turn


def test_a_broker_without_room_for_another_session_does_without(lab: Lab, topic: str) -> None:
    """By default a broker keeps 1000, and none that is younger than two minutes makes room for another."""
    wire = lab.connect(3)
    elsewhere = lab.topic_led_by(3)
    request = fetch({(elsewhere, 0): 0}, session=(0, 0))
    numbers = [wire.send(request, VERSION) for _ in range(1_100)]
    sessions = [wire.answer(number).session_id for number in numbers]
    kept = [session for session in sessions if session]
    try:
        assert 900 < len(kept) <= 1_000
        assert wire.ask(fetch({}, session=(kept[0], 1)), VERSION).error_code == 0
        parts = of_partitions(wire.ask(request, VERSION))
        assert parts[elsewhere, 0].error_code == 0
    finally:
        for number in [wire.send(fetch({}, session=(session, -1)), VERSION) for session in kept]:
            wire.answer(number)
    assert wire.ask(request, VERSION).session_id > 0
