from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import KafkaConnectionError, NodeNotReadyError, UnknownBrokerIdError
from kafka.future import Future
from kafka.protocol.admin import DeleteGroupsRequest
from kafka.protocol.consumer import HeartbeatRequest, HeartbeatResponse
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest

from pooledkafka._wire import introductions
from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka._wire.loop import Loop
from pooledkafka._wire.manager import SharedManager, as_lane_key
from pooledkafka._wire.permits import Permits
from pooledkafka._wire.reachability import Reachability
from pooledkafka._wire.tally import Tally
from tests._wire.engines import new_engine
from tests.scripted_broker import Hangup, ScriptedBroker, closed_port, metadata_answer

CONTROL, PRODUCE = LaneKey(1, Lane.CONTROL), LaneKey(1, Lane.PRODUCE)
LEASED, OTHER = LaneKey(1, Lane.LEASED), LaneKey(1, Lane.LEASED, 1)


def heartbeat() -> Any:
    return HeartbeatRequest(group_id="g", generation_id=1, member_id="m")


class Harness:
    """A manager whose event loop the test's own thread drives."""

    def __init__(self, *ports: int, permits: Permits | None = None) -> None:
        self.net = Loop(client_id="test")
        self.opened: list[LaneKey] = []
        self.throttled: list[tuple[LaneKey, int]] = []
        self.manager = SharedManager(
            self.net,
            allow_auto_create_topics=True,
            on_connection=self._opening,
            on_throttled=lambda key, milliseconds: self.throttled.append((key, milliseconds)),
            on_login=lambda key: None,
            permits=permits or Permits(None),
            tally=Tally(),
            bootstrap_servers="127.0.0.1:1",
            reconnect_backoff_ms=60_000,
            reconnect_backoff_max_ms=60_000,
            request_timeout_ms=5_000,
        )
        brokers = {number: ("127.0.0.1", port) for number, port in enumerate(ports, start=1)}
        self.manager.cluster.update_metadata(metadata_answer(brokers=brokers))

    def _opening(self, key: LaneKey, _: Any) -> None:
        if key.lane is not Lane.BOOTSTRAP:  # which a lost connection lets kafka-python open, to refresh its metadata
            self.opened.append(key)

    def connect(self, key: LaneKey) -> Any:
        connection = self.manager.get_connection(key)
        self.net.poll(timeout_ms=5_000, future=connection.init_future)
        return connection

    def wait(self, future: Future) -> Any:
        self.net.poll(timeout_ms=5_000, future=future)
        assert future.is_done, "no answer"
        if future.exception is not None:
            raise future.exception
        return future.value

    def round_trip(self) -> None:
        """Let the loop do what is ready."""
        self.net.poll(timeout_ms=0)

    def close(self) -> None:
        self.manager.close()
        self.net.drain()
        self.net.close()


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker() as broker:
        broker.on(HeartbeatRequest, lambda request: HeartbeatResponse(version=request.API_VERSION, error_code=0))
        yield broker


@pytest.fixture
def harness(broker: ScriptedBroker) -> Iterator[Harness]:
    harness = Harness(broker.port)
    yield harness
    harness.close()


@pytest.fixture
def refused_port() -> Iterator[int]:
    with closed_port() as port:
        yield port


# -- a connection per broker and lane ----------------------------------------------------------------------------------


def test_each_lane_has_one_connection_of_its_own(harness: Harness, broker: ScriptedBroker) -> None:
    control, produce = harness.connect(CONTROL), harness.connect(PRODUCE)
    assert control.connected
    assert produce.connected
    assert control is not produce
    assert harness.connect(CONTROL) is control
    assert harness.opened == [CONTROL, PRODUCE], "told of each, once"
    assert broker.connections == 2
    assert dict(harness.manager.connections()) == {CONTROL: control, PRODUCE: produce}
    assert harness.manager.connection(CONTROL) is control


def test_closing_one_lane_leaves_the_other(harness: Harness) -> None:
    harness.connect(CONTROL)
    produce = harness.connect(PRODUCE)
    harness.manager.close_connection(CONTROL, "idle")
    harness.round_trip()
    assert harness.manager.connection(CONTROL) is None
    assert produce.connected
    harness.manager.close_connection(CONTROL, "idle")  # nothing to close is no error


