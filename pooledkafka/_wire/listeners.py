"""Keeps users' rebalance listeners off the I/O thread that all clients share."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Collection
from typing import Any

from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.future import Future

from pooledkafka._locks import check_free

__all__ = ["off_the_io_thread"]


def off_the_io_thread(listener: Any, net: Any, on_thread: Callable[[int | None], None]) -> Any:
    """A listener for kafka-python that runs ``listener``'s methods on a thread of their own.

    kafka-python calls a synchronous listener on its I/O thread, where it may not use its consumer, and where in a pool
    it would hold up every client. ``on_thread`` is told the thread's id before a method runs, and None after. A
    listener whose methods are coroutines is the application's own way to run on the I/O thread, and is left as it is.
    """
    if listener is None or inspect.iscoroutinefunction(listener.on_partitions_assigned):
        return listener
    return _ThreadedListener(listener, net, on_thread)


class _ThreadedListener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, listener: Any, net: Any, on_thread: Callable[[int | None], None]) -> None:
        self._listener = listener
        self._net = net
        self._on_thread = on_thread

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        await self._run(self._listener.on_partitions_revoked, revoked)

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        await self._run(self._listener.on_partitions_assigned, assigned)

    async def on_partitions_lost(self, lost: Collection[Any]) -> None:
        # By default, as kafka-python has it, partitions that are lost are revoked.
        method = getattr(self._listener, "on_partitions_lost", self._listener.on_partitions_revoked)
        await self._run(method, lost)

    async def _run(self, method: Callable[[Any], None], partitions: Collection[Any]) -> None:
        done = Future()

        def call() -> None:
            self._on_thread(threading.get_ident())
            try:
                check_free("calling a rebalance listener")
                method(partitions)
            except BaseException as error:
                outcome: BaseException | None = error
            else:
                outcome = None
            finally:
                self._on_thread(None)
            finish = (lambda: done.success(None)) if outcome is None else (lambda: done.failure(outcome))
            try:
                self._net.call_soon_threadsafe(finish)
            except RuntimeError:
                pass  # the event loop has ended, and with it the rebalance that waits for this

        # The thread that polls waits for the rebalance, so nothing else of the consumer runs meanwhile.
        threading.Thread(target=call, name="pooledkafka-rebalance", daemon=True).start()
        await done
