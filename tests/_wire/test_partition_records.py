"""What a consumer takes of an answer is what kafka-python's own decoder would give it."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
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
from pooledkafka._wire import partition_records
from pooledkafka._wire.decoded import DecodedBatches
from pooledkafka._wire.deserializing import Deserializing
from pooledkafka._wire.partition_records import JoinedRecords, PartitionRecords

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
    of: Callable[..., Any], data: bytes, offset: int, sizes: Sequence[int | None], aborted: list[Any], **options: Any
) -> tuple[Any, ...]:
    """Take it piece by piece; what came, up to the first error, and where the consumer is then."""
    part = of(offset, PARTITION, MemoryRecords(data), aborted_transactions=aborted, **options)
    taken: list[Any] = []
    for size in cycle(sizes):
        if not part:
            return taken, part.next_fetch_offset, part.leader_epoch, part.records_read, part.bytes_read, None
        try:
            taken += part.take(size)
        except Exception as error:
            return taken, part.next_fetch_offset, part.leader_epoch, part.records_read, None, type(error)
    raise AssertionError("sizes were empty")


def pooled(limit: int = 1 << 20, consumers: int = 2) -> Callable[..., Any]:
    decoded = DecodedBatches(limit)
    decoded.serve(consumers)
    return lambda *args, **kwargs: PartitionRecords(decoded, Deserializing(None, None), *args, **kwargs)


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
    offset = draw(st.integers(0, 1 << 40))
    for kind in draw(st.lists(st.sampled_from(["plain", "plain", "transactional", "end", "legacy"]), max_size=8)):
        if kind == "plain":
            made = batch(
                offset,
                draw(records),
                codec=draw(st.integers(0, 4)),
                append_time=draw(st.booleans()),
                compacted=draw(st.sampled_from([0, 0, 2])),
                epoch=draw(st.integers(0, 3)),
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
)
def test_takes_what_kafka_python_takes(
    log: tuple[list[Written], list[Any]], first: int, within: int, sizes: Any, isolation: Any, cut: int
) -> None:
    batches, aborted = log
    batches = batches[min(first, len(batches)) :]
    data = b"".join(written.data for written in batches)
    data = data[: len(data) - cut]
    offset = batches[0].offset + within if batches else 0
    offset = min(offset, batches[0].following - 1) if batches else 0
    case = data, offset, sizes, aborted
    ours, stock = (
        read(pooled(), *case, isolation_level=isolation),
        read(Fetcher.PartitionRecords, *case, isolation_level=isolation),
    )
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
    case = data, batches[0].offset, [None], aborted
    ours = read(pooled(), *case, check_crcs=checked)
    if checked and not resealed and covered:
        stock = read(Fetcher.PartitionRecords, *case)
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
    part = pooled()(1, PARTITION, MemoryRecords(JoinedRecords.of([parts[0] + parts[1], parts[2], parts[3] + parts[4]])))
    assert [record.value for record in [*part.take(1), *part.take(2), *part.take()]] == [b"1", b"2", b"3", b"4"]
    assert part.next_fetch_offset == 5


def test_a_batch_is_decoded_once_for_all_and_what_one_does_to_its_headers_is_nothing_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded: list[int] = []

    def counting(*args: Any) -> Any:
        decoded.append(args[4])
        return decode(*args)

    monkeypatch.setattr(partition_records, "decode", counting)
    data = b"".join(batch(offset, [(0, None, b"x", [("h", b"1")])]).data for offset in range(3))
    make = pooled(consumers=8)
    for _ in range(8):
        records = make(0, PARTITION, MemoryRecords(data)).take()
        assert [record.headers for record in records] == [[("h", b"1")]] * 3
        records[0].headers.append(("mine", b"2"))
    assert decoded == [0, 1, 2]


def test_what_is_kept_for_others_is_bounded_and_nothing_is_kept_for_one() -> None:
    decoded = DecodedBatches(limit=100_000)
    decoded.serve(2)
    chunks = [batch(0, [(0, None, b"x" * 1000, [])] * 10).data for _ in range(50)]
    for chunk in chunks:
        PartitionRecords(decoded, Deserializing(None, None), 0, PARTITION, MemoryRecords(chunk)).take()
        assert decoded._used <= 100_000
        assert decoded._used == sum(each.cost for each in decoded._chunks.values())
    assert len(decoded._chunks) > 1
    decoded.serve(1)
    assert not decoded._chunks
    PartitionRecords(decoded, Deserializing(None, None), 0, PARTITION, MemoryRecords(chunks[0])).take()
    assert not decoded._chunks


def test_threads_wait_for_the_one_that_decodes() -> None:
    decoded = DecodedBatches(limit=100_000)
    decoded.serve(2)
    data = batch(0, [(0, None, b"x", [])]).data
    entered, go_on, calls = threading.Event(), threading.Event(), []

    def slow() -> Any:
        calls.append(threading.get_ident())
        entered.set()
        assert go_on.wait(10)
        return decode(data, 61, len(data), 1, 0, 0)

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(decoded.columns, data, 0, slow)
        assert entered.wait(10)
        others = [threads.submit(decoded.columns, data, 0, slow) for _ in range(3)]
        go_on.set()
        assert all(other.result(10) is first.result(10) for other in others)
    assert len(calls) == 1


def test_an_answer_that_is_broken_is_given_up_so_that_it_is_fetched_again() -> None:
    data = bytearray(batch(0, [(0, None, b"x", [])]).data[:40])
    pack_into(">i", data, 8, 28)  # a batch that is too short for its header
    part = PartitionRecords(DecodedBatches(0), Deserializing(None, None), 0, PARTITION, MemoryRecords(bytes(data)))
    with pytest.raises(Exception, match="unpack"):
        part.take(1)
    assert not part
