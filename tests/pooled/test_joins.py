"""Joins park on the broker until the whole group has come; nobody else waits for them, and no group goes without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import FencedInstanceIdError, IllegalStateError
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from kafka.structs import TopicPartition

import pooledkafka._wire.engine
from pooledkafka import ConnectionPool, Consumer, Kafka
from pooledkafka.testing import EmbeddedKafka, Fault, Hold
from tests.pooled.calling import Call
from tests.pooled.conftest import IMPATIENT
from tests.pooled.reading import Reader
from tests.pooled.waiting import until
from tests.pooled.watching import POOL, most_at_once, open_connections, outstanding
from tests.pooled.writing import Writer

LIVELY: dict[str, Any] = {"session_timeout_ms": 30_000, "heartbeat_interval_ms": 50}


@pytest.fixture(autouse=True)
def _topic(cluster: EmbeddedKafka) -> None:
    cluster.create_topic("orders", partitions=2)


def joins_of(cluster: EmbeddedKafka, group: str, action: Any = None) -> Fault:
    """See the JoinGroup requests of one group of the pool, and do something with them."""
    return cluster.intercept("JoinGroup", lambda request: action if request.group_id == group else None, client_id=POOL)


def share(readers: list[Reader], partitions: int, topic: str = "orders") -> None:
    """Wait until a group has balanced: each member has its part of the partitions, and each partition one member."""
    everything = sorted(TopicPartition(topic, index) for index in range(partitions))

    def assignments() -> list[set[TopicPartition]]:
        return [each.assignment for each in readers]

    until(
        assignments,
        lambda found: (
            sorted(partition for each in found for partition in each) == everything
            and all(len(each) in (partitions // len(readers), -(-partitions // len(readers))) for each in found)
        ),
    )
    for each in readers:
        each.is_assigned()


# -- one that is parked ------------------------------------------------------------------------------------------------


def test_a_join_that_is_held_stalls_nobody(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool, reader: Callable[..., Reader]
) -> None:
    cluster.create_topic("here", assignment=[[1]])
    for group in ("slow", "quick", "late"):
        cluster.move_coordinator(group, 1)
    writer = Writer(kafka.producer(connection_pool=pool))
    quick = reader("here", group_id="quick", **LIVELY)
    quick.is_assigned()
    with joins_of(cluster, "slow", Hold()):
        slow = [reader("here", group_id="slow", **LIVELY) for _ in range(3)]
        until(lambda: len(outstanding(cluster, "JoinGroup", 1)) == 3)
        beats = cluster.intercept("Heartbeat", client_id=POOL)
        writer.write("here", 3)
        quick.gets(writer.written("here"))
        late = reader("here", group_id="late", **LIVELY)
        late.gets(writer.written("here"))
        quick.stop()
        seen = len(beats.requests)
        until(lambda: any(request.group_id == "late" for request in beats.requests[seen:]))
        assert len(outstanding(cluster, "JoinGroup", 1)) == 3
    until(lambda: sum(len(each.assignment) for each in slow) == 1)
    until(lambda: sorted(value for each in slow for value in each.values) == sorted(writer.written("here")))


@pytest.mark.parametrize("what", ["moves", "dies"])
def test_the_coordinator_goes_while_a_join_is_parked_there(
    cluster: EmbeddedKafka, reader: Callable[..., Reader], consumer: Callable[..., Consumer], what: str
) -> None:
    cluster.move_coordinator("g", 1)
    busy = consumer("orders", group_id="g", **LIVELY)
    until(lambda: busy.poll(timeout_ms=100) or busy.assignment())
    other = reader("orders", group_id="g", **LIVELY)
    until(lambda: outstanding(cluster, "JoinGroup", 1))  # until the one that is busy joins too
    if what == "moves":
        cluster.move_coordinator("g", 2)
    else:
        cluster.kill(1)
    until(lambda: outstanding(cluster, "JoinGroup", cluster.coordinator_of("g")))
    assert cluster.coordinator_of("g") != 1
    with Reader(busy) as busy_again:
        share([other, busy_again], 2)


# -- many --------------------------------------------------------------------------------------------------------------


def test_twenty_members_of_one_group_balance(
    cluster: EmbeddedKafka, writer: Writer, reader: Callable[..., Reader]
) -> None:
    cluster.create_topic("wide", partitions=20)
    members = [reader("wide", group_id="g", **LIVELY) for _ in range(20)]
    share(members, 20, "wide")
    for partition in range(20):
        writer.write("wide", partition=partition)
    for member in members:
        ((_, partition),) = member.assignment
        member.gets(writer.written("wide", partition))


def test_groups_that_join_together_take_turns_where_connections_are_few(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    cluster.create_topic("wide", partitions=4)
    with kafka.connection_pool(max_leased_connections=4) as pool, ExitStack() as stack:
        groups = [
            [
                stack.enter_context(
                    Reader(kafka.consumer("wide", group_id=group, connection_pool=pool, heartbeat_interval_ms=100))
                )
                for _ in range(4)
            ]
            for group in "abcd"
        ]
        for members in groups:
            share(members, 4, "wide")
        assert 1 < most_at_once(cluster, "JoinGroup", "SyncGroup") <= 4


# -- what is known, and when -------------------------------------------------------------------------------------------


def test_no_group_is_assigned_from_metadata_that_has_not_come(
    cluster: EmbeddedKafka, pool: ConnectionPool, reader: Callable[..., Reader]
) -> None:
    for node_id in cluster.node_ids:
        pool.client.await_ready(node_id)  # so that nobody has to stand behind the request that is held
    joins, syncs = cluster.intercept("JoinGroup", client_id=POOL), cluster.intercept("SyncGroup", client_id=POOL)
    found = cluster.intercept("FindCoordinator", client_id=POOL)

    def about_orders(request: Any) -> Hold | None:
        return Hold() if any(topic.name == "orders" for topic in request.topics or ()) else None

    with cluster.intercept("Metadata", about_orders, client_id=POOL) as hold:
        members = []
        for number, group in enumerate("abc", start=1):
            members.append(reader("orders", group_id=group))
            found.wait_for(number)  # what remains before it can join is that it knows its topic
        until(lambda: any(about_orders(request) for request in hold.requests))
        assert joins.requests == []
    for member in members:
        member.is_assigned(2)
    until(lambda: {request.group_id for request in syncs.requests} == set("abc"))
    for request in syncs.requests:
        (assigned,) = request.assignments
        assignment = ConsumerProtocolAssignment.decode(assigned.assignment)
        assert [(topic, sorted(indexes)) for topic, indexes in assignment.assigned_partitions] == [("orders", [0, 1])]
        assert request.generation_id == 1


def test_a_join_that_ends_between_two_polls_is_not_made_again(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer]
) -> None:
    cluster.move_coordinator("a", 1)
    joins = cluster.intercept("JoinGroup", client_id=POOL)
    with cluster.intercept("SyncGroup", Hold(), client_id=POOL) as hold:
        member = consumer("orders", group_id="a")
        until(lambda: member.poll(timeout_ms=1) or hold.requests)
        hold.release()
    manager: Any = member._opened()._facade._manager  # type: ignore[union-attr]
    until(lambda: manager._join_task[1].is_done)
    assert not member.assignment()
    until(lambda: member.poll(timeout_ms=1) or member.assignment())
    member.poll(timeout_ms=50)
    assert len(joins.requests) == 2, "one to be told its id, and one with it"


def test_a_join_that_ends_before_its_member_leaves_is_not_taken(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer]
) -> None:
    cluster.create_topic("other")
    beats = cluster.intercept("Heartbeat", client_id=POOL)
    assigned: list[set[TopicPartition]] = []

    class Listener:
        def on_partitions_revoked(self, revoked: Any) -> None: ...

        def on_partitions_assigned(self, partitions: Any) -> None:
            assigned.append(set(partitions))

    with cluster.intercept("SyncGroup", Hold(), client_id=POOL) as hold:
        member = consumer(group_id="a", **LIVELY)
        member.subscribe(["orders"], listener=Listener())
        until(lambda: member.poll(timeout_ms=1) or hold.requests)
        hold.release()
    manager: Any = member._opened()._facade._manager  # type: ignore[union-attr]
    until(lambda: manager._join_task[1].is_done)
    member.unsubscribe()
    member.subscribe(["other"], listener=Listener())
    until(lambda: member.poll(timeout_ms=1) or member.assignment())
    assert assigned == [{TopicPartition("other", 0)}]
    until(lambda: member.poll(timeout_ms=1) or beats.requests)
    assert all(request.generation_id > 0 for request in beats.requests)


def test_a_member_that_unsubscribes_and_is_made_the_leader_then_joins_again(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer]
) -> None:
    with cluster.intercept("LeaveGroup", Hold(), client_id=POOL) as leaving:
        with cluster.intercept("JoinGroup", lambda sent: Hold() if sent.member_id else None, client_id=POOL) as joins:
            member = consumer("orders", group_id="a", **LIVELY)
            until(lambda: member.poll(timeout_ms=1) or len(joins.requests) == 2)
            unsubscribing = Call(member.unsubscribe)
            leaving.wait_for(1)
        manager: Any = member._opened()._facade._manager  # type: ignore[union-attr]
        until(lambda: manager._join_task[1].is_done)
    assert unsubscribing.ended() is None
    member.subscribe(["orders"])
    until(lambda: member.poll(timeout_ms=1) or len(member.assignment()) == 2)


def test_what_an_assignor_raises_is_told_once(cluster: EmbeddedKafka, consumer: Callable[..., Consumer]) -> None:
    class Assignor(RangePartitionAssignor):  # type: ignore[misc]
        @classmethod
        def assign(cls, *_: Any) -> Any:
            raise IllegalStateError("it will not")

    joins = joins_of(cluster, "a")
    member = consumer("orders", group_id="a", partition_assignment_strategy=[Assignor])
    with pytest.raises(IllegalStateError, match="it will not"):
        until(lambda: member.poll(timeout_ms=100))
    assert len(joins.requests) == 2, "one to be told its id, and one with it"


@pytest.mark.parametrize("turns", range(6))
def test_a_generation_that_ends_as_its_sync_is_answered_is_joined_again(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer], monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    joins = cluster.intercept("JoinGroup", client_id=POOL)
    member = consumer("orders", group_id="a", **LIVELY)
    manager: Any = member._opened()._facade._manager  # type: ignore[union-attr]
    answered, net = manager._engine.send_join, manager._engine.net

    async def ends_soon(*args: Any) -> Any:
        response = await answered(*args)
        monkeypatch.undo()

        async def end() -> None:
            for _ in range(turns):
                await net.sleep(0)  # others' turns come first
            coordinator = manager.coordinator  # as where a heartbeat or a commit hears of it
            coordinator.reset_generation(member_id=coordinator._generation.member_id)

        net.call_soon(end)
        return response

    async def watch(leases: Any, node_id: int, request: Any, *rest: Any) -> Any:
        send = ends_soon if type(request).__name__ == "SyncGroupRequest" else answered
        return await send(leases, node_id, request, *rest)

    monkeypatch.setattr(manager._engine, "send_join", watch)
    until(lambda: member.poll(timeout_ms=1) or member.assignment())
    until(lambda: member.poll(timeout_ms=1) or len(joins.requests) == 3)
    until(lambda: member.poll(timeout_ms=50) or manager.coordinator.stable())
    assert manager.coordinator._generation.generation_id > 0


# -- members that come and go ------------------------------------------------------------------------------------------


@pytest.fixture
def frozen(cluster: EmbeddedKafka) -> Iterator[ConnectionPool]:
    """Another pool, as in a process that will be stopped for a while."""
    kafka = Kafka(**cluster.client_options(), **IMPATIENT, client_id="frozen")
    with kafka.connection_pool() as pool:
        yield pool


def test_a_members_session_times_out_and_it_comes_back(
    cluster: EmbeddedKafka, frozen: ConnectionPool, reader: Callable[..., Reader], writer: Writer
) -> None:
    options = {"group_id": "g", "session_timeout_ms": 400, "heartbeat_interval_ms": 50}
    lasting = reader("orders", **options)
    with Reader(Consumer("orders", connection_pool=frozen, auto_offset_reset="earliest", **options)) as lost:
        share([lasting, lost], 2)
        with cluster.intercept(None, Hold(), client_id="frozen"):
            lasting.is_assigned(2)
            for partition in range(2):
                writer.write("orders", 3, partition=partition)
            until(lambda: all(lasting.of_partition(p) == writer.written("orders", p) for p in range(2)))
        share([lasting, lost], 2)


def test_static_members_come_back_to_their_places(cluster: EmbeddedKafka, reader: Callable[..., Reader]) -> None:
    members = {name: reader("orders", group_id="g", group_instance_id=name, **LIVELY) for name in "ab"}
    share(list(members.values()), 2)
    joins = cluster.intercept("JoinGroup", client_id=POOL)
    for name in "abab":
        place = members[name].assignment
        members[name].stop()
        members[name] = reader("orders", group_id="g", group_instance_id=name, **LIVELY)
        assert members[name].is_assigned() == place
    assert [request.group_instance_id for request in joins.requests] == list("abab")


def test_a_second_one_with_a_static_members_name_takes_its_place(
    reader: Callable[..., Reader], consumer: Callable[..., Consumer]
) -> None:
    options = {"group_id": "g", "auto_commit_interval_ms": 100, **LIVELY}  # a commit tells it that it is fenced
    first = Reader(consumer("orders", group_instance_id="a", **options))
    other = reader("orders", group_instance_id="b", **options)
    share([first, other], 2)
    second = reader("orders", group_instance_id="a", **options)
    with pytest.raises(FencedInstanceIdError):
        first.is_assigned(0)
    share([second, other], 2)


# -- connections -------------------------------------------------------------------------------------------------------


def test_connections_that_only_joining_needed_are_closed_and_at_most_four_to_a_broker_stay(
    cluster: EmbeddedKafka, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooledkafka._wire.engine, "_LEASE_IDLE_S", 0.2)
    cluster.create_topic("wide", partitions=6)
    with kafka.connection_pool() as pool, ExitStack() as stack:
        readers = [
            stack.enter_context(
                Reader(kafka.consumer("wide", group_id=f"g{n}", connection_pool=pool, auto_offset_reset="earliest"))
            )
            for n in range(12)
        ]
        writer = Writer(stack.enter_context(kafka.producer(connection_pool=pool)))
        for each in readers:
            each.is_assigned(6)
        for partition in range(6):
            writer.write("wide", 2, partition=partition)
        until(lambda: all(each.of_partition(p) == writer.written("wide", p) for each in readers for p in range(6)))
        until(lambda: not any("leased" in lanes for lanes in pool.stats().connections.values()))
        assert sorted(pool.stats().connections) == [1, 2, 3]
        for lanes in pool.stats().connections.values():
            assert {"control": 1, "produce": 1, "fetch": 1}.items() <= lanes.items()
            assert set(lanes.values()) == {1}
            assert len(lanes) <= 4
        until(lambda: open_connections(cluster) == {n: len(lanes) for n, lanes in pool.stats().connections.items()})
