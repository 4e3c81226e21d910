"""One connected life of a pool: its I/O thread, its connections and its metadata."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Protocol

from kafka.errors import Cancelled, KafkaConnectionError, KafkaError, KafkaTimeoutError
from kafka.future import Future
from kafka.protocol.consumer import SyncGroupRequest

from pooledkafka._fetch import Limits
from pooledkafka._forking import abandon, inherit
from pooledkafka._locks import LockName, new_lock
from pooledkafka._logging import get_logger
from pooledkafka._wire.bypass import Bypass
from pooledkafka._wire.commits import Commits
from pooledkafka._wire.coordinators import Coordinators
from pooledkafka._wire.decoded import DecodedBatches
from pooledkafka._wire.fetching import PARKED_WAIT_MS, SharedFetching
from pooledkafka._wire.joins import Joins
from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka._wire.later import Later
from pooledkafka._wire.leases import Leases
from pooledkafka._wire.loop import Loop
from pooledkafka._wire.manager import SharedManager
from pooledkafka._wire.permits import Permits
from pooledkafka._wire.refresher import MetadataRefresher
from pooledkafka._wire.refusals import Attempts, Refusal, Refusals, refusal_of
from pooledkafka._wire.shared_client import SharedClient
from pooledkafka._wire.tally import Tally, Wait
from pooledkafka._wire.tls import check_tls
from pooledkafka.errors import ConfigurationError, ConnectFailedError, PoolTimeoutError
from pooledkafka.events import (
    ConnectionClosed,
    ConnectionCreated,
    ConnectionReady,
    MetadataRefreshed,
    PoolEvent,
    Reauthenticated,
    Throttled,
)

__all__ = ["Engine"]

_log = get_logger("pooledkafka.connections")

_LEASE_IDLE_S = 5.0
_SWEEP_S = 5.0
"""How long what was decoded is kept for those who have not come for it, at least."""
"""How long a leased connection is kept for the next join: longer than the pauses within one rebalance."""


class GroupMember(Protocol):
    """A consumer as the others of its group in the pool see it."""

    coordinator: Any
    stir: Callable[[], None]

    def end_waits(self) -> None:
        """Let its poll look again at what there is to do."""

    async def leave(self, timeout_ms: float) -> None:
        """End it without its thread: it leaves its group, commits nothing and calls no listener."""


class Engine:
    """Owns what all clients of a pool share; a new one is made each time the pool connects.

    ``tell`` is given what happens, on the I/O thread, where it must not wait; ``tally`` counts it, for all engines of
    the pool.

    State is touched on the I/O thread only, except where said. Methods are for the I/O thread unless they say that
    they may be called from any other.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        max_in_flight_requests: int | None,
        max_leased_connections: int,
        leased_connections_per_second: float,
        fetch_buffer_bytes: int,
        tell: Callable[[PoolEvent], None],
        tally: Tally,
    ) -> None:
        self._tell = tell
        self.tally = tally
        self.net = Loop(**options)
        self.permits = Permits(max_in_flight_requests)
        # The limits that a group's joins must fit in, by the names of their options.
        self._join_limits = {"max_leased_connections": max_leased_connections}
        if self.permits.limit is not None:
            self._join_limits["max_in_flight_requests"] = self.permits.limit
        # While requests are limited, one is left for heartbeats and everything else.
        self.joins = Joins(min(self._join_limits.values()), spare=0 if self.permits.limit is None else 1)
        try:
            self.manager = SharedManager(
                self.net,
                on_connection=self._watch,
                on_throttled=self._throttled,
                on_login=self._logged_in,
                permits=self.permits,
                tally=tally,
                **options,
            )
        except BaseException:
            self.net.close()
            raise
        self.name: str = self.manager.config["client_id"]
        """What the log calls the pool; from any thread."""
        self.manager.cluster.add_listener(self._refreshed)
        self.client = SharedClient(self.net, self.manager)
        self.fetching = SharedFetching(self.net, self.manager, fetch_buffer_bytes, tally, self._calm_wait_ms())
        self.coordinators = Coordinators(self.net, self.manager)
        self.decoded = DecodedBatches(fetch_buffer_bytes // 2)
        self._sweeping = Later(self.net, _SWEEP_S, self._sweep)
        self._refresher = MetadataRefresher(self.manager.cluster, self.manager.config["metadata_max_age_ms"], self.name)
        self.commits = Commits(self.net, self.manager, self._start_leased)
        self._consumers: list[GroupMember] = []
        self._leases = Leases(leased_connections_per_second, self.manager.is_connected)
        self._more_leases = Later(self.net, 0.0, lambda: self._leases.open_more(time.monotonic()))
        self._idle_leases = Later(self.net, _LEASE_IDLE_S, self._close_idle_leases)
        self.bypass = Bypass(
            lambda node_id: self.net.call_soon_with_future(partial(self._borrow, first=True), node_id),
            self._give_back,
            self.manager.send_on,
        )
        self._owners = itertools.count(1)
        self._stop_lock = new_lock(LockName.STOP)  # one stop() at a time; guards nothing else
        self._attempts = Attempts(self.manager.cluster.addresses())  # to find the cluster
        self._refused: Future = Future()  # fails when trying again cannot mend it
        self.refusals = Refusals(self.manager)
        self._last_failure: Refusal | None = None  # of a connection to a broker; the I/O thread's
        self.exiting = False  # set once, when the interpreter ends; read on the I/O thread
        inherit(self)

    def _calm_wait_ms(self) -> int:
        if self.permits.limit:
            return PARKED_WAIT_MS  # others wait for the permit that it has
        half_ms = int(self.manager.config["request_timeout_ms"] / 2)  # of the time in which it must be answered
        return max(PARKED_WAIT_MS, min(Limits.calm_wait_ms, half_ms))

    # -- life cycle, from any thread but the I/O thread ----------------------------------------------------------------

    def start(self, timeout_ms: float) -> None:
        """Start the I/O thread and find the cluster.

        Raises PoolTimeoutError naming the last causes if no broker answers in time, and at once what makes waiting
        useless, such as a refused login. The caller stops the engine after an error.
        """
        check_tls(self.manager.config)
        self.net.start()
        try:
            self.net.run(self._bootstrap, timeout_ms)
        except ConnectFailedError:
            raise
        except KafkaTimeoutError as error:
            cause = f"the last attempts failed: {self._attempts}" if self._attempts else "no broker answered"
            raise PoolTimeoutError(
                f"could not reach the Kafka cluster at {self._addresses()} within {timeout_ms:.0f} ms; {cause}. "
                "Check that the brokers run, that this address and port are right, and that security_protocol "
                "is the listener's."
            ) from error
        self._refresher.start()

    def stop(self) -> None:
        """Close every connection and end the I/O thread; idempotent. Requests in flight fail."""
        with self._stop_lock:
            if self.net._closed:
                return
            self._refresher.stop()
            self.net.ending = True
            try:
                self.net.run(self.commits.close)
                self.net.run(self.manager.close)
            except Exception as error:  # the I/O thread may have died; what it held is still closed below
                _log.warning("pool.not_closed", pool=self.name, error=repr(error))
            self.net.close()

    @property
    def on_io_thread(self) -> bool:
        """Whether this is the I/O thread, which must not wait for itself; from any thread."""
        return threading.current_thread() is self.net._io_thread

    def leave_groups(self, timeout_ms: float) -> None:
        """Let all consumers that are still there leave their groups, from any thread but the I/O thread."""
        try:
            self.call(self._leave_groups, timeout_ms)
        except Exception as error:  # the I/O thread may have died
            _log.warning("group.not_left", pool=self.name, error=repr(error))

    async def _leave_groups(self, timeout_ms: float) -> None:
        members = list(self._consumers)
        leaving = [self.net.call_soon_with_future(member.leave, timeout_ms) for member in members]
        for member, left in zip(members, leaving, strict=True):
            try:
                await left
            except Exception as error:  # the others leave all the same
                group = member.coordinator.group_id
                _log.warning("group.not_left", pool=self.name, group=group, error=repr(error))

    def begin_exit(self, timeout_ms: float) -> threading.Event:
        """Let all consumers leave their groups while threads may go on to poll them; set when they have. Never waits.

        A poll after that waits as it would for a slow group, so that no daemon thread hears of the interpreter's end.
        """
        self.exiting = True
        left = threading.Event()
        try:
            self.net.call_soon_with_future(self._leave_groups, timeout_ms).add_both(lambda _: left.set())
        except Exception:  # the I/O thread has ended
            left.set()
        return left

    def soon(self, action: Callable[[], None]) -> None:
        """Run ``action`` on the I/O thread, if there still is one. For finalizers: takes no lock and never waits."""
        try:
            self.net.call_soon_threadsafe(action)
        except Exception:  # the event loop has ended, and with it whatever was to be released
            pass

    def _in_child(self) -> None:
        # Closes this forked process's copies of the connections, of which the parent and the brokers notice nothing.
        # Without the transports, which would say farewell.
        abandon(self)
        self.net.in_child()

    async def _bootstrap(self, timeout_ms: float) -> None:
        decided = Future()

        def settle(_: Any) -> None:
            if not decided.is_done:
                decided.success(None)

        bootstrapped = self.manager.bootstrap_async(timeout_ms)
        bootstrapped.add_both(settle)
        self._refused.add_errback(settle)
        await decided
        if self._refused.is_done:
            raise self._refused.exception
        await bootstrapped
        self.manager.cluster.failed_bootstrap.clear()

    def _addresses(self) -> str:
        return ", ".join(self.manager.cluster.addresses())

    def _address(self, key: LaneKey) -> str:
        node_id = f"bootstrap-{key.number}" if key.lane is Lane.BOOTSTRAP else key.node_id
        broker = self.manager.cluster.broker_metadata(node_id)
        return f"{broker.host}:{broker.port}" if broker else f"broker {key.node_id}"

    # -- clients -------------------------------------------------------------------------------------------------------

    def new_owner(self) -> int:
        """A number for a client that attaches; from any thread."""
        return next(self._owners)

    def call(self, action: Any, *args: Any) -> None:
        """Run ``action`` on the I/O thread and wait for it, from any other; nothing happens after ``stop``."""
        try:
            self.net.run(action, *args)
        except RuntimeError:
            if not self.net._closed:
                raise
        except KafkaError:
            if not self.net._stop:
                raise

    def allow_frames_of(self, size: int) -> None:
        """Accept responses of ``size`` bytes on connections opened from now on; from any thread."""
        self.manager.config["receive_message_max_bytes"] = max(self.manager.config["receive_message_max_bytes"], size)

    async def send_join(
        self, owner_leases: set[LaneKey], node_id: int, request: Any, timeout_ms: float, gone: Callable[[], bool]
    ) -> Any:
        """Send a group's JoinGroup or SyncGroup when it is the group's turn; not if its consumer has gone by then."""
        turn = Future()
        self.joins.enter(request.group_id, lambda: turn.success(None))
        await self._waited_for(turn, self.tally.waits_for_turn)
        try:
            return await self.send_leased(owner_leases, node_id, request, timeout_ms, gone)
        finally:
            self.joins.leave(request.group_id)

    async def send_leased(
        self, owner_leases: set[LaneKey], node_id: int, request: Any, timeout_ms: float, gone: Callable[[], bool]
    ) -> Any:
        """Send a request that parks on the broker on a connection of its own, and return the response.

        ``owner_leases`` holds the connection while it is lent, so that the owner can close it if it goes away first.
        """
        # Members whose generation has begun have only so much time to take it up: before others begin one.
        first = isinstance(request, SyncGroupRequest)
        key = await self._borrow(node_id, getattr(request, "group_id", None), first=first)
        owner_leases.add(key)
        try:
            if gone():
                raise Cancelled("the client was closed while it waited for its turn")
            return await self.manager.send_on(key, request, timeout_ms)
        finally:
            owner_leases.discard(key)
            self._give_back(key)

    async def _borrow(self, node_id: int, group: str | None = None, *, first: bool) -> LaneKey:
        lease = Future()
        self._leases.acquire(node_id, lease.success, time.monotonic(), group=group, first=first)
        if not lease.is_done:
            self._more_leases.ask()
        key: LaneKey | None = await self._waited_for(lease, self.tally.waits_for_lease)
        if key is None:
            raise KafkaConnectionError(f"broker {node_id} cannot be reached: {self._last_failure}")
        return key

    def _give_back(self, key: LaneKey) -> None:
        self._leases.release(key, time.monotonic())
        self._idle_leases.ask()

    @staticmethod
    async def _waited_for(future: Future, wait: Wait) -> Any:
        if future.is_done:
            return await future
        began = wait.begin()
        try:
            return await future
        finally:
            wait.end(began)

    def _start_leased(self, *args: Any) -> Future:
        started: Future = self.net.call_soon_with_future(self.send_leased, *args)
        return started

    def _close_idle_leases(self) -> float | None:
        now = time.monotonic()
        for key in self._leases.take_idle(now, _LEASE_IDLE_S):
            self.manager.close_connection(key, "idle")
        return self._leases.idle_in(now, _LEASE_IDLE_S)

    def attach_member(self, group: str) -> None:
        """Count a consumer of ``group``; raises ConfigurationError where the group could then never join."""
        members = self.joins.members[group] + 1
        for name, limit in self._join_limits.items():
            if members > limit:
                raise ConfigurationError(
                    f"{name}={limit} cannot work: this would be consumer {members} of group {group!r} in the pool, and "
                    f"each of them has a JoinGroup in progress until all have. The smallest that works is {members}."
                )
        self.joins.attach(group)

    def detach_member(self, group: str) -> None:
        """Undo ``attach_member``."""
        self.joins.detach(group)

    def add_consumer(self, consumer: GroupMember) -> None:
        """Let the other consumers of its group in this pool find it."""
        self._consumers.append(consumer)
        if len(self._consumers) > 1:
            self._sweeping.ask()

    def remove_consumer(self, consumer: GroupMember) -> None:
        """Undo ``add_consumer``; does nothing for one that is not there."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)

    def _sweep(self) -> float | None:
        several = len(self._consumers) > 1
        self.decoded.sweep(all_of_it=not several)
        return _SWEEP_S if several else None

    def siblings(self, consumer: GroupMember) -> list[GroupMember]:
        """The other consumers of its group in this pool."""
        return [
            other
            for other in self._consumers
            if other is not consumer and other.coordinator.group_id == consumer.coordinator.group_id
        ]

    def close_leases(self, keys: Collection[LaneKey]) -> None:
        """Close the connections that are lent to a client which has gone."""
        for key in list(keys):
            self.manager.close_connection(key, "client closed")

    # -- watching connections ------------------------------------------------------------------------------------------

    def _watch(self, key: LaneKey, connection: Any) -> None:
        where = (key.node_id, key.lane.value, self._address(key))
        self.tally.opened(key, connection)
        self._tell(ConnectionCreated(*where))
        connection.init_future.add_callback(lambda _: self._ready(key, connection, where))
        connection.init_future.add_errback(lambda error: self._failed(key, error))
        connection.close_future.add_both(lambda error: self._ended(key, connection, error, where))

    def _ready(self, key: LaneKey, connection: Any, where: tuple[int, str, str]) -> None:
        self.tally.created[where[:2]] += 1
        self.refusals.clear()
        _log.debug("connection.ready", pool=self.name, broker=key.node_id, lane=key.lane.value)
        self._tell(ConnectionReady(*where))

    def _ended(self, key: LaneKey, connection: Any, error: BaseException | None, where: tuple[int, str, str]) -> None:
        reason = self.manager.reason_of(key)
        if reason == "failed" and error is None:
            reason = "bootstrapped"  # the one that kafka-python closes by itself without an error
        if key.lane is Lane.BOOTSTRAP and error is not None:
            self._not_found(key, error)
        if connection.init_future.succeeded():
            self.tally.closed[key.node_id, key.lane.value, reason] += 1
            if reason == "failed":
                _log.info("connection.lost", pool=self.name, broker=key.node_id, lane=key.lane.value, error=repr(error))
        elif reason == "failed":
            self.tally.failed[where[:2]] += 1
        self._tell(ConnectionClosed(*where, reason, error if reason == "failed" else None))

    def _throttled(self, key: LaneKey, throttle_time_ms: int) -> None:
        _log.info(
            "broker.throttles", pool=self.name, broker=key.node_id, lane=key.lane.value, throttle_ms=throttle_time_ms
        )
        self.tally.throttle(key.node_id, throttle_time_ms)
        self._tell(Throttled(key.node_id, key.lane.value, throttle_time_ms))

    def _logged_in(self, key: LaneKey) -> None:
        self._tell(Reauthenticated(key.node_id, key.lane.value, self._address(key)))

    def _refreshed(self, cluster: Any) -> None:
        self._tell(MetadataRefreshed(len(cluster.brokers()), len(cluster.topics())))

    def _failed(self, key: LaneKey, error: BaseException) -> None:
        _log.info("connection.failed", pool=self.name, broker=key.node_id, lane=key.lane.value, error=repr(error))
        if key.lane is Lane.BOOTSTRAP:
            return
        self._last_failure = refusal_of(self._address(key), error, self.manager.config)
        if self.refusals.add(key.node_id, self._last_failure):
            for consumer in self._consumers:
                consumer.stir()
        # kafka-python does not count a connection that was refused after TCP (TLS, SASL, versions).
        self.manager.update_backoff(key)
        if not self.manager.reaches(key.node_id):
            self._leases.refuse(key.node_id)

    def _not_found(self, key: LaneKey, error: BaseException) -> None:
        self._attempts.add(refusal_of(self._address(key), error, self.manager.config))
        self.manager.cluster.failed_bootstrap.add(f"bootstrap-{key.number}")
        verdict = self._attempts.verdict()
        if verdict is not None and not self._refused.is_done:
            self._refused.failure(verdict)

    def open_connections(self) -> Counter[tuple[int, Lane]]:
        """Open connections by broker and lane; from any thread."""
        return Counter((key.node_id, key.lane) for key, conn in self.manager.connections() if conn.connected)
