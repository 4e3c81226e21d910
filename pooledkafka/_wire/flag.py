"""An event that a signal handler may set."""

from __future__ import annotations

import queue

__all__ = ["Flag"]


class Flag:
    """What ``threading.Event`` is, for one thread that waits and clears it.

    An Event takes a lock to be looked at, set and waited for. A handler that sets it may have interrupted this very
    thread with the lock in its hands, and would wait for itself; an exception of a handler may leave it locked, and
    whoever sets it next, the I/O thread, waiting for ever. ``SimpleQueue`` is made for both.
    """

    def __init__(self) -> None:
        self._is_set = False  # set by any thread, taken back by the one that waits
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """End the wait that is under way, and those to come; from any thread and any signal handler."""
        if not self._is_set:
            self._is_set = True
            self._tokens.put(None)

    def clear(self) -> None:
        """Take back what was set so far."""
        # In this order: what is set between the two is set. Its token may be lost, for which no wait looks then.
        self._is_set = False
        try:
            while True:
                self._tokens.get_nowait()
        except queue.Empty:
            pass

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is set, at most so long; may return early with a False.

        It does so after a ``set`` that was taken back before its token came.
        """
        if not self._is_set:
            try:
                self._tokens.get(timeout=max(0.0, timeout_s))
            except queue.Empty:
                pass
        return self._is_set
