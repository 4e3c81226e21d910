"""No circle in the orders in which locks are taken, kafka-python's among them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from kafka.errors import KafkaError
from kafka.serializer import Deserializer

from pooledkafka import Consumer, Kafka
from pooledkafka.testing import EmbeddedKafka
from tests.lock_graph import LockGraph

WITHIN_S = 90
KINDS = {"listener", "commit", "handler", "deserializer", "serializer", "record", "event"}
MAY_RUN_USERS_CODE = ("Consumer.__init__", "Consumer._in_child", "ConnectionPool.__init__")  # _use and _life
MAY_WAIT = (*MAY_RUN_USERS_CODE, "Engine.__init__")  # and _stop_lock


class User:
    """What runs on several threads at once, with callbacks of all kinds that look what is held."""

    def __init__(self, graph: LockGraph, kafka: Kafka, topic: str) -> None:
        self.graph, self.kafka, self.topic = graph, kafka, topic
        self.pool = kafka.connection_pool(metadata_max_age_ms=200)
        self.called: set[str] = set()
        self.held: set[tuple[str, str]] = set()
        self.failed: list[BaseException] = []
        self.over = threading.Event()
        self.consumers: list[Consumer] = []

    def callback(self, kind: str) -> None:
        self.called.add(kind)
        self.held |= {(kind, each.place) for each in self.graph.held() if not each.place.endswith(MAY_RUN_USERS_CODE)}

    def on_partitions_revoked(self, _: Any) -> None:
        self.callback("listener")

    def on_partitions_assigned(self, _: Any) -> None:
        self.callback("listener")

    def consume(self, group: str | None) -> None:
        with self.kafka.consumer(
            connection_pool=self.pool,
            group_id=group,
            auto_offset_reset="earliest",
            auto_commit_interval_ms=50,
            value_deserializer=Deserialize(self),
            default_offset_commit_callback=lambda *_: self.callback("commit"),
        ) as consumer:
            self.consumers.append(consumer)
            consumer.subscribe([self.topic], listener=self)
            count = 0

            def handler(_: Any) -> None:
                nonlocal count
                count += 1
                self.callback("handler")
                if count % 50 == 0:
                    consumer.stop()

            while not self.over.is_set():
                consumer.poll(timeout_ms=20)
                consumer.pause(*consumer.assignment())
                consumer.resume(*consumer.assignment())
                consumer.run(handler, max_records=20)
                if group is not None:
                    consumer.commit_async()

    def serialize(self, value: Any) -> Any:
        self.callback("serializer")
        return value

    def produce(self, transactional_id: str | None) -> None:
        with self.kafka.producer(
            connection_pool=self.pool, transactional_id=transactional_id, value_serializer=self.serialize
        ) as producer:
            if transactional_id is not None:
                producer.init_transactions()
            while not self.over.is_set():
                if transactional_id is not None:
                    producer.begin_transaction()
                producer.send(self.topic, b"x").add_both(lambda _: self.callback("record"))
                producer.send_batch(self.topic, [{"value": b"y"}, {"value": b"z"}]).get(timeout=WITHIN_S)
                producer.flush()
                if transactional_id is not None:
                    producer.commit_transaction()

    def administer(self) -> None:
        while not self.over.is_set():
            with self.kafka.admin(connection_pool=self.pool) as admin:
                admin.list_topics()
            repr(self.pool.stats())
            self.pool.add_listener(listener := lambda _: self.callback("event"))
            with self.kafka.consumer(self.topic, connection_pool=self.pool) as consumer:
                consumer.poll()
            self.pool.remove_listener(listener)

    def reconnect(self) -> None:
        while not self.over.wait(0.7):
            self.pool.disconnect(timeout_ms=5_000)
            self.pool.connect()

    def run(self, work: Callable[..., None], *args: Any) -> None:
        while not self.over.is_set():
            try:
                work(*args)
            except (KafkaError, RuntimeError):
                pass  # the pool was disconnected, the broker restarted; what is looked at is the locks
            except BaseException as error:
                self.failed.append(error)


class Deserialize(Deserializer):  # type: ignore[misc]
    def __init__(self, user: User) -> None:
        self._user = user

    def deserialize(self, topic: str, headers: Any, data: bytes) -> Any:
        self._user.callback("deserializer")
        return data


@pytest.fixture
def graph() -> LockGraph:
    return LockGraph()


def test_a_circle_is_found(graph: LockGraph) -> None:
    with graph.recording():
        first = threading.Lock()
        second = threading.Lock()
        third = threading.RLock()
    for one, other in ((first, second), (second, third)):
        with one, other:
            pass
    assert graph.circle() == []
    with third:
        assert first.acquire(timeout=1), "an attempt that would give up is no edge"
        first.release()
    assert graph.circle() == []
    with third, first:
        pass
    assert len(graph.circle()) == 3
    assert graph.held() == []


def test_what_is_held_while_something_is_waited_for_is_found(graph: LockGraph) -> None:
    with graph.recording():
        lock, event = threading.Lock(), threading.Event()
        event.wait(0.001)
        assert graph.waits == {}
        with lock:
            event.wait(0.001)
    assert len(graph.waits) == 1


def test_all_kinds_of_use_at_once(graph: LockGraph) -> None:
    with graph.recording(), EmbeddedKafka(brokers=2, config={"group.initial.rebalance.delay.ms": "0"}) as cluster:
        topic = cluster.create_topic("orders", partitions=4, replication_factor=2)
        user = User(graph, Kafka(**cluster.client_options(), reconnect_backoff_max_ms=100), topic)
        work: list[tuple[Any, ...]] = [
            *[(user.consume, group) for group in ("a", "a", "b")],
            (user.produce, None),
            (user.produce, "t"),
            (user.administer,),
            (user.reconnect,),
        ]
        threads = [threading.Thread(target=user.run, args=each, daemon=True) for each in work]
        for thread in threads:
            thread.start()
        for _ in range(2):
            user.over.wait(1.5)
            cluster.restart(2)
        deadline = time.monotonic() + WITHIN_S
        while user.called < KINDS and time.monotonic() < deadline:
            user.over.wait(0.1)
        user.over.set()
        deadline = time.monotonic() + WITHIN_S
        while any(thread.is_alive() for thread in threads):
            assert time.monotonic() < deadline, "it hangs"
            for consumer in list(user.consumers):
                consumer.stop()
            threads[0].join(0.05)
        user.pool.disconnect()
    assert user.failed == []
    assert user.called == KINDS, "all kinds of callbacks have been looked at"
    assert user.held == set(), "a callback ran under a lock"
    assert any("record_accumulator" in place for place in graph.made), "kafka-python's locks are recorded too"
    assert graph.circle() == [], "\n".join(graph.circle())
    waits = {
        pair: stack
        for pair, stack in graph.waits.items()
        if "pooledkafka/" in pair[0] and not pair[0].endswith(MAY_WAIT)
    }
    assert waits == {}, "something was waited for under a lock"
