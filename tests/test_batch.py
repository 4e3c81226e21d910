from __future__ import annotations

import threading

import pytest
from kafka.errors import KafkaTimeoutError
from kafka.future import Future

from pooledkafka._batch import BatchFuture


def test_it_has_the_metadata_in_the_order_of_the_records() -> None:
    futures = [Future() for _ in range(3)]
    batch = BatchFuture(futures)
    for n in (2, 0, 1):
        assert not batch.is_done
        futures[n].success(n)
    assert batch.get(timeout=0) == [0, 1, 2]


def test_records_that_were_done_before_count() -> None:
    assert BatchFuture([]).get(timeout=0) == []
    assert BatchFuture([Future().success(1), Future().success(2)]).get(timeout=0) == [1, 2]


def test_it_fails_with_the_first_error_in_their_order_when_all_are_done() -> None:
    futures = [Future() for _ in range(3)]
    batch = BatchFuture(futures)
    futures[2].failure(KeyError("third"))
    futures[1].failure(KeyError("second"))
    assert not batch.is_done
    futures[0].success(None)
    with pytest.raises(KeyError, match="second"):
        batch.get(timeout=0)


def test_waiting_is_bounded_and_says_what_is_missing() -> None:
    done = Future()
    batch = BatchFuture([done.success(None), Future()])
    with pytest.raises(KafkaTimeoutError, match=r"1 of 2 records were not done within 0\.01 s"):
        batch.get(timeout=0.01)


def test_records_that_are_done_on_many_threads_at_once_end_it_once() -> None:
    for _ in range(200):
        futures = [Future() for _ in range(4)]
        batch = BatchFuture(futures)
        ends: list[object] = []
        batch.add_callback(ends.append)
        start = threading.Barrier(4)

        def finish(future: Future, start: threading.Barrier = start) -> None:
            start.wait(5)
            future.success(None)

        threads = [threading.Thread(target=finish, args=(future,)) for future in futures]
        for thread in threads:
            thread.start()
        assert batch.get(timeout=5) == [None] * 4
        for thread in threads:
            thread.join(5)
        assert ends == [[None] * 4]
