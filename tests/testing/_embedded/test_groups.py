"""Groups over the wire: what members ask, what parks, in which order it is answered."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import kafka.errors
import pytest

from pooledkafka.testing import EmbeddedKafka, Error
from tests.testing._embedded.group_requests import (
    commit,
    committed,
    heartbeat,
    join,
    join_as_new,
    leave,
    offset_fetch,
    sync,
)
from tests.testing._embedded.wire import Wire


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=2, config={"group.min.session.timeout.ms": "100"}) as cluster:
        yield cluster


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def wires(cluster: EmbeddedKafka, connections: ExitStack) -> list[Wire]:
    """Three connections to the coordinator of group g."""
    address = cluster.address_of(cluster.coordinator_of("g"))
    return [connections.enter_context(Wire(address, f"wire-{number}")) for number in range(3)]


def check_outstanding(cluster: EmbeddedKafka, *expected: str) -> None:
    """Wait until these requests have come and are not answered, and no others: by client id, None behind another."""
    deadline = time.monotonic() + 5
    found: list[str] = []
    while time.monotonic() < deadline:
        found = sorted(
            f"{exchange.client_id} {exchange.api}"
            for record in cluster.connections
            for exchange in record.exchanges
            if exchange.answered_at is None and record.closed_at is None
        )
        if found == sorted(expected):
            return
        time.sleep(0.005)
    assert found == sorted(expected)


def balanced(wires: list[Wire], **options: Any) -> list[str]:
    """A stable group of two; the ids of the leader, on the first connection, and of the follower on the second."""
    leader = join_as_new(wires[0], **options)
    _, answer = wires[0].receive()
    assert wires[0].ask(sync(leader, answer.generation_id, {}), 5).error_code == 0
    follower = join_as_new(wires[1], **options)
    wires[0].send(join(leader, **options), 9)
    _, answer = wires[0].receive()
    _, other = wires[1].receive()
    assert (answer.generation_id, other.generation_id) == (2, 2)
    wires[1].send(sync(follower, 2), 5)
    wires[0].ask(sync(leader, 2, {leader: b"a", follower: b"b"}), 5)
    assert wires[1].receive()[1].assignment == b"b"
    return [leader, follower]


# -- parking -----------------------------------------------------------------------------------------------------------


def test_a_join_parks_and_holds_up_what_is_behind_it_on_its_connection(
    cluster: EmbeddedKafka, wires: list[Wire]
) -> None:
    leader, follower = balanced(wires)
    joins = cluster.intercept("JoinGroup")
    join_as_new(wires[2])
    joins.wait_for(2)
    wires[2].send(heartbeat("somebody", 1), 4)
    assert wires[0].ask(heartbeat(leader, 2), 4).error_code == kafka.errors.RebalanceInProgressError.errno
    wires[1].send(join(follower), 9)
    joins.wait_for(3)
    assert wires[0].ask(heartbeat(leader, 2), 4).error_code == kafka.errors.RebalanceInProgressError.errno
    check_outstanding(cluster, "None Heartbeat", "wire-1 JoinGroup", "wire-2 JoinGroup")

    answer = wires[0].ask(join(leader), 9)
    assert (answer.error_code, answer.generation_id, answer.leader) == (0, 3, leader)
    assert len(answer.members) == 3
    for wire in wires[1:]:
        _, answer = wire.receive()
        assert (answer.error_code, answer.generation_id, answer.members) == (0, 3, [])
    _, behind = wires[2].receive()
    assert behind.error_code == kafka.errors.UnknownMemberIdError.errno


def test_a_sync_parks_until_the_leader_brings_the_assignment(cluster: EmbeddedKafka, wires: list[Wire]) -> None:
    leader, follower = balanced(wires)
    wires[1].send(join(follower, protocols=[]), 9)
    assert wires[1].receive()[1].error_code == kafka.errors.InconsistentGroupProtocolError.errno
    new = join_as_new(wires[2])
    wires[1].send(join(follower), 9)
    assert wires[0].ask(join(leader), 9).generation_id == 3
    syncs = cluster.intercept("SyncGroup")
    for wire, member_id in ((wires[1], follower), (wires[2], new)):
        wire.receive()
        wire.send(sync(member_id, 3), 5)
    syncs.wait_for(2)
    assert wires[0].ask(heartbeat(leader, 3), 4).error_code == 0
    check_outstanding(cluster, "wire-1 SyncGroup", "wire-2 SyncGroup")
    assert wires[0].ask(sync(leader, 3, {new: b"n", follower: b"f"}), 5).assignment == b""
    assert [wire.receive()[1].assignment for wire in wires[1:]] == [b"f", b"n"]


def test_a_member_whose_connection_closes_while_its_join_is_parked_stays(
    cluster: EmbeddedKafka, wires: list[Wire]
) -> None:
    leader, follower = balanced(wires)
    joins = cluster.intercept("JoinGroup")
    with Wire(cluster.address_of(cluster.coordinator_of("g")), "gone") as gone:
        join_as_new(gone)
        joins.wait_for(2)
    wires[1].send(join(follower), 9)
    assert len(wires[0].ask(join(leader), 9).members) == 3


def test_a_join_on_another_connection_takes_the_place_of_one_that_is_parked(
    cluster: EmbeddedKafka, wires: list[Wire]
) -> None:
    leader, follower = balanced(wires)
    joins = cluster.intercept("JoinGroup")
    new = join_as_new(wires[2])
    joins.wait_for(2)
    with Wire(cluster.address_of(cluster.coordinator_of("g")), "again") as again:
        again.send(join(new), 9)
        joins.wait_for(3)
        wires[1].send(join(follower), 9)
        assert wires[0].ask(join(leader), 9).error_code == 0
        assert again.receive()[1].error_code == 0
    wires[1].receive()
    check_outstanding(cluster, "wire-2 JoinGroup")
    # Never answered: when the client hangs up, so does the broker, and keeps nothing.
    wires[2].socket.shutdown(socket.SHUT_WR)
    assert wires[2].has_ended()


def test_a_new_member_that_is_silent_is_removed_in_its_session_timeout(wires: list[Wire]) -> None:
    silent = wires[0].ask(join(session_timeout_ms=100), 3)
    assert silent.error_code == 0
    answer = wires[1].ask(join(), 3)  # parks until the silent one is out
    assert answer.error_code == 0
    assert [member.member_id for member in answer.members] == [answer.member_id]
    unknown = kafka.errors.UnknownMemberIdError.errno
    assert wires[0].ask(heartbeat(silent.member_id, 1), 4).error_code == unknown


# -- versions and errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(10))
def test_every_version_of_join_and_sync(wires: list[Wire], version: int) -> None:
    answer = wires[0].ask(join(), version)
    if version >= 4:
        assert answer.error_code == kafka.errors.MemberIdRequiredError.errno
        answer = wires[0].ask(join(answer.member_id), version)
    assert (answer.error_code, answer.generation_id, answer.protocol_name) == (0, 1, "range")
    assert answer.leader == answer.member_id
    assert [(member.member_id, member.metadata) for member in answer.members] == [(answer.member_id, b"topics")]
    if version >= 7:
        assert answer.protocol_type == "consumer"
    assigned = wires[0].ask(sync(answer.member_id, 1, {answer.member_id: b"mine"}), min(version, 5))
    assert (assigned.error_code, assigned.assignment) == (0, b"mine")
    assert wires[0].ask(heartbeat(answer.member_id, 1), min(version, 4)).error_code == 0
    left = wires[0].ask(leave((answer.member_id, None), member_id=answer.member_id), min(version, 5))
    assert left.error_code == 0
    if version >= 3:
        assert [(member.member_id, member.error_code) for member in left.members] == [(answer.member_id, 0)]
    left = wires[0].ask(leave((answer.member_id, None), member_id=answer.member_id), min(version, 5))
    unknown = kafka.errors.UnknownMemberIdError.errno
    assert (left.members[0].error_code if version >= 3 else left.error_code) == unknown


def test_a_refused_join_says_why_in_every_version(wires: list[Wire]) -> None:
    for version in range(10):
        answer = wires[0].ask(join("nobody"), version)
        assert (answer.error_code, answer.member_id) == (kafka.errors.UnknownMemberIdError.errno, "nobody")


def test_session_timeouts_have_bounds() -> None:
    config = {"group.min.session.timeout.ms": "1000", "group.max.session.timeout.ms": "2000"}
    with EmbeddedKafka(brokers=1, config=config) as cluster, Wire(cluster.address_of(1)) as wire:
        errors = [wire.ask(join(session_timeout_ms=timeout), 3).error_code for timeout in (999, 2_001)]
        assert errors == [kafka.errors.InvalidSessionTimeoutError.errno] * 2
        assert wire.ask(join(session_timeout_ms=1_000), 3).error_code == 0


def test_a_group_has_an_id(wires: list[Wire]) -> None:
    invalid = kafka.errors.InvalidGroupIdError.errno
    for request, version in (
        (join(group_id=""), 9),
        (sync("m", 1, group_id=""), 5),
        (heartbeat("m", 1, group_id=""), 4),
        (leave(("m", None), group_id=""), 5),
    ):
        assert wires[0].ask(request, version).error_code == invalid


def test_a_group_that_is_not_known_has_no_members(wires: list[Wire]) -> None:
    unknown = kafka.errors.UnknownMemberIdError.errno
    assert wires[0].ask(join("m"), 9).error_code == unknown
    assert wires[0].ask(sync("m", 1), 5).error_code == unknown
    assert wires[0].ask(heartbeat("m", 1), 4).error_code == unknown
    assert wires[0].ask(leave(("m", None)), 5).members[0].error_code == unknown
    assert wires[0].ask(leave(member_id="m"), 2).error_code == unknown


def test_a_sync_must_name_the_protocol(wires: list[Wire]) -> None:
    leader, _ = balanced(wires)
    inconsistent = kafka.errors.InconsistentGroupProtocolError.errno
    assert wires[0].ask(sync(leader, 2, protocol_name=None), 5).error_code == inconsistent
    assert wires[0].ask(sync(leader, 2), 4).error_code == 0
    assert wires[0].ask(sync(leader, 1), 4).error_code == kafka.errors.IllegalGenerationError.errno


def test_another_broker_is_no_coordinator(cluster: EmbeddedKafka, wires: list[Wire]) -> None:
    leader, _ = balanced(wires)
    wrong = kafka.errors.NotCoordinatorError.errno
    with Wire(cluster.address_of(3 - cluster.coordinator_of("g"))) as wire:
        assert wire.ask(join(), 9).error_code == wrong
        assert wire.ask(sync(leader, 2), 5).error_code == wrong
        assert wire.ask(heartbeat(leader, 2), 4).error_code == wrong
        assert wire.ask(leave((leader, None)), 5).error_code == wrong
        assert wire.ask(leave(member_id=leader), 2).error_code == wrong
        cluster.create_topic("orders")
        assert wire.ask(commit({("orders", 0): 1}), 9).topics[0].partitions[0].error_code == wrong


def test_a_static_member_keeps_its_place_over_the_wire(wires: list[Wire]) -> None:
    first = wires[0].ask(join(group_instance_id="i"), 9)
    assert (first.error_code, first.members[0].group_instance_id) == (0, "i")
    wires[0].ask(sync(first.member_id, 1, {first.member_id: b"mine"}, group_instance_id="i"), 5)
    second = wires[1].ask(join(group_instance_id="i"), 9)
    assert (second.error_code, second.generation_id, second.skip_assignment) == (0, 1, True)
    assert wires[1].ask(sync(second.member_id, 1, group_instance_id="i"), 5).assignment == b"mine"
    fenced = kafka.errors.FencedInstanceIdError.errno
    assert wires[0].ask(heartbeat(first.member_id, 1, instance_id="i"), 4).error_code == fenced
    assert wires[0].ask(join(first.member_id, group_instance_id="i"), 9).error_code == fenced


def test_refusing_is_well_formed_in_every_version(cluster: EmbeddedKafka, wires: list[Wire]) -> None:
    load = kafka.errors.CoordinatorLoadInProgressError
    wire = wires[0]
    for name, request, versions in (
        ("JoinGroup", join("m"), range(10)),
        ("SyncGroup", sync("m", 1), range(6)),
        ("Heartbeat", heartbeat("m", 1), range(5)),
        ("LeaveGroup", leave(("m", None)), range(6)),
    ):
        with cluster.intercept(name, Error(load)):
            for version in versions:
                assert wire.ask(request, version).error_code == load.errno, (name, version)
    with cluster.intercept("OffsetCommit", Error(load)):
        for version in range(2, 10):
            answer = wire.ask(commit({("t", 0): 1}), version)
            assert answer.topics[0].partitions[0].error_code == load.errno
    with cluster.intercept("OffsetFetch", Error(load)):
        for version in range(1, 10):
            answer = wire.ask(offset_fetch({"t": [0]}, "g", version=version), version)
            if version >= 8:
                assert [(group.group_id, group.error_code) for group in answer.groups] == [("g", load.errno)]
            elif version >= 2:
                assert answer.error_code == load.errno
            else:
                assert committed(answer)["t", 0][3] == load.errno


# -- coordinators that move --------------------------------------------------------------------------------------------


def test_a_parked_join_is_told_that_the_coordinator_has_moved(cluster: EmbeddedKafka, wires: list[Wire]) -> None:
    leader, _ = balanced(wires)
    joins = cluster.intercept("JoinGroup")
    join_as_new(wires[2])
    joins.wait_for(2)
    other = 3 - cluster.coordinator_of("g")
    cluster.move_coordinator("g", other)
    assert wires[2].receive()[1].error_code == kafka.errors.NotCoordinatorError.errno
    assert wires[0].ask(heartbeat(leader, 2), 4).error_code == kafka.errors.NotCoordinatorError.errno
    with Wire(cluster.address_of(other)) as wire:
        assert wire.ask(heartbeat(leader, 2), 4).error_code == 0
        assert wire.ask(sync(leader, 2), 5).assignment == b"a"


def test_a_broker_that_dies_leaves_its_groups_to_another(cluster: EmbeddedKafka, wires: list[Wire]) -> None:
    leader, _ = balanced(wires)
    join_as_new(wires[2])
    coordinator = cluster.coordinator_of("g")
    cluster.kill(coordinator)
    assert all(wire.has_ended() for wire in wires)
    with Wire(cluster.address_of(3 - coordinator)) as wire:
        assert wire.ask(heartbeat(leader, 2), 4).error_code == 0
    cluster.start(coordinator)
    assert cluster.coordinator_of("g") == 3 - coordinator
