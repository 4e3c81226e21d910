"""Idle polls of a real KafkaConsumer over an engine and a scripted broker: what wakes them, and what they let go."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import KafkaError, NoError, RebalanceInProgressError
from kafka.future import Future
from kafka.protocol.consumer import HeartbeatRequest, HeartbeatResponse, OffsetFetchRequest

from pooledkafka._fetch import Position
from pooledkafka._wire import Interrupted
from pooledkafka._wire.engine import Engine
from pooledkafka._wire.fetching import ConsumerFetch
from tests._wire.reading import ORDERS, Log, Reading, metadata
from tests._wire.test_consumer_facade import Call, NoticedEvent, new_consumer, settle
from tests.scripted_broker import ScriptedBroker

# -- doing nothing -----------------------------------------------------------------------------------------------------


def test_an_idle_poll_makes_no_pass_and_no_fetch(reading: Reading, engine: Engine) -> None:
    reading.come_to_rest()
    fetches = engine.tally.logical_fetches
    assert reading.poll(200) == {}, "ten times fetch_max_wait_ms"
    assert reading.passes == 0
    assert engine.tally.logical_fetches == fetches


def test_an_idle_poll_is_none_of_kafka_pythons(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    reading.come_to_rest()
    monkeypatch.setattr(reading.kafka, "poll", None)
    assert reading.poll(50) == {}


def test_an_idle_poll_takes_its_time_though_it_is_stirred_for_nothing(reading: Reading) -> None:
    reading.come_to_rest()
    reading.idling._stirred = stirred = NoticedEvent()
    poll = Call(lambda: reading.poll(600_000))
    for _ in range(3):
        assert stirred.waited_for.wait(5)
        stirred.waited_for.clear()
        reading.idling.stir()
    assert stirred.waited_for.wait(5)
    reading.wired.interrupt()
    assert isinstance(poll.ended().error, Interrupted)
    assert reading.passes == 0


def test_an_idle_poll_without_time_returns_at_once(reading: Reading) -> None:
    reading.come_to_rest()
    reading.idling._stirred = stirred = NoticedEvent()
    assert reading.poll(0) == {}
    assert not stirred.waited_for.is_set()
    assert reading.passes == 0


@pytest.mark.parametrize("max_records", [0, -1, "5"])
def test_what_makes_no_sense_is_refused_by_an_idle_poll_as_well(reading: Reading, max_records: Any) -> None:
    reading.come_to_rest()
    with pytest.raises((ValueError, TypeError), match="max_records"):
        reading.wired.poll(50, max_records)


@pytest.mark.parametrize(("expired", "waits_ms"), [(False, 1), (True, 0)])
def test_the_last_part_of_a_millisecond_is_waited_out(reading: Reading, expired: bool, waits_ms: int) -> None:
    waited: list[float] = []
    reading.idling.wait = lambda timeout_ms: waited.append(timeout_ms) or True  # type: ignore[func-returns-value,method-assign]
    assert reading.kafka._poll_once(SimpleNamespace(expired=expired, timeout_ms=0), 500) == {}
    assert waited == [waits_ms]


def test_a_record_ends_an_idle_poll(reading: Reading, log: Log) -> None:
    reading.come_to_rest()
    reading.idling._stirred = stirred = NoticedEvent()
    poll = Call(lambda: reading.poll(600_000))
    assert stirred.waited_for.wait(5)
    log.append(0, count=2)
    assert poll.ended().value == {ORDERS: [0, 1]}
    assert reading.passes == 0, "what the wait has brought is handed over first"


def test_a_record_ends_a_short_idle_poll_that_is_none_of_kafka_pythons(
    reading: Reading, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading.come_to_rest()
    monkeypatch.setattr(reading.kafka, "poll", None)
    reading.idling._stirred = stirred = NoticedEvent()
    poll = Call(lambda: reading.poll(2_000))  # it ends before the next look is due
    assert stirred.waited_for.wait(5)
    log.append(0, count=2)
    assert poll.ended().value == {ORDERS: [0, 1]}


def test_records_that_are_there_are_taken_without_a_pass(reading: Reading, log: Log) -> None:
    reading.come_to_rest()
    log.append(0, count=5)
    reading.kafka.config["max_poll_records"] = 2
    assert reading.poll(5_000) == {ORDERS: [0, 1]}
    assert reading.poll(5_000) == {ORDERS: [2, 3]}
    assert reading.poll(0) == {ORDERS: [4]}
    assert reading.passes == 0


def test_a_pass_hears_of_what_is_no_fetch(reading: Reading, log: Log) -> None:
    reading.assign()
    reading.come_to_rest()
    reading.idling._retry_ms = 600_000
    reading.idling._stirred = stirred = NoticedEvent()
    fetch = Call(lambda: reading.idling.fetch_records(timeout_ms=600_000))
    assert stirred.waited_for.wait(5)
    reading.wired.stir()
    assert fetch.ended().value == ({}, False), "it must not say that there is nothing to wait for"


def test_a_pass_of_a_poll_waits_for_whatever_stirs(reading: Reading) -> None:
    reading.come_to_rest()
    reading.state().mark_pending_revocation()  # so that a pass is made; its fetch is on its way and is not answered
    reading.idling._retry_ms = 600_000
    reading.idling._stirred = stirred = NoticedEvent()
    reading.wired.stir()
    poll = Call(lambda: reading.poll(600_000))
    assert stirred.waited_for.wait(5)
    assert reading.passes == 1
    reading.wired.interrupt()
    assert isinstance(poll.ended().error, Interrupted)


def test_a_pass_returns_what_comes_while_it_waits(reading: Reading, log: Log) -> None:
    reading.come_to_rest()
    reading.idling._retry_ms = 600_000
    reading.idling._stirred = stirred = NoticedEvent()
    fetch = Call(lambda: reading.idling.fetch_records(timeout_ms=600_000))
    assert stirred.waited_for.wait(5)
    log.append(0)
    records, idle = fetch.ended().value
    assert [each.offset for each in records[ORDERS]] == [0]
    assert idle is False


# -- what stirs --------------------------------------------------------------------------------------------------------


def a_fetch_answered(reading: Reading, broker: ScriptedBroker, log: Log) -> None:
    log.append(0)


def beat(reading: Reading, broker: ScriptedBroker, error_code: int) -> None:
    """Send a heartbeat, which is answered with that."""
    broker.on(HeartbeatRequest, lambda request: HeartbeatResponse(version=request.API_VERSION, error_code=error_code))
    request = HeartbeatRequest(group_id="billing", generation_id=1, member_id="me", group_instance_id=None)
    reading.engine.net.run(reading.manager.send, request, 1)


def a_heartbeat_that_brings_news(reading: Reading, broker: ScriptedBroker, log: Log) -> None:
    beat(reading, broker, RebalanceInProgressError.errno)


def another_answer_that_is_none(reading: Reading, broker: ScriptedBroker, log: Log) -> None:
    reading.engine.net.run(lambda: reading.manager.send(HeartbeatRequest(), 7) and None)  # a node that nobody knows


def a_task_that_ends(reading: Reading, broker: ScriptedBroker, log: Log) -> None:
    async def task() -> None:
        raise KafkaError

    reading.manager.call_soon(task)


def new_metadata(reading: Reading, broker: ScriptedBroker, log: Log) -> None:
    reading.engine.net.run(reading.engine.manager.cluster.update_metadata, metadata(broker))


def an_interrupt(reading: Reading, broker: ScriptedBroker, log: Log) -> None:
    reading.wired.interrupt()


def a_sibling_that_joins(reading: Reading, broker: ScriptedBroker, log: Log) -> None:
    reading.engine.net.run(reading.manager.end_waits)


def a_call_of_its_user(reading: Reading, broker: ScriptedBroker, log: Log) -> None:
    reading.wired.stir()


@pytest.mark.parametrize(
    "source",
    [
        a_fetch_answered,
        a_heartbeat_that_brings_news,
        another_answer_that_is_none,
        a_task_that_ends,
        new_metadata,
        an_interrupt,
        a_sibling_that_joins,
        a_call_of_its_user,
    ],
)
def test_what_could_give_it_something_to_do_stirs_it(
    reading: Reading, broker: ScriptedBroker, log: Log, source: Callable[[Reading, ScriptedBroker, Log], None]
) -> None:
    reading.come_to_rest()
    assert not reading.idling._stirred.is_set()
    source(reading, broker, log)
    assert reading.idling._stirred.wait(5)


def test_a_heartbeat_that_is_all_well_does_not_wake_it(reading: Reading, broker: ScriptedBroker) -> None:
    reading.come_to_rest()
    beat(reading, broker, NoError.errno)
    settle(reading.engine)
    assert not reading.idling._stirred.is_set()


def test_subscribing_stirs_it(engine: Engine) -> None:
    wired = new_consumer(engine)
    try:
        seen: list[Any] = []
        wired.stir = lambda: seen.append(wired.kafka.subscription())  # type: ignore[method-assign]
        wired.subscribe(None, None, topics=["orders"])
        assert seen == [{"orders"}]
    finally:
        wired.close(autocommit=False, timeout_ms=1_000)


def test_after_its_pool_has_ended_an_interrupt_stirs_it_and_there_is_nothing_to_release(engine: Engine) -> None:
    wired = new_consumer(engine)
    wired.close(autocommit=False, timeout_ms=1_000)
    engine.stop()
    wired._idling._stirred.clear()
    wired.interrupt()
    assert wired._idling._stirred.is_set()
    wired._idling._release()


def test_it_is_stirred_when_kafka_python_has_dealt_with_an_answer(reading: Reading, engine: Engine) -> None:
    answer = Future()
    engine.manager.send_on = lambda *_: answer  # type: ignore[method-assign]
    in_order: list[str] = []
    reading.manager.stir = lambda: in_order.append("stirred")

    async def kafka_python() -> None:
        await reading.manager.send(OffsetFetchRequest(), 1)
        in_order.append("dealt with")

    engine.net.call_soon_with_future(kafka_python)
    settle(engine)
    assert in_order == []
    engine.net.run(lambda: answer.success("answer") and None)
    settle(engine)
    assert in_order == ["dealt with", "stirred"]


def test_it_is_stirred_when_whoever_awaits_a_task_has_gone_on(reading: Reading, engine: Engine) -> None:
    in_order: list[str] = []
    reading.manager.stir = lambda: in_order.append("stirred")

    async def task() -> None:
        in_order.append("task")

    async def kafka_python() -> None:
        await reading.manager.call_soon(task)
        in_order.append("dealt with")

    engine.net.run(kafka_python)
    settle(engine)
    assert in_order == ["task", "dealt with", "stirred"]


def test_it_is_stirred_when_all_have_heard_of_new_metadata(
    reading: Reading, broker: ScriptedBroker, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bool] = []
    reading.come_to_rest()
    view: Any = reading.manager.cluster
    # They are called in no particular order; here this one comes last.
    in_order = [*view._listeners, lambda _: heard.append(reading.idling._stirred.is_set())]
    with monkeypatch.context() as patched:
        patched.setattr(view, "_listeners", in_order)
        engine.net.run(engine.manager.cluster.update_metadata, metadata(broker))
        settle(engine)
    assert heard == [False]
    assert reading.idling._stirred.is_set()


def test_it_is_stirred_when_a_fetch_is_in_nobodys_way_any_more(reading: Reading, log: Log) -> None:
    reading.come_to_rest()
    seen: list[Any] = []
    fetcher = reading.kafka._fetcher

    def stir() -> None:
        seen.append((dict(reading.manager.fetching), set(fetcher._nodes_with_pending_fetch_requests)))
        seen.append(len(fetcher._completed_fetches))
        reading.idling.stir()

    assert {node: list(each) for node, each in reading.manager.fetching.items()} == {1: [ORDERS]}
    reading.manager.stir = stir
    log.append(0)
    assert reading.idling._stirred.wait(5)
    assert seen == [({}, set()), 1]


def test_the_answer_of_an_older_fetch_leaves_the_newer_one(reading: Reading, engine: Engine) -> None:
    answered: list[Callable[[], None]] = []

    def send(owner: int, request: Any, node_id: int, done: Callable[[], None]) -> Any:
        answered.append(done)
        return Future()

    engine.fetching.send = send  # type: ignore[assignment,method-assign]
    for offset in (5, 6):
        reading.manager._fetch(ConsumerFetch({ORDERS: Position(offset)}), 1)
    answered[0]()
    assert reading.manager.fetching == {1: {ORDERS: Position(6)}}
    answered[1]()
    assert reading.manager.fetching == {}


# -- an interrupt ------------------------------------------------------------------------------------------------------


def test_an_interrupt_is_there_when_it_stirs(reading: Reading) -> None:
    seen: list[bool] = []
    reading.manager.stir = lambda: seen.append(reading.manager._interrupt.asked)
    reading.wired.interrupt()
    assert seen[0] is True


def test_an_interrupt_between_the_look_and_the_wait_ends_the_poll(reading: Reading) -> None:
    reading.come_to_rest()
    reading.wired.stir()
    looks: list[str] = []

    def look() -> bool:
        if not looks:
            reading.wired.interrupt()
        looks.append("look")
        return True

    reading.idling._nothing_to_do = look  # type: ignore[method-assign]
    assert isinstance(Call(lambda: reading.poll(600_000)).ended().error, Interrupted)
    assert looks == ["look"]
