"""Patient fetches: having nothing to tell is no answer."""

from __future__ import annotations

import gc
import weakref

import pytest

from pooledkafka._fetch import Line, LogicalFetch, Position
from tests._fetch.simulated_log import partition_answer
from tests._fetch.test_multiplexer import MAX_BYTES, A, B, Bench


class PatientBench(Bench):
    """A bench whose readers are all patient, and which keeps what the last step said."""

    patient = True

    def idle(self, *readers: int, **at: int) -> None:
        """Bring readers to where they wait beyond their deadline: at the end of the logs, and told so."""
        self.park(*readers, **at)
        for reader in readers:
            if reader not in self.answers:
                self.step(0.5)
            assert all(answer.records == b"" for answer in self.answers[reader].values())
            self.fetch(reader, **at)
        self.step(0.5)
        assert not set(readers) & set(self.answers)

    def sit(self, seconds: float) -> None:
        """Let time pass; the broker answers as it does where nothing comes."""
        for _ in range(round(seconds / 0.5)):
            self.step(0.5)
            for line in list(self.in_flight):
                self.answer(line, {})


@pytest.fixture
def bench() -> PatientBench:
    return PatientBench()


def test_with_nothing_to_tell_it_waits_on(bench: PatientBench) -> None:
    bench.idle(1, a=0, b=0)
    bench.sit(60)
    assert bench.answers == {}
    assert bench.covered(Line.PARKED) == {A: 0, B: 0}, "it counts as asking all the while"


def test_while_nothing_happens_the_parked_request_waits_longer(bench: PatientBench) -> None:
    def parked() -> int:
        return bench.in_flight[Line.PARKED].max_wait_ms

    bench.idle(1, a=0)
    assert parked() == 500
    bench.sit(60)
    assert parked() == 2_000
    bench.fetch(2, b=0)  # one more comes, and is covered when the parked one has come back
    bench.answer(Line.CATCH_UP)
    assert parked() == 2_000
    assert bench.in_flight[Line.CATCH_UP].max_wait_ms == 50, "until then it is caught up with"
    bench.answer(Line.PARKED, {})
    bench.answer(Line.CATCH_UP, {})
    assert bench.covered(Line.PARKED) == {A: 0, B: 0}
    assert parked() == 500
    bench.sit(60)
    assert parked() == 2_000
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    bench.fetch(1, a=1, b=0)
    bench.step(0.0)
    assert parked() == 500, "where something came, more may"
    bench.sit(60)
    bench.lose(Line.PARKED)
    bench.step(1.0)
    assert parked() == 500


