"""The event loop of a pool, for the process that made it."""

from __future__ import annotations

import os
import selectors
import threading
import weakref
from typing import Any

from kafka.errors import Cancelled, KafkaConnectionError
from kafka.future import Future

from pooledkafka._forking import belongs_to_parent
from pooledkafka._locks import check_free
from pooledkafka._wire.flag import Flag
from pooledkafka._wire.steps import Steps
from pooledkafka._wire.turns import LoopSelector, Turn
from pooledkafka.errors import PoolClosedError

__all__ = ["Loop"]

_LOOK_AGAIN_S = 3_600.0


_NOT_DONE = "the connection pool was disconnected before the call was done"


class PoolDisconnectedError(PoolClosedError, RuntimeError):
    """What kafka-python raises RuntimeError for."""


class _SaidPlainly:
    """Says in the pool's terms what ends a call that its disconnect() did not wait for, or that comes after it.

    It keeps nothing of a call, so that one is enough for all of a loop's, on any thread.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if (
            isinstance(error, (RuntimeError, Cancelled, KafkaConnectionError))
            and (self._loop.ending or self._loop._closed)
            and not isinstance(error, PoolDisconnectedError)
        ):
            raise PoolDisconnectedError(_NOT_DONE) from error


class Loop(Steps):
    """kafka-python's event loop, which says in the pool's terms that it has ended.

    In a forked process, where no thread runs it, it refuses work instead of waiting.
    """

    def __init__(self, **config: Any) -> None:
        self._made_by = os.getpid()
        self.ending = False  # set once, before the connections are closed: what fails then fails by that
        # All that are not gone, from the moment they are made: one that is being connected, is handed from one wait to
        # the next, or is being closed, is in no selector, but is inherited. Added to under ``unforked``; walked in a
        # forked process.
        self.sockets: weakref.WeakSet[Any] = weakref.WeakSet()
        if config.get("selector", selectors.DefaultSelector) is selectors.DefaultSelector:
            config["selector"] = LoopSelector
        self._said_plainly = _SaidPlainly(self)
        super().__init__(**config)

    def run(self, coro: Any, *args: Any) -> Any:
        self.check_process()
        check_free("waiting for the I/O thread")
        with self._said_plainly:
            return self._run(coro, *args)

    def _run(self, coro: Any, *args: Any) -> Any:
        if self._closed or self._exception or self._io_thread in (None, threading.current_thread()):
            return super().run(coro, *args)  # which refuses, or drives the loop itself
        # As kafka-python does it, but not with a threading.Event: an exception of a signal handler at the wrong moment
        # would leave that locked, and this loop, which sets it when the call is done, waiting for ever.
        done = Flag()
        outcome: dict[str, Any] = {"value": None, "exception": None}

        def finished(future: Future) -> None:
            with self._pending_waiters_lock:
                known = self._pending_waiters.pop(done, None)
            if known is not None:  # else the loop has ended meanwhile, and said so
                outcome.update(value=future.value, exception=future.exception)
                done.set()

        with self._pending_waiters_lock:
            self._pending_waiters[done] = outcome
        future = self.call_soon_with_future(coro, *args)
        future.add_both(lambda _: finished(future))
        while not done.wait(_LOOK_AGAIN_S):
            pass
        if outcome["exception"] is not None:
            raise outcome["exception"]
        return outcome["value"]

    def call_soon_threadsafe(self, callback: Any) -> Any:
        self.check_process()
        with self._said_plainly:
            return super().call_soon_threadsafe(callback)

    def call_at(self, when: float, work: Any) -> Any:
        with self._said_plainly:
            return super().call_at(when, work)

    def call_soon_with_future(self, coro: Any, *args: Any) -> Future:
        future = Future()

        async def complete() -> None:
            try:
                with self._said_plainly:
                    outcome = await self._invoke(coro, *args)
                future.success(outcome)
            except GeneratorExit as error:
                # The loop ends, and closes what has not. kafka-python passes this on as the outcome, which is then
                # raised to the user, of whose errors it is none.
                future.failure(PoolDisconnectedError(_NOT_DONE) if self._closed else error)
            except BaseException as error:
                future.failure(error)

        self.call_soon_threadsafe(complete)
        return future

    def turn(self) -> Turn:
        """A place behind this loop, for one thread that is busy with records."""
        return Turn(self._selector)

    def check_process(self) -> None:
        """Raise ForkedClientError in any other process than the one that made this."""
        if os.getpid() != self._made_by:
            raise belongs_to_parent(
                "this life of the connection pool", self._made_by, "take what you need from the pool here, anew"
            )

    def in_child(self) -> None:
        """Close a forked process's copies of the sockets; nobody notices anything of it.

        Without the selector, which is the parent's too: taking a socket out of it would take it out there.
        """
        self._closed = True
        for each in (*self.sockets, self._wakeup_r, self._wakeup_w):
            each.close()
        self._selector.close()
