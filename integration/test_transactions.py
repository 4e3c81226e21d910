"""Transactions over a pool: exactly once from one topic to another, one owner of an id, and fencing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.errors import InvalidProducerEpochError, KafkaError, ProducerFencedError
from kafka.structs import OffsetAndMetadata, TopicPartition

from integration.clients import Reader, eventually
from integration.logs import plain_log
from pooledkafka import ConfigurationError, ConnectionPool, Consumer, Producer

PARTITIONS = 3
RECORDS = 400


@pytest.fixture
def pool(kafka_bootstrap_servers: str) -> Iterator[ConnectionPool]:
    with ConnectionPool(bootstrap_servers=kafka_bootstrap_servers) as pool:
        yield pool


class Transformer:
    """Moves records from one topic to another, in transactions that also commit where it has read to.

    ``step`` makes one transaction, and says what became of it; of those that it does not commit some are aborted, and
    some left open, as by a process that dies.
    """

    def __init__(self, pool: ConnectionPool, source: str, target: str, rng: random.Random) -> None:
        self._target = target
        self._rng = rng
        self._consumer = Consumer(
            source,
            connection_pool=pool,
            group_id=source,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
        )
        self._producer = Producer(connection_pool=pool, transactional_id=source, retry_backoff_ms=20)
        self._producer.init_transactions()

    def step(self) -> str:
        batches = self._consumer.poll(timeout_ms=500, max_records=self._rng.randrange(1, 40))
        if not batches:
            return "nothing"
        self._producer.begin_transaction()
        for records in batches.values():
            for record in records:
                self._producer.send(self._target, b"out-" + record.value, key=record.key)
        offsets = {p: OffsetAndMetadata(records[-1].offset + 1, "", -1) for p, records in batches.items()}
        outcome = self._rng.choices(["committed", "aborted", "left open"], [6, 3, 1])[0]
        if outcome == "committed":
            self._producer.send_offsets_to_transaction(offsets, self._consumer.group_metadata())
            self._producer.commit_transaction()
            return outcome
        self._producer.flush(timeout=30)  # what was not sent yet would not come into the log at all
        self._producer.send_offsets_to_transaction(offsets, self._consumer.group_metadata())
        if outcome == "aborted":
            self._producer.abort_transaction()
            for partition, records in batches.items():
                self._consumer.seek(partition, records[0].offset)
        return outcome

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()


def fill(pool: ConnectionPool, topic: str) -> list[bytes]:
    values = [b"%d" % number for number in range(RECORDS)]
    with Producer(connection_pool=pool) as producer:
        for future in [producer.send(topic, value, partition=n % PARTITIONS) for n, value in enumerate(values)]:
            future.get(timeout=30)
    return values


def test_each_record_goes_exactly_once_from_one_topic_to_another(
    kafka_bootstrap_servers: str, pool: ConnectionPool, kafka_topic_factory: Callable[..., str]
) -> None:
    source, target = kafka_topic_factory(partitions=PARTITIONS), kafka_topic_factory(partitions=PARTITIONS)
    values = fill(pool, source)
    committed = Reader(
        Consumer(
            target,
            connection_pool=pool,
            group_id=target,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
    )
    rng = random.Random(3)
    outcomes: Counter[str] = Counter()
    transformer = Transformer(pool, source, target, rng)

    def everything_was_moved() -> bool:
        nonlocal transformer
        outcome = transformer.step()
        outcomes[outcome] += 1
        if outcome == "left open":
            transformer.close()
            transformer = Transformer(pool, source, target, rng)
        return outcome == "nothing" and committed.values.total() >= RECORDS

    eventually(everything_was_moved, 60, "all records moved")
    transformer.close()
    committed.stop()
    moved = Counter(b"out-" + value for value in values)
    assert min(outcomes[outcome] for outcome in ("committed", "aborted", "left open")) > 0
    assert committed.values == moved

    partitions = [TopicPartition(target, index) for index in range(PARTITIONS)]
    for level, seen in {
        "read_committed": moved,
        "read_uncommitted": None,
    }.items():
        log = plain_log(kafka_bootstrap_servers, partitions, isolation_level=level)
        held = Counter(value for entries in log.values() for _, _, _, value, _ in entries)
        assert held == seen if seen else held > moved, "the aborted records are in the log, and only there"


def test_an_id_belongs_to_one_handle_at_a_time(pool: ConnectionPool, kafka_topic: str) -> None:
    def transact(producer: Producer, value: bytes) -> None:
        producer.begin_transaction()
        producer.send(kafka_topic, value)
        producer.commit_transaction()

    with Producer(connection_pool=pool, transactional_id=kafka_topic) as first:
        first.init_transactions()
        second = Producer(connection_pool=pool, transactional_id=kafka_topic)
        with pytest.raises(ConfigurationError, match="belongs to another producer of this connection pool"):
            second.init_transactions()
        transact(first, b"first")
    second.init_transactions()  # the id is free again
    transact(second, b"second")
    second.close()
    with Consumer(kafka_topic, connection_pool=pool, auto_offset_reset="earliest", consumer_timeout_ms=5_000) as reader:
        assert [next(reader).value, next(reader).value] == [b"first", b"second"]
    assert pool.stats().producers == 0


def error_of_stock(bootstrap_servers: str, topic: str, go_on: Callable[[str, Any], None]) -> type[KafkaError]:
    """How a KafkaProducer of kafka-python's own says that it was fenced; its transaction is aborted by that."""
    options = {"bootstrap_servers": bootstrap_servers, "transactional_id": f"{topic}-stock"}
    with KafkaProducer(**options) as fenced, KafkaProducer(**options) as successor:
        fenced.init_transactions()
        fenced.begin_transaction()
        fenced.send(topic, b"of the fenced").get(timeout=30)
        successor.init_transactions()
        with pytest.raises((ProducerFencedError, InvalidProducerEpochError)) as caught:
            go_on(topic, fenced)
    return caught.type


