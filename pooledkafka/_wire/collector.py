"""Python's garbage collector, and what is made in bulk."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from typing import TypeVar

from pooledkafka._forking import inherit

__all__ = ["listed"]

_Thing = TypeVar("_Thing")

_kept_waiting = False  # written by the thread that has disabled the collector; read in a child that is forked meanwhile


def listed(things: Iterable[_Thing]) -> list[_Thing]:
    """``list(things)``, with the collector waiting until all are made; for what runs no Python, and takes milliseconds.

    Before Python 3.12 it comes in between whenever there are 700 objects more that may be part of a cycle, as each
    record may, and looks at all objects of the process when that has happened often enough: half of the time that
    reading took. Since 3.12 it waits for the end of such a call by itself.

    Where several threads do this at a time, the first to end enables the collector again: that costs the others time,
    and nothing else. An application that disables it in these milliseconds, on another thread, has it enabled again.
    """
    global _kept_waiting  # noqa: PLW0603
    if sys.version_info >= (3, 12) or not gc.isenabled():
        return list(things)
    # Another thread, or an interrupt, may come after each call, and nowhere else. So what disables the collector is
    # within the try, and whoever comes finds it and the flag both changed, or neither.
    try:
        _kept_waiting = True
        gc.disable()
        return list(things)
    finally:
        _kept_waiting = False
        gc.enable()


class _Forked:
    """Enables the collector in a child that was forked while a thread, which is not there, had it wait."""

    def _in_child(self) -> None:
        global _kept_waiting  # noqa: PLW0603
        if _kept_waiting:
            _kept_waiting = False
            gc.enable()


_forked = _Forked()
inherit(_forked)
