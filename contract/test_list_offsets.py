"""ListOffsets: where a log begins and ends, and what is as new as a time."""

from __future__ import annotations

import pytest
from kafka.errors import NotLeaderForPartitionError, UnknownTopicOrPartitionError

from contract.lab import Lab
from contract.records import NOW_MS, batch
from contract.requests import EARLIEST, LATEST, MAX_TIMESTAMP, list_offsets, of_partitions, produce


def listed(lab: Lab, topic: str, timestamp: int, version: int = 7) -> tuple[int, int, int]:
    """Offset, timestamp and leader epoch."""
    part = of_partitions(lab.at_leader(topic).ask(list_offsets({(topic, 0): timestamp}), version))[topic, 0]
    assert part.error_code == 0
    return part.offset, part.timestamp, part.leader_epoch


def test_an_empty_log(lab: Lab) -> None:
    topic = lab.topic()
    assert listed(lab, topic, EARLIEST) == (0, -1, 0)
    assert listed(lab, topic, LATEST) == (0, -1, 0)
    assert listed(lab, topic, 0) == (-1, -1, -1)
    assert listed(lab, topic, MAX_TIMESTAMP) == (-1, -1, -1)


@pytest.fixture
def topic(lab: Lab) -> str:
    """Offsets 0 to 4 with times that go up but for one; two batches."""
    topic = lab.topic()
    for times in ([0, 10, 20], [50, 30]):
        contents = [b"%d" % time for time in times]
        records = batch(*contents, timestamps=[NOW_MS + time for time in times])
        lab.at_leader(topic).ask(produce({(topic, 0): records}), 9)
    return topic


def test_both_ends(lab: Lab, topic: str) -> None:
    assert listed(lab, topic, EARLIEST) == (0, -1, 0)
    assert listed(lab, topic, LATEST) == (5, -1, 0)
    assert listed(lab, topic, LATEST, version=1)[:2] == (5, -1)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (-1_000, (0, 0)),
        (0, (0, 0)),
        (1, (1, 10)),
        (20, (2, 20)),
        (21, (3, 50)),
        (30, (3, 50)),
        (50, (3, 50)),
    ],
)
def test_the_first_record_that_is_as_new(lab: Lab, topic: str, time: int, expected: tuple[int, int]) -> None:
    offset, found, epoch = listed(lab, topic, NOW_MS + time)
    assert (offset, found - NOW_MS, epoch) == (*expected, 0)


def test_a_time_after_all_records(lab: Lab, topic: str) -> None:
    assert listed(lab, topic, NOW_MS + 51) == (-1, -1, -1)


def test_the_newest_record(lab: Lab, topic: str) -> None:
    assert listed(lab, topic, MAX_TIMESTAMP) == (3, NOW_MS + 50, 0)


def test_only_the_leader_knows(lab: Lab, topic: str) -> None:
    wire = lab.broker(lab.other_than(lab.leader(topic)))
    unknown = lab.name("unknown")
    parts = of_partitions(wire.ask(list_offsets({(topic, 0): LATEST, (topic, 7): LATEST, (unknown, 0): LATEST}), 5))
    assert parts[topic, 0].error_code == NotLeaderForPartitionError.errno
    assert parts[topic, 7].error_code == UnknownTopicOrPartitionError.errno
    assert parts[unknown, 0].error_code == UnknownTopicOrPartitionError.errno
    assert [part.offset for part in parts.values()] == [-1, -1, -1]
