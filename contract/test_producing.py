"""Produce: what is refused, and why; sequences of idempotent producers."""

from __future__ import annotations

import struct

import pytest
from kafka.errors import (
    CoordinatorLoadInProgressError,
    CorruptRecordError,
    InvalidProducerEpochError,
    InvalidRecordError,
    InvalidRequiredAcksError,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumberError,
    UnknownTopicOrPartitionError,
)
from kafka.protocol.producer import InitProducerIdRequest
from kafka.record.util import calc_crc32c

from contract.lab import Lab, until
from contract.records import NOW_MS, batch, values
from contract.requests import of_partitions, produce

MAGIC_AT = 16
CRC_AT = 17
ATTRIBUTES_AT = 21
COUNT_AT = 57


def damaged(**changes: int) -> bytes:
    """A batch of one record with other bytes at some places, and a checksum that is right."""
    data = bytearray(batch(b"a"))
    if "count" in changes:
        struct.pack_into(">i", data, COUNT_AT, changes["count"])
    if "attributes" in changes:
        struct.pack_into(">h", data, ATTRIBUTES_AT, changes["attributes"])
    if "magic" in changes:
        data[MAGIC_AT] = changes["magic"]
    struct.pack_into(">I", data, CRC_AT, calc_crc32c(memoryview(data)[ATTRIBUTES_AT:]))
    return bytes(data)


def wrong_checksum() -> bytes:
    data = bytearray(batch(b"a"))
    data[CRC_AT] ^= 1
    return bytes(data)


