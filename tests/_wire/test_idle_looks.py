"""What an idle poll of a real KafkaConsumer sees when it looks, and what it does about it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka.coordinator.base import MemberState
from kafka.errors import KafkaError
from kafka.future import Future
from kafka.protocol.consumer import OffsetCommitRequest, OffsetCommitResponse
from kafka.structs import OffsetAndMetadata

from pooledkafka._wire import Interrupted
from pooledkafka._wire.engine import Engine
from tests._wire.reading import ORDERS, OTHERS, Log, Reading, metadata
from tests._wire.test_consumer_facade import Call, NoticedEvent, Records, record, settle
from tests.scripted_broker import ScriptedBroker

LATER = 10**9  # no time of the monotonic clock


@pytest.fixture
def member(engine: Engine) -> Iterator[Reading]:
    """Of a group, as far as its coordinator is known; its partition is its own choice, so that it need not join."""
    member = Reading(engine, ORDERS, group_id="billing")
    yield member
    member.close()


@pytest.fixture
def asked(member: Reading, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What calls of the member would wait for the event loop to do; none of it is done."""
    asked: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(engine.net, "run", lambda call, *args: asked.append(call.__name__))
        yield asked


def test_only_where_a_position_is_lacking_the_event_loop_is_asked_for_it(member: Reading, asked: list[str]) -> None:
    coordinator, subscription = member.kafka._coordinator, member.kafka._subscription
    subscription.assign_from_user([OTHERS])
    coordinator.refresh_committed_offsets_if_needed(timeout_ms=0)
    assert asked == ["refresh_committed_offsets_if_needed_async"]
    subscription.request_offset_reset(OTHERS)  # the leader is asked for it, and not the group
    assert coordinator.refresh_committed_offsets_if_needed(timeout_ms=0) is True
    subscription.seek(OTHERS, 5)
    assert coordinator.refresh_committed_offsets_if_needed(timeout_ms=0) is True
    assert len(asked) == 1


