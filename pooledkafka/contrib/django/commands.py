"""The base of management commands that use Kafka: signals, errors, and the end of the pools."""

from __future__ import annotations

import signal
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from kafka.errors import KafkaError

from pooledkafka.contrib.django import pools

__all__ = ["KafkaCommand"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_HARD_MS = 1_000
"""How long pools may take to end after a second signal."""


class KafkaCommand(BaseCommand):
    """A management command that ends in order.

    Write ``handle_kafka`` in place of ``handle``. SIGTERM and SIGINT ask it to stop: ``stopped`` is true, a ``pause``
    ends, and what ``on_stop`` was given is called. A second signal ends it at once, with exit code 128 and the signal.
    Errors of Kafka become a ``CommandError`` with their text. At the end of the process's command the pools deliver
    what is buffered and disconnect; after ``call_command`` they stay, since others in the process may use them.

    Example:
        >>> class Command(KafkaCommand):
        ...     def handle_kafka(self, **options):
        ...         consumer = pools.alias("default").consumer("orders", group_id="audit")
        ...         self.on_stop(consumer.stop)
        ...         with consumer:
        ...             consumer.run(self.audit)
    """

    requires_migrations_checks = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._signals = 0  # how many came; the main thread's, in its signal handler
        self._woken: SimpleQueue[None] = SimpleQueue()  # for pause(), which an Event's lock would not be safe for
        self._at_stop: list[Callable[[], Any]] = []  # added to by the thread of the command

    @property
    def stopped(self) -> bool:
        """Whether a signal asked the command to stop."""
        return self._signals > 0

    def on_stop(self, callback: Callable[[], Any]) -> None:
        """Call ``callback`` when a signal asks to stop, in the signal's handler: it must neither wait nor take a lock.

        ``Consumer.stop`` is made for it. Called at once where the signal has come already.
        """
        self._at_stop.append(callback)
        if self.stopped:
            callback()

    def pause(self, seconds: float) -> bool:
        """Wait; returns whether the command is to stop, at once when a signal says so."""
        if not self.stopped:
            try:
                self._woken.get(timeout=seconds)
            except Empty:
                pass
        return self.stopped

    @abstractmethod
    def handle_kafka(self, *args: Any, **options: Any) -> str | None:
        """Do what the command does; what it returns is printed."""

    def handle(self, *args: Any, **options: Any) -> str | None:
        """Call ``handle_kafka``."""
        with self._hearing_signals():
            try:
                said = self.handle_kafka(*args, **options)
            except KafkaError as error:
                self._end_pools(raising=False)
                raise CommandError(str(error) or repr(error)) from error
            except BaseException:
                self._end_pools(raising=False)
                raise
            self._end_pools(raising=True)
            return said

    def _end_pools(self, *, raising: bool) -> None:
        if not getattr(self, "_called_from_command_line", False):
            return
        began = time.monotonic()
        try:
            pools.close_all(_HARD_MS if self._signals > 1 else 30_000)
        except KafkaError as error:
            if raising:
                raise CommandError(f"{error} ({time.monotonic() - began:.1f} s)") from error
            self.stderr.write(str(error))

    @contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # as with autoreload: nobody else can
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            raise SystemExit(128 + number)
        self._woken.put(None)
        for callback in self._at_stop:
            callback()
