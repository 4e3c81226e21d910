"""What is lost, refused or cut off on any lane: the pool connects again, and everything goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from kafka.errors import (
    BrokerResponseError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaStorageError,
    LeaderNotAvailableError,
    NotCoordinatorError,
    NotEnoughReplicasError,
    NotLeaderForPartitionError,
    RequestTimedOutError,
    UnknownTopicOrPartitionError,
)

import pooledkafka._wire.engine
from pooledkafka import ConnectionPool, Kafka
from pooledkafka.testing import Drop, EmbeddedKafka, Error, Half, Never
from tests.pooled.reading import Reader
from tests.pooled.waiting import TIMEOUT_S, until
from tests.pooled.watching import POOL, open_connections, wait_until_parked
from tests.pooled.writing import Writer

LIVELY: dict[str, Any] = {"heartbeat_interval_ms": 50, "auto_commit_interval_ms": 100}


@pytest.fixture(autouse=True)
def _topic(cluster: EmbeddedKafka) -> None:
    cluster.create_topic("orders", assignment=[[1, 2, 3]])


@pytest.fixture
def pooled(kafka: Kafka, pool: ConnectionPool) -> Writer:
    """Writes over the pool."""
    return Writer(kafka.producer(connection_pool=pool))


# -- producing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [Drop(served=True), Half(), Drop()])
def test_answers_are_lost_and_each_record_is_there_once(
    cluster: EmbeddedKafka, pooled: Writer, reader: Callable[..., Reader], action: Any
) -> None:
    pooled.write("orders")
    lost = 0

    def every_other(_: Any) -> Any:
        nonlocal lost
        lost += 1
        return action if lost % 2 else None

    fault = cluster.intercept("Produce", every_other, client_id=POOL, times=6)
    while len(fault.requests) < 6:
        pooled.write("orders", 20)
    reader("orders").gets(pooled.written("orders"))


def test_answers_are_lost_while_several_batches_are_on_their_way(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool, reader: Callable[..., Reader]
) -> None:
    writer = Writer(kafka.producer(connection_pool=pool, batch_size=200, linger_ms=1))  # two or three records in each
    writer.write("orders")
    fault = cluster.intercept("Produce", Drop(served=True), client_id=POOL, times=3)
    writer.write("orders", 60, size=50)
    fault.wait_for(3)
    reader("orders").gets(writer.written("orders"))


@pytest.mark.parametrize(
    "error",
    [
        NotLeaderForPartitionError,
        UnknownTopicOrPartitionError,
        LeaderNotAvailableError,
        NotEnoughReplicasError,
        RequestTimedOutError,
        KafkaStorageError,
    ],
)
def test_a_broker_refuses_records_for_a_while(
    cluster: EmbeddedKafka, pooled: Writer, reader: Callable[..., Reader], error: type[BrokerResponseError]
) -> None:
    fault = cluster.intercept("Produce", Error(error), client_id=POOL, times=2)
    pooled.write("orders", 3)
    fault.wait_for(2)
    pooled.write("orders", 3)
    reader("orders").gets(pooled.written("orders"))


# -- each lane ---------------------------------------------------------------------------------------------------------

ALL_APIS = [
    "ApiVersions",
    "FindCoordinator",
    "Fetch",
    "Heartbeat",
    "InitProducerId",
    "JoinGroup",
    "ListOffsets",
    "Metadata",
    "OffsetCommit",
    "OffsetFetch",
    "Produce",
    "SyncGroup",
]


@pytest.mark.parametrize("action", [Drop(), Half()], ids=["drop", "half"])
@pytest.mark.parametrize("api", ALL_APIS)
def test_a_connection_ends_instead_of_an_answer(
    cluster: EmbeddedKafka, pooled: Writer, reader: Callable[..., Reader], api: str, action: Any
) -> None:
    fault = cluster.intercept(api, action, client_id=POOL, times=2)
    reading = reader("orders", group_id="g", **LIVELY)
    pooled.write("orders", 2)
    reading.gets(pooled.written("orders"))
    if api not in ("InitProducerId", "Produce"):
        fault.wait_for(2)
    while len(fault.requests) < 2:
        pooled.write("orders")
    pooled.write("orders", 2)
    reading.gets(pooled.written("orders"))


@pytest.mark.parametrize("api", ["FindCoordinator", "ListOffsets", "OffsetFetch"])
@pytest.mark.parametrize("times", [1, 3])
def test_the_metadata_that_is_asked_for_after_a_lost_answer_is_lost_too(
    cluster: EmbeddedKafka, pooled: Writer, reader: Callable[..., Reader], api: str, times: int
) -> None:
    pooled.write("orders", 2)
    lost = {api: 0, "Metadata": 0}

    def drop(_: Any) -> Any:
        lost[api] += 1
        return Drop()

    def drop_after_that(_: Any) -> Any:
        if lost["Metadata"] == lost[api]:
            return None
        lost["Metadata"] = lost[api]
        return Drop()

    cluster.intercept("Metadata", drop_after_that, client_id=POOL)
    fault = cluster.intercept(api, drop, client_id=POOL, times=times)
    reading = reader("orders", group_id="g", **LIVELY)
    reading.gets(pooled.written("orders"))
    assert len(fault.requests) == times
    until(lambda: lost["Metadata"] == times)


@pytest.mark.parametrize("api", ["FindCoordinator", "Heartbeat", "ListOffsets", "OffsetCommit", "OffsetFetch"])
def test_a_request_of_a_consumer_is_never_answered(
    cluster: EmbeddedKafka, pooled: Writer, reader: Callable[..., Reader], api: str
) -> None:
    fault = cluster.intercept(api, Never(), client_id=POOL, times=1)
    impatient = {"request_timeout_ms": 400, "session_timeout_ms": 300, "fetch_max_wait_ms": 100}
    reading = reader("orders", group_id="g", **LIVELY, **impatient)
    fault.wait_for(1)
    pooled.write("orders", 2)
    until(lambda: reading.values[-2:] == pooled.written("orders"))
    # Its session may have ended, and what it had not committed by then it gets again.
    assert set(reading.values) == set(pooled.written("orders"))


def test_a_produce_request_is_never_answered(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool, reader: Callable[..., Reader]
) -> None:
    writer = Writer(kafka.producer(connection_pool=pool, request_timeout_ms=200))
    writer.write("orders")
    for served in (False, True):
        fault = cluster.intercept("Produce", Never(served=served), client_id=POOL, times=1)
        writer.write("orders", 3)
        fault.wait_for(1)
    reader("orders").gets(writer.written("orders"))


@pytest.mark.parametrize("api", ["Fetch", "Metadata"])
def test_a_request_of_the_pool_is_never_answered(cluster: EmbeddedKafka, kafka: Kafka, api: str) -> None:
    with kafka.connection_pool(request_timeout_ms=700) as pool, ExitStack() as stack:
        fault = cluster.intercept(api, Never(), client_id=POOL, times=1)
        consumer = kafka.consumer("orders", group_id="g", connection_pool=pool, auto_offset_reset="earliest")
        reading = stack.enter_context(Reader(consumer))
        fault.wait_for(1)
        writer = Writer(kafka.producer(connection_pool=pool))
        writer.write("orders", 3)
        reading.gets(writer.written("orders"))


@pytest.mark.parametrize(
    ("api", "error"),
    [
        ("FindCoordinator", CoordinatorNotAvailableError),
        ("Heartbeat", NotCoordinatorError),
        ("JoinGroup", CoordinatorLoadInProgressError),
        ("JoinGroup", NotCoordinatorError),
        ("ListOffsets", NotLeaderForPartitionError),
        ("OffsetCommit", NotCoordinatorError),
        ("OffsetFetch", CoordinatorLoadInProgressError),
        ("SyncGroup", NotCoordinatorError),
    ],
)
def test_a_broker_refuses_what_a_consumer_asks(
    cluster: EmbeddedKafka,
    pooled: Writer,
    reader: Callable[..., Reader],
    api: str,
    error: type[BrokerResponseError],
) -> None:
    fault = cluster.intercept(api, Error(error), client_id=POOL, times=2)
    reading = reader("orders", group_id="g", **LIVELY)
    pooled.write("orders", 2)
    fault.wait_for(2)
    pooled.write("orders", 2)
    reading.gets(pooled.written("orders"))


# -- brokers -----------------------------------------------------------------------------------------------------------


def test_a_broker_that_alone_has_a_partition_is_killed_and_started(
    cluster: EmbeddedKafka, pooled: Writer, reader: Callable[..., Reader]
) -> None:
    cluster.create_topic("alone", assignment=[[2]])
    readers = [reader("alone", group_id=group) for group in "ab"]
    others = reader("orders", group_id="others")
    for _ in range(2):
        pooled.write("alone", 2)
        for each in readers:
            each.gets(pooled.written("alone"))
        wait_until_parked(cluster, 2)
        cluster.kill(2)
        meanwhile = pooled.producer.send("alone", b"meanwhile")
        pooled.write("orders", 3)
        others.gets(pooled.written("orders"))
        assert not meanwhile.is_done
        cluster.start(2)
        meanwhile.get(timeout=TIMEOUT_S)
        pooled.has_written("alone", b"meanwhile")
        for each in readers:
            each.gets(pooled.written("alone"))


def test_all_brokers_are_killed_and_started(
    cluster: EmbeddedKafka, pool: ConnectionPool, pooled: Writer, reader: Callable[..., Reader]
) -> None:
    readers = [reader("orders", group_id=group, **LIVELY) for group in "ab"]
    pooled.write("orders", 3)
    for each in readers:
        each.gets(pooled.written("orders"))
    for node_id in cluster.node_ids:
        cluster.kill(node_id)
    until(lambda: pool.stats().connections_open == 0)
    for node_id in cluster.node_ids:
        cluster.start(node_id)
    pooled.write("orders", 3)
    for each in readers:
        each.gets(pooled.written("orders"))


def test_a_broker_stands_still_for_a_while(
    cluster: EmbeddedKafka, pool: ConnectionPool, pooled: Writer, reader: Callable[..., Reader]
) -> None:
    cluster.create_topic("alone", assignment=[[2]])
    reading, others = reader("alone", group_id="g"), reader("orders", group_id="others")
    cluster.move_coordinator("others", 1)
    for topic, each in (("alone", reading), ("orders", others)):
        pooled.write(topic, 2)
        each.gets(pooled.written(topic))
    wait_until_parked(cluster, 2)
    cluster.pause(2)
    meanwhile = pooled.producer.send("alone", b"meanwhile")
    pooled.write("orders", 3)
    others.gets(pooled.written("orders"))
    assert not meanwhile.is_done
    cluster.resume(2)
    meanwhile.get(timeout=TIMEOUT_S)
    pooled.has_written("alone", b"meanwhile")
    reading.gets(pooled.written("alone"))


def test_a_pool_connects_while_brokers_are_down(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    cluster.create_topic("hardy", assignment=[[1, 2, 3]], config={"min.insync.replicas": "1"})
    for node_id in (1, 2):
        cluster.kill(node_id)
    with kafka.connection_pool() as pool, ExitStack() as stack:
        writer = Writer(kafka.producer(connection_pool=pool))
        writer.write("hardy", 3)
        for node_id in (1, 2):
            cluster.start(node_id)
        cluster.move_leader("hardy", 0, 1)
        writer.write("hardy", 3)
        consumer = kafka.consumer("hardy", group_id="g", connection_pool=pool, auto_offset_reset="earliest")
        stack.enter_context(Reader(consumer)).gets(writer.written("hardy"))


# -- connection limits -------------------------------------------------------------------------------------------------


class TestFewConnections:
    """Four are for the lanes, and one is for groups that join, in turns."""

    @pytest.fixture
    def config(self, config: dict[str, str]) -> dict[str, str]:
        return {**config, "max.connections.per.ip": "6"}  # the test's own writer has one too

    def test_a_pool_that_lends_one_is_never_refused(
        self, cluster: EmbeddedKafka, kafka: Kafka, caplog: pytest.LogCaptureFixture
    ) -> None:
        with kafka.connection_pool(max_leased_connections=1) as pool, ExitStack() as stack:
            readers = [
                stack.enter_context(
                    Reader(
                        kafka.consumer("orders", group_id=f"g{n}", connection_pool=pool, auto_offset_reset="earliest")
                    )
                )
                for n in range(10)
            ]
            writer = Writer(kafka.producer(connection_pool=pool))
            writer.write("orders", 3)
            for each in readers:
                each.gets(writer.written("orders"))
            assert max(open_connections(cluster).values()) <= 5
        assert "too_many_connections" not in caplog.text

    def test_a_pool_that_is_refused_some_connects_again(
        self, cluster: EmbeddedKafka, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pooledkafka._wire.engine, "_LEASE_IDLE_S", 0.2)  # until then they keep others out
        for number in range(10):
            cluster.move_coordinator(f"g{number}", 1)
        with kafka.connection_pool() as pool, ExitStack() as stack:
            readers = [
                stack.enter_context(
                    Reader(
                        kafka.consumer("orders", group_id=f"g{n}", connection_pool=pool, auto_offset_reset="earliest")
                    )
                )
                for n in range(10)
            ]
            writer = Writer(kafka.producer(connection_pool=pool))
            writer.write("orders", 3)
            for each in readers:
                each.gets(writer.written("orders"))
