"""Keeps users' rebalance listeners off the I/O thread that all clients share."""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Collection
from typing import Any

from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.future import Future

from pooledkafka._locks import check_free

__all__ = ["Listening", "Subscriber", "off_the_io_thread"]


class Listening:
    """Which thread a consumer's rebalance listener runs on now, as that thread sets it."""

    def __init__(self) -> None:
        self.thread: int | None = None


class Subscriber:
    """A rebalance listener with the consumer that subscribed it, which alone keeps it alive.

    A listener usually refers to its consumer. If the event loop kept it, no consumer with a listener that was dropped
    would ever be collected, nor leave its group.
    """

    def __init__(self, listener: Any, listening: Listening) -> None:
        self.listener = listener
        self.listening = listening


def off_the_io_thread(subscriber: Subscriber | None, net: Any) -> Any:
    """A listener for kafka-python that runs that of ``subscriber`` on a thread of its own, as long as it is there.

    kafka-python calls a synchronous listener on its I/O thread, where it may not use its consumer, and where in a pool
    it would hold up every client. A listener whose methods are coroutines is the application's own way to run on the
    I/O thread, and does.
    """
    return None if subscriber is None else _Listener(subscriber, net)


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, subscriber: Subscriber, net: Any) -> None:
        self._subscriber = weakref.ref(subscriber)
        self._net = net

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        await self._call("on_partitions_revoked", revoked)

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        await self._call("on_partitions_assigned", assigned)

    async def on_partitions_lost(self, lost: Collection[Any]) -> None:
        await self._call("on_partitions_lost", lost)

    async def _call(self, name: str, partitions: Collection[Any]) -> None:
        subscriber = self._subscriber()
        if subscriber is None:
            return
        method = getattr(subscriber.listener, name, None)
        if method is None:  # by default, as kafka-python has it, partitions that are lost are revoked
            method = subscriber.listener.on_partitions_revoked
        if inspect.iscoroutinefunction(method):
            await method(partitions)
        else:
            await self._run(method, partitions, subscriber.listening)

    async def _run(self, method: Callable[[Any], None], partitions: Collection[Any], listening: Listening) -> None:
        done = Future()

        def call() -> None:
            listening.thread = threading.get_ident()
            try:
                check_free("calling a rebalance listener")
                method(partitions)
            except BaseException as error:
                outcome: BaseException | None = error
            else:
                outcome = None
            finally:
                listening.thread = None
            finish = (lambda: done.success(None)) if outcome is None else (lambda: done.failure(outcome))
            try:
                self._net.call_soon_threadsafe(finish)
            except RuntimeError:
                pass  # the event loop has ended, and with it the rebalance that waits for this

        # The thread that polls waits for the rebalance, so nothing else of the consumer runs meanwhile.
        thread = threading.Thread(target=call, name="pooledkafka-rebalance", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # Python 3.12 starts none while the interpreter ends: then as kafka-python does
            method(partitions)
        else:
            await done
