"""What happens while a fetch is on its way: each reader gets each record once and in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kafka.errors import (
    FetchSessionIdNotFoundError,
    InvalidFetchSessionEpochError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
)
from kafka.structs import TopicPartition

from pooledkafka import ConnectionPool, Consumer, Kafka
from pooledkafka.testing import EmbeddedKafka, Error, Fault, Half, Hold
from tests.pooled.reading import Reader, read
from tests.pooled.waiting import until
from tests.pooled.watching import POOL, asked_offsets, wait_until_parked
from tests.pooled.writing import Writer

ORDERS = TopicPartition("orders", 0)
PARKED_MS = 500  # for which a pool lets a fetch wait at least


@pytest.fixture(autouse=True)
def _topic(cluster: EmbeddedKafka) -> None:
    cluster.create_topic("orders", assignment=[[1, 2, 3]])


def hold_parked(cluster: EmbeddedKafka, **hold: bool) -> Fault:
    """Hold the pool's long polls with broker 1, and serve what catches up."""
    return cluster.intercept(
        "Fetch", lambda request: Hold(**hold) if request.max_wait_ms >= PARKED_MS else None, node_id=1, client_id=POOL
    )


def held(fault: Fault) -> list[Any]:
    """The long polls among the requests that met a fault."""
    return [request for request in fault.requests if request.max_wait_ms >= PARKED_MS]


# -- leaders -----------------------------------------------------------------------------------------------------------


def test_the_leader_moves_while_a_fetch_is_parked(
    cluster: EmbeddedKafka, writer: Writer, reader: Callable[..., Reader]
) -> None:
    writer.write("orders", 3)
    readers = [reader("orders", group_id=group) for group in "ab"]
    for each in readers:
        each.gets(writer.written("orders"))
    for leader in (2, 3, 1):
        wait_until_parked(cluster, cluster.leader_of("orders"))
        cluster.move_leader("orders", 0, leader)
        writer.write("orders", 3)
        for each in readers:
            each.gets(writer.written("orders"))


def test_an_answer_of_the_old_leader_comes_late(
    cluster: EmbeddedKafka, writer: Writer, reader: Callable[..., Reader]
) -> None:
    with hold_parked(cluster, answer=True) as hold:
        early = reader("orders", group_id="early")
        until(lambda: held(hold))
        writer.write("orders", 2)  # is in the answer that is held
        cluster.move_leader("orders", 0, 2)
        writer.write("orders", 2)
        late = reader("orders", group_id="late")  # from the new leader
        late.gets(writer.written("orders"))
        hold.release()
        early.gets(writer.written("orders"))
    writer.write("orders", 2)
    for each in (early, late):
        each.gets(writer.written("orders"))


@pytest.mark.parametrize("times", [1, 3])
def test_the_leader_says_it_is_none(
    cluster: EmbeddedKafka, writer: Writer, reader: Callable[..., Reader], times: int
) -> None:
    fault = cluster.intercept("Fetch", Error(NotLeaderForPartitionError), client_id=POOL, times=times)
    readers = [reader("orders", group_id=group) for group in "ab"]
    fault.wait_for(times)
    writer.write("orders", 3)
    for each in readers:
        each.gets(writer.written("orders"))


# -- connections -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group_id", ["g", None])
def test_the_connection_ends_in_the_middle_of_an_answer(
    cluster: EmbeddedKafka, writer: Writer, reader: Callable[..., Reader], group_id: str | None
) -> None:
    reading = reader("orders", group_id=group_id)
    wait_until_parked(cluster, 1)
    half = cluster.intercept("Fetch", Half(), client_id=POOL, times=2)
    writer.write("orders", 3)  # the answer that is parked already is whole, and the next is not
    half.wait_for(1)
    writer.write("orders", 3)
    half.wait_for(2)
    writer.write("orders", 3)
    reading.gets(writer.written("orders"))


def test_the_leader_dies_while_a_fetch_is_parked(
    cluster: EmbeddedKafka, writer: Writer, reader: Callable[..., Reader]
) -> None:
    readers = [reader("orders", group_id=group) for group in "ab"]
    writer.write("orders", 2)
    for node_id in (1, 2):
        assert cluster.leader_of("orders") == node_id
        wait_until_parked(cluster, node_id)
        cluster.kill(node_id)
        writer.write("orders", 2)
        for each in readers:
            each.gets(writer.written("orders"))
        cluster.start(node_id)


