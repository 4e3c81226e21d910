"""A member goes on from where its group is, however late an answer to an earlier question comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafka.structs import OffsetAndMetadata, TopicPartition

from pooledkafka import ConnectionPool, Consumer
from pooledkafka.testing import EmbeddedKafka, Hold
from tests.pooled.reading import Reader
from tests.pooled.waiting import until
from tests.pooled.watching import POOL, outstanding
from tests.pooled.writing import Writer

LIVELY: dict[str, Any] = {"session_timeout_ms": 30_000, "heartbeat_interval_ms": 50}


def test_what_was_committed_in_another_generation_is_asked_for_again(
    cluster: EmbeddedKafka,
    pool: ConnectionPool,
    consumer: Callable[..., Consumer],
    reader: Callable[..., Reader],
    writer: Writer,
) -> None:
    for node_id in cluster.node_ids:
        pool.client.await_ready(node_id)  # so that nobody has to stand behind the answer that is held
    cluster.create_topic("orders", partitions=2)
    cluster.move_coordinator("billing", 1)
    first = writer.write("orders", 10)
    member = consumer("orders", group_id="billing", enable_auto_commit=False, **LIVELY)
    got: list[Any] = []

    def poll() -> set[TopicPartition]:
        for records in member.poll(timeout_ms=50).values():
            got.extend(records)
        return member.assignment()

    with cluster.intercept("OffsetFetch", Hold(answer=True), times=1, client_id=POOL) as hold:
        until(poll, lambda assigned: len(assigned) == 2)
        until(lambda: poll() and hold.requests)
        # The answer comes while nobody polls, and the next poll has to join again first.
        joins = cluster.intercept("JoinGroup", client_id=POOL)
        other = reader("orders", group_id="billing", **LIVELY)
        until(lambda: any(request.member_id for request in joins.requests) and outstanding(cluster, "JoinGroup", 1))
    beats = cluster.intercept("Heartbeat", client_id=POOL)
    beats.wait_for(2)  # one of them was told of the rebalance
    until(poll, lambda assigned: len(assigned) == 1)
    until(lambda: poll() and len(got) + len(other.records) == len(first))
    member.commit()
    other.stop()

    member.unsubscribe()
    member.subscribe(["orders"])
    until(poll, lambda assigned: len(assigned) == 2)
    more = writer.write("orders", 10)
    until(lambda: poll() and {record.value for record in got} >= set(more))
    read = [record.value for record in got] + other.values
    assert sorted(read) == sorted([*first, *more])


def test_what_was_committed_before_the_last_commit_is_asked_for_again(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer], writer: Writer
) -> None:
    cluster.create_topic("orders")
    cluster.move_coordinator("billing", 1)
    writer.write("orders", 10)
    member = consumer("orders", group_id="billing", enable_auto_commit=False, **LIVELY)
    with cluster.intercept("OffsetFetch", Hold(answer=True), times=1, client_id=POOL) as hold:
        until(lambda: member.poll(timeout_ms=50) or hold.requests)
        hold.release()
    partition = TopicPartition("orders", 0)
    member.commit({partition: OffsetAndMetadata(7, "", -1)})
    assert member.committed(partition) == 7
