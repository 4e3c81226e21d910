"""One client is fenced, or its answers are spoiled for it alone: it hears so, and the others of its pool go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kafka.errors import (
    BrokerResponseError,
    CorruptRecordError,
    FencedInstanceIdError,
    InvalidProducerEpochError,
    OutOfOrderSequenceNumberError,
    ProducerFencedError,
    UnknownProducerIdError,
)

from pooledkafka import ConnectionPool, Consumer, Kafka
from pooledkafka.testing import Corrupt, EmbeddedKafka, Error, Throttle
from tests.pooled.reading import Reader, read
from tests.pooled.waiting import TIMEOUT_S, until
from tests.pooled.watching import POOL
from tests.pooled.writing import Writer

LIVELY: dict[str, Any] = {"heartbeat_interval_ms": 50, "auto_commit_interval_ms": 100}


@pytest.fixture(autouse=True)
def _topic(cluster: EmbeddedKafka) -> None:
    cluster.create_topic("orders", assignment=[[1, 2, 3]])


# -- consumers ---------------------------------------------------------------------------------------------------------


def test_a_static_member_whose_place_another_has_taken_is_told_and_its_pool_goes_on(
    kafka: Kafka, pool: ConnectionPool, writer: Writer, reader: Callable[..., Reader]
) -> None:
    static = {"group_id": "g", "group_instance_id": "one", **LIVELY, "enable_auto_commit": False}
    fenced = Reader(kafka.consumer("orders", connection_pool=pool, auto_offset_reset="earliest", **static))
    others = [reader("orders", group_id="other", **LIVELY), reader("orders", group_id=None)]
    writer.write("orders", 2)
    for each in (fenced, *others):
        each.gets(writer.written("orders"))
    with kafka.consumer("orders", **{**static, "auto_offset_reset": "earliest"}) as taker:  # over a pool of its own
        until(lambda: taker.poll(timeout_ms=50) is not None and taker.assignment())
        error = until(lambda: fenced.error)
        assert isinstance(error, FencedInstanceIdError)
        writer.write("orders", 3)
        values: list[bytes] = []  # with what the other had not committed
        until(lambda: values.extend(read(taker, 1)) or values[-3:] == writer.written("orders")[-3:])  # type: ignore[func-returns-value]
        for each in others:
            each.gets(writer.written("orders"))


def test_a_member_that_is_told_it_is_fenced_is_told_alone(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool, writer: Writer, reader: Callable[..., Reader]
) -> None:
    static = {"group_id": "g", "group_instance_id": "one", **LIVELY}
    fenced = Reader(kafka.consumer("orders", connection_pool=pool, auto_offset_reset="earliest", **static))
    other = reader("orders", group_id="other", **LIVELY)
    writer.write("orders", 2)
    for each in (fenced, other):
        each.gets(writer.written("orders"))
    cluster.intercept(
        "OffsetCommit",
        lambda request: Error(FencedInstanceIdError) if request.group_id == "g" else None,
        client_id=POOL,
    )
    writer.write("orders", 2)
    assert isinstance(until(lambda: fenced.error), FencedInstanceIdError)
    other.gets(writer.written("orders"))


def test_records_with_a_wrong_checksum_are_refused_by_each_reader_and_read_again(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer], writer: Writer
) -> None:
    writer.write("orders", 5)
    consumers = [consumer("orders", group_id=group) for group in (None, "a", "b")]
    cluster.intercept("Fetch", Corrupt("checksum"), client_id=POOL, times=1)
    refused = 0
    for each in consumers:
        values: list[bytes] = []
        while len(values) < 5:
            try:
                values += read(each, 5 - len(values))
            except CorruptRecordError:
                refused += 1
                assert refused <= len(consumers)
        assert values == writer.written("orders")
    assert refused >= 1, "it was never handed over"


# -- producers ---------------------------------------------------------------------------------------------------------


def test_a_transactional_producer_that_another_has_fenced_hears_so_and_others_go_on(
    kafka: Kafka, pool: ConnectionPool, reader: Callable[..., Reader]
) -> None:
    other = Writer(kafka.producer(connection_pool=pool))
    fenced = kafka.producer(connection_pool=pool, transactional_id="t")
    fenced.init_transactions()
    fenced.begin_transaction()
    fenced.send("orders", b"never seen")
    fenced.flush()
    with kafka.producer(transactional_id="t") as taker:  # over a pool of its own
        taker.init_transactions()
        with pytest.raises((ProducerFencedError, InvalidProducerEpochError)):
            fenced.send("orders", b"nor this").get(timeout=TIMEOUT_S)
        other.write("orders", 3)
        taker.begin_transaction()
        taker.send("orders", b"taken")
        taker.commit_transaction()
    other.has_written("orders", b"taken")
    reader("orders", isolation_level="read_committed").gets(other.written("orders"))


@pytest.mark.parametrize("error", [OutOfOrderSequenceNumberError, UnknownProducerIdError, InvalidProducerEpochError])
def test_an_idempotent_producer_gets_a_new_epoch_and_others_go_on(
    cluster: EmbeddedKafka,
    kafka: Kafka,
    pool: ConnectionPool,
    reader: Callable[..., Reader],
    error: type[BrokerResponseError],
) -> None:
    cluster.create_topic("struck", assignment=[[1, 2, 3]])
    struck = kafka.producer(connection_pool=pool)
    other = Writer(kafka.producer(connection_pool=pool, linger_ms=1))
    struck.send("struck", b"first").get(timeout=TIMEOUT_S)
    other.write("orders")
    cluster.intercept(
        "Produce", lambda request: Error(error) if request.topic_data[0].name == "struck" else None, times=1
    )
    asked = cluster.intercept("InitProducerId", client_id=POOL)
    lost = struck.send("struck", b"lost, or sent again")
    other.write("orders", 2)
    until(lambda: lost.is_done)
    struck.send("struck", b"last").get(timeout=TIMEOUT_S)
    other.write("orders", 2)
    assert lost.succeeded() or isinstance(lost.exception, error)
    assert len(asked.requests) <= 1
    reader("orders").gets(other.written("orders"))
    again = [b"lost, or sent again"] if lost.succeeded() else []
    reader("struck").gets([b"first", *again, b"last"])


# -- throttling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["Heartbeat", "OffsetCommit", "Metadata"])
def test_a_muted_lane_holds_up_no_other_lane(
    cluster: EmbeddedKafka,
    kafka: Kafka,
    pool: ConnectionPool,
    writer: Writer,
    reader: Callable[..., Reader],
    api: str,
) -> None:
    pooled = Writer(kafka.producer(connection_pool=pool))
    readers = [reader("orders", group_id=group, **LIVELY) for group in ("a", "b")]
    pooled.write("orders")
    for each in readers:
        each.gets(pooled.written("orders"))

    def muted() -> set[str]:
        connections = pool.client._manager.connections()
        return {key.lane.value for key, connection in connections if "throttle" in connection.paused}

    throttle = cluster.intercept(api, Throttle(6), client_id=POOL, times=1)
    if api == "Metadata":
        pool.client.cluster.request_update()
    throttle.wait_for(1)
    (lane,) = until(muted)
    assert lane in {"control", "leased"}, "where brokers commit slowly, commits are lent connections too"
    for _ in range(3):
        pooled.write("orders", 5)
        for each in readers:
            each.gets(pooled.written("orders"))
    assert muted() == {lane}
