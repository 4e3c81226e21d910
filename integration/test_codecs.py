"""Every codec on real brokers: what a pool compresses and stock clients read, and the other way round."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.record.default_records import DefaultRecordBatch
from kafka.structs import TopicPartition

from integration.clients import eventually
from pooledkafka import ConnectionPool, Consumer, Producer
from pooledkafka._wire.record_batch import RecordBatch

CODECS = {
    "gzip": DefaultRecordBatch.CODEC_GZIP,
    "snappy": DefaultRecordBatch.CODEC_SNAPPY,
    "lz4": DefaultRecordBatch.CODEC_LZ4,
    "zstd": DefaultRecordBatch.CODEC_ZSTD,
}
MESSAGES: list[dict[str, Any]] = [
    {
        "key": b"%d" % number if number % 3 else None,
        "value": b"a value that repeats itself " * (number % 50) if number % 7 or not number % 3 else None,
        "headers": [("number", b"%d" % number), ("nothing", b"")] if number % 2 else [],
        "partition": 0,
        "timestamp_ms": 1_700_000_000_000 + number,
    }
    for number in range(1_000)
]


def read(consumer: Any, count: int) -> Iterator[dict[str, Any]]:
    """The first records of the topic, as what was sent."""
    found: list[Any] = []

    def enough() -> bool:
        found.extend(record for records in consumer.poll(timeout_ms=500).values() for record in records)
        return len(found) >= count

    eventually(enough, 30, f"{count} records are read")
    for record in found:
        yield {
            "key": record.key,
            "value": record.value,
            "headers": list(record.headers),
            "partition": record.partition,
            "timestamp_ms": record.timestamp,
        }


def codecs_read(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Those of the batches that pooled consumers decode from now on."""
    found = set()
    decode = RecordBatch.decode

    def noted(batch: RecordBatch, data: bytes, at: int) -> None:
        found.add(DefaultRecordBatch(memoryview(data)[at : at + batch.size]).compression_type)
        decode(batch, data, at)

    monkeypatch.setattr(RecordBatch, "decode", noted)
    return found


@pytest.mark.parametrize("by_broker", [False, True], ids=["by the producer", "by the broker"])
@pytest.mark.parametrize("codec", CODECS)
def test_what_is_compressed_is_read_as_it_was_sent(
    kafka_bootstrap_servers: str,
    pool: ConnectionPool,
    kafka_topic_factory: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    codec: str,
    by_broker: bool,
) -> None:
    topic = kafka_topic_factory(partitions=1, config={"compression.type": codec} if by_broker else {})
    options = {} if by_broker else {"compression_type": codec}
    with Producer(connection_pool=pool, **options) as producer:
        for message in MESSAGES:
            producer.send(topic, **message)
        producer.flush(timeout=30)
        producer.send_batch(topic, MESSAGES).get(timeout=30)
    codecs = codecs_read(monkeypatch)
    with Consumer(connection_pool=pool, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        assert list(read(consumer, 2 * len(MESSAGES))) == 2 * MESSAGES
    assert CODECS[codec] in codecs, "some of it was small enough to be left as it is; not all"
    with closing(KafkaProducer(bootstrap_servers=kafka_bootstrap_servers, **options)) as stock:
        for message in MESSAGES:
            stock.send(topic, **message)
        stock.flush(timeout=30)
    with (
        Consumer(connection_pool=pool, auto_offset_reset="earliest") as pooled,
        closing(KafkaConsumer(bootstrap_servers=kafka_bootstrap_servers, auto_offset_reset="earliest")) as stock_reader,
    ):
        for consumer in (pooled, stock_reader):
            consumer.assign([TopicPartition(topic, 0)])
            assert list(read(consumer, 3 * len(MESSAGES))) == 3 * MESSAGES
