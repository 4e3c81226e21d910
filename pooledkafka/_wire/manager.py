"""kafka-python's connection manager, with a connection per broker *and lane* in place of one per node id."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence
from copy import copy
from typing import Any

from kafka.errors import KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError, UnknownBrokerIdError
from kafka.future import Future
from kafka.net.manager import KafkaConnectionManager
from kafka.protocol.consumer import FetchRequest

from pooledkafka._wire.cluster import SharedCluster
from pooledkafka._wire.futures import attempt
from pooledkafka._wire.introductions import Introductions
from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka._wire.last_words import hear_last_words
from pooledkafka._wire.logins import Login, prepare_login, session_is_over
from pooledkafka._wire.permits import Permits
from pooledkafka._wire.reachability import Reachability, broker_of
from pooledkafka._wire.receiving import receive_in_bulk
from pooledkafka._wire.resending import Resending
from pooledkafka._wire.tally import Tally
from pooledkafka._wire.tls import build_transport
from pooledkafka._wire.tokens import Tokens
from pooledkafka._wire.transmitting import transmit_directly

__all__ = ["SharedManager"]

# A shared lane pipelines the requests of many clients; each producer keeps its own limit (see producer_facade.py).
# kafka-python's limit of a connection would fail the sends of whoever comes sixth.
_UNLIMITED = 2**31

_SCARCE_WAIT_MS = 25
"""A fetch's longest wait while permits are scarce: long enough not to spin, short enough for who comes next."""

_METADATA_PATIENCE_S = 1.0
"""After which a broker that has not answered is not relied on; an answer that has nothing to wait for takes less."""

_SENT_AT = 2  # of what kafka-python keeps of a request in flight


