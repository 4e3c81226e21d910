"""Puts many records at once into a KafkaProducer's accumulator, with one future for all of them."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from kafka.errors import IllegalStateError
from kafka.future import Future
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata, RecordMetadata
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from pooledkafka._records import Record, encode, headers_size

__all__ = ["Run", "append", "append_one", "failed"]


class Run(Future):  # type: ignore[misc]
    """Records that follow each other in one batch: done when all are acknowledged, fails with the first error of one.

    kafka-python has a future for each record, and moves those to other batches where it splits one that was too large
    for the broker. Here a record has something of its own only where that happens.
    """

    __slots__ = ("_first", "_moved", "_produce_future", "_sizes", "_waits_for", "positions")

    def __init__(self, produce_future: Any, first: int, records: Sequence[Record]) -> None:
        super().__init__()
        self._produce_future = produce_future
        self._first = first  # index of the first record in the batch
        # What is to be told of each record, and not the records: who keeps the future does not keep them.
        self._sizes = [
            (
                timestamp,
                -1 if key is None else len(key),
                -1 if value is None else len(value),
                headers_size(headers),
            )
            for key, value, headers, timestamp in records
        ]
        self.positions: Sequence[int] = ()  # where they were in what was sent together
        # Both belong to whichever thread splits or completes the batch, which is one at a time.
        self._moved: dict[int, tuple[Any, int]] = {}  # records that are in other batches now, and their index there
        self._waits_for: dict[Any, int] = {}  # how many of the records each batch has that is not done
        self._wait_for(produce_future, len(records))

    def __len__(self) -> int:
        return len(self._sizes)

    def outcomes(self) -> Iterable[Any]:
        """For each record what its future would have, its metadata or an error, when this is done."""
        return map(self._outcome, range(len(self._sizes)))

    def move(self, index: int, produce_future: Any, to: int) -> None:
        """Tell that the record at ``index`` is at ``to`` in another batch now."""
        before, _ = self._place(index)
        self._waits_for[before] -= 1
        self._moved[index] = produce_future, to
        self._wait_for(produce_future, 1)

    def _place(self, index: int) -> tuple[Any, int]:
        return self._moved.get(index) or (self._produce_future, self._first + index)

    def _wait_for(self, produce_future: Any, records: int) -> None:
        known = produce_future in self._waits_for
        self._waits_for[produce_future] = self._waits_for.get(produce_future, 0) + records
        if not known:
            produce_future.add_both(lambda _: self._one_is_done(produce_future))

    def _one_is_done(self, produce_future: Any) -> None:
        self._waits_for[produce_future] = 0
        if any(self._waits_for.values()):
            return
        # Of a batch that was split, the records are in others now; it is never done itself.
        if all(batch.value[2] is None for batch in self._waits_for if batch.is_done):
            self.success(None)
            return
        for index in range(len(self._sizes)):
            batch, at = self._place(index)
            if batch.value[2] is not None:
                self.failure(batch.value[2](at))
                return
        self.success(None)

    def _outcome(self, index: int) -> Any:
        produce_future, at = self._place(index)
        base_offset, append_time, error_of = produce_future.value
        if error_of is not None:
            return error_of(at)
        timestamp, key_size, value_size, headers_size = self._sizes[index]
        partition = produce_future.topic_partition
        return RecordMetadata(
            partition.topic,
            partition.partition,
            partition,
            base_offset + at if base_offset != -1 else -1,
            timestamp if append_time in (None, -1) else append_time,
            None,  # checksum
            key_size,
            value_size,
            headers_size,
        )


class _Moving:
    """What kafka-python takes for the future of a record when it moves it to another batch."""

    def __init__(self, run: Run, index: int) -> None:
        self._run = run
        self._index = index

    def rebind(self, produce_future: Any, index: int) -> None:
        self._run.move(self._index, produce_future, index)


class _RecordFutures:
    """The list of futures that a batch has for its records, by which they are moved."""

    def __init__(self, futures: Iterable[Any]) -> None:
        # By the index of their first record. Guarded by the lock of the partition, as the batch is.
        self._starts: list[int] = []
        self._entries: list[Any] = []
        self._count = 0
        for future in futures:
            self.append(future)

    def append(self, future: Any, count: int = 1) -> None:
        self._starts.append(self._count)
        self._entries.append(future)
        self._count += count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        at = bisect_right(self._starts, index) - 1
        entry = self._entries[at]
        return _Moving(entry, index - self._starts[at]) if isinstance(entry, Run) else entry


class _Batch(ProducerBatch):  # type: ignore[misc]
    """kafka-python's batch, with one callback for all records that were sent one by one.

    kafka-python has two for each record, which cost more than its encoding: each is an object that the garbage
    collector looks at.
    """

    def __init__(self, partition: Any, records: Any) -> None:
        super().__init__(partition, records)
        self.produce_future.add_callback(self._tell)  # which is told of errors as well, in the result

    def _tell(self, result: Any) -> None:
        # Nothing is added any more: a batch is closed before it is sent, or given up. Of one that was split, the
        # records have others to wait for, and it is never done itself.
        futures = self._record_futures
        raised: Exception | None = None
        for future in futures._entries if isinstance(futures, _RecordFutures) else futures:
            if type(future) is _RecordFuture:
                try:
                    future._produce_success(result)
                except Exception as error:  # a callback's, where Future.error_on_callbacks is set: the others hear too
                    if raised is None:
                        raised = error
        if raised is not None:
            raise raised


class _RecordFuture(FutureRecordMetadata):  # type: ignore[misc]
    """kafka-python's future of a record, told by its batch, and of its handle's ``unfinished`` until it is done."""

    __slots__ = ("_unfinished",)

    def __init__(self, batch: Any, index: int, record: Record, unfinished: set[Any]) -> None:
        Future.__init__(self)
        key, value, headers, timestamp = record
        self._produce_future = batch.produce_future  # type: ignore[misc]
        self.args = (  # type: ignore[misc]
            index,
            timestamp,
            None,  # checksum
            -1 if key is None else len(key),
            -1 if value is None else len(value),
            headers_size(headers),
        )
        self._unfinished = unfinished
        if type(batch) is not _Batch:  # one that kafka-python has opened, or split
            self._produce_future._add_cb_eb(self._produce_success, self.failure)

    def success(self, value: Any) -> Any:
        try:
            return super().success(value)
        finally:
            self._unfinished.discard(self)

    def failure(self, e: Any) -> Any:
        try:
            return super().failure(e)
        finally:
            self._unfinished.discard(self)


def append(kafka: Any, partition: Any, records: Sequence[Record]) -> tuple[Run, bool]:
    """Put as many of ``records`` as fit into the batch that is open for ``partition``, or else into a new one.

    Returns them, and whether it is a new one. Thread-safe, as ``RecordAccumulator.append``.
    """
    accumulator = kafka._accumulator
    with _Appending(accumulator), accumulator._tp_lock(partition):
        batches = _batches(accumulator, partition)
        run = _fill(batches[-1], records) if batches else None
        opened = run is None
        if run is None:
            run = _fill(_open(accumulator, partition, batches), records)
        wake = opened or batches[-1].records.is_full()
    if wake:
        kafka._sender.wakeup()
    assert run is not None
    return run, opened


def append_one(
    kafka: Any, partition: Any, record: Record, unfinished: set[Any], *, open_new: bool
) -> FutureRecordMetadata | None:
    """``append`` for one record, with kafka-python's future of its metadata; None where it would need a new batch.

    The future is in ``unfinished`` until it is done. Raises IllegalStateError once the producer is closed.
    """
    accumulator = kafka._accumulator
    records = (record,)
    with _Appending(accumulator), accumulator._tp_lock(partition):
        batches = _batches(accumulator, partition)
        batch = batches[-1] if batches else None
        at = _extend(batch, records) if batch is not None else None
        opened = at is None
        if at is None:
            if not open_new:
                return None
            batch = _open(accumulator, partition, batches)
            at = _extend(batch, records)
        assert batch is not None
        assert at is not None
        future = _RecordFuture(batch, at[0], record, unfinished)
        # In this order: an exception of a signal handler in between leaves a future that nobody waits for, and not one
        # that is waited for and never told. Under the lock, since the batch cannot be done meanwhile.
        batch._record_futures.append(future)
        unfinished.add(future)
        wake = opened or batch.records.is_full()
    if wake:
        kafka._sender.wakeup()
    return future


def failed(partition: Any, error: Exception) -> Any:
    """The future of a record that could not be sent."""
    return FutureRecordMetadata(FutureProduceResult(partition), -1, None, None, -1, -1, -1).failure(error)


class _Appending:
    """While it counts, the accumulator does not end without failing what is being added."""

    __slots__ = ("_count",)

    def __init__(self, accumulator: Any) -> None:
        self._count = accumulator._appends_in_progress

    def __enter__(self) -> None:
        self._count.increment()

    def __exit__(self, *_: object) -> None:
        self._count.decrement()


def _batches(accumulator: Any, partition: Any) -> Any:
    if accumulator._closed:
        raise IllegalStateError("RecordAccumulator is closed")
    return accumulator._batches[partition]


def _open(accumulator: Any, partition: Any, batches: Any) -> Any:
    config = accumulator.config
    builder = MemoryRecordsBuilder(config["message_version"], config["compression_attrs"], config["batch_size"])
    batch = _Batch(partition, builder)
    batches.append(batch)
    accumulator._incomplete.add(batch)
    return batch


def _extend(batch: Any, records: Sequence[Record]) -> tuple[int, int] | None:
    """Add records to a batch; the index of the first and how many. None if it is closed, or has no room for one."""
    builder = batch.records._builder
    if builder is None:
        return None
    first = builder._num_records
    since = builder._first_timestamp if first else records[0].timestamp
    encoded = encode(records, first, since, builder._batch_size - len(builder._buffer))
    number = encoded.number
    if not number:
        return None
    builder._buffer += encoded.data
    builder._first_timestamp = since
    builder._max_timestamp = max(encoded.max_timestamp, builder._max_timestamp) if first else encoded.max_timestamp
    builder._num_records = batch.records._next_offset = first + number
    builder._last_offset = first + number - 1
    batch.max_record_size = max(batch.max_record_size, encoded.largest)
    batch.last_append = time.monotonic()
    return first, number


def _fill(batch: Any, records: Sequence[Record]) -> Run | None:
    at = _extend(batch, records)
    if at is None:
        return None
    if not isinstance(batch._record_futures, _RecordFutures):
        batch._record_futures = _RecordFutures(batch._record_futures)
    first, number = at
    run = Run(batch.produce_future, first, records[:number])
    batch._record_futures.append(run, number)
    return run
