"""Each reader of a pool gets exactly its log, whatever the others do: compared with a plain KafkaConsumer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.structs import TopicPartition

from integration.logs import Log, entry, plain_log
from pooledkafka import ConnectionPool, Consumer

RECORDS = 4_000
PARTITIONS = 3


@pytest.fixture
def written(kafka_bootstrap_servers: str, kafka_topic_factory: Callable[..., str]) -> list[TopicPartition]:
    """Partitions with compressed and plain batches, and with committed and aborted transactions between them."""
    topic = kafka_topic_factory(partitions=PARTITIONS)
    rng = random.Random(7)
    with ExitStack() as stack:
        plain, zipped, transactional = (
            stack.enter_context(KafkaProducer(bootstrap_servers=kafka_bootstrap_servers, linger_ms=2, **options))
            for options in ({}, {"compression_type": "gzip"}, {"transactional_id": topic})
        )
        transactional.init_transactions()
        number = 0
        while number < RECORDS:
            producer = rng.choice([plain, zipped, transactional])
            if producer is transactional:
                producer.begin_transaction()
            for _ in range(rng.randrange(1, 200)):
                producer.send(topic, b"%d" % number + b"." * rng.randrange(100), key=b"%d" % (number % 17))
                number += 1
            producer.flush()
            if producer is transactional:
                rng.choice([producer.commit_transaction, producer.abort_transaction])()
    return [TopicPartition(topic, index) for index in range(PARTITIONS)]


@pytest.fixture
def pool(kafka_bootstrap_servers: str) -> Iterator[ConnectionPool]:
    # So little may be read ahead that readers at different places keep dropping what the others have not taken.
    with ConnectionPool(bootstrap_servers=kafka_bootstrap_servers, fetch_buffer_bytes=100_000) as pool:
        yield pool


@pytest.mark.parametrize("isolation_level", ["read_uncommitted", "read_committed"])
def test_lagging_pausing_and_seeking_readers_get_what_a_plain_consumer_gets(
    kafka_bootstrap_servers: str, pool: ConnectionPool, written: list[TopicPartition], isolation_level: str
) -> None:
    options: dict[str, Any] = {
        "isolation_level": isolation_level,
        "max_partition_fetch_bytes": 16_384,
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
    }
    truth = plain_log(kafka_bootstrap_servers, written, isolation_level=isolation_level)
    ends = {partition: log[-1][0] + 1 for partition, log in truth.items()}
    assert sum(len(log) for log in truth.values()) >= RECORDS / 2

    rng = random.Random(11)
    readers = [Consumer(connection_pool=pool, **options) for _ in range(6)]
    got: list[Log] = [{partition: [] for partition in written} for _ in readers]
    expected_from = [dict.fromkeys(written, 0) for _ in readers]
    for reader in readers:
        reader.assign(written)

    def advance(number: int, max_records: int) -> None:
        for partition, records in readers[number].poll(timeout_ms=100, max_records=max_records).items():
            got[number][partition].extend(entry(record) for record in records)

    # A few hundred rounds in which each does something else, and nobody waits for anybody.
    for _ in range(300):
        number = rng.randrange(len(readers))
        partition = rng.choice(written)
        action = rng.random()
        if action < 0.05:
            offset = rng.randrange(ends[partition])
            readers[number].seek(partition, offset)
            got[number][partition], expected_from[number][partition] = [], offset
        elif action < 0.1:
            readers[number].pause(partition)
        elif action < 0.2:
            readers[number].resume(*written)
        else:
            advance(number, rng.choice([1, 10, 500]))
        assert pool.stats().read_ahead_bytes <= 100_000 + 2 * 3 * 2 * (16_384 + 512)

    deadline = time.monotonic() + 60
    for number, reader in enumerate(readers):
        reader.resume(*written)
        wanted = {p: [e for e in truth[p] if e[0] >= expected_from[number][p]] for p in written}
        while got[number] != wanted and time.monotonic() < deadline:
            advance(number, 500)
        for partition in written:
            assert got[number][partition] == wanted[partition], f"reader {number} of {partition}"
        reader.close()
