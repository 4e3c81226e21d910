"""Runs what is ready on the event loop, in half the time that kafka-python's own loop takes for it."""

from __future__ import annotations

import heapq
import inspect
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from kafka.future import Future
from kafka.net import selector as kafka_python
from kafka.net.selector import MAX_TIMEOUT, KernelEvent, NetworkSelector, Task, TaskState

from pooledkafka._wire.turns import LoopSelector

__all__ = ["Steps"]

_GOES_ON = inspect.CO_COROUTINE | inspect.CO_GENERATOR
_SLOW = "Task %r ran for %.3fs (>%.3fs threshold). It is blocking the event loop"
_OVER = (TaskState.DONE, TaskState.CANCELLED)
_PASS_S = 0.006
"""For so long what becomes ready by what was just run is run as well, before the sockets are looked at again.

A bit longer than Python lets a thread run while others wait. To look lets them run, but only just: with shorter passes
of a loop that always has something to do, who waits is woken by each look, comes too late, and waits anew.
"""
_MOST_CANCELLED = 100
"""At most so many timers that were cancelled are kept, or as many as there are others, if that is more."""

_READABLE = KernelEvent("_wait_readable")


class _Coroutine(Task):  # type: ignore[misc]
    """A coroutine function, or a generator function, that is known to be one; kafka-python finds out in four ways."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._stack: Any = (function, None)
        self._res = self.scheduled_at = None
        self._exc: BaseException | None = None
        self.state = TaskState.CREATED


class _Call(_Coroutine):
    """A plain function that is to be called."""

    _begun = False

    def __call__(self, arg: Any = None) -> Any:
        if self._begun or self._stack is None:
            return super().__call__()
        self._begun = True
        try:
            returned = self._stack[0]()
        except BaseException as error:
            self._stack, self._exc = None, error
            if isinstance(error, StopIteration):  # which would say that it has returned
                raise RuntimeError("a function on the event loop raised StopIteration") from error
            raise
        if returned is None:
            self._stack = None
            raise StopIteration
        # As kafka-python: it may have returned something to wait for, or a coroutine to run.
        self._stack = (_yielding(returned), None)
        return super().__call__()


def _yielding(returned: Any) -> Iterator[Any]:
    yield returned


def _as_task(work: Any) -> Task:
    if isinstance(work, Task):
        return work
    if not callable(work):
        return Task(work)
    code = getattr(work, "__code__", None)  # a partial has none; kafka-python refuses those
    return _Coroutine(work) if code is not None and code.co_flags & _GOES_ON else _Call(work)


class Steps(NetworkSelector):  # type: ignore[misc]
    """kafka-python's event loop, with the same tasks.

    What has become ready by a task is run without looking at the sockets in between; kafka-python asks the system each
    time, and a request becomes ready in four steps. A timer that is cancelled, as the timeout of each request is, stays
    where it is until its time comes, or there are too many: kafka-python looks for it among all, and orders these anew.
    """

    _current: Any
    _poll_owner: Any

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._cancelled = 0  # of _scheduled; the I/O thread's
        self._waits: Any = self._selector if isinstance(self._selector, LoopSelector) else None

    def call_soon(self, work: Any) -> Any:
        task = _as_task(work)
        self._pending_tasks.add(task)
        task.state = TaskState.READY
        self._ready.append(task)
        return task

    def call_soon_threadsafe(self, callback: Any) -> Any:
        if self._closed or self._exception:
            return super().call_soon_threadsafe(callback)  # which refuses
        task = self.call_soon(callback)
        # The loop says that it waits before it looks whether anything is ready. So it finds this, or is woken.
        if self._waits is None or self._waits.is_waiting:
            self.wakeup()
        return task

    def call_at(self, when: float, work: Any) -> Any:
        return super().call_at(when, _as_task(work))

    def call_later(self, delay: float, work: Any) -> Any:
        return self.call_at(time.monotonic() + delay, work)

    def cancel(self, task: Any) -> None:
        if task.state is not TaskState.SCHEDULED:
            super().cancel(task)
            return
        self._pending_tasks.discard(task)
        task.close()
        self._cancelled += 1
        if self._cancelled > max(_MOST_CANCELLED, len(self._scheduled) // 2):
            self._scheduled[:] = [entry for entry in self._scheduled if entry[1].state is not TaskState.CANCELLED]
            heapq.heapify(self._scheduled)
            self._cancelled = 0

    def _next(self) -> float:
        """When the next timer is due that was not cancelled."""
        while self._scheduled:
            when, task = self._scheduled[0]
            if task.state is not TaskState.CANCELLED:
                return float(when)
            heapq.heappop(self._scheduled)
            self._cancelled -= 1
        return math.inf

    def _schedule_tasks(self) -> None:
        now = time.monotonic()
        while self._next() <= now:
            _, task = heapq.heappop(self._scheduled)
            task.scheduled_at = None
            self._add_ready_task(task)

    def _poll_once(self, timeout: float | None = None) -> None:
        if not self._poll_lock.acquire(blocking=False):
            how = "Recursive" if self._poll_owner is threading.current_thread() else "Concurrent"
            raise RuntimeError(f"{how} access to net.poll!")
        self._poll_owner = threading.current_thread()
        try:
            self._look(timeout)
            look_again_at = time.monotonic() + _PASS_S
            while self._run_ready() < look_again_at and self._ready:
                pass
        finally:
            self._current = None
            self._poll_owner = None
            self._poll_lock.release()

    def _look(self, timeout: float | None) -> None:
        if self._waits is not None:
            self._waits.is_waiting = True  # before it looks whether anything is ready: see call_soon_threadsafe
        if self._ready:
            timeout = 0
        elif self._scheduled:
            due = max(0.0, self._next() - time.monotonic())
            timeout = due if timeout is None else min(timeout, due)
        if timeout is not None:
            timeout = min(timeout, MAX_TIMEOUT)
        self._process_events(self._selector.select(timeout))
        self._schedule_tasks()

    def _run_ready(self) -> float:
        """Run what is ready now; returns when it was done."""
        threshold = self.config["slow_task_threshold_secs"]
        began = time.monotonic()
        for _ in range(len(self._ready)):
            task = self._current = self._ready.popleft()
            if task.state in _OVER:
                continue
            task.state = TaskState.RUNNING
            try:
                event = task()
            except StopIteration:
                self._task_done(task)
            except BaseException:
                kafka_python.log.exception("Unhandled exception in task %s:", task)
                self._task_done(task)
            else:
                self._park(task, event)
            ended = time.monotonic()
            if threshold and ended - began > threshold:
                kafka_python.log.warning(_SLOW, task, ended - began, threshold)
                ended = time.monotonic()  # what the log's handlers take is not the next task's
            began = ended
        return began

    def readable(self) -> KernelEvent:
        """To be awaited by a task that has registered itself for a socket, until there is something to read."""
        return _READABLE

    def _wait_readable(self) -> None:
        self._current.state = TaskState.WAIT_IO

    def _park(self, task: Any, event: Any) -> None:
        if task.state is TaskState.CANCELLED:
            self._pending_tasks.discard(task)
            task.close()
        elif isinstance(event, Future):
            task.state = TaskState.WAIT_FUTURE

            def go_on(_: Any) -> None:
                self.call_soon(task)

            event._add_cb_eb(go_on, go_on)
        elif isinstance(event, KernelEvent):
            try:
                getattr(self, event.method)(*event.args)
            except BaseException as error:
                task.inject_exc(error)
                self._add_ready_task(task)
        else:
            raise RuntimeError(f"Unhandled event type: {event}")
