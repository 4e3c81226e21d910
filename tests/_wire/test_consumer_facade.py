from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import (
    FencedInstanceIdError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RebalanceInProgressError,
)
from kafka.future import Future
from kafka.protocol.consumer import (
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupResponse,
    ListOffsetsRequest,
    OffsetCommitRequest,
    SyncGroupRequest,
    SyncGroupResponse,
)
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription
from kafka.structs import TopicPartition

import pooledkafka._wire.commits as commits_module
from pooledkafka import ConfigurationError
from pooledkafka._wire.consumer_facade import ConsumerFacade, Interrupted
from pooledkafka._wire.engine import Engine
from pooledkafka._wire.flag import Flag
from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka._wire.wired_consumer import WiredConsumer
from pooledkafka.config import CONSUMER_OPTIONS, client_options, pool_options
from tests._wire.engines import new_engine
from tests._wire.staged_consumer import Clock
from tests.scripted_broker import VERSION, metadata_answer

UNKNOWN_TOPIC = 3


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Running, but connected to nothing: metadata comes from the test."""
    engine = new_engine(bootstrap_servers="127.0.0.1:1", api_version=VERSION)
    engine.manager.cluster.update_metadata(metadata_answer({"orders": 1}, brokers={1: ("127.0.0.1", 1)}))
    engine.net.start()
    yield engine
    engine.stop()


@pytest.fixture
def facade(engine: Engine) -> ConsumerFacade:
    return ConsumerFacade(engine, request_timeout_ms=30_000)


class Noticed(Future):  # type: ignore[misc]
    """A future that says when somebody on the I/O thread has begun to wait for it."""

    __slots__ = ("waited_for",)

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = threading.Event()

    def add_both(self, f: Any, *args: Any, **kwargs: Any) -> Any:
        self.waited_for.set()
        return super().add_both(f, *args, **kwargs)


class Call(threading.Thread):
    """Runs a call on a thread of its own and keeps what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self._call()
        except BaseException as error:
            self.error = error

    def ended(self) -> Call:
        self.join(5)
        assert not self.is_alive(), "it still waits"
        return self


def wait_on(facade: ConsumerFacade, future: Future, timeout_ms: float | None = None) -> Any:
    return facade._manager.run(facade._manager.wait_for, future, timeout_ms)


# -- interrupting: a real KafkaConsumer with no broker to talk to ------------------------------------------------------


def new_consumer(engine: Engine, **options: Any) -> WiredConsumer:
    pool = pool_options({"bootstrap_servers": "127.0.0.1:1", "api_version": VERSION})
    return WiredConsumer(engine, client_options(options, CONSUMER_OPTIONS, "a consumer", pool))


@pytest.fixture
def wired(engine: Engine) -> Iterator[WiredConsumer]:
    wired = new_consumer(engine)
    yield wired
    wired.close(autocommit=False, timeout_ms=1_000)


def passes(wired: WiredConsumer, one_pass: Callable[[], Any]) -> None:
    """Let this be what the consumer does in one pass of a poll."""
    wired._pass = lambda *_, **__: one_pass()
    never_idles(wired)


def never_idles(wired: WiredConsumer) -> None:
    """Make every pass, though there is nothing to do."""
    wired._idling._nothing_to_do = lambda: False  # type: ignore[method-assign]
    wired._idling.is_settled = lambda: False  # type: ignore[method-assign]


def wait_in_poll(wired: WiredConsumer, future: Future) -> Any:
    """A pass that waits as kafka-python's do: a wait that ends without its future is a pass with no records."""
    manager = wired.kafka._manager
    try:
        return wired.kafka._net.run(manager.wait_for, future, None)
    except KafkaTimeoutError:
        return {}


def test_an_interrupt_ends_a_poll_that_waits(wired: WiredConsumer) -> None:
    future = Noticed()
    passes(wired, lambda: wait_in_poll(wired, future))
    poll = Call(lambda: wired.polling(wired.kafka.poll, timeout_ms=600_000))
    assert future.waited_for.wait(5)
    wired.interrupt()
    assert isinstance(poll.ended().error, Interrupted)
    assert not future.is_done, "what it waited for stays in flight, to be taken up again"