def commits(topic: str, producer: Any) -> None:
    producer.commit_transaction()


def sends(topic: str, producer: Any) -> None:
    producer.send(topic, b"too late").get(timeout=30)


@pytest.mark.parametrize("go_on", [commits, sends])
def test_only_the_handle_that_is_fenced_notices(
    kafka_bootstrap_servers: str, pool: ConnectionPool, kafka_topic: str, go_on: Callable[[str, Any], None]
) -> None:
    expected = error_of_stock(kafka_bootstrap_servers, kafka_topic, go_on)
    neighbour = Producer(connection_pool=pool, transactional_id=f"{kafka_topic}-neighbour")
    neighbour.init_transactions()
    plain = Producer(connection_pool=pool)
    reader = Reader(
        Consumer(
            kafka_topic,
            connection_pool=pool,
            group_id=kafka_topic,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
    )
    seen: Counter[bytes] = Counter()

    def others_work(round_number: int) -> None:
        """A transaction of the neighbour's is open meanwhile, and a plain producer sends."""
        for name, producer in (("plain", plain), ("neighbour", neighbour)):
            value = f"{name} {round_number}".encode()
            producer.send(kafka_topic, value).get(timeout=30)
            seen[value] += 1

    fenced = Producer(connection_pool=pool, transactional_id=kafka_topic)
    fenced.init_transactions()
    neighbour.begin_transaction()
    others_work(1)
    fenced.begin_transaction()
    fenced.send(kafka_topic, b"of the fenced").get(timeout=30)

    with (
        ConnectionPool(bootstrap_servers=kafka_bootstrap_servers) as other_pool,
        Producer(connection_pool=other_pool, transactional_id=kafka_topic) as successor,
    ):
        successor.init_transactions()
        others_work(2)
        with pytest.raises(expected):
            go_on(kafka_topic, fenced)
        others_work(3)
        neighbour.commit_transaction()
        successor.begin_transaction()
        successor.send(kafka_topic, b"of the successor").get(timeout=30)
        successor.commit_transaction()
        seen[b"of the successor"] += 1
        eventually(lambda: reader.error or reader.values == seen, 30, "what others sent is read, and nothing else")
        assert reader.error is None

        # Who comes after the fenced handle in its pool takes the id back.
        fenced.close()
        with Producer(connection_pool=pool, transactional_id=kafka_topic) as again:
            again.init_transactions()
            again.begin_transaction()
            again.send(kafka_topic, b"again").get(timeout=30)
            again.commit_transaction()
            seen[b"again"] += 1
            eventually(lambda: reader.error or reader.values == seen, 30, "the new owner's record is read")
    reader.stop()
    assert reader.values == seen
    neighbour.close()
    plain.close()
    assert pool.stats().producers == 0
