"""The library's locks in their order, which is checked in debug mode.

With ``POOLEDKAFKA_DEBUG=1`` in the environment when the package is imported, each acquire asserts that the thread holds
no lock that comes later in the order or at the same place, and each wait for the I/O thread and each call of a user's
callback asserts that it holds none which others may wait for blindly. Otherwise plain locks of ``threading`` are handed
out, and nothing is checked.
"""

from __future__ import annotations

import os
import sys
import threading
from enum import Enum
from types import CodeType
from typing import Any, cast

__all__ = ["DEBUG", "LockName", "begin_anew", "check_free", "new_lock", "new_rlock", "violations"]

DEBUG = os.environ.get("POOLEDKAFKA_DEBUG", "0") not in ("", "0")
"""Whether locks are checked; read once."""

violations: list[str] = []
"""What debug mode has found. It is raised as well, but on a thread of kafka-python's that may end up in a log only."""


class LockName(Enum):
    """Every lock: its place in the order, and how it is named in messages."""

    # A mark of ownership rather than a lock: the thread whose poll, or whose user's handler, runs has it. So nobody
    # waits for it blindly: others only try, and do between two attempts what makes the owner let go.
    USE = 1, "Consumer._use"
    LIFE = 2, "ConnectionPool._life"
    OPENING = 3, "Producer._opening or Admin._opening"
    STOP = 3, "Engine._stop_lock"
    POOL = 4, "ConnectionPool._lock"
    SENDERS = 4, "Senders._lock"
    DECODING = 4, "DecodedBatches: a batch's"
    VIEWS = 5, "SharedCluster._views_lock"
    CLUSTER = 5, "SharedCluster._lock"
    LISTENERS = 5, "ClusterView._listeners_lock"
    MAILBOX = 5, "Mailbox._lock"
    FEED = 5, "Feed._lock"
    BATCH = 5, "BatchFuture._counting"
    DECODED = 5, "DecodedBatches._lock"
    TALLY = 6, "Tally._lock"
    METRICS = 6, "LateMetrics._lock"

    def __init__(self, place: int, label: str) -> None:
        self.place = place
        self.label = label

    @property
    def may_wait(self) -> bool:
        """Whether it may be held while the I/O thread is waited for: its waiters have a timeout, or are not many."""
        return self in _MAY_WAIT


_MAY_WAIT = (LockName.USE, LockName.LIFE, LockName.STOP)


def new_lock(name: LockName) -> threading.Lock:
    """A ``threading.Lock``."""
    return cast("threading.Lock", _Checked(threading.Lock(), name)) if DEBUG else threading.Lock()


def new_rlock(name: LockName) -> threading.RLock:
    """A ``threading.RLock``."""
    return cast("threading.RLock", _Checked(threading.RLock(), name)) if DEBUG else threading.RLock()


def check_free(doing: str) -> None:
    """In debug mode, assert that this thread holds no lock that it must not hold while ``doing`` something."""
    if DEBUG:
        for each in _held.locks:
            if not each.lock.name.may_wait:
                _fail(f"{doing} while holding {each}")


class _Checked:
    """A lock that knows which others its thread holds; ``threading.Condition`` takes it as its own."""

    def __init__(self, lock: Any, name: LockName) -> None:
        self._lock = lock
        self.name = name

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking:
            self._check(waits_for_ever=timeout < 0)
        taken = bool(self._lock.acquire(blocking, timeout))
        if taken:
            _held.locks.append(_Held(self))
        return taken

    def _check(self, *, waits_for_ever: bool) -> None:
        if self.name is LockName.USE:
            if waits_for_ever:
                _fail(f"{self.name.label} is waited for blindly: it is only to be tried")
            return
        for each in _held.locks:
            if each.lock.name.place >= self.name.place and each.lock is not self:
                _fail(f"{self.name.label} is taken while holding {each}; DESIGN.md has the order")
        if waits_for_ever and any(each.lock is self for each in _held.locks) and not hasattr(self._lock, "_is_owned"):
            _fail(f"{self.name.label} is taken twice by one thread")

    def release(self) -> None:
        self._lock.release()
        for position in reversed(range(len(_held.locks))):  # not there: taken before this process was forked
            if _held.locks[position].lock is self:
                del _held.locks[position]
                return

    def locked(self) -> bool:
        return bool(self._lock.locked())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    # ``threading.Condition`` calls the two instead of release and acquire when it waits.

    def _release_save(self) -> None:
        others = [each for each in _held.locks if each.lock is not self and not each.lock.name.may_wait]
        if others:
            _fail(f"waiting on {self.name.label} while holding {others[0]}")
        self.release()

    def _acquire_restore(self, _: None) -> None:
        self.acquire()


class _Held:
    """A lock that a thread has, and where it took it."""

    def __init__(self, lock: _Checked) -> None:
        self.lock = lock
        frame = sys._getframe(1)
        while frame.f_code.co_filename in _INSIDE and frame.f_back is not None:
            frame = frame.f_back
        self._code: CodeType = frame.f_code
        self._line = frame.f_lineno

    def __str__(self) -> str:
        where = f"{self._code.co_filename}:{self._line}, in {self._code.co_name}"
        return f"{self.lock.name.label} (taken at {where})"


_INSIDE = (__file__, threading.__file__)


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.locks: list[_Held] = []


_held = _OfThread()


def _fail(what: str) -> None:
    message = f"{what} [thread {threading.current_thread().name}]"
    violations.append(message)
    raise AssertionError(message)


def begin_anew() -> None:
    """In a forked process, where all locks are made anew: this thread holds none."""
    _held.locks.clear()
