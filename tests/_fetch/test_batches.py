"""Reading record batches' headers against batches that kafka-python itself builds."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from kafka.record import MemoryRecords, MemoryRecordsBuilder

from pooledkafka._fetch.batches import End, end_of


def records(values: list[bytes], magic: int = 2, compression: int = 0) -> bytes:
    builder = MemoryRecordsBuilder(magic=magic, compression_type=compression, batch_size=1_000_000)
    for value in values:
        builder.append(timestamp=1_000, key=None, value=value, headers=[])
    builder.close()
    return bytes(builder.buffer())


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=20), st.sampled_from([0, 1]))
def test_the_end_is_what_kafka_python_reads_to(values: list[bytes], compression: int) -> None:
    data = records(values, compression=compression)
    batch = MemoryRecords(data).next_batch()
    assert end_of(data) == End(batch.next_offset, batch.leader_epoch, len(data))


@pytest.mark.parametrize("magic", [0, 1])
def test_the_older_formats_have_no_epoch(magic: int) -> None:
    data = records([b"a", b"b", b"c"], magic=magic)
    assert end_of(data) == End(3, -1, len(data))


@given(st.integers(0, 200))
def test_a_batch_that_was_cut_off_does_not_count(cut: int) -> None:
    whole = records([b"one", b"two"])
    both = whole + whole
    end = end_of(both[: max(0, len(both) - cut)])
    assert (end is not None) == (cut <= len(whole))


def test_nothing_has_no_end() -> None:
    assert end_of(b"") is None
    assert end_of(b"\0" * 100) is None
