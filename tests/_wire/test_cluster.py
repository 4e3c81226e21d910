from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from kafka.errors import (
    Cancelled,
    ClusterAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    MetadataEmptyBrokerList,
    NodeNotReadyError,
)
from kafka.future import Future
from kafka.net.selector import NetworkSelector
from kafka.protocol.metadata import CoordinatorType, FindCoordinatorResponse
from kafka.structs import TopicPartition

from pooledkafka._wire import cluster as cluster_module
from pooledkafka._wire.cluster import ClusterView, SharedCluster
from pooledkafka._wire.lanes import Lane, LaneKey
from tests.scripted_broker import metadata_answer

UNKNOWN_TOPIC, FORBIDDEN, INVALID = 3, 29, 17


class StandingNet:
    """An event loop that runs what it was given when the test says so."""

    def __init__(self) -> None:
        self.posted: list[Any] = []

    def call_soon_threadsafe(self, callback: Any) -> None:
        self.posted.append(callback)

    def run_posted(self) -> None:
        posted, self.posted = self.posted, []
        for callback in posted:
            callback()


class StandingManager:
    """A connection manager that refreshes nothing by itself."""

    def __init__(self) -> None:
        self._net = StandingNet()
        self.delay = 0.0
        self.loops = 0

    def call_soon(self, coro: Any) -> Future:
        self.loops += 1
        return Future()

    def connection_delay(self, node_id: Any) -> float:
        assert node_id == "metadata"
        return self.delay


@pytest.fixture
def manager() -> StandingManager:
    return StandingManager()


@pytest.fixture
def cluster(manager: StandingManager) -> SharedCluster:
    shared = SharedCluster(bootstrap_servers="127.0.0.1:9092")
    shared.attach(manager)
    return shared


def asked_for(cluster: SharedCluster) -> set[str] | None:
    """The topics of the next request; None stands for all of them."""
    request = cluster.metadata_request()
    return None if request.topics is None else {topic.name for topic in request.topics}


def refresh(cluster: SharedCluster, *topics: str, **errors: int) -> None:
    cluster.metadata_request()
    cluster.update_metadata(metadata_answer(dict.fromkeys(topics, 1), errors=errors))


# -- topics ------------------------------------------------------------------------------------------------------------


def test_the_pool_asks_for_the_union_of_what_its_clients_want(cluster: SharedCluster) -> None:
    cluster.attach_view().set_topics(["orders", "common"])
    cluster.attach_view().set_topics(["bills", "common"])
    cluster.attach_view()
    assert asked_for(cluster) == {"orders", "bills", "common"}


def test_nobody_wants_anything_so_nothing_is_asked_for(cluster: SharedCluster) -> None:
    assert asked_for(cluster) == set()


def test_a_topic_that_one_client_drops_stays_while_another_wants_it(cluster: SharedCluster) -> None:
    one, other = cluster.attach_view(), cluster.attach_view()
    one.set_topics(["orders", "common"])
    other.set_topics(["common"])
    one.set_topics(["bills"])
    assert asked_for(cluster) == {"bills", "common"}
    other.set_topics([])
    assert asked_for(cluster) == {"bills"}


def test_closing_a_view_drops_its_topics_alone(cluster: SharedCluster) -> None:
    one, other = cluster.attach_view(), cluster.attach_view()
    one.set_topics(["orders", "common"])
    other.set_topics(["common"])
    one.close()
    assert asked_for(cluster) == {"common"}
    one.set_topics(["orders"])
    assert asked_for(cluster) == {"common"}, "a closed view wants nothing any more"


def test_one_more_topic_keeps_those_before(cluster: SharedCluster) -> None:
    view = cluster.attach_view()
    view.set_topics(["orders"])
    view.add_topic("bills")
    assert view._topics == view.tracked == {"orders", "bills"}
    assert asked_for(cluster) == {"orders", "bills"}


