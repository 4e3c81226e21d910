"""What a pooled ``KafkaConsumer`` gets in place of a client of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from kafka import KafkaConsumer
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import (
    FencedInstanceIdError,
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    NoError,
    RebalanceInProgressError,
    TopicAuthorizationFailedError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
)
from kafka.future import Future
from kafka.protocol.consumer import (
    DEFAULT_GENERATION_ID,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    OffsetCommitRequest,
    SyncGroupRequest,
)
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription
from kafka.protocol.metadata import FindCoordinatorRequest
from kafka.structs import TopicPartition

from pooledkafka._fetch import Position
from pooledkafka._wire.cluster import ClusterView
from pooledkafka._wire.engine import Engine
from pooledkafka._wire.fetching import ConsumerFetch
from pooledkafka._wire.idling import Idling
from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka._wire.places import Places
from pooledkafka._wire.views import ManagerView, NetView

__all__ = ["ConsumerFacade", "Interrupted"]

_INTERRUPTED_S = 0.005
_TELL_SIBLINGS_S = 0.01
"""Time for a JoinGroup to reach the broker before the group's other members send theirs."""


class Interrupted(Exception):
    """Raised in the thread that polls when another thread asked it to return.

    Not a KafkaError: kafka-python would take that for a failed join and forget a JoinGroup that is still in flight.
    """


class ConsumerFacade:
    """Looks like kafka-python's ``KafkaNetClient`` to one consumer; the parts that it reaches into are below.

    Created and used by the consumer's thread and the I/O thread; ``end_poll`` may be called from any.
    """

    def __init__(self, engine: Engine, request_timeout_ms: float) -> None:
        self._engine = engine
        self.owner = engine.new_owner()
        # kafka-python's consumer does not expect a refresh to fail, and would raise that to its user.
        self.cluster: ClusterView = engine.manager.cluster.attach_view(bears_failures=True)
        self.interrupt = Interrupt()
        self._manager = ConsumerManager(engine, self.cluster, self.interrupt, self.owner, request_timeout_ms)

    def bind(self, coordinator: ConsumerCoordinator) -> None:
        """Tell the facade whose joins it carries."""
        self._manager.coordinator = coordinator
        # Not waited for: whatever of this consumer comes to the event loop comes after it.
        self._engine.soon(lambda: self._engine.add_consumer(self._manager))

    def idling_of(self, consumer: KafkaConsumer) -> Idling:
        """What the polls of the consumer that has this facade may wait on."""
        places = Places(consumer, self._engine.manager.cluster)
        consumer._fetcher._create_fetch_requests = places.requests
        consumer._fetcher.maybe_validate_positions = places.validate
        idling = Idling(
            consumer,
            places,
            self._manager.fetching,
            lambda: self._manager.committed,
            self._release_fetches,
            self.interrupt.check,
        )
        self._manager.stir = idling.stir
        # The listeners hear of metadata in no particular order; the consumer's own has heard of it by the next round.
        self.cluster.add_listener(lambda _: self._engine.net.call_soon(idling.stir))
        return idling

    def _release_fetches(self) -> None:
        try:
            self._engine.net.call_soon_threadsafe(lambda: self._engine.fetching.release(self.owner))
        except RuntimeError:
            pass  # the event loop has ended, and with it every fetch

    def end_poll(self) -> None:
        """Make a poll that runs now, or the next one, raise Interrupted; from any thread.

        What it waits for ends as if it had timed out, in the way that kafka-python has for that: a join stays in flight
        and is taken up again. Then it begins another pass, and there it sees that it was asked to return.
        """
        self.interrupt.asked = True
        self._manager.stir()
        try:
            self._engine.net.call_soon_threadsafe(self._manager.end_waits)
        except RuntimeError:
            pass  # the event loop has ended, and with it every wait

    def least_loaded_node(self) -> int | None:
        return self._engine.manager.least_loaded_node()

    def is_disconnected(self, node_id: int) -> bool:
        return not self._engine.manager.is_connected(LaneKey(node_id, Lane.CONTROL))

    def connection_delay(self, node_id: int) -> float:
        return self._engine.manager.connection_delay(LaneKey(node_id, Lane.CONTROL))

    def throttle_delay(self, node_id: int) -> float:
        """Never: a throttled fetch lane waits by itself, and so do those whose records it fetches."""
        return 0.0

    def maybe_connect(self, node_id: int, **_: Any) -> None:
        """Nothing to prepare: the control lane is opened by whoever needs it first."""

    def bootstrap_connected(self) -> bool:
        return False  # the pool closes its bootstrap connection as soon as the cluster is known

    def begin_close(self, timeout_ms: float) -> None:
        """Wait until what the consumer has committed is answered; what it commits from now on is its last.

        For half of the time at most: the rest is for leaving its group.
        """
        self._manager.closing = True
        self._engine.call(self._manager.finish_commits, timeout_ms / 2)

    def close(self) -> None:
        """Detach this consumer, once; what others use stays as it is."""
        if not self.cluster.closed:
            self.cluster.close()
            self._engine.call(self._manager.detach)

    async def leave(self, timeout_ms: float) -> None:
        """End this consumer, of whose thread nothing is known; on the I/O thread. See ``GroupMember.leave``."""
        await self._manager.leave(timeout_ms)


