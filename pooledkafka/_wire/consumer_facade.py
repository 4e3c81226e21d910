"""What a pooled ``KafkaConsumer`` gets in place of a client of its own."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import KafkaTimeoutError, NoError, RebalanceInProgressError
from kafka.future import Future
from kafka.protocol.consumer import JoinGroupRequest, SyncGroupRequest
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription

from pooledkafka._wire.cluster import ClusterView
from pooledkafka._wire.engine import Engine
from pooledkafka._wire.lanes import Lane, LaneKey, lane_of

__all__ = ["ConsumerFacade", "Interrupted"]


class Interrupted(Exception):
    """Raised in the thread that polls when another thread asked it to return.

    Not a KafkaError: kafka-python would take that for a failed join and forget a JoinGroup that is still in flight.
    """


class ConsumerFacade:
    """Looks like kafka-python's ``KafkaNetClient`` to one consumer; the parts that it reaches into are below.

    Created and used by the consumer's thread and the I/O thread; ``interrupt`` may be called from any.
    """

    def __init__(self, engine: Engine, request_timeout_ms: float) -> None:
        self._engine = engine
        self.owner = engine.new_owner()
        self.cluster: ClusterView = engine.manager.cluster.attach_view()
        self._net = InterruptibleNet(engine.net)
        self._manager = ConsumerManager(engine, self.cluster, self._net, self.owner, request_timeout_ms)

    def bind(self, coordinator: ConsumerCoordinator) -> None:
        """Tell the facade whose joins it carries."""
        self._manager.coordinator = coordinator

    def interrupt(self) -> None:
        """Make a poll that waits now, or the next one, raise Interrupted; from any thread."""
        self._net.interrupted = True
        try:
            self._engine.net.call_soon_threadsafe(self._manager.end_waits)
        except RuntimeError:
            pass  # the event loop has ended, and with it every wait

    def least_loaded_node(self) -> int | None:
        return self._engine.manager.least_loaded_node()

    def is_disconnected(self, node_id: int) -> bool:
        connection = self._engine.manager.connection(LaneKey(node_id, Lane.CONTROL))
        return connection is None or not connection.connected

    def connection_delay(self, node_id: int) -> float:
        return self._engine.manager.connection_delay(LaneKey(node_id, Lane.CONTROL))

    def throttle_delay(self, node_id: int) -> float:
        """Milliseconds for which the broker asked this consumer's fetches to stay away."""
        connection = self._engine.manager.connection(self._manager.fetch_key(node_id))
        return 0.0 if connection is None else max(0.0, connection._throttle_time - time.monotonic()) * 1000

    def maybe_connect(self, node_id: int, **_: Any) -> None:
        """Nothing to prepare: the control lane is opened by whoever needs it first."""

    def bootstrap_connected(self) -> bool:
        return False  # the pool closes its bootstrap connection as soon as the cluster is known

    def close(self) -> None:
        """Detach this consumer; what others use stays as it is."""
        self.cluster.close()
        self._engine.call(self._engine.close_connections_of, self.owner, self._manager.leases)


class InterruptibleNet:
    """The shared event loop, as the thread that polls one consumer sees it.

    Everything not defined here is the shared loop's.
    """

    def __init__(self, net: Any) -> None:
        self._shared = net
        self.interrupted = False  # set by any thread, taken back by the polling thread
        self.polling = False  # whether to raise Interrupted; the polling thread's

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared, name)

    def start(self) -> None:
        """The pool has started the I/O thread."""

    def run(self, coro: Any, *args: Any) -> Any:
        """Run on the I/O thread and wait for it; before and after such a step of a poll an interrupt takes effect.

        The step itself is not torn down half-way. ``end_waits`` lets what it waits for time out, so it ends soon, in
        the way kafka-python has for a poll that ran out of time: a join stays in flight and is taken up again.

        kafka-python sends the next fetches through its manager's ``run`` while it holds records that it has taken
        from its buffer; raising there would lose them. Here, where it waits, it holds none.
        """
        self._check()
        try:
            result = self._shared.run(coro, *args)
        except KafkaTimeoutError:
            self._check()
            raise
        self._check()
        return result

    def _check(self) -> None:
        if self.polling and self.interrupted:
            self.interrupted = False
            raise Interrupted