def test_an_unknown_broker_is_an_answer_and_no_exception(harness: Harness) -> None:
    with pytest.raises(UnknownBrokerIdError):
        harness.wait(harness.manager.send_on(LaneKey(99, Lane.CONTROL), heartbeat()))


def test_a_node_id_of_kafka_pythons_means_the_control_lane(harness: Harness) -> None:
    response = harness.wait(harness.manager.send(heartbeat(), 1))
    assert response.error_code == 0
    assert harness.opened == [CONTROL]


def test_without_a_node_any_broker_is_asked(harness: Harness) -> None:
    harness.wait(harness.manager.send(MetadataRequest(topics=[], allow_auto_topic_creation=True)))
    assert harness.opened == [CONTROL]


@pytest.mark.parametrize(("key", "named"), [(CONTROL, CONTROL), ("bootstrap-2", LaneKey(-1, Lane.BOOTSTRAP, 2))])
def test_bootstrap_connections_are_a_lane_too(key: Any, named: LaneKey) -> None:
    assert as_lane_key(key) == named


# -- sending on a shared lane ------------------------------------------------------------------------------------------


def test_what_is_sent_while_the_lane_connects_waits_for_it(harness: Harness) -> None:
    future = harness.manager.send_on(CONTROL, heartbeat())
    assert not future.is_done
    assert harness.wait(future).error_code == 0


def test_a_lane_takes_more_requests_than_a_client_of_its_own_would(harness: Harness, broker: ScriptedBroker) -> None:
    harness.connect(CONTROL)
    answers = threading.Event()

    def slowly(request: Any) -> Any:
        assert answers.wait(5)
        return HeartbeatResponse(version=request.API_VERSION, error_code=0)

    broker.on(HeartbeatRequest, slowly)
    futures = [harness.manager.send_on(CONTROL, heartbeat()) for _ in range(20)]
    assert not any(future.is_done for future in futures), "kafka-python would have failed the sixth"
    answers.set()
    assert [harness.wait(future).error_code for future in futures] == [0] * 20


@pytest.mark.parametrize("why", ["throttle", "buffer"])
def test_a_send_on_a_paused_lane_waits_instead_of_failing(harness: Harness, broker: ScriptedBroker, why: str) -> None:
    connection = harness.connect(CONTROL)
    connection.pause(why)
    future = harness.manager.send_on(CONTROL, heartbeat())
    harness.round_trip()
    assert not future.is_done
    assert connection.parser.bytes_to_send, "kept back, not written"
    connection.unpause(why)
    assert harness.wait(future).error_code == 0
    assert len(broker.requests(HeartbeatRequest)) == 1


def test_a_request_that_waited_on_a_lane_that_dies_goes_to_the_next(harness: Harness, broker: ScriptedBroker) -> None:
    connection = harness.connect(CONTROL)
    connection.pause("throttle")
    future = harness.manager.send_on(CONTROL, heartbeat())
    broker.hang_up()
    assert harness.wait(future).error_code == 0
    assert harness.manager.connection(CONTROL) is not connection
    assert len(broker.requests(HeartbeatRequest)) == 1


def test_a_request_that_may_not_be_repeated_fails_with_its_lane(harness: Harness, broker: ScriptedBroker) -> None:
    harness.connect(CONTROL).pause("throttle")
    future = harness.manager.send_on(CONTROL, DeleteGroupsRequest(groups_names=["g"], max_version=1))
    broker.hang_up()
    with pytest.raises(KafkaConnectionError):
        harness.wait(future)


def test_each_request_has_its_own_timeout(harness: Harness, broker: ScriptedBroker) -> None:
    connection = harness.connect(CONTROL)
    broker.on(HeartbeatRequest, lambda request: None)
    harness.manager.send_on(CONTROL, heartbeat(), 1_000)
    connection.pause("throttle")
    harness.manager.send_on(CONTROL, heartbeat(), 900_000)
    short, long = (timeout_at - sent_at for _, _, sent_at, timeout_at, _ in connection.in_flight_requests)
    assert short == pytest.approx(1, abs=0.5)
    assert long == pytest.approx(900, abs=0.5), "a paused lane keeps to it too"
    harness.round_trip()  # writes the first, so that nothing is left to write when the test closes the lane


