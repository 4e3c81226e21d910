"""What one partition among thousands costs does not depend on how many there are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from kafka.structs import TopicPartition

from pooledkafka._fetch import Limits, Line, LogicalFetch, Multiplexer, Position, ReadAhead, WireFetch
from tests._fetch.simulated_log import SimulatedBroker, SimulatedLog, join, offsets_in

HOT = TopicPartition("topic", 0)


def calls_during(action: Callable[[], Any]) -> int:
    """How many functions of Python's are called: work that does not depend on the machine."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(before)
    return calls


class Wide:
    """Readers of all partitions of a topic, of which one is hot."""

    def __init__(self, partitions: int, readers: int = 3, limits: Limits | None = None) -> None:
        self.broker = SimulatedBroker()
        self.broker.logs = {TopicPartition("topic", n): SimulatedLog() for n in range(partitions)}
        self.machine = Multiplexer(
            read_committed=False, read_ahead=ReadAhead(1_000_000), join=join, limits=limits or Limits()
        )
        self.readers = range(readers)
        self.now = 0.0
        self.hot_at = 0
        self.in_flight: dict[Line, WireFetch] = {}
        self.sent: list[WireFetch] = []
        self.got: dict[int, list[int]] = {reader: [] for reader in self.readers}
        self.wanted = {partition: Position(0) for partition in self.broker.logs}

    def ask(self) -> None:
        for reader in self.readers:
            self.machine.submit(LogicalFetch(reader, dict(self.wanted), self.now + 0.5, patient=True), self.now)
        self.step()

    def step(self) -> None:
        step = self.machine.step(self.now)
        for wire in step.requests:
            self.in_flight[wire.line] = wire
            self.sent.append(wire)
        for fetch, answers in step.completions:
            for answer in answers.values():
                self.got[fetch.reader].extend(offsets_in(answer.records))

    def answer(self, line: Line) -> None:
        wire = self.in_flight.pop(line)
        self.machine.answered(wire, self.broker.answer(wire, sessions=line is Line.PARKED), self.now)
        self.step()

    def settle(self) -> None:
        """Bring all to the end, where the parked request covers them."""
        self.ask()
        while len(self.machine._standing.streams) < len(self.wanted):
            for line in list(self.in_flight):
                self.answer(line)
        while Line.CATCH_UP in self.in_flight:
            self.answer(Line.CATCH_UP)
        self.now += 1.0
        self.step()
        self.ask()

    def round(self) -> None:
        """A record comes to the hot partition, and to all readers, who ask for more."""
        self.broker.logs[HOT].append(1)
        self.answer(Line.PARKED)
        self.hot_at += 1
        self.wanted[HOT] = Position(self.hot_at)
        self.ask()


@pytest.mark.parametrize("readers", [1, 3])
def test_a_hot_partition_among_idle_ones_costs_no_more_than_among_few(readers: int) -> None:
    few, many = (Wide(partitions, readers) for partitions in (20, 4_000))
    costs = []
    for wide in (few, many):
        wide.settle()
        wide.round()
        costs.append(calls_during(wide.round))
        assert all(wide.got[reader] == [0, 1] for reader in wide.readers)
    # What the simulated broker does for each partition is no part of it.
    costs[1] -= calls_during(lambda: many.broker.answer(many.in_flight[Line.PARKED], sessions=True))
    assert costs[1] < 2 * costs[0]


def test_a_request_says_only_what_has_changed() -> None:
    wide = Wide(2_500)
    wide.settle()
    wide.round()
    wire = wide.in_flight[Line.PARKED]
    assert len(wire.partitions) == 2_500
    assert wire.changed == {HOT: Position(1, last_fetched_epoch=0)}
    assert wire.forgotten == []
    wide.answer(Line.PARKED)
    assert wide.in_flight[Line.PARKED].changed == {}
    for reader in wide.readers:
        wide.machine.forget(reader)
    other = TopicPartition("topic", 7)
    wide.wanted = {other: Position(0)}
    wide.ask()
    wide.answer(Line.PARKED)
    wide.answer(Line.CATCH_UP)
    wire = wide.in_flight[Line.PARKED]
    assert wire.changed == {}
    assert set(wire.forgotten) == set(wide.broker.logs) - {other}
    assert wire.partitions == {other: Position(0)}


def test_no_request_names_more_than_may_be_served_quickly() -> None:
    limits = Limits(catch_up_partitions=50, parked_additions=100)
    wide = Wide(1_000, limits=limits)
    wide.settle()
    caught_up = [wire for wire in wide.sent if wire.line is Line.CATCH_UP]
    parked = [wire for wire in wide.sent if wire.line is Line.PARKED]
    assert max(len(wire.partitions) for wire in caught_up) == 50
    assert max(len(wire.changed) for wire in parked) <= 100
    for wire in parked:
        assert wire.max_wait_ms == 0 or len(wire.changed) < 100 or len(wire.partitions) == 1_000
    assert parked[-1].max_wait_ms == limits.parked_wait_ms
    wide.round()
    assert wide.got[0] == [0]


def test_all_are_read_where_all_have_records() -> None:
    wide = Wide(1_000, readers=1, limits=Limits(catch_up_partitions=50, parked_additions=100))
    for log in wide.broker.logs.values():
        log.append(1)
    seen: set[TopicPartition] = set()
    for _ in range(200):
        fetch = LogicalFetch(0, dict(wide.wanted), wide.now + 0.5, patient=True)
        wide.machine.submit(fetch, wide.now)
        for line in (Line.CATCH_UP, Line.PARKED):
            step = wide.machine.step(wide.now)
            for wire in step.requests:
                wide.in_flight[wire.line] = wire
            for _, answers in step.completions:
                seen.update(answers)
                wide.wanted.update(dict.fromkeys(answers, Position(1)))
            if line in wide.in_flight:
                wire = wide.in_flight.pop(line)
                wide.machine.answered(wire, wide.broker.answer(wire, sessions=line is Line.PARKED), wide.now)
        wide.now += 0.01
    assert seen == set(wide.wanted)
