"""What a pool's listeners hear."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.protocol.consumer import HeartbeatRequest, HeartbeatResponse
from kafka.protocol.metadata import ApiVersionsRequest

from pooledkafka import (
    ClientAttached,
    ClientDetached,
    ConnectionClosed,
    ConnectionCreated,
    ConnectionPool,
    ConnectionReady,
    Consumer,
    MetadataRefreshed,
    PoolEvent,
    PoolTimeoutError,
    Producer,
    Throttled,
)
from tests.scripted_broker import Hangup, ScriptedBroker, closed_port


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker({"orders": 2}) as broker:
        yield broker


class Heard(list[PoolEvent]):
    """The events of a pool so far."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._feed = pool._feed
        pool.add_listener(self.append)

    def all(self) -> list[PoolEvent]:
        self._feed.drain(5)
        return list(self)


def heartbeat(throttle_time_ms: int, broker: ScriptedBroker) -> Any:
    broker.on(
        HeartbeatRequest,
        lambda request: HeartbeatResponse(version=request.API_VERSION, throttle_time_ms=throttle_time_ms, error_code=0),
    )
    return HeartbeatRequest(group_id="g", generation_id=1, member_id="m")


def test_the_life_of_a_connection_is_told_from_its_first_moment(broker: ScriptedBroker) -> None:
    pool = ConnectionPool(bootstrap_servers=broker.address)
    heard = Heard(pool)
    with pool:
        pool.client.await_ready(1)
    bootstrap, control = (-1, "bootstrap", broker.address), (1, "control", broker.address)
    assert heard.all() == [
        ConnectionCreated(*bootstrap),
        ConnectionReady(*bootstrap),
        MetadataRefreshed(brokers=1, topics=0),
        ConnectionClosed(*bootstrap, "bootstrapped", None),
        ConnectionCreated(*control),
        ConnectionReady(*control),
        ConnectionClosed(*control, "disconnect", None),
    ]


ENDED = "socket disconnected|reset by peer"
"""What an end looks like: a reset, where the client had sent more than the broker has read."""


def test_a_connection_that_a_broker_ends_has_failed_and_says_with_what(broker: ScriptedBroker) -> None:
    with ConnectionPool(bootstrap_servers=broker.address) as pool:
        pool.client.await_ready(1)
        heard = Heard(pool)
        broker.on(HeartbeatRequest, lambda _: (_ for _ in ()).throw(Hangup))
        with pytest.raises(Exception, match=ENDED):
            pool.client.send_and_receive(1, HeartbeatRequest(group_id="g", generation_id=1, member_id="m"), 5_000)
        closed = [event for event in heard.all() if isinstance(event, ConnectionClosed)]
    assert len(closed) == 2, "the request has had another chance"
    for each in closed:
        assert (each.broker, each.lane, each.reason) == (1, "control", "failed")
        assert re.search(ENDED, str(each.error))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_connection_that_never_came_up_is_created_and_closed_but_never_ready() -> None:
    with closed_port() as port:
        pool = ConnectionPool(bootstrap_servers=f"127.0.0.1:{port}")
        heard = Heard(pool)
        with pytest.raises(PoolTimeoutError):
            pool.connect(timeout_ms=200)
        created, closed = heard.all()[:2]
        pool.disconnect()
    assert created == ConnectionCreated(-1, "bootstrap", f"127.0.0.1:{port}")
    assert isinstance(closed, ConnectionClosed)
    assert (closed.reason, closed.broker) == ("failed", -1)
    assert "refused" in str(closed.error).lower()
    assert not any(isinstance(event, ConnectionReady) for event in heard)


def test_a_pause_that_a_broker_asks_for_is_told_with_its_lane(broker: ScriptedBroker) -> None:
    with ConnectionPool(bootstrap_servers=broker.address) as pool:
        heard = Heard(pool)
        pool.client.send_and_receive(1, heartbeat(70, broker), 5_000)
        assert Throttled(1, "control", 70) in heard.all()


def test_clients_come_on_their_first_use_and_go_once(broker: ScriptedBroker) -> None:
    pool = ConnectionPool(bootstrap_servers=broker.address)
    heard = Heard(pool)
    consumer, producer = (
        Consumer("orders", connection_pool=pool),
        Producer(enable_idempotence=False, connection_pool=pool),
    )
    pool.connect()
    assert not any(isinstance(event, ClientAttached) for event in heard.all())
    consumer.subscription()
    producer.partitions_for("orders")
    consumer.close()
    consumer.close()
    pool.disconnect()
    producer.close()
    clients = [event for event in heard.all() if isinstance(event, (ClientAttached, ClientDetached))]
    assert clients == [
        ClientAttached("consumer"),
        ClientAttached("producer"),
        ClientDetached("consumer"),
        ClientDetached("producer"),
    ]


def test_a_listener_may_use_the_pool_while_it_disconnects(broker: ScriptedBroker) -> None:
    pool = ConnectionPool(bootstrap_servers=broker.address)
    seen: list[Any] = []
    pool.add_listener(lambda event: seen.append((pool.stats(), repr(pool))))
    with pool:
        pool.client.await_ready(1)
    assert seen


def test_one_that_was_removed_hears_no_more(broker: ScriptedBroker) -> None:
    pool = ConnectionPool(bootstrap_servers=broker.address)
    heard = Heard(pool)
    pool.remove_listener(heard.append)
    with pool:
        broker.wait_for(ApiVersionsRequest)
    assert heard.all() == []
