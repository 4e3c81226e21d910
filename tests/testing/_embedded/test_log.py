"""The log of one partition: offsets, epochs, times, and what of transactions may be read."""

from __future__ import annotations

import pytest

from pooledkafka.testing._embedded.batches import control_batch, only_batch
from pooledkafka.testing._embedded.log import AbortedTransaction, Log
from tests.testing._embedded.records import encoded, of_producer

A, B = (1, 0), (2, 0)


@pytest.fixture
def log() -> Log:
    return Log()


def append(log: Log, records: int = 1, leader_epoch: int = 0, timestamp: int = 1_000) -> None:
    log.append(only_batch(encoded(*[b"value"] * records, timestamp=timestamp)), leader_epoch)


def write(log: Log, producer: tuple[int, int], sequence: int = 0, records: int = 1) -> None:
    log.append(of_producer(producer, sequence, records, transactional=True), 0)


def end(log: Log, producer: tuple[int, int], commits: bool) -> None:
    log.append(control_batch(*producer, commits, 1_000, 0), 0)


# -- reading -----------------------------------------------------------------------------------------------------------


def test_offsets_go_on_from_batch_to_batch(log: Log) -> None:
    for records in (3, 1, 2):
        append(log, records)
    assert [(batch.base_offset, batch.last_offset) for batch in log.batches(0, 6)] == [(0, 2), (3, 3), (4, 5)]
    assert (log.start_offset, log.end_offset) == (0, 6)


def test_a_read_begins_with_the_batch_that_has_the_offset_and_ends_before_the_end(log: Log) -> None:
    for _ in range(3):
        append(log, 2)
    first, second, third = (batch.data for batch in log.batches(0, 6))
    assert log.read(1, 6, 10_000, True) == first + second + third
    assert log.read(2, 6, 10_000, True) == second + third
    assert log.read(2, 5, 10_000, True) == second
    assert log.read(6, 6, 10_000, True) == b""


def test_a_read_is_cut_off_but_has_one_whole_batch_at_least_where_it_must(log: Log) -> None:
    append(log, 2)
    append(log, 2)
    first, second = (batch.data for batch in log.batches(0, 4))
    assert log.read(0, 4, len(first + second), False) == first + second
    assert log.read(0, 4, len(first + second) - 1, False) == (first + second)[:-1]
    assert log.read(0, 4, len(first), False) == first
    assert log.read(0, 4, 1, True) == first
    assert log.read(0, 4, 1, False) == b""


def test_records_are_found_by_time(log: Log) -> None:
    for timestamp in (100, 300, 200):
        append(log, 2, timestamp=timestamp)
    assert log.first_at_or_after(0, 6) == (0, 100)
    assert log.first_at_or_after(101, 6) == (2, 300)
    assert log.first_at_or_after(301, 6) is None
    assert log.first_at_or_after(101, 2) is None
    assert log.newest(6) == (2, 300)
    assert log.newest(0) is None


# -- losing records ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "end_offset"), [(4, 4), (3, 2), (2, 2), (1, 0), (0, 0)])
def test_truncation_removes_every_batch_that_reaches_beyond(log: Log, offset: int, end_offset: int) -> None:
    append(log, 2)
    append(log, 2)
    log.truncate(offset)
    assert log.end_offset == end_offset
    append(log)
    assert log.end_offset == end_offset + 1


def test_records_are_deleted_from_the_start(log: Log) -> None:
    for _ in range(3):
        append(log, 2)
    log.delete_before(3)
    assert (log.start_offset, log.end_offset) == (3, 6)
    assert next(iter(log.batches(3, 6))).base_offset == 2  # whole, as on a broker
    log.delete_before(6)
    assert (log.start_offset, log.end_offset) == (6, 6)
    assert list(log.batches(0, 6)) == []
    append(log)
    assert log.end_offset == 7


def test_a_log_that_begins_late_may_lose_all(log: Log) -> None:
    append(log, 4)
    log.delete_before(3)
    log.truncate(1)
    assert (log.start_offset, log.end_offset) == (1, 1)


# -- leader epochs -----------------------------------------------------------------------------------------------------


def test_an_epoch_ends_where_the_next_begins(log: Log) -> None:
    for leader_epoch in (2, 2, 5):
        append(log, 2, leader_epoch)
    assert [log.end_of_epoch(epoch) for epoch in (2, 3, 4, 5)] == [(2, 4), (2, 4), (2, 4), (5, 6)]
    assert log.end_of_epoch(1) == (1, 0)  # all is younger
    assert [log.epoch_at(offset) for offset in (0, 3, 4, 5, 6)] == [2, 2, 5, 5, -1]


def test_an_empty_log_ends_every_epoch_where_it_starts(log: Log) -> None:
    assert log.end_of_epoch(3) == (3, 0)


# -- transactions ------------------------------------------------------------------------------------------------------


def test_an_open_transaction_holds_back_what_comes_after(log: Log) -> None:
    append(log, 2)
    write(log, A)
    append(log)
    assert log.is_open(1)
    assert log.is_open(1, 0)
    assert not log.is_open(1, 1)
    assert log.last_stable_offset(4) == 2
    assert log.last_stable_offset(1) == 1  # no further than what is replicated
    end(log, A, commits=True)
    assert not log.is_open(1)
    assert log.last_stable_offset(5) == 5


def test_an_end_counts_when_it_is_replicated(log: Log) -> None:
    write(log, A)
    end(log, A, commits=True)
    write(log, B)
    end(log, B, commits=False)
    assert [log.last_stable_offset(high_watermark) for high_watermark in range(5)] == [0, 0, 2, 2, 4]


def test_the_first_of_several_transactions_decides(log: Log) -> None:
    write(log, A)
    write(log, B)
    end(log, B, commits=True)
    assert log.last_stable_offset(3) == 0
    end(log, A, commits=True)
    assert log.last_stable_offset(4) == 4


def test_interleaved_aborted_transactions(log: Log) -> None:
    write(log, A)  # 0
    write(log, B)  # 1
    write(log, A, 1)  # 2
    end(log, A, commits=False)  # 3
    write(log, A, 2)  # 4
    end(log, B, commits=False)  # 5
    end(log, A, commits=True)  # 6
    first, second = AbortedTransaction(1, 0, 3), AbortedTransaction(2, 1, 5)
    assert log.aborted(0, 7) == [first, second]
    assert log.aborted(3, 7) == [first, second]
    assert log.aborted(4, 7) == [second]
    assert log.aborted(6, 7) == []
    assert log.aborted(0, 1) == [first]


def test_a_marker_without_records_ends_nothing(log: Log) -> None:
    end(log, A, commits=False)
    assert log.aborted(0, 1) == []
    assert log.last_stable_offset(1) == 1


def test_truncation_opens_a_transaction_again(log: Log) -> None:
    write(log, A)
    end(log, A, commits=False)
    append(log)
    log.truncate(1)
    assert log.is_open(1)
    assert log.aborted(0, 1) == []
    assert log.last_stable_offset(1) == 0
    log.truncate(0)
    assert not log.is_open(1)


def test_deleting_records_moves_the_last_stable_offset_on(log: Log) -> None:
    write(log, A)
    append(log, 3)
    log.delete_before(3)
    assert log.last_stable_offset(4) == 3
