"""Lets the event loop go before the threads that are busy with records."""

from __future__ import annotations

import select
import selectors
import time
from collections import deque
from typing import Any

from pooledkafka._wire.flag import Flag

__all__ = ["LoopSelector", "Turn"]

_MOST_S = 0.005
"""How long a thread gives way at most: as long as Python itself would let it run before another one."""
_AGAIN_S = 0.0005
"""For so long after it has given way a thread goes on. One that takes each record by itself would do little else."""


class LoopSelector(selectors.DefaultSelector):
    """What the event loop waits with; tells others whether it does."""

    def __init__(self) -> None:
        super().__init__()
        # All set by the loop's thread, and read by any, but for the last.
        self.is_waiting = False  # the loop has nothing to do, as far as it knows, or is just looking whether it has
        self.passes = 0
        self.behind: deque[Flag] = deque()  # of the threads that let it go first, added by them

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.passes += 1
        self.is_waiting = True
        while self.behind:
            self.behind.popleft().set()
        try:
            return super().select(timeout)
        finally:
            self.is_waiting = False

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Says that nobody waits for a socket, which kafka-python asks before each wait, without describing the socket.

        That takes two system calls for its addresses, and is done twice, for an error that nobody reads.
        """
        fd = fileobj.fileno()
        return super().get_key(fileobj if fd < 0 else fd)  # one that was closed is found by itself


class Turn:
    """One thread's place behind the event loop.

    Python lets a thread that computes run for 5 ms before another one has its turn, and the event loop gives its turn
    away with each call of the operating system, several in a pass. Beside four consumers that have records to take all
    the time, a pass took 60 to 150 ms, and everybody's requests with it. So whoever takes records lets a pass that is
    due, or on its way, come to its end first; but one that takes long, not more than once.
    """

    def __init__(self, selector: Any, most_s: float = _MOST_S) -> None:
        self._selector = selector
        self._most_s = most_s
        self._go_on_until = 0.0
        self._outlasted = -1  # the pass that took longer than may be waited for
        self._ended = Flag()
        self._due: Any = None
        if isinstance(selector, LoopSelector) and hasattr(selector, "fileno") and hasattr(select, "poll"):
            self._due = select.poll()  # epoll and kqueue have a file descriptor of their own, which tells
            self._due.register(selector.fileno(), select.POLLIN)

    def give_way(self) -> None:
        """Wait for the end of the event loop's pass, where one is on its way or due; on one thread at a time."""
        if self._due is None or time.monotonic() < self._go_on_until:
            return
        selector, current = self._selector, self._selector.passes
        if current != self._outlasted and self._is_on():
            self._ended.clear()
            selector.behind.append(self._ended)
            # It may have ended just before: its end was counted then, before those behind it were let go.
            if selector.passes == current and not self._ended.wait(self._most_s):
                self._outlasted = current
        self._go_on_until = time.monotonic() + _AGAIN_S

    def _is_on(self) -> bool:
        return not self._selector.is_waiting or bool(self._due.poll(0))
