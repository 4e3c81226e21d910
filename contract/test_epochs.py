"""Leader epochs: before and after a broker that leads was restarted."""

from __future__ import annotations

import pytest
from kafka.errors import (
    FencedLeaderEpochError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    UnknownLeaderEpochError,
    UnknownTopicOrPartitionError,
)

from contract.lab import Lab, until
from contract.records import batches, values
from contract.requests import LATEST, Ask, Key, api_versions, end_of_epoch, fetch, list_offsets, of_partitions
from contract.wire import Ended
from pooledkafka.testing import Cluster


def end(lab: Lab, key: Key, epoch: int) -> tuple[int, int]:
    """A leader epoch and its end, as the leader knows them."""
    part = of_partitions(lab.at_leader(*key).ask(end_of_epoch(key, epoch), 3))[key]
    assert part.error_code == 0
    return part.leader_epoch, part.end_offset


def diverging(lab: Lab, key: Key, ask: Ask) -> tuple[int, int] | None:
    """Epoch and offset at which the leader's log parts from what the client has read; None where it does not."""
    part = of_partitions(lab.at_leader(*key).ask(fetch({key: ask}), 12))[key]
    assert part.error_code == 0
    if part.diverging_epoch is None:
        return None
    assert not part.records
    return part.diverging_epoch.epoch, part.diverging_epoch.end_offset


def leader_epoch(lab: Lab, key: Key) -> int:
    return int(lab.partitions(key[0])[key[1]].leader_epoch)


# -- before ------------------------------------------------------------------------------------------------------------


def test_an_epoch_that_has_not_begun_is_unknown(lab: Lab) -> None:
    key = (lab.topic(), 0)
    lab.write(key[0], b"a")
    wire = lab.at_leader(*key)
    code = UnknownLeaderEpochError.errno
    answer = wire.ask(fetch({key: Ask(0, leader_epoch=1)}, max_wait_ms=60_000), 11)
    assert of_partitions(answer)[key].error_code == code
    assert of_partitions(wire.ask(list_offsets({key: LATEST}, leader_epoch=1), 5))[key].error_code == code
    assert of_partitions(wire.ask(end_of_epoch(key, 0, leader_epoch=1), 3))[key].error_code == code
    assert values(of_partitions(wire.ask(fetch({key: Ask(0, leader_epoch=0)}), 11))[key]) == [b"a"]


def test_the_end_of_an_epoch(lab: Lab) -> None:
    key = (lab.topic(), 0)
    assert end(lab, key, 0) == (0, 0)
    lab.write(key[0], b"a", b"b")
    assert end(lab, key, 0) == (0, 2)
    assert end(lab, key, 5) == (-1, -1)


def test_only_the_leader_knows_the_end_of_an_epoch(lab: Lab) -> None:
    key, unknown = (lab.topic(), 0), (lab.name("unknown"), 0)
    wire = lab.broker(lab.other_than(lab.leader(*key)))
    assert of_partitions(wire.ask(end_of_epoch(key, 0), 3))[key].error_code == NotLeaderForPartitionError.errno
    part = of_partitions(wire.ask(end_of_epoch(unknown, 0), 3))[unknown]
    assert part.error_code == UnknownTopicOrPartitionError.errno


def test_a_reader_beyond_the_end_of_its_epoch_is_told_where_the_log_parts(lab: Lab) -> None:
    key = (lab.topic(), 0)
    lab.write(key[0], b"a", b"b")
    assert diverging(lab, key, Ask(2, last_fetched_epoch=0)) is None
    assert diverging(lab, key, Ask(3, last_fetched_epoch=0)) == (0, 2)
    answer = lab.at_leader(*key).ask(fetch({key: Ask(1, last_fetched_epoch=4)}), 12)
    assert of_partitions(answer)[key].error_code == OffsetOutOfRangeError.errno


# -- after -------------------------------------------------------------------------------------------------------------


