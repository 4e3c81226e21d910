"""How often a handler is called, and what becomes of what it cannot handle."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pooledkafka import ErrorLimitError
from pooledkafka._run.attempts import Attempts
from pooledkafka._run.options import RunOptions


class Stage:
    """Attempts with a handler that fails as often as the test says, and no broker."""

    def __init__(self, **options: Any) -> None:
        self.options = RunOptions(**options)
        self.calls: list[Any] = []
        self.failures: list[Exception | None] = []  # what the next calls raise; then nothing
        self.pauses: list[float] = []
        self.goes_on = True
        self.over = False
        self.on_call: Callable[[], None] = lambda: None
        self.dead: list[tuple[list[int], str, int]] = []
        letters: Any = None
        if self.options.dead_letter_topic is not None:
            letters = SimpleNamespace(topic=self.options.dead_letter_topic, add=self._add)
        self.attempts = Attempts(self._handler, self.options, letters, self._deserialize, self._pause)

    def _deserialize(self, record: Any) -> Any:
        return int(record.value)

    def _handler(self, what: Any) -> None:
        self.calls.append(what)
        self.on_call()
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure

    def _pause(self, seconds: float) -> bool:
        if seconds:
            self.pauses.append(seconds)
        return self.goes_on

    def _add(self, records: list[Any], error: Exception, attempts: int, goes_on: Callable[[], bool]) -> bool:
        if not goes_on():
            return False
        self.dead.append(([record.offset for record in records], repr(error), attempts))
        return True

    def handle(self, *values: str) -> bool:
        records = [
            SimpleNamespace(topic="orders", partition=0, offset=offset, value=value)
            for offset, value in enumerate(values)
        ]
        return self.attempts.handle(records, lambda: self.over)


def test_a_handler_gets_what_the_deserializers_make_of_a_record() -> None:
    stage = Stage()
    assert stage.handle("17")
    assert stage.calls == [17]


def test_or_all_records_at_once() -> None:
    stage = Stage(batches=True)
    assert stage.handle("1", "2", "3")
    assert stage.calls == [[1, 2, 3]]


def test_without_retries_the_first_error_is_raised() -> None:
    stage = Stage()
    stage.failures = [LookupError("none")]
    with pytest.raises(LookupError):
        stage.handle("1")
    assert (stage.calls, stage.pauses) == ([1], [])


def test_it_tries_again_after_pauses_that_double_up_to_a_limit() -> None:
    stage = Stage(retries=5, backoff_ms=100, backoff_max_ms=400)
    stage.failures = [OSError()] * 5
    assert stage.handle("1")
    assert len(stage.calls) == 6
    for pause, longest in zip(stage.pauses, [0.1, 0.2, 0.4, 0.4, 0.4], strict=True):
        assert longest / 2 <= pause <= longest


def test_the_last_error_is_raised() -> None:
    stage = Stage(retries=2)
    stage.failures = [OSError("1"), OSError("2"), OSError("3")]
    with pytest.raises(OSError, match="3"):
        stage.handle("1")


def test_many_attempts_are_no_overflow() -> None:
    stage = Stage(retries=3_000, backoff_max_ms=1)
    stage.failures = [OSError()] * 3_000
    assert stage.handle("1")


def test_what_cannot_be_handled_goes_to_the_dead_letters_and_is_dealt_with() -> None:
    stage = Stage(retries=1, dead_letter_topic="dead")
    stage.failures = [OSError("1"), OSError("2")]
    assert stage.handle("1")
    assert stage.dead == [([0], "OSError('2')", 2)]


def test_what_cannot_be_read_is_not_tried_again() -> None:
    stage = Stage(retries=9, dead_letter_topic="dead")
    assert stage.handle("x")
    assert stage.calls == stage.pauses == []
    assert [(offsets, attempts) for offsets, _, attempts in stage.dead] == [([0], 0)]
    with pytest.raises(ValueError, match="invalid literal"):
        Stage(retries=9).handle("x")


def test_records_together_go_to_the_dead_letters_together() -> None:
    stage = Stage(batches=True, dead_letter_topic="dead")
    stage.failures = [OSError("1")]
    assert stage.handle("1", "2", "3")
    assert stage.dead == [([0, 1, 2], "OSError('1')", 1)]


def test_the_limit_counts_what_fails_in_a_row() -> None:
    stage = Stage(dead_letter_topic="dead", error_limit=2)
    for failure in (OSError("a"), None, OSError("b")):
        stage.failures = [failure]
        assert stage.handle("1")
        assert stage.attempts.given_up is None
    stage.failures = [OSError("c")]
    assert stage.handle("1"), "it is in the dead-letter topic, so it is dealt with"
    error = stage.attempts.given_up
    assert isinstance(error, ErrorLimitError)
    assert "2 records in a row" in str(error)
    assert "offset 0 of partition 0 of orders: OSError('c')" in str(error)
    assert repr(error.__cause__) == "OSError('c')"
    assert len(stage.dead) == 3


def test_where_the_run_ends_in_a_pause_somebody_else_deals_with_the_record() -> None:
    stage = Stage(retries=3, dead_letter_topic="dead")
    stage.failures = [OSError()]
    stage.goes_on = False
    assert not stage.handle("1")
    assert stage.dead == []


@pytest.mark.parametrize("dead_letter_topic", [None, "dead"])
def test_where_the_run_ends_in_the_handler_there_is_no_other_attempt(dead_letter_topic: str | None) -> None:
    stage = Stage(retries=3, dead_letter_topic=dead_letter_topic)
    stage.failures = [OSError("last")]
    stage.on_call = lambda: setattr(stage, "over", True)
    assert not stage.handle("1")
    assert (stage.calls, stage.pauses, stage.dead) == ([1], [], [])


def test_what_is_no_error_ends_it_at_once() -> None:
    stage = Stage(retries=3, dead_letter_topic="dead")
    stage.on_call = lambda: (_ for _ in ()).throw(SystemExit(3))
    with pytest.raises(SystemExit):
        stage.handle("1")
    assert (stage.calls, stage.dead) == ([1], [])


def test_where_the_run_ends_before_the_dead_letters_have_it_somebody_else_deals_with_the_record() -> None:
    stage = Stage(dead_letter_topic="dead")
    stage.failures = [OSError()]
    stage.goes_on = False
    assert not stage.handle("1")
    assert stage.attempts.given_up is None


def test_a_coroutine_is_no_handling() -> None:
    async def nobody_runs_this() -> None:
        pytest.fail("it runs")

    attempts = Attempts(lambda _: nobody_runs_this(), RunOptions(retries=3), None, lambda each: each, lambda _: True)
    with pytest.raises(TypeError, match="returned a coroutine"):
        attempts.handle([SimpleNamespace()], lambda: False)
