"""The pool's limit of requests in progress, kept at every instant."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

__all__ = ["Permits"]


class Permits:
    """A counting semaphore, first come first served, for callbacks in place of threads.

    Used on the I/O thread only, so it needs no lock. ``limit`` None or 0: no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit or None
        self.held = 0
        self.urgent = 0  # how many wait for a permit and are no long polls
        self._waiting: deque[tuple[Callable[[], None], bool]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a permit now."""
        return len(self._waiting)

    def acquire(self, granted: Callable[[], None], *, long_poll: bool = False, first: bool = False) -> None:
        """Call ``granted`` when a permit is its own: at once if one is free and nobody came earlier.

        ``first``: before all others that wait.
        """
        if first:
            self._waiting.appendleft((granted, long_poll))
        else:
            self._waiting.append((granted, long_poll))
        self.urgent += not long_poll
        self._grant()

    def waits(self, granted: Callable[[], None]) -> bool:
        """Whether ``granted`` still waits for its permit."""
        return any(entry[0] is granted for entry in self._waiting)

    def give_up(self, granted: Callable[[], None]) -> None:
        """Wait no longer; does nothing for one that was granted its permit."""
        for entry in self._waiting:
            if entry[0] is granted:
                self._waiting.remove(entry)
                self.urgent -= not entry[1]
                return

    def release(self) -> None:
        """Give a permit back; whoever waits longest gets it."""
        self.held -= 1
        self._grant()

    def _grant(self) -> None:
        # ``granted`` may fail at once and release within this loop, which then grants the next: the count is changed
        # before the call, so that a nested call never sees a permit that is taken as free.
        while self._waiting and (self.limit is None or self.held < self.limit):
            self.held += 1
            granted, long_poll = self._waiting.popleft()
            self.urgent -= not long_poll
            granted()
