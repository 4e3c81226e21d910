"""What a pooled ``KafkaProducer`` gets in place of a client of its own."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from kafka.errors import (
    Cancelled,
    KafkaConnectionError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
    UnknownBrokerIdError,
)
from kafka.future import Future
from kafka.protocol.producer import ProduceRequest

from pooledkafka._logging import get_logger
from pooledkafka._wire.cluster import ClusterView
from pooledkafka._wire.engine import Engine
from pooledkafka._wire.futures import attempt
from pooledkafka._wire.lanes import Lane, LaneKey, lane_of
from pooledkafka._wire.mailbox import Mailbox
from pooledkafka._wire.refusals import LOGIN_ERRORS
from pooledkafka._wire.views import ManagerView, NetView
from pooledkafka.errors import ForkedClientError

__all__ = ["ProducerFacade"]

_log = get_logger("pooledkafka.producer")

_CONNECTING_MS = 100.0
_THROTTLED_MS = 10.0
_UNANSWERED = (Cancelled, KafkaTimeoutError, NodeNotReadyError, RequestTimedOutError, UnknownBrokerIdError)


class ProducerFacade:
    """Looks like kafka-python's ``KafkaNetClient`` to one producer's Sender thread.

    The Sender drives the event loop of its own client; here the pool's I/O thread does. ``send`` hands a request to
    the I/O thread, and ``poll`` waits for what comes back and completes it, so that callbacks run on the Sender thread
    as ever. Used on the Sender thread only, but for ``wakeup`` and what is named as the I/O thread's.
    """

    def __init__(self, engine: Engine, *, request_timeout_ms: float, max_in_flight: int) -> None:
        self._engine = engine
        self._request_timeout_ms = request_timeout_ms
        self._max_in_flight = max_in_flight
        self._mailbox = Mailbox()
        self._in_flight: Counter[int] = Counter()  # requests not yet completed, by broker; the Sender thread's
        self._opening: set[int] = set()  # brokers whose produce lane is being opened for us; the Sender thread's
        self.cluster: ClusterView = engine.manager.cluster.attach_view()
        # Records of a partition without a leader wait for nothing but metadata, and the Sender asks for it again only
        # when it runs. kafka-python's own is woken by the answer, since it reads that itself.
        self.cluster.add_listener(lambda _: self._mailbox.wakeup())
        self._manager = ManagerView(engine, self.cluster, NetView(engine.net))

    def send(self, node_id: int, request: Any, **_: Any) -> Future:
        """Send on the lane of the request; the future is completed by ``poll``, on the Sender thread."""
        future = Future()
        self._in_flight[node_id] += 1

        def done(wire: Future) -> None:  # on the I/O thread
            self._mailbox.put(lambda: self._complete(node_id, request, future, wire))

        def dispatch() -> None:  # on the I/O thread
            key = LaneKey(node_id, lane_of(request))
            wire = attempt(lambda: self._engine.manager.send_on(key, request, self._request_timeout_ms))
            wire.add_both(lambda _: done(wire))

        try:
            self._engine.net.call_soon_threadsafe(dispatch)
        except (RuntimeError, ForkedClientError) as error:  # the event loop has ended, or is the parent's
            done(Future().failure(KafkaConnectionError(f"the connection pool is closed: {error}")))
        return future

    def _complete(self, node_id: int, request: Any, future: Future, wire: Future) -> None:
        self._in_flight[node_id] -= 1
        error = wire.exception
        if error is not None:
            # Where a request of a transaction, or for a producer id, fails in any way but this, kafka-python takes it
            # for the producer's end, though it knows to ask again.
            if isinstance(error, _UNANSWERED) and not isinstance(request, ProduceRequest):
                error = KafkaConnectionError(f"not answered: {error!r}")
            # Whoever sends now is told that the pool is not let in (``check_login``); what was sent before is still
            # tried as long as its delivery may take.
            elif isinstance(error, LOGIN_ERRORS):
                error = KafkaConnectionError(f"not let in: {error!r}")
            future.failure(error)
        else:
            future.success(wire.value)

    def poll(self, timeout_ms: float | None = None, future: Future | None = None) -> None:
        """Complete what came back, waiting up to ``timeout_ms`` for something, or for ``future`` where one is given."""
        deadline = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        if future is not None:
            future.add_both(lambda _: self._mailbox.wakeup())
        while True:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            self._mailbox.run_pending(remaining)
            if future is None or future.is_done or (remaining is not None and remaining <= 0):
                return

    def wakeup(self) -> None:
        """End the Sender's wait; from any thread."""
        self._mailbox.wakeup()

    def is_ready(self, node_id: int) -> bool:
        """Whether a Produce request may be sent to the broker now.

        The limit of requests in flight is this producer's own (an idempotent producer must keep to five a broker);
        how many other producers have on the lane does not matter.
        """
        if self._in_flight[node_id] >= self._max_in_flight:
            return False
        connection = self._produce_lane(node_id)
        return connection is not None and connection.connected and not connection.paused

    def connection_delay(self, node_id: int) -> float:
        """Milliseconds after which the Sender looks again whether the broker is ready; a wakeup comes earlier.

        Zero, as kafka-python returns while a connection is being made, would let the Sender spin: it does not drive
        the event loop here.
        """
        if self._in_flight[node_id] >= self._max_in_flight:
            return self._request_timeout_ms
        connection = self._produce_lane(node_id)
        if node_id in self._opening or (connection is not None and not connection.connected):
            return _CONNECTING_MS
        if connection is None:
            return max(1.0, self._engine.manager.connection_delay(LaneKey(node_id, Lane.PRODUCE)) * 1000)
        return max(_THROTTLED_MS, float(connection._throttle_time - time.monotonic()) * 1000)

    def maybe_connect(self, node_id: int, **_: Any) -> None:
        """Open the broker's produce lane and wake the Sender when it is up or has failed."""
        if node_id in self._opening or self._produce_lane(node_id) is not None:
            return
        self._opening.add(node_id)

        def opened(_: Any) -> None:  # on the I/O thread
            self._mailbox.put(lambda: self._opening.discard(node_id))

        try:
            self._on_io_thread(lambda: self._engine.manager.open(LaneKey(node_id, Lane.PRODUCE)).add_both(opened))
        except KafkaConnectionError:
            self._opening.discard(node_id)
            raise

    def await_ready(self, node_id: int, timeout_ms: float = 30000) -> bool:
        """Wait until the broker's control lane is up: kafka-python asks this for InitProducerId and transactions.

        False where it is not. Where kafka-python's own client raises that, the Sender drops the request that it was to
        send: a commit would wait for ever.
        """
        if self._engine.manager.is_connected(LaneKey(node_id, Lane.CONTROL)):
            return True
        deadline = time.monotonic() + timeout_ms / 1000
        opened = Future()

        def tell(outcome: Any) -> None:  # on the I/O thread
            done = opened.failure if isinstance(outcome, BaseException) else opened.success
            self._mailbox.put(lambda: done(outcome))

        self._on_io_thread(lambda: self._engine.manager.open(LaneKey(node_id, Lane.CONTROL)).add_both(tell))
        self.poll(timeout_ms=(deadline - time.monotonic()) * 1000, future=opened)
        if opened.succeeded():
            return True
        cause = repr(opened.exception) if opened.is_done else f"not within {timeout_ms:.0f} ms"
        _log.info("broker.not_ready", pool=self._engine.name, broker=node_id, error=cause)
        return False

    def _on_io_thread(self, action: Any) -> None:
        try:
            self._engine.net.call_soon_threadsafe(action)
        except (RuntimeError, ForkedClientError) as error:
            raise KafkaConnectionError(f"the connection pool is closed: {error}") from error

    def _produce_lane(self, node_id: int) -> Any | None:
        return self._engine.manager.connection(LaneKey(node_id, Lane.PRODUCE))

    def least_loaded_node(self) -> int | None:
        return self._engine.manager.least_loaded_node()

    def in_flight_request_count(self, node_id: int | None = None) -> int:
        return self._in_flight.total() if node_id is None else self._in_flight[node_id]

    def bootstrap_connected(self) -> bool:
        return False  # the pool closes its bootstrap connection as soon as the cluster is known

    def close(self) -> None:
        """Detach this producer; the lanes are everybody's and stay."""
        self.cluster.close()
