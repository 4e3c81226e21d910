"""Idempotent and transactional producers of real clients, and consumers of both isolation levels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError, ProducerFencedError
from kafka.structs import OffsetAndMetadata, TopicPartition

from pooledkafka.testing import Drop, EmbeddedKafka

TOPIC = "orders"
MINUTE_MS = 60_000


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=3) as cluster:
        cluster.create_topic(TOPIC, partitions=2)
        yield cluster


@contextlib.contextmanager
def producing(
    cluster: EmbeddedKafka, transactional_id: str | None = None, timeout_ms: int = MINUTE_MS
) -> Iterator[KafkaProducer]:
    options: dict[str, Any] = {"enable_idempotence": True, "retry_backoff_ms": 10}
    if transactional_id is not None:
        options.update(transactional_id=transactional_id, transaction_timeout_ms=timeout_ms)
    producer = KafkaProducer(**cluster.client_options(), **options)
    try:
        if transactional_id is not None:
            producer.init_transactions()
        yield producer
    finally:
        producer.close(timeout=5)


def send(producer: KafkaProducer, *values: bytes, partition: int = 0) -> None:
    for value in values:
        producer.send(TOPIC, value, partition=partition)
    producer.flush(timeout=10)


def read(cluster: EmbeddedKafka, committed: bool, partition: int = 0) -> list[bytes]:
    """All that a consumer may read now."""
    level = "read_committed" if committed else "read_uncommitted"
    consumer = KafkaConsumer(
        **cluster.client_options(), isolation_level=level, auto_offset_reset="earliest", enable_auto_commit=False
    )
    with contextlib.closing(consumer):
        key = TopicPartition(TOPIC, partition)
        consumer.assign([key])
        (end,) = consumer.end_offsets([key]).values()
        values: list[bytes] = []
        while consumer.position(key) < end:
            for records in consumer.poll(timeout_ms=100).values():
                values += [record.value for record in records]
        return values


def committed_offset(cluster: EmbeddedKafka, group_id: str) -> int | None:
    consumer = KafkaConsumer(**cluster.client_options(), group_id=group_id, enable_auto_commit=False)
    with contextlib.closing(consumer):
        offset: int | None = consumer.committed(TopicPartition(TOPIC, 0))
        return offset


# -- kafka-python ------------------------------------------------------------------------------------------------------


def test_a_batch_whose_answer_is_lost_is_there_once(cluster: EmbeddedKafka) -> None:
    with producing(cluster) as producer:
        send(producer, b"one")
        with cluster.intercept("Produce", Drop(served=True), times=1) as lost:
            send(producer, b"two")
            lost.wait_for(1)
        send(producer, b"three")
    assert read(cluster, committed=False) == [b"one", b"two", b"three"]


def test_committed_records_are_read_and_aborted_ones_only_by_who_asks_for_all(cluster: EmbeddedKafka) -> None:
    with producing(cluster, "id") as producer:
        for number, end in enumerate((producer.commit_transaction, producer.abort_transaction) * 2):
            producer.begin_transaction()
            for partition in range(2):
                send(producer, b"%d" % number, b"%d" % number, partition=partition)
            end()
    for partition in range(2):
        assert read(cluster, True, partition) == [b"0", b"0", b"2", b"2"]
        assert read(cluster, False, partition) == [b"0", b"0", b"1", b"1", b"2", b"2", b"3", b"3"]


def test_what_comes_after_an_open_transaction_waits_for_its_end(cluster: EmbeddedKafka) -> None:
    with producing(cluster, "id") as producer, producing(cluster) as other:
        send(other, b"before")
        producer.begin_transaction()
        send(producer, b"open")
        send(other, b"after")
        assert read(cluster, committed=True) == [b"before"]
        assert read(cluster, committed=False) == [b"before", b"open", b"after"]
        producer.commit_transaction()
    assert read(cluster, committed=True) == [b"before", b"open", b"after"]


def test_interleaved_transactions_are_told_apart(cluster: EmbeddedKafka) -> None:
    with producing(cluster, "a") as first, producing(cluster, "b") as second, producing(cluster) as other:
        first.begin_transaction()
        second.begin_transaction()
        send(first, b"a1")
        send(second, b"b1")
        send(first, b"a2")
        send(other, b"o1")
        first.abort_transaction()
        first.begin_transaction()
        send(second, b"b2")
        send(first, b"a3")
        second.abort_transaction()
        send(first, b"a4")
        first.commit_transaction()
        second.begin_transaction()
        send(second, b"b3")
        second.commit_transaction()
    assert read(cluster, committed=True) == [b"o1", b"a3", b"a4", b"b3"]
    assert read(cluster, committed=False) == [b"a1", b"b1", b"a2", b"o1", b"b2", b"a3", b"a4", b"b3"]


def test_offsets_are_committed_with_the_transaction(cluster: EmbeddedKafka) -> None:
    with producing(cluster, "id") as producer:
        for offset, end in ((1, producer.abort_transaction), (2, producer.commit_transaction)):
            producer.begin_transaction()
            send(producer, b"value")
            offsets = {TopicPartition(TOPIC, 0): OffsetAndMetadata(offset, "", -1)}
            producer.send_offsets_to_transaction(offsets, "group")
            end()
            assert committed_offset(cluster, "group") == (2 if offset == 2 else None)


def test_records_are_consumed_and_produced_in_one_transaction(cluster: EmbeddedKafka) -> None:
    with producing(cluster) as producer:
        send(producer, b"one", b"two")
    key = TopicPartition(TOPIC, 0)
    consumer = KafkaConsumer(
        **cluster.client_options(),
        group_id="group",
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    with contextlib.closing(consumer), producing(cluster, "id") as producer:
        assert consumer.partitions_for_topic(TOPIC)  # a leader that does not know the topic yet assigns nothing
        consumer.subscribe([TOPIC])
        values: list[bytes] = []
        while len(values) < 2:
            # A poll that ends amid a join may leave kafka-python 3.0.12 without an assignment for ever.
            values += [record.value for record in consumer.poll(timeout_ms=5_000).get(key, [])]
        producer.begin_transaction()
        send(producer, *values, partition=1)
        offsets = {key: OffsetAndMetadata(consumer.position(key), "", -1)}
        producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
        producer.commit_transaction()
    assert read(cluster, True, partition=1) == [b"one", b"two"]
    assert committed_offset(cluster, "group") == 2


def test_a_second_producer_of_the_same_id_fences_the_first(cluster: EmbeddedKafka) -> None:
    with producing(cluster, "id") as first:
        first.begin_transaction()
        send(first, b"first")
        with producing(cluster, "id") as second:
            with pytest.raises(ProducerFencedError):
                first.commit_transaction()
            second.begin_transaction()
            send(second, b"second")
            second.commit_transaction()
    assert read(cluster, committed=True) == [b"second"]
    assert read(cluster, committed=False) == [b"first", b"second"]


def test_a_transaction_that_takes_too_long_is_aborted(cluster: EmbeddedKafka) -> None:
    key = TopicPartition(TOPIC, 0)
    options = {"isolation_level": "read_committed", "auto_offset_reset": "earliest"}
    with producing(cluster, "id", timeout_ms=100) as slow, producing(cluster) as other:
        slow.begin_transaction()
        send(slow, b"slow")
        send(other, b"after")
        with contextlib.closing(KafkaConsumer(**cluster.client_options(), **options)) as consumer:
            consumer.assign([key])
            records: list[Any] = []
            while not records:  # it waits for the end of the transaction
                records = consumer.poll(timeout_ms=5_000).get(key, [])
        assert [record.value for record in records] == [b"after"]
        with pytest.raises(KafkaError):
            slow.commit_transaction()


def test_transactions_survive_a_new_leader_and_a_new_coordinator(cluster: EmbeddedKafka) -> None:
    with producing(cluster, "id") as producer:
        producer.begin_transaction()
        send(producer, b"one")
        leader = cluster.leader_of(TOPIC)
        cluster.move_leader(TOPIC, 0, next(node_id for node_id in cluster.node_ids if node_id != leader))
        coordinator = cluster.coordinator_of("id")
        cluster.move_coordinator("id", next(node_id for node_id in cluster.node_ids if node_id != coordinator))
        send(producer, b"two")
        producer.commit_transaction()
    assert read(cluster, committed=True) == [b"one", b"two"]


def test_a_transaction_commits_while_a_broker_is_down(cluster: EmbeddedKafka) -> None:
    with producing(cluster, "id") as producer:
        producer.begin_transaction()
        send(producer, b"one")
        cluster.kill(cluster.leader_of(TOPIC))
        send(producer, b"two")
        producer.commit_transaction()
    assert read(cluster, committed=True) == [b"one", b"two"]


# -- confluent-kafka ---------------------------------------------------------------------------------------------------


def confluent_read(confluent: Any, cluster: EmbeddedKafka, isolation_level: str) -> list[bytes]:
    consumer = confluent.Consumer(
        {
            "bootstrap.servers": cluster.bootstrap_servers,
            "group.id": "reader",
            "isolation.level": isolation_level,
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    consumer.assign([confluent.TopicPartition(TOPIC, 0, 0)])
    values: list[bytes] = []
    try:
        while True:
            message = consumer.poll(10)
            assert message is not None
            if message.error() is not None:
                assert message.error().code() == confluent.KafkaError._PARTITION_EOF
                return values
            values.append(message.value())
    finally:
        consumer.close()


def confluent_producer(confluent: Any, cluster: EmbeddedKafka, **options: Any) -> Any:
    options = {name.replace("_", "."): value for name, value in options.items()}
    producer = confluent.Producer({"bootstrap.servers": cluster.bootstrap_servers, **options})
    if "transactional.id" in options:
        producer.init_transactions(10)
    return producer


def test_confluent_commits_and_aborts(cluster: EmbeddedKafka) -> None:
    confluent = pytest.importorskip("confluent_kafka")
    producer = confluent_producer(confluent, cluster, transactional_id="id")
    for number, end in enumerate((producer.commit_transaction, producer.abort_transaction) * 2):
        producer.begin_transaction()
        producer.produce(TOPIC, b"%d" % number, partition=0)
        producer.flush(10)
        end(10)
    assert confluent_read(confluent, cluster, "read_committed") == [b"0", b"2"]
    assert confluent_read(confluent, cluster, "read_uncommitted") == [b"0", b"1", b"2", b"3"]
    assert read(cluster, committed=True) == [b"0", b"2"]


def test_confluent_commits_offsets_with_the_transaction(cluster: EmbeddedKafka) -> None:
    confluent = pytest.importorskip("confluent_kafka")
    consumer = confluent.Consumer({"bootstrap.servers": cluster.bootstrap_servers, "group.id": "group"})
    producer = confluent_producer(confluent, cluster, transactional_id="id")
    try:
        producer.begin_transaction()
        producer.produce(TOPIC, b"value", partition=0)
        offsets = [confluent.TopicPartition(TOPIC, 0, 7)]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 10)
        producer.commit_transaction(10)
        assert [each.offset for each in consumer.committed([confluent.TopicPartition(TOPIC, 0)], 10)] == [7]
    finally:
        consumer.close()


def test_confluent_is_fenced(cluster: EmbeddedKafka) -> None:
    confluent = pytest.importorskip("confluent_kafka")
    first = confluent_producer(confluent, cluster, transactional_id="id")
    first.begin_transaction()
    first.produce(TOPIC, b"first", partition=0)
    first.flush(10)
    second = confluent_producer(confluent, cluster, transactional_id="id")
    with pytest.raises(confluent.KafkaException) as raised:
        first.commit_transaction(10)
    assert raised.value.args[0].code() == confluent.KafkaError._FENCED
    second.begin_transaction()
    second.produce(TOPIC, b"second", partition=0)
    second.commit_transaction(10)
    assert confluent_read(confluent, cluster, "read_committed") == [b"second"]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_confluent_compresses(cluster: EmbeddedKafka, codec: str) -> None:
    confluent = pytest.importorskip("confluent_kafka")
    producer = confluent_producer(confluent, cluster, compression_type=codec, enable_idempotence=True)
    for _ in range(3):
        producer.produce(TOPIC, b"value" * 200, partition=0)
    assert producer.flush(10) == 0
    assert confluent_read(confluent, cluster, "read_committed") == [b"value" * 200] * 3