# -- fetch sessions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [FetchSessionIdNotFoundError, InvalidFetchSessionEpochError])
def test_a_session_is_refused(
    cluster: EmbeddedKafka, writer: Writer, reader: Callable[..., Reader], error: Any
) -> None:
    refused: list[tuple[int, int]] = []

    def refuse_each_once(request: Any) -> Any:
        session = (request.session_id, request.session_epoch)
        if request.session_epoch < 2 or any(session_id == session[0] for session_id, _ in refused):
            return None
        refused.append(session)
        return Error(error)

    cluster.intercept("Fetch", refuse_each_once, client_id=POOL)
    readers = [reader("orders", group_id=group) for group in "ab"]
    while len(refused) < 3:  # each time, a new session is begun
        writer.write("orders")
        for each in readers:
            each.gets(writer.written("orders"))


def test_a_broker_that_restarts_has_forgotten_the_session(
    cluster: EmbeddedKafka, writer: Writer, reader: Callable[..., Reader]
) -> None:
    cluster.create_topic("alone", assignment=[[2]])
    readers = [reader("alone", group_id=group) for group in "ab"]
    for _ in range(2):
        writer.write("alone", 2)
        for each in readers:
            each.gets(writer.written("alone"))
        wait_until_parked(cluster, 2)
        cluster.restart(2)
    writer.write("alone", 2)
    for each in readers:
        each.gets(writer.written("alone"))


class TestFewSessions:
    @pytest.fixture(params=["0", "1"])
    def config(self, config: dict[str, str], request: pytest.FixtureRequest) -> dict[str, str]:
        return {**config, "max.incremental.fetch.session.cache.slots": request.param}

    def test_brokers_keep_none_or_let_the_next_take_its_place(
        self, writer: Writer, reader: Callable[..., Reader]
    ) -> None:
        readers = [
            reader("orders", group_id=level, isolation_level=level) for level in ("read_committed", "read_uncommitted")
        ]
        for _ in range(5):
            writer.write("orders", 2)
            for each in readers:
                each.gets(writer.written("orders"))


# -- places in the log -------------------------------------------------------------------------------------------------


def test_a_consumer_seeks_while_its_fetch_is_parked(
    cluster: EmbeddedKafka, writer: Writer, consumer: Callable[..., Consumer]
) -> None:
    values = writer.write("orders", 10)
    seeking, other = consumer(), consumer()
    for each in (seeking, other):
        each.assign([ORDERS])
        assert read(each, 10) == values
    with hold_parked(cluster) as hold:
        for each in (seeking, other):
            each.poll()
        until(lambda: held(hold))
        for place in (0, 4, 9, 4):
            seeking.seek(ORDERS, place)
            assert read(seeking, 10 - place) == values[place:]  # while the fetch is still parked
        seeking.seek(ORDERS, 7)
    values += writer.write("orders", 3)
    assert read(seeking, 6) == values[7:]
    assert read(other, 3) == values[10:]


def test_a_consumer_that_starts_while_the_fetch_is_parked_does_not_wait_for_it(
    cluster: EmbeddedKafka, writer: Writer, reader: Callable[..., Reader]
) -> None:
    cluster.create_topic("others", assignment=[[1]])
    for topic in ("orders", "others"):
        writer.write(topic, 3)
    waiting = reader("orders", group_id="waiting")
    waiting.gets(writer.written("orders"))
    with hold_parked(cluster) as hold:
        until(lambda: held(hold))
        late, of_others = reader("orders", group_id="late"), reader("others", group_id="others")
        late.gets(writer.written("orders"))
        for _ in range(3):
            of_others.gets(writer.written("others"))
            writer.write("others", 3)  # when it is at the end, the fetch that is parked still does not cover it
        of_others.gets(writer.written("others"))
        assert len(held(hold)) == 1
        writer.write("orders", 3)
    for each in (waiting, late):
        each.gets(writer.written("orders"))


def test_a_reader_that_lags_joins_those_at_the_end(
    cluster: EmbeddedKafka, writer: Writer, reader: Callable[..., Reader]
) -> None:
    writer.write("orders", 20, size=1000)
    ahead = reader("orders", group_id="ahead")
    ahead.gets(writer.written("orders"))
    wait_until_parked(cluster, 1)
    behind = reader("orders", group_id="behind")
    writer.write("orders", 20, size=1000)
    for each in (ahead, behind):
        each.gets(writer.written("orders"))
    wait_until_parked(cluster, 1)
    fetches = cluster.intercept("Fetch", client_id=POOL)
    for _ in range(5):
        writer.write("orders")
        for each in (ahead, behind):
            each.gets(writer.written("orders"))
    until(lambda: max(asked_offsets(fetches.requests, "orders"), default=0) == 45)
    assert asked_offsets(fetches.requests, "orders") == [41, 42, 43, 44, 45]  # 40 was asked for before


