"""Handles records, again where that fails, and decides what becomes of those that cannot be handled."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping
from typing import Any

from pooledkafka._logging import get_logger
from pooledkafka._run.dead_letters import DeadLetters
from pooledkafka._run.options import RunOptions
from pooledkafka.errors import ErrorLimitError

__all__ = ["Attempts"]

_log = get_logger("pooledkafka.run")


class Attempts:
    """Calls the handler; used on the thread that runs the consumer.

    Args:
        handler: gets one record, or a list of one partition's where the options say so.
        options: how often it is called again, and after which pauses.
        dead_letters: None: what cannot be handled ends the run.
        deserialize: what the handler gets in place of a record as it was written.
        pause: waits so many seconds, less where the run is to end; whether it goes on.
        context: of what is logged: the pool and the group.
    """

    def __init__(
        self,
        handler: Callable[[Any], Any],
        options: RunOptions,
        dead_letters: DeadLetters | None,
        deserialize: Callable[[Any], Any],
        pause: Callable[[float], bool],
        context: Mapping[str, Any] | None = None,
    ) -> None:
        self._context = dict(context or {})
        self._handler = handler
        self._options = options
        self._dead_letters = dead_letters
        self._deserialize = deserialize
        self._pause = pause
        self._failed_in_a_row = 0
        self.given_up: ErrorLimitError | None = None
        """Set when too many records in a row have failed; all of these are dealt with."""

    def handle(self, records: list[Any], is_over: Callable[[], bool]) -> bool:
        """Whether these are dealt with; False where ``is_over()`` came before that, so that somebody else does it.

        Raises what the handler has raised last, where there is nothing more to try.
        """
        try:
            ready = [self._deserialize(record) for record in records]
        except Exception as error:  # another attempt would see the same bytes
            return self._set_aside(records, error, 0, is_over)
        attempt = 1
        while True:
            try:
                result = self._handler(ready if self._options.batches else ready[0])
            except Exception as error:
                if attempt > self._options.retries:
                    return self._set_aside(records, error, attempt, is_over)
                _log.warning("handler.failed", **self._context, **_where(records), error=repr(error), attempt=attempt)
            else:
                if inspect.iscoroutine(result):
                    result.close()
                    raise TypeError(
                        f"the handler {self._handler!r} returned a coroutine, which nobody runs: a handler must be a "
                        "plain function; call asyncio.run() within it"
                    )
                self._failed_in_a_row = 0
                return True
            if is_over() or not self._pause(self._pause_s(attempt)) or is_over():
                return False
            attempt += 1

    def _pause_s(self, attempt: int) -> float:
        longest_ms = min(self._options.backoff_ms * 2.0 ** min(attempt - 1, 32), self._options.backoff_max_ms)
        return random.uniform(0.5, 1.0) * longest_ms / 1000

    def _set_aside(self, records: list[Any], error: Exception, attempts: int, is_over: Callable[[], bool]) -> bool:
        if self._dead_letters is None:
            raise error
        if not self._dead_letters.add(records, error, attempts, lambda: self._pause(0.0) and not is_over()):
            return False
        _log.error(
            "record.dead_lettered",
            **self._context,
            **_where(records),
            to=self._dead_letters.topic,
            error=repr(error),
        )
        self._failed_in_a_row += len(records)
        limit = self._options.error_limit
        if limit is not None and self._failed_in_a_row >= limit:
            self.given_up = ErrorLimitError(
                f"{self._failed_in_a_row} records in a row could not be handled (error_limit={limit}); they are in "
                f"{self._dead_letters.topic}. The last: {_named(records)}: {error!r}"
            )
            self.given_up.__cause__ = error
        return True


def _where(records: list[Any]) -> dict[str, Any]:
    first = records[0]
    return {"topic": first.topic, "partition": first.partition, "offset": first.offset, "records": len(records)}


def _named(records: list[Any]) -> str:
    last = records[-1]
    return f"offset {last.offset} of partition {last.partition} of {last.topic}"
