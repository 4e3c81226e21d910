"""Python's garbage collector, and what is made in bulk."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable
from typing import TypeVar

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
    try:  # with all in it that changes anything: an interrupt may come after each call
        _kept_waiting = True
        gc.disable()
        return list(things)
    finally:
        gc.enable()
        _kept_waiting = False


def _in_child() -> None:
    global _kept_waiting  # noqa: PLW0603
    if _kept_waiting:  # by a thread that is not there
        gc.enable()
        _kept_waiting = False


os.register_at_fork(after_in_child=_in_child)
