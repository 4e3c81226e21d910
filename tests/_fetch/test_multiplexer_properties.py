"""Whatever happens in whatever order, each reader gets exactly its log, in order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from kafka.structs import TopicPartition

from pooledkafka._fetch import Limits, Line, LogicalFetch, Multiplexer, Position, ReadAhead, WireFetch
from tests._fetch.simulated_log import SimulatedBroker, SimulatedLog, join, offsets_in

PARTITIONS = [TopicPartition("t", n) for n in range(3)]
READERS = [1, 2, 3, 4]
BUDGET = 1_200
MAX_BYTES = 1_000
LIMITS = Limits(max_bytes=1_500, idle_s=3.0, catch_up_partitions=2, parked_additions=2)

partitions = st.sampled_from(PARTITIONS)
readers = st.sampled_from(READERS)


class Machine(RuleBasedStateMachine):
    """Drives a multiplexer with random events against simulated logs, and checks what every reader gets."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.broker = SimulatedBroker()
        self.broker.logs = {partition: SimulatedLog() for partition in PARTITIONS}
        self.read_ahead = ReadAhead(BUDGET)
        self.machine = Multiplexer(read_committed=False, read_ahead=self.read_ahead, join=join, limits=LIMITS)
        self.wires: list[WireFetch] = []
        self.session: dict[TopicPartition, Position] = {}  # what the broker would have, from differences alone
        self.waiting: dict[int, LogicalFetch] = {}
        self.positions: dict[int, dict[TopicPartition, int]] = {r: dict.fromkeys(PARTITIONS, 0) for r in READERS}

    def step(self) -> None:
        step = self.machine.step(self.now)
        self.wires.extend(step.requests)
        for wire in step.requests:
            if wire.line is Line.PARKED:
                self.session.update(wire.changed)
                for partition in wire.forgotten:
                    del self.session[partition]
                assert self.session == wire.partitions
        for fetch, answers in step.completions:
            self.completed(fetch, answers)
        lines = [wire.line for wire in self.wires]
        assert len(lines) == len(set(lines)), "one request at a time on each connection"

    def completed(self, fetch: LogicalFetch, answers: dict[TopicPartition, Any]) -> None:
        if self.waiting.get(fetch.reader) is fetch:
            del self.waiting[fetch.reader]
        for partition, answer in answers.items():
            asked = fetch.partitions[partition].fetch_offset
            if answer.error_code:
                assert answer.error_code == 6, "the one that the rules set"
                continue
            offsets = [offset for offset in offsets_in(answer.records) if offset >= asked]
            assert offsets == list(range(asked, asked + len(offsets))), "without a gap, from where the reader is"
            if offsets and self.positions[fetch.reader][partition] == asked:
                self.positions[fetch.reader][partition] = offsets[-1] + 1
                assert offsets[-1] < self.broker.logs[partition].end

    @rule(partition=partitions, count=st.integers(1, 20))
    def produce(self, partition: TopicPartition, count: int) -> None:
        self.broker.logs[partition].append(count)

    @rule(
        reader=readers,
        chosen=st.sets(partitions, min_size=1),
        wait=st.floats(0, 1),
        min_bytes=st.sampled_from([1, 1, 300]),
        patient=st.booleans(),
    )
    def fetch(self, reader: int, chosen: set[TopicPartition], wait: float, min_bytes: int, patient: bool) -> None:
        self.submit(reader, chosen, wait, min_bytes, patient)
        self.step()

    @rule(reader=readers, at_once=st.booleans())
    def release(self, reader: int, at_once: bool) -> None:
        assert self.machine.release(reader) is self.waiting.pop(reader, None)
        if at_once:
            self.step()

    @rule(reader=readers, partition=partitions, data=st.data())
    def seek(self, reader: int, partition: TopicPartition, data: Any) -> None:
        self.positions[reader][partition] = data.draw(st.integers(0, self.broker.logs[partition].end))

    @rule(reader=readers)
    def leave(self, reader: int) -> None:
        self.waiting.pop(reader, None)
        self.machine.forget(reader)
        self.step()

    @precondition(lambda self: self.wires)
    @rule(data=st.data(), sessions=st.booleans())
    def answer(self, data: Any, sessions: bool) -> None:
        wire = data.draw(st.sampled_from(self.wires))
        self.wires.remove(wire)
        self.machine.answered(wire, self.broker.answer(wire, sessions=sessions and wire.line is Line.PARKED), self.now)
        self.step()

    @precondition(lambda self: self.wires)
    @rule(data=st.data())
    def lose(self, data: Any) -> None:
        wire = data.draw(st.sampled_from(self.wires))
        self.wires.remove(wire)
        if wire.line is Line.PARKED:
            self.session = {}
        self.machine.failed(wire, self.now)
        self.step()
        assert all(fetch.context > self.now for fetch in self.waiting.values()), "they may find another leader"

    @rule(partition=partitions, error=st.sampled_from([0, 0, 6]))
    def set_error(self, partition: TopicPartition, error: int) -> None:
        self.broker.logs[partition].error = error

    @rule(seconds=st.floats(0.01, 5))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.step()

    @rule(chosen=st.sets(readers, min_size=1), min_bytes=st.sampled_from([1, 1, 300]), patient=st.booleans())
    def come_to_rest(self, chosen: set[int], min_bytes: int, patient: bool) -> None:
        """Some read on as consumers do, long enough to have come to the end and to be told so."""
        for _ in range(6):
            for reader in chosen - set(self.waiting):
                self.submit(reader, PARTITIONS, 0.5, min_bytes, patient)
            self.step()
            self.serve(seconds=0.25)

    @invariant()
    def read_ahead_is_bounded(self) -> None:
        # One response for each connection may be on its way when the bound is met.
        assert 0 <= self.read_ahead.used <= BUDGET + 2 * (LIMITS.max_bytes + 3 * 512)
        assert not self.read_ahead.spare or self.read_ahead.total <= BUDGET, "what is spare makes room"

    @invariant()
    def what_is_asked_for_is_counted(self) -> None:
        wire = self.machine._in_flight[Line.CATCH_UP]
        most = 0 if wire is None else min(wire.max_bytes, sum(stream.max_bytes for stream in wire.streams))
        assert self.read_ahead.asked == most

    @invariant()
    def what_is_kept_is_counted(self) -> None:
        streams = [stream for each in self.machine._streams.values() for stream in each]
        assert self.read_ahead.used == sum(stream.ahead for stream in streams)
        assert self.read_ahead.spare == sum(stream.spare for stream in streams)
        for stream in streams:
            assert stream.ahead + stream.spare == sum(chunk.size for chunk in stream.chunks)
            slowest = min((cursor.offset for cursor in stream.cursors.values()), default=stream.offset)
            taken = [chunk.size for chunk in stream.chunks if chunk.next_offset <= slowest]
            assert stream.spare <= sum(taken), "somebody is to take it still"

    @invariant()
    def only_the_patient_wait_beyond_their_deadline_and_only_where_something_will_come(self) -> None:
        for reader, fetch in self.waiting.items():
            if fetch.deadline > self.now:
                continue
            assert fetch.patient
            for partition in fetch.partitions:
                stream = self.machine._readers[reader].places[partition]
                cursor = stream.cursors.get(reader)
                assert cursor is not None, "it was left behind"
                assert cursor.waiting is fetch
                assert not stream.has_for(cursor), "there is something to tell"

    def teardown(self) -> None:
        """Without errors, whoever waits is answered, and everybody gets to the end of every log."""
        for log in self.broker.logs.values():
            log.error = 0
        self.step()
        self.check_that_those_who_still_wait_have_come_to_the_end()
        self.check_that_everybody_gets_to_the_end()
        for reader in READERS:
            self.machine.forget(reader)
        for wire in self.wires[:]:
            self.machine.answered(wire, self.broker.answer(wire), self.now)
        assert self.read_ahead.total == 0
        assert self.machine.idle

    def check_that_those_who_still_wait_have_come_to_the_end(self) -> None:
        for _ in range(30):  # well over the longest wait and the longest backoff
            self.serve(seconds=0.1)
        for fetch in self.waiting.values():
            assert fetch.patient
            for partition, position in fetch.partitions.items():
                assert position.fetch_offset == self.broker.logs[partition].end, "there is something to tell"

    def check_that_everybody_gets_to_the_end(self) -> None:
        for reader in READERS:  # those who wait do not all wait for all partitions
            self.machine.release(reader)
        self.waiting.clear()
        for _ in range(2_000):
            if all(self.positions[r][p] == log.end for r in READERS for p, log in self.broker.logs.items()):
                return
            for reader in READERS:
                if reader not in self.waiting:
                    self.submit(reader, PARTITIONS, 0.5, min_bytes=1, patient=reader % 2 == 0)
            self.step()
            self.serve(seconds=0.01)
        raise AssertionError("somebody never got to the end")

    def submit(self, reader: int, chosen: Iterable[TopicPartition], wait: float, min_bytes: int, patient: bool) -> None:
        wanted = {p: Position(self.positions[reader][p], partition_max_bytes=MAX_BYTES) for p in chosen}
        self.waiting[reader] = fetch = LogicalFetch(
            reader,
            wanted,
            self.now + wait,
            min_bytes=min_bytes,
            max_bytes=1_000,
            patient=patient,
            context=self.now + max(wait, LIMITS.breath_s),
        )
        self.machine.submit(fetch, self.now)

    def serve(self, seconds: float) -> None:
        """The broker answers all that is asked, and time passes."""
        for wire in self.wires[:]:
            self.wires.remove(wire)
            self.machine.answered(wire, self.broker.answer(wire), self.now)
        self.now += seconds
        self.step()


TestMultiplexer = Machine.TestCase
TestMultiplexer.settings = settings(
    max_examples=200, stateful_step_count=60, deadline=None, phases=[Phase.generate, Phase.explicit]
)
