"""What a consumer takes of an answer is what kafka-python's own decoder would give it."""

from __future__ import annotations

import struct
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, pairwise
from struct import pack_into
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import FetchResponse, IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBase, DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.util import calc_crc32c
from kafka.serializer import Deserializer
from kafka.structs import TopicPartition

from pooledkafka._records import decode
from pooledkafka._wire import partition_records, record_batch
from pooledkafka._wire.decoded import DecodedBatches
from pooledkafka._wire.deserializing import Deserializing
from pooledkafka._wire.partition_records import PartitionRecords, SharedRecords
from pooledkafka._wire.record_batch import RecordBatch

PARTITION = TopicPartition("orders", 3)
Aborted = FetchResponse.FetchableTopicResponse.PartitionData.AbortedTransaction


class Written(NamedTuple):
    """A batch in a log."""

    data: bytes
    offset: int
    following: int


def batch(
    offset: int,
    records: list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]],
    *,
    codec: int = 0,
    producer_id: int = -1,
    transactional: bool = False,
    control: bool = False,
    append_time: bool = False,
    compacted: int = 0,
    epoch: int = 5,
) -> Written:
    """A batch of format v2, as a broker keeps it; ``compacted`` records at its end are gone."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=transactional,
        producer_id=producer_id,
        producer_epoch=0 if producer_id >= 0 else -1,
        base_sequence=0 if producer_id >= 0 else -1,
        batch_size=1 << 30,
    )
    for delta, (timestamp, key, value, headers) in enumerate(records):
        builder.append(delta, timestamp, key, value, headers)
    data = bytearray(builder.build())
    header = list(DefaultRecordBase.HEADER_STRUCT.unpack_from(data))
    header[0] = offset
    header[2] = epoch
    header[5] |= (DefaultRecordBase.CONTROL_MASK if control else 0) | (
        DefaultRecordBase.TIMESTAMP_TYPE_MASK if append_time else 0
    )
    header[6] += compacted
    DefaultRecordBase.HEADER_STRUCT.pack_into(data, 0, *header)
    return sealed(data, offset, offset + header[6] + 1)


def sealed(data: bytearray, offset: int, following: int) -> Written:
    struct.pack_into(">I", data, DefaultRecordBase.CRC_OFFSET, calc_crc32c(memoryview(data)[21:]))
    return Written(bytes(data), offset, following)


def marker(offset: int, producer_id: int, *, abort: bool) -> Written:
    key = struct.pack(">hh", 0, 0 if abort else 1)
    return batch(offset, [(1, key, b"\0" * 6, [])], producer_id=producer_id, transactional=True, control=True)


def legacy(offset: int, magic: int, values: list[bytes], codec: int = 0) -> Written:
    builder = LegacyRecordBatchBuilder(magic=magic, compression_type=codec, batch_size=1 << 20)
    for delta, value in enumerate(values):
        builder.append(delta if codec and magic else offset + delta, 1_000, None, value)
    data = bytearray(builder.build())
    if codec:
        struct.pack_into(">q", data, 0, offset + len(values) - 1)
    return Written(bytes(data), offset, offset + len(values))


def read(
    of: Callable[..., Any], data: Any, offset: int, sizes: Sequence[int | None], aborted: list[Any], **options: Any
) -> tuple[Any, ...]:
    """Take it piece by piece; what came, up to the first error, and where the consumer is then."""
    part = of(offset, PARTITION, data, aborted_transactions=aborted, **options)
    taken: list[Any] = []
    for size in cycle(sizes):
        if not part:
            return taken, part.next_fetch_offset, part.leader_epoch, part.records_read, part.bytes_read, None
        try:
            taken += part.take(size)
        except Exception as error:
            return taken, part.next_fetch_offset, part.leader_epoch, part.records_read, None, type(error)
    raise AssertionError("sizes were empty")


def pooled(decoded: DecodedBatches | None = None) -> Callable[..., Any]:
    kept = decoded or DecodedBatches(1 << 20)
    return lambda *args, **kwargs: PartitionRecords(kept, Deserializing(None, None), *args, **kwargs)


def shared(*parts: bytes, readers: int = 2) -> Any:
    return MemoryRecords(SharedRecords(list(parts), readers))


def places(kept: DecodedBatches) -> list[int]:
    """The offsets of the batches for which others are to come."""
    return [int.from_bytes(key[1][:8], "big") for key in kept._places]  # type: ignore[index]


content = (
    st.none() | st.binary(max_size=12) | st.binary(min_size=60, max_size=70) | st.binary(min_size=8190, max_size=8200)
)
records = st.lists(
    st.tuples(
        st.integers(0, 1 << 45) | st.integers(1_700_000_000_000, 1_700_000_010_000),
        content,
        content,
        st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=70)), max_size=3),
    ),
    min_size=1,
    max_size=6,
)


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Written], list[Any]]:
    """Batches of several producers, with and without transactions, and the transactions that were aborted."""
    log: list[Written] = []
    aborted: list[Any] = []
    open_since: dict[int, int] = {}
    offset = draw(st.integers(0, 1 << 40) | st.integers(500, 515))
    for kind in draw(st.lists(st.sampled_from(["plain", "plain", "transactional", "end", "legacy"]), max_size=8)):
        if kind == "plain":
            made = batch(
                offset,
                draw(records),
                codec=draw(st.integers(0, 4)),
                append_time=draw(st.sampled_from([False, False, False, True])),
                compacted=draw(st.sampled_from([0, 0, 0, 2])),
                epoch=draw(st.sampled_from([5, 5, 5, 6])),
            )
        elif kind == "transactional":
            producer = draw(st.integers(0, 1))
            open_since.setdefault(producer, offset)
            made = batch(offset, draw(records), producer_id=producer, transactional=True)
        elif kind == "end":
            producer, abort = draw(st.integers(0, 1)), draw(st.booleans())
            first = open_since.pop(producer, None)
            if abort and first is not None:
                aborted.append(Aborted(producer_id=producer, first_offset=first))
            made = marker(offset, producer, abort=abort)
        else:
            values = draw(st.lists(st.binary(max_size=20), min_size=1, max_size=3))
            made = legacy(offset, draw(st.integers(0, 1)), values, codec=draw(st.sampled_from([0, 1])))
        log.append(made)
        offset = made.following + draw(st.sampled_from([0, 0, 3]))  # compaction leaves gaps
    return log, aborted


@settings(max_examples=300, deadline=None)
@given(
    log=logs(),
    first=st.integers(0, 7),
    within=st.integers(0, 4),
    sizes=st.lists(st.integers(1, 4) | st.none(), min_size=1, max_size=3),
    isolation=st.sampled_from([IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED]),
    cut=st.integers(0, 30),
    split=st.integers(0, 8),
)
def test_takes_what_kafka_python_takes(
    log: tuple[list[Written], list[Any]], first: int, within: int, sizes: Any, isolation: Any, cut: int, split: int
) -> None:
    batches, aborted = log
    batches = batches[min(first, len(batches)) :]
    data = b"".join(written.data for written in batches)
    data = data[: len(data) - cut]
    offset = batches[0].offset + within if batches else 0
    offset = min(offset, batches[0].following - 1) if batches else 0
    make = pooled()
    stock = read(Fetcher.PartitionRecords, MemoryRecords(data), offset, sizes, aborted, isolation_level=isolation)
    # Alone; as the first of several, for whom it decodes; as one of the others; and as one answered in two portions.
    at = sum(len(written.data) for written in batches[:split])
    portions = [portion for portion in (data[:at], data[at:]) if portion]
    others = shared(data, readers=9), shared(data, readers=9), shared(*portions, readers=9), shared(data, readers=9)
    for records in (MemoryRecords(data), *others):
        ours = read(make, records, offset, sizes, aborted, isolation_level=isolation)
        assert ours[0] == stock[0]
        assert all(type(record) is ConsumerRecord for record in ours[0])
        assert ours[1] == max(stock[1], offset)
        assert ours[2] == stock[2]
        if batches and offset == batches[0].offset:  # kafka-python also counts what lies before the offset asked for
            assert ours[3:] == stock[3:]


def is_covered(data: bytes, at: int) -> bool:
    """Whether a checksum of messages of an older format covers a byte; not so their offsets, lengths and formats."""
    start = 0
    while (end := start + 12 + int.from_bytes(data[start + 8 : start + 12], "big")) <= at:
        start = end
    return at - start >= 12 and at - start != 16


@settings(max_examples=200, deadline=None)
@given(
    log=logs(),
    where=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    resealed=st.booleans(),
    checked=st.booleans(),
)
def test_meets_what_is_corrupt(
    log: tuple[list[Written], list[Any]], where: float, bit: int, resealed: bool, checked: bool
) -> None:
    batches, aborted = log
    if not batches:
        return
    position = int(where * len(batches))
    broken = bytearray(batches[position].data)
    at = DefaultRecordBase.HEADER_STRUCT.size + int(where * (len(broken) - DefaultRecordBase.HEADER_STRUCT.size))
    if at >= len(broken):
        return  # a small batch of an older format
    broken[at] ^= 1 << bit
    covered = broken[16] == 2 or is_covered(batches[position].data, at)
    if resealed and broken[16] == 2:  # what no checksum tells
        broken = bytearray(sealed(broken, 0, 0).data)
    data = b"".join(
        [*(each.data for each in batches[:position]), broken, *(each.data for each in batches[position + 1 :])]
    )
    case = batches[0].offset, [None], aborted
    ours = read(pooled(), MemoryRecords(data), *case, check_crcs=checked)
    if checked and not resealed and covered:
        stock = read(Fetcher.PartitionRecords, MemoryRecords(data), *case)
        assert ours[0] == stock[0]
        assert ours[5] == stock[5]
    else:  # no broker keeps what is broken within its checksum, or beside it; records or an error must come of it
        assert ours[5] is None or issubclass(ours[5], Exception)


def test_a_record_that_cannot_be_deserialized_is_met_again_until_the_consumer_goes_past_it() -> None:
    class Picky(Deserializer):  # type: ignore[misc]
        def deserialize(self, topic: str, headers: Any, data: bytes) -> str:
            return data.decode()

    data = batch(7, [(0, None, value, []) for value in (b"one", b"\xff", b"three")]).data
    make = pooled()
    part = make(7, PARTITION, MemoryRecords(data), value_deserializer=Picky())
    assert [record.value for record in part.take(5)] == ["one"]
    for _ in range(3):
        with pytest.raises(UnicodeDecodeError):
            part.take(5)
        assert part.next_fetch_offset == 8
    past = make(9, PARTITION, MemoryRecords(data), value_deserializer=Picky())
    assert [record.value for record in past.take()] == ["three"]


def test_a_broken_batch_is_met_again() -> None:
    data = batch(7, [(0, None, b"one", [])]).data + batch(8, [(0, None, b"two", [])]).data[:-3] + b"xyz"
    part = pooled()(7, PARTITION, MemoryRecords(data))
    assert [record.value for record in part.take(5)] == [b"one"]
    for _ in range(3):
        with pytest.raises(CorruptRecordError, match="at offset 8 failed crc check"):
            part.take(5)


def test_answers_that_follow_each_other_are_read_as_one() -> None:
    parts = [batch(offset, [(0, None, b"%d" % offset, [])]).data for offset in range(5)]
    part = pooled()(1, PARTITION, shared(parts[0] + parts[1], parts[2], parts[3] + parts[4]))
    assert [record.value for record in [*part.take(1), *part.take(2), *part.take()]] == [b"1", b"2", b"3", b"4"]
    assert part.next_fetch_offset == 5


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets of the batches that were decoded."""
    decoded: list[int] = []

    def counting(*args: Any) -> Any:
        decoded.append(args[4])
        return decode(*args)

    monkeypatch.setattr(record_batch, "decode", counting)
    return decoded


