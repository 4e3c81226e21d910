"""The main job on real brokers: consumers and producers of all kinds over one pool."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition

from integration.clients import Reader, eventually
from pooledkafka import ConcurrentUseError, ConnectionPool, Consumer, Kafka, PoolClosedError, Producer

TopicFactory = Callable[..., str]


@pytest.fixture
def topic(kafka_topic_factory: TopicFactory) -> str:
    return kafka_topic_factory(partitions=6)


@pytest.fixture
def read(kafka: Kafka, pool: ConnectionPool) -> Iterator[Callable[..., Reader]]:
    """Starts readers on the pool, and stops what the test left running."""
    readers: list[Reader] = []

    def start(topic: str, group_id: str) -> Reader:
        consumer = kafka.consumer(topic, group_id=group_id, connection_pool=pool, auto_offset_reset="earliest")
        readers.append(Reader(consumer))
        return readers[-1]

    yield start
    for reader in readers:
        reader.tell_to_stop()
    for reader in readers:
        reader.stop()


def send(producers: list[Producer], topic: str, values: list[bytes]) -> None:
    futures = [producers[n % len(producers)].send(topic, value) for n, value in enumerate(values)]
    for future in futures:
        future.get(timeout=30)


def lanes(pool: ConnectionPool) -> Counter[str]:
    """Open connections by lane, over all brokers."""
    total: Counter[str] = Counter()
    for by_lane in pool.stats().connections.values():
        total.update(by_lane)
    return total


def shared_connections(pool: ConnectionPool) -> dict[Any, Any]:
    """The connections themselves, of the lanes that are not opened and closed on demand."""
    manager = pool.client._manager
    return {key: c for key, c in manager.connections() if key.lane.value in ("control", "produce", "fetch")}


def test_each_group_gets_each_record_once(
    kafka: Kafka, pool: ConnectionPool, topic: str, read: Callable[..., Reader]
) -> None:
    readers = [read(topic, f"{topic}-{n}") for n in range(10)]
    producers = [kafka.producer(connection_pool=pool) for _ in range(3)]
    values = [b"%d" % n for n in range(3_000)]
    send(producers, topic, values)

    eventually(lambda: all(r.values.total() >= 3_000 or r.error for r in readers), 60, "every group has all records")
    brokers = len(pool.stats().connections)
    held = lanes(pool)
    for reader in readers:
        reader.stop()
        assert reader.values == Counter(values)
        assert all(offsets == sorted(offsets) for offsets in reader.order.values())
    assert held["control"] <= brokers
    assert held["produce"] <= brokers
    assert held["fetch"] <= brokers
    assert held["catch-up"] <= brokers
    eventually(lambda: not lanes(pool)["leased"], 20, "leased connections go away when idle")
    eventually(lambda: not lanes(pool)["fetch"], 20, "with the last consumer the fetch connections go away")


@pytest.mark.parametrize("members", [3, 20])
def test_members_of_one_group_in_one_pool_balance(
    kafka_topic_factory: TopicFactory, read: Callable[..., Reader], members: int
) -> None:
    topic = kafka_topic_factory(partitions=20)
    readers = [read(topic, topic) for _ in range(members)]

    def balanced() -> bool:
        sizes = [len(r.assigned) for r in readers]
        spread = Counter(partition for r in readers for partition in r.assigned)
        return len(spread) == 20 and set(spread.values()) == {1} and max(sizes) - min(sizes) <= 1

    eventually(balanced, 30, f"20 partitions spread over {members} members")


@pytest.mark.parametrize("consumers", [100, 500])
def test_all_consumers_get_their_partitions_over_four_connections_to_a_broker(
    pool: ConnectionPool, topic: str, read: Callable[..., Reader], consumers: int
) -> None:
    readers = [read(topic, f"{topic}-{n}") for n in range(consumers)]
    eventually(lambda: all(len(r.assigned) == 6 or r.error for r in readers), 120, "every consumer has six partitions")
    assert [r.error for r in readers if r.error] == []
    eventually(lambda: not lanes(pool)["leased"], 30, "leased connections go away when idle")
    assert max(sum(by_lane.values()) for by_lane in pool.stats().connections.values()) <= 4


def test_a_sender_and_ten_consumers_run_for_a_minute_without_an_error(
    kafka: Kafka,
    pool: ConnectionPool,
    topic: str,
    read: Callable[..., Reader],
    caplog: pytest.LogCaptureFixture,
) -> None:
    readers = [read(topic, f"{topic}-{n}") for n in range(10)]
    eventually(lambda: all(r.assigned for r in readers), 30, "all consumers have partitions")
    sent: list[bytes] = []
    caplog.clear()
    with kafka.producer(connection_pool=pool) as producer, caplog.at_level(logging.ERROR):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            futures = []
            for _ in range(20):
                sent.append(b"%d" % len(sent))
                futures.append(producer.send(topic, sent[-1]))
            for future in futures:
                future.get(timeout=30)
            time.sleep(0.1)  # sets the pace of the load
        eventually(lambda: all(r.values.total() >= len(sent) or r.error for r in readers), 30, "all was received")
        errors = [record.getMessage() for record in caplog.records]
    for reader in readers:
        reader.stop()
        assert reader.values == Counter(sent)
    assert errors == []


def test_closing_any_client_leaves_the_others_working(
    kafka: Kafka, pool: ConnectionPool, topic: str, read: Callable[..., Reader]
) -> None:
    readers = [read(topic, f"{topic}-{n}") for n in range(3)]
    producers = [kafka.producer(connection_pool=pool) for _ in range(3)]
    sent: list[bytes] = []

    def everybody_gets_more() -> None:
        more = [b"%d" % (len(sent) + n) for n in range(30)]
        # To every partition, so that every lane to every broker is in use from the first time on.
        futures = [producers[n % len(producers)].send(topic, v, partition=n % 6) for n, v in enumerate(more)]
        for future in futures:
            future.get(timeout=30)
        sent.extend(more)
        eventually(lambda: all(r.values == Counter(sent) or r.error for r in readers), 30, "all was received")
        assert [r.error for r in readers] == [None] * len(readers)

    everybody_gets_more()
    in_use = shared_connections(pool)
    assert {key.lane.value for key in in_use} == {"control", "produce", "fetch"}
    producers.pop().close()
    everybody_gets_more()
    readers.pop().stop()
    everybody_gets_more()
    producers.pop(0).close()
    readers.pop(0).stop()
    everybody_gets_more()
    assert shared_connections(pool) == in_use, "the very same connections, none closed and none opened"


def test_connect_and_disconnect_of_any_client_act_on_the_pool(kafka: Kafka, pool: ConnectionPool, topic: str) -> None:
    producer = kafka.producer(connection_pool=pool)
    consumer = kafka.consumer(topic, group_id=topic, connection_pool=pool, auto_offset_reset="earliest")
    send([producer], topic, [b"before"])
    assert receive(consumer, 1) == [b"before"]

    consumer.disconnect()
    assert pool.stats().connections == {}
    assert "kafka-io-slice" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(PoolClosedError, match="connect"):
        producer.send(topic, b"lost")
    with pytest.raises(PoolClosedError, match="connect"):
        consumer.poll()
    with pytest.raises(PoolClosedError):
        pool.client  # noqa: B018

    producer.connect()
    send([producer], topic, [b"after"])
    assert receive(consumer, 1) == [b"after"], "the offset was committed on disconnecting, so nothing comes twice"
    pool.disconnect()


def test_a_consumer_is_closed_from_another_thread_while_it_waits(
    pool: ConnectionPool, topic: str, kafka: Kafka
) -> None:
    consumer = kafka.consumer(topic, group_id=topic, connection_pool=pool)
    ended = threading.Event()

    def iterate() -> None:
        assert list(consumer) == []
        ended.set()

    thread = threading.Thread(target=iterate)
    thread.start()
    eventually(lambda: pool.stats().connections.get(1, {}).get("fetch"), 20, "the consumer waits for records")
    consumer.close()
    assert ended.wait(10)
    thread.join()
    with pytest.raises(PoolClosedError, match="closed"):
        consumer.poll()
    assert pool.stats().consumers == 0


def test_a_second_thread_is_refused_and_wakeup_ends_the_wait_of_the_first(
    pool: ConnectionPool, topic: str, kafka: Kafka
) -> None:
    consumer = kafka.consumer(topic, group_id=topic, connection_pool=pool)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(consumer.poll(timeout_ms=60_000)))
    thread.start()
    eventually(lambda: pool.stats().connections.get(1, {}).get("fetch"), 20, "the consumer waits for records")
    with pytest.raises(ConcurrentUseError, match="another thread"):
        consumer.poll()
    consumer.wakeup()
    thread.join(10)
    assert results == [{}]
    consumer.close()


def test_the_pool_reads_what_stock_kafka_python_wrote_and_the_other_way(
    kafka_bootstrap_servers: str, kafka: Kafka, pool: ConnectionPool, topic: str
) -> None:
    stock_producer = KafkaProducer(bootstrap_servers=kafka_bootstrap_servers)
    pooled_producer = kafka.producer(connection_pool=pool)
    sent = []
    for n in range(100):
        key, value, headers = b"k%d" % (n % 7), b"v%d" % n, [("n", b"%d" % n)]
        producer = stock_producer if n % 2 else pooled_producer
        producer.send(topic, value, key=key, headers=headers).get(timeout=30)
        sent.append((key, value, tuple(headers)))
    stock_producer.close()

    partitions = [TopicPartition(topic, n) for n in range(6)]
    stock = KafkaConsumer(bootstrap_servers=kafka_bootstrap_servers, auto_offset_reset="earliest")
    pooled = kafka.consumer(connection_pool=pool, auto_offset_reset="earliest")
    logs = []
    for consumer in (stock, pooled):
        consumer.assign(partitions)
        log: dict[Any, Any] = {}
        count = 0
        deadline = time.monotonic() + 30
        while count < len(sent) and time.monotonic() < deadline:
            for partition, records in consumer.poll(timeout_ms=1000).items():
                log.setdefault(partition, []).extend(
                    (r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in records
                )
                count += len(records)
        logs.append(log)
        consumer.close()
    assert logs[0] == logs[1]
    assert Counter(entry[2:] for log in logs[1].values() for entry in log) == Counter(sent)


def receive(consumer: Consumer, count: int) -> list[bytes]:
    values: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(values) < count and time.monotonic() < deadline:
        for records in consumer.poll(timeout_ms=500).values():
            values.extend(record.value for record in records)
    return values