# -- permits -----------------------------------------------------------------------------------------------------------


def test_no_more_requests_are_in_flight_than_there_are_permits(broker: ScriptedBroker) -> None:
    permits = Permits(2)
    harness = Harness(broker.port, permits=permits)
    try:
        harness.wait(harness.manager.open(CONTROL))
        assert permits.held == 0, "the permit to connect was given back"
        futures = [harness.manager.send_on(CONTROL, heartbeat()) for _ in range(5)]
        in_flight = harness.connect(CONTROL).in_flight_requests
        assert len(in_flight) == 2
        for future in futures:
            future.add_both(lambda _: most.append(len(in_flight)))
        most: list[int] = []
        assert [harness.wait(future).error_code for future in futures] == [0] * 5
        assert max(most) <= 2
        assert (permits.held, permits.waiting) == (0, 0)
    finally:
        harness.close()


def test_a_request_that_fails_gives_its_permit_back(refused_port: int) -> None:
    permits = Permits(1)
    harness = Harness(refused_port, permits=permits)
    try:
        for future in [harness.manager.send_on(CONTROL, heartbeat()) for _ in range(3)]:
            with pytest.raises((KafkaConnectionError, NodeNotReadyError)):
                harness.wait(future)
        with pytest.raises(NodeNotReadyError):
            harness.wait(harness.manager.open(PRODUCE))
        with pytest.raises(UnknownBrokerIdError):
            harness.wait(harness.manager.send_on(LaneKey(99, Lane.CONTROL), heartbeat()))
        assert (permits.held, permits.waiting) == (0, 0)
    finally:
        harness.close()


# -- backoff, per broker -----------------------------------------------------------------------------------------------


def test_while_a_broker_is_down_its_lanes_do_not_each_try(broker: ScriptedBroker, refused_port: int) -> None:
    harness = Harness(refused_port, broker.port)
    try:
        assert not harness.connect(CONTROL).connected
        with pytest.raises(NodeNotReadyError):
            harness.manager.get_connection(PRODUCE)
        assert harness.opened == [CONTROL], "the produce lane was not tried"
        assert harness.manager.connection_delay(PRODUCE) > 0
        with pytest.raises(NodeNotReadyError) as refused:
            harness.wait(harness.manager.send_on(PRODUCE, heartbeat()))
        assert refused.value.args == ("broker 1, lane produce",), "kafka-python formats it with %"
        assert harness.connect(LaneKey(2, Lane.PRODUCE)).connected, "another broker has nothing to do with it"
    finally:
        harness.close()


def test_lanes_that_fail_in_one_outage_count_as_one_failure(harness: Harness) -> None:
    first = harness.manager.update_backoff(CONTROL)
    failures, until, _ = harness.manager._backoff[1]
    assert failures == 1
    assert 0 < harness.manager.update_backoff(PRODUCE) <= first
    assert harness.manager._backoff[1][:2] == (failures, until), "neither counted again nor put off"


def test_the_next_outage_backs_off_longer(harness: Harness) -> None:
    harness.manager.update_backoff(CONTROL)
    failures, _, setup_ms = harness.manager._backoff[1]
    harness.manager._backoff[1] = (failures, 0.0, setup_ms)  # its time is over
    harness.manager.update_backoff(PRODUCE)
    assert harness.manager._backoff[1][0] == 2
    assert harness.manager.socket_connection_setup_timeout_ms(CONTROL) == harness.manager._backoff[1][2]


def test_a_lane_that_comes_up_ends_the_backoff_for_all(harness: Harness) -> None:
    produce = harness.manager.get_connection(PRODUCE)
    harness.manager.update_backoff(CONTROL)
    harness.net.poll(timeout_ms=5_000, future=produce.init_future)
    harness.round_trip()
    assert produce.connected
    assert harness.manager.connection_delay(CONTROL) == 0
    assert set(harness.manager._backoff) == set()


