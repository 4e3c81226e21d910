from __future__ import annotations

from typing import Any

from kafka.errors import KafkaTimeoutError
from kafka.protocol.consumer import HeartbeatRequest

from pooledkafka import ConnectionPool
from pooledkafka._wire.lanes import Lane, LaneKey
from tests.scripted_broker import ScriptedBroker


def test_a_request_that_waits_for_a_permit_times_out_in_its_own_time() -> None:
    """The permit is held by a join that parks for minutes; a Produce of request_timeout_ms=100 waits as long."""
    with ScriptedBroker({"orders": 1}) as broker:
        broker.on(HeartbeatRequest, lambda request: None)  # stands for a JoinGroup that parks
        pool = ConnectionPool(bootstrap_servers=broker.address, max_in_flight_requests=1)
        pool.connect()
        manager: Any = pool.client._manager
        futures: list[Any] = []

        def send(timeout_ms: float) -> None:
            request = HeartbeatRequest(group_id="g", generation_id=1, member_id="m")
            futures.append(manager.send_on(LaneKey(1, Lane.CONTROL), request, timeout_ms))

        manager._net.run(send, 60_000)
        broker.wait_for(HeartbeatRequest)
        manager._net.run(send, 100)
        pool.client.poll(5_000, futures[1])
        assert isinstance(futures[1].exception, KafkaTimeoutError)
        assert not futures[0].is_done
        pool.disconnect(timeout_ms=500)


def test_what_waits_for_a_permit_fails_when_the_pool_is_disconnected() -> None:
    with ScriptedBroker({"orders": 1}) as broker:
        broker.on(HeartbeatRequest, lambda request: None)
        pool = ConnectionPool(bootstrap_servers=broker.address, max_in_flight_requests=2)
        pool.connect()
        manager: Any = pool.client._manager
        futures: list[Any] = []

        def send() -> None:
            request = HeartbeatRequest(group_id="g", generation_id=1, member_id="m")
            futures.append(manager.send_on(LaneKey(1, Lane.CONTROL), request, 60_000))

        for _ in range(6):
            manager._net.run(send)
        broker.wait_for(HeartbeatRequest)
        pool.disconnect(timeout_ms=500)
        assert [future.is_done for future in futures] == [True] * 6
