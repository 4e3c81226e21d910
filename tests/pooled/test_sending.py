"""Records sent one by one: as ``KafkaProducer.send`` would send them, in a fraction of its time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import wraps
from itertools import pairwise
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.errors import InvalidTopicError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from kafka.partitioner import Partitioner, StickyPartitioner
from kafka.serializer import Serializer

from pooledkafka import ConnectionPool, Consumer, Kafka, PoolTimeoutError
from pooledkafka.testing import EmbeddedKafka, Error
from tests.pooled.reading import Reader
from tests.pooled.waiting import TIMEOUT_S, until

PARTITIONS = 3


@pytest.fixture(autouse=True)
def _topic(cluster: EmbeddedKafka) -> None:
    cluster.create_topic("orders", partitions=PARTITIONS)


WRONG: list[dict[str, Any]] = [
    {},
    {"value": "text"},
    {"value": b"v", "key": 1},
    {"value": b"v", "headers": {"h": b"1"}},
    {"value": b"v", "headers": [("h", "1")]},
    {"value": b"v", "headers": ()},
    {"value": b"v", "partition": -1},
    {"value": b"v", "partition": PARTITIONS},
    {"value": b"v", "timestamp_ms": "today"},
    {"value": b"v" * 2_000_000},
    {"value": b"v", "headers": [("h", b"1" * 2_000_000)]},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: ",".join(wrong) or "nothing")
def test_what_is_wrong_is_refused_as_by_kafka_pythons(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool, wrong: dict[str, Any]
) -> None:
    with KafkaProducer(**cluster.client_options()) as stock, pytest.raises(Exception) as expected:  # noqa: PT011
        stock.send("orders", **wrong).get(TIMEOUT_S)
    producer = kafka.producer(connection_pool=pool)
    with pytest.raises(type(expected.value)):
        producer.send("orders", **wrong)
    with pytest.raises(type(expected.value)):
        producer.send_batch("orders", [{"value": b"good"}, wrong]).get(TIMEOUT_S)
    if "headers" not in wrong:
        assert isinstance(expected.value, (ValueError, TypeError, MessageSizeTooLargeError))


def test_a_topic_that_cannot_be(kafka: Kafka, pool: ConnectionPool) -> None:
    producer = kafka.producer(connection_pool=pool, max_block_ms=500)
    with pytest.raises((ValueError, InvalidTopicError)):
        producer.send("no good name", b"v").get(TIMEOUT_S)


def test_whoever_watches_kafka_pythons_send_sees_what_is_sent(
    kafka: Kafka, pool: ConnectionPool, reader: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenTelemetry's instrumentation does, which adds a header."""
    seen: list[Any] = []
    send = KafkaProducer.send

    def watched(self: Any, topic: str, *args: Any, headers: Any = None, **kwargs: Any) -> Any:
        seen.append((topic, kwargs["value"], kwargs["key"]))
        return send(self, topic, *args, headers=[*(headers or []), ("trace", b"1")], **kwargs)

    producer = kafka.producer(connection_pool=pool, value_serializer=str.encode, key_serializer=str.encode)
    producer.send("orders", "before", key="k").get(TIMEOUT_S)
    monkeypatch.setattr(KafkaProducer, "send", watched)
    producer.send("orders", "watched", key="k").get(TIMEOUT_S)
    assert seen == [("orders", b"watched", b"k")]
    monkeypatch.setattr(KafkaProducer, "send", wraps(send)(watched))
    many = producer.send_batch("orders", [{"value": "many", "key": "k"}, {"value": "more", "key": "k"}]).get(TIMEOUT_S)
    assert [record.serialized_value_size for record in many] == [4, 4]
    assert seen[1:] == [("orders", b"many", b"k"), ("orders", b"more", b"k")]
    monkeypatch.undo()
    producer.send("orders", "after", key="k").get(TIMEOUT_S)
    assert len(seen) == 3
    reader("orders").gets([b"before", b"watched", b"many", b"more", b"after"])