def test_many_groups_on_one_partition_share_one_fetch(
    cluster: EmbeddedKafka, writer: Writer, pool: ConnectionPool, reader: Callable[..., Reader]
) -> None:
    readers = [reader("orders", group_id=f"group-{n}") for n in range(10)]
    for each in readers:
        each.is_assigned()
    writer.write("orders")
    for each in readers:
        each.gets(writer.written("orders"))
    wait_until_parked(cluster, 1)
    fetches = cluster.intercept("Fetch", client_id=POOL)
    answered = pool.stats().logical_fetches
    for _ in range(5):
        writer.write("orders")
        for each in readers:
            each.gets(writer.written("orders"))
    until(lambda: max(asked_offsets(fetches.requests, "orders"), default=0) == 6)
    assert asked_offsets(fetches.requests, "orders") == [2, 3, 4, 5, 6]
    until(lambda: pool.stats().logical_fetches - answered >= 5 * len(readers))  # each asks again for what comes next


# -- logs that are not what they were ----------------------------------------------------------------------------------


def test_the_log_is_truncated_below_where_readers_are(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool, writer: Writer, reader: Callable[..., Reader]
) -> None:
    for _ in range(10):
        writer.write("orders")
    seen = writer.written("orders")
    readers = [reader("orders", group_id=group) for group in "ab"]
    for each in readers:
        each.gets(seen)
    wait_until_parked(cluster, 1)
    cluster.truncate("orders", 0, 6)
    writer.lost("orders", 6)
    writer.producer = kafka.producer(connection_pool=pool)  # the idempotent one cannot go on after what was lost
    new = writer.write("orders", 2)  # at offsets that others have had
    for each in readers:
        each.gets(seen + new)
    late = reader("orders", group_id="late")
    late.gets(writer.written("orders"))
    new += writer.write("orders", 8)
    for each in readers:
        each.gets(seen + new)
    late.gets(writer.written("orders"))


def test_records_are_deleted_before_a_reader_comes_to_them(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool, writer: Writer, consumer: Callable[..., Consumer]
) -> None:
    values = writer.write("orders", 10)
    lagging, ahead = consumer(), consumer()
    for each in (lagging, ahead):
        each.assign([ORDERS])
    assert read(ahead, 10) == values
    with kafka.admin(connection_pool=pool) as admin:
        admin.delete_records({ORDERS: 7})
    lagging.seek(ORDERS, 2)
    assert read(lagging, 3) == values[7:]  # from the first that is there, as it was told to
    values += writer.write("orders", 2)
    assert read(lagging, 2) == values[10:]
    assert read(ahead, 2) == values[10:]


def test_an_offset_out_of_range_is_the_affair_of_one(writer: Writer, consumer: Callable[..., Consumer]) -> None:
    values = writer.write("orders", 5)
    strict, lenient, other = consumer(auto_offset_reset="none"), consumer(), consumer()
    for each in (strict, lenient, other):
        each.assign([ORDERS])
    strict.seek(ORDERS, 100)
    lenient.seek(ORDERS, 100)
    assert read(lenient, 5) == values
    assert read(other, 5) == values
    with pytest.raises(OffsetOutOfRangeError):
        until(lambda: strict.poll(timeout_ms=100))
    values += writer.write("orders", 2)
    assert read(lenient, 2) == read(other, 2) == values[5:]
    strict.seek(ORDERS, 3)
    assert read(strict, 4) == values[3:]


# -- transactions ------------------------------------------------------------------------------------------------------


def test_both_isolation_levels_are_read_side_by_side(
    kafka: Kafka, pool: ConnectionPool, reader: Callable[..., Reader]
) -> None:
    committed, uncommitted = (
        reader("orders", group_id=level, isolation_level=level) for level in ("read_committed", "read_uncommitted")
    )
    kept: list[bytes] = []
    everything: list[bytes] = []
    with kafka.producer(connection_pool=pool, transactional_id="t") as producer:
        producer.init_transactions()
        for number in range(6):
            producer.begin_transaction()
            values = [b"%d-%d" % (number, index) for index in range(3)]
            for value in values:
                producer.send("orders", value, partition=0)
            producer.flush(timeout=10)
            everything += values
            uncommitted.gets(everything)  # while the transaction is open
            assert committed.values == kept
            if number % 2:
                producer.abort_transaction()
            else:
                kept += values
                producer.commit_transaction()
                committed.gets(kept)
    uncommitted.gets(everything)
