"""Rare turns in the life of clients: what came of looking for ways to break it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from kafka.future import Future
from kafka.protocol.consumer import JoinGroupRequest, ListOffsetsRequest, ListOffsetsResponse
from kafka.protocol.metadata import MetadataRequest
from kafka.structs import TopicPartition

from pooledkafka import ConnectionPool, Consumer, PoolTimeoutError
from pooledkafka._wire.consumer_facade import ConsumerFacade
from tests._wire.engines import new_engine
from tests.scripted_broker import VERSION, ScriptedBroker, metadata_answer

ORDERS = TopicPartition("orders", 0)


def test_a_consumer_that_disconnect_could_not_end_works_after_connect(pool: ConnectionPool) -> None:
    consumer = Consumer(connection_pool=pool)
    consumer.assign([ORDERS])
    inside, go_on = threading.Event(), threading.Event()

    def busy() -> None:  # a long call of the user's code within the consumer: a deserializer, a listener
        with consumer._using():
            inside.set()
            assert go_on.wait(5)

    thread = threading.Thread(target=busy, daemon=True)
    thread.start()
    assert inside.wait(5)
    pool.disconnect(timeout_ms=100)
    go_on.set()
    thread.join(5)
    pool.connect()
    assert consumer.topics() is not None
    assert pool.stats().consumers == 1
    consumer.close()


def eventually_closed(consumer: Consumer) -> None:
    deadline = time.monotonic() + 5
    while not consumer._closed:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_consumer_closed_during_its_first_use_is_not_kept(broker: ScriptedBroker, pool: ConnectionPool) -> None:
    consumer = Consumer("orders", connection_pool=pool)
    asked, go_on = threading.Event(), threading.Event()
    answer = broker._metadata

    def slow(request: Any) -> Any:
        asked.set()
        assert go_on.wait(5)
        return answer(request)

    broker.on(MetadataRequest, slow)

    def use() -> None:
        try:
            consumer.poll(timeout_ms=100)
        except Exception:
            pass

    user = threading.Thread(target=use, daemon=True)
    user.start()
    assert asked.wait(5)
    closer = threading.Thread(target=consumer.close, daemon=True)
    closer.start()
    eventually_closed(consumer)
    go_on.set()
    user.join(5)
    closer.join(5)
    assert repr(consumer).startswith("<Consumer group_id=None [closed]")
    assert pool.stats().consumers == 0
    assert consumer not in pool._clients


def test_a_consumer_without_a_group_goes_on_where_it_was_after_a_reconnect(
    broker: ScriptedBroker, pool: ConnectionPool
) -> None:
    def offsets(request: Any) -> Any:
        topic = ListOffsetsResponse.ListOffsetsTopicResponse
        part = topic.ListOffsetsPartitionResponse
        return ListOffsetsResponse(
            version=request.API_VERSION,
            throttle_time_ms=0,
            topics=[
                topic(
                    version=request.API_VERSION,
                    name="orders",
                    partitions=[
                        part(
                            version=request.API_VERSION,
                            partition_index=0,
                            error_code=0,
                            timestamp=-1,
                            offset=100,
                            leader_epoch=-1,
                        )
                    ],
                )
            ],
        )

    broker.on(ListOffsetsRequest, offsets)
    consumer = Consumer(connection_pool=pool)
    consumer.assign([ORDERS])
    consumer.seek(ORDERS, 42)
    consumer.pause(ORDERS)
    assert consumer.position(ORDERS) == 42
    pool.disconnect()  # somebody else's, by Producer.disconnect() say
    pool.connect()
    assert consumer.position(ORDERS, timeout_ms=3000) == 42
    assert consumer.paused() == {ORDERS}
    consumer.close()


def test_a_group_waits_no_longer_when_members_of_the_other_go() -> None:
    engine = new_engine(bootstrap_servers="127.0.0.1:1", api_version=VERSION, max_leased_connections=4)
    engine.net.start()
    try:
        for group in ("one", "one", "one", "two", "two"):
            engine.net.run(engine.attach_member, group)
        let_in: list[str] = []
        engine.net.run(engine.joins.enter, "one", lambda: let_in.append("one"))  # parks on the broker
        engine.net.run(engine.joins.enter, "two", lambda: let_in.append("two"))
        assert let_in == ["one"]
        engine.net.run(engine.detach_member, "one")
        engine.net.run(engine.detach_member, "one")  # 1 + 2 fit in 4
        assert let_in == ["one", "two"]
    finally:
        engine.stop()


def test_a_consumer_that_was_closed_while_its_join_waited_does_not_join() -> None:
    engine = new_engine(bootstrap_servers="127.0.0.1:1", api_version=VERSION, max_leased_connections=2)
    engine.manager.cluster.update_metadata(metadata_answer({"orders": 1}, brokers={1: ("127.0.0.1", 1)}))
    engine.net.start()
    try:
        sent: list[Any] = []

        def send_on(key: Any, request: Any, timeout_ms: float) -> Future:
            sent.append(request)
            return Future()

        engine.manager.send_on = send_on  # type: ignore[assignment, method-assign]
        for group in ("one", "one", "two"):
            engine.net.run(engine.attach_member, group)
        engine.net.run(engine.joins.enter, "one", lambda: None)  # another group joins
        facade = ConsumerFacade(engine, request_timeout_ms=30_000)
        join = JoinGroupRequest(group_id="two", member_id="m", session_timeout_ms=1, rebalance_timeout_ms=1)
        engine.net.run(lambda: facade._manager.send(join, 1) and None)
        for _ in range(5):
            engine.net.run(lambda: None)
        assert sent == []
        facade.close()
        engine.net.run(engine.detach_member, "two")
        engine.net.run(engine.joins.leave, "one")
        for _ in range(5):
            engine.net.run(lambda: None)
        assert sent == [], "a JoinGroup of a consumer that is no more, on a connection nobody closes"
    finally:
        engine.stop()


def test_disconnect_is_bounded_while_another_thread_connects() -> None:
    with ScriptedBroker({"orders": 1}) as broker:
        broker.on(MetadataRequest, lambda request: None)  # says nothing
        pool = ConnectionPool(bootstrap_servers=broker.address)

        def connect() -> None:
            try:
                pool.connect(timeout_ms=3_000)
            except Exception:
                pass

        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        broker.wait_for(MetadataRequest)
        with pytest.raises(PoolTimeoutError, match="another thread is connecting"):
            pool.disconnect(timeout_ms=200)
        assert thread.is_alive(), "it did not wait for the other"
        broker.stop()
        thread.join(10)


def test_a_wakeup_before_the_first_poll_ends_it() -> None:
    with ScriptedBroker({"orders": 1}) as broker:
        pool = ConnectionPool(bootstrap_servers=broker.address)
        consumer = Consumer("orders", connection_pool=pool)
        broker.on(ListOffsetsRequest, lambda request: None)
        consumer.wakeup()
        assert consumer.poll(timeout_ms=600_000) == {}
        pool.disconnect(timeout_ms=500)


def test_the_list_of_partitions_is_the_callers_own() -> None:
    with ScriptedBroker({"orders": 2}) as broker:
        pool = ConnectionPool(bootstrap_servers=broker.address)
        consumer = Consumer(connection_pool=pool)
        consumer.assign([TopicPartition("orders", 0)])
        partitions = [TopicPartition("orders", 0), TopicPartition("orders", 1)]
        consumer.assign(partitions)
        partitions.clear()  # the caller's list is the caller's
        pool.disconnect()
        pool.connect()
        try:
            assert len(consumer.assignment()) == 2
        finally:
            pool.disconnect()
