"""Tells what a forked process has inherited that it is another process now."""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol

__all__ = ["Inheritable", "abandon", "inherit"]


class Inheritable(Protocol):
    """What may be in use when the process is forked."""

    def _in_child(self) -> None:
        """Begin anew: other threads are gone, locks may be held by them, and connections are the parent's.

        Called in the child before ``os.fork`` returns there, while no other thread runs.
        """


_known: weakref.WeakSet[Any] = weakref.WeakSet()  # added to by any thread; walked in a child, by its only thread
_abandoned: list[object] = []


def inherit(thing: Inheritable) -> None:
    """Call its ``_in_child`` in every process that is forked from this one, as long as it is there."""
    _known.add(thing)


def abandon(thing: object) -> None:
    """Keep what the parent uses from being collected in the child: what that would close or send is the parent's."""
    _abandoned.append(thing)


def _in_child() -> None:
    for thing in list(_known):
        thing._in_child()


os.register_at_fork(after_in_child=_in_child)