class SharedManager(KafkaConnectionManager):  # type: ignore[misc]
    """The connections of a pool, all used on its I/O thread.

    Connections are keyed by ``LaneKey``; kafka-python's own idle closing and authentication then work per lane. Whether
    a broker can be reached is known per broker: when a connection was lost, or an attempt failed, one attempt at a time
    finds out for all lanes, after kafka-python's reconnect backoff. What is to be sent on the others waits for it.

    ``on_connection(key, connection)`` is called on the I/O thread for each connection that is opened,
    ``on_throttled(key, milliseconds)`` for each answer by which a broker asks for a pause, and ``on_login(key)`` for
    each connection that has logged in again.
    """

    def __init__(
        self,
        net: Any,
        *,
        allow_auto_create_topics: bool,
        on_connection: Callable[[LaneKey, Any], None],
        on_throttled: Callable[[LaneKey, int], None],
        on_login: Callable[[LaneKey], None],
        permits: Permits,
        tally: Tally,
        **config: Any,
    ) -> None:
        config["max_in_flight_requests_per_connection"] = _UNLIMITED
        super().__init__(net, **config)
        self.cluster = SharedCluster(
            bootstrap_servers=self.config["bootstrap_servers"],
            metadata_max_age_ms=self.config["metadata_max_age_ms"],
            client_dns_lookup=self.config["client_dns_lookup"],
            allow_auto_create_topics=allow_auto_create_topics,
        )
        self.cluster.attach(self)
        self._on_connection = on_connection
        self._on_throttled = on_throttled
        self._on_login = on_login
        # For a permit, with what gives it up and since when; the I/O thread's.
        self._waiting: dict[Callable[[], None], tuple[Future, Any, float]] = {}
        self._closing: dict[LaneKey, str] = {}  # why a connection is being closed on purpose; the I/O thread's
        self._permits = permits
        self._tally = tally
        # What was on a lane that ended is to be on its next connection before anything else can be.
        self.resending = Resending(net, self._opened, lambda key: self.closed or self.is_closing(key), tally)
        self._introductions = Introductions()
        self._reachability = Reachability(net, self, self.config["reconnect_backoff_max_ms"] / 1000)
        self._tokens = (
            Tokens(net, self.config["sasl_oauth_token_provider"])
            if self.config["sasl_mechanism"] == "OAUTHBEARER"
            else None
        )

    def connection(self, key: Any) -> Any | None:
        """The connection under ``key`` as it is now, whatever its state."""
        return self._conns.get(key)

    def is_connected(self, key: LaneKey) -> bool:
        """Whether the connection under ``key`` is up; safe from any thread."""
        connection = self._conns.get(key)
        return connection is not None and bool(connection.connected)

    def reaches(self, node_id: int) -> bool:
        """Whether any connection to the broker is up; safe from any thread."""
        return any(key.node_id == node_id and connection.connected for key, connection in self.connections())

    def is_closing(self, key: Any) -> bool:
        """Whether the connection under ``key`` is being closed on purpose."""
        return key in self._closing

    def connections(self) -> list[tuple[LaneKey, Any]]:
        """All connections as they are now; safe from any thread."""
        return [(as_lane_key(key), connection) for key, connection in list(self._conns.items())]

    def get_connection(self, node_id: Any, *, timeout_ms: float | None = None, **options: Any) -> Any:
        """The connection under ``node_id``, opened if need be; raises NodeNotReadyError during the backoff.

        A connection that is up stays usable while the broker refuses new ones.
        """
        if isinstance(node_id, int):  # asked for by ``pool.client``
            node_id = LaneKey(node_id, Lane.CONTROL)
        known = self._conns.get(node_id)
        if known is not None and known.connected:
            if not session_is_over(known):
                return known
            self.close_connection(as_lane_key(node_id), "session ended")
        if self._reachability.must_wait(node_id):
            raise NodeNotReadyError(_name_of(node_id))
        return self._opened(node_id, timeout_ms=timeout_ms, **options)

    def _opened(self, node_id: Any, *, timeout_ms: float | None = None, **options: Any) -> Any:
        """The connection under ``node_id``, whoever else tries to reach its broker now."""
        known = self._conns.get(node_id)
        try:
            if timeout_ms is not None and self.cluster.is_bootstrap(node_id):
                # kafka-python waits for one bootstrap address until the time for all of them is up.
                share_ms = timeout_ms / len(self.cluster.bootstrap_brokers())
                timeout_ms = min(share_ms, self.socket_connection_setup_timeout_ms(node_id))
            connection = super().get_connection(node_id, timeout_ms=timeout_ms, **options)
        except (NodeNotReadyError, UnknownBrokerIdError) as error:
            # kafka-python's producer formats what an error carries with %, which fails for a tuple such as a LaneKey:
            # the batch that was to be sent again would be forgotten.
            raise type(error)(_name_of(node_id)) from error
        if connection is not known:
            if isinstance(node_id, LaneKey) and node_id.lane is Lane.LEASED:  # of all others there are few
                self._introductions.spare(node_id.node_id, connection)
            self._reachability.follow(node_id, connection)
            self.resending.watch(node_id, connection)
            if connection.sasl_enabled:
                self._prepare_login(as_lane_key(node_id), connection)
            self._on_connection(as_lane_key(node_id), connection)
        return connection

    def _prepare_login(self, key: LaneKey, connection: Any) -> None:
        def close(key: LaneKey) -> None:
            self.close_connection(key, "session ended")

        def permitted(start: Callable[[], Future]) -> Future:
            return self._with_permit(start, self.config["request_timeout_ms"], first=True)

        prepare_login(connection, Login(connection, key, self._tokens, permitted, close, self._on_login))

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        transport = await build_transport(self._net, node, self.config, timeout_at)
        receive_in_bulk(transport)
        transmit_directly(transport)
        hear_last_words(transport)
        return transport

    def send(self, request: Any, node_id: Any = None, request_timeout_ms: float | None = None) -> Future:
        """Send on the control lane: the pool's own metadata requests, and those of ``pool.client``."""
        if request is self.cluster.asked and isinstance(node_id, int):
            return self.ask_around(request, node_id)
        node_id = self.least_loaded_node() if node_id is None else node_id
        if not self.cluster.is_bootstrap(node_id) and not isinstance(node_id, LaneKey):
            node_id = LaneKey(node_id, Lane.CONTROL)
        return self.send_on(node_id, request, request_timeout_ms)

    def send_on(self, key: Any, request: Any, request_timeout_ms: float | None = None) -> Future:
        """Send ``request`` on the connection under ``key`` when it has a permit; on the I/O thread only.

        A connection is opened only for a request that has its permit, so the requests by which a connection introduces
        itself are covered by it: the request that they prepare is not on its way yet.
        """
        if isinstance(key, LaneKey) and key.node_id is None:
            return Future().failure(NodeNotReadyError("no broker can be reached now"))
        if request_timeout_ms is None:
            request_timeout_ms = self.config["request_timeout_ms"]
        give_up_at = time.monotonic() + request_timeout_ms / 1000

        def send() -> Future:
            return self._send_now(key, request, max(1.0, (give_up_at - time.monotonic()) * 1000))

        if self._permits.limit is None:
            return self._reachability.when_reachable(key, send)
        long_poll = isinstance(request, FetchRequest)

        def start() -> Future:
            if long_poll:
                request.max_wait_ms = self._fetch_wait_ms(request.max_wait_ms)
            return self._reachability.when_reachable(key, send)

        return self._with_permit(start, request_timeout_ms, long_poll=long_poll)

    def _with_permit(
        self, start: Callable[[], Future], timeout_ms: float, *, long_poll: bool = False, first: bool = False
    ) -> Future:
        """What ``start`` comes to, once there is a permit for it; KafkaTimeoutError where none comes in time."""
        future = Future()

        def granted() -> None:
            if granted in self._waiting:
                _, timer, began = self._waiting.pop(granted)
                self._net.cancel(timer)
                self._tally.waits_for_limit.end(began)
            started = attempt(start)  # whatever comes of it, the permit is given back
            started.add_both(lambda _: self._permits.release())
            started.chain(future)

        self._permits.acquire(granted, long_poll=long_poll, first=first)
        if self._permits.waits(granted):
            error = KafkaTimeoutError("no request may be in progress beside those that are")
            timer = self._net.call_later(timeout_ms / 1000, lambda: self._give_up(granted, error))
            self._waiting[granted] = future, timer, self._tally.waits_for_limit.begin()
        return future

    def _give_up(self, granted: Callable[[], None], error: Exception) -> None:
        future, timer, began = self._waiting.pop(granted)
        self._net.cancel(timer)
        self._tally.waits_for_limit.end(began)
        self._permits.give_up(granted)
        future.failure(error)

    def _fetch_wait_ms(self, wanted_ms: int) -> int:
        """How long a fetch may wait on the broker while permits are limited.

        Not at all while something else waits for a permit. Fetches that wait for each other take turns, and the last
        free permit is never held for long, since whatever comes next would have to wait for the long poll.
        """
        if self._permits.urgent:
            return 0
        scarce = self._permits.waiting or self._permits.held == self._permits.limit
        return min(wanted_ms, _SCARCE_WAIT_MS) if scarce else wanted_ms

    def _send_now(self, key: Any, request: Any, request_timeout_ms: float) -> Future:
        # While a lane is throttled or its socket's buffer is full, the request waits its turn in the connection's
        # buffer; kafka-python would fail it, which is right for one client's own connection and wrong for a shared one.
        try:
            connection = self.get_connection(key)
        except (NodeNotReadyError, UnknownBrokerIdError) as error:
            return Future().failure(error)
        if not (connection.connected and connection.paused) or connection._reauth.is_reauthenticating:
            sent = connection.send_request(request, request_timeout_ms=request_timeout_ms)
        else:
            timeout_at = connection._timeout_at(timeout_ms=request_timeout_ms)
            sent = connection._send_request(request, future=Future(), timeout_at=timeout_at)
        self.resending.sent(sent, request, request_timeout_ms)
        if self._tally.timed:
            self._tally.measure(sent, request)
        sent.add_callback(lambda response: self._answered(key, connection, response))
        return sent

    def _answered(self, key: Any, connection: Any, response: Any) -> None:
        if isinstance(key, LaneKey):
            self._introductions.heard(key.node_id, connection)
        throttle_time_ms = getattr(response, "throttle_time_ms", 0)
        if throttle_time_ms:
            self._on_throttled(as_lane_key(key), throttle_time_ms)

    def open(self, key: LaneKey) -> Future:
        """Open the connection under ``key``, holding a permit meanwhile; fails if it does not come up."""

        def start() -> Future:
            return self._reachability.when_reachable(key, lambda: self.get_connection(key).init_future)

        return self._with_permit(start, self.config["request_timeout_ms"])

    def try_soon(self, key: LaneKey) -> None:
        """Open the connection under ``key`` if it may be tried now; from any thread but the I/O thread."""

        def attempt() -> None:
            if not self.closed:
                self.open(key).add_errback(lambda _: None)

        try:
            self._net.call_soon_threadsafe(attempt)
        except RuntimeError:
            pass  # the event loop has ended

    def close_connection(self, key: LaneKey, reason: str) -> None:
        """Close one connection on purpose, for a reason that ``ConnectionClosed`` names; on the I/O thread only."""
        connection = self._conns.get(key)
        if connection is not None:
            self._closing[key] = reason
            connection.close()

    def reason_of(self, key: LaneKey) -> str:
        """Why the connection under ``key``, which has just ended, has ended."""
        return self._closing.pop(key, "failed")

    def close(self, node_id: Any = None, timeout_ms: float | None = None) -> None:
        """Close all connections, or one that kafka-python finds to be idle, and fail what is in flight on them."""
        if node_id is not None:
            self.close_connection(as_lane_key(node_id), "idle")
        else:
            for granted in list(self._waiting):
                self._give_up(granted, KafkaConnectionError("the pool was disconnected"))
            for key, connection in self.connections():
                self._closing[key] = "disconnect"
                # kafka-python would wait until the broker has read what is still to be sent, for ever if it does not;
                # and say of one that is just being opened that it was lost, and not why.
                opening = not connection.init_future.is_done
                if connection.transport is not None and (connection.transport._write_buffer or opening):
                    connection.transport.abort(KafkaConnectionError("the pool was disconnected"))
            super().close(timeout_ms=timeout_ms)

    def ask_around(self, request: Any, first: int, request_timeout_ms: float | None = None) -> Future:
        """Ask one broker, and beside it the next one whenever there was no answer for a while; the first one counts.

        Many clients wait for it. A broker that has just gone silent looks as well as any, and its connection is
        closed only after ``request_timeout_ms``: by then the leaders have long moved.
        """
        answer = Future()
        asked: set[int] = set()
        unanswered = 0

        def ask(node_id: int) -> None:
            nonlocal unanswered
            asked.add(node_id)
            unanswered += 1
            timer = self._net.call_later(_METADATA_PATIENCE_S, ask_another)
            sent = self.send_on(LaneKey(node_id, Lane.CONTROL), copy(request), request_timeout_ms)
            sent.add_both(lambda _: self._net.cancel(timer))
            sent.add_callback(answered)
            sent.add_errback(failed)

        def ask_another() -> None:
            if not answer.is_done:
                node_id = self.least_loaded_node(asked)
                if node_id is not None:
                    ask(node_id)

        def answered(response: Any) -> None:
            if not answer.is_done:
                answer.success(response)

        def failed(error: BaseException) -> None:
            nonlocal unanswered
            unanswered -= 1
            if not unanswered and not answer.is_done:
                answer.failure(error)

        ask(first)
        return answer

    def least_loaded_node(self, but_not: Collection[int] = ()) -> int | None:
        """A broker whose control lane is idle, else the one with the fewest requests waiting for an answer.

        One that is not connected, or has let a request wait for long, may not answer: it is taken when all others are.
        """
        candidates: list[tuple[bool, int, int]] = []
        nodes = [broker.node_id for broker in self.cluster.brokers() if broker.node_id not in but_not]
        overdue = time.monotonic() - _METADATA_PATIENCE_S
        random.shuffle(nodes)
        for node_id in nodes:
            key = LaneKey(node_id, Lane.CONTROL)
            connection = self._conns.get(key)
            if connection is not None and connection.connected:
                if connection.paused:
                    continue
                if not connection.in_flight_requests:
                    return int(node_id)
            elif self.connection_delay(key) > 0:
                continue
            waiting: Sequence[Any] = connection.in_flight_requests if connection is not None else ()
            doubtful = connection is None or not connection.connected or waiting[0][_SENT_AT] < overdue
            candidates.append((doubtful, len(waiting), node_id))
        return min(candidates, default=(False, 0, None), key=lambda candidate: candidate[:2])[2]

    # -- reconnect backoff, per broker ---------------------------------------------------------------------------------

    def update_backoff(self, node_id: Any) -> float:
        broker = broker_of(node_id)
        failures, until, _ = self._backoff.get(broker, (0, 0, 0))
        if failures and until > time.monotonic():
            return float((until - time.monotonic()) * 1000)  # another lane of the broker failed in the same outage
        return float(super().update_backoff(broker))

    def reset_backoff(self, node_id: Any) -> None:
        # kafka-python also calls this when a connection came as far as TCP and was refused then.
        if not isinstance(node_id, LaneKey) or self.is_connected(node_id):
            super().reset_backoff(broker_of(node_id))

    def connection_delay(self, node_id: Any) -> float:
        """Seconds until a connection may be tried; 0 where one is up."""
        if self.is_connected(node_id):
            return 0
        return float(super().connection_delay(broker_of(node_id)))

    def socket_connection_setup_timeout_ms(self, node_id: Any) -> float:
        return float(super().socket_connection_setup_timeout_ms(broker_of(node_id)))


def as_lane_key(key: Any) -> LaneKey:
    """kafka-python names its bootstrap connections ``bootstrap-0`` and so on; all others are ours."""
    return key if isinstance(key, LaneKey) else LaneKey(-1, Lane.BOOTSTRAP, int(str(key).rpartition("-")[2]))


def _name_of(key: Any) -> str:
    return f"broker {key.node_id}, lane {key.lane.value}" if isinstance(key, LaneKey) else str(key)
