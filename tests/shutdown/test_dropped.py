"""Pools and clients that nobody closed: they are collected, on whatever thread, and what they held is released."""

from __future__ import annotations

import gc
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka.consumer.subscription_state import ConsumerRebalanceListener

from pooledkafka import Admin, ConnectionPool, Consumer, Kafka, Producer
from pooledkafka.events import ClientDetached
from pooledkafka.testing import EmbeddedKafka
from tests.pooled.waiting import until
from tests.watchdog import bounded

Drop = Callable[[list[Any]], None]
TIMES = 50  # on each of four threads


@pytest.fixture
def kafka(cluster: EmbeddedKafka) -> Kafka:
    return Kafka(**cluster.client_options())


@pytest.fixture
def pool(kafka: Kafka) -> Iterator[ConnectionPool]:
    with kafka.connection_pool() as pool:
        yield pool


@pytest.fixture(autouse=True)
def said() -> Iterator[list[str]]:
    """The warnings of each drop, of which a finalizer could only print that they were made errors."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield caught  # type: ignore[misc]


def texts(said: list[Any]) -> list[str]:
    return [str(each.message) for each in said if "was dropped without" in str(each.message)]


def here(held: list[Any]) -> None:
    held.clear()


def on_another_thread(held: list[Any]) -> None:
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join(10)


def on_the_io_thread(held: list[Any]) -> None:
    pool: Any = held[0] if isinstance(held[0], ConnectionPool) else held[0]._pool
    net = pool._connection.engine.net
    del pool
    done = threading.Event()

    def clear() -> None:
        held.clear()
        done.set()

    net.call_soon_threadsafe(clear)
    assert done.wait(10)


def as_a_cycle_by_the_collector(held: list[Any]) -> None:
    held[0].itself = held[0]
    held.clear()
    gc.collect()


THREADS = [here, on_another_thread, on_the_io_thread, as_a_cycle_by_the_collector]


def own_threads() -> list[str]:
    names = ("kafka-io", "pooledkafka", "kafka-python-producer")
    return [
        thread.name for thread in threading.enumerate() if thread.name.startswith(names) or "network" in thread.name
    ]


def sockets() -> int:
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        except OSError:
            pass  # that of listdir itself
    return found


def until_joined(consumer: Consumer) -> None:
    until(lambda: consumer.poll(timeout_ms=20, max_records=1) or consumer.assignment())


def joined(pool: ConnectionPool, **options: Any) -> Consumer:
    consumer = Consumer("orders", group_id="g", connection_pool=pool, **options)
    until_joined(consumer)
    return consumer


@pytest.mark.parametrize("drop", THREADS)
def test_a_consumer_leaves_its_group_and_others_take_over(
    cluster: EmbeddedKafka, pool: ConnectionPool, drop: Drop, said: list[Any]
) -> None:
    pool.connect()
    before = set(own_threads())
    leaving = cluster.intercept("LeaveGroup")
    for number in range(TIMES):
        held = [joined(pool)]
        drop(held)
        until(lambda: len(leaving.requests), lambda count, wanted=number + 1: count == wanted)  # type: ignore[misc]
    assert pool.stats().consumers == 0
    until(lambda: pool._connection.engine._consumers == [])  # type: ignore[union-attr]
    assert pool._connection.engine.joins.members["g"] == 0  # type: ignore[union-attr]
    assert set(own_threads()) <= before
    assert len(texts(said)) == TIMES
    assert re.match(rf"a consumer made at {re.escape(__file__)}:\d+ was dropped without close", texts(said)[0])
    assert said[0].filename == __file__
    joined(pool).close()


@pytest.mark.parametrize("drop", THREADS)
def test_a_pool_closes_its_connections_and_ends_its_threads(
    cluster: EmbeddedKafka, kafka: Kafka, drop: Drop, said: list[Any]
) -> None:
    gc.collect()
    threads = set(own_threads())
    sockets_before = sockets()
    for _ in range(TIMES):
        held = [kafka.connection_pool()]
        Producer(connection_pool=held[0]).send("orders", b"one").get(timeout=10)
        drop(held)
    until(lambda: set(own_threads()) - threads, lambda left: not left)
    until(lambda: sum(each.closed_at is None for each in cluster.connections), lambda count: count == 0)
    until(sockets, lambda count: count <= sockets_before)
    assert len(texts(said)) == TIMES
    assert re.match(rf"a connected pool made at {re.escape(__file__)}:\d+ was dropped", texts(said)[0])


@pytest.mark.parametrize("drop", THREADS)
def test_a_private_pool_ends_with_its_client_of_which_alone_is_spoken(
    cluster: EmbeddedKafka, kafka: Kafka, drop: Drop, said: list[Any]
) -> None:
    threads = set(own_threads())
    clients: list[Callable[[], Any]] = [
        lambda: kafka.consumer("orders", group_id="g"),
        kafka.producer,
        kafka.admin,
    ]
    for make in clients:
        held = [make()]
        held[0].connect()
        if isinstance(held[0], Consumer):
            until_joined(held[0])
        drop(held)
    until(lambda: set(own_threads()) - threads, lambda left: not left)
    what = [text.partition(" made at ")[0] for text in texts(said)]
    assert what == ["a consumer", "a producer", "an admin client"]


@pytest.mark.parametrize("drop", THREADS)
def test_handles_of_producers_and_admin_clients_are_meant_to_be_dropped(
    pool: ConnectionPool, drop: Drop, said: list[Any]
) -> None:
    for _ in range(TIMES):
        held: list[Any] = [Producer(connection_pool=pool)]
        held[0].send("orders", b"one")
        drop(held)
        held = [Admin(connection_pool=pool)]
        held[0].list_topics()
        drop(held)
    assert "orders" in Admin(connection_pool=pool).list_topics(), "of a client that nobody holds"
    until(lambda: pool.stats().admins + pool.stats().producers, lambda count: count == 0)
    assert texts(said) == []


@pytest.mark.parametrize("drop", THREADS)
def test_a_transactional_id_is_free_again(pool: ConnectionPool, drop: Drop, said: list[Any]) -> None:
    for number in range(10):
        held = [Producer(connection_pool=pool, transactional_id="till")]
        held[0].init_transactions()
        drop(held)
        until(lambda: pool._connection.senders._exclusive, lambda left: not left)  # type: ignore[union-attr]
        assert len(texts(said)) == number + 1
    assert texts(said)[0].startswith("a producer made at ")


@pytest.mark.parametrize("drop", THREADS)
def test_a_transactional_id_is_free_for_the_next_producer_at_once(pool: ConnectionPool, drop: Drop) -> None:
    for number in range(5):
        held = [Producer(connection_pool=pool, transactional_id="till")]
        held[0].init_transactions()
        held[0].begin_transaction()
        held[0].send("orders", b"%d" % number)
        drop(held)
    with Producer(connection_pool=pool, transactional_id="till") as last:
        last.init_transactions()
        last.begin_transaction()
        last.send("orders", b"last").get(10)
        last.commit_transaction()
    until(lambda: pool._connection.senders._retired, lambda left: not left)  # type: ignore[union-attr]


def test_a_listener_that_refers_to_its_consumer_does_not_keep_it(cluster: EmbeddedKafka, pool: ConnectionPool) -> None:
    heard: list[str] = []

    class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
        def __init__(self, consumer: Consumer) -> None:
            self.consumer = consumer

        def on_partitions_assigned(self, assigned: Any) -> None:
            heard.append("assigned")

        def on_partitions_revoked(self, revoked: Any) -> None:
            heard.append("revoked")

    leaving = cluster.intercept("LeaveGroup")
    consumer = Consumer(group_id="g", connection_pool=pool)
    consumer.subscribe(["orders"], listener=Listener(consumer))
    until_joined(consumer)
    del consumer
    gc.collect()
    until(lambda: len(leaving.requests), lambda count: count == 1)
    assert heard.count("assigned") == 1
    assert "revoked" not in heard[1:], "there is nobody left to hear of it"


def test_a_pools_listener_that_refers_to_it_does_not_keep_it(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    pool = kafka.connection_pool()
    pool.add_listener(lambda event, pool=pool: pool.stats())  # type: ignore[misc]
    pool.connect()
    engine = pool._connection.engine  # type: ignore[union-attr]
    del pool
    until(lambda: (gc.collect() and engine.net._closed) or engine.net._closed)


def test_what_was_dropped_commits_nothing(cluster: EmbeddedKafka, pool: ConnectionPool) -> None:
    with Producer(connection_pool=pool) as producer:
        producer.send("orders", b"one").get(timeout=10)
    commits = cluster.intercept("OffsetCommit")
    leaving = cluster.intercept("LeaveGroup")
    consumer = Consumer("orders", group_id="g", connection_pool=pool, auto_offset_reset="earliest")
    while not consumer.poll(timeout_ms=1_000):
        pass
    del consumer  # as the stack does that a handler's error unwinds
    until(lambda: leaving.requests)
    assert commits.requests == []


def test_records_of_a_dropped_pool_are_delivered(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    pool = kafka.connection_pool()
    future = Producer(connection_pool=pool, linger_ms=600_000, delivery_timeout_ms=3_600_000).send("orders", b"one")
    del pool
    gc.collect()
    assert future.get(timeout=10).offset == 0


def test_a_drop_within_a_call_that_holds_the_pools_lock_waits_for_nothing(pool: ConnectionPool) -> None:
    pool.add_listener(lambda event: None)
    pool.connect()
    connection = pool._connection
    assert connection is not None
    for lock in (pool._lock, pool._life, pool._feed._lock, connection.senders._lock):
        held: list[Any] = [joined(pool), Producer(connection_pool=pool), Admin(connection_pool=pool)]
        held[1].send("orders", b"one")
        held[2].list_topics()

        def drop(lock: Any = lock, held: list[Any] = held) -> None:
            with lock:
                held.clear()

        bounded(drop, 10, "the drop")


def test_a_listener_hears_that_a_client_was_dropped(pool: ConnectionPool) -> None:
    heard: list[Any] = []
    pool.add_listener(heard.append)
    held: list[Any] = [joined(pool), Producer(connection_pool=pool), Admin(connection_pool=pool)]
    held[1].send("orders", b"one")
    held[2].list_topics()
    held.clear()
    until(
        lambda: sorted(event.kind for event in list(heard) if isinstance(event, ClientDetached)),
        lambda kinds: kinds == ["admin", "consumer", "producer"],
    )


def test_what_holds_nothing_is_dropped_without_a_word(kafka: Kafka, pool: ConnectionPool, said: list[Any]) -> None:
    kafka.connection_pool()
    kafka.consumer("orders")
    kafka.consumer("orders", connection_pool=pool)
    consumer = joined(pool)
    pool.disconnect()
    del consumer
    with pytest.raises(ValueError, match="is not an option"):
        kafka.consumer("orders", connection_pool=pool, grup_id="g")
    gc.collect()
    assert texts(said) == []


def test_making_a_handle_stays_cheap_since_it_looks_at_no_stack(pool: ConnectionPool) -> None:
    assert Producer(connection_pool=pool)._made_at is None
    began = time.perf_counter()
    for _ in range(1000):
        Producer(connection_pool=pool)
    assert time.perf_counter() - began < 60, "a bound for what hangs"
