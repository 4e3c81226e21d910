"""Whoever is slow, or held back, keeps nobody else waiting, and what is read ahead stays within its bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from kafka.structs import TopicPartition

from pooledkafka import ConnectionPool, Consumer, Kafka, PoolTimeoutError
from pooledkafka.events import PoolEvent, Throttled
from pooledkafka.testing import EmbeddedKafka
from tests.pooled.reading import Reader, read
from tests.pooled.waiting import TIMEOUT_S, until
from tests.pooled.watching import POOL
from tests.pooled.writing import Writer

BOUND = 100_000
PARTITION_BYTES = 20_000
ANSWER = PARTITION_BYTES + 1_000  # the most that one answer of one partition, and what it costs, is beyond the bound
ORDERS = TopicPartition("orders", 0)


@pytest.fixture
def pool(kafka: Kafka) -> Iterator[ConnectionPool]:
    """One that may read ahead little."""
    with kafka.connection_pool(fetch_buffer_bytes=BOUND) as pool:
        yield pool


@pytest.fixture
def writer(cluster: EmbeddedKafka) -> Iterator[Writer]:
    """Its batches are smaller than what the readers ask for at once: a broker sends the first one whole."""
    with Kafka(**cluster.client_options(), client_id="writer").producer(batch_size=PARTITION_BYTES // 2) as producer:
        yield Writer(producer)


@pytest.fixture(autouse=True)
def _topic(cluster: EmbeddedKafka) -> None:
    cluster.create_topic("orders", assignment=[[1]])


class HighWater:
    """The most bytes that a pool was seen to have read ahead."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self.most = 0

    def while_it_gets(self, reader: Reader, values: list[bytes]) -> None:
        """Watch until a reader has got as many records, and check that they are these."""

        def got() -> int:
            self.most = max(self.most, self._pool.stats().read_ahead_bytes)
            return len(reader.values)

        until(got, lambda count: count >= len(values))
        reader.gets(values)


def test_who_stops_polling_keeps_nobody_waiting(
    pool: ConnectionPool, writer: Writer, consumer: Callable[..., Consumer], reader: Callable[..., Reader]
) -> None:
    stopped = consumer("orders", group_id="stopped", max_partition_fetch_bytes=PARTITION_BYTES)
    going = reader("orders", group_id="going", max_partition_fetch_bytes=PARTITION_BYTES)
    first = writer.write("orders", size=1_000)
    assert read(stopped, 1) == first
    going.gets(first)
    stopped.poll()  # asks for more, and comes back for it late
    water = HighWater(pool)
    while len(writer.written("orders")) * 1_000 < 4 * BOUND:
        writer.write("orders", 20, size=1_000)
        water.while_it_gets(going, writer.written("orders"))
    assert 0 < water.most <= BOUND + ANSWER
    more = len(writer.written("orders")) - 1
    assert read(stopped, more) == writer.written("orders")[1:]
    last = writer.write("orders", 3)
    assert read(stopped, 3) == last
    going.gets(writer.written("orders"))


def test_who_reads_slowly_gets_all_of_it_and_keeps_nobody_waiting(
    pool: ConnectionPool, writer: Writer, consumer: Callable[..., Consumer], reader: Callable[..., Reader]
) -> None:
    slow = consumer("orders", group_id="slow", max_partition_fetch_bytes=PARTITION_BYTES, max_poll_records=1)
    fast = reader("orders", group_id="fast", max_partition_fetch_bytes=PARTITION_BYTES)
    water = HighWater(pool)
    got: list[bytes] = []
    for _ in range(10):
        writer.write("orders", 30, size=1_000)
        water.while_it_gets(fast, writer.written("orders"))
        got += read(slow, 1)  # one of what has come for it: the rest is there, and is seen next time
    got += read(slow, len(writer.written("orders")) - len(got))
    assert got == writer.written("orders")
    assert 0 < water.most <= BOUND + ANSWER


def test_readers_of_one_broker_that_do_not_come_leave_room_for_those_of_another(
    cluster: EmbeddedKafka,
    pool: ConnectionPool,
    writer: Writer,
    consumer: Callable[..., Consumer],
    reader: Callable[..., Reader],
) -> None:
    cluster.create_topic("wide", assignment=[[1]] * 10)
    cluster.create_topic("elsewhere", assignment=[[2]])
    stopped = consumer(group_id=None, max_partition_fetch_bytes=PARTITION_BYTES, max_poll_records=1)
    stopped.assign([TopicPartition("wide", index) for index in range(10)])
    for index in range(10):
        writer.write("wide", 40, partition=index, size=1_000)
    read(stopped, 1)
    until(lambda: pool.stats().read_ahead_bytes > BOUND / 2)
    going = reader("elsewhere", group_id="going", max_partition_fetch_bytes=PARTITION_BYTES)
    water = HighWater(pool)
    for _ in range(5):
        writer.write("elsewhere", 40, size=1_000)
        water.while_it_gets(going, writer.written("elsewhere"))
    assert water.most <= BOUND + 2 * ANSWER