REFUSED = {
    "wrong checksum": (wrong_checksum(), CorruptRecordError),
    "no records": (b"", InvalidRecordError),
    "two batches": (batch(b"a") + batch(b"b"), InvalidRecordError),
    "cut off": (batch(b"a")[:-1], InvalidRecordError),
    "old format": (damaged(magic=1), InvalidRecordError),
    "wrong count": (damaged(count=2), InvalidRecordError),
    "control batch": (damaged(attributes=0x20), InvalidRecordError),
    "too large": (batch(b"x" * 1_048_588), MessageSizeTooLargeError),
    "from the future": (batch(b"a", timestamps=[NOW_MS + 100_000_000]), InvalidTimestampError),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_bad_batch_is_refused_and_the_others_are_written(lab: Lab, what: str) -> None:
    data, error = REFUSED[what]
    topic = lab.topic_led_by(1, 1)
    parts = of_partitions(lab.broker(1).ask(produce({(topic, 0): data, (topic, 1): batch(b"good")}), 9))
    assert parts[topic, 0].error_code == error.errno
    assert parts[topic, 0].base_offset == -1
    assert (parts[topic, 1].error_code, parts[topic, 1].base_offset) == (0, 0)
    assert lab.read(topic).high_watermark == 0


def test_each_partition_is_answered_for_itself(lab: Lab) -> None:
    topic = lab.topic_led_by(1, 2)
    unknown = lab.name("unknown")
    records = {key: batch(b"a") for key in [(topic, 0), (topic, 1), (topic, 9), (unknown, 0)]}
    parts = of_partitions(lab.broker(1).ask(produce(records), 9))
    assert parts[topic, 0].error_code == 0
    assert parts[topic, 1].error_code == NotLeaderForPartitionError.errno
    assert parts[topic, 9].error_code == UnknownTopicOrPartitionError.errno
    assert parts[unknown, 0].error_code == UnknownTopicOrPartitionError.errno


def test_a_topic_may_allow_less(lab: Lab) -> None:
    topic = lab.topic(max_message_bytes="200")
    part = of_partitions(lab.at_leader(topic).ask(produce({(topic, 0): batch(b"x" * 300)}), 9))[topic, 0]
    assert part.error_code == MessageSizeTooLargeError.errno


def test_acks_are_all_or_one_or_none(lab: Lab) -> None:
    topic = lab.topic()
    for acks, error_code in [(-1, 0), (1, 0), (2, InvalidRequiredAcksError.errno)]:
        part = of_partitions(lab.at_leader(topic).ask(produce({(topic, 0): batch(b"a")}, acks=acks), 9))[topic, 0]
        assert part.error_code == error_code, acks


@pytest.mark.parametrize("version", [3, 5, 8, 9, 11])
def test_every_version_writes(lab: Lab, version: int) -> None:
    topic = lab.topic()
    part = of_partitions(lab.at_leader(topic).ask(produce({(topic, 0): batch(b"a", b"b")}), version))[topic, 0]
    assert (part.error_code, part.base_offset, part.log_append_time_ms) == (0, 0, -1)
    assert values(lab.read(topic)) == [b"a", b"b"]


# -- idempotent producers ----------------------------------------------------------------------------------------------


class Producer:
    """An idempotent producer that chooses its sequence numbers itself."""

    def __init__(self, lab: Lab, topic: str) -> None:
        request = InitProducerIdRequest(
            transactional_id=None, transaction_timeout_ms=0, producer_id=-1, producer_epoch=-1
        )
        # The first one of a broker must wait until it has been given numbers.
        response = until(
            lambda: lab.any.ask(request, 4),
            lambda answer: answer.error_code != CoordinatorLoadInProgressError.errno,
        )
        assert (response.error_code, response.producer_epoch) == (0, 0)
        self.id = int(response.producer_id)
        self._lab = lab
        self._topic = topic

    def write(self, sequence: int, count: int = 1, epoch: int = 0) -> tuple[int, int]:
        """Error code and first offset of a batch."""
        records = batch(*[b"%d" % sequence] * count, producer=(self.id, epoch), sequence=sequence)
        response = self._lab.at_leader(self._topic).ask(produce({(self._topic, 0): records}), 9)
        part = of_partitions(response)[self._topic, 0]
        return part.error_code, part.base_offset


@pytest.fixture
def producer(lab: Lab) -> Producer:
    return Producer(lab, lab.topic())


def test_every_producer_has_an_id_of_its_own(lab: Lab) -> None:
    assert len({Producer(lab, "").id for _ in range(5)}) == 5


def test_a_repeated_batch_is_answered_as_before_and_not_written(lab: Lab, producer: Producer) -> None:
    assert producer.write(0, count=3) == (0, 0)
    assert producer.write(3) == (0, 3)
    assert producer.write(0, count=3) == (0, 0)
    assert producer.write(3) == (0, 3)
    assert producer.write(4) == (0, 4)


def test_the_last_five_batches_are_remembered(producer: Producer) -> None:
    for sequence in range(6):
        assert producer.write(sequence) == (0, sequence)
    assert producer.write(1) == (0, 1)
    assert producer.write(0)[0] == OutOfOrderSequenceNumberError.errno


def test_a_gap_is_refused(producer: Producer) -> None:
    assert producer.write(0) == (0, 0)
    assert producer.write(2) == (OutOfOrderSequenceNumberError.errno, -1)
    assert producer.write(1) == (0, 1)


def test_a_part_of_a_batch_is_no_repetition(producer: Producer) -> None:
    assert producer.write(0, count=3) == (0, 0)
    assert producer.write(0, count=2)[0] == OutOfOrderSequenceNumberError.errno


def test_a_producer_that_the_partition_does_not_know_may_begin_anywhere(producer: Producer) -> None:
    """Its earlier batches may have been deleted."""
    assert producer.write(5) == (0, 0)
    assert producer.write(6) == (0, 1)


def test_a_new_epoch_begins_at_zero_and_ends_the_old_one(producer: Producer) -> None:
    assert producer.write(0) == (0, 0)
    assert producer.write(1, epoch=1)[0] == OutOfOrderSequenceNumberError.errno
    assert producer.write(0, epoch=1) == (0, 1)
    assert producer.write(1, epoch=0)[0] == InvalidProducerEpochError.errno
    assert producer.write(1, epoch=1) == (0, 2)


def test_producers_do_not_meet(lab: Lab) -> None:
    topic = lab.topic()
    one, two = Producer(lab, topic), Producer(lab, topic)
    assert [one.write(0), two.write(0), one.write(1), two.write(1)] == [(0, 0), (0, 1), (0, 2), (0, 3)]