class Interrupt:
    """Asks the thread that polls one consumer to return."""

    def __init__(self) -> None:
        self.asked = False  # set by any thread, taken back by the polling thread
        self.poller: int | None = None  # the thread in a poll; that thread's own

    @property
    def due(self) -> bool:
        """Whether a poll that runs now is to end."""
        return self.asked and self.poller is not None

    def check(self) -> None:
        """Raise Interrupted where a poll begins another pass, with no records in its hands that would be lost."""
        if self.asked and self.poller == threading.get_ident():
            self.asked = False
            raise Interrupted


class ConsumerManager(ManagerView):
    """Looks like kafka-python's connection manager to one consumer; used on the I/O thread but for ``run``.

    ``_waits``, ``_left``, ``leases`` and ``coordinator`` are the I/O thread's; ``stir`` may be called from any.
    """

    def __init__(
        self, engine: Engine, cluster: ClusterView, interrupt: Interrupt, owner: int, request_timeout_ms: float
    ) -> None:
        super().__init__(engine, cluster, NetView(engine.net))
        self._interrupt = interrupt
        self._owner = owner
        self._request_timeout_ms = request_timeout_ms
        self._waits: set[Future] = set()
        self._unanswered: dict[Future, Any] = {}  # this consumer's commits and heartbeats that are in flight
        # The offsets that this generation has committed last; the polling thread reads it, a join replaces it.
        self.committed: dict[TopicPartition, int] = {}
        # What kafka-python has in place of its last join, and the join. It begins another one where that is done, and a
        # poll that did not wait so long has not seen yet what came of it. The I/O thread's.
        self._join_task: tuple[Future, Future] | None = None
        self.coordinator: Any = None  # kafka-python's ConsumerCoordinator, once it is made
        self.closing = False  # set once, by the closing thread
        self.leases: set[LaneKey] = set()  # connections lent to this consumer now
        self._left_as: str | None = None  # the member id with which it has left its group last
        self._left: Future | None = None  # done when ``leave`` is, from when it has begun
        # What a fetch waits for now, by node; the polling thread reads it.
        self.fetching: dict[int, dict[TopicPartition, Position]] = {}
        self.stir: Callable[[], None] = lambda: None  # lets an idle poll look again at what there is to do

    def detach(self) -> None:
        """Forget this consumer; what others use stays as it is."""
        self._engine.remove_consumer(self)
        self._engine.fetching.forget(self._owner)
        self._engine.commits.forget(self)
        self._engine.close_leases(self.leases)

    async def leave(self, timeout_ms: float) -> None:
        """See ``GroupMember.leave``. Whoever asks a second time waits for the first; nothing where it was closed."""
        if self._left is not None:
            await self._left
        if self.cluster.closed:
            return
        self._left = Future()
        self.cluster.close()  # from here on it cannot join again
        try:
            if self.coordinator is not None and self.coordinator._use_group_apis:
                self.coordinator._close_heartbeat()
                await self.coordinator.maybe_leave_group_async(timeout_ms=timeout_ms)
        finally:
            self.detach()
            self._left.success(None)

    def connection_delay(self, node_id: int) -> float:
        """Seconds until a fetch may be tried; kafka-python's fetcher asks nothing else here."""
        return self._engine.manager.connection_delay(LaneKey(node_id, Lane.FETCH))

    def send(self, request: Any, node_id: Any = None, request_timeout_ms: float | None = None) -> Any:
        """What kafka-python awaits, a future but for SyncGroup."""
        timeout_ms = self._request_timeout_ms if request_timeout_ms is None else request_timeout_ms
        if isinstance(request, JoinGroupRequest):
            return self.call_soon(self._join, request, node_id, timeout_ms)
        if isinstance(request, SyncGroupRequest):
            return self._sync(request, node_id, timeout_ms)  # no task: nothing comes between it and who awaits it
        if node_id is None:
            node_id = self._engine.manager.least_loaded_node()
        if isinstance(request, ConsumerFetch):
            return self._fetch(request, node_id)
        if isinstance(request, FindCoordinatorRequest):
            future = self._engine.coordinators.find(request.key, timeout_ms)
        elif isinstance(request, OffsetCommitRequest):
            self._outdate(request)
            if self.closing:
                future = self.call_soon(self._last_commit, request, node_id, timeout_ms)
            else:
                future = self._commit(request, node_id, timeout_ms)
        elif not isinstance(request, LeaveGroupRequest) and self._engine.commits.are_slow(node_id):
            future = super().call_soon(self._engine.bypass.send, node_id, request, timeout_ms, self._gone)
        else:
            future = self._engine.manager.send_on(LaneKey(node_id, Lane.CONTROL), request, timeout_ms)
        if isinstance(request, LeaveGroupRequest):
            self._left_as = request.member_id
        if isinstance(request, (HeartbeatRequest, OffsetCommitRequest)):
            self._unanswered[future] = request
            future.add_both(lambda _: self._unanswered.pop(future, None))
        if isinstance(request, HeartbeatRequest):
            future.add_callback(lambda response: self._note_heartbeat(request, response))
            future.add_errback(lambda _: self._stir_soon())
            return future
        if isinstance(request, OffsetCommitRequest):
            future.add_callback(lambda response: self._note_committed(request, response))
        future.add_both(lambda _: self._stir_soon())
        return future

    def _note_heartbeat(self, request: Any, response: Any) -> None:
        # kafka-python only ceases to send heartbeats then; its user hears of it by the next commit.
        if response.error_code == FencedInstanceIdError.errno and self.coordinator is not None:
            self.coordinator._async_commit_fenced = True
        # On a connection of its own a heartbeat that a consumer sends before it leaves is answered before that. Here it
        # may be on another, and the broker comes to it when it knows that member no more: no news, and nothing to warn
        # anybody of. To kafka-python it has been a success. That vouches for no later generation: a join waits for it.
        elif response.error_code == UnknownMemberIdError.errno and request.member_id == self._left_as:
            response.error_code = NoError.errno
        if response.error_code != NoError.errno:  # else the group goes on, and an idle poll need not look
            self._stir_soon()

    def _note_committed(self, request: Any, response: Any) -> None:
        good = {
            (topic.name, partition.partition_index)
            for topic in response.topics
            for partition in topic.partitions
            if partition.error_code == NoError.errno
        }
        self.committed.update(
            (TopicPartition(topic.name, partition.partition_index), partition.committed_offset)
            for topic in request.topics
            for partition in topic.partitions
            if (topic.name, partition.partition_index) in good
        )

    async def finish_commits(self, timeout_ms: float) -> None:
        """Wait for the answers to all commits that are under way, at most so long."""
        deadline = time.monotonic() + timeout_ms / 1000
        for future, request in list(self._unanswered.items()):
            if not isinstance(request, OffsetCommitRequest):
                continue
            try:
                await self._engine.manager.wait_for(future, max(0.0, deadline - time.monotonic()) * 1000)
            except KafkaError:
                pass  # whoever sent it deals with it

    def _outdate(self, commit: Any) -> None:
        if self.coordinator is not None:
            self.coordinator._offset_fetch_futures.outdate(
                TopicPartition(topic.name, partition.partition_index)
                for topic in commit.topics
                for partition in topic.partitions
            )

    def _commit(self, request: Any, node_id: int, timeout_ms: float) -> Future:
        return self._engine.commits.send(self, self.leases, node_id, request, timeout_ms, self._gone)

    async def _last_commit(self, request: Any, node_id: int, timeout_ms: float) -> Any:
        """Commit before closing, without what there is no topic for any more.

        kafka-python takes it for a topic that is not known yet, and commits again and again for as long as closing may
        take.
        """
        response = await self._commit(request, node_id, timeout_ms)
        unknown = [
            (topic.name, partition)
            for topic in response.topics
            for partition in topic.partitions
            if partition.error_code == UnknownTopicOrPartitionError.errno
        ]
        if unknown:
            await self.cluster.request_update()
        for topic, partition in unknown:
            if self.cluster.partitions_for_topic(topic) is None:
                partition.error_code = NoError.errno
        return response

    def call_soon(self, coro: Any, *args: Any) -> Future:
        """Start a task; a commit of nothing, for one, is done without asking any broker."""
        future = super().call_soon(coro, *args)
        future.add_both(lambda _: self._stir_soon())
        if self.coordinator is not None and coro == self.coordinator._do_join_and_sync_async:
            self._join_task = Future(), future
            return self._join_task[0]
        return future

    def _fetch(self, request: ConsumerFetch, node_id: int) -> Future:
        self.fetching[node_id] = request.partitions

        def answered() -> None:
            if self.fetching.get(node_id) is request.partitions:
                del self.fetching[node_id]
            self.stir()

        return self._engine.fetching.send(self._owner, request, node_id, answered)

    def _stir_soon(self) -> None:
        """Stir when kafka-python has dealt with an answer: a coroutine that awaits it goes on in the next round."""
        # Where the answer is there already, this runs on the thread that polls, and the loop may be waiting.
        self._engine.soon(lambda: self._engine.net.call_soon(self.stir))

    async def _join(self, request: Any, node_id: int, timeout_ms: float) -> Any:
        """Join with the metadata of every topic at hand; kafka-python loses that race about once in twenty.

        Its consumer does not wait for metadata when subscribed by name, and its group's leader assigns with what it
        has at that moment: a group whose leader joins too early stays without partitions.
        """
        self.committed = {}
        if self._engine.exiting:
            await Future()  # it has left its group for good; the thread that polls it ends with the interpreter
        # On a connection of its own a consumer's commits and heartbeats are answered before its JoinGroup. Here they
        # are on another, and one answered late ("illegal generation") would reset the generation that was just joined.
        for unanswered in list(self._unanswered):
            try:
                await unanswered
            except KafkaError:
                pass  # whoever sent it deals with it
        await self._know_topics(self.cluster.tracked)
        if self.cluster.unauthorized_topics:
            # kafka-python raises this where it hears of the metadata, which in a pool is on everybody's I/O thread.
            raise TopicAuthorizationFailedError(self.cluster.unauthorized_topics)
        # A static member that comes back gets its old place, without a rebalance (KIP-345).
        coordinator = self.coordinator
        if (
            coordinator is not None
            and self._engine.joins.members[coordinator.group_id] > 1
            and request.group_instance_id is None
            and coordinator._generation.generation_id < 0
        ):
            self._engine.net.call_later(_TELL_SIBLINGS_S, self._tell_siblings)
        response = await self._engine.send_join(self.leases, node_id, request, timeout_ms, self._leaves)
        if response.error_code == NoError.errno and response.leader == response.member_id:
            subscriptions = [ConsumerProtocolSubscription.decode(member.metadata) for member in response.members]
            await self._know_topics({topic for subscription in subscriptions for topic in subscription.topics})
        return response

    def _gone(self) -> bool:
        return self.cluster.closed

    def _leaves(self) -> bool:
        # A join that goes on when its poll was cut off would come after the LeaveGroup: a member that nobody is.
        return self.closing or self._gone()

    def _tell_siblings(self) -> None:
        """Let the group's other members in this pool rejoin now: a new one has just sent its JoinGroup.

        They would learn of it by their next heartbeat, up to ``heartbeat_interval_ms`` later, and until then the new
        member's JoinGroup waits on the broker.
        """
        for sibling in self._engine.siblings(self):
            coordinator = sibling.coordinator
            if coordinator is not None and coordinator.stable() and not coordinator.need_rejoin():
                coordinator.request_rejoin()
                sibling.end_waits()

    async def _know_topics(self, topics: Collection[str]) -> None:
        await self.cluster.topics_known(topics)
        # The coordinator compares the metadata it assigned with to what it hears of later. Without this it would take
        # what the pool knew all along for news, and rebalance the group a second time.
        self.cluster.deliver()

    async def _sync(self, request: Any, node_id: int, timeout_ms: float) -> Any:
        response = await self._engine.send_join(self.leases, node_id, request, timeout_ms, self._leaves)
        # kafka-python compares the answer with no generation at all where that is over, and raises
        # InconsistentGroupProtocolError to the user. An error says itself what to do: one that is fenced must not join
        # again, without its id, in the place of the one that took its own.
        if response.error_code == NoError.errno:
            self._join_again_unless(lambda generation_id: generation_id == request.generation_id)
        return response

    def _join_again_unless(self, is_current: Callable[[int], bool]) -> None:
        """See to it that the generation that was just joined is not over.

        A failed commit or heartbeat may have reset it while the SyncGroup was parked. So may an unsubscribe() between
        the poll that began the join and the one that takes what came of it.
        """
        coordinator = self.coordinator
        if coordinator is not None and not is_current(coordinator._generation.generation_id):
            coordinator.request_rejoin()
            raise RebalanceInProgressError(coordinator.group_id)

    async def wait_for(self, future: Future, timeout_ms: float | None) -> Any:
        """Await ``future``; KafkaTimeoutError after ``timeout_ms``, or when the consumer is interrupted."""
        if self._join_task is not None and self._join_task[0] is future:
            taken, joined = self._join_task
            try:
                assignment = await self.wait_for(joined, timeout_ms)
            except IllegalStateError as error:
                if self.coordinator._generation.generation_id != DEFAULT_GENERATION_ID:
                    raise  # an assignor's own, which joining again would meet again, at once and without an end
                # Unsubscribed while its JoinGroup was parked, and made the leader: it had no topics to assign then.
                raise RebalanceInProgressError(self.coordinator.group_id) from error
            finally:
                if joined.is_done:
                    taken.success(None)
                    self._join_task = None
            self._join_again_unless(lambda generation_id: generation_id != DEFAULT_GENERATION_ID)
            return assignment
        wait = Future()

        def end(_: Any = None) -> None:
            if not wait.is_done:
                wait.success(None)

        future.add_both(end)
        if self._interrupt.due:
            end()  # asked for between the poll's last look and this, so end_waits has come and gone
        self._waits.add(wait)
        timer = None if timeout_ms is None else self._engine.net.call_later(timeout_ms / 1000, end)
        try:
            await wait
        finally:
            self._waits.discard(wait)
            if timer is not None:
                self._engine.net.cancel(timer)
        if not future.is_done and self._interrupt.due:
            # kafka-python's loop that resets positions waits again at once. It would not let go of the event loop, for
            # which the poll may be waiting that is to take the interrupt back.
            await self._engine.net.sleep(_INTERRUPTED_S)
        if not future.is_done:
            raise KafkaTimeoutError(f"Timed out after {timeout_ms} ms")
        return await future

    def end_waits(self) -> None:
        """Let all that a poll waits for time out now; in any other call, a wait that ended would be an error."""
        self.stir()
        if self._interrupt.poller is None:
            return
        for wait in list(self._waits):
            if not wait.is_done:
                wait.success(None)