def test_one_that_is_not_patient_is_answered_at_its_deadline(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    bench.machine.submit(LogicalFetch(2, {A: Position(0, partition_max_bytes=MAX_BYTES)}, bench.now + 0.5), bench.now)
    bench.step(0.5)
    bench.answers.pop(2)  # how far the log goes
    bench.machine.submit(LogicalFetch(2, {A: Position(0, partition_max_bytes=MAX_BYTES)}, bench.now + 0.5), bench.now)
    bench.step(0.5)
    assert bench.answers == {2: {}}


def test_one_that_waits_beyond_its_deadline_makes_no_steps(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    wake_at = bench.machine.step(bench.now).wake_at
    assert wake_at is not None
    assert wake_at > bench.now, "it would be woken for a deadline that has passed, for ever"


def test_how_far_the_log_goes_is_worth_an_answer_at_the_deadline(bench: PatientBench) -> None:
    bench.broker.logs[A].append(4)
    bench.park(1, a=4)
    assert bench.answers == {}
    bench.step(0.5)
    assert bench.answers[1][A].high_watermark == 4


def test_when_it_is_due_records_answer_it_at_once(bench: PatientBench) -> None:
    bench.park(1, a=0)
    bench.step(0.5)  # it is told how far the log goes
    bench.fetch(1, min_bytes=10_000, a=0)
    bench.step(0.5)
    assert bench.answers == {}
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    assert bench.got(1, A) == [0], "its time to wait for more is over"


def test_before_it_is_due_it_waits_for_min_bytes(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    bench.machine.release(1)
    bench.fetch(1, min_bytes=10_000, a=0)
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    assert bench.answers == {}
    bench.step(0.5)
    assert bench.got(1, A) == [0]


def test_a_new_high_watermark_answers_it_once_it_is_due(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    bench.machine.release(1)
    bench.fetch(1, a=0)
    bench.answer(Line.PARKED, {A: partition_answer(7, b"")})  # the response was full before this partition's turn
    assert bench.answers == {}, "it may still get records with it"
    bench.step(0.5)
    assert bench.answers[1][A].high_watermark == 7
    bench.fetch(1, a=0)
    bench.step(0.5)
    assert bench.answers == {}
    bench.answer(Line.CATCH_UP if Line.CATCH_UP in bench.in_flight else Line.PARKED, {A: partition_answer(9, b"")})
    assert bench.answers[1][A].high_watermark == 9, "it is due, so at once"


@pytest.mark.parametrize("due", [True, False])
def test_an_error_answers_it_at_once(bench: PatientBench, due: bool) -> None:
    bench.idle(1, a=0, b=0)
    if not due:
        bench.machine.release(1)
        bench.fetch(1, a=0, b=0)
    bench.broker.logs[A].error = 6
    bench.answer(Line.PARKED)
    assert bench.answers[1][A].error_code == 6
    assert B not in bench.answers[1]


def test_a_preferred_replica_answers_it_at_once(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    bench.answer(Line.PARKED, {A: partition_answer(0, b"", preferred=3)})
    assert bench.answers[1][A].preferred_read_replica == 3


def test_one_that_is_due_is_answered_when_the_broker_is_lost(bench: PatientBench) -> None:
    bench.idle(1, 2, a=0)
    bench.lose(Line.PARKED)
    assert bench.answers == {1: {}, 2: {}}, "they may find that the leader is another one"


def test_one_that_has_nothing_on_the_lost_line_is_answered_too(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    bench.fetch(2, b=0)
    bench.lose(Line.CATCH_UP)
    assert bench.answers == {1: {}}, "2 is not due"


def test_while_the_broker_is_backed_off_deadlines_hold(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    bench.machine.release(1)
    bench.fetch(1, wait=0.02, a=0)
    bench.lose(Line.PARKED)  # it is tried again 0.05 s later
    assert bench.answers == {}, "not due yet"
    bench.step(0.02)
    assert bench.answers == {1: {}}
    bench.fetch(1, wait=0.0, a=0)
    bench.step(0.02)
    assert bench.answers == {1: {}}


def test_when_the_broker_is_tried_again_it_waits_again(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    bench.machine.release(1)
    bench.fetch(1, wait=0.2, a=0)
    bench.lose(Line.PARKED)
    bench.sit(5)
    assert bench.covered(Line.PARKED) == {A: 0}
    assert bench.answers == {}
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    assert bench.got(1, A) == [0]


def test_each_failure_is_told_once(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    for pause in (0.06, 0.11, 0.21):
        bench.step(0.02)  # it has waited for a moment, though it would not
        bench.lose(Line.PARKED)
        assert bench.answers.pop(1) == {}
        bench.step(pause)
        bench.fetch(1, wait=0.0, a=0)
        assert bench.answers == {}, "the broker is being tried"


def test_one_without_a_wait_is_not_told_over_and_over_that_the_broker_cannot_be_reached(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    for pause in (0.06, 0.11, 0.21):
        bench.lose(Line.PARKED)
        bench.step(pause)
    bench.lose(Line.PARKED)  # it is tried again 0.4 s later
    bench.answers.clear()
    answers = 0
    bench.fetch(1, wait=0.0, a=0)
    for _ in range(350):
        bench.step(0.001)
        if bench.answers.pop(1, None) is not None:
            answers += 1
            bench.fetch(1, wait=0.0, a=0)
    assert 1 < answers <= 0.35 / 0.02


def left_behind(wait: float = 0.5) -> PatientBench:
    """Reader 2 waits for more than there is, and what there was had to go."""
    bench = PatientBench(read_ahead=500)
    bench.idle(1, 2, a=0)
    bench.machine.release(2)
    bench.fetch(2, wait, min_bytes=10_000, a=0)
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    assert bench.got(1, A) == [0]
    assert 2 not in bench.answers
    assert bench.read_ahead.used == 0
    return bench


def test_one_that_was_left_behind_is_answered_at_its_deadline() -> None:
    bench = left_behind()
    bench.step(0.5)
    assert bench.answers[2] == {}, "nothing will come where it waits"
    bench.fetch(2, a=0)
    bench.answer(Line.CATCH_UP)
    assert bench.got(2, A) == [0], "it reads again what it missed"


def test_one_that_was_left_behind_in_one_partition_does_not_wait_in_the_other() -> None:
    bench = PatientBench(read_ahead=500)
    bench.idle(1, 2, a=0, b=0)
    bench.machine.release(2)
    bench.fetch(2, min_bytes=10_000, a=0, b=0)
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    assert bench.got(1, A) == [0]
    assert 2 not in bench.answers
    bench.step(0.5)
    assert bench.answers[2] == {}


def test_one_whose_partition_is_swept_away_is_answered_at_its_deadline() -> None:
    bench = left_behind(wait=30)
    bench.step(20)
    assert bench.machine._readers[2].places == {}
    assert 2 not in bench.answers
    bench.step(10)
    assert bench.answers[2] == {}


def test_a_newer_fetch_answers_the_one_before(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    before = bench.machine._readers[1].fetch
    newer = LogicalFetch(1, {B: Position(0, partition_max_bytes=MAX_BYTES)}, bench.now + 0.5, patient=True)
    bench.machine.submit(newer, bench.now)
    step = bench.machine.step(bench.now)
    assert step.completions == [(before, {})]
    assert [list(wire.partitions) for wire in step.requests] == [[B]]


# -- release -----------------------------------------------------------------------------------------------------------


def test_release_returns_what_waited_and_answers_nothing_itself(bench: PatientBench) -> None:
    bench.idle(1, 2, a=0)
    waited, other = bench.machine._readers[1].fetch, bench.machine._readers[2].fetch
    assert bench.machine.release(1) is waited
    assert bench.machine.release(1) is None, "it does not wait any more"
    assert bench.machine.release(3) is None, "it never did"
    bench.sit(2)
    assert bench.answers == {}, "whoever released it answers it"
    assert bench.machine._readers[1].fetch is None
    assert bench.machine._readers[2].fetch is other


def test_one_that_is_released_before_its_deadline_leaves_no_timer(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    bench.machine.release(1)
    bench.fetch(1, wait=3.0, a=0)
    kept = weakref.ref(bench.machine._readers[1].fetch)
    bench.machine.release(1)
    bench.step()
    gc.collect()
    assert kept() is None
    bench.step(3.0)
    assert bench.answers == {}


def test_a_released_reader_fetches_elsewhere_at_once(bench: PatientBench) -> None:
    bench.broker.logs[A].append(3)
    bench.idle(1, a=3)
    bench.machine.release(1)
    bench.fetch(1, a=0)
    bench.answer(Line.CATCH_UP)
    assert bench.got(1, A) == [0, 1, 2]


@pytest.mark.parametrize("stepped", [True, False], ids=["after-the-step", "before-the-step"])
def test_what_came_for_a_released_reader_is_there_when_it_comes_back(bench: PatientBench, stepped: bool) -> None:
    bench.idle(1, a=0)
    wire = bench.in_flight.pop(Line.PARKED)
    bench.broker.logs[A].append(2)
    if stepped:
        bench.machine.release(1)
    bench.machine.answered(wire, bench.broker.answer(wire), bench.now)
    bench.machine.release(1)
    bench.step()
    assert bench.answers == {}
    bench.fetch(1, a=0)
    assert bench.got(1, A) == [0, 1]


def test_when_the_bound_is_met_nothing_is_fetched_for_a_released_reader() -> None:
    bench = PatientBench(read_ahead=500)
    bench.idle(1, 2, a=0, b=0)
    for log in (bench.broker.logs[A], bench.broker.logs[B]):
        log.append(1)
    bench.answer(Line.PARKED)
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)  # read ahead for two readers that are busy
    assert not bench.read_ahead.has_room
    bench.fetch(1, b=1)
    for line in Line:
        bench.lose(line)
    bench.machine.release(1)
    bench.step(0.2)
    assert bench.in_flight == {}


def test_an_error_that_was_to_be_told_to_a_released_reader_is_not_kept(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    wire = bench.in_flight.pop(Line.PARKED)
    bench.machine.answered(wire, {A: partition_answer(0, b"", error_code=6)}, bench.now)
    kept = weakref.ref(bench.machine._readers[1].fetch)
    bench.machine.release(1)
    bench.step()
    gc.collect()
    assert kept() is None
    bench.fetch(1, a=0)
    assert bench.answers == {}, "an error of another fetch"


def test_a_released_reader_is_not_swept_at_once(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    bench.sit(30)
    bench.machine.release(1)
    bench.sit(5)
    assert bench.covered(Line.PARKED) == {A: 0}, "it has asked all the while"
    bench.sit(20)
    assert bench.machine.idle, "now it has not asked for long"


def test_an_answered_reader_is_not_swept_at_once(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    bench.sit(30)
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    assert bench.got(1, A) == [0]
    bench.sit(5)
    assert bench.covered(Line.PARKED) == {A: 1}, "it is read on for, while it deals with what it got"
    bench.sit(20)
    assert bench.machine.idle


def test_a_reader_that_was_released_leaves_nothing_when_it_is_forgotten(bench: PatientBench) -> None:
    bench.idle(1, a=0)
    bench.machine.release(1)
    bench.machine.forget(1)
    bench.answer(Line.PARKED)
    assert bench.machine.idle
    assert bench.read_ahead.used == 0


def test_a_patient_reader_that_is_forgotten_is_not_answered(bench: PatientBench) -> None:
    bench.idle(1, 2, a=0)
    bench.machine.forget(1)
    bench.broker.logs[A].append(1)
    bench.answer(Line.PARKED)
    assert set(bench.answers) == {2}