def test_a_lane_that_was_refused_after_tcp_ends_no_backoff(harness: Harness, broker: ScriptedBroker) -> None:
    def hang_up(request: Any) -> Any:
        raise Hangup

    broker.on(ApiVersionsRequest, hang_up)
    engine = new_engine(bootstrap_servers="127.0.0.1:1", reconnect_backoff_ms=1, reconnect_backoff_max_ms=1)
    engine.manager.cluster.update_metadata(metadata_answer(brokers={1: ("127.0.0.1", broker.port)}))
    engine.net.start()
    try:
        for failures in (1, 2, 3):
            with pytest.raises(KafkaConnectionError):
                engine.net.run(engine.manager.open, CONTROL)
            for _ in range(3):
                engine.net.run(lambda: None)  # what kafka-python does right after the failure
            assert engine.manager._backoff[1][0] == failures
            while engine.manager.connection_delay(CONTROL) > 0:
                engine.net.run(lambda: None)
    finally:
        engine.stop()


def test_a_lane_that_is_up_stays_usable_while_the_broker_refuses_new_ones(harness: Harness) -> None:
    connection = harness.connect(CONTROL)
    harness.manager.update_backoff(PRODUCE)
    assert harness.manager.get_connection(CONTROL) is connection
    assert harness.manager.connection_delay(CONTROL) == 0
    assert harness.wait(harness.manager.send_on(CONTROL, heartbeat())).error_code == 0
    with pytest.raises(NodeNotReadyError):
        harness.manager.get_connection(PRODUCE)


# -- one attempt for all lanes -----------------------------------------------------------------------------------------


def test_when_connections_were_lost_one_attempt_finds_out_for_all_lanes(
    harness: Harness, broker: ScriptedBroker
) -> None:
    for key in (CONTROL, PRODUCE):
        harness.connect(key)
    broker.hang_up()
    while harness.manager.connections():
        harness.round_trip()
    harness.opened.clear()
    futures = [harness.manager.send_on(key, heartbeat()) for key in (CONTROL, PRODUCE, LEASED)]
    opening = harness.manager.open(OTHER)
    assert harness.opened == [CONTROL]
    with pytest.raises(NodeNotReadyError):
        harness.manager.get_connection(PRODUCE)
    assert [harness.wait(future).error_code for future in futures] == [0] * 3
    harness.wait(opening)
    assert harness.opened[0] == CONTROL
    assert sorted(harness.opened) == sorted([CONTROL, PRODUCE, LEASED, OTHER])


def test_what_waits_for_the_attempt_fails_with_it(broker: ScriptedBroker, refused_port: int) -> None:
    harness = Harness(refused_port)
    try:
        harness.connect(CONTROL)
        harness.manager.reset_backoff(1)
        harness.opened.clear()
        futures = [harness.manager.send_on(key, heartbeat()) for key in (CONTROL, PRODUCE, LEASED)]
        for future in futures:
            with pytest.raises(KafkaConnectionError):
                harness.wait(future)
        assert harness.opened == [CONTROL]
    finally:
        harness.close()


def test_an_attempt_that_comes_to_nothing_holds_up_the_others_no_longer_than_the_longest_backoff(
    harness: Harness, broker: ScriptedBroker
) -> None:
    harness.manager._reachability = Reachability(harness.net, harness.manager, held_up_s=0.05)
    harness.connect(CONTROL)
    broker.hang_up()
    while harness.manager.connections():
        harness.round_trip()
    harness.opened.clear()
    silent = threading.Event()

    def only_the_first(request: Any) -> Any:
        if not silent.is_set():
            silent.set()
            return None
        return answer(request)

    answer = broker._api_versions
    broker.on(ApiVersionsRequest, only_the_first)
    began = time.monotonic()
    stuck = harness.manager.send_on(CONTROL, heartbeat())
    future = harness.manager.send_on(PRODUCE, heartbeat())
    harness.net.poll(timeout_ms=5, future=future)
    assert harness.opened == [CONTROL]
    assert harness.wait(future).error_code == 0
    assert time.monotonic() - began >= 0.05
    assert not stuck.is_done


