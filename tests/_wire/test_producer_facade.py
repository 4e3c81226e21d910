from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import (
    Cancelled,
    KafkaConnectionError,
    NodeNotReadyError,
    RequestTimedOutError,
    SaslAuthenticationFailedError,
    TopicAuthorizationFailedError,
    UnknownBrokerIdError,
)
from kafka.future import Future
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from pooledkafka._wire.engine import Engine
from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka._wire.producer_facade import ProducerFacade
from tests._wire.engines import new_engine as make_engine
from tests.scripted_broker import ScriptedBroker, closed_port, metadata_answer

CONTROL, PRODUCE = LaneKey(1, Lane.CONTROL), LaneKey(1, Lane.PRODUCE)


def new_engine(port: int = 1) -> Engine:
    engine = make_engine(bootstrap_servers=f"127.0.0.1:{port}")
    engine.manager.cluster.update_metadata(metadata_answer({"orders": 1}, brokers={1: ("127.0.0.1", port)}))
    engine.net.start()
    return engine


def facade_of(engine: Engine, max_in_flight: int = 5) -> ProducerFacade:
    return ProducerFacade(engine, request_timeout_ms=30_000, max_in_flight=max_in_flight)


class Wire:
    """Stands in for the lanes: keeps what was sent until the test answers it, on the I/O thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.sent: list[tuple[LaneKey, Any, Future, int]] = []
        self.raises: Exception | None = None
        manager: Any = engine.manager
        manager.send_on = self._send_on

    def _send_on(self, key: LaneKey, request: Any, timeout_ms: float) -> Future:
        if self.raises is not None:
            raise self.raises
        future = Future()
        self.sent.append((key, request, future, threading.get_ident()))
        return future

    def settle(self) -> None:
        """Wait until the I/O thread has taken what was posted to it."""
        self._engine.net.run(lambda: None)

    def answer(self, number: int, value: Any) -> None:
        self._engine.net.run(lambda: self.sent[number][2].success(value) and None)

    def lane(self, **state: Any) -> None:
        known = {"connected": True, "paused": set(), "_throttle_time": 0.0, "in_flight_requests": []}
        self._engine.manager._conns[PRODUCE] = SimpleNamespace(**{**known, **state})


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = new_engine()
    yield engine
    engine.manager._conns.clear()
    engine.stop()


@pytest.fixture
def wire(engine: Engine) -> Wire:
    return Wire(engine)


@pytest.fixture
def facade(engine: Engine) -> ProducerFacade:
    return facade_of(engine)


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker({"orders": 1}) as broker:
        yield broker


def on_thread(call: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> bool:
    thread.join(5)
    return not thread.is_alive()


# -- sending -----------------------------------------------------------------------------------------------------------


def test_requests_go_out_on_the_io_thread_on_their_lane_and_in_order(facade: ProducerFacade, wire: Wire) -> None:
    requests = [ProduceRequest(), InitProducerIdRequest(), ProduceRequest()]
    for request in requests:
        facade.send(1, request)
    wire.settle()
    assert [sent[0] for sent in wire.sent] == [PRODUCE, CONTROL, PRODUCE]
    assert all(sent[1] is request for sent, request in zip(wire.sent, requests, strict=True))
    assert threading.get_ident() not in {sent[3] for sent in wire.sent}


def test_completions_run_on_the_thread_that_polls(facade: ProducerFacade, wire: Wire) -> None:
    ran: list[tuple[Any, int]] = []
    future = facade.send(1, ProduceRequest())
    future.add_callback(lambda value: ran.append((value, threading.get_ident())))
    wire.settle()
    wire.answer(0, "response")
    assert not future.is_done, "answered on the I/O thread; the Sender has not looked yet"
    assert facade.in_flight_request_count() == 1
    facade.poll(timeout_ms=0)
    assert ran == [("response", threading.get_ident())]
    assert facade.in_flight_request_count() == 0


@pytest.mark.parametrize("raised", [TopicAuthorizationFailedError("no"), NodeNotReadyError(1)])
def test_what_the_lane_raises_fails_the_future(facade: ProducerFacade, wire: Wire, raised: Exception) -> None:
    wire.raises = raised
    future = facade.send(1, ProduceRequest())
    facade.poll(timeout_ms=5_000, future=future)
    assert future.exception is raised
    assert facade.in_flight_request_count() == 0


@pytest.mark.parametrize("request_class", [ProduceRequest, InitProducerIdRequest])
def test_a_refused_login_ends_no_producer(facade: ProducerFacade, wire: Wire, request_class: Any) -> None:
    wire.raises = SaslAuthenticationFailedError("no")
    future = facade.send(1, request_class())
    facade.poll(timeout_ms=5_000, future=future)
    assert isinstance(future.exception, KafkaConnectionError), "kafka-python would never send anything again"


@pytest.mark.parametrize(
    "error", [RequestTimedOutError("late"), NodeNotReadyError("lost"), UnknownBrokerIdError("gone"), Cancelled()]
)
def test_what_is_not_answered_does_not_end_a_transactional_producer(
    facade: ProducerFacade, wire: Wire, error: Exception
) -> None:
    wire.raises = error
    futures = [facade.send(1, request) for request in (InitProducerIdRequest(), ProduceRequest())]
    facade.poll(timeout_ms=5_000, future=futures[1])
    asked_again, produced = (future.exception for future in futures)
    assert isinstance(asked_again, KafkaConnectionError), "the one after which kafka-python asks again"
    assert repr(error) in str(asked_again)
    assert produced is error, "it knows what to do with batches"


def test_a_failed_request_is_no_longer_in_flight(facade: ProducerFacade, wire: Wire, engine: Engine) -> None:
    future = facade.send(1, ProduceRequest())
    wire.settle()
    engine.net.run(lambda: wire.sent[0][2].failure(KafkaConnectionError("gone")) and None)
    facade.poll(timeout_ms=5_000, future=future)
    assert isinstance(future.exception, KafkaConnectionError)
    assert facade.in_flight_request_count(1) == 0


def test_after_the_pool_is_closed_a_send_fails(engine: Engine) -> None:
    facade = facade_of(engine)
    engine.stop()
    future = facade.send(1, ProduceRequest())
    assert not future.is_done, "completed by poll, as ever"
    facade.poll(timeout_ms=5_000, future=future)
    assert isinstance(future.exception, KafkaConnectionError)
    assert "closed" in str(future.exception)
    assert facade.in_flight_request_count() == 0
    with pytest.raises(KafkaConnectionError, match="closed"):
        facade.maybe_connect(1)
    with pytest.raises(KafkaConnectionError, match="closed"):
        facade.await_ready(1)


# -- polling -----------------------------------------------------------------------------------------------------------


def test_a_poll_is_ended_by_an_answer(facade: ProducerFacade, wire: Wire) -> None:
    future = facade.send(1, ProduceRequest())
    wire.settle()
    poller = on_thread(facade.poll)
    wire.answer(0, "response")
    assert ended(poller)
    assert future.value == "response"


def test_a_poll_is_ended_by_a_wakeup(facade: ProducerFacade) -> None:
    poller = on_thread(lambda: facade.poll(timeout_ms=float("inf")))
    facade.wakeup()
    assert ended(poller)


def test_a_poll_is_ended_by_new_metadata(engine: Engine, facade: ProducerFacade) -> None:
    poller = on_thread(lambda: facade.poll(timeout_ms=float("inf")))
    engine.net.run(lambda: engine.manager.cluster.update_metadata(metadata_answer({"orders": 1})))
    assert ended(poller)


def test_a_poll_for_one_future_goes_on_until_that_one(facade: ProducerFacade, wire: Wire) -> None:
    other, wanted = facade.send(1, ProduceRequest()), facade.send(1, ProduceRequest())
    completed = threading.Event()
    other.add_callback(lambda _: completed.set())
    wire.settle()
    poller = on_thread(lambda: facade.poll(future=wanted))
    wire.answer(0, "other")
    assert completed.wait(5)
    facade.wakeup()
    assert not wanted.is_done
    wire.answer(1, "wanted")
    assert ended(poller)
    assert wanted.value == "wanted"


def test_a_poll_for_a_future_ends_with_its_time(facade: ProducerFacade) -> None:
    facade.poll(timeout_ms=0, future=Future())


# -- readiness ---------------------------------------------------------------------------------------------------------


def test_ready_means_connected_and_not_throttled(facade: ProducerFacade, wire: Wire) -> None:
    assert not facade.is_ready(1), "no lane yet"
    wire.lane(connected=False)
    assert not facade.is_ready(1)
    wire.lane(paused={"throttle"})
    assert not facade.is_ready(1)
    wire.lane()
    assert facade.is_ready(1)


def test_the_limit_in_flight_is_each_producers_own(engine: Engine, wire: Wire) -> None:
    wire.lane()
    first, second = facade_of(engine, max_in_flight=2), facade_of(engine, max_in_flight=2)
    futures = [first.send(1, ProduceRequest()) for _ in range(2)]
    assert not first.is_ready(1)
    assert first.is_ready(1) is False
    assert second.is_ready(1), "what another producer has in flight does not count"
    assert first.in_flight_request_count(1) == first.in_flight_request_count() == 2
    assert first.in_flight_request_count(2) == second.in_flight_request_count() == 0
    wire.settle()
    wire.answer(0, "response")
    assert not first.is_ready(1), "not before its completion has run"
    first.poll(timeout_ms=5_000, future=futures[0])
    assert first.is_ready(1)


def test_it_never_tells_the_sender_to_look_again_at_once(facade: ProducerFacade, engine: Engine, wire: Wire) -> None:
    assert facade.connection_delay(1) > 0, "no lane"
    wire.lane(connected=False)
    assert facade.connection_delay(1) > 0, "connecting"
    wire.lane(_throttle_time=time.monotonic() + 3)
    assert 1_000 < facade.connection_delay(1) <= 3_000, "milliseconds of throttling"
    wire.lane(paused={"buffer"})
    assert facade.connection_delay(1) > 0, "its buffer is full"
    for _ in range(5):
        facade.send(1, ProduceRequest())
    assert facade.connection_delay(1) > 0, "at its limit"
    engine.manager._conns.clear()
    engine.net.run(lambda: engine.manager.update_backoff(PRODUCE) and None)
    assert facade_of(engine).connection_delay(1) > 1, "in backoff"


def test_connecting_wakes_the_sender_when_the_lane_is_up(broker: ScriptedBroker) -> None:
    engine = new_engine(broker.port)
    try:
        facade = facade_of(engine)
        facade.maybe_connect(1, wakeup=False)
        facade.poll(timeout_ms=5_000)
        assert facade.is_ready(1)
        assert [key for key, _ in engine.manager.connections()] == [PRODUCE]
        facade.maybe_connect(1)
        engine.net.run(lambda: None)
        assert broker.connections == 1, "it is there already"
    finally:
        engine.stop()


def test_connecting_wakes_the_sender_when_it_has_failed() -> None:
    with closed_port() as port:
        engine = new_engine(port)
        try:
            facade = facade_of(engine)
            for _ in range(2):  # refused, then in backoff
                facade.maybe_connect(1)
                waiter = on_thread(facade.poll)
                assert ended(waiter), "the Sender would wait for ever"
                engine.net.run(lambda: None)  # the failure is told a moment before the lane is gone
            assert not facade.is_ready(1)
        finally:
            engine.stop()


def test_transactions_wait_for_the_control_lane(broker: ScriptedBroker) -> None:
    engine = new_engine(broker.port)
    try:
        facade = facade_of(engine)
        assert facade.await_ready(1, timeout_ms=5_000) is True
        assert [key for key, _ in engine.manager.connections()] == [CONTROL]
        assert facade.await_ready(1, timeout_ms=0) is True
        assert broker.connections == 1, "it is up already"
    finally:
        engine.stop()


def test_a_broker_that_refuses_is_not_waited_for() -> None:
    with closed_port() as port:
        engine = new_engine(port)
        try:
            facade = facade_of(engine)
            for _ in range(2):  # refused, then in backoff
                assert facade.await_ready(1, timeout_ms=600_000) is False, "raised, the Sender would drop its request"
        finally:
            engine.stop()


def test_closing_one_producer_leaves_the_lanes_to_the_others(
    facade: ProducerFacade, engine: Engine, wire: Wire
) -> None:
    wire.lane()
    other = facade_of(engine)
    other.cluster.set_topics(["bills"])
    facade.cluster.set_topics(["orders"])
    facade.close()
    assert other.is_ready(1)
    assert {topic.name for topic in engine.manager.cluster.metadata_request().topics} == {"bills"}


def test_whatever_a_send_raises_fails_its_future(engine: Engine) -> None:
    wire, facade = Wire(engine), facade_of(engine)
    wire.raises = RuntimeError("Transport closed for writes")  # as kafka-python's transport says while it closes
    future = facade.send(1, ProduceRequest())
    wire.settle()
    facade.poll(timeout_ms=0)
    assert isinstance(future.exception, RuntimeError)
    assert facade.in_flight_request_count() == 0