def test_after_a_restart_of_the_leader(lab: Lab, faults: Cluster) -> None:
    """One restart, of which everything is looked at: each takes a real broker seconds."""
    written, empty = (lab.topic(), 0), (lab.topic(), 0)
    node_id = lab.leader(*written)
    lab.write(written[0], b"a", b"b")
    wire = lab.connect(node_id)
    parked = wire.send(fetch({written: 2}, max_wait_ms=60_000), 11)
    session = lab.connect(node_id).ask(fetch({written: 0}, session=(0, 0)), 11).session_id
    group = lab.group()[0]

    faults.restart(node_id)
    with pytest.raises(Ended):
        wire.answer(parked)
    faults.wait_until_healthy()
    lab.forget_connections()

    assert lab.connect(node_id).ask(api_versions(), 3).error_code == 0
    # The ISR has changed and so the epoch may have too, more than once; but somebody else leads.
    assert lab.leader(*written) != node_id
    epoch = leader_epoch(lab, written)
    assert epoch >= 1
    response = lab.connect(node_id).ask(fetch({}, session=(session, 1)), 11)
    assert response.error_code != 0  # sessions are in memory alone

    # What the old leader wrote is there, in its own epoch; what comes now is of the new one.
    lab.write(written[0], b"c")
    part = lab.read(written[0])
    assert values(part) == [b"a", b"b", b"c"]
    assert [batch.leader_epoch for batch in batches(part)] == [0, epoch]

    # An old epoch is fenced.
    wire = lab.at_leader(*written)
    for old in range(epoch):
        code = FencedLeaderEpochError.errno
        answer = wire.ask(fetch({written: Ask(3, leader_epoch=old)}, max_wait_ms=60_000), 11)
        assert of_partitions(answer)[written].error_code == code
        answer = wire.ask(list_offsets({written: LATEST}, leader_epoch=old), 5)
        assert of_partitions(answer)[written].error_code == code
        answer = wire.ask(end_of_epoch(written, 0, leader_epoch=old), 3)
        assert of_partitions(answer)[written].error_code == code
    part = of_partitions(wire.ask(list_offsets({written: LATEST}, leader_epoch=epoch), 5))[written]
    assert (part.offset, part.leader_epoch) == (3, epoch)

    # Where epochs end; one in which nothing was written is none.
    assert end(lab, written, 0) == (0, 2)
    assert end(lab, written, epoch) == (epoch, 3)
    assert end(lab, written, epoch + 1) == (-1, -1)
    assert end(lab, empty, leader_epoch(lab, empty)) == (leader_epoch(lab, empty), 0)
    if leader_epoch(lab, empty) > 0:
        assert end(lab, empty, 0) == (0, 0)
        lab.write(empty[0], b"late")
        assert end(lab, empty, 0) == (0, 0)

    # Readers that have read otherwise are told.
    assert diverging(lab, written, Ask(2, last_fetched_epoch=0)) is None
    assert diverging(lab, written, Ask(3, last_fetched_epoch=0)) == (0, 2)
    assert diverging(lab, written, Ask(3, last_fetched_epoch=epoch)) is None
    assert diverging(lab, written, Ask(4, last_fetched_epoch=epoch)) == (epoch, 3)

    # The group has a coordinator.
    assert lab.coordinator_of(group) in faults.node_ids


def test_a_killed_broker_is_gone_until_it_is_started(lab: Lab, faults: Cluster) -> None:
    topic = lab.topic()
    node_id = lab.leader(topic)
    survivor = lab.other_than(node_id)
    lab.write(topic, b"a")
    wire = lab.connect(node_id)
    parked = wire.send(fetch({(topic, 0): 1}, max_wait_ms=60_000), 11)
    faults.kill(node_id)
    with pytest.raises(Ended):
        wire.answer(parked)
    with pytest.raises(ConnectionRefusedError):
        lab.connect(node_id)
    part = until(
        lambda: lab.partitions(topic, survivor)[0], lambda found: found.leader_id not in (-1, node_id), timeout_s=30
    )
    assert part.offline_replicas == [node_id]
    assert node_id not in part.isr_nodes
    assert (part.error_code, part.leader_epoch) == (0, 1)
    faults.start(node_id)
    faults.wait_until_healthy()
    lab.forget_connections()
    assert values(lab.read(topic)) == [b"a"]
