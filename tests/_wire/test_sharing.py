from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.future import Future
from kafka.protocol.consumer import JoinGroupRequest
from kafka.protocol.producer import ProduceRequest

from pooledkafka import ConnectionPool, PoolTimeoutError, Producer
from pooledkafka._wire.consumer_facade import ConsumerFacade
from tests._wire.engines import new_engine
from tests.scripted_broker import VERSION, ScriptedBroker, metadata_answer


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker({"orders": 1}) as broker:
        broker.on(ProduceRequest, lambda request: None)  # a partition that takes nothing now
        yield broker


@pytest.fixture
def pool(broker: ScriptedBroker) -> Iterator[ConnectionPool]:
    pool = ConnectionPool(bootstrap_servers=broker.address)
    yield pool
    try:
        pool.disconnect(timeout_ms=300)
    except Exception:
        pass


def test_a_handle_that_sent_nothing_closes_at_once(broker: ScriptedBroker, pool: ConnectionPool) -> None:
    busy, idle = (Producer(connection_pool=pool, enable_idempotence=False) for _ in range(2))
    idle.partitions_for("orders")
    busy.send("orders", b"stuck")
    broker.wait_for(ProduceRequest)
    idle.close(timeout_ms=0)  # raises nothing: the record is another handle's
    with pytest.raises(PoolTimeoutError, match="1 records"):
        busy.close(timeout_ms=0)


def test_a_static_member_that_comes_back_does_not_rebalance_its_group() -> None:
    engine = new_engine(bootstrap_servers="127.0.0.1:1", api_version=VERSION)
    engine.manager.cluster.update_metadata(metadata_answer({"orders": 1}, brokers={1: ("127.0.0.1", 1)}))
    engine.net.start()
    try:
        engine.manager.send_on = lambda *args: Future()  # type: ignore[method-assign]
        rejoined: list[str] = []

        def coordinator(name: str, generation: int) -> Any:
            return SimpleNamespace(
                group_id="g",
                group_instance_id=name,
                _generation=SimpleNamespace(generation_id=generation),
                stable=lambda: True,
                need_rejoin=lambda: False,
                request_rejoin=lambda: rejoined.append(name),
                _do_join_and_sync_async=None,
            )

        one, two = ConsumerFacade(engine, 30_000), ConsumerFacade(engine, 30_000)
        one.bind(coordinator("static-1", 7))
        two.bind(coordinator("static-2", -1))  # restarted: the broker gives it its old place, without a rebalance
        join = JoinGroupRequest(group_id="g", member_id="", group_instance_id="static-2")
        engine.net.run(lambda: two._manager.send(join, 1) and None)
        deadline = time.monotonic() + 0.1  # ten times as long as it would take
        while time.monotonic() < deadline:
            engine.net.run(lambda: None)
        assert rejoined == []
    finally:
        engine.stop()