class ConsumerManager:
    """Looks like kafka-python's connection manager to one consumer; used on the I/O thread but for ``run``.

    ``_waits``, ``leases`` and ``coordinator`` are the I/O thread's.
    """

    def __init__(
        self, engine: Engine, cluster: ClusterView, net: InterruptibleNet, owner: int, request_timeout_ms: float
    ) -> None:
        self._engine = engine
        self._net = net
        self._owner = owner
        self._request_timeout_ms = request_timeout_ms
        self._waits: set[Future] = set()
        self.cluster = cluster
        self.config = engine.manager.config
        self.coordinator: ConsumerCoordinator | None = None
        self.leases: set[LaneKey] = set()  # connections lent to this consumer's joins now

    @property
    def broker_version_data(self) -> Any:
        return self._engine.manager.broker_version_data

    @property
    def broker_version(self) -> Any:
        return self._engine.manager.broker_version

    def run(self, coro: Any, *args: Any) -> Any:
        return self._engine.net.run(coro, *args)

    def call_soon(self, coro: Any, *args: Any) -> Future:
        return self._engine.net.call_soon_with_future(coro, *args)

    def bootstrap(self, timeout_ms: float | None = None, refresh: bool = True) -> None:
        """The pool has found the cluster."""

    def connection_delay(self, node_id: int) -> float:
        """Seconds until a fetch may be tried; kafka-python's fetcher asks nothing else here."""
        return self._engine.manager.connection_delay(self.fetch_key(node_id))

    def fetch_key(self, node_id: int) -> LaneKey:
        """The connection that carries this consumer's fetches: one of its own, since a fetch parks."""
        return LaneKey(node_id, Lane.FETCH, self._owner)

    def send(self, request: Any, node_id: Any = None, request_timeout_ms: float | None = None) -> Future:
        timeout_ms = self._request_timeout_ms if request_timeout_ms is None else request_timeout_ms
        if isinstance(request, JoinGroupRequest):
            return self.call_soon(self._join, request, node_id, timeout_ms)
        if isinstance(request, SyncGroupRequest):
            return self.call_soon(self._sync, request, node_id, timeout_ms)
        if node_id is None:
            node_id = self._engine.manager.least_loaded_node()
        key = self.fetch_key(node_id) if lane_of(request) is Lane.FETCH else LaneKey(node_id, Lane.CONTROL)
        return self._engine.manager.send_on(key, request, timeout_ms)

    async def _join(self, request: Any, node_id: int, timeout_ms: float) -> Any:
        """Join with the metadata of every topic at hand; kafka-python loses that race about once in twenty.

        Its consumer does not wait for metadata when subscribed by name, and its group's leader assigns with what it
        has at that moment: a group whose leader joins too early stays without partitions.
        """
        await self._know_topics(self.cluster.tracked)
        response = await self._engine.send_leased(self.leases, node_id, request, timeout_ms)
        if response.error_code == NoError.errno and response.leader == response.member_id:
            subscriptions = [ConsumerProtocolSubscription.decode(member.metadata) for member in response.members]
            await self._know_topics({topic for subscription in subscriptions for topic in subscription.topics})
        return response

    async def _know_topics(self, topics: Collection[str]) -> None:
        await self.cluster.topics_known(topics)
        # The coordinator compares the metadata it assigned with to what it hears of later. Without this it would take
        # what the pool knew all along for news, and rebalance the group a second time.
        self.cluster.deliver()

    async def _sync(self, request: Any, node_id: int, timeout_ms: float) -> Any:
        response = await self._engine.send_leased(self.leases, node_id, request, timeout_ms)
        # While the SyncGroup was parked, a failed commit or heartbeat may have reset the generation. kafka-python then
        # compares the answer with no generation at all and raises InconsistentGroupProtocolError to the user. The
        # answer is of a generation that is over: join again.
        coordinator = self.coordinator
        if coordinator is not None and coordinator._generation.generation_id != request.generation_id:
            coordinator.request_rejoin()
            raise RebalanceInProgressError(request.group_id)
        return response

    async def wait_for(self, future: Future, timeout_ms: float | None) -> Any:
        """Await ``future``; KafkaTimeoutError after ``timeout_ms``, or when the consumer is interrupted."""
        wait = Future()

        def end(_: Any = None) -> None:
            if not wait.is_done:
                wait.success(None)

        future.add_both(end)
        self._waits.add(wait)
        timer = None if timeout_ms is None else self._engine.net.call_later(timeout_ms / 1000, end)
        try:
            await wait
        finally:
            self._waits.discard(wait)
            if timer is not None:
                self._engine.net.cancel(timer)
        if not future.is_done:
            raise KafkaTimeoutError(f"Timed out after {timeout_ms} ms")
        return await future

    def end_waits(self) -> None:
        """Let all that is waited for time out now."""
        for wait in list(self._waits):
            if not wait.is_done:
                wait.success(None)