class NoticedEvent(Flag):
    """Tells that somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = threading.Event()

    def wait(self, timeout_s: float) -> bool:
        self.waited_for.set()
        return super().wait(timeout_s)


def test_an_interrupt_ends_a_poll_that_has_nothing_to_wait_for(wired: WiredConsumer) -> None:
    wired._idling._stirred = stirred = NoticedEvent()
    poll = Call(lambda: wired.polling(wired.kafka.poll, timeout_ms=600_000))  # no group, no partition
    assert stirred.waited_for.wait(5)
    wired.interrupt()
    assert isinstance(poll.ended().error, Interrupted)


def test_an_interrupt_that_comes_first_ends_the_next_poll_before_it_starts(wired: WiredConsumer) -> None:
    steps: list[str] = []

    def one_pass() -> Any:
        steps.append("pass")
        return {"partition": ["record"]}

    passes(wired, one_pass)
    wired.interrupt()
    with pytest.raises(Interrupted):
        wired.polling(wired.kafka.poll, timeout_ms=600_000)
    assert steps == []
    assert wired.polling(wired.kafka.poll, timeout_ms=600_000) == {"partition": ["record"]}
    assert steps == ["pass"], "one interrupt ends one poll"


def test_an_interrupt_between_looking_and_waiting_is_not_lost(wired: WiredConsumer, engine: Engine) -> None:
    def look_then_wait() -> Any:
        wired.interrupt()
        engine.net.run(lambda: None)  # end_waits has come, and found nothing that waits yet
        return wait_in_poll(wired, Future())

    passes(wired, look_then_wait)
    poll = Call(lambda: wired.polling(wired.kafka.poll, timeout_ms=600_000))
    assert isinstance(poll.ended().error, Interrupted)


def test_an_interrupt_does_not_reach_another_consumer(wired: WiredConsumer, engine: Engine) -> None:
    other = new_consumer(engine)
    try:
        future = Noticed()
        passes(other, lambda: wait_in_poll(other, future))
        poll = Call(lambda: other.polling(other.kafka.poll, timeout_ms=600_000))
        assert future.waited_for.wait(5)
        wired.interrupt()
        engine.net.run(lambda: None)
        engine.net.run(lambda: future.success({"partition": ["record"]}) and None)
        assert poll.ended().error is None
        assert poll.value == {"partition": ["record"]}
    finally:
        other.close(autocommit=False, timeout_ms=1_000)


def test_an_interrupt_stays_for_the_next_poll_where_nobody_polls(facade: ConsumerFacade) -> None:
    facade.end_poll()
    assert wait_on(facade, Future().success("done")) == "done", "a call that is no poll is not ended"
    assert not facade.interrupt.due
    facade.interrupt.check()


def test_interrupting_after_the_pool_is_closed_is_harmless(facade: ConsumerFacade, engine: Engine) -> None:
    engine.stop()
    facade.end_poll()


def test_no_record_is_lost_by_an_interrupt(wired: WiredConsumer) -> None:
    taken: list[dict[str, list[str]]] = [{"partition": ["record"]}]

    def take(*_: Any, **__: Any) -> tuple[dict[str, list[str]], bool]:
        wired.interrupt()  # comes when the records have just left the buffer
        return (taken.pop() if taken else {}), False

    wired.kafka._fetcher.fetched_records = take
    never_idles(wired)
    assert wired.polling(wired.kafka.poll, timeout_ms=600_000) == {"partition": ["record"]}
    with pytest.raises(Interrupted):
        wired.polling(wired.kafka.poll, timeout_ms=600_000)


# -- wait_for ----------------------------------------------------------------------------------------------------------


def test_a_wait_yields_what_the_future_yields(facade: ConsumerFacade) -> None:
    assert wait_on(facade, Future().success("value")) == "value"
    with pytest.raises(NodeNotReadyError):
        wait_on(facade, Future().failure(NodeNotReadyError()))
    assert facade._manager._waits == set()


def test_a_wait_that_runs_out_of_time_leaves_the_future_alone(facade: ConsumerFacade, engine: Engine) -> None:
    future = Future()
    with pytest.raises(KafkaTimeoutError, match="after 1 ms"):
        wait_on(facade, future, 1)
    assert not future.is_done
    assert facade._manager._waits == set()
    engine.net.run(lambda: future.success(None) and None)  # later than the wait: nobody minds


# -- lanes of a consumer -----------------------------------------------------------------------------------------------


class Sent:
    """Keeps what the facade sends, and on which lane; answers nothing."""

    def __init__(self, engine: Engine) -> None:
        self.calls: list[tuple[LaneKey, Any, float]] = []
        manager: Any = engine.manager
        manager.send_on = self

    def __call__(self, key: LaneKey, request: Any, timeout_ms: float) -> Future:
        self.calls.append((key, request, timeout_ms))
        return Future()


def test_short_requests_go_to_the_control_lane(
    facade: ConsumerFacade, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits_module, "time", Clock())  # what a commit has waited is taken off its timeout
    sent = Sent(engine)
    engine.net.run(lambda: facade._manager.send(HeartbeatRequest(), 1) and None)
    engine.net.run(lambda: facade._manager.send(OffsetCommitRequest(), 1, 77) and None)
    engine.net.run(lambda: facade._manager.send(ListOffsetsRequest()) and None)
    assert [call[0] for call in sent.calls] == [LaneKey(1, Lane.CONTROL)] * 3
    assert [call[2] for call in sent.calls] == [30_000, pytest.approx(77), 30_000]


# -- joining -----------------------------------------------------------------------------------------------------------


class Joins:
    """Stands in for the broker's side of the leased connections."""

    def __init__(self, engine: Any, answer: Any) -> None:
        self.seen: list[Any] = []
        self._answer = answer
        engine.send_join = self._send

    async def _send(self, leases: set[LaneKey], node_id: int, request: Any, timeout_ms: float, gone: Any) -> Any:
        self.seen.append(request)
        return self._answer


