"""Hands what happened on the I/O thread to the thread that waits for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from pooledkafka._locks import LockName, check_free, new_lock

__all__ = ["Mailbox"]

_LONGEST_WAIT_S = 3600.0  # kafka-python asks to wait for ever with infinity, which no condition takes


class Mailbox:
    """A queue of callbacks that one thread runs and any thread fills; ``wakeup`` ends a wait without one.

    A wakeup that comes while nobody waits is kept for the next wait, as the byte in a self-pipe would be.
    """

    def __init__(self) -> None:
        # Taken by `with self._lock`, never by the condition, whose own way in is Python code: an exception of a signal
        # handler would leave it locked, and the I/O thread, which fills every mailbox, waiting for ever.
        self._lock = new_lock(LockName.MAILBOX)
        self._changed = threading.Condition(self._lock)
        self._items: deque[Callable[[], None]] = deque()  # filled under _lock, emptied by the thread that waits
        self._woken = False  # guarded by _lock

    def put(self, callback: Callable[[], None]) -> None:
        """Queue a callback; from any thread."""
        with self._lock:
            self._items.append(callback)
            self._changed.notify()

    def wakeup(self) -> None:
        """End the current wait, or the next one; from any thread."""
        with self._lock:
            self._woken = True
            self._changed.notify()

    def run_pending(self, timeout_s: float | None) -> None:
        """Wait up to ``timeout_s`` (None: until something comes), then run the callbacks, outside the lock."""
        wait_s = _LONGEST_WAIT_S if timeout_s is None else min(timeout_s, _LONGEST_WAIT_S)
        deadline = time.monotonic() + wait_s
        with self._lock:
            while not self._items and not self._woken:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            self._woken = False
            waiting = len(self._items)
        check_free("running callbacks")
        # One by one, so that those behind one that raises are still there for the next call.
        for _ in range(waiting):
            self._items.popleft()()
