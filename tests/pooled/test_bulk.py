"""Records sent by ``send_batch``, over shared senders, beside single ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kafka.errors import MessageSizeTooLargeError
from kafka.partitioner import murmur2

from pooledkafka import ConnectionPool, Consumer, Kafka
from pooledkafka.testing import EmbeddedKafka, Error
from tests.pooled.waiting import TIMEOUT_S, until

PARTITIONS = 3


@pytest.fixture(autouse=True)
def _topic(cluster: EmbeddedKafka) -> None:
    cluster.create_topic("orders", partitions=PARTITIONS)


def encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def read(consumer: Consumer, count: int) -> list[Any]:
    records: list[Any] = []

    def more() -> bool:
        for batch in consumer.poll(timeout_ms=100).values():
            records.extend(batch)
        return len(records) >= count

    until(more)
    return records


def test_every_field_arrives_and_the_metadata_says_where(
    kafka: Kafka, pool: ConnectionPool, consumer: Callable[..., Consumer]
) -> None:
    producer = kafka.producer(connection_pool=pool, key_serializer=encoded, value_serializer=encoded)
    messages: list[dict[str, Any]] = [
        {"value": "plain"},
        {"value": "keyed", "key": "k"},
        {"value": "placed", "partition": 2},
        {"value": "dated", "timestamp_ms": 1_234, "partition": 2},
        {"value": "headed", "headers": [("h", b"1"), ("g", b"")], "partition": 0},
        *({"value": f"{n}", "key": f"{n % 7}"} for n in range(500)),
    ]
    metadata = producer.send_batch("orders", messages).get(timeout=TIMEOUT_S)
    there = {(record.partition, record.offset): record for record in read(consumer("orders"), len(messages))}
    assert len(there) == len(messages)
    for message, record in zip(messages, metadata, strict=True):
        arrived = there[record.partition, record.offset]
        assert arrived.value.decode() == message["value"]
        assert (arrived.key or b"").decode() == message.get("key", "")
        assert arrived.headers == message.get("headers", [])
        assert arrived.timestamp == record.timestamp == message.get("timestamp_ms", record.timestamp)
        assert record.partition == message.get("partition", record.partition)
        if "key" in message:
            assert record.partition == (murmur2(message["key"].encode()) & 0x7FFFFFFF) % PARTITIONS
        assert record.serialized_value_size == len(message["value"])
        assert record.serialized_key_size == len(message["key"]) if "key" in message else -1
    for partition in range(PARTITIONS):
        numbers = [int(r.value) for r in there.values() if r.partition == partition and r.value.isdigit()]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed(kafka: Kafka, pool: ConnectionPool, consumer: Callable[..., Consumer], codec: str) -> None:
    producer = kafka.producer(connection_pool=pool, compression_type=codec)
    values = [b"%d" % n * 20 for n in range(2_000)]
    producer.send_batch("orders", [{"value": value, "partition": 1} for value in values]).get(timeout=TIMEOUT_S)
    assert [record.value for record in read(consumer("orders"), 2_000)] == values


def test_single_ones_and_many_share_batches_in_their_order(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool, consumer: Callable[..., Consumer]
) -> None:
    producer = kafka.producer(connection_pool=pool, linger_ms=60_000)
    futures = []
    for n in range(0, 300, 3):
        futures.append(producer.send("orders", b"%d" % n, partition=0))
        futures.append(
            producer.send_batch(
                "orders", [{"value": b"%d" % (n + 1), "partition": 0}, {"value": b"%d" % (n + 2), "partition": 0}]
            )
        )
    produced = cluster.intercept("Produce")
    producer.flush(timeout=TIMEOUT_S)
    assert len(produced.requests) == 1
    offsets = []
    for future in futures:
        metadata = future.get(timeout=0)
        offsets += (
            [record.offset for record in metadata]
            if isinstance(metadata, Sequence) and not hasattr(metadata, "offset")
            else [metadata.offset]
        )
    assert offsets == list(range(300))
    assert [int(record.value) for record in read(consumer("orders"), 300)] == list(range(300))


def test_a_batch_that_the_broker_finds_too_large_is_split_and_every_record_finds_its_place(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool, consumer: Callable[..., Consumer]
) -> None:
    producer = kafka.producer(connection_pool=pool, linger_ms=100)
    for _ in range(2):
        cluster.intercept("Produce", Error(MessageSizeTooLargeError), times=2)
        single = producer.send("orders", b"-1", partition=0)
        many = producer.send_batch("orders", [{"value": b"%d" % n, "partition": 0} for n in range(50)])
        after = producer.send("orders", b"50", partition=0)
        first = single.get(timeout=TIMEOUT_S).offset
        assert [record.offset for record in many.get(timeout=TIMEOUT_S)] == list(range(first + 1, first + 51))
        assert after.get(timeout=TIMEOUT_S).offset == first + 51
    assert [int(record.value) for record in read(consumer("orders"), 104)] == [*range(-1, 51), *range(-1, 51)]


def test_many_threads_send_many_at_once(kafka: Kafka, pool: ConnectionPool, consumer: Callable[..., Consumer]) -> None:
    start = threading.Barrier(8)

    def send(number: int) -> list[Any]:
        producer = kafka.producer(connection_pool=pool)
        start.wait(TIMEOUT_S)
        sent: list[Any] = []
        for n in range(20):
            messages = [{"value": b"%d" % number, "partition": n % PARTITIONS, "key": b"%d" % n}] * 50
            sent += producer.send_batch("orders", messages).get(timeout=TIMEOUT_S)
            sent.append(producer.send("orders", b"%d" % number, partition=0).get(timeout=TIMEOUT_S))
        return [(record.partition, record.offset, number) for record in sent]

    with ThreadPoolExecutor(8) as threads:
        sent = [each for sent in threads.map(send, range(8)) for each in sent]
    there = {(r.partition, r.offset, int(r.value)) for r in read(consumer("orders"), len(sent))}
    assert there == set(sent)
    assert len(sent) == len(there) == 8 * 20 * 51


def test_transactions(kafka: Kafka, pool: ConnectionPool, consumer: Callable[..., Consumer]) -> None:
    with kafka.producer(connection_pool=pool, transactional_id="t") as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send_batch("orders", [{"value": b"aborted"}] * 100)
        producer.abort_transaction()
        producer.begin_transaction()
        producer.send_batch("orders", [{"value": b"committed"}] * 100)
        producer.commit_transaction()
    records = read(consumer("orders", isolation_level="read_committed"), 100)
    assert [record.value for record in records] == [b"committed"] * 100