def test_a_partition_that_is_paused_keeps_the_others_of_its_consumer_going(
    cluster: EmbeddedKafka, pool: ConnectionPool, writer: Writer, consumer: Callable[..., Consumer]
) -> None:
    cluster.create_topic("pair", assignment=[[1], [1]])
    paused, other = (TopicPartition("pair", index) for index in range(2))
    reading = consumer(group_id=None, max_partition_fetch_bytes=PARTITION_BYTES)
    reading.assign([paused, other])
    for partition in range(2):
        writer.write("pair", 2, partition=partition)
    assert sorted(read(reading, 4)) == sorted(writer.written("pair", 0) + writer.written("pair", 1))
    reading.pause(paused)
    for _ in range(8):
        writer.write("pair", 20, partition=0, size=1_000)
        values = writer.write("pair", 20, partition=1, size=1_000)
        assert read(reading, 20) == values
        assert pool.stats().read_ahead_bytes <= BOUND + ANSWER
    reading.resume(paused)
    assert read(reading, 160) == writer.written("pair", 0)[2:]


# -- quotas ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def throttled(pool: ConnectionPool) -> list[Throttled]:
    """The pool's throttled answers so far."""
    heard: list[Throttled] = []

    def listen(event: PoolEvent) -> None:
        if isinstance(event, Throttled):
            heard.append(event)

    pool.add_listener(listen)
    return heard


def test_a_producer_that_is_held_back_holds_up_nobody_else(
    cluster: EmbeddedKafka,
    kafka: Kafka,
    pool: ConnectionPool,
    writer: Writer,
    reader: Callable[..., Reader],
    throttled: list[Throttled],
) -> None:
    reading = reader("orders", group_id="before", heartbeat_interval_ms=50, auto_commit_interval_ms=50)
    reading.is_assigned()
    cluster.create_topic("noisy", assignment=[[1]])
    cluster.set_quota("producer_byte_rate", 1_000, client_id=POOL)
    producer = kafka.producer(connection_pool=pool, linger_ms=0)
    producer.send("noisy", b"x" * 100_000).get(timeout=TIMEOUT_S)  # ten times what it may send at once
    until(lambda: throttled)
    assert [(event.broker, event.lane) for event in throttled] == [(1, "produce")]
    assert throttled[0].throttle_time_ms > 2 * TIMEOUT_S * 1_000
    held_back = producer.send("noisy", b"y")
    beats = cluster.intercept("Heartbeat", client_id=POOL)
    commits = cluster.intercept("OffsetCommit", client_id=POOL)
    for number in range(1, 4):
        writer.write("orders", 2)
        reading.gets(writer.written("orders"))
        commits.wait_for(number)
    beats.wait_for(2)
    late = reader("orders", group_id="late")
    late.gets(writer.written("orders"))
    assert not held_back.is_done
    for each in (reading, late):
        each.stop()
    with pytest.raises(PoolTimeoutError, match="1 records"):
        pool.disconnect(timeout_ms=1_000)


def test_a_consumer_that_is_held_back_holds_up_nobody_else(
    cluster: EmbeddedKafka,
    kafka: Kafka,
    pool: ConnectionPool,
    writer: Writer,
    reader: Callable[..., Reader],
    throttled: list[Throttled],
) -> None:
    cluster.create_topic("noisy", assignment=[[1]])
    for group in ("noisy", "late"):
        cluster.move_coordinator(group, 1)
    noisy = reader("noisy", group_id="noisy", heartbeat_interval_ms=50)
    writer.write("noisy", size=10_000)
    cluster.set_quota("consumer_byte_rate", 100, client_id=POOL)
    for _ in range(3):
        writer.write("noisy", size=10_000)
    until(lambda: throttled)
    assert {event.lane for event in throttled} <= {"fetch", "catch-up"}
    assert noisy.values != writer.written("noisy")
    beats = cluster.intercept("Heartbeat", client_id=POOL)
    pooled = Writer(kafka.producer(connection_pool=pool))
    pooled.write("orders", 3)
    reader("orders", group_id="late", heartbeat_interval_ms=50).is_assigned(1)
    until(lambda: {request.group_id for request in beats.requests} == {"noisy", "late"})
    assert noisy.values != writer.written("noisy")


def test_who_was_held_back_for_a_while_goes_on_then(
    cluster: EmbeddedKafka,
    kafka: Kafka,
    pool: ConnectionPool,
    reader: Callable[..., Reader],
    throttled: list[Throttled],
) -> None:
    readers = [reader("orders", group_id=group) for group in "ab"]
    pooled = Writer(kafka.producer(connection_pool=pool))
    for name, lanes in (("producer_byte_rate", {"produce"}), ("consumer_byte_rate", {"fetch", "catch-up"})):
        cluster.set_quota(name, 20_000, client_id=POOL)
        throttled.clear()
        pooled.write("orders", size=200_000)  # all that may be sent, or read, at once
        for each in readers:
            each.gets(pooled.written("orders"))

        def is_throttled() -> bool:
            pooled.write("orders", 3, size=2_000)  # more than once where a slow machine has let the quota recover
            for each in readers:
                each.gets(pooled.written("orders"))
            return bool(throttled)

        until(is_throttled)
        assert {event.lane for event in throttled} <= lanes
        cluster.set_quota(name, None, client_id=POOL)
