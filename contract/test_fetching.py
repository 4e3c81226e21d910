"""Fetch: when a long poll ends, what fits into an answer, where reading may begin."""

from __future__ import annotations

import time

import pytest
from kafka.errors import NotLeaderForPartitionError, OffsetOutOfRangeError, UnknownTopicOrPartitionError

from contract.lab import Lab, until
from contract.records import batch, batches, offsets, values
from contract.requests import Ask, fetch, of_partitions

FOREVER_MS = 60_000  # longer than a test waits for an answer


# -- how long it waits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 7, 11, 12])
def test_a_long_poll_ends_when_data_comes(lab: Lab, version: int) -> None:
    topic = lab.topic()
    wire = lab.parked_at(topic)
    parked = wire.send(fetch({(topic, 0): 0}, max_wait_ms=FOREVER_MS), version)
    assert wire.is_silent()
    lab.write(topic, b"a")
    assert values(of_partitions(wire.answer(parked))[topic, 0]) == [b"a"]


def test_a_long_poll_ends_with_nothing_when_its_time_is_over(lab: Lab) -> None:
    topic = lab.topic()
    wire = lab.at_leader(topic)
    began = time.monotonic()
    part = of_partitions(wire.ask(fetch({(topic, 0): 0}, max_wait_ms=400), 11))[topic, 0]
    assert time.monotonic() - began >= 0.4
    assert (part.error_code, part.high_watermark, values(part)) == (0, 0, [])


def test_a_long_poll_waits_for_min_bytes_over_all_partitions(lab: Lab) -> None:
    topic = lab.topic_led_by(1, 1)
    lab.write(topic, b"a")
    wire = lab.connect(1)
    enough = len(batch(b"a")) * 2
    parked = wire.send(fetch({(topic, 0): 0, (topic, 1): 0}, max_wait_ms=FOREVER_MS, min_bytes=enough), 11)
    assert wire.is_silent()
    lab.write(topic, b"b", partition=1)
    parts = of_partitions(wire.answer(parked))
    assert (values(parts[topic, 0]), values(parts[topic, 1])) == ([b"a"], [b"b"])


def test_what_there_is_comes_when_the_time_is_over(lab: Lab) -> None:
    topic = lab.topic()
    lab.write(topic, b"a")
    assert values(lab.read(topic, min_bytes=1 << 20, max_wait_ms=200)) == [b"a"]


def test_without_min_bytes_nothing_is_waited_for(lab: Lab) -> None:
    topic = lab.topic()
    assert values(lab.read(topic, min_bytes=0, max_wait_ms=FOREVER_MS)) == []


def test_no_partitions_are_no_wait(lab: Lab) -> None:
    assert of_partitions(lab.any.ask(fetch({}, max_wait_ms=FOREVER_MS), 11)) == {}


def test_an_offset_out_of_range_ends_the_wait_of_all(lab: Lab) -> None:
    topic = lab.topic_led_by(1, 1)
    parts = of_partitions(lab.broker(1).ask(fetch({(topic, 0): 0, (topic, 1): 5}, max_wait_ms=FOREVER_MS), 11))
    assert parts[topic, 0].error_code == 0
    assert parts[topic, 1].error_code == OffsetOutOfRangeError.errno


def test_a_partition_led_by_another_broker_ends_the_wait_of_all(lab: Lab) -> None:
    topic = lab.topic_led_by(1, 2)
    parts = of_partitions(lab.broker(1).ask(fetch({(topic, 0): 0, (topic, 1): 0}, max_wait_ms=FOREVER_MS), 11))
    assert parts[topic, 0].error_code == 0
    assert parts[topic, 1].error_code == NotLeaderForPartitionError.errno


@pytest.mark.parametrize("what", ["topic", "partition"])
def test_what_is_unknown_ends_no_wait(lab: Lab, what: str) -> None:
    """The broker sets it aside before it reads (KafkaApis.handleFetchRequest), and waits for the others."""
    topic = lab.topic_led_by(1)
    unknown = (lab.name("unknown"), 0) if what == "topic" else (topic, 5)
    wire = lab.connect(1)
    parked = wire.send(fetch({unknown: 0, (topic, 0): 0}, max_wait_ms=FOREVER_MS), 11)
    assert wire.is_silent()
    lab.write(topic, b"a")
    parts = of_partitions(wire.answer(parked))
    assert parts[unknown].error_code == UnknownTopicOrPartitionError.errno
    assert values(parts[topic, 0]) == [b"a"]


def test_only_what_is_unknown_is_no_wait(lab: Lab) -> None:
    unknown = (lab.name("unknown"), 0)
    parts = of_partitions(lab.any.ask(fetch({unknown: 0}, max_wait_ms=FOREVER_MS), 11))
    assert parts[unknown].error_code == UnknownTopicOrPartitionError.errno


# -- what fits ---------------------------------------------------------------------------------------------------------


