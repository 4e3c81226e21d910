"""A thread that runs one event loop, and calls from other threads into it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as TimeoutError_  # the same as the builtin from Python 3.11 on
from typing import Any, TypeVar

from .._errors import ClusterError

__all__ = ["LoopThread"]

_T = TypeVar("_T")
_STOP_S = 1.8  # of the two seconds that closing a cluster may take


class LoopThread:
    """An event loop on a daemon thread of its own. ``stop`` ends it, whatever still runs there."""

    def __init__(self, name: str) -> None:
        """Start the thread, and return when the loop runs."""
        self.loop = asyncio.new_event_loop()
        self._lock = threading.Lock()  # guards the next; held while a call is handed to the loop, never while it runs
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_current(self) -> bool:
        """Whether this is called on the thread itself."""
        return threading.current_thread() is self._thread

    def call(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Call a function on the loop and return its result; from any other thread.

        Raises ClusterError where the loop is being stopped.
        """

        async def called() -> _T:
            return function(*args, **kwargs)

        return self.run(called())

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the loop and return its result; as ``call``."""
        if self.is_current:
            coroutine.close()
            raise RuntimeError("called on the embedded cluster's own thread, where it would wait for itself")
        with self._lock:
            if self._stopping:
                coroutine.close()
                raise ClusterError("the cluster is being closed by another thread")
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result()
        except CancelledError:
            raise ClusterError("the cluster was closed by another thread meanwhile") from None

    def stop(self, last: Callable[[], None]) -> None:
        """Call ``last`` on the loop, cancel all tasks, and end the loop and its thread.

        Raises ClusterError where something blocks the thread; then it ends when that returns.
        """
        with self._lock:
            self._stopping = True
        # Whatever was handed to the loop before has its task by the time this one runs, and is cancelled by it.
        ended = asyncio.run_coroutine_threadsafe(self._end(last), self.loop)
        try:
            problem = ended.exception(_STOP_S)
        except TimeoutError_:
            raise ClusterError(
                "a function that a fault calls blocks the embedded cluster's thread; it must return at once"
            ) from None
        self._thread.join()
        if problem is not None:
            raise problem

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    async def _end(self, last: Callable[[], None]) -> None:
        try:
            last()
        finally:
            await self._cancel_all()
            self.loop.call_soon(self.loop.stop)

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks(self.loop) - {asyncio.current_task(self.loop)}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports that were closed tell their protocols in the next round
