from __future__ import annotations

import pytest
from kafka.future import Future
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.structs import TopicPartition

from pooledkafka._records import Record
from pooledkafka._wire import runs

PARTITION = TopicPartition("orders", 0)


def test_a_callback_that_raises_keeps_no_record_of_its_batch_from_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Future, "error_on_callbacks", True)
    batch = runs._Batch(PARTITION, MemoryRecordsBuilder(2, 0, 1 << 20))
    unfinished: set[Future] = set()
    futures = [runs._RecordFuture(batch, at, Record(None, b"x", (), 0), unfinished) for at in range(3)]
    batch._record_futures += futures
    unfinished.update(futures)

    def fail(_: object) -> None:
        raise ZeroDivisionError("of the first")

    futures[0].add_callback(fail)
    with pytest.raises(ZeroDivisionError, match="of the first"):
        batch.complete(7, -1)
    assert [future.value.offset for future in futures] == [7, 8, 9]
    assert not unfinished
