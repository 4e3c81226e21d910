"""The pool's own kafka-python client, as ``pool.client`` hands it out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.errors import KafkaConnectionError, KafkaTimeoutError
from kafka.protocol.consumer import HeartbeatRequest, HeartbeatResponse

from pooledkafka import ConnectionPool, PoolError
from pooledkafka._wire.shared_client import SharedClient
from tests.scripted_broker import ScriptedBroker


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker() as broker:
        broker.on(HeartbeatRequest, lambda request: HeartbeatResponse(version=request.API_VERSION, error_code=0))
        yield broker


@pytest.fixture
def client(broker: ScriptedBroker) -> Iterator[SharedClient]:
    with ConnectionPool(bootstrap_servers=broker.address) as pool:
        yield pool.client


def heartbeat() -> Any:
    return HeartbeatRequest(group_id="g", generation_id=1, member_id="m")


def test_a_request_is_answered_on_the_brokers_control_lane(client: SharedClient, broker: ScriptedBroker) -> None:
    assert client.least_loaded_node() == 1
    assert not client.connected(1)
    assert client.send_and_receive(1, heartbeat()).error_code == 0
    assert client.connected(1)
    assert client.is_ready(1)
    assert client.await_ready(1)
    assert [number for number, _ in broker.requests(HeartbeatRequest)] == [2], "the first connection was bootstrap's"


def test_ready_opens_what_is_not_open_yet(client: SharedClient, broker: ScriptedBroker) -> None:
    assert client.ready(1) is False
    client.await_ready(1, timeout_ms=5_000)
    assert client.ready(1) is True
    assert broker.connections == 2


def test_many_threads_use_it_at_once(client: SharedClient) -> None:
    answers: list[Any] = []

    def ask() -> None:
        for _ in range(50):
            future = client.send(1, heartbeat())
            client.poll(timeout_ms=5_000, future=future)
            answers.append(future.value.error_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [0] * 400


def test_waiting_is_bounded_and_counts_what_is_in_flight(client: SharedClient, broker: ScriptedBroker) -> None:
    broker.on(HeartbeatRequest, lambda _: None)
    with pytest.raises(KafkaTimeoutError, match="broker 1 did not answer within 20 ms"):
        client.send_and_receive(1, heartbeat(), timeout_ms=20)
    broker.wait_for(HeartbeatRequest)
    assert client.in_flight_request_count() == client.in_flight_request_count(1) == 1
    assert client.throttle_delay(1) == client.connection_delay(1) == 0


def test_a_broker_that_is_not_known_is_an_error(client: SharedClient) -> None:
    with pytest.raises(KafkaConnectionError, match=r"broker 7 not ready: .*UnknownBrokerId"):
        client.await_ready(7, timeout_ms=5_000)
    assert client.in_flight_request_count(7) == 0


def test_the_io_thread_must_not_wait(client: SharedClient) -> None:
    future = client.send(1, heartbeat())
    with pytest.raises(RuntimeError, match="must not wait"):
        client._net.run(client.poll, None, future)
    client.poll(timeout_ms=0)  # nothing to wait for


def test_it_tells_the_brokers_versions(client: SharedClient) -> None:
    assert client.check_version() == client.check_version(1)


def test_nobody_closes_it_for_everybody_else(client: SharedClient) -> None:
    client.await_ready(1)
    with pytest.raises(PoolError, match="disconnect"):
        client.close()
    assert client.connected(1)
