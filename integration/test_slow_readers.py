"""A consumer that does not poll, or seldom, keeps nobody waiting, and what is read ahead stays within its bound."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka.structs import TopicPartition

from integration.clients import Reader, eventually
from integration.logs import Log, entry, plain_log
from pooledkafka import ConnectionPool, Consumer, Producer

PARTITIONS = 6
BOUND = 1_048_576
PARTITION_BYTES = 131_072  # max_partition_fetch_bytes, and with it the size of what one answer holds of a partition
# One answer from each broker may come on top of the bound, which holds its share of the partitions; together all.
MOST = BOUND + PARTITIONS * (PARTITION_BYTES + 512)
RECORDS = 6_000
FILLER = b"." * 1_500


class Sampler:
    """Looks at a pool's ``read_ahead_bytes`` all the time: the largest and the smallest; a context manager."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.most = 0
        self.least = BOUND * 100
        self.samples = 0

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.001):
            held = self._pool.stats().read_ahead_bytes
            self.most, self.least = max(self.most, held), min(self.least, held)
            self.samples += 1


@pytest.fixture
def partitions(kafka_topic_factory: Callable[..., str]) -> list[TopicPartition]:
    topic = kafka_topic_factory(partitions=PARTITIONS)
    return [TopicPartition(topic, index) for index in range(PARTITIONS)]


@pytest.fixture
def pool(kafka_bootstrap_servers: str) -> Iterator[ConnectionPool]:
    with ConnectionPool(bootstrap_servers=kafka_bootstrap_servers, fetch_buffer_bytes=BOUND) as pool:
        yield pool


def write(pool: ConnectionPool, partitions: list[TopicPartition], first: int, count: int) -> list[bytes]:
    values = [b"%d" % number + FILLER for number in range(first, first + count)]
    # A broker sends a whole batch at least (KIP-74): one that is larger than PARTITION_BYTES would come on top of it.
    with Producer(connection_pool=pool, linger_ms=5, batch_size=16_384) as producer:
        futures = [producer.send(partitions[0].topic, v, partition=n % PARTITIONS) for n, v in enumerate(values)]
        for future in futures:
            future.get(timeout=30)
    return values


def consumer(pool: ConnectionPool, *topics: str, **options: Any) -> Consumer:
    return Consumer(
        *topics,
        connection_pool=pool,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=PARTITION_BYTES,
        **options,
    )


class Took:
    """A consumer that the test itself polls, and what it got."""

    def __init__(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.consumer = consumer
        self.log: Log = {partition: [] for partition in partitions}

    def take(self, max_records: int | None = None) -> int:
        """Poll once; returns how many records there are by now."""
        for partition, records in self.consumer.poll(timeout_ms=500, max_records=max_records).items():
            self.log[partition].extend(entry(record) for record in records)
        return sum(map(len, self.log.values()))

    def take_until(self, count: int, max_records: int | None = None) -> None:
        """Poll until there are so many records."""
        eventually(lambda: self.take(max_records) >= count, 60, f"a reader has {count} records")


def test_a_reader_that_does_not_poll_or_seldom_keeps_nobody_waiting(
    kafka_bootstrap_servers: str, pool: ConnectionPool, partitions: list[TopicPartition]
) -> None:
    topic = partitions[0].topic
    with Sampler(pool) as sampler:
        sent = Counter(write(pool, partitions, 0, RECORDS))
        stopped = Took(consumer(pool, topic, group_id=f"{topic}-stopped"), partitions)
        seldom = Took(consumer(pool, topic, group_id=f"{topic}-seldom"), partitions)
        for slow in (stopped, seldom):
            slow.take_until(1, max_records=1)

        others = [Reader(consumer(pool, topic, group_id=f"{topic}-{number}")) for number in range(3)]

        def everybody_else_has_all() -> bool:
            seldom.take(max_records=1)
            return any(other.error for other in others) or all(other.values.copy() == sent for other in others)

        eventually(everybody_else_has_all, 60, "the others have all records")
        for first in (RECORDS, RECORDS + RECORDS // 4):
            fetches = pool.stats().wire_fetches
            sent.update(write(pool, partitions, first, RECORDS // 4))
            eventually(everybody_else_has_all, 60, "the others have the new records")
            assert pool.stats().wire_fetches > fetches
        for other in others:
            other.stop()
            assert other.values == sent

        truth = plain_log(kafka_bootstrap_servers, partitions)
        for slow in (stopped, seldom):
            taken = sum(map(len, slow.log.values()))
            assert 0 < taken < RECORDS / 2, "it was slow indeed"
            slow.take_until(sent.total())
            assert slow.log == truth
            slow.consumer.close()
    assert sampler.samples > 100
    assert BOUND / 2 < sampler.most <= MOST


def test_readers_that_hold_all_that_may_be_read_ahead_starve_nobody(
    kafka_bootstrap_servers: str, pool: ConnectionPool, partitions: list[TopicPartition]
) -> None:
    write(pool, partitions, 0, RECORDS)
    truth = plain_log(kafka_bootstrap_servers, partitions)
    at_the_end = Took(consumer(pool), partitions)
    at_the_end.consumer.assign(partitions)
    at_the_end.consumer.seek_to_end(*partitions)
    assert at_the_end.take() == 0

    holding = []
    for number in range(12):
        slow = Took(consumer(pool), partitions)
        slow.consumer.assign(partitions)
        for partition in partitions:
            slow.consumer.seek(partition, 50 * number)
        slow.take_until(1, max_records=1)
        holding.append(slow)
    eventually(lambda: pool.stats().read_ahead_bytes >= BOUND, 30, "all that may be read ahead is held")

    with Sampler(pool) as sampler:
        fetches = pool.stats().wire_fetches
        fast = Took(consumer(pool), partitions)
        fast.consumer.assign(partitions)
        fast.take_until(RECORDS)
        write(pool, partitions, RECORDS, PARTITIONS)
        fast.take_until(RECORDS + PARTITIONS)
        at_the_end.take_until(PARTITIONS)
        assert pool.stats().wire_fetches > fetches
    assert sampler.least >= BOUND / 4, "the slow readers held on meanwhile"
    assert sampler.most <= MOST

    truth = plain_log(kafka_bootstrap_servers, partitions)
    assert fast.log == truth
    assert at_the_end.log == {partition: log[-1:] for partition, log in truth.items()}
    for number, slow in enumerate(holding):
        wanted = {partition: log[50 * number :] for partition, log in truth.items()}
        slow.take_until(sum(map(len, wanted.values())))
        assert slow.log == wanted
        slow.consumer.close()
    for reader in (fast, at_the_end):
        reader.consumer.close()
    eventually(lambda: pool.stats().read_ahead_bytes == 0, 30, "nothing is held for readers that are gone")