def test_the_first_batch_comes_whole_though_it_is_larger_than_all_limits(lab: Lab) -> None:
    topic = lab.topic()
    lab.write(topic, b"x" * 5_000)
    lab.write(topic, b"second")
    part = of_partitions(lab.at_leader(topic).ask(fetch({(topic, 0): Ask(0, max_bytes=10)}, max_bytes=10), 11))[
        topic, 0
    ]
    assert values(part) == [b"x" * 5_000]
    assert len(part.records) == len(batch(b"x" * 5_000))


def test_a_batch_beyond_the_limit_of_its_partition_is_cut_off(lab: Lab) -> None:
    topic = lab.topic()
    lab.write(topic, b"first")
    lab.write(topic, b"x" * 5_000)
    limit = len(batch(b"first")) + 100
    part = of_partitions(lab.at_leader(topic).ask(fetch({(topic, 0): Ask(0, max_bytes=limit)}), 11))[topic, 0]
    assert values(part) == [b"first"]
    assert len(part.records) == limit  # clients must put up with a batch that is not all there


def test_only_the_first_partition_with_data_may_go_beyond_max_bytes(lab: Lab) -> None:
    topic = lab.topic_led_by(1, 1, 1)
    for partition in (1, 2):
        lab.write(topic, b"x" * 5_000, partition=partition)
    asked = {(topic, index): Ask(0, max_bytes=10) for index in range(3)}
    parts = of_partitions(lab.broker(1).ask(fetch(asked), 11))
    assert [len(values(parts[topic, index])) for index in range(3)] == [0, 1, 0]
    assert [parts[topic, index].high_watermark for index in range(3)] == [0, 1, 1]
    asked = {(topic, index): Ask(0) for index in range(3)}
    parts = of_partitions(lab.broker(1).ask(fetch(asked, max_bytes=10), 11))
    assert [len(parts[topic, index].records or b"") for index in (0, 2)] == [0, 0]
    assert len(values(parts[topic, 1])) == 1


def test_max_bytes_is_for_all_partitions_together(lab: Lab) -> None:
    topic = lab.topic_led_by(1, 1, 1)
    for partition in range(3):
        lab.write(topic, b"x" * 1_000, partition=partition)
    size = len(batch(b"x" * 1_000))
    asked = {(topic, index): 0 for index in (2, 0, 1)}
    parts = of_partitions(lab.broker(1).ask(fetch(asked, max_bytes=2 * size + 10), 11))
    # In the order of the request; the last one gets what room is left, less than its batch needs: so nothing.
    assert [len(parts[topic, index].records or b"") for index in (2, 0, 1)] == [size, size, 0]


# -- where it begins ---------------------------------------------------------------------------------------------------


def test_reading_within_a_batch_brings_the_whole_batch(lab: Lab) -> None:
    topic = lab.topic()
    lab.write(topic, b"a", b"b", b"c")
    lab.write(topic, b"d")
    part = lab.read(topic, 1)
    assert offsets(part) == [0, 1, 2, 3]
    assert [each.base_offset for each in batches(part)] == [0, 3]


def test_the_end_is_no_error_and_what_is_beyond_is(lab: Lab) -> None:
    topic = lab.topic()
    lab.write(topic, b"a", b"b")
    end = lab.read(topic, 2)
    assert (end.error_code, values(end)) == (0, [])
    assert (end.high_watermark, end.last_stable_offset, end.log_start_offset) == (2, 2, 0)
    for offset in (3, 100, -1):
        part = lab.read(topic, offset)
        assert part.error_code == OffsetOutOfRangeError.errno, offset
        assert (part.high_watermark, part.last_stable_offset, part.log_start_offset) == (-1, -1, -1)
        assert not part.records


def test_offsets_and_epochs_are_the_leaders(lab: Lab) -> None:
    topic = lab.topic()
    assert lab.write(topic, b"a", b"b") == 0
    assert lab.write(topic, b"c") == 2
    first, second = batches(lab.read(topic))
    assert (first.base_offset, first.last_offset, second.base_offset) == (0, 1, 2)
    assert first.leader_epoch == lab.partitions(topic)[0].leader_epoch


def test_a_follower_serves_consumers_as_of_version_11_alone(lab: Lab) -> None:
    """KIP-392: an older consumer names no rack, so it cannot have been sent there."""
    topic = lab.topic()
    lab.write(topic, b"a")
    follower = lab.broker(lab.other_than(lab.leader(topic)))
    old = of_partitions(follower.ask(fetch({(topic, 0): 0}), 10))[topic, 0]
    assert old.error_code == NotLeaderForPartitionError.errno
    part = until(
        lambda: of_partitions(follower.ask(fetch({(topic, 0): 0}), 11))[topic, 0],
        lambda found: found.high_watermark == 1,
    )
    assert (part.error_code, values(part)) == (0, [b"a"])
    beyond = of_partitions(follower.ask(fetch({(topic, 0): 5}), 11))[topic, 0]
    assert beyond.error_code == OffsetOutOfRangeError.errno