def know(engine: Engine, *topics: str, **errors: int) -> None:
    """A refresh brings the metadata of these topics."""
    cluster = engine.manager.cluster
    engine.net.run(cluster.metadata_request)
    engine.net.run(cluster.update_metadata, metadata_answer(dict.fromkeys(topics, 1), errors=errors))


def settle(engine: Engine) -> None:
    """Let the I/O thread do all that it can do now: each step may post another."""
    for _ in range(5):
        engine.net.run(lambda: None)


def follower() -> Any:
    return JoinGroupResponse(version=5, error_code=0, generation_id=1, leader="another", member_id="me", members=[])


def leader(*topics: str) -> Any:
    subscription = ConsumerProtocolSubscription(version=1, topics=list(topics), user_data=b"", owned_partitions=[])
    member = JoinGroupResponse.JoinGroupResponseMember(version=5, member_id="me", metadata=subscription.encode())
    return JoinGroupResponse(version=5, error_code=0, generation_id=1, leader="me", member_id="me", members=[member])


def test_a_join_waits_for_its_topics_metadata(facade: ConsumerFacade, engine: Engine) -> None:
    joins = Joins(engine, follower())
    facade.cluster.set_topics(["late", "orders"])
    future = facade._manager.send(JoinGroupRequest(), 1)
    settle(engine)
    assert joins.seen == [], "it joined before it knew its topics"
    know(engine, "orders", "late")
    settle(engine)
    assert len(joins.seen) == 1
    assert future.value.member_id == "me"


def test_a_join_with_known_topics_goes_at_once(facade: ConsumerFacade, engine: Engine) -> None:
    joins = Joins(engine, follower())
    facade.cluster.set_topics(["orders"])
    facade._manager.send(JoinGroupRequest(), 1)
    settle(engine)
    assert len(joins.seen) == 1