def test_the_join_looks_for_the_coordinator_by_itself(
    member: Reading, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator, subscription = member.kafka._coordinator, member.kafka._subscription
    monkeypatch.setattr(coordinator, "coordinator_unknown", lambda: True)
    coordinator.ensure_coordinator_ready(timeout_ms=0)
    assert asked == ["ensure_coordinator_ready_async"], "it has chosen its partition itself, and joins no group"
    subscription.unsubscribe()
    subscription.subscribe(topics=["orders"])
    assert coordinator.ensure_coordinator_ready(timeout_ms=0) is True
    assert len(asked) == 1
    subscription.unsubscribe()
    subscription.subscribe(pattern="ord.*")
    coordinator.ensure_coordinator_ready(timeout_ms=0)
    assert len(asked) == 2, "else each poll would ask for the metadata of all topics before it finds no coordinator"


# -- what is fetched ---------------------------------------------------------------------------------------------------


def test_a_position_that_moves_is_fetched_at_once(reading: Reading, log: Log) -> None:
    log.append(0, count=3)
    reading.come_to_rest()
    reading.kafka.seek(ORDERS, 0)
    reading.wired.stir()
    assert reading.poll(5_000) == {ORDERS: [0, 1, 2]}, "the fetch that waits at the end is in its way"


def test_a_partition_that_is_added_is_fetched_at_once(reading: Reading, log: Log) -> None:
    log.append(1, count=2)
    reading.come_to_rest()
    reading.assign(ORDERS, OTHERS)
    assert reading.poll(5_000) == {OTHERS: [0, 1]}


def test_another_partition_of_the_same_node_is_fetched_at_once(reading: Reading, log: Log) -> None:
    log.append(1, count=2)
    reading.come_to_rest()
    reading.assign(OTHERS)
    assert reading.poll(5_000) == {OTHERS: [0, 1]}
    reading.come_to_rest()
    assert reading.fetching == {OTHERS}


@pytest.mark.parametrize("left", [(), (ORDERS,)], ids=["none", "one"])
def test_what_is_not_assigned_any_more_is_not_fetched_on(
    reading: Reading, engine: Engine, broker: ScriptedBroker, left: tuple[Any, ...]
) -> None:
    reading.assign(ORDERS, OTHERS)
    reading.come_to_rest()
    assert reading.fetching == {ORDERS, OTHERS}
    reading.assign(*left)
    reading.poll_until(lambda: reading.fetching == set(left))
    reading.come_to_rest()
    assert reading.fetching == set(left)


def test_a_fetch_that_is_released_is_taken_up_again(reading: Reading, engine: Engine, log: Log) -> None:
    reading.come_to_rest()
    fetches = engine.tally.logical_fetches
    engine.net.run(engine.fetching.release, reading.wired._facade.owner)  # type: ignore[union-attr]
    assert reading.idling._stirred.is_set()
    assert reading.manager.fetching == {}
    reading.come_to_rest()
    assert engine.tally.logical_fetches == fetches + 1
    log.append(0)
    assert reading.poll(5_000) == {ORDERS: [0]}


def test_one_consumers_release_leaves_the_others_fetch(reading: Reading, engine: Engine, log: Log) -> None:
    other = Reading(engine, ORDERS)
    try:
        other.come_to_rest()
        reading.come_to_rest()
        reading.kafka.seek(ORDERS, 0)
        reading.assign(ORDERS, OTHERS)
        reading.come_to_rest()
        assert other.idling.wait(0)
        assert not other.idling._stirred.is_set()
        log.append(0)
        assert other.poll(5_000) == {ORDERS: [0]}
    finally:
        other.close()


# -- paused and buffered -----------------------------------------------------------------------------------------------


def test_what_comes_for_a_paused_partition_is_kept_until_it_is_resumed(reading: Reading, log: Log) -> None:
    reading.come_to_rest()
    reading.kafka.pause(ORDERS)
    reading.wired.stir()
    assert reading.idling.wait(0), "its fetch goes on"
    log.append(0)
    kept = reading.kafka._fetcher._paused_completed_fetches
    reading.poll_until(lambda: ORDERS in kept)
    reading.passes = 0
    assert reading.poll(50) == {}
    assert reading.passes == 0, "what is kept is nothing to do"
    reading.kafka.resume(ORDERS)
    reading.wired.stir()
    assert reading.poll(5_000) == {ORDERS: [0]}


@pytest.mark.parametrize("kept", ["_paused_completed_fetches", "_paused_partition_records"])
@pytest.mark.parametrize(("change", "quiet"), [("none", True), ("resumed", False), ("lost", False)])
def test_what_is_kept_of_a_partition_is_nothing_to_do_while_it_is_paused(
    reading: Reading, kept: str, change: str, quiet: bool
) -> None:
    reading.come_to_rest()
    reading.kafka.pause(ORDERS)
    getattr(reading.kafka._fetcher, kept)[ORDERS] = object()
    if change == "resumed":
        reading.kafka.resume(ORDERS)
    if change == "lost":
        reading.assign()
    reading.wired.stir()
    assert reading.idling.wait(0) is quiet


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_completed_fetches", deque(["a fetch"])),
        ("_next_partition_records", Records(ORDERS, [record(0)])),
        ("_next_in_line_exception_metadata", "an error"),
        ("_cached_list_offsets_exception", KafkaError()),
        ("_cached_log_truncation", KafkaError()),
    ],
)
def test_what_the_next_pass_would_return_or_raise_is_something_to_do(
    reading: Reading, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    reading.come_to_rest()
    with monkeypatch.context() as patch:
        patch.setattr(reading.kafka._fetcher, name, value)
        reading.wired.stir()
        assert reading.idling.wait(0) is False
    assert reading.idling.wait(0) is True


def test_records_that_were_read_to_their_end_are_nothing_to_do(reading: Reading) -> None:
    reading.come_to_rest()
    reading.kafka._fetcher._next_partition_records = Records(ORDERS, [])
    reading.wired.stir()
    assert reading.idling.wait(0) is True


# -- positions ---------------------------------------------------------------------------------------------------------


def no_position(reading: Reading) -> None:
    reading.state()._position = None


def to_be_validated(reading: Reading) -> None:
    reading.state()._awaiting_validation = True


def being_revoked(reading: Reading) -> None:
    reading.state().mark_pending_revocation()


@pytest.mark.parametrize("change", [no_position, to_be_validated, being_revoked])
def test_a_partition_that_cannot_be_fetched_yet_is_something_to_do(
    reading: Reading, change: Callable[[Reading], None]
) -> None:
    reading.come_to_rest()
    change(reading)
    reading.wired.stir()
    assert reading.idling.wait(0) is False


def test_a_leader_of_a_newer_epoch_has_the_position_validated(
    reading: Reading, engine: Engine, broker: ScriptedBroker
) -> None:
    reading.come_to_rest()
    state = reading.state()
    state.position = OffsetAndMetadata(state.position.offset, "", 0)
    engine.net.run(engine.manager.cluster.update_metadata, metadata(broker, leader_epoch=1))
    assert reading.idling._stirred.wait(5)
    assert reading.idling.wait(0) is False
    assert state.awaiting_validation


# -- groups ------------------------------------------------------------------------------------------------------------


def committed(request: Any) -> Any:
    topics = [
        OffsetCommitResponse.OffsetCommitResponseTopic(
            name=topic.name,
            partitions=[
                OffsetCommitResponse.OffsetCommitResponseTopic.OffsetCommitResponsePartition(
                    partition_index=partition.partition_index, error_code=0
                )
                for partition in topic.partitions
            ],
        )
        for topic in request.topics
    ]
    return OffsetCommitResponse(version=request.API_VERSION, throttle_time_ms=0, topics=topics)


def test_an_idle_poll_commits_when_that_is_due(engine: Engine, broker: ScriptedBroker) -> None:
    broker.on(OffsetCommitRequest, committed)
    member = Reading(engine, ORDERS, group_id="billing", enable_auto_commit=True, auto_commit_interval_ms=50)
    try:
        poll = Call(lambda: member.poll(600_000))
        broker.wait_for(OffsetCommitRequest, count=3)
        member.wired.interrupt()
        assert isinstance(poll.ended().error, Interrupted)
    finally:
        member.close()


def test_a_heartbeat_that_is_late_does_not_keep_a_pass_from_waiting(member: Reading) -> None:
    coordinator = member.kafka._coordinator
    coordinator.next_auto_commit_deadline = LATER
    member.come_to_rest()
    coordinator.state = MemberState.STABLE
    coordinator.heartbeat.last_reset = -LATER
    assert coordinator.heartbeat.should_heartbeat()
    member.state().mark_pending_revocation()  # so that a pass is made; its fetch is on its way and is not answered
    member.idling._retry_ms = 600_000
    member.idling._stirred = stirred = NoticedEvent()
    member.wired.stir()
    poll = Call(lambda: member.poll(600_000))
    try:
        assert stirred.waited_for.wait(5)
        assert member.passes == 1
    finally:
        member.wired.interrupt()
        assert isinstance(poll.ended().error, Interrupted)


def test_a_commit_that_is_due_is_something_to_do(member: Reading) -> None:
    coordinator = member.kafka._coordinator
    coordinator.next_auto_commit_deadline = LATER
    member.come_to_rest()
    coordinator.next_auto_commit_deadline = 0.0
    assert member.idling.wait(600_000) is False
    coordinator.next_auto_commit_deadline = LATER
    assert member.idling.wait(0) is True


def test_the_callback_of_a_commit_is_called_by_an_idle_poll(member: Reading, broker: ScriptedBroker) -> None:
    broker.on(OffsetCommitRequest, committed)
    member.kafka._coordinator.next_auto_commit_deadline = LATER
    member.come_to_rest()
    called = threading.Event()
    member.kafka.commit_async({ORDERS: OffsetAndMetadata(0, "", -1)}, callback=lambda *_: called.set())
    poll = Call(lambda: member.poll(600_000))
    assert called.wait(5)
    member.wired.interrupt()
    assert isinstance(poll.ended().error, Interrupted)


def test_a_commit_whose_callback_was_not_called_is_something_to_do(member: Reading) -> None:
    coordinator = member.kafka._coordinator
    coordinator.next_auto_commit_deadline = LATER
    member.come_to_rest()
    coordinator.completed_offset_commits.append((lambda *_: None, {}, None))
    member.wired.stir()
    assert member.idling.wait(0) is False
    member.come_to_rest()
    assert not coordinator.completed_offset_commits


def test_an_unknown_coordinator_is_something_to_do(member: Reading) -> None:
    member.kafka._coordinator.next_auto_commit_deadline = LATER
    member.come_to_rest()
    member.kafka._coordinator.coordinator_dead("for the test")
    member.wired.stir()
    assert member.idling.wait(0) is False


def test_without_a_group_there_is_no_coordinator_to_look_for(reading: Reading) -> None:
    reading.come_to_rest()
    reading.kafka._coordinator.coordinator_id = None
    reading.wired.stir()
    assert reading.idling.wait(0) is True


@pytest.fixture
def subscriber(engine: Engine) -> Iterator[Reading]:
    """As a member is after its group has given it a partition."""
    subscriber = Reading(engine, group_id="billing", enable_auto_commit=False)
    kafka = subscriber.kafka
    kafka.unsubscribe()
    kafka.subscribe(["orders"])
    kafka._subscription.assign_from_subscribed([ORDERS])
    kafka.seek(ORDERS, 0)
    kafka._coordinator.rejoin_needed = False
    kafka._coordinator._joined_subscription = {"orders"}
    subscriber.come_to_rest()
    yield subscriber
    subscriber.close()


def test_a_group_that_is_to_be_joined_again_is_something_to_do(subscriber: Reading, engine: Engine) -> None:
    subscriber.idling._stirred = stirred = NoticedEvent()
    coordinator = subscriber.kafka._coordinator
    looked = Future()
    subscriber.wired._pass = lambda *_, **__: looked.success("pass") and {ORDERS: []}
    poll = Call(lambda: subscriber.poll(600_000))
    assert stirred.waited_for.wait(5)
    coordinator.request_rejoin()
    engine.net.run(subscriber.manager.end_waits)  # as a sibling that joins does
    poll.ended()
    assert looked.is_done


def test_another_subscription_is_something_to_do(subscriber: Reading) -> None:
    subscriber.kafka.subscribe(["others"])
    subscriber.wired.stir()
    assert subscriber.idling.wait(0) is False


def test_a_partition_that_the_group_takes_away_is_released(subscriber: Reading, log: Log) -> None:
    subscriber.kafka._subscription.assign_from_subscribed([])
    subscriber.wired.stir()
    subscriber.poll_until(lambda: not subscriber.manager.fetching)


def test_a_heartbeat_that_failed_is_raised_by_an_idle_poll(subscriber: Reading, engine: Engine) -> None:
    coordinator = subscriber.kafka._coordinator
    subscriber.idling._stirred = stirred = NoticedEvent()
    failing = Future()

    async def heartbeats() -> None:
        await failing

    coordinator._heartbeat_loop_future = subscriber.manager.call_soon(heartbeats)
    poll = Call(lambda: subscriber.poll(600_000))
    assert stirred.waited_for.wait(5)
    settle(engine)
    engine.net.run(lambda: failing.failure(KafkaError("fenced")) and None)
    assert "fenced" in str(poll.ended().error)


def test_an_idle_poll_says_that_the_consumer_is_alive(subscriber: Reading) -> None:
    heartbeat = subscriber.kafka._coordinator.heartbeat
    heartbeat.last_poll = before = 1.0
    assert subscriber.poll(0) == {}
    assert heartbeat.last_poll > before
    assert subscriber.passes == 0