def test_a_batch_is_decoded_once_for_all_and_what_one_does_to_its_headers_is_nothing_to_the_others(
    decodings: list[int],
) -> None:
    data = b"".join(batch(offset, [(0, None, b"x", [("h", b"1")])]).data for offset in range(3))
    make = pooled()
    for _ in range(8):
        # Bytes of their own, as those who are sent the same again have.
        records = make(0, PARTITION, shared(bytes(bytearray(data)), readers=8)).take()
        assert [record.headers for record in records] == [[("h", b"1")]] * 3
        records[0].headers.append(("mine", b"2"))
    assert decodings == [0, 1, 2]


def test_records_without_headers_are_made_once_for_all() -> None:
    data = batch(7, [(1, b"k", b"one", []), (2, None, None, []), (3, b"", b"three", [])]).data
    make = pooled()
    first, second = (make(7, PARTITION, shared(data)).take() for _ in range(2))
    assert first == read(Fetcher.PartitionRecords, MemoryRecords(data), 7, [None], [])[0]
    assert all(one is other for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("readers", [2, 3, 8])
def test_a_batch_is_kept_until_all_have_had_it(readers: int, decodings: list[int]) -> None:
    kept = DecodedBatches(1 << 20)
    make = pooled(kept)
    data = batch(7, [(0, None, b"x", [])]).data
    for number in range(readers):
        assert bool(kept._places) == (number > 0)
        make(7, PARTITION, shared(data, readers=readers)).take()
    assert not kept._places
    assert kept._used == 0
    make(7, PARTITION, shared(data, readers=readers)).take()
    assert decodings == [7, 7], "one that comes later decodes it anew"


def test_nothing_is_kept_where_one_reads(decodings: list[int]) -> None:
    kept = DecodedBatches(1 << 20)
    data = batch(7, [(0, None, b"x", [])]).data
    for records in (MemoryRecords(data), shared(data, readers=1)):
        pooled(kept)(7, PARTITION, records).take()
        assert not kept._places
    assert decodings == [7, 7]


def test_what_is_alike_but_in_one_thing_is_not_taken_for_the_same(decodings: list[int]) -> None:
    make = pooled()
    data = batch(7, [(0, None, b"x", [])]).data
    make(7, PARTITION, shared(data)).take()
    make(7, TopicPartition("orders", 4), shared(data)).take()
    make(7, PARTITION, shared(batch(7, [(0, None, b"y", [])]).data)).take()
    make(7, PARTITION, shared(batch(7, [(0, None, b"x", [])], epoch=6).data)).take()
    assert decodings == [7] * 4


def test_one_that_reads_what_is_committed_passes_over_what_another_one_has_decoded(decodings: list[int]) -> None:
    make = pooled()
    aborted = batch(0, [(0, None, b"no", [])], producer_id=1, transactional=True)
    data = aborted.data + marker(1, 1, abort=True).data + batch(2, [(0, None, b"yes", [])]).data
    assert [record.value for record in make(0, PARTITION, shared(data)).take()] == [b"no", b"yes"]
    careful = make(
        0,
        PARTITION,
        shared(data),
        isolation_level=IsolationLevel.READ_COMMITTED,
        aborted_transactions=[Aborted(producer_id=1, first_offset=0)],
    )
    assert [record.value for record in careful.take()] == [b"yes"]
    assert decodings == [0, 2, 1], "the marker, for which only this one cares"


def test_what_is_kept_is_bounded() -> None:
    kept = DecodedBatches(limit=100_000)
    for offset in range(50):
        data = batch(offset * 10, [(0, None, b"x" * 1000, [])] * 10).data
        pooled(kept)(offset * 10, PARTITION, shared(data)).take()
        assert kept._used <= 100_000
        assert kept._used == sum(cost for _, cost in kept._kept.values())
        assert len(kept._places) < 100
    assert len(kept._kept) > 1


def test_what_nobody_comes_for_is_kept_over_one_sweep_and_not_over_two() -> None:
    kept = DecodedBatches(1 << 20)
    for offset in (7, 8):
        pooled(kept)(offset, PARTITION, shared(batch(offset, [(0, None, b"x", [])]).data)).take()
        kept.sweep()
    assert places(kept) == [8]
    kept.sweep()
    assert (kept._used, kept._places) == (0, {})
    pooled(kept)(7, PARTITION, shared(batch(7, [(0, None, b"x", [])]).data)).take()
    with kept._lock:
        kept.sweep(all_of_it=True)  # it waits for nobody
    assert kept._places
    kept.sweep(all_of_it=True)
    assert (kept._used, kept._places) == (0, {})


@pytest.mark.parametrize("checked", [True, False], ids=["who wants it checked", "who does not"])
def test_what_was_made_of_corrupt_bytes_is_for_nobody_else(checked: bool) -> None:
    """It may be readable: only who has these very bytes and wants no check gets that."""
    good = batch(7, [(0, None, b"good", [])]).data
    make = pooled()
    bad = make(7, PARTITION, shared(good.replace(b"good", b"evil")), check_crcs=False)
    assert [record.value for record in bad.take()] == [b"evil"]
    assert [record.value for record in make(7, PARTITION, shared(good), check_crcs=checked).take()] == [b"good"]


@pytest.mark.parametrize("readers", [1, 2])
def test_an_interrupt_between_two_steps_leaves_nothing_out(readers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whichever line it comes: either the consumer is where it was, or all is fetched again from there."""
    data = b"".join(batch(offset, [(0, None, b"%d" % at, []) for at in range(3)]).data for offset in (7, 10))
    lines = 0
    while True:
        part = pooled()(8, PARTITION, shared(data, readers=readers))
        left = lines

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename == partition_records.__file__:
                left -= event == "line"
                if left < 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        try:
            sys.settrace(trace)
            part.take()
        except KeyboardInterrupt:
            assert not part or part.next_fetch_offset == 8
        else:
            break  # it has gone through all lines
        finally:
            sys.settrace(before)
        lines += 1
    assert lines > 50


def test_what_does_not_fit_is_not_kept_but_had(decodings: list[int]) -> None:
    kept = DecodedBatches(limit=100)
    data = batch(7, [(0, None, b"x", [])]).data
    for _ in range(2):
        assert [record.value for record in pooled(kept)(7, PARTITION, shared(data)).take()] == [b"x"]
        assert (kept._used, kept._kept, kept._places) == (0, {}, {})
    assert decodings == [7, 7]


def test_what_there_was_no_room_for_is_kept_for_those_who_have_not_had_it(decodings: list[int]) -> None:
    """For all, it would wait for some that do not come, in the place of what others do come for."""
    logs = [batch(offset, [(0, None, b"x" * 3000, [])]).data for offset in (512, 1024, 1536)]
    kept = DecodedBatches(limit=11_000)

    def reads(log: int) -> None:
        assert len(pooled(kept)(512 * (log + 1), PARTITION, shared(logs[log], readers=3)).take()) == 1

    for log in (0, 1, 2):  # one is ahead of the two others: there is room for what it read last
        reads(log)
    assert decodings == [512, 1024, 1536]
    reads(0)
    assert decodings == [512, 1024, 1536, 512]
    reads(0)
    assert decodings == [512, 1024, 1536, 512], "it was kept for the third"
    assert places(kept) == [1024, 1536]
    for log in (1, 1, 2, 2):
        reads(log)
    assert decodings == [512, 1024, 1536, 512, 1024]
    assert (kept._used, kept._kept, kept._places) == (0, {}, {})


def test_small_batches_are_decoded_together_up_to_where_the_log_says(decodings: list[int]) -> None:
    """So that who has been answered in other portions finds them: 100 records each, up to a multiple of 512."""
    log = [batch(offset, [(0, b"k", b"v", [])] * 100).data for offset in range(0, 1200, 100)]
    kept = DecodedBatches(1 << 20)
    first = pooled(kept)(0, PARTITION, shared(b"".join(log), readers=3))
    assert [record.offset for record in first.take(1)] == [0]
    assert decodings == [0, 100, 200, 300, 400, 500]
    second = pooled(kept)(250, PARTITION, shared(b"".join(log[2:]), readers=3))
    assert [record.offset for record in second.take()] == [*range(250, 1200)]
    assert decodings[6:] == [200, 300, 400, 500, 600, 700, 800, 900, 1000, 1100]
    assert [record.offset for record in first.take()] == [*range(1, 1200)]
    third = pooled(kept)(0, PARTITION, shared(log[0], b"".join(log[1:]), readers=3))
    assert [record.offset for record in third.take()] == [*range(1200)]
    assert decodings[16:] == [100, 200, 300, 400, 500], "what it was answered apart"


def test_what_was_cut_off_is_not_taken_before_it_comes() -> None:
    log = [batch(offset, [(0, b"k", b"v", [])] * 100).data for offset in range(0, 300, 100)]
    make = pooled()
    whole = make(0, PARTITION, shared(log[0] + log[1], readers=3)).take()
    assert [record.offset for record in whole] == [*range(200)]
    cut_off = make(0, PARTITION, shared(log[0] + log[1][:-5], log[1] + log[2], readers=3)).take()
    assert [record.offset for record in cut_off] == [*range(300)]
    cut_off = make(0, PARTITION, shared(log[0][:-5], log[0] + log[1], readers=3)).take()
    assert [record.offset for record in cut_off] == [*range(200)]


def test_of_what_was_decoded_together_each_counts_what_lies_in_its_own_answer() -> None:
    log = [batch(0, [(0, None, b"a", [])]).data, batch(1, [(0, None, b"b" * 50, [])] * 3).data]
    stock = read(Fetcher.PartitionRecords, MemoryRecords(b"".join(log)), 0, [None], [])
    make = pooled()
    for portions in ([b"".join(log)], log):
        assert read(make, shared(*portions, readers=3), 0, [None], []) == stock


@pytest.mark.parametrize(("codec", "size"), [(0, 4_000), (DefaultRecordBase.CODEC_GZIP, 100_000)])
def test_large_batches_are_not_decoded_together(decodings: list[int], codec: int, size: int) -> None:
    """All of a window would be more than there is room for, and a poll for one record would wait for all of them."""
    data = b"".join(batch(offset, [(0, None, b"v" * size, [])], codec=codec).data for offset in range(256))
    kept = DecodedBatches(1 << 20)
    part = pooled(kept)(0, PARTITION, shared(data))
    part.take(1)
    assert 1 < len(decodings) * size < 250_000
    assert len(part.take()) == 255
    assert len(decodings) == 256


def test_records_between_which_portions_begin_are_decoded_a_few_times_more(decodings: list[int]) -> None:
    """Consumers who read in portions that begin elsewhere find the same after the first few of a portion."""
    log = [batch(offset, [(0, None, b"v" * 1_000, [])]).data for offset in range(2_000)]
    make = pooled(DecodedBatches(1 << 24))
    for reader in range(8):
        starts = [0, *range(97 * reader + 50, 2_000, 500), 2_000]
        portions = [b"".join(log[begin:end]) for begin, end in pairwise(starts)]
        assert len(make(0, PARTITION, shared(*portions, readers=8)).take()) == 2_000
    assert len(decodings) < 2_000 * 2


@pytest.mark.parametrize("what", ["epoch", "append_time", "compacted", "transactional"])
def test_what_sets_a_batch_apart_is_not_decoded_together(what: str) -> None:
    kept = DecodedBatches(1 << 20)
    other = {"epoch": 6, "append_time": True, "compacted": 1, "transactional": True}[what]
    begin = batch(0, [(0, None, b"a", [])])
    between = batch(1, [(0, None, b"b", [])], **{what: other})  # type: ignore[arg-type]
    end = batch(between.following, [(0, None, b"c", [])])
    taken = pooled(kept)(0, PARTITION, shared(begin.data + between.data + end.data)).take()
    assert [record.value for record in taken] == [b"a", b"b", b"c"]
    assert places(kept) == ([0, end.offset] if what == "compacted" else [0, 1, end.offset])


def test_batches_out_of_order_are_not_decoded_together() -> None:
    """No checksum covers their offsets."""
    kept = DecodedBatches(1 << 20)
    data = b"".join(batch(offset, [(0, None, b"a", [])]).data for offset in (5, 4))
    assert [record.offset for record in pooled(kept)(5, PARTITION, shared(data)).take()] == [5]
    assert len(kept._places) == 2


def test_what_was_written_anew_after_the_same_batch_is_not_taken_for_what_was_there() -> None:
    """A leader that was not in sync may bring that about."""
    begin, *others = (batch(offset, [(0, None, value, [])]).data for offset, value in ((7, b"a"), (8, b"b"), (8, b"c")))
    make = pooled()
    for other, value in zip(others, (b"b", b"c"), strict=True):
        taken = make(7, PARTITION, shared(begin + other, readers=3)).take()
        assert [record.value for record in taken] == [b"a", value]


def test_threads_wait_for_the_one_that_decodes() -> None:
    kept = DecodedBatches(limit=100_000)
    data = batch(0, [(0, None, b"x", [])]).data
    entered, go_on, calls = threading.Event(), threading.Event(), []

    def slow() -> RecordBatch:
        calls.append(threading.get_ident())
        entered.set()
        assert go_on.wait(10)
        found = RecordBatch(PARTITION, data, 0)
        found.decode(data, 0)
        return found

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(kept.batch, 0, 4, slow)
        assert entered.wait(10)
        others = [threads.submit(kept.batch, 0, 4, slow) for _ in range(3)]
        go_on.set()
        assert all(other.result(10) is first.result(10) for other in others)
    assert len(calls) == 1
    assert not kept._places


def test_where_one_cannot_decode_the_next_one_tries() -> None:
    broken = batch(8, [(0, None, b"two", [])]).data[:-3] + b"xyz"
    kept = DecodedBatches(1 << 20)
    make = pooled(kept)
    for _ in range(2):
        with pytest.raises(CorruptRecordError, match="at offset 8 failed crc check"):
            make(8, PARTITION, shared(broken)).take()
    assert not kept._places
    whole = batch(8, [(0, None, b"two", [])]).data
    assert [record.value for record in make(8, PARTITION, shared(whole)).take()] == [b"two"]


def test_an_answer_that_is_broken_is_given_up_so_that_it_is_fetched_again() -> None:
    data = bytearray(batch(0, [(0, None, b"x", [])]).data[:40])
    pack_into(">i", data, 8, 28)  # a batch that is too short for its header
    part = PartitionRecords(DecodedBatches(0), Deserializing(None, None), 0, PARTITION, MemoryRecords(bytes(data)))
    with pytest.raises(Exception, match="unpack"):
        part.take(1)
    assert not part
