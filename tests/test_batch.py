from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError
from kafka.future import Future

from pooledkafka._batch import BatchFuture


class Part(Future):  # type: ignore[misc]
    """Records that are done together."""

    def __init__(self, positions: Sequence[int]) -> None:
        super().__init__()
        self.positions = positions
        self._outcomes: list[Any] = []

    def outcomes(self) -> Iterable[Any]:
        return self._outcomes

    def end(self, *outcomes: Any) -> Part:
        self._outcomes = list(outcomes)
        errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        return self.failure(errors[0]) if errors else self.success(None)  # type: ignore[no-any-return]


def test_it_has_the_metadata_in_the_order_of_the_records() -> None:
    parts = [Part([0, 2]), Part([1, 3])]
    batch = BatchFuture(4, parts)
    heard: list[Any] = []
    batch.add_callback(heard.append)
    parts[1].end("b", "d")
    assert not batch.is_done
    assert batch.pending == 2
    parts[0].end("a", "c")
    assert batch.get(timeout=0) == ["a", "b", "c", "d"]
    assert heard == [["a", "b", "c", "d"]]
    assert (len(heard[0]), heard[0][1], heard[0][1:3], list(heard[0])) == (4, "b", ["b", "c"], ["a", "b", "c", "d"])


def test_records_that_were_done_before_count() -> None:
    assert BatchFuture(0, []).get(timeout=0) == []
    assert BatchFuture(2, [Part([0]).end(1), Part([1]).end(2)]).get(timeout=0) == [1, 2]


def test_it_fails_with_the_first_error_in_their_order_when_all_are_done() -> None:
    parts = [Part([0, 3]), Part([1, 2])]
    batch = BatchFuture(4, parts, KeyError("unsent"))
    parts[0].end("fine", KeyError("fourth"))
    assert not batch.is_done
    parts[1].end("fine", KeyError("third"))
    with pytest.raises(KeyError, match="third"):
        batch.get(timeout=0)


def test_it_fails_where_one_could_not_be_sent_when_the_others_are_done() -> None:
    part = Part([0])
    batch = BatchFuture(3, [part], KeyError("second"))
    assert not batch.is_done
    part.end("fine")
    with pytest.raises(KeyError, match="second"):
        batch.get(timeout=0)


def test_waiting_is_bounded_and_says_what_is_missing() -> None:
    batch = BatchFuture(3, [Part([0]).end("fine"), Part([1, 2])])
    with pytest.raises(KafkaTimeoutError, match=r"2 of 3 records were not done within 0\.01 s"):
        batch.get(timeout=0.01)


def test_records_that_are_done_on_many_threads_at_once_end_it_once() -> None:
    for _ in range(200):
        parts = [Part([n]) for n in range(4)]
        batch = BatchFuture(4, parts)
        ends: list[object] = []
        batch.add_callback(ends.append)
        start = threading.Barrier(4)

        def finish(part: Part, start: threading.Barrier = start) -> None:
            start.wait(5)
            part.end(None)

        threads = [threading.Thread(target=finish, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        assert batch.get(timeout=5) == [None] * 4
        for thread in threads:
            thread.join(5)
        assert ends == [[None] * 4]
