"""Records in which orders threads take locks: the library's, kafka-python's and Python's own."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["LockGraph"]

_new_lock, _new_rlock, _wait = threading.Lock, threading.RLock, threading.Condition.wait
_INSIDE = (__file__, threading.__file__)


class LockGraph:
    """The locks that are made while it records, each under the place of the code that makes it.

    One that is waited for while another is held is an edge. An attempt that gives up after a time is none: it ends.
    """

    def __init__(self) -> None:
        self.edges: dict[tuple[str, str], str] = {}  # from the held to the one that is taken, and where it is
        self.waits: dict[tuple[str, str], str] = {}  # from the held to what is waited for: a condition, an event
        self.made: set[str] = set()
        self._of_thread = threading.local()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record all locks that are made meanwhile, as long as they live."""
        graph = self

        def wait(condition: Any, timeout: float | None = None) -> Any:
            own = getattr(condition, "_lock", None)
            starting = sys._getframe(2).f_code is threading.Thread.start.__code__  # a new thread needs no lock to begin
            for held in () if starting else graph.held():
                if held is not own and held is not getattr(own, "_lock", None):
                    graph.waits.setdefault((held.place, _place()), _stack())
            return _wait(condition, timeout)

        threading.Lock = lambda: _Recorded(graph, _new_lock())  # type: ignore[assignment,return-value]
        threading.RLock = lambda: _Recorded(graph, _new_rlock())  # type: ignore[assignment,return-value]
        threading.Condition.wait = wait  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            threading.Lock, threading.RLock = _new_lock, _new_rlock
            threading.Condition.wait = _wait  # type: ignore[method-assign]

    def held(self) -> list[_Recorded]:
        """What this thread holds now."""
        held: list[_Recorded] = self._of_thread.__dict__.setdefault("held", [])
        return held

    def circle(self) -> list[str]:
        """Locks that are taken in a circle, with where each is taken; empty where there is none."""
        after: dict[str, list[str]] = {}
        for first, then in self.edges:
            after.setdefault(first, []).append(then)
        done: set[str] = set()

        def from_(lock: str, path: list[str]) -> list[str]:
            if lock in path:
                path = [*path[path.index(lock) :], lock]
                return [f"{a} then {b}:\n{self.edges[a, b]}" for a, b in itertools.pairwise(path)]
            if lock not in done:
                for then in after.get(lock, ()):
                    if found := from_(then, [*path, lock]):
                        return found
                done.add(lock)
            return []

        return next((found for lock in list(after) if (found := from_(lock, []))), [])


class _Recorded:
    def __init__(self, graph: LockGraph, lock: Any) -> None:
        self._graph, self._lock = graph, lock
        self.place = _place()
        graph.made.add(self.place)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        held = self._graph.held()
        if blocking and timeout < 0 and self not in held:
            for other in held:
                if (other.place, self.place) not in self._graph.edges:
                    self._graph.edges[other.place, self.place] = _stack()
        taken = bool(self._lock.acquire(blocking, timeout))
        if taken:
            held.append(self)
        return taken

    def release(self) -> None:
        self._lock.release()
        held = self._graph.held()
        if self in held:  # else it was taken by another thread
            held.reverse()
            held.remove(self)
            held.reverse()

    def locked(self) -> bool:
        return bool(self._lock.locked())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return self in self._graph.held()

    def _release_save(self) -> int:
        count = self._graph.held().count(self)
        for _ in range(count):
            self.release()
        return count

    def _acquire_restore(self, count: int) -> None:
        for _ in range(count):
            self.acquire()

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()


def _frames() -> Iterator[Any]:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename not in _INSIDE and not frame.f_code.co_filename.endswith("_locks.py"):
            yield frame
        frame = frame.f_back  # type: ignore[assignment]


def _place() -> str:
    frame = next(_frames(), None)
    if frame is None:
        return "threading"
    file = "/".join(frame.f_code.co_filename.split("/")[-2:])
    return f"{file}:{frame.f_lineno} {getattr(frame.f_code, 'co_qualname', frame.f_code.co_name)}"


def _stack() -> str:
    return "\n".join(f"    {f.f_code.co_filename}:{f.f_lineno} {f.f_code.co_name}" for f in list(_frames())[:14])
