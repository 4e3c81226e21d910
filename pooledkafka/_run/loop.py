"""From one poll of a run to the next."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from pooledkafka._run.attempts import Attempts
from pooledkafka._run.dead_letters import DeadLetters
from pooledkafka._run.options import RunOptions
from pooledkafka._run.progress import Progress
from pooledkafka._wire import Interrupted, WiredConsumer
from pooledkafka.errors import PoolClosedError
from pooledkafka.pool import ConnectionPool

__all__ = ["Run"]

_POLL_MS = 1_000


class Run:
    """One run of a consumer, on the thread that has it.

    Args:
        wired: the consumer.
        pool: its pool, for the dead letters.
        handler: see ``Consumer.run``.
        options: likewise.
        is_over: whether the consumer was asked to stop, or closed.
        pause: waits so many seconds, less where it was; whether the run goes on.
    """

    def __init__(
        self,
        wired: WiredConsumer,
        pool: ConnectionPool,
        handler: Callable[[Any], Any],
        options: RunOptions,
        is_over: Callable[[], bool],
        pause: Callable[[float], bool],
    ) -> None:
        self._wired = wired
        self._pool = pool
        self._handler = handler
        self._options = options
        self._asked_to_end = is_over
        self._pause = pause
        self._left = options.stop_after
        self._attempts: Attempts | None = None
        self._ends: dict[TopicPartition, int] | None = None  # what was there when the run had its first partitions

    def go(self, check_process: Callable[[], None]) -> None:
        """Until it is over; ``check_process`` raises where a handler has forked and returned in the child too."""
        wired, options = self._wired, self._options
        with ExitStack() as stack:
            letters = None
            if options.dead_letter_topic is not None:
                letters = DeadLetters(options.dead_letter_topic, self._pool, wired.group)
                stack.callback(letters.close)
            progress = Progress(options.progress, wired.group or "consumer", wired.lag)
            stack.callback(progress.close)
            self._attempts = attempts = Attempts(
                self._handler,
                options,
                letters,
                wired.deserialize,
                self._pause,
                {"pool": self._pool.options["client_id"], "group": wired.group},
            )

            def handle(records: list[Any], is_over: Callable[[], bool]) -> bool:
                if not attempts.handle(records, is_over):
                    return False
                if self._left is not None:
                    self._left -= len(records)
                progress.handled(len(records))
                return True

            while not self._is_over() and not self._is_at_end():
                try:
                    batches = wired.polling(wired.poll_unhandled, _POLL_MS, self._most())
                    if options.until_end and self._ends is None:
                        self._ends = wired.ends()
                except (Interrupted, PoolClosedError):
                    continue
                try:
                    for partition, records in batches.items():
                        wired.handle(partition, records, handle, self._is_over, together=options.batches)
                    check_process()
                except BaseException as error:
                    with suppress(KafkaError):  # the handler's own error says more
                        # What is no Exception, as that of the second signal, is to end the program at once.
                        wired.commit_handled(hurried=not isinstance(error, Exception))
                    raise
                if batches:
                    wired.commit_handled()
                progress.tick()
                if attempts.given_up is not None:
                    raise attempts.given_up

    def _is_over(self) -> bool:
        given_up = self._attempts is not None and self._attempts.given_up is not None
        return given_up or self._left == 0 or self._asked_to_end() or self._wired.over

    def _most(self) -> int | None:
        """How many records the next poll may return; none of them is to come back unhandled."""
        if self._left is None:
            return self._options.max_records
        return min(self._left, self._options.max_records or self._wired.kafka.config["max_poll_records"])

    def _is_at_end(self) -> bool:
        return self._ends is not None and not self._wired.are_before(self._ends)
