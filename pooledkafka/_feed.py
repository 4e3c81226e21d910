"""Carries a pool's events to its listeners, away from whoever they happen to."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from pooledkafka._locks import LockName, check_free, new_lock
from pooledkafka._logging import get_logger
from pooledkafka.events import PoolEvent

__all__ = ["Feed", "Listener"]

Listener = Callable[[PoolEvent], None]

_log = get_logger("pooledkafka.events")


class Feed:
    """Calls listeners on a thread of its own, one event after the other; from any thread.

    Events happen on the I/O thread and under locks, where no user's code may run. The thread is started by an event and
    ends when none is left, so that a pool without listeners costs nothing.
    """

    def __init__(self, pool: str = "") -> None:
        self._pool = pool  # its client id, for the log
        # Taken by `with self._lock`, never by the condition, whose own way in is Python code: an exception of a signal
        # handler would leave it locked, and the I/O thread, which tells events, waiting for ever.
        self._lock = new_lock(LockName.FEED)
        self._changed = threading.Condition(self._lock)
        self._listeners: tuple[Listener, ...] = ()  # replaced under _lock; read by any thread
        self._events: deque[PoolEvent] = deque()  # guarded by _lock
        self._thread: threading.Thread | None = None  # guarded by _lock

    def add(self, listener: Listener) -> None:
        """Call ``listener`` for each event from now on."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def remove(self, listener: Listener) -> None:
        """Undo one ``add``; does nothing for one that is not there."""
        with self._lock:
            listeners = list(self._listeners)
            if listener in listeners:
                listeners.remove(listener)
            self._listeners = tuple(listeners)

    @property
    def has_listeners(self) -> bool:
        """Whether anybody hears; takes no lock."""
        return bool(self._listeners)

    def in_child(self) -> None:
        """Begin anew in a forked process: the thread is the parent's, and so are the events that it has not told."""
        self._lock = new_lock(LockName.FEED)
        self._changed = threading.Condition(self._lock)
        self._events.clear()
        self._thread = None

    def tell(self, event: PoolEvent) -> None:
        """Queue ``event`` for the listeners."""
        if not self._listeners:
            return
        with self._lock:
            self._events.append(event)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="pooledkafka-events", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # Python 3.12 starts none while the interpreter ends
                    self._events.clear()
                else:
                    self._thread = thread

    def drain(self, timeout_s: float) -> None:
        """Wait up to ``timeout_s`` until the listeners have heard everything; not when called by one of them."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while self._thread not in (None, threading.current_thread()):
                if not self._changed.wait(deadline - time.monotonic()):
                    return

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._events:
                    self._thread = None
                    self._changed.notify_all()
                    return
                event = self._events.popleft()
            check_free("calling listeners")
            for listener in self._listeners:
                try:
                    listener(event)
                except Exception as error:
                    _log.warning("listener.failed", pool=self._pool, told=type(event).__name__, error=repr(error))