def test_the_leader_waits_for_the_topics_of_all_members(facade: ConsumerFacade, engine: Engine) -> None:
    joins = Joins(engine, leader("orders", "others"))
    facade.cluster.set_topics(["orders"])
    future = facade._manager.send(JoinGroupRequest(), 1)
    settle(engine)
    assert len(joins.seen) == 1
    assert not future.is_done, "it would assign without the partitions of the other members' topics"
    know(engine, "orders", "others")
    settle(engine)
    assert future.succeeded()


def test_the_coordinator_has_heard_of_the_metadata_before_the_join_ends(facade: ConsumerFacade, engine: Engine) -> None:
    Joins(engine, leader("orders"))
    heard: list[str] = []
    facade.cluster.add_listener(lambda view: heard.append("metadata"))
    facade.cluster.set_topics(["orders"])
    future = facade._manager.send(JoinGroupRequest(), 1)
    future.add_callback(lambda _: heard.append("joined"))
    settle(engine)
    assert heard[0] == "metadata"
    assert heard[-1] == "joined"


def synced(
    facade: ConsumerFacade, engine: Engine, generation_now: int, error_code: int = 0
) -> tuple[Future, list[str]]:
    """The answer to a SyncGroup of generation 5, when the coordinator is at ``generation_now``."""
    rejoins: list[str] = []
    generation = SimpleNamespace(generation_id=generation_now)
    facade.bind(
        SimpleNamespace(
            _generation=generation,
            request_rejoin=lambda: rejoins.append("rejoin"),
            _do_join_and_sync_async=None,
            group_id="billing",
        )
    )
    Joins(engine, SyncGroupResponse(version=3, error_code=error_code, assignment=b"mine"))
    request = SyncGroupRequest(group_id="billing", generation_id=5)

    async def send() -> Any:
        return await facade._manager.send(request, 1)

    future = facade._manager.call_soon(send)
    settle(engine)
    return future, rejoins


def test_a_sync_answer_is_passed_on(facade: ConsumerFacade, engine: Engine) -> None:
    future, rejoins = synced(facade, engine, generation_now=5)
    assert future.value.assignment == b"mine"
    assert rejoins == []


@pytest.mark.parametrize("generation_now", [-1, 6])
def test_a_sync_answer_of_a_generation_that_is_over_means_join_again(
    facade: ConsumerFacade, engine: Engine, generation_now: int
) -> None:
    future, rejoins = synced(facade, engine, generation_now)
    assert isinstance(future.exception, RebalanceInProgressError)
    assert rejoins == ["rejoin"]


def test_a_sync_that_is_refused_is_passed_on_though_its_generation_is_over(
    facade: ConsumerFacade, engine: Engine
) -> None:
    future, rejoins = synced(facade, engine, generation_now=-1, error_code=FencedInstanceIdError.errno)
    assert future.value.error_code == FencedInstanceIdError.errno
    assert rejoins == []


# -- leaving -----------------------------------------------------------------------------------------------------------


def test_closing_a_consumer_leaves_the_pool_to_the_others(facade: ConsumerFacade, engine: Engine) -> None:
    other = ConsumerFacade(engine, request_timeout_ms=30_000)
    other.cluster.set_topics(["bills"])
    facade.cluster.set_topics(["orders"])
    facade.close()
    assert engine.net.run(lambda: "still running") == "still running"
    assert {topic.name for topic in engine.manager.cluster.metadata_request().topics} == {"bills"}


def test_a_consumer_that_kafka_python_refuses_leaves_no_trace(engine: Engine) -> None:
    options = {"auto_offset_reset": "sideways", "group_id": None, "group_instance_id": "static"}
    with pytest.raises(Exception, match="group_instance_id requires group_id"):
        new_consumer(engine, **options)
    assert engine.manager.cluster._views == {}


