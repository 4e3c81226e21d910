"""What pool.stats() and pool.progress() say, against the operating system, the brokers and the log."""

from __future__ import annotations

import json
import socket
import statistics
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import psutil
import pytest
from kafka.errors import KafkaError, MessageSizeTooLargeError
from kafka.protocol.metadata import MetadataRequest

from pooledkafka import (
    ConnectionClosed,
    ConnectionPool,
    ConnectionReady,
    Consumer,
    Kafka,
    PoolStats,
    Throttled,
)
from pooledkafka.testing import EmbeddedKafka, Error, Hold, Throttle
from tests.forking.scripts import run
from tests.pooled.reading import Reader
from tests.pooled.waiting import until
from tests.pooled.watching import POOL, open_connections
from tests.pooled.writing import Writer


@pytest.fixture(autouse=True)
def _topic(cluster: EmbeddedKafka) -> None:
    cluster.create_topic("orders", partitions=3)


def by_broker(stats: PoolStats) -> Counter[int]:
    return Counter({node_id: sum(lanes.values()) for node_id, lanes in stats.connections.items()})


def flat(counts: Mapping[Any, Any], *outer: Any) -> dict[Any, int]:
    """Counts in a mapping of mappings, by all keys together."""
    found: dict[Any, int] = {}
    for key, inner in counts.items():
        found.update(flat(inner, *outer, key) if isinstance(inner, Mapping) else {(*outer, key): inner})
    return found


def to_brokers(cluster: EmbeddedKafka) -> int:
    """How many connections to the brokers the operating system knows in this process."""
    ports = {int(cluster.address_of(node_id).rpartition(":")[2]) for node_id in cluster.node_ids}
    return sum(
        found.status == psutil.CONN_ESTABLISHED and bool(found.raddr) and found.raddr.port in ports
        for found in psutil.Process().net_connections("tcp")
    )


def test_connections_are_those_that_the_system_and_the_brokers_know(
    cluster: EmbeddedKafka, pool: ConnectionPool, kafka: Kafka, reader: Callable[..., Reader]
) -> None:
    first, second = reader("orders", group_id="first"), reader("orders", group_id="second")
    mine = Writer(kafka.producer(connection_pool=pool))
    for partition in range(3):
        mine.write("orders", partition=partition)
    until(lambda: len(first.records) == len(second.records) == 3)
    until(
        lambda: (pool.stats().connections_open, by_broker(pool.stats())),
        lambda found: found == (to_brokers(cluster), open_connections(cluster)),
    )