def test_what_waits_for_an_attempt_that_nobody_needs_any_more_makes_the_next(
    harness: Harness, broker: ScriptedBroker
) -> None:
    harness.connect(CONTROL)
    broker.hang_up()
    while harness.manager.connections():
        harness.round_trip()
    harness.opened.clear()
    abandoned = harness.manager.send_on(LEASED, heartbeat())
    future = harness.manager.send_on(CONTROL, heartbeat())
    harness.manager.close_connection(LEASED, "client closed")
    assert harness.wait(future).error_code == 0
    assert abandoned.failed()
    assert harness.opened == [LEASED, CONTROL]


def test_what_waits_for_the_attempt_ends_with_the_manager(harness: Harness, broker: ScriptedBroker) -> None:
    harness.connect(CONTROL)
    broker.hang_up()
    while harness.manager.connections():
        harness.round_trip()
    futures = [harness.manager.send_on(key, heartbeat()) for key in (CONTROL, PRODUCE)]
    harness.opened.clear()
    harness.manager.close()
    harness.round_trip()
    assert all(future.failed() for future in futures)
    assert harness.opened == []


def test_a_connection_that_was_closed_on_purpose_raises_no_doubt(harness: Harness) -> None:
    harness.connect(CONTROL)
    harness.manager.close_connection(CONTROL, "idle")
    harness.round_trip()
    harness.opened.clear()
    harness.manager.send_on(CONTROL, heartbeat())
    harness.manager.send_on(PRODUCE, heartbeat())
    assert harness.opened == [CONTROL, PRODUCE], "at once"


# -- which broker to ask -----------------------------------------------------------------------------------------------


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    monkeypatch.setattr(random, "shuffle", lambda nodes: None)
    harness = Harness(1, 2, 3)
    yield harness
    harness.manager._conns.clear()
    harness.close()


def lane(waiting: int = 0, *, connected: bool = True, paused: bool = False, for_s: float = 0.0) -> Any:
    request = (1, Future(), time.monotonic() - for_s, 0.0, None)  # as kafka-python keeps it
    return SimpleNamespace(
        connected=connected, paused={"throttle"} if paused else set(), in_flight_requests=[request] * waiting
    )


def test_an_idle_control_lane_is_taken_first(three: Harness) -> None:
    three.manager._conns.update({LaneKey(1, Lane.CONTROL): lane(2), LaneKey(3, Lane.CONTROL): lane(0)})
    assert three.manager.least_loaded_node() == 3


def test_else_the_least_busy_that_is_not_throttled(three: Harness) -> None:
    lanes = {1: lane(9), 2: lane(1, paused=True), 3: lane(4)}
    three.manager._conns.update({LaneKey(node, Lane.CONTROL): connection for node, connection in lanes.items()})
    assert three.manager.least_loaded_node() == 3


def test_a_broker_that_may_not_answer_is_taken_last(three: Harness) -> None:
    lanes = {1: lane(1, for_s=5.0), 2: lane(0, connected=False), 3: lane(9)}
    three.manager._conns.update({LaneKey(node, Lane.CONTROL): connection for node, connection in lanes.items()})
    assert three.manager.least_loaded_node() == 3
    assert three.manager.least_loaded_node({3}) == 2
    assert three.manager.least_loaded_node({2, 3}) == 1
    assert three.manager.least_loaded_node({1, 2, 3}) is None


def test_what_other_lanes_do_does_not_matter(three: Harness) -> None:
    three.manager._conns.update(
        {
            LaneKey(1, Lane.PRODUCE): lane(50),
            LaneKey(1, Lane.CONTROL): lane(0),
            LaneKey(2, Lane.CONTROL): lane(1),
            LaneKey(3, Lane.CONTROL): lane(1),
        }
    )
    assert three.manager.least_loaded_node() == 1


