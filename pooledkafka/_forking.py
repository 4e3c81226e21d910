"""Tells what a forked process has inherited that it is another process now."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

from pooledkafka._locks import begin_anew
from pooledkafka.errors import ForkedClientError

__all__ = ["Inheritable", "abandon", "belongs_to_parent", "inherit", "known", "notice_fork", "unforked"]


_Thing = TypeVar("_Thing")


class Inheritable(Protocol):
    """What may be in use when the process is forked."""

    def _in_child(self) -> None:
        """Begin anew: other threads are gone, locks may be held by them, and connections are the parent's.

        Called in the child before anything else of it is used there, by one thread.
        """


_known: weakref.WeakSet[Any] = weakref.WeakSet()  # added to by any thread; walked in a child, by one thread
_abandoned: list[object] = []
_process = os.getpid()  # the one that all that is known belongs to; written by the thread that is let begin anew
_beginnings: dict[int, threading.Lock] = {}  # by process: a lock of the parent's might be held by a thread of its

# Held by whoever makes what a child must know of, and around each fork: the last lock in the order, no other is taken
# under it. One that its holder may take again: a signal handler forks where it finds its thread. A child has its own.
_making = threading.RLock()


@contextmanager
def unforked() -> Iterator[None]:
    """Keep Python from forking the process until what is made here is noted; never waits for anything under it.

    A socket that is just being connected would stay open in the child otherwise, long after the parent has closed it.
    """
    with _making:
        yield


def inherit(thing: Inheritable) -> None:
    """Call its ``_in_child`` in every process that is forked from this one, as long as it is there.

    The last thing that a constructor does: another thread may fork at any moment.
    """
    notice_fork()
    _known.add(thing)


def known(kind: type[_Thing]) -> list[_Thing]:
    """What there is of this kind in the process now; from any thread."""
    while True:
        try:
            return [thing for thing in _known if isinstance(thing, kind)]
        except RuntimeError:  # another thread has made one meanwhile
            continue


def abandon(thing: object) -> None:
    """Keep what the parent uses from being collected in the child: what that would close or send is the parent's."""
    _abandoned.append(thing)


def notice_fork() -> None:
    """Begin anew if this is another process by now; called before anything that was inherited is used.

    ``os.fork`` has seen to it already. uWSGI forks without telling Python, unless it runs with
    ``py-call-uwsgi-fork-hooks``, and so may any C extension.
    """
    if os.getpid() != _process:
        _begin_anew_once()


def belongs_to_parent(what: str, made_by: int, instead: str) -> ForkedClientError:
    """The error for what cannot be used in a process forked from the one that made it."""
    return ForkedClientError(
        f"{what} was made by process {made_by}, from which this one was forked, and is still its own; {instead}"
    )


def _begin_anew_once() -> None:
    with _beginnings.setdefault(os.getpid(), threading.Lock()):
        if os.getpid() != _process:  # no other thread has done it
            _begin_anew()


def _begin_anew() -> None:
    global _making, _process  # noqa: PLW0603
    _making = threading.RLock()
    begin_anew()
    failures = []
    for thing in list(_known):
        try:
            thing._in_child()
        except Exception as error:  # all others must still be told
            failures.append(error)
    _process = os.getpid()
    if failures:
        raise failures[0]


def _hold() -> None:
    notice_fork()  # of which Python was not told: a thread of the parent may have had this process's copy of the lock
    _making.acquire()


def _let_go() -> None:
    with suppress(RuntimeError):  # an interrupt has ended the wait for it
        _making.release()


os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_begin_anew)
