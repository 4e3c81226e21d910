"""Record batches: what a broker takes, and what it makes of them."""

from __future__ import annotations

import struct

import pytest
from kafka.errors import (
    BrokerResponseError,
    CorruptRecordError,
    InvalidRecordError,
    InvalidTimestampError,
    MessageSizeTooLargeError,
)
from kafka.record.default_records import DefaultRecordBatch

from pooledkafka.testing._embedded.batches import control_batch, only_batch, parsed
from tests.testing._embedded.records import encoded, of_producer, signed

ATTRIBUTES_AT = DefaultRecordBatch.ATTRIBUTES_OFFSET
COUNT_AT = DefaultRecordBatch.HEADER_STRUCT.size - 4
LENGTH_AT = 8
LATER = 2_000


def changed(data: bytes, kind: str, position: int, value: int) -> bytearray:
    result = bytearray(data)
    struct.pack_into(">" + kind, result, position, value)
    return result


def test_a_batch_is_what_its_header_says() -> None:
    data = encoded(b"a", b"b", b"c", producer=(7, 2), sequence=40, transactional=True, timestamp=1_234)
    batch = only_batch(data)
    batch.check(len(data), LATER)
    assert (batch.base_offset, batch.last_offset, batch.records, batch.size) == (0, 2, 3, len(data))
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence, batch.last_sequence) == (7, 2, 40, 42)
    assert (batch.max_timestamp, batch.is_transactional, batch.is_control, batch.compression) == (1_234, True, False, 0)


def test_moving_a_batch_leaves_its_records_and_checksum_alone() -> None:
    batch = only_batch(encoded(b"a", b"b")).at(100, 5)
    assert (batch.base_offset, batch.last_offset, batch.leader_epoch) == (100, 101, 5)
    stored = DefaultRecordBatch(batch.data)
    assert stored.validate_crc()
    assert (stored.base_offset, stored.leader_epoch) == (100, 5)
    assert [(record.offset, record.value) for record in stored] == [(100, b"a"), (101, b"b")]


@pytest.mark.parametrize(
    ("base", "records", "last"), [(0, 1, 0), (2**31 - 1, 1, 2**31 - 1), (2**31 - 1, 2, 0), (2**31 - 2, 4, 1)]
)
def test_sequence_numbers_begin_again_after_the_largest(base: int, records: int, last: int) -> None:
    assert of_producer((1, 0), base, records).last_sequence == last


@pytest.mark.parametrize("compression", [1, 2, 3], ids=["gzip", "snappy", "lz4"])
def test_compressed_batches_stay_as_they_are(compression: int) -> None:
    data = encoded(b"value" * 100, b"value" * 100, compression=compression)
    batch = only_batch(data)
    batch.check(len(data), LATER)
    assert (batch.compression, batch.data, batch.records) == (compression, data, 2)
    assert batch.at(10, 0).first_at_or_after(0) == (10, 1_000)


def test_batches_lie_one_after_the_other_and_a_cut_one_does_not_count() -> None:
    first, second = encoded(b"a"), encoded(b"b", b"c")
    assert [batch.records for batch in parsed(first + second)] == [1, 2]
    assert [batch.records for batch in parsed(first + second[:-1])] == [1]
    assert [batch.records for batch in parsed(first + second[:10])] == [1]
    assert list(parsed(b"")) == []


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", InvalidRecordError),
        (encoded(b"a")[:-1], InvalidRecordError),
        (encoded(b"a") + encoded(b"b"), InvalidRecordError),
        (bytes(changed(encoded(b"a"), "b", 16, 1)), InvalidRecordError),
        (bytes(changed(encoded(b"a"), "b", 16, 3)), CorruptRecordError),
        (bytes(changed(encoded(b"a"), "b", 16, -1)), CorruptRecordError),
        (bytes(changed(encoded(b"a"), "i", LENGTH_AT, 13)), CorruptRecordError),
        (bytes(changed(encoded(b"a"), "i", LENGTH_AT, -5)), CorruptRecordError),
        (bytes(changed(encoded(b"a"), "i", LENGTH_AT, 20)), CorruptRecordError),
    ],
    ids=["none", "cut", "two", "old", "future", "negative magic", "short", "negative", "less than a header"],
)
def test_what_is_not_one_batch_is_refused(data: bytes, error: type[BrokerResponseError]) -> None:
    with pytest.raises(error):
        only_batch(data)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (changed(encoded(b"a"), "q", 0, 1), InvalidRecordError),
        (changed(encoded(b"a"), "b", len(encoded(b"a")) - 2, 9), CorruptRecordError),
        (signed(changed(encoded(b"a"), "i", COUNT_AT, 2)), InvalidRecordError),
        (signed(changed(encoded(b"a"), "i", COUNT_AT, 0)), InvalidRecordError),
        (signed(changed(encoded(b"a"), "i", ATTRIBUTES_AT + 2, -1)), InvalidRecordError),
        (control_batch(1, 0, True, 1_000, 0).data, InvalidRecordError),
        (encoded(b"a", producer=(1, 0), sequence=-1), InvalidRecordError),
        (signed(changed(encoded(b"a"), "h", ATTRIBUTES_AT, 8)), InvalidTimestampError),
        (encoded(b"a", timestamp=LATER + 1), InvalidTimestampError),
        (encoded(b"a" * 200), MessageSizeTooLargeError),
    ],
    ids=[
        "base offset",
        "checksum",
        "count",
        "no records",
        "offsets",
        "control",
        "no sequence",
        "log append time",
        "future",
        "size",
    ],
)
def test_what_no_client_may_write_is_refused(data: bytes, error: type[BrokerResponseError]) -> None:
    batch = only_batch(bytes(data))
    with pytest.raises(error):
        batch.check(200, LATER)


def test_the_first_record_that_is_new_enough() -> None:
    batch = only_batch(encoded(b"a", b"b", timestamp=500)).at(10, 0)
    assert batch.first_at_or_after(500) == (10, 500)
    assert batch.first_at_or_after(501) is None


def test_records_that_cannot_be_read_are_said_to_be_corrupt() -> None:
    data = bytearray(encoded(b"value" * 100, compression=1))
    data[-20:] = bytes(20)
    with pytest.raises(CorruptRecordError):
        only_batch(signed(data)).first_at_or_after(0)


@pytest.mark.parametrize("commits", [True, False])
def test_a_marker_is_what_clients_understand(commits: bool) -> None:
    marker = control_batch(7, 3, commits, 1_234, 9)
    assert (marker.is_control, marker.is_transactional, marker.commits) == (True, True, commits)
    assert (marker.producer_id, marker.producer_epoch, marker.base_sequence) == (7, 3, -1)
    stored = DefaultRecordBatch(marker.data)
    assert stored.validate_crc()
    (record,) = stored
    assert (record.commit, record.abort) == (commits, not commits)
    assert struct.unpack(">hi", record.value) == (0, 9)