def test_a_broker_in_backoff_is_not_asked(three: Harness) -> None:
    three.manager.update_backoff(LaneKey(1, Lane.PRODUCE))
    three.manager.update_backoff(LaneKey(2, Lane.CONTROL))
    assert three.manager.least_loaded_node() == 3
    three.manager.update_backoff(LaneKey(3, Lane.CONTROL))
    assert three.manager.least_loaded_node() is None


def test_with_no_broker_to_ask_a_send_fails_softly(three: Harness) -> None:
    for node_id in (1, 2, 3):
        three.manager.update_backoff(node_id)
    assert three.manager.send(heartbeat()).failed()


# -- whatever happens, nothing hangs -----------------------------------------------------------------------------------


def test_a_send_that_raises_gives_its_permit_back(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = new_engine(bootstrap_servers="127.0.0.1:1", max_in_flight_requests=1)
    engine.net.start()

    def raises(*_: Any) -> Any:
        raise RuntimeError("Transport closed for writes")

    monkeypatch.setattr(engine.manager, "_send_now", raises)
    try:
        with pytest.raises(RuntimeError, match="closed for writes"):
            engine.net.run(engine.manager.send_on, CONTROL, heartbeat())
        assert engine.permits.held == 0
    finally:
        engine.stop()


def test_closing_does_not_wait_for_a_broker_that_does_not_read(harness: Harness, broker: ScriptedBroker) -> None:
    may_answer = threading.Event()
    broker.on(HeartbeatRequest, lambda request: may_answer.wait(5) and None)
    connection = harness.connect(CONTROL)
    large = HeartbeatRequest(group_id="g" * 30_000, generation_id=1, member_id="m")
    futures = []
    while not connection.transport._write_buffer:
        futures.append(harness.manager.send_on(CONTROL, large))
        harness.round_trip()
    harness.manager.close()
    harness.round_trip()
    may_answer.set()
    assert connection.closed
    assert all(future.failed() for future in futures)


# -- which connections ask for versions --------------------------------------------------------------------------------


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, no time passes between two answers."""
    monkeypatch.setattr(introductions, "time", SimpleNamespace(monotonic=lambda: 5.0))


def asked(broker: ScriptedBroker) -> int:
    return len(broker.requests(ApiVersionsRequest))


@pytest.mark.usefixtures("at_once")
def test_a_leased_connection_of_a_broker_that_answers_is_used_without_a_word(
    harness: Harness, broker: ScriptedBroker
) -> None:
    harness.wait(harness.manager.send_on(CONTROL, heartbeat()))
    before = asked(broker)
    answers = [harness.manager.send_on(key, heartbeat()) for key in (LEASED, OTHER)]
    assert [harness.wait(answer).error_code for answer in answers] == [0, 0]
    assert asked(broker) == before
    assert broker.connections == 3


@pytest.mark.usefixtures("at_once")
def test_other_lanes_ask(harness: Harness, broker: ScriptedBroker) -> None:
    harness.wait(harness.manager.send_on(CONTROL, heartbeat()))
    before = asked(broker)
    harness.connect(LaneKey(1, Lane.PRODUCE))
    assert asked(broker) == before + 1


@pytest.mark.usefixtures("at_once")
def test_what_one_was_told_serves_the_next(harness: Harness, broker: ScriptedBroker) -> None:
    for number in range(3):
        harness.wait(harness.manager.send_on(LaneKey(1, Lane.LEASED, number), heartbeat()))
    assert asked(broker) == 1
    assert broker.connections == 3


@pytest.mark.usefixtures("at_once")
def test_the_first_that_a_full_broker_cuts_off_is_the_only_one_that_did_not_ask(
    harness: Harness, broker: ScriptedBroker
) -> None:
    harness.wait(harness.manager.send_on(CONTROL, heartbeat()))

    def full(request: Any) -> Any:
        raise Hangup

    broker.on(HeartbeatRequest, full)
    with pytest.raises(KafkaConnectionError):
        harness.wait(harness.manager.send_on(LEASED, heartbeat()))
    harness.manager._backoff.clear()
    before = asked(broker)
    harness.connect(OTHER)
    assert asked(broker) == before + 1