@pytest.mark.parametrize("name", ["", "a b", "x" * 250])
def test_a_name_that_no_topic_can_have_is_refused(cluster: SharedCluster, name: str) -> None:
    view = cluster.attach_view()
    with pytest.raises(ValueError):  # noqa: PT011 - kafka-python's own error
        view.set_topics(["orders", name])
    assert asked_for(cluster) == set()


def test_all_topics_are_asked_for_while_any_client_subscribes_by_pattern(cluster: SharedCluster) -> None:
    pattern, other, plain = cluster.attach_view(), cluster.attach_view(), cluster.attach_view()
    plain.set_topics(["orders"])
    pattern.need_all_topic_metadata = other.need_all_topic_metadata = True
    assert asked_for(cluster) is None
    assert pattern.need_all_topic_metadata
    assert not plain.need_all_topic_metadata, "a client that names its topics must not take in all of them"
    pattern.need_all_topic_metadata = False
    assert asked_for(cluster) is None
    other.close()
    assert asked_for(cluster) == {"orders"}


def test_what_a_client_says_again_with_each_subscription_is_counted_once(
    cluster: SharedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[None] = []
    monkeypatch.setattr(cluster, "recount", lambda: counted.append(None))
    view = cluster.attach_view()
    for wanted in (False, False, True, True, False):
        view.need_all_topic_metadata = wanted
    assert len(counted) == 2


def test_a_topic_that_is_known_needs_no_refresh_but_is_told(cluster: SharedCluster, manager: StandingManager) -> None:
    cluster.attach_view().set_topics(["orders"])
    refresh(cluster, "orders")
    late = cluster.attach_view()
    heard: list[ClusterView] = []
    late.add_listener(heard.append)
    future = late.set_topics(["orders"])
    assert future.succeeded()
    assert not cluster.need_update
    assert heard == [], "not on this thread"
    manager._net.run_posted()
    assert heard == [late]


# -- refreshing --------------------------------------------------------------------------------------------------------


def test_all_who_ask_before_a_refresh_are_answered_by_it(cluster: SharedCluster, manager: StandingManager) -> None:
    view = cluster.attach_view()
    futures = [view.request_update(), cluster.attach_view().request_update(), cluster.request_update()]
    assert manager.loops == 1, "the refresh loop is started once"
    assert manager._net.posted, "and woken"
    refresh(cluster)
    assert [future.value for future in futures[:2]] == [view, futures[1].value]
    assert isinstance(futures[1].value, ClusterView)
    assert futures[2].value is cluster
    assert not cluster.need_update


def test_who_asks_again_and_again_waits_once(cluster: SharedCluster) -> None:
    """kafka-python asks so for each of a consumer's partitions, which may be thousands."""
    one, other = cluster.attach_view(), cluster.attach_view()
    first = one.set_topics(["orders"])
    assert one.request_update() is first
    assert one.add_topic("orders") is first
    assert other.request_update() is not first
    assert one.add_topic("bills") is first
    assert asked_for(cluster) == {"orders", "bills"}
    later = one.request_update()
    assert later is not first, "that refresh is under way"
    assert one.request_update() is later
    cluster.update_metadata(metadata_answer({"orders": 1, "bills": 1}))
    assert first.is_done
    assert not later.is_done
    refresh(cluster, "orders", "bills")
    assert later.is_done
    assert one.request_update() is not later


def test_a_request_during_a_refresh_is_answered_by_the_next(cluster: SharedCluster) -> None:
    first = cluster.request_update()
    cluster.metadata_request()
    late, later = cluster.request_update(), cluster.request_update()
    cluster.update_metadata(metadata_answer())
    assert first.succeeded()
    assert not late.is_done, "the request was built before this was asked"
    assert cluster.need_update, "the loop must go round again"
    refresh(cluster)
    assert late.succeeded()
    assert later.succeeded()
    assert not cluster.need_update


def test_a_request_made_while_an_answer_is_applied_is_answered_by_the_next(cluster: SharedCluster) -> None:
    class Watching(dict[Any, Any]):
        """Another thread asks in the middle of ``update_metadata``."""

        def get(self, *key: Any) -> Any:
            asker = threading.Thread(target=lambda: asked.append(cluster.request_update()), daemon=True)
            asker.start()
            asker.join(5)
            return super().get(*key)

    asked: list[Future] = []
    cluster._topic_ids = Watching()
    cluster.metadata_request()
    answer = metadata_answer({"orders": 1}, version=9)
    answer.topics[0].topic_id = "an id"
    cluster.update_metadata(answer)
    assert len(asked) == 1
    assert not asked[0].is_done
    assert cluster.need_update
    cluster._topic_ids = {}
    refresh(cluster)
    assert asked[0].succeeded()


def test_a_failed_refresh_fails_those_who_waited_and_not_those_who_came_later(cluster: SharedCluster) -> None:
    first = cluster.request_update()
    cluster.metadata_request()
    late = cluster.request_update()
    cluster.failed_update(KafkaConnectionError("gone"))
    assert isinstance(first.exception, KafkaConnectionError)
    assert not late.is_done
    assert cluster.need_update
    refresh(cluster)
    assert late.succeeded()


def test_a_view_that_bears_failures_waits_no_longer_and_hears_of_none(cluster: SharedCluster) -> None:
    bearing, other = cluster.attach_view(bears_failures=True), cluster.attach_view()
    waiting, failing = bearing.request_update(), other.request_update()
    cluster.metadata_request()
    cluster.failed_update(KafkaConnectionError("gone"))
    assert waiting.value is bearing
    assert isinstance(failing.exception, KafkaConnectionError)
    forbidden = bearing.request_update()
    cluster.metadata_request()
    cluster.failed_update(ClusterAuthorizationFailedError())
    assert isinstance(forbidden.exception, ClusterAuthorizationFailedError)


def test_an_answer_without_brokers_is_a_failure(cluster: SharedCluster) -> None:
    refresh(cluster, "orders")
    first = cluster.request_update()
    cluster.metadata_request()
    late = cluster.request_update()
    cluster.update_metadata(metadata_answer(brokers={}))
    assert isinstance(first.exception, MetadataEmptyBrokerList)
    assert not late.is_done
    assert cluster.partitions_for_topic("orders") == {0}, "what was known stays"
    refresh(cluster)
    assert late.succeeded()


def test_an_answer_that_cannot_be_used_leaves_nobody_waiting(cluster: SharedCluster) -> None:
    first = cluster.request_update()
    cluster.metadata_request()
    broken = metadata_answer()
    broken.topics = None
    with pytest.raises(TypeError):
        cluster.update_metadata(broken)
    assert isinstance(first.exception, TypeError)
    assert not cluster.request_update().is_done
    refresh(cluster)


@pytest.mark.parametrize("code", [UNKNOWN_TOPIC, FORBIDDEN, INVALID])
def test_an_answer_with_one_bad_topic_harms_nobody(cluster: SharedCluster, code: int) -> None:
    futures = [cluster.attach_view().set_topics(["bad"]), cluster.attach_view().request_update()]
    refresh(cluster, bad=code)
    assert all(future.succeeded() for future in futures)


def test_new_topics_do_not_wait_for_the_retry_backoff(cluster: SharedCluster, manager: StandingManager) -> None:
    refresh(cluster)
    cluster.request_update()
    assert cluster.ttl() > 0, "just refreshed"
    cluster.attach_view().set_topics(["orders"])
    assert cluster.ttl() == 0
    manager.delay = 2.0
    assert cluster.ttl() == 2000.0, "while no broker answers, not even they"
    manager.delay = 0.0
    cluster.metadata_request()
    assert cluster.ttl() > 0, "asked for now"


def test_its_age_counts_from_the_last_good_answer(cluster: SharedCluster) -> None:
    assert cluster.age_ms() is None
    cluster.failed_update(NodeNotReadyError())
    assert cluster.age_ms() is None
    refresh(cluster)
    age = cluster.age_ms()
    assert age is not None
    assert 0 <= age < 60_000


# -- listeners and errors ----------------------------------------------------------------------------------------------


def test_each_listener_hears_of_each_refresh_with_its_own_view(cluster: SharedCluster) -> None:
    views = [cluster.attach_view() for _ in range(2)]
    heard: list[ClusterView] = []
    for view in views:
        view.add_listener(heard.append)
    refresh(cluster)
    assert sorted(map(id, heard)) == sorted(map(id, views))
    views[0].remove_listener(heard.append)
    views[1].close()
    heard.clear()
    refresh(cluster)
    assert heard == []


def test_what_one_listener_raises_keeps_no_other_from_hearing(cluster: SharedCluster) -> None:
    class Failing:
        def __call__(self, view: ClusterView) -> None:
            raise ValueError("a client cannot use this")

    heard: list[ClusterView] = []
    for _ in range(3):
        view = cluster.attach_view()
        for _ in range(3):  # the order is not ours to choose: with so many one is bound to come after a failing one
            view.add_listener(Failing())
        view.add_listener(heard.append)
    waiting = cluster.request_update()
    refresh(cluster)
    assert len(heard) == 3
    assert waiting.succeeded()


def test_a_forbidden_topic_is_its_own_clients_affair(cluster: SharedCluster) -> None:
    one, other = cluster.attach_view(), cluster.attach_view()
    one.set_topics(["secret", "orders"])
    other.set_topics(["orders"])
    refresh(cluster, "orders", secret=FORBIDDEN)
    assert one.unauthorized_topics == {"secret"}
    assert other.unauthorized_topics == set()
    one.set_topics(["orders"])
    assert one.unauthorized_topics == set()


# -- lanes and coordinators --------------------------------------------------------------------------------------------


def test_a_lane_has_its_brokers_address_under_its_own_key(cluster: SharedCluster) -> None:
    cluster.update_metadata(metadata_answer(brokers={7: ("broker", 9)}))
    key = LaneKey(7, Lane.PRODUCE)
    address = cluster.broker_metadata(key)
    assert (address.node_id, address.host, address.port) == (key, "broker", 9)
    assert cluster.broker_metadata(7).node_id == 7
    assert cluster.broker_metadata(LaneKey(8, Lane.PRODUCE)) is None
    assert cluster.broker_metadata("bootstrap-0").port == 9092


def test_a_coordinator_is_known_by_its_brokers_own_id(cluster: SharedCluster) -> None:
    view = cluster.attach_view()
    response = FindCoordinatorResponse(version=2, error_code=0, node_id=3, host="broker", port=9, error_message="")
    assert view.add_coordinator(response, CoordinatorType.GROUP, "billing") == 3
    assert view.get_coordinator("billing") == 3
    assert cluster.broker_metadata(LaneKey(3, Lane.CONTROL)).host == "broker", "even where the metadata lacks it"


def test_a_coordinator_that_is_down_is_no_replica_to_read_from(cluster: SharedCluster) -> None:
    orders = TopicPartition("orders", 0)
    answer = metadata_answer({"orders": 1}, brokers={1: ("127.0.0.1", 9092)})
    answer.topics[0].partitions[0].replica_nodes = [1, 3]
    cluster.metadata_request()
    cluster.update_metadata(answer)
    view = cluster.attach_view()
    response = FindCoordinatorResponse(version=2, error_code=0, node_id=3, host="broker", port=9, error_message="")
    view.add_coordinator(response, CoordinatorType.GROUP, "billing")
    assert view.is_replica_node(orders, 1)
    assert not view.is_replica_node(orders, 3)


def test_a_view_shows_the_shared_metadata(cluster: SharedCluster) -> None:
    view = cluster.attach_view()
    refresh(cluster, "orders")
    assert view.partitions_for_topic("orders") == {0}
    assert [broker.node_id for broker in view.brokers()] == [1]
    with pytest.raises(AttributeError):
        _ = view.no_such_thing


# -- topics_known, on a real event loop --------------------------------------------------------------------------------


class LoopManager:
    """Answers the refresh loop's requests when the test does."""

    def __init__(self, net: NetworkSelector) -> None:
        self._net = net
        self.bootstrapped = True
        self._changed = threading.Condition()
        self._pending: list[tuple[Any, Future]] = []

    def call_soon(self, coro: Any) -> Future:
        return self._net.call_soon_with_future(coro)

    def connection_delay(self, node_id: Any) -> float:
        return 0.0

    def reset_backoff(self, node_id: Any) -> None:
        pass

    def least_loaded_node(self) -> int:
        return 1

    def send(self, request: Any, node_id: int) -> Future:
        future = Future()
        with self._changed:
            self._pending.append((request, future))
            self._changed.notify_all()
        return future

    def next_request(self) -> tuple[set[str], Future]:
        with self._changed:
            assert self._changed.wait_for(lambda: self._pending, 5), "no metadata request came"
            request, future = self._pending.pop(0)
        return {topic.name for topic in request.topics}, future

    def answer(self, future: Future, *topics: str, **errors: int) -> None:
        answer = metadata_answer(dict.fromkeys(topics, 1), errors=errors)
        self._net.call_soon_threadsafe(lambda: future.success(answer))

    def fail(self, future: Future, error: KafkaError) -> None:
        self._net.call_soon_threadsafe(lambda: future.failure(error))


class Outcome:
    """What a coroutine on the I/O thread comes to; to wait for on the test's thread."""

    def __init__(self, future: Future) -> None:
        self._done = threading.Event()
        self.future = future
        future.add_both(lambda _: self._done.set())

    def wait(self) -> Future:
        assert self._done.wait(5), "still waiting"
        return self.future


@pytest.fixture
def loop() -> Iterator[LoopManager]:
    net = NetworkSelector(client_id="test")
    net.start()
    yield LoopManager(net)
    net.close()
    del net
    gc.collect()  # so that a coroutine that was left over complains in the test that left it


@pytest.fixture
def live(loop: LoopManager) -> SharedCluster:
    shared = SharedCluster(bootstrap_servers="127.0.0.1:9092", retry_backoff_ms=1)
    shared.attach(loop)
    return shared


def test_known_topics_are_not_waited_for(loop: LoopManager, live: SharedCluster) -> None:
    live.update_metadata(metadata_answer({"orders": 1}))
    view = live.attach_view()
    assert Outcome(loop.call_soon(lambda: view.topics_known(["orders"]))).wait().succeeded()
    assert view.tracked == {"orders"}


def test_unknown_topics_are_waited_for_through_failures(loop: LoopManager, live: SharedCluster) -> None:
    view = live.attach_view()
    known = Outcome(loop.call_soon(lambda: view.topics_known(["orders"])))
    asked, request = loop.next_request()
    assert asked == {"orders"}
    loop.fail(request, KafkaConnectionError("gone"))
    asked, request = loop.next_request()
    assert asked == {"orders"}
    assert not known.future.is_done, "a broker that does not answer says nothing about the topic"
    loop.answer(request, "orders")
    assert known.wait().succeeded()
    assert view.partitions_for_topic("orders") == {0}


def test_a_refresh_that_was_under_way_does_not_count(loop: LoopManager, live: SharedCluster) -> None:
    live.attach_view().request_update()
    asked, before = loop.next_request()
    assert asked == set()
    view = live.attach_view()
    known = Outcome(loop.call_soon(lambda: view.topics_known(["orders"])))
    loop._net.run(lambda: None)  # what was posted before this has run: the wish is in
    loop.answer(before)
    asked, request = loop.next_request()
    assert asked == {"orders"}
    assert not known.future.is_done
    loop.answer(request, "orders")
    assert known.wait().succeeded()


def test_a_topic_that_does_not_exist_is_given_up_after_the_grace(
    loop: LoopManager, live: SharedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    clock = type("Clock", (), {"monotonic": staticmethod(lambda: now[0])})
    monkeypatch.setattr(cluster_module, "time", clock)
    view = live.attach_view()
    known = Outcome(loop.call_soon(lambda: view.topics_known(["ghost"])))
    for _ in range(3):  # within the grace it may still be created
        _, request = loop.next_request()
        assert not known.future.is_done
        loop.answer(request, ghost=UNKNOWN_TOPIC)
    _, request = loop.next_request()
    now[0] += cluster_module._NEW_TOPIC_GRACE_S
    loop.answer(request, ghost=UNKNOWN_TOPIC)
    assert known.wait().succeeded()


def test_a_client_that_is_closed_waits_no_longer(loop: LoopManager, live: SharedCluster) -> None:
    view = live.attach_view()
    known = Outcome(loop.call_soon(lambda: view.topics_known(["orders"])))
    _, request = loop.next_request()
    view.close()
    loop.answer(request, orders=UNKNOWN_TOPIC)
    assert isinstance(known.wait().exception, Cancelled)


# -- leaders and their epochs ------------------------------------------------------------------------------------------


def with_leaders(topic_id: UUID, *leaders: tuple[int, int]) -> Any:
    """An answer of two brokers about one topic: leader and epoch of each partition."""
    answer = metadata_answer({"orders": len(leaders)}, brokers={1: ("one", 1), 2: ("two", 2)}, version=12)
    (topic,) = answer.topics
    topic.topic_id = topic_id
    for partition, (leader_id, epoch) in zip(topic.partitions, leaders, strict=True):
        partition.leader_id, partition.leader_epoch = leader_id, epoch
    return answer


def leaders_in(cluster: SharedCluster) -> list[int]:
    return [cluster.leader_for_partition(TopicPartition("orders", number)) for number in (0, 1)]


def test_a_broker_that_does_not_know_of_a_newer_leader_is_not_believed(cluster: SharedCluster) -> None:
    cluster.attach_view().set_topics(["orders"])
    same = uuid4()
    cluster.update_metadata(with_leaders(same, (1, 5), (1, 5)))
    cluster.update_metadata(with_leaders(same, (2, 4), (2, 6)))
    assert leaders_in(cluster) == [1, 2]
    assert cluster.leader_epoch_for_partition(TopicPartition("orders", 0)) == 5
    assert TopicPartition("orders", 0) in cluster.partitions_for_broker(1)
    cluster.update_metadata(with_leaders(same, (-1, 5), (2, 6)))
    assert leaders_in(cluster) == [-1, 2], "the same epoch may have lost its leader"
    cluster.update_metadata(with_leaders(same, (2, 7), (1, 7)))
    assert leaders_in(cluster) == [2, 1]


def test_an_answer_without_the_topic_is_no_reason_to_believe_an_older_one(cluster: SharedCluster) -> None:
    cluster.attach_view().set_topics(["orders"])
    same = uuid4()
    cluster.update_metadata(with_leaders(same, (1, 5), (1, 5)))
    cluster.update_metadata(metadata_answer(errors={"orders": LeaderNotAvailableError.errno}, version=12))
    cluster.update_metadata(with_leaders(same, (2, 4), (2, 4)))
    assert leaders_in(cluster) == [1, 1]


def test_what_a_fetch_has_told_of_a_newer_leader_holds(cluster: SharedCluster) -> None:
    cluster.attach_view().set_topics(["orders"])
    same = uuid4()
    cluster.update_metadata(with_leaders(same, (1, 5), (1, 5)))
    cluster.update_partition_leader(TopicPartition("orders", 0), 2, 6)
    cluster.update_metadata(with_leaders(same, (1, 5), (1, 5)))
    assert leaders_in(cluster) == [2, 1]


def test_a_topic_that_was_made_anew_begins_with_the_first_epoch(cluster: SharedCluster) -> None:
    cluster.attach_view().set_topics(["orders"])
    cluster.update_metadata(with_leaders(uuid4(), (1, 5), (1, 5)))
    cluster.update_metadata(with_leaders(uuid4(), (2, 0), (2, 0)))
    assert leaders_in(cluster) == [2, 2]
    cluster.update_metadata(metadata_answer({"orders": 2}, version=9))
    assert leaders_in(cluster) == [1, 1], "without ids nobody can tell"
