"""Whether brokers can be reached: one attempt to connect finds out for all lanes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from kafka.future import Future

from pooledkafka._wire.futures import attempt
from pooledkafka._wire.lanes import LaneKey

__all__ = ["Reachability", "broker_of"]


def broker_of(key: Any) -> Any:
    """The broker of a connection: its node id, or kafka-python's name of a bootstrap address."""
    return key.node_id if isinstance(key, LaneKey) else key


class _Attempt(NamedTuple):
    """A connection that is not up yet."""

    key: Any
    connection: Any
    until: float  # when others need not wait for it any longer, by the monotonic clock


class _Connections(Protocol):
    """What is asked of the connection manager."""

    closed: bool

    def is_connected(self, key: Any) -> bool:
        """Whether the connection under ``key`` is up."""

    def is_closing(self, key: Any) -> bool:
        """Whether the connection under ``key`` is being closed on purpose."""


class Reachability:
    """Holds back what would connect to a broker of which a connection was lost, while another attempt is under way.

    On the I/O thread only.
    """

    def __init__(self, net: Any, connections: _Connections, held_up_s: float) -> None:
        self._net = net
        self._connections = connections
        self._held_up_s = held_up_s
        # Brokers of which a connection was lost, or that could not be reached, since one last came up.
        self._doubted: set[Any] = set()
        self._attempts: dict[Any, _Attempt] = {}  # under way, by key

    def follow(self, key: Any, connection: Any) -> None:
        """Learn from a new connection whether its broker can be reached; before anybody else hears how it went."""
        broker = broker_of(key)
        self._attempts[key] = _Attempt(key, connection, time.monotonic() + self._held_up_s)

        def up(_: Any) -> None:
            self._attempts.pop(key, None)
            self._doubted.discard(broker)

        def over(_: Any) -> None:
            self._attempts.pop(key, None)
            if not self._connections.is_closing(key):
                self._doubted.add(broker)

        connection.init_future.add_callback(up)
        connection.init_future.add_errback(over)
        connection.close_future.add_both(over)

    def must_wait(self, key: Any) -> bool:
        """Whether another attempt has to succeed before ``key`` is tried."""
        return self._attempt_before(key) is not None

    def when_reachable(self, key: Any, start: Callable[[], Future]) -> Future:
        """What ``start`` comes to; after the attempt to reach the broker that is under way, whose failure it shares."""
        before = None if self._connections.is_connected(key) else self._attempt_before(key)
        if before is None:
            return start()
        future, decided = Future(), Future()

        def decide(error: BaseException | None) -> None:
            if decided.is_done:
                return
            decided.success(None)
            self._net.cancel(timer)
            # One that was closed because nobody needed its lane any more has found out nothing.
            if error is not None and (self._connections.closed or not self._connections.is_closing(before.key)):
                future.failure(error)
                return
            attempt(lambda: self.when_reachable(key, start)).chain(future)

        timer = self._net.call_at(before.until, lambda: decide(None))
        before.connection.init_future.add_callback(lambda _: decide(None))
        before.connection.init_future.add_errback(decide)
        return future

    def _attempt_before(self, key: Any) -> _Attempt | None:
        """The attempt that has to succeed before ``key`` is tried; None where there is none.

        One that neither succeeds nor fails holds up the others no longer than the longest backoff: what takes part in
        the handshake may be a proxy that knows of no broker behind it.
        """
        broker = broker_of(key)
        if broker not in self._doubted or key in self._attempts:
            return None
        attempts = [each for other, each in self._attempts.items() if broker_of(other) == broker]
        newest = max(attempts, key=lambda each: each.until, default=None)
        return newest if newest is not None and newest.until > time.monotonic() else None
