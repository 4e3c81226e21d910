"""Runs handlers, each with a consumer on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from queue import SimpleQueue
from typing import Any

from django.db import Error, InterfaceError, OperationalError, connections

from pooledkafka._logging import get_logger
from pooledkafka.contrib.django._handlers import Handler
from pooledkafka.contrib.django._pools import Pools
from pooledkafka.errors import ConfigurationError

__all__ = ["HandlerFailed", "Supervisor"]

_log = get_logger("pooledkafka.contrib.django")


class HandlerFailed(Exception):
    """A handler ended with an error; says which one, and at which record."""


class _DatabaseAway(BaseException):
    """Ends ``Consumer.run``, which catches no such exception, where it would make a dead letter of the record.

    That the database is away says nothing of a record: the topic would be drained until it is back.
    """

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


class _Worker:
    """One handler on its thread."""

    def __init__(
        self, handler: Handler, pools: Pools, run_options: dict[str, Any], ended: SimpleQueue[_Worker]
    ) -> None:
        self.handler = handler
        self.failure: HandlerFailed | None = None  # the thread's; read when it has ended
        self._raised: tuple[BaseException, str] | None = None  # by the handler last, and at which record; the thread's
        self._run_options = {**handler.run_options, **run_options}
        self._ended = ended
        try:
            self.consumer = pools.alias(handler.alias).consumer(
                *handler.topics, **{**handler.consumer_options, "group_id": handler.group_id}
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"handler {handler.name!r} ({handler.path}): {error.args[0]}") from error
        self.thread = threading.Thread(target=self._run, name=f"kafka-handler-{handler.name}", daemon=True)

    def _run(self) -> None:
        call = self.handler.handle()
        retries = self._run_options.get("retries", 0)
        failed_at, attempts = "", 0  # how often in a row the record there has failed

        def handle(given: Any) -> None:
            nonlocal failed_at, attempts
            try:
                call(given)
            except BaseException as error:
                first = given[0] if self.handler.batches else given
                place = f" at {first.topic}[{first.partition}]@{first.offset}"
                attempts = attempts + 1 if place == failed_at else 1
                failed_at = place
                self._raised = error, place
                if isinstance(error, (OperationalError, InterfaceError)) and attempts > retries:
                    raise _DatabaseAway(error) from error
                raise
            failed_at = ""

        try:
            try:
                self.consumer.run(handle, **self._run_options)
            finally:
                self.consumer.close()
        except BaseException as raised:
            error = raised.error if isinstance(raised, _DatabaseAway) else raised
            self.failure = self._explained(error)
            self.failure.__cause__ = error
            _log.error("handler.ended", handler=self.handler.name, error=str(self.failure), exc_info=error)
        finally:
            try:
                connections.close_all()
            except Exception as error:  # as with a connection that broke; the thread's end drops it anyway
                _log.warning("handler.connections_not_closed", handler=self.handler.name, exc_info=error)
            finally:
                self._ended.put(self)  # which the supervisor waits for, whatever comes

    def _explained(self, error: BaseException) -> HandlerFailed:
        place = ""
        if self._raised is not None and self._raised[0] in (error, error.__cause__, error.__context__):
            place = self._raised[1]
        name, reason = type(error).__name__, str(error)
        if not reason.startswith(name):  # as Kafka's errors do
            reason = f"{name}: {reason}" if reason else name
        handler = self.handler
        return HandlerFailed(f"handler {handler.name!r} (group {handler.group_id!r}) failed{place}: {reason}")


class Supervisor:
    """Runs handlers until they end, one fails, or ``stop()``. Those of one alias share its pool.

    Args:
        handlers: what to run.
        pools: over which connections.
        run_options: of ``Consumer.run``, for each.

    Raises:
        ConfigurationError: an alias or option cannot work.
    """

    def __init__(self, handlers: Iterable[Handler], pools: Pools, run_options: dict[str, Any]) -> None:
        self._ended: SimpleQueue[_Worker] = SimpleQueue()
        self._workers = [_Worker(handler, pools, run_options, self._ended) for handler in handlers]

    def run(self) -> None:
        """Start all, and return when all have ended; the first that fails stops the others.

        Raises:
            HandlerFailed: the first that failed.
        """
        for worker in self._workers:
            worker.thread.start()
        failures = []
        for _ in self._workers:
            worker = self._ended.get()  # a signal handler runs meanwhile
            if worker.failure is not None:
                failures.append(worker.failure)
                self.stop()
        for worker in self._workers:
            worker.thread.join()
        if failures:
            raise failures[0]

    def stop(self) -> None:
        """Let each handler finish its record; its offsets are committed and its consumer leaves. From any thread, or a
        signal handler.
        """
        for worker in self._workers:
            worker.consumer.stop()

    def stop_within(self, timeout_s: float) -> None:
        """``stop()``, and wait so many seconds at most: at the end of a process whose main thread is not in ``run``."""
        self.stop()
        deadline = time.monotonic() + timeout_s
        for worker in self._workers:
            if worker.thread.is_alive():
                worker.thread.join(max(0.0, deadline - time.monotonic()))
