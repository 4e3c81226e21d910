"""Rare turns of the multiplexer: what came of looking for ways to break it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from kafka.protocol.consumer import FetchResponse
from kafka.record import MemoryRecords

from pooledkafka._fetch import Line, LogicalFetch, Position
from pooledkafka._wire.decoded import DecodedBatches
from pooledkafka._wire.deserializing import Deserializing
from pooledkafka._wire.fetching import _join
from pooledkafka._wire.partition_records import PartitionRecords
from tests._fetch.test_batches import records
from tests._fetch.test_multiplexer import A, Bench

Data = FetchResponse.FetchableTopicResponse.PartitionData


def real_batch(base: int, count: int) -> bytes:
    raw = bytearray(records([b"v" * 50] * count))
    raw[0:8] = base.to_bytes(8, "big")
    return bytes(raw)


def data(records: bytes, high_watermark: int) -> Any:
    return Data(
        partition_index=0,
        error_code=0,
        high_watermark=high_watermark,
        last_stable_offset=high_watermark,
        log_start_offset=0,
        aborted_transactions=[],
        preferred_read_replica=-1,
        records=records,
    )


def test_a_batch_cut_off_by_the_response_limit_does_not_spoil_the_chunk_after_it() -> None:
    """Brokers cut the last batch at the response's max_bytes; end_of ignores that piece, _join keeps it."""
    bench = Bench()
    bench.machine._join = _join
    one, two, three = real_batch(0, 2), real_batch(2, 2), real_batch(4, 2)
    bench.fetch(1, a=0)
    bench.answer(Line.CATCH_UP, {A: data(one, 6)})
    bench.step()
    # the reader is busy; the stream is read ahead
    bench.answer(Line.CATCH_UP, {A: data(two + three[:40], 6)})  # cut, as LogSegment.read does
    bench.answer(Line.CATCH_UP, {A: data(three, 6)})
    bench.fetch(1, a=2)
    answer = bench.answers[1][A]
    parsed = PartitionRecords(DecodedBatches(0), Deserializing(None, None), 2, A, MemoryRecords(answer.records))
    assert [record.offset for record in parsed.take(100)] == [2, 3, 4, 5]


def test_the_high_watermark_that_a_reader_is_told_never_goes_back() -> None:
    bench = Bench()
    bench.park(1, a=0)  # empty log: latest says high watermark 0
    bench.broker.logs[A].append(5)
    bench.answer(Line.PARKED)
    assert bench.answers[1][A].high_watermark == 5
    bench.fetch(1, a=5)
    bench.step(0.6)  # nothing new until the deadline
    assert A not in bench.answers[1] or bench.answers[1][A].high_watermark >= 5


def test_a_reader_with_data_at_hand_is_answered_although_a_faster_one_comes_in_the_same_round() -> None:
    bench = Bench()
    log = bench.broker.logs[A]
    log.append(5)
    bench.park(1, 2, a=0)
    bench.fetch(1, a=5)
    bench.fetch(2, a=5)
    # a chunk that fills the stream; only reader 1 waits for it in this round
    log.append(200)
    bench.answer(Line.PARKED)
    assert bench.answers[1][A].records
    assert bench.answers[2][A].records
    # both go away; reader 1 fetches alone and gets on, reader 2 is slow
    bench.fetch(1, a=205)
    log.append(200)
    for line in list(bench.in_flight):
        bench.answer(line)
    assert bench.answers[1][A].records
    # reader 2 (the chunk is there) and reader 1 (at the end) come in one round of the event loop
    now = bench.now
    two = LogicalFetch(2, {A: Position(205, partition_max_bytes=1_000)}, now + 0.5)
    one = LogicalFetch(1, {A: Position(405, partition_max_bytes=1_000)}, now + 0.5)
    for fetch in (two, one):
        bench.answers.pop(fetch.reader, None)
        bench.machine.submit(fetch, now)
    bench.step()
    for _ in range(5):  # the broker answers whatever is asked, at once
        for line in list(bench.in_flight):
            if line is Line.CATCH_UP:
                bench.answer(line)
    assert 2 in bench.answers, "waits until its deadline for data that is there"


def test_a_reader_that_waits_for_min_bytes_is_answered_when_the_stream_ends_with_an_error() -> None:
    bench = Bench()
    bench.fetch(1, a=0, min_bytes=5_000)
    bench.broker.logs[A].append(5)
    bench.answer(Line.CATCH_UP)
    assert 1 not in bench.answers
    bench.broker.logs[A].error = 6
    for _ in range(3):
        for line in list(bench.in_flight):
            bench.answer(line)
    assert 1 in bench.answers, "neither the records nor the error reach it until its deadline"


def test_answered_fetches_are_not_kept() -> None:
    """The context is the future whose value is the whole response."""

    class Context:
        pass

    bench = Bench()
    bench.park(1, b=0)
    bench.fetch(1, b=0, wait=30.0)  # somebody waits long at the end of an empty partition ...
    kept = []
    for offset in range(50):  # ... and somebody else reads on in another, with fetch_max_wait_ms of a minute
        bench.broker.logs[A].append(1)
        fetch = LogicalFetch(2, {A: Position(offset)}, bench.now + 60.0, context=Context())
        kept.append(weakref.ref(fetch.context))
        bench.answers.pop(2, None)
        bench.machine.submit(fetch, bench.now)
        del fetch
        bench.step()
        for line in list(bench.in_flight):
            if 2 not in bench.answers:
                bench.answer(line)
        assert bench.got(2, A) == [offset]
        bench.step(0.001)
    gc.collect()
    alive = sum(ref() is not None for ref in kept)
    assert alive <= 2, f"{alive} of 50 answered fetches are kept until their deadline"