def test_connections_that_came_and_went_are_those_that_listeners_hear_of(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    ready: Counter[tuple[int, str]] = Counter()
    closed: Counter[tuple[int, str, str]] = Counter()
    failed: Counter[tuple[int, str]] = Counter()
    up: Counter[tuple[int, str]] = Counter()

    def listener(event: Any) -> None:
        match event:
            case ConnectionReady():
                ready[event.broker, event.lane] += 1
                up[event.broker, event.lane] += 1
            case ConnectionClosed() if up[event.broker, event.lane] > 0:
                up[event.broker, event.lane] -= 1
                closed[event.broker, event.lane, event.reason] += 1
            case ConnectionClosed(reason="failed"):
                failed[event.broker, event.lane] += 1

    pool = kafka.connection_pool()
    pool.add_listener(listener)
    with pool, kafka.producer(connection_pool=pool) as producer:
        writer = Writer(producer)
        writer.write("orders", partition=0)
        killed = cluster.leader_of("orders", 0)
        cluster.kill(killed)

        def attempt() -> bool:
            with pytest.raises(KafkaError):
                pool.client.send_and_receive(killed, MetadataRequest(topics=[], allow_auto_topic_creation=False))
            return bool(pool.stats().failed)

        until(attempt)
        writer.write("orders", partition=0)
    with pool:  # counts go on where it is connected anew
        Writer(kafka.producer(connection_pool=pool)).write("orders", partition=1)
    until(lambda: pool.stats().closed, lambda found: flat(found) == dict(closed))
    stats = pool.stats()
    assert flat(stats.created) == dict(ready)
    assert flat(stats.failed) == dict(failed)
    assert (stats.connections_created, stats.connections_closed) == (ready.total(), closed.total())
    assert ready.total() == closed.total()
    assert {reason for _, _, reason in flat(stats.closed)} == {"bootstrapped", "disconnect", "failed"}
    assert stats.created[-1]["bootstrap"] == 2


def test_bytes_are_those_that_the_sockets_have_carried(
    cluster: EmbeddedKafka, pool: ConnectionPool, kafka: Kafka
) -> None:
    Writer(kafka.producer(connection_pool=pool)).write("orders", 20, size=10_000)
    engine = pool._connection.engine  # type: ignore[union-attr]

    def carried() -> tuple[dict[tuple[int, str], int], dict[tuple[int, str], int]]:
        sent: Counter[tuple[int, str]] = Counter()
        received: Counter[tuple[int, str]] = Counter()
        for key, connection in engine.manager.connections():
            info = connection.transport._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
            acknowledged, got = struct.unpack_from("=QQ", info, 120)  # tcpi_bytes_acked, tcpi_bytes_received
            sent[key.node_id, key.lane.value] += acknowledged - 1  # the SYN
            received[key.node_id, key.lane.value] += got
        return dict(sent), dict(received)

    def told() -> tuple[dict[tuple[int, str], int], dict[tuple[int, str], int]]:
        stats = pool.stats()
        counted: list[dict[tuple[int, str], int]] = [
            {where: number for where, number in flat(counts).items() if where[0] >= 0}
            for counts in (stats.bytes_sent, stats.bytes_received)
        ]
        return counted[0], counted[1]

    until(told, lambda found: found == carried())
    leader = cluster.leader_of("orders", 0)
    assert told()[0][leader, "produce"] > 200_000


def test_records_are_those_of_the_log(
    cluster: EmbeddedKafka, pool: ConnectionPool, kafka: Kafka, reader: Callable[..., Reader]
) -> None:
    cluster.create_topic("other")
    producer = kafka.producer(connection_pool=pool)
    writer = Writer(producer)
    for partition in range(3):
        writer.write("orders", 7, partition=partition)
    producer.send_batch("other", [{"value": b"x"}] * 40).get(timeout=10)
    readers = [reader("orders", "other", group_id=group) for group in ("first", "second")]
    until(lambda: [len(each.records) for each in readers] == [61, 61])
    without_group = kafka.consumer(connection_pool=pool, auto_offset_reset="earliest")
    without_group.subscribe(["other"])
    until(lambda: without_group.poll(100))
    cluster.intercept("Produce", Error(MessageSizeTooLargeError), times=1)
    with pytest.raises(MessageSizeTooLargeError):
        producer.send("orders", b"refused").get(timeout=10)
    until(lambda: pool.stats().records_failed, lambda found: found == {"orders": 1})
    stats = pool.stats()
    assert stats.records_produced == {"orders": 21, "other": 40}
    of_groups = {(group, topic): n for group in ("first", "second") for topic, n in (("orders", 21), ("other", 40))}
    consumed = flat(stats.records_consumed)
    assert {key: n for key, n in consumed.items() if key[0] is not None} == of_groups
    assert consumed[None, "other"] == 40
    without_group.close()


def test_records_are_counted_when_they_are_taken_and_not_when_they_are_read(pool: ConnectionPool, kafka: Kafka) -> None:
    kafka.producer(connection_pool=pool).send_batch("orders", [{"value": b"x", "partition": 0}] * 10).get(timeout=10)
    options: dict[str, Any] = {"connection_pool": pool, "auto_offset_reset": "earliest", "enable_auto_commit": False}
    with kafka.consumer("orders", group_id="iterates", **options) as consumer:
        next(consumer)
        next(consumer)
    handled = []
    with kafka.consumer("orders", group_id="runs", **options) as consumer:

        def handle(record: Any) -> None:
            handled.append(record)
            consumer.stop()

        for _ in range(3):
            consumer.run(handle)

        def fail(record: Any) -> None:
            raise LookupError

        with pytest.raises(LookupError):
            consumer.run(fail)
    consumer = kafka.consumer("orders", group_id="closes", **options)
    consumer.run(lambda _: consumer.close())
    assert len(handled) == 3
    taken = {"iterates": {"orders": 2}, "runs": {"orders": 3}, "closes": {"orders": 1}}
    assert pool.stats().records_consumed == taken


def test_a_batch_that_is_split_is_counted_once(cluster: EmbeddedKafka, pool: ConnectionPool, kafka: Kafka) -> None:
    cluster.create_topic("small", config={"max.message.bytes": "2000"})
    producer = kafka.producer(connection_pool=pool)
    producer.send_batch("small", [{"value": b"x" * 100}] * 60).get(timeout=10)
    until(lambda: pool.stats().records_produced, lambda found: found == {"small": 60})
    assert pool.stats().records_failed == {}


def test_records_that_were_given_up_are_counted(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    pool = kafka.connection_pool()
    pool.connect()
    producer = kafka.producer(connection_pool=pool)
    producer.partitions_for("orders")
    cluster.intercept("Produce", Hold())
    producer.send_batch("orders", [{"value": b"x", "partition": 0}] * 5)
    with pytest.raises(Exception, match="5 records"):
        pool.disconnect(timeout_ms=100)
    assert pool.stats().records_failed == {"orders": 5}
    assert pool.stats().records_produced == {}


def test_nothing_is_measured_before_anybody_asks_for_it(
    cluster: EmbeddedKafka, pool: ConnectionPool, kafka: Kafka, writer: Writer
) -> None:
    mine = Writer(kafka.producer(connection_pool=pool))
    mine.write("orders", 5)
    assert pool.stats().durations == {}
    pool.measure_durations()
    sent = cluster.intercept("Produce", client_id=POOL)
    for _ in range(9):
        mine.write("orders")
    produced = pool.stats().durations["Produce"]
    assert produced.count == sum(produced.counts) == len(sent.requests) == 9
    assert len(produced.counts) == len(produced.bounds_ms) + 1
    assert produced.total_ms > 0


def test_a_duration_is_that_of_the_answer(cluster: EmbeddedKafka, pool: ConnectionPool, kafka: Kafka) -> None:
    pool.measure_durations()
    mine = Writer(kafka.producer(connection_pool=pool))
    mine.write("orders")
    before = pool.stats().durations["Produce"]
    held = cluster.intercept("Produce", Hold(), times=1)
    future = mine.producer.send("orders", b"x", partition=0)
    until(lambda: held.requests)
    arrived = time.monotonic()
    assert pool.stats().durations["Produce"] == before
    until(lambda: time.monotonic() - arrived > 0.25)
    held.release()
    future.get(timeout=10)
    after = pool.stats().durations["Produce"]
    assert after.count == before.count + 1
    assert after.total_ms - before.total_ms >= 250
    (changed,) = (at for at, counts in enumerate(zip(before.counts, after.counts, strict=True)) if len(set(counts)) > 1)
    assert after.bounds_ms[changed - 1] >= 250


def test_what_gets_no_answer_is_counted_as_an_error(cluster: EmbeddedKafka, pool: ConnectionPool, kafka: Kafka) -> None:
    pool.measure_durations()
    mine = Writer(kafka.producer(connection_pool=pool))
    mine.write("orders")
    held = cluster.intercept("Produce", Hold(), times=1)
    mine.producer.send("orders", b"x", partition=0)
    until(lambda: held.requests)
    cluster.restart(cluster.leader_of("orders", 0))
    until(lambda: pool.stats().request_errors, lambda errors: "Produce" in errors)


def test_waits_for_a_permit_are_counted_and_timed(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    with kafka.connection_pool(max_in_flight_requests=1) as pool:
        mine = Writer(kafka.producer(connection_pool=pool))
        mine.write("orders")
        before = pool.stats().waits["max_in_flight_requests"]
        held = cluster.intercept("Produce", Hold(), times=1)
        first = mine.producer.send("orders", b"x", partition=0)
        until(lambda: held.requests)
        asked = threading.Thread(target=kafka.admin(connection_pool=pool).list_topics)
        asked.start()
        until(lambda: pool.stats().waits["max_in_flight_requests"].now == 1)
        assert pool.stats().requests_waiting == 1
        waiting = time.monotonic()
        until(lambda: time.monotonic() - waiting > 0.1)
        held.release()
        first.get(timeout=10)
        asked.join()
        after = until(lambda: pool.stats().waits["max_in_flight_requests"], lambda waits: waits.now == 0)
        assert after.count > before.count
        assert after.total_ms - before.total_ms >= 100


def test_waits_of_groups_that_join_are_counted(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    with kafka.connection_pool(max_leased_connections=1) as pool:
        pool.connect()
        held = cluster.intercept("JoinGroup", Hold(), times=1)
        with Reader(kafka.consumer("orders", group_id="first", connection_pool=pool)):
            until(lambda: held.requests)
            with Reader(kafka.consumer("orders", group_id="second", connection_pool=pool)) as second:
                until(lambda: pool.stats().waits["join_turn"].now == 1)
                held.release()
                second.is_assigned(3)
        turns = pool.stats().waits["join_turn"]
        assert (turns.now, turns.count > 0, turns.total_ms > 0) == (0, True, True)


def test_waits_for_a_leased_connection_are_counted(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    with kafka.connection_pool(leased_connections_per_second=0.001) as pool:
        held = cluster.intercept("JoinGroup", Hold())
        readers = [
            Reader(kafka.consumer("orders", group_id=f"group-{number}", connection_pool=pool)) for number in range(40)
        ]
        try:  # more than ten to one of the three brokers
            until(lambda: pool.stats().waits["leased_connection"].now >= 10)
            held.release()
            for each in readers:
                each.is_assigned(3)
        finally:
            for each in readers:
                each.stop()
        leases = pool.stats().waits["leased_connection"]
        assert leases.now == 0
        assert leases.count >= 10


def test_throttling_is_counted(cluster: EmbeddedKafka, pool: ConnectionPool, kafka: Kafka) -> None:
    heard: list[Throttled] = []
    pool.add_listener(lambda event: heard.append(event) if isinstance(event, Throttled) else None)
    leader = cluster.leader_of("orders", 0)
    cluster.intercept("Produce", Throttle(0.03), times=2)
    mine = Writer(kafka.producer(connection_pool=pool))
    for _ in range(3):
        mine.write("orders")
    until(lambda: len(heard) == 2)
    assert pool.stats().throttled == {leader: 2}
    assert pool.stats().throttled_ms == {leader: 60}


def test_stats_can_be_written_as_json(cluster: EmbeddedKafka, pool: ConnectionPool, kafka: Kafka) -> None:
    pool.measure_durations()
    Writer(kafka.producer(connection_pool=pool)).write("orders")
    with kafka.consumer("orders", connection_pool=pool, auto_offset_reset="earliest") as consumer:
        until(lambda: consumer.poll(100))
    told = json.loads(json.dumps(asdict(pool.stats())))
    assert told["created"]["-1"] == {"bootstrap": 1}
    assert told["durations"]["Produce"]["count"] == 1


def test_what_stats_cost_with_many_consumers(
    kafka: Kafka, pool: ConnectionPool, record_property: Callable[[str, Any], None]
) -> None:
    consumers = [kafka.consumer("orders", group_id=f"group-{n}", connection_pool=pool) for n in range(100)]
    for each in consumers:
        each.poll(0)

    def median_us(call: Callable[[], Any]) -> int:
        times = []
        for _ in range(20):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return round(statistics.median(times) * 1e6)

    record_property("stats(), us", median_us(pool.stats))
    record_property("progress(), us", median_us(pool.progress))
    assert pool.stats().consumers == len(pool.progress()) == 100
    pool.disconnect()


# -- how far consumers are ---------------------------------------------------------------------------------------------


def test_lag_is_what_a_consumer_has_not_read(
    pool: ConnectionPool, writer: Writer, consumer: Callable[..., Consumer]
) -> None:
    assert pool.progress() == []
    writer.write("orders", 30, partition=1)
    slow = consumer("orders", group_id="slow")
    assert pool.progress() == [], "it has not been used"
    taken = until(lambda: sum(map(len, slow.poll(100, max_records=10).values())))
    (progress,) = pool.progress()
    assert progress.group == "slow"
    assert progress.partitions["orders"][1] == (taken, 30)
    assert progress.lag == 30 - taken
    until(lambda: slow.poll(100) is None or pool.progress()[0].lag == 0)
    assert pool.progress()[0].partitions["orders"][1] == (30, 30)
    slow.close()
    assert pool.progress() == []


def test_lag_grows_though_a_handler_is_stuck_as_long_as_anybody_reads(
    pool: ConnectionPool, writer: Writer, consumer: Callable[..., Consumer], reader: Callable[..., Reader]
) -> None:
    stuck = consumer("orders", group_id="stuck")
    writer.write("orders")
    until(lambda: stuck.poll(100))
    reader("orders", group_id="other").is_assigned(3)
    writer.write("orders", 100)

    def of_stuck() -> int:
        (lag,) = (each.lag for each in pool.progress() if each.group == "stuck")
        return lag

    until(of_stuck, lambda lag: lag == 100)


def test_a_stuck_consumer_shows_by_the_age_of_its_poll(
    pool: ConnectionPool, writer: Writer, consumer: Callable[..., Consumer]
) -> None:
    stuck = consumer("orders", group_id="stuck")
    writer.write("orders")
    until(lambda: stuck.poll(100))

    def age() -> float:
        (progress,) = pool.progress()
        assert progress.poll_age_ms is not None
        return progress.poll_age_ms

    until(age, lambda found: found > 100)
    stuck.poll(0)
    assert age() < 100


def test_without_a_group_a_consumer_has_an_end_and_no_age(
    pool: ConnectionPool, writer: Writer, consumer: Callable[..., Consumer]
) -> None:
    writer.write("orders", 3)
    alone = consumer("orders")
    until(lambda: alone.poll(100))
    (progress,) = pool.progress()
    assert (progress.group, progress.poll_age_ms) == (None, None)
    assert progress.partitions["orders"][0] == (3, 3)


# -- in forked processes -----------------------------------------------------------------------------------------------


def test_a_forked_process_counts_anew() -> None:
    run("""
    pool.measure_durations()
    producer = kafka.producer(connection_pool=pool)
    producer.send(topic, b"of the parent").get(timeout=30)
    produced = pool.stats().records_produced

    def work():
        stats = pool.stats()
        assert (stats.connections_created, stats.created, stats.records_produced, stats.durations) == (0, {}, {}, {})
        producer.send(topic, b"of the child").get(timeout=30)
        producer.flush()
        while not pool.stats().records_produced:
            time.sleep(0.01)
        assert pool.stats().records_produced == {topic: 1}
        assert "Produce" in pool.stats().durations, "it is still measured"
        pool.disconnect()

    ended(child(work))
    assert pool.stats().records_produced == produced
    """)