def test_a_group_with_more_members_than_can_join_is_refused() -> None:
    engine = new_engine(bootstrap_servers="127.0.0.1:1", api_version=VERSION, max_in_flight_requests=1)
    engine.net.start()
    try:
        first = new_consumer(engine, group_id="billing")
        other = new_consumer(engine, group_id="another")
        with pytest.raises(ConfigurationError, match=r"max_in_flight_requests=1 cannot work: .* works is 2"):
            new_consumer(engine, group_id="billing")
        first.close(autocommit=False, timeout_ms=1_000)
        new_consumer(engine, group_id="billing").close(autocommit=False, timeout_ms=1_000)
        other.close(autocommit=False, timeout_ms=1_000)
    finally:
        engine.stop()


@pytest.mark.parametrize(("group", "siblings"), [("billing", 1), ("another", 0)])
def test_a_member_that_joins_tells_those_of_its_group(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, group: str, siblings: int
) -> None:
    member, other = new_consumer(engine, group_id="billing"), new_consumer(engine, group_id=group)
    manager = member._facade._manager  # type: ignore[union-attr]
    later: list[Any] = []

    async def send_join(*_: Any) -> None:
        raise KafkaError("it is sent")

    monkeypatch.setattr(engine, "send_join", send_join)
    monkeypatch.setattr(engine.net, "call_later", lambda _, call: later.append(call))
    with pytest.raises(KafkaError, match="it is sent"):
        engine.net.run(manager._join, JoinGroupRequest(group_instance_id=None), 1, 1_000)
    assert later.count(manager._tell_siblings) == siblings
    assert len(engine.siblings(manager)) == siblings
    monkeypatch.undo()
    for each in (member, other):
        each.close(autocommit=False, timeout_ms=1_000)


@pytest.mark.parametrize("how", ["a wakeup", "a sibling that joins"])
def test_only_polls_are_ended_early(wired: WiredConsumer, engine: Engine, how: str) -> None:
    know(engine, "orders")
    answer = Future()
    call = Call(lambda: engine.net.run(wired.kafka._manager.wait_for, answer, None))
    while not wired.kafka._manager._waits:
        settle(engine)
    if how == "a wakeup":
        wired.interrupt()
    else:
        engine.net.run(wired.kafka._manager.end_waits)
    settle(engine)
    engine.net.run(lambda: answer.success("here") and None)
    assert call.ended().error is None
    assert call.value == "here"


def test_what_was_kept_of_a_paused_partition_comes_after_it_is_resumed(wired: WiredConsumer) -> None:
    partition = TopicPartition("orders", 0)
    wired.kafka.assign([partition])
    wired.kafka.seek(partition, 0)
    kept = [record(0), record(1)]
    fetcher = wired.kafka._fetcher
    fetcher._paused_partition_records[partition] = Records(partition, kept)
    fetcher._next_partition_records = Records(TopicPartition("orders", 1), [])  # another partition's, read to its end
    assert wired.kafka.poll(timeout_ms=0) == {partition: kept}


def record(offset: int) -> Any:
    return SimpleNamespace(offset=offset)


class Records:
    """Stands in for what kafka-python keeps of a partition's last fetch."""

    def __init__(self, partition: TopicPartition, records: list[Any]) -> None:
        self.topic_partition = partition
        self.leader_epoch = -1
        self.next_fetch_offset = 0
        self._records = records

    def __bool__(self) -> bool:
        return bool(self._records)

    def take(self, count: int) -> list[Any]:
        taken, self._records = self._records[:count], self._records[count:]
        self.next_fetch_offset += len(taken)
        return taken

    def drain(self) -> None:
        self._records = []


def test_what_asks_again_at_once_when_interrupted_leaves_the_event_loop_to_others(
    facade: ConsumerFacade, engine: Engine
) -> None:
    manager, begun, over = facade._manager, threading.Event(), threading.Event()

    async def reset_positions() -> None:  # as kafka-python's fetcher does, beside a poll
        while not over.is_set():
            begun.set()
            with suppress(KafkaTimeoutError):
                await manager.wait_for(Future(), 30_000)

    facade.interrupt.poller = threading.get_ident()
    facade.end_poll()
    manager.call_soon(reset_positions)
    assert begun.wait(5)
    poll = Call(lambda: engine.net.run(lambda: "done"))
    try:
        assert poll.ended().value == "done"
    finally:
        over.set()
