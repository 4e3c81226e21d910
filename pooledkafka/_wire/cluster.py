"""One copy of the cluster's metadata, and each client's own view of it.

kafka-python's ``ClusterMetadata`` belongs to one client: ``set_topics`` replaces the topics of everybody else, one
client's forbidden topic raises in every listener, and a refresh that was asked for while another is under way is lost.
``SharedCluster`` holds the pool's metadata for the union of all topics; ``ClusterView`` is what a pooled client sees.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from kafka.cluster import ClusterMetadata
from kafka.errors import (
    Cancelled,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MetadataEmptyBrokerList,
    NodeNotReadyError,
    NoError,
)
from kafka.future import Future
from kafka.protocol.metadata import MetadataResponse
from kafka.structs import TopicPartition
from kafka.util import ensure_valid_topic_name

from pooledkafka._locks import LockName, check_free, new_lock
from pooledkafka._logging import get_logger
from pooledkafka._wire.lanes import LaneKey
from pooledkafka.errors import PoolClosedError

__all__ = ["ClusterView", "SharedCluster"]

_log = get_logger("pooledkafka.metadata")

_WITH_TOPIC_IDS = 10
"""The first version of a Metadata answer that has them."""
_NEW_TOPIC_GRACE_S = 1.0
"""How long a join waits for a topic that the cluster says it does not have: time for its automatic creation."""


class _Leaders(NamedTuple):
    topic_id: Any
    partitions: dict[int, Any]


class SharedCluster(ClusterMetadata):  # type: ignore[misc]
    """The metadata of the pool, for all topics that any of its clients wants.

    ``_lock`` (kafka-python's) guards what a Metadata answer replaces and the fields below that say so. ``_views_lock``
    guards the views, their topics and the union of them; the two are never held together.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._lock = new_lock(LockName.CLUSTER)  # in place of kafka-python's, so that its order is checked too
        self._topics: set[str] = set()  # the union of the views' topics; replaced under _views_lock
        self.need_all_topic_metadata = False  # likewise
        self._future: Future | None = None  # resolved by the next refresh; guarded by _lock
        self._refreshing = False  # a request has been built and its answer not applied; guarded by _lock
        self._after_this: Future | None = None  # resolved by the refresh after the running one; guarded by _lock
        self._topics_changed = False  # since the last request was built; guarded by _lock
        self.asked: Any = None  # the last request built, by which the manager knows the pool's own; the I/O thread's
        self.failed_bootstrap: set[str] = set()  # the node ids of addresses that were tried in vain; the I/O thread's
        self._ended = False  # set once, by close(); guarded by _lock
        self._newest: dict[str, _Leaders] = {}  # what was heard of each topic with the highest epochs; the I/O thread's
        self._views_lock = new_lock(LockName.VIEWS)
        self._views: dict[ClusterView, frozenset[str]] = {}  # guarded by _views_lock

    # -- views ---------------------------------------------------------------------------------------------------------

    def attach_view(self, *, bears_failures: bool = False) -> ClusterView:
        """A new client's view, with no topics yet; see ``ClusterView``."""
        view = ClusterView(self, bears_failures=bears_failures)
        with self._views_lock:
            self._views[view] = frozenset()
        return view

    def detach_view(self, view: ClusterView) -> None:
        """Forget a client: its topics are no longer asked for."""
        with self._views_lock:
            self._views.pop(view, None)
            self._recount()

    def set_view_topics(self, view: ClusterView, topics: frozenset[str], *, keep: bool = False) -> bool:
        """Record what ``view`` wants, or ``keep`` what it wants and add to it.

        True if a topic that nobody wanted before is among it.
        """
        with self._views_lock:
            if view not in self._views:
                return False
            before = self._views[view]
            self._views[view] = wanted = before | topics if keep else topics
            if before <= wanted <= self._topics:
                return False  # others want them all, and it gives up none: the union stays
            changed = self._recount()
        if changed:
            with self._lock:
                self._topics_changed = True
        return changed

    def view_topics(self, view: ClusterView) -> frozenset[str]:
        """What ``view`` wants."""
        with self._views_lock:
            return self._views.get(view, frozenset())

    def _recount(self) -> bool:
        # Replaces the sets, never changes them: the I/O thread iterates them without the lock to build its requests.
        wanted = {topic for topics in self._views.values() for topic in topics}
        all_topics = any(view.wants_all_topics for view in self._views)
        changed = bool(wanted - self._topics) or (all_topics and not self.need_all_topic_metadata)
        self._topics = wanted
        self.need_all_topic_metadata = all_topics
        return changed

    def recount(self) -> None:
        """Work out the union again after a view changed whether it wants all topics."""
        with self._views_lock:
            self._recount()

    def deliver_soon(self, view: ClusterView) -> None:
        """Tell ``view``'s listeners, on the I/O thread, what is known already; thread-safe."""
        self._manager._net.call_soon_threadsafe(view.deliver)

    def is_replica_node(self, partition: TopicPartition, node_id: Any) -> Any:
        """The broker, where it is up and has a replica of the partition; else None.

        A coordinator is remembered under its broker's id, up or not: by that, a broker that is down would be known.
        """
        return super().is_replica_node(partition, node_id) if node_id in self._brokers else None

    # -- refreshing ----------------------------------------------------------------------------------------------------

    def request_update(self) -> Future:
        """Ask for a refresh that starts after this call; thread-safe, and shared by all who ask meanwhile.

        A Metadata request that was built before this call does not know what changed since. kafka-python lets its
        answer resolve the future and clear the flag, so the wish is lost and a consumer joins without its topics.
        """
        with self._lock:
            if self._ended:
                return Future().failure(_ended())
            if self._refreshing:
                if self._after_this is None:
                    self._after_this = Future()
                return self._after_this
            self._need_update = True
            if self._future is None:
                self._future = Future()
            future = self._future
        if self._manager:
            self.start_refresh_loop()
            self._wakeup.notify()
        return future

    def close(self) -> None:
        """Refresh no more; who waits for it, a producer that knows nothing of its topic, is told."""
        super().close()
        with self._lock:
            self._ended = True
            waiting = [each for each in (self._future, self._after_this) if each is not None]
            self._future = self._after_this = None
        for each in waiting:
            each.failure(_ended())

    def ttl(self) -> float:
        """Milliseconds until the next refresh; topics that were never asked for do not wait for the retry backoff."""
        if self._need_update and self._topics_changed and not self._manager.connection_delay("metadata"):
            return 0
        return float(super().ttl())

    def metadata_request(self) -> Any:
        with self._lock:
            self._refreshing = True
            self._topics_changed = False
        self.asked = super().metadata_request()
        return self.asked

    def update_metadata(self, metadata: Any) -> None:
        # kafka-python fails everybody who waits when the answer has one topic and that has an error. Here it may be
        # another client's topic, so those who wait are taken out first and told afterwards, each to look for itself.
        with self._lock:
            waiting, self._future = self._future, None
        try:
            self._keep_newer_leaders(metadata)
            super().update_metadata(metadata)
        except Exception as error:
            self._refresh_done(waiting, error)
            raise
        self._refresh_done(waiting, None if metadata.brokers else MetadataEmptyBrokerList(metadata))
        with self._views_lock:
            views = list(self._views)
        for view in views:
            view.deliver()

    def _keep_newer_leaders(self, metadata: Any) -> None:
        """Put the leaders that are known already in place of older ones in ``metadata`` (KIP-320; Java's ``Metadata``).

        A broker that was cut off from the others takes itself for the leader that it was, and says so until it has
        caught up. Whoever believed it would be told that an offset read from the true leader is out of range, and read
        everything again. Only of a topic whose id is the same: one that was made anew begins with the first epoch.
        """
        if metadata.API_VERSION < _WITH_TOPIC_IDS:
            return
        newest: dict[str, _Leaders] = {}
        for topic in metadata.topics:
            if topic.error_code == NoError.errno:
                before = self._newest.get(topic.name)
                known = before.partitions if before is not None and before.topic_id == topic.topic_id else {}
                topic.partitions = [
                    known[new.partition_index]
                    if new.partition_index in known and known[new.partition_index].leader_epoch > new.leader_epoch
                    else new
                    for new in topic.partitions
                ]
                newest[topic.name] = _Leaders(topic.topic_id, {each.partition_index: each for each in topic.partitions})
        # An answer without a topic, or with an error in its place, is no reason to believe an older one after it.
        kept = {name: leaders for name, leaders in self._newest.items() if name in self._topics}
        self._newest = kept | newest

    def failed_update(self, exception: BaseException) -> None:
        with self._lock:
            waiting, self._future = self._future, None
        super().failed_update(exception)
        self._refresh_done(waiting, exception)

    def _refresh_done(self, waiting: Future | None, error: BaseException | None) -> None:
        with self._lock:
            self._refreshing = False
            if self._after_this is not None:
                self._future, self._after_this = self._after_this, None
                self._need_update = True
        if waiting is None:
            return
        if error is None:
            waiting.success(self)
        else:
            waiting.failure(error)

    def addresses(self) -> list[str]:
        """Where the cluster is to be found, as the user said."""
        return [f"{broker.host}:{broker.port}" for broker in self._bootstrap_brokers.values()]

    def bootstrap_brokers(self) -> list[Any]:
        """Those that were not tried in vain, if any: kafka-python picks one at random, and may take one bad one often
        before it comes to a good one.
        """
        brokers: list[Any] = super().bootstrap_brokers()
        return [broker for broker in brokers if broker.node_id not in self.failed_bootstrap] or brokers

    def age_ms(self) -> float | None:
        """Milliseconds since the last successful refresh; None before the first."""
        if not self._last_successful_refresh_ms:
            return None
        return float(time.monotonic() * 1000 - self._last_successful_refresh_ms)

    # -- lanes ---------------------------------------------------------------------------------------------------------

    def broker_metadata(self, broker_id: Any) -> Any:
        """The broker's address; for a lane, under the lane's key, which kafka-python then keys its connection by."""
        if not isinstance(broker_id, LaneKey):
            return super().broker_metadata(broker_id)
        broker = super().broker_metadata(broker_id.node_id)
        if broker is None:
            return None
        return MetadataResponse.MetadataResponseBroker(broker_id, broker.host, broker.port, broker.rack)


def _ended() -> PoolClosedError:
    return PoolClosedError("the connection pool was disconnected while the cluster's metadata was waited for")


class ClusterView:
    """The cluster as one client sees it: its own topics, listeners and errors over the shared metadata.

    Everything not defined here is read from the shared metadata as it is. Thread-safe as that is.

    ``bears_failures``: a refresh that failed because a broker could not be reached ends a wait without an error. What
    waits then looks for itself, and asks again.
    """

    def __init__(self, shared: SharedCluster, *, bears_failures: bool = False) -> None:
        self._shared = shared
        self._bears_failures = bears_failures
        self._listeners_lock = new_lock(LockName.LISTENERS)
        self._listeners: set[Callable[[ClusterView], None]] = set()  # guarded by _listeners_lock
        self.wants_all_topics = False  # written by the client's thread, read under the shared _views_lock
        self.closed = False  # set once, by close()
        # The refresh that this client last asked for, and the future it was given; one reference, replaced as a whole
        # by whichever thread asks. Of two that ask at once one is given a future of its own.
        self._asked: tuple[Future, Future] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared, name)

    @property
    def _partitions(self) -> Any:
        return self._shared._partitions  # as __getattr__ would say, for each record that is sent

    def close(self) -> None:
        """Stop tracking this client's topics and calling its listeners."""
        self.closed = True
        with self._listeners_lock:
            self._listeners.clear()
        self._shared.detach_view(self)

    @property
    def need_all_topic_metadata(self) -> bool:
        """Whether this client subscribes by pattern, and so needs to see every topic."""
        return self.wants_all_topics

    @need_all_topic_metadata.setter
    def need_all_topic_metadata(self, wanted: bool) -> None:
        if wanted != self.wants_all_topics:  # kafka-python says it with each subscription
            self.wants_all_topics = wanted
            self._shared.recount()

    @property
    def unauthorized_topics(self) -> set[str]:
        """The forbidden topics among this client's own; another client's are that client's affair."""
        return set(self._shared.unauthorized_topics & self.tracked)

    def set_topics(self, topics: Iterable[str]) -> Future:
        """Track these topics and no others for this client; the future resolves when their metadata is here."""
        return self._want(frozenset(topics), keep=False)

    def add_topic(self, topic: str) -> Future:
        """Track one more topic for this client; from any thread, as others may at the same time."""
        if topic in self.tracked and self._shared.partitions_for_topic(topic) is None:
            return self.request_update()  # kafka-python asks so for each partition of a topic that it waits for
        return self._want(frozenset([topic]), keep=True)

    def _want(self, wanted: frozenset[str], *, keep: bool) -> Future:
        for topic in wanted:
            ensure_valid_topic_name(topic)
        new = self._shared.set_view_topics(self, wanted, keep=keep)
        if new or any(self._shared.partitions_for_topic(topic) is None for topic in wanted):
            return self.request_update()
        # Known already, through another client: no refresh will come that would tell this client's listeners.
        self._shared.deliver_soon(self)
        return Future().success(self)

    @property
    def tracked(self) -> frozenset[str]:
        """The topics that this client wants."""
        return self._shared.view_topics(self)

    @property
    def _topics(self) -> frozenset[str]:
        # kafka-python's Sender looks here whether it still has to add a topic; another client's topic may go away.
        return self.tracked

    async def topics_known(self, topics: Collection[str]) -> None:
        """Wait, on the I/O thread, until ``topics`` have partitions, or the cluster has said that they do not exist.

        A broker that does not answer is waited for: joining without metadata would give the group an empty assignment.
        """
        self._shared.set_view_topics(self, frozenset(topics), keep=True)
        give_up_at: float | None = None
        while any(self._shared.partitions_for_topic(topic) is None for topic in topics):
            try:
                await self._shared.request_update()
            except PoolClosedError:
                raise
            except KafkaError:
                pass  # the refresh loop backs off by itself; keep waiting for an answer
            else:
                now = time.monotonic()
                give_up_at = give_up_at or now + _NEW_TOPIC_GRACE_S
                if now >= give_up_at:
                    return
            if self.closed:
                raise Cancelled("the client was closed while it waited for its topics' metadata")

    def request_update(self) -> Future:
        """Ask for a refresh; the future yields this view."""
        refresh = self._shared.request_update()
        asked = self._asked
        if asked is not None and asked[0] is refresh and not asked[1].is_done:
            return asked[1]
        future = Future()
        self._asked = (refresh, future)

        def failed(error: BaseException) -> None:
            if self._bears_failures and isinstance(error, (KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError)):
                future.success(self)
            else:
                future.failure(error)

        refresh.add_callback(lambda _: future.success(self)).add_errback(failed)
        return future

    def add_coordinator(self, response: Any, key_type: Any, key: str, synthesize_node_id: bool = True) -> Any:
        """Remember a group's or transaction's coordinator under its broker's own node id.

        kafka-python invents a node ``coordinator-N`` to get a connection of its own; the control lane takes its place.
        """
        return self._shared.add_coordinator(response, key_type, key, synthesize_node_id=False)

    def add_listener(self, listener: Callable[[ClusterView], None]) -> None:
        """Call ``listener`` with this view, on the I/O thread, after each refresh."""
        with self._listeners_lock:
            self._listeners.add(listener)

    def remove_listener(self, listener: Callable[[ClusterView], None]) -> None:
        """Undo ``add_listener``."""
        with self._listeners_lock:
            self._listeners.discard(listener)

    def deliver(self) -> None:
        """Call this client's listeners; what one raises does not keep the others from hearing."""
        with self._listeners_lock:
            listeners = list(self._listeners)
        check_free("telling of metadata")
        for listener in listeners:
            try:
                listener(self)
            except Exception as error:
                _log.warning("metadata.not_usable", error=repr(error))

    def __str__(self) -> str:
        return f"view of {self._shared}"
