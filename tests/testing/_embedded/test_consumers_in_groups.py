"""Real consumers in groups: pooledkafka's and confluent-kafka's.

Not kafka-python's own: it may stay without an assignment for ever when a poll ends in the middle of a join.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata, TopicPartition

from pooledkafka import Consumer
from pooledkafka.testing import EmbeddedKafka, Hold

CONFIG = {"group.min.session.timeout.ms": "100"}
ALL = {TopicPartition("orders", index) for index in range(6)}


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=2, config=CONFIG) as cluster:
        cluster.create_topic("orders", partitions=6)
        yield cluster


@pytest.fixture
def members() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Member:
    """A consumer of group g that polls on a thread of its own until it leaves."""

    def __init__(self, cluster: EmbeddedKafka, client_id: str, **options: Any) -> None:
        self._leaving = threading.Event()
        self._options = {
            **cluster.client_options(),
            "client_id": client_id,
            "group_id": "g",
            "session_timeout_ms": 6_000,
            "heartbeat_interval_ms": 100,
            "auto_offset_reset": "earliest",
            **options,
        }
        self.partitions: set[TopicPartition] = set()
        self.values: list[bytes] = []
        self._thread = threading.Thread(target=self._run, name=client_id)

    def __enter__(self) -> Member:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Stop polling, and close the consumer."""
        self._leaving.set()
        self._thread.join()
        self.partitions = set()

    def _run(self) -> None:
        with Consumer("orders", **self._options) as consumer:
            while not self._leaving.is_set():
                for records in consumer.poll(timeout_ms=50).values():
                    self.values += [record.value for record in records]
                self.partitions = set(consumer.assignment())


def eventually(condition: Callable[[], bool], what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)


def balanced(*members: Member) -> None:
    """Wait until the members share all partitions evenly."""

    def shares() -> list[set[TopicPartition]]:
        return [member.partitions for member in members]

    def is_so() -> bool:
        each = len(ALL) // len(members)
        return set().union(*shares()) == ALL and all(len(share) == each for share in shares())

    eventually(is_so, shares)


def produce(cluster: EmbeddedKafka, *values: bytes) -> None:
    producer = KafkaProducer(**cluster.client_options())
    for number, value in enumerate(values):
        producer.send("orders", value, partition=number % 6)
    producer.close()


def test_members_share_the_partitions_as_they_come_and_go(cluster: EmbeddedKafka, members: ExitStack) -> None:
    first, second, third = (Member(cluster, f"member-{number}") for number in range(3))
    for member in (first, second, third):
        members.enter_context(member)
    balanced(first, second, third)
    third.leave()
    balanced(first, second)
    first.leave()
    balanced(second)


def test_the_partitions_of_a_member_that_dies_go_to_others(cluster: EmbeddedKafka, members: ExitStack) -> None:
    dead = members.enter_context(Member(cluster, "dead", session_timeout_ms=1_000))
    alive = members.enter_context(Member(cluster, "alive"))
    balanced(dead, alive)
    with cluster.intercept(action=Hold(), client_id="dead"):
        eventually(lambda: alive.partitions == ALL, lambda: alive.partitions)


def test_a_static_member_that_restarts_disturbs_nobody(cluster: EmbeddedKafka, members: ExitStack) -> None:
    first = members.enter_context(Member(cluster, "first", group_instance_id="one"))
    second = members.enter_context(Member(cluster, "second", group_instance_id="two"))
    balanced(first, second)
    had = second.partitions
    with cluster.intercept("Heartbeat", client_id="first") as beats:
        beats.wait_for(5)  # it is at rest: what it knew of the first rebalance late, it has done
    rejoined = cluster.intercept("JoinGroup", client_id="first")
    second.leave()  # which a static member does not say
    again = members.enter_context(Member(cluster, "again", group_instance_id="two"))
    eventually(lambda: again.partitions == had, lambda: again.partitions)
    assert rejoined.requests == []


def test_a_group_goes_on_where_it_committed(cluster: EmbeddedKafka) -> None:
    produce(cluster, *(b"%d" % number for number in range(6)))
    first = Member(cluster, "first")
    with first:
        eventually(lambda: len(first.values) == 6, lambda: first.values)
    produce(cluster, b"more")
    second = Member(cluster, "second")
    with second:
        eventually(lambda: second.values == [b"more"], lambda: second.values)


def test_an_offset_is_committed_with_its_metadata(cluster: EmbeddedKafka) -> None:
    partition = TopicPartition("orders", 0)
    consumer = KafkaConsumer(group_id="g", enable_auto_commit=False, **cluster.client_options())
    consumer.assign([partition])
    assert consumer.committed(partition) is None
    consumer.commit({partition: OffsetAndMetadata(3, "note", 0)})
    assert consumer.committed(partition, metadata=True) == OffsetAndMetadata(3, "note", 0)
    consumer.close()


def test_confluent_consumers_share_a_group(cluster: EmbeddedKafka) -> None:
    confluent = pytest.importorskip("confluent_kafka")
    confluent_admin = pytest.importorskip("confluent_kafka.admin")
    options = {
        "bootstrap.servers": cluster.bootstrap_servers,
        "group.id": "g",
        "auto.offset.reset": "earliest",
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 100,
        "enable.auto.commit": False,
    }
    produce(cluster, *(b"%d" % number for number in range(6)))
    consumers = [confluent.Consumer(options) for _ in range(2)]
    seen: list[bytes] = []

    def share() -> bool:
        for consumer in consumers:
            message = consumer.poll(0.05)
            if message is not None:
                assert message.error() is None
                seen.append(message.value())
                with suppress(confluent.KafkaException):  # in a rebalance; the message comes again
                    consumer.commit(message, asynchronous=False)
        return all(len(consumer.assignment()) == 3 for consumer in consumers) and len(set(seen)) == 6

    try:
        for consumer in consumers:
            consumer.subscribe(["orders"])
        eventually(share, lambda: [consumer.assignment() for consumer in consumers])
        partitions = [confluent.TopicPartition("orders", index) for index in range(6)]

        def offsets() -> list[int]:
            return [each.offset for each in consumers[0].committed(partitions, timeout=10)]

        eventually(lambda: share() and offsets() == [1] * 6, offsets)
        consumers.pop().close()
        eventually(lambda: share() or len(consumers[0].assignment()) == 6, consumers[0].assignment)
    finally:
        for consumer in consumers:
            consumer.close()
    admin = confluent_admin.AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
    described = admin.describe_consumer_groups(["g"])["g"].result(timeout=10)
    assert (described.state.name, described.members) == ("EMPTY", [])
    assert [group.group_id for group in admin.list_consumer_groups().result(timeout=10).valid] == ["g"]
    admin.delete_consumer_groups(["g"])["g"].result(timeout=10)
    assert admin.list_consumer_groups().result(timeout=10).valid == []
