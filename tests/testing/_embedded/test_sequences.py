"""What a log knows of idempotent producers."""

from __future__ import annotations

import pytest
from kafka.errors import BrokerResponseError, InvalidProducerEpochError, OutOfOrderSequenceNumberError

from pooledkafka.testing._embedded.batches import Batch, control_batch
from pooledkafka.testing._embedded.log import Log
from tests.testing._embedded.records import of_producer

PRODUCER = (7, 1)
NEXT_EPOCH = (7, 2)


@pytest.fixture
def log() -> Log:
    return Log()


def write(log: Log, batch: Batch) -> Batch:
    log.sequences.check(batch)
    return log.append(batch, 0)


@pytest.mark.parametrize("again", range(5))
def test_the_last_five_batches_are_known_again(log: Log, again: int) -> None:
    written = [write(log, of_producer(PRODUCER, 3 * number, 3)) for number in range(7)]
    assert log.sequences.duplicate_of(of_producer(PRODUCER, 3 * (again + 2), 3)) == written[again + 2]


def test_older_batches_and_other_lengths_are_out_of_order(log: Log) -> None:
    for number in range(6):
        write(log, of_producer(PRODUCER, 3 * number, 3))
    for batch in (of_producer(PRODUCER, 0, 3), of_producer(PRODUCER, 15, 2), of_producer(PRODUCER, 16, 2)):
        assert log.sequences.duplicate_of(batch) is None
        with pytest.raises(OutOfOrderSequenceNumberError):
            log.sequences.check(batch)


@pytest.mark.parametrize("sequence", [0, 1, 3])
def test_a_gap_is_out_of_order(log: Log, sequence: int) -> None:
    write(log, of_producer(PRODUCER, 0, 2))
    with pytest.raises(OutOfOrderSequenceNumberError):
        log.sequences.check(of_producer(PRODUCER, sequence))


def test_an_unknown_producer_may_begin_anywhere(log: Log) -> None:
    write(log, of_producer(PRODUCER, 40, 2))
    write(log, of_producer(PRODUCER, 42))
    with pytest.raises(OutOfOrderSequenceNumberError):
        log.sequences.check(of_producer(PRODUCER, 44))


@pytest.mark.parametrize(("records", "following"), [(1, 0), (2, 1)])
def test_sequence_numbers_wrap_around(log: Log, records: int, following: int) -> None:
    first = write(log, of_producer(PRODUCER, 2**31 - 1, records))
    assert log.sequences.duplicate_of(of_producer(PRODUCER, 2**31 - 1, records)) == first
    with pytest.raises(OutOfOrderSequenceNumberError):
        log.sequences.check(of_producer(PRODUCER, following + 1))
    write(log, of_producer(PRODUCER, following))


def test_a_new_epoch_begins_with_0_and_ends_the_older(log: Log) -> None:
    write(log, of_producer(PRODUCER, 0))
    with pytest.raises(OutOfOrderSequenceNumberError):
        log.sequences.check(of_producer(NEXT_EPOCH, 1))
    write(log, of_producer(NEXT_EPOCH, 0))
    assert log.sequences.duplicate_of(of_producer(PRODUCER, 0)) is None
    with pytest.raises(InvalidProducerEpochError):
        log.sequences.check(of_producer(PRODUCER, 1))
    write(log, of_producer(NEXT_EPOCH, 1))


def test_a_marker_ends_older_epochs_too(log: Log) -> None:
    write(log, of_producer(PRODUCER, 0, transactional=True))
    log.append(control_batch(*NEXT_EPOCH, False, 0, 0), 0)
    with pytest.raises(InvalidProducerEpochError):
        log.sequences.check(of_producer(PRODUCER, 1, transactional=True))
    with pytest.raises(OutOfOrderSequenceNumberError):
        log.sequences.check(of_producer(NEXT_EPOCH, 1, transactional=True))
    write(log, of_producer(NEXT_EPOCH, 0, transactional=True))


def test_a_marker_of_the_same_epoch_lets_sequences_go_on(log: Log) -> None:
    first = write(log, of_producer(PRODUCER, 0, transactional=True))
    log.append(control_batch(*PRODUCER, True, 0, 0), 0)
    assert log.sequences.duplicate_of(of_producer(PRODUCER, 0, transactional=True)) == first
    write(log, of_producer(PRODUCER, 1, transactional=True))


def test_producers_do_not_know_each_other(log: Log) -> None:
    write(log, of_producer((1, 0), 0))
    write(log, of_producer((2, 0), 0))
    write(log, of_producer((-1, -1), -1))
    write(log, of_producer((1, 0), 1))
    assert log.sequences.duplicate_of(of_producer((-1, -1), -1)) is None


@pytest.mark.parametrize(
    ("kept", "following", "error"),
    [(2, 2, None), (2, 3, OutOfOrderSequenceNumberError), (1, 2, OutOfOrderSequenceNumberError), (0, 3, None)],
)
def test_what_is_truncated_is_forgotten(
    log: Log, kept: int, following: int, error: type[BrokerResponseError] | None
) -> None:
    for sequence in range(3):
        write(log, of_producer(PRODUCER, sequence))
    log.truncate(kept)
    assert log.sequences.duplicate_of(of_producer(PRODUCER, 2)) is None
    if error is None:
        write(log, of_producer(PRODUCER, following))
    else:
        with pytest.raises(error):
            log.sequences.check(of_producer(PRODUCER, following))


def test_a_truncated_epoch_gives_way_to_the_older(log: Log) -> None:
    write(log, of_producer(PRODUCER, 0))
    write(log, of_producer(NEXT_EPOCH, 0))
    log.truncate(1)
    write(log, of_producer(PRODUCER, 1))


def test_deleting_records_forgets_no_producer(log: Log) -> None:
    write(log, of_producer(PRODUCER, 0))
    log.delete_before(1)
    with pytest.raises(OutOfOrderSequenceNumberError):
        log.sequences.check(of_producer(PRODUCER, 3))
    write(log, of_producer(PRODUCER, 1))