def test_records_share_a_batch_whoever_opened_it(
    kafka: Kafka, pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = kafka.producer(connection_pool=pool, linger_ms=60_000)
    producer.partitions_for("orders")
    send = KafkaProducer.send

    def watched(self: Any, topic: str, **kwargs: Any) -> Any:
        return send(self, topic, **kwargs)

    futures = []
    for number, partition in enumerate((0, 0, 1, 1)):
        with monkeypatch.context() as patch:
            if number in (0, 3):  # kafka-python opens the first batch, and adds to the second
                patch.setattr(KafkaProducer, "send", watched)
            futures.append(producer.send("orders", b"%d" % number, partition=partition))
    assert not any(future.is_done for future in futures)
    producer.flush(TIMEOUT_S)
    assert [(future.value.partition, future.value.offset) for future in futures] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_each_record_hears_what_became_of_it_once(cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool) -> None:
    heard: list[Any] = []
    for error in (None, TopicAuthorizationFailedError):
        producer = kafka.producer(connection_pool=pool, linger_ms=60_000, enable_idempotence=False)
        faults = [cluster.intercept("Produce", Error(error))] if error else []
        for _ in range(3):
            future = producer.send("orders", b"v", partition=0)
            future.add_callback(lambda metadata: heard.append(metadata.offset))
            future.add_errback(lambda failed: heard.append(type(failed)))
        producer.flush(TIMEOUT_S)
        unfinished = producer._unfinished
        until(lambda unfinished=unfinished: not unfinished)  # type: ignore[misc]
        for fault in faults:
            fault.remove()
    assert heard == [0, 1, 2] + [TopicAuthorizationFailedError] * 3


def test_an_interrupt_while_a_record_is_sent_leaves_nothing_to_wait_for(kafka: Kafka, pool: ConnectionPool) -> None:
    class Interrupted(set[Any]):
        def add(self, _: Any) -> None:
            raise KeyboardInterrupt

    producer = kafka.producer(connection_pool=pool)
    producer._unfinished = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        producer.send("orders", b"v", partition=0)
    producer.flush(TIMEOUT_S)
    until(lambda: not list(producer._opened().kafka._accumulator._incomplete.all()))


def test_what_records_are_given_up_with_reaches_each(kafka: Kafka, pool: ConnectionPool) -> None:
    producer = kafka.producer(connection_pool=pool, linger_ms=60_000)
    futures = [producer.send("orders", b"v", partition=0) for _ in range(3)]
    with pytest.raises(PoolTimeoutError, match="3 of orders"):
        pool.disconnect(timeout_ms=0)
    until(lambda: all(future.is_done for future in futures))
    assert all(future.failed() for future in futures)
    until(lambda: not producer._unfinished)


class Name(str):
    __slots__ = ()


def test_what_kafka_pythons_takes_is_taken(
    kafka: Kafka, pool: ConnectionPool, consumer: Callable[..., Consumer]
) -> None:
    producer = kafka.producer(connection_pool=pool)
    view = memoryview(b"view")
    ages_ago = {"value": view, "timestamp_ms": 0, "headers": [(Name("h"), b"1")], "partition": 0}
    single = producer.send("orders", **ages_ago)  # type: ignore[arg-type]
    many = producer.send_batch("orders", [ages_ago])
    view.release()
    assert single.get(TIMEOUT_S).timestamp == many.get(TIMEOUT_S)[0].timestamp == 0
    assert many.get()[0].serialized_value_size == 4
    reading = consumer("orders")
    records: list[Any] = []

    def all_are_read() -> bool:
        for batch in reading.poll(timeout_ms=50).values():
            records.extend(batch)
        return len(records) == 2

    until(all_are_read)
    assert [(record.value, record.timestamp, record.headers) for record in records] == [(b"view", 0, [("h", b"1")])] * 2


def test_a_future_does_not_keep_what_was_sent(kafka: Kafka, pool: ConnectionPool) -> None:
    class Payload(bytearray):
        pass

    producer = kafka.producer(connection_pool=pool)
    payload = Payload(b"x" * 1_000)
    gone = weakref.ref(payload)
    future = producer.send_batch("orders", [{"value": memoryview(payload)}])
    future.get(TIMEOUT_S)
    del payload
    until(lambda: gc.collect() or gone() is None)


class Upper(Serializer):  # type: ignore[misc]
    def serialize(self, topic: str, headers: Any, data: Any) -> Any:
        return data.encode().upper()


def test_a_partitioner_of_the_users_is_asked_with_what_was_given_and_what_became_of_it(
    kafka: Kafka, pool: ConnectionPool
) -> None:
    asked: list[Any] = []

    class ByLength(Partitioner):  # type: ignore[misc]
        def partition(self, topic: str, key: Any, raw_key: Any, value: Any, raw_value: Any, cluster: Any) -> int:
            asked.append((key, raw_key, value, raw_value))
            return len(raw_value) % PARTITIONS

    producer = kafka.producer(
        connection_pool=pool, partitioner=ByLength(), value_serializer=Upper(), key_serializer=Upper()
    )
    sent = [producer.send("orders", "a" * n, key="k").get(TIMEOUT_S).partition for n in range(1, 4)]
    assert sent == [1, 2, 0]
    assert asked[0] == ("k", b"K", "a", b"A")


def test_a_sticky_partitioner_changes_with_each_batch(
    kafka: Kafka, pool: ConnectionPool, consumer: Callable[..., Consumer]
) -> None:
    producer = kafka.producer(connection_pool=pool, partitioner=StickyPartitioner(), linger_ms=60_000, batch_size=2_000)
    futures = [producer.send("orders", b"%04d" % n * 20) for n in range(300)]
    producer.flush(TIMEOUT_S)
    partitions = [future.get(TIMEOUT_S).partition for future in futures]
    assert set(partitions) == set(range(PARTITIONS))
    changes = sum(before != after for before, after in pairwise(partitions))
    assert changes < 30, "records stay together while a batch has room"


def test_partitions_that_are_added_are_used(cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool) -> None:
    producer = kafka.producer(connection_pool=pool)
    producer.send("orders", b"v").get(TIMEOUT_S)
    with pytest.raises(ValueError, match="partition"):
        producer.send("orders", b"v", partition=PARTITIONS)
    with kafka.admin(connection_pool=pool) as admin:
        admin.create_partitions({"orders": PARTITIONS + 1})
    pool.client.poll(future=pool.client.cluster.request_update())
    until(lambda: len(producer.partitions_for("orders")) == PARTITIONS + 1)
    assert producer.send("orders", b"v", partition=PARTITIONS).get(TIMEOUT_S).partition == PARTITIONS
