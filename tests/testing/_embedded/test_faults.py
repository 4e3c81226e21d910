"""Faults as code: what `intercept` does to requests."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError, NotLeaderForPartitionError, RequestTimedOutError
from kafka.protocol.metadata import ApiVersionsRequest
from kafka.protocol.producer import ProduceRequest

from pooledkafka.testing import Delay, Drop, EmbeddedKafka, Error, Half, Hold, Never
from tests.testing._embedded.wire import Wire, fetch, fetched, produce


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=1) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def topic(cluster: EmbeddedKafka, request: pytest.FixtureRequest) -> str:
    return cluster.create_topic(re.sub(r"\W", "-", request.node.name))


def code(response: Any) -> int:
    return int(response.responses[0].partition_responses[0].error_code)


def end_offset(cluster: EmbeddedKafka, topic: str) -> int:
    return cluster.high_watermark_of(topic)


def test_a_held_request_has_no_effect_until_it_is_released(cluster: EmbeddedKafka, wire: Wire, topic: str) -> None:
    with cluster.intercept("Produce", Hold()) as hold:
        wire.send(produce(topic, b"a"), 9)
        hold.wait_for(1)
        assert end_offset(cluster, topic) == 0
        hold.release()
        assert code(wire.receive()[1]) == 0
    assert end_offset(cluster, topic) == 1


def test_a_held_answer_comes_after_the_effect(cluster: EmbeddedKafka, wire: Wire, topic: str) -> None:
    with cluster.intercept("Produce", Hold(answer=True)) as hold:
        wire.send(produce(topic, b"a"), 9)
        with Wire(cluster.address_of(1)) as other:
            assert fetched(other.ask(fetch(topic, max_wait_ms=5_000), 11)) == [b"a"]
        assert cluster.most_outstanding() >= 1
        hold.release()
        assert code(wire.receive()[1]) == 0


def test_removing_a_fault_lets_go_what_it_holds(cluster: EmbeddedKafka, wire: Wire, topic: str) -> None:
    with cluster.intercept("Produce", Hold()) as hold:
        wire.send(produce(topic, b"a"), 9)
        hold.wait_for(1)
    assert code(wire.receive()[1]) == 0


def test_a_held_request_holds_what_is_behind_it_on_its_connection(
    cluster: EmbeddedKafka, wire: Wire, topic: str
) -> None:
    with cluster.intercept(ProduceRequest, Hold(), client_id="wire") as hold:
        first = wire.send(produce(topic, b"a"), 9)
        second = wire.send(ApiVersionsRequest(), 0)
        hold.wait_for(1)
        with Wire(cluster.address_of(1), "other") as other:
            assert other.ask(ApiVersionsRequest(), 0).error_code == 0
            assert code(other.ask(produce(topic, b"b"), 9)) == 0
        hold.release()
        assert [wire.receive()[0], wire.receive()[0]] == [first, second]


def test_an_error_is_answered_without_effect(cluster: EmbeddedKafka, wire: Wire, topic: str) -> None:
    with cluster.intercept("Produce", Error(RequestTimedOutError), times=1):
        assert code(wire.ask(produce(topic, b"a"), 9)) == RequestTimedOutError.errno
        assert end_offset(cluster, topic) == 0
        assert code(wire.ask(produce(topic, b"a"), 9)) == 0


@pytest.mark.parametrize(("served", "records"), [(False, 0), (True, 1)])
def test_a_dropped_request_ends_its_connection(
    cluster: EmbeddedKafka, wire: Wire, topic: str, served: bool, records: int
) -> None:
    with cluster.intercept("Produce", Drop(served=served)):
        wire.send(produce(topic, b"a"), 9)
        assert wire.has_ended()
    assert end_offset(cluster, topic) == records


def test_half_an_answer_is_followed_by_the_end(cluster: EmbeddedKafka, wire: Wire, topic: str) -> None:
    wire.send(produce(topic, b"a"), 9)
    size = wire.socket.recv(4, socket.MSG_WAITALL)
    whole = size + wire.socket.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
    with cluster.intercept("Produce", Half()):
        wire.send(produce(topic, b"b"), 9)
        received = b""
        while data := wire.socket.recv(65_536):
            received += data
    assert len(received) == len(whole) // 2
    assert end_offset(cluster, topic) == 2


def test_what_is_never_answered_blocks_its_connection_until_that_ends(
    cluster: EmbeddedKafka, wire: Wire, topic: str
) -> None:
    with cluster.intercept("Produce", Never(served=True)) as never:
        wire.send(produce(topic, b"a"), 9)
        wire.send(ApiVersionsRequest(), 0)
        never.wait_for(1)
        with Wire(cluster.address_of(1)) as other:
            assert fetched(other.ask(fetch(topic, max_wait_ms=5_000), 11)) == [b"a"]
        wire.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            wire.receive()


def test_a_delay_comes_before_or_after_the_effect(cluster: EmbeddedKafka, wire: Wire, topic: str) -> None:
    with cluster.intercept("Produce", Delay(0.05)), cluster.intercept("Fetch", Delay(0.05, answer=True)):
        assert code(wire.ask(produce(topic, b"a"), 9)) == 0
        assert fetched(wire.ask(fetch(topic), 11)) == [b"a"]
    exchanges = cluster.connections[-1].exchanges[-2:]
    assert all(each.answered_at - each.arrived_at >= 0.05 for each in exchanges if each.answered_at)


def test_a_function_decides_for_each_request(cluster: EmbeddedKafka, wire: Wire, topic: str) -> None:
    def odd_ones_fail(request: Any) -> Error | None:
        return Error(NotLeaderForPartitionError) if len(fault.requests) % 2 else None

    fault = cluster.intercept("Produce", odd_ones_fail)
    with fault:
        assert [code(wire.ask(produce(topic, b"a"), 9)) for _ in range(4)] == [6, 0, 6, 0]


def test_without_an_action_requests_are_only_counted(cluster: EmbeddedKafka, wire: Wire, topic: str) -> None:
    with cluster.intercept() as everything, cluster.intercept("Produce") as unmet:
        wire.ask(produce(topic, b"a"), 9)
        assert [request.name for request in everything.wait_for(1)] == ["ProduceRequest"]
        with pytest.raises(TimeoutError, match="has met 0 requests in 0 s; 1 were waited for"):
            unmet.wait_for(1, timeout_s=0)


def test_only_the_client_or_broker_that_is_named_meets_it(topic: str) -> None:
    with (
        EmbeddedKafka(brokers=2) as cluster,
        Wire(cluster.address_of(1), "a") as one,
        Wire(cluster.address_of(2), "b") as two,
    ):
        with cluster.intercept("ApiVersions", Error(RequestTimedOutError), node_id=2):
            assert [one.ask(ApiVersionsRequest(), 0).error_code, two.ask(ApiVersionsRequest(), 0).error_code] == [0, 7]
        with cluster.intercept("ApiVersions", Error(RequestTimedOutError), client_id="a"):
            assert [one.ask(ApiVersionsRequest(), 0).error_code, two.ask(ApiVersionsRequest(), 0).error_code] == [7, 0]


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (["Fetsch"], {}, "api is 'Fetsch'; expected one of .*Fetch"),
        (["Fetch", "drop"], {}, "action is 'drop'; expected one of Corrupt, Delay, Hold"),
        (["Fetch", Hold], {}, r"action is the class Hold; expected an action, such as Hold\(\)"),
        (["Fetch", RequestTimedOutError], {}, r"such as Error\(RequestTimedOutError\)"),
        (["Fetch", Hold()], {"times": 0}, "times is 0"),
        (["Fetch", Hold()], {"times": 1.5}, "times is 1.5; expected a whole number"),
        (["Fetch", Hold()], {"node_id": 7}, "no broker 7; the node ids are 1"),
    ],
)
def test_a_wrong_argument_is_refused(
    cluster: EmbeddedKafka, arguments: list[Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        cluster.intercept(*arguments, **options)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "x"])
def test_a_delay_that_cannot_be_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="expected seconds from 0 on"):
        Delay(seconds)


@pytest.mark.parametrize("error", ["x", KafkaTimeoutError, RequestTimedOutError()])
def test_an_error_that_no_broker_answers_is_refused(error: Any) -> None:
    with pytest.raises(ValueError, match="is no error that a broker answers; expected a class of"):
        Error(error)


def test_a_function_that_returns_no_action_ends_the_connection(cluster: EmbeddedKafka, wire: Wire) -> None:
    with cluster.intercept("ApiVersions", lambda _: "drop"):
        wire.send(ApiVersionsRequest(), 0)
        assert wire.has_ended()


def test_what_is_never_answered_is_forgotten_with_its_connection(cluster: EmbeddedKafka) -> None:
    with cluster.intercept("ApiVersions", Never()) as never:
        for _ in range(10):
            with Wire(cluster.address_of(1)) as gone:
                gone.send(ApiVersionsRequest(), 0)
        never.wait_for(10)
        broker = cluster._call(lambda: cluster._state.brokers[1])
        while cluster._call(lambda: len(broker._tasks)):
            time.sleep(0.001)


def test_a_fault_may_be_removed_after_its_cluster_was_closed() -> None:
    with EmbeddedKafka(brokers=1) as cluster:
        fault = cluster.intercept("Fetch", Hold())
    fault.release()
    fault.remove()


def test_waiting_for_a_request_ends_when_it_comes(cluster: EmbeddedKafka, wire: Wire) -> None:
    met: list[Any] = []
    with cluster.intercept("ApiVersions") as fault:
        waiting = threading.Thread(target=lambda: met.extend(fault.wait_for(2, timeout_s=10)))
        waiting.start()
        wire.ask(ApiVersionsRequest(), 0)
        wire.ask(ApiVersionsRequest(), 0)
        waiting.join(10)
    assert len(met) == 2
