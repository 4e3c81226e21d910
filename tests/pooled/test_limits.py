"""max_in_flight_requests, counted by the brokers: never more, and everybody comes to its turn."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from pooledkafka import ConfigurationError, Kafka
from pooledkafka.testing import Drop, EmbeddedKafka, Half, Never
from tests.pooled.reading import Reader
from tests.pooled.waiting import until
from tests.pooled.watching import POOL
from tests.pooled.writing import Writer

PARTITIONS = 6


@pytest.fixture(autouse=True)
def _topic(cluster: EmbeddedKafka) -> None:
    cluster.create_topic("orders", partitions=PARTITIONS)


def have_read_all(members: list[Reader], writers: list[Writer]) -> bool:
    """Whether members of one group have together what was written, each record once."""
    return all(
        sorted(value for each in members for value in each.of_partition(index))
        == sorted(value for each in writers for value in each.written("orders", index))
        for index in range(PARTITIONS)
    )


@pytest.mark.parametrize("limit", [1, 2, 5, 20])
def test_never_more_are_outstanding_and_everybody_comes_to_its_turn(
    cluster: EmbeddedKafka, kafka: Kafka, limit: int
) -> None:
    together = min(limit, 3)
    names = ["together"] * together + [f"alone-{n}" for n in range(8)]
    beats = cluster.intercept("Heartbeat", client_id=POOL)
    commits = cluster.intercept("OffsetCommit", client_id=POOL)
    with kafka.connection_pool(max_in_flight_requests=limit) as pool, ExitStack() as stack:
        readers = [
            stack.enter_context(
                Reader(
                    kafka.consumer(
                        "orders",
                        group_id=name,
                        connection_pool=pool,
                        auto_offset_reset="earliest",
                        auto_commit_interval_ms=100,
                        heartbeat_interval_ms=100,
                    )
                )
            )
            for name in names
        ]
        group, alone = readers[:together], readers[together:]
        for each in alone:
            each.is_assigned(PARTITIONS)
        until(lambda: sorted(len(each.assignment) for each in group) == [PARTITIONS // together] * together)
        joins = cluster.intercept("JoinGroup", client_id=POOL)
        writers = [
            Writer(stack.enter_context(kafka.producer(connection_pool=pool, linger_ms=linger_ms)))
            for linger_ms in (0, 1)
        ]
        for index in range(PARTITIONS):
            for writer in writers:
                writer.write("orders", 2, partition=index)
        for members in (group, *([each] for each in alone)):
            until(partial(have_read_all, members, writers))
        until(lambda: {request.group_id for request in beats.requests} == set(names))
        until(lambda: {request.group_id for request in commits.requests} == set(names))
        # Nobody was thrown out, or waited so long that it would be. (Members that are told of each other late may
        # join once more.)
        assert {request.group_id for request in joins.requests} <= {"together"}
    assert 0 < cluster.most_outstanding(client_id=POOL) <= limit


@pytest.mark.parametrize("action", [Drop(), Drop(served=True), Half(), Never()])
@pytest.mark.parametrize("limit", [1, 2])
def test_a_request_that_comes_to_nothing_gives_its_place_back(
    cluster: EmbeddedKafka, kafka: Kafka, action: Any, limit: int
) -> None:
    with kafka.connection_pool(max_in_flight_requests=limit) as pool, ExitStack() as stack:
        producer = stack.enter_context(kafka.producer(connection_pool=pool, request_timeout_ms=200))
        writer = Writer(producer)
        writer.write("orders")
        fault = cluster.intercept("Produce", action, client_id=POOL, times=3)
        writer.write("orders", 3)
        fault.wait_for(1)
        while len(fault.requests) < 3:
            writer.write("orders")
        reader = stack.enter_context(
            Reader(kafka.consumer("orders", connection_pool=pool, group_id="g", auto_offset_reset="earliest"))
        )
        reader.gets(writer.written("orders"))
    if not isinstance(action, Never):  # there the broker sees later than the pool that the connection has ended
        assert cluster.most_outstanding(client_id=POOL) <= limit


def test_a_limit_that_a_group_could_never_join_under_is_refused(
    kafka: Kafka, cluster: EmbeddedKafka, writer: Writer
) -> None:
    writer.write("orders")
    with kafka.connection_pool(max_in_flight_requests=2) as pool, ExitStack() as stack:
        consumers = [
            kafka.consumer("orders", group_id="g", connection_pool=pool, heartbeat_interval_ms=100) for _ in range(3)
        ]
        readers = [stack.enter_context(Reader(each)) for each in consumers[:2]]
        for each in readers:
            each.is_assigned(PARTITIONS // 2)
        with pytest.raises(ConfigurationError, match=r"max_in_flight_requests=2 cannot work.*smallest that works is 3"):
            consumers[2].poll()
        with stack.enter_context(kafka.consumer("orders", group_id="other", connection_pool=pool)) as other:
            until(lambda: other.poll(timeout_ms=100) or other.assignment())
        readers[0].stop()
        with Reader(consumers[2]) as third:  # there is room for it now
            until(lambda: len(third.assignment) == len(readers[1].assignment) == PARTITIONS // 2)


@pytest.mark.parametrize("limit", [-1, "2", True])
def test_what_is_no_limit_is_refused(kafka: Kafka, limit: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_in_flight_requests"):
        kafka.connection_pool(max_in_flight_requests=limit)
