"""What the multiplexer asks of the broker, and whom it answers with what, case by case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from kafka.structs import TopicPartition

from pooledkafka._fetch import Limits, Line, LogicalFetch, Multiplexer, Position, ReadAhead, WireFetch
from tests._fetch.simulated_log import SimulatedBroker, SimulatedLog, batch, join, offsets_in, partition_answer

A, B, C = (TopicPartition("topic", n) for n in range(3))
MAX_BYTES = 1_000


class Bench:
    """A multiplexer, a clock, logs to read from, and what came out."""

    patient = False  # whether its readers are

    def __init__(self, read_ahead: int = 1_000_000) -> None:
        self.now = 100.0
        self.broker = SimulatedBroker()
        self.broker.logs = {partition: SimulatedLog() for partition in (A, B, C)}
        self.read_ahead = ReadAhead(read_ahead)
        self.machine = Multiplexer(
            read_committed=False, read_ahead=self.read_ahead, join=join, limits=Limits(idle_s=10.0, retry_s=0.05)
        )
        self.in_flight: dict[Line, WireFetch] = {}
        self.answers: dict[int, dict[TopicPartition, Any]] = {}  # of the last completed fetch, by reader
        self.sent: list[WireFetch] = []

    def fetch(self, reader: int, wait: float = 0.5, min_bytes: int = 1, max_bytes: int = 10_000, **at: int) -> None:
        """Reader fetches partitions named by letter from the given offsets."""
        self.fetch_positions(
            reader,
            {globals()[name.upper()]: Position(offset, partition_max_bytes=MAX_BYTES) for name, offset in at.items()},
            wait,
            min_bytes,
            max_bytes,
        )

    def fetch_positions(
        self,
        reader: int,
        positions: dict[TopicPartition, Position],
        wait: float = 0.5,
        min_bytes: int = 1,
        max_bytes: int = 10_000,
    ) -> None:
        self.answers.pop(reader, None)
        fetch = LogicalFetch(reader, positions, self.now + wait, min_bytes, max_bytes, patient=self.patient)
        self.machine.submit(fetch, self.now)
        self.step()

    def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        step = self.machine.step(self.now)
        for wire in step.requests:
            assert wire.line not in self.in_flight
            self.in_flight[wire.line] = wire
            self.sent.append(wire)
        for fetch, answers in step.completions:
            assert fetch.reader not in self.answers
            self.answers[fetch.reader] = answers

    def answer(self, line: Line, answers: dict[TopicPartition, Any] | None = None) -> None:
        """The broker answers from its logs, or as told."""
        wire = self.in_flight.pop(line)
        self.machine.answered(wire, self.broker.answer(wire) if answers is None else answers, self.now)
        self.step()

    def lose(self, line: Line) -> None:
        self.machine.failed(self.in_flight.pop(line), self.now)
        self.step()

    def park(self, *readers: int, **at: int) -> None:
        """Bring readers to the end of the logs, and the parked fetch that covers them on its way."""
        for reader in readers:
            self.fetch(reader, **at)
        while Line.CATCH_UP in self.in_flight:
            self.answer(Line.CATCH_UP)
            parked = self.in_flight.get(Line.PARKED)
            if parked is not None and set(parked.partitions) < {globals()[name.upper()] for name in at}:
                self.answer(Line.PARKED)

    def covered(self, line: Line) -> dict[TopicPartition, int]:
        wire = self.in_flight.get(line)
        return {} if wire is None else {p: position.fetch_offset for p, position in wire.partitions.items()}

    def got(self, reader: int, partition: TopicPartition) -> list[int]:
        answer = self.answers.get(reader, {}).get(partition)
        return [] if answer is None else offsets_in(answer.records)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_any_number_of_readers_at_the_end_wait_in_one_fetch(bench: Bench) -> None:
    bench.park(*range(50), a=0, b=0)
    assert bench.covered(Line.PARKED) == {A: 0, B: 0}
    assert bench.covered(Line.CATCH_UP) == {}
    fetches = len(bench.sent)
    bench.broker.logs[A].append(3)
    bench.answer(Line.PARKED)
    assert all(bench.got(reader, A) == [0, 1, 2] for reader in range(50))
    assert len(bench.sent) == fetches + 1, "one fetch brought it to all, and the next is on its way"


def test_an_answer_says_how_many_read_there(bench: Bench) -> None:
    bench.park(1, 2, 3, a=0)
    bench.broker.logs[A].append(2)
    bench.answer(Line.PARKED)
    assert [bench.answers[reader][A].readers for reader in (1, 2, 3)] == [3, 3, 3]
    bench.fetch(3, a=0)  # it reads again what it has had: another stream of the same partition
    bench.answer(Line.CATCH_UP)
    assert bench.answers[3][A].readers == 3
    bench.machine.forget(2)
    bench.fetch(1, a=0)
    bench.answer(Line.CATCH_UP)
    assert bench.answers[1][A].readers == 2


def test_what_one_reads_alone_is_passed_through_as_it_came(bench: Bench) -> None:
    bench.broker.logs[A].append(2)
    bench.fetch(1, a=0)
    bench.answer(Line.CATCH_UP)
    assert bench.got(1, A) == [0, 1]
    assert not hasattr(bench.answers[1][A], "readers")


def test_what_was_just_delivered_is_read_on_before_anybody_asks(bench: Bench) -> None:
    bench.park(1, a=0, b=0)
    bench.broker.logs[A].append(2)
    bench.answer(Line.PARKED)
    assert bench.covered(Line.PARKED) == {A: 2, B: 0}
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    bench.fetch(1, a=2, b=0)
    assert bench.got(1, A) == [2]


def test_who_comes_to_wait_beside_others_is_covered_when_the_parked_fetch_has_come_back(bench: Bench) -> None:
    bench.park(1, a=0)
    bench.fetch(2, b=0)
    bench.answer(Line.CATCH_UP)
    assert bench.covered(Line.CATCH_UP) == {B: 0}
    bench.answer(Line.PARKED, {})
    assert bench.covered(Line.PARKED) == {}, "it waits for the other, which is on its way nearly all the time"
    bench.answer(Line.CATCH_UP)
    assert bench.covered(Line.PARKED) == {A: 0, B: 0}
    assert bench.covered(Line.CATCH_UP) == {}


def test_a_parked_fetch_that_brings_records_goes_on_at_once(bench: Bench) -> None:
    bench.park(1, a=0)
    bench.fetch(2, b=0)
    bench.answer(Line.CATCH_UP)
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    assert bench.covered(Line.PARKED) == {A: 1}
    assert bench.covered(Line.CATCH_UP) == {B: 0}


def test_a_reader_that_lags_is_fetched_at_once_beside_the_parked_fetch(bench: Bench) -> None:
    bench.broker.logs[A].append(10)
    bench.park(1, a=10, b=0)
    parked = bench.in_flight[Line.PARKED]
    bench.fetch(2, a=0)
    assert bench.in_flight[Line.CATCH_UP].max_wait_ms == 0
    assert bench.covered(Line.CATCH_UP) == {A: 0}
    bench.answer(Line.CATCH_UP)
    assert bench.got(2, A) == list(range(10))
    assert bench.in_flight[Line.PARKED] is parked


def test_a_reader_that_comes_to_the_end_meanwhile_is_polled_for_until_the_parked_fetch_takes_it_in(
    bench: Bench,
) -> None:
    bench.park(1, a=0)
    bench.fetch(2, b=0)
    assert bench.in_flight[Line.CATCH_UP].max_wait_ms == 0, "nobody knows yet that it is at the end"
    bench.answer(Line.CATCH_UP)
    assert bench.in_flight[Line.CATCH_UP].max_wait_ms == 50, "now it is known, so this waits a little"
    bench.broker.logs[B].append(1)
    bench.answer(Line.CATCH_UP)
    assert bench.got(2, B) == [0]
    bench.answer(Line.PARKED)
    assert bench.covered(Line.PARKED) == {A: 0, B: 1}


def test_a_reader_that_has_caught_up_joins_the_others(bench: Bench) -> None:
    bench.broker.logs[A].append(5)
    bench.park(1, a=5)
    bench.fetch(2, a=0)
    bench.answer(Line.CATCH_UP)
    bench.fetch(2, a=5)
    assert bench.covered(Line.CATCH_UP) == {}
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    assert bench.got(1, A) == bench.got(2, A) == [5]


def test_a_slow_reader_keeps_nobody_waiting_and_misses_nothing(bench: Bench) -> None:
    bench.park(1, 2, a=0)
    position = 0
    for _ in range(40):  # reader 2 has its first answer and does not come back
        bench.broker.logs[A].append(3)
        bench.answer(Line.PARKED if Line.PARKED in bench.in_flight else Line.CATCH_UP)
        assert bench.got(1, A) == [position, position + 1, position + 2]
        position += 3
        bench.fetch(1, a=position)
    assert bench.got(2, A) == [0, 1, 2]
    assert bench.read_ahead.used <= 2 * MAX_BYTES
    bench.fetch(2, a=3)
    if not bench.got(2, A):
        bench.answer(Line.CATCH_UP)
    assert bench.got(2, A)[:3] == [3, 4, 5]


def test_a_partition_whose_reader_does_not_come_is_left_out_and_taken_in_again(bench: Bench) -> None:
    bench.park(1, a=0, b=0)
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)  # delivered
    bench.fetch(2, wait=60, b=0)
    offset = 1
    while A in bench.covered(Line.PARKED):
        bench.broker.logs[A].append(1)
        bench.answer(Line.PARKED)
        offset += 1
        assert offset < 100
    assert bench.covered(Line.PARKED) == {B: 0}
    bench.fetch(1, a=1)
    assert bench.got(1, A) == list(range(1, offset))
    bench.answer(Line.PARKED)
    assert bench.covered(Line.PARKED) == {A: offset, B: 0}


def test_when_the_bound_is_met_only_what_somebody_waits_for_is_fetched() -> None:
    bench = Bench(read_ahead=500)
    bench.park(1, 2, a=0, b=0)
    bench.broker.logs[A].append(1)
    bench.broker.logs[B].append(1)
    bench.answer(Line.PARKED)
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)  # read ahead for two readers that are busy
    assert not bench.read_ahead.has_room
    bench.fetch(1, b=1)
    covered = bench.covered(Line.PARKED) | bench.covered(Line.CATCH_UP)
    assert covered == {B: 1}
    bench.fetch(2, a=1)
    assert bench.got(2, A) == [1]


def test_an_error_is_delivered_and_fetched_again_only_after_a_pause_that_grows(bench: Bench) -> None:
    bench.broker.logs[A].error = 6
    pauses = []
    for _ in range(4):
        bench.fetch(1, a=0)
        start = bench.now
        while Line.CATCH_UP not in bench.in_flight:
            bench.step(0.01)
        pauses.append(bench.now - start)
        bench.answer(Line.CATCH_UP)
        assert bench.answers[1][A].error_code == 6
    assert pauses[0] == 0
    assert 0.04 < pauses[1] < pauses[2] < pauses[3] < 0.25
    bench.broker.logs[A].error = 0
    bench.park(2, b=0)
    assert B in bench.covered(Line.PARKED), "the others are not held up"


def test_a_partition_in_error_leaves_the_parked_fetch(bench: Bench) -> None:
    bench.park(1, 2, a=0, b=0)
    bench.broker.logs[A].error = 3
    bench.answer(Line.PARKED)
    assert bench.answers[1][A].error_code == bench.answers[2][A].error_code == 3
    assert bench.covered(Line.PARKED) == {B: 0}


def test_after_a_seek_what_is_on_its_way_for_the_old_place_is_not_delivered(bench: Bench) -> None:
    bench.broker.logs[A].append(10)
    bench.fetch(1, a=8)
    stale = bench.in_flight.pop(Line.CATCH_UP)
    bench.fetch(1, a=2)
    assert bench.answers.pop(1) == {}, "the fetch that was given up is answered empty"
    bench.machine.answered(stale, bench.broker.answer(stale), bench.now)
    bench.step()
    assert bench.got(1, A) == []
    bench.answer(Line.CATCH_UP)
    assert bench.sent[-1].partitions[A].fetch_offset != 8
    assert 2 in bench.got(1, A)


def test_readers_with_different_leader_epochs_do_not_share(bench: Bench) -> None:
    bench.fetch_positions(1, {A: Position(0, current_leader_epoch=4, partition_max_bytes=MAX_BYTES)})
    bench.answer(Line.CATCH_UP)
    bench.fetch_positions(2, {A: Position(0, current_leader_epoch=5, partition_max_bytes=MAX_BYTES)})
    assert bench.in_flight[Line.CATCH_UP].partitions[A].current_leader_epoch == 5
    assert bench.in_flight[Line.PARKED].partitions[A].current_leader_epoch == 4
    bench.answer(Line.PARKED, {A: partition_answer(0, b"", error_code=74)})  # FENCED_LEADER_EPOCH
    assert bench.answers[1][A].error_code == 74
    assert 2 not in bench.answers


def test_a_reader_of_another_history_has_the_broker_check_it(bench: Bench) -> None:
    bench.broker.logs[A].epoch = 7
    bench.broker.logs[A].append(3)
    bench.fetch(1, a=0)
    bench.answer(Line.CATCH_UP)
    bench.fetch(1, a=3)  # continues after a record of epoch 7
    bench.fetch_positions(2, {A: Position(3, last_fetched_epoch=6, partition_max_bytes=MAX_BYTES)})
    asked = [w.partitions[A].last_fetched_epoch for w in bench.in_flight.values() if A in w.partitions]
    assert 6 in asked or Line.CATCH_UP in bench.in_flight
    while 6 not in [w.partitions[A].last_fetched_epoch for w in bench.sent if A in w.partitions]:
        bench.answer(Line.CATCH_UP)


@pytest.mark.parametrize("records", [b"", batch(0, 2, 0)])
def test_a_preferred_replica_is_passed_on_at_once(bench: Bench, records: bytes) -> None:
    bench.fetch(1, a=0)
    bench.answer(Line.CATCH_UP, {A: partition_answer(5, records, preferred=3)})
    assert bench.answers[1][A].preferred_read_replica == 3


def test_min_bytes_waits_for_more_and_the_deadline_for_nothing(bench: Bench) -> None:
    bench.park(1, a=0)
    bench.fetch(1, wait=0.5, min_bytes=200, a=0)
    bench.answers.clear()
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    assert 1 not in bench.answers
    bench.broker.logs[A].append(20)
    bench.answer(Line.PARKED)
    assert bench.got(1, A) == list(range(21)), "several answers are joined into one"
    bench.fetch(1, wait=0.5, min_bytes=10_000, a=21)
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    assert 1 not in bench.answers
    bench.step(0.5)
    assert bench.got(1, A) == [21]


def test_what_another_broker_is_asked_for_takes_room(bench: Bench) -> None:
    other = Bench()
    bench.read_ahead.limit = 2_500
    other.machine._read_ahead = bench.read_ahead
    for each in (bench, other):
        for log in each.broker.logs.values():
            log.append(5)
        each.fetch(1, a=0, b=0)
    assert [each.in_flight[Line.CATCH_UP].max_bytes for each in (bench, other)] == [2_500, MAX_BYTES]
    for each in (bench, other):
        each.lose(Line.CATCH_UP)
        assert Line.CATCH_UP not in each.in_flight, "it pauses"
    assert bench.read_ahead.asked == 0


def test_max_bytes_bounds_an_answer_but_never_to_nothing(bench: Bench) -> None:
    for log in bench.broker.logs.values():
        log.append(5)
    bench.fetch(1, max_bytes=150, a=0, b=0, c=0)
    bench.answer(Line.CATCH_UP)
    assert len(bench.answers[1]) == 1
    bench.fetch(1, max_bytes=1, b=0, c=0)
    assert len(bench.answers[1]) == 1


def test_a_lost_connection_ends_nobodys_wait_and_is_retried_after_a_pause(bench: Bench) -> None:
    bench.park(1, a=0)
    bench.lose(Line.PARKED)
    assert bench.answers == {}
    bench.step(0.06)
    assert bench.covered(Line.PARKED) | bench.covered(Line.CATCH_UP) == {A: 0}


def test_without_data_the_deadline_answers_and_tells_how_far_the_log_goes(bench: Bench) -> None:
    bench.broker.logs[A].append(4)
    bench.park(1, a=4)
    bench.step(0.5)
    assert bench.answers[1][A].high_watermark == 4
    assert bench.got(1, A) == []
    bench.fetch(1, a=4)
    bench.step(0.5)
    assert bench.answers[1] == {}, "it knows already"


def test_a_partition_missing_from_an_incremental_answer_stays_at_the_end(bench: Bench) -> None:
    bench.park(1, a=0, b=0)
    bench.answer(Line.PARKED, {})
    assert bench.covered(Line.PARKED) == {A: 0, B: 0}


def test_empty_because_the_answer_was_full_is_not_taken_for_the_end(bench: Bench) -> None:
    bench.broker.logs[A].append(5)
    bench.fetch(1, a=0)
    bench.answer(Line.CATCH_UP, {A: partition_answer(5, b"")})
    assert bench.in_flight[Line.CATCH_UP].max_wait_ms == 0
    assert bench.covered(Line.PARKED) == {}


def test_a_batch_that_cannot_be_read_on_from_goes_to_the_reader_to_judge(bench: Bench) -> None:
    bench.fetch(1, a=0)
    cut_off = partition_answer(5, batch(0, 5, 0)[:-1])
    bench.answer(Line.CATCH_UP, {A: cut_off})
    assert bench.answers[1][A] is cut_off
    bench.fetch(1, a=0)
    assert Line.CATCH_UP not in bench.in_flight, "not in a spin"


def test_a_reader_that_stops_asking_is_no_longer_read_ahead_for(bench: Bench) -> None:
    bench.park(1, a=0)
    bench.step(0.5)
    assert bench.answers[1] is not None
    bench.step(20.0)
    bench.answer(Line.PARKED)
    assert bench.in_flight == {}
    assert bench.machine.idle


def test_a_forgotten_reader_is_not_answered_and_leaves_nothing(bench: Bench) -> None:
    bench.park(1, 2, a=0)
    bench.machine.forget(1)
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    assert set(bench.answers) == {2}
    bench.machine.forget(2)
    bench.answer(Line.PARKED)
    assert bench.machine.idle
    assert bench.read_ahead.used == 0


def test_lagging_readers_take_turns_when_an_answer_cannot_hold_all(bench: Bench) -> None:
    for log in bench.broker.logs.values():
        log.append(500)
    served: list[Sequence[TopicPartition]] = []
    offsets = {A: 0, B: 0, C: 0}
    for _ in range(9):
        bench.fetch(1, a=offsets[A], b=offsets[B], c=offsets[C])
        if 1 not in bench.answers:
            wire = bench.in_flight[Line.CATCH_UP]
            first = next(iter(wire.partitions))
            full = bench.broker.answer(wire)
            bench.answer(Line.CATCH_UP, {p: a if p == first else partition_answer(500, b"") for p, a in full.items()})
        for partition in offsets:
            if bench.got(1, partition):
                offsets[partition] = bench.got(1, partition)[-1] + 1
        served.append([p for p in offsets if bench.got(1, p)])
    assert min(offsets.values()) > 0, served
