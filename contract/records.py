"""Record batches as producers build them, and what is in those that are fetched."""

from __future__ import annotations

import time
from typing import Any

from kafka.record import MemoryRecordsBuilder
from kafka.record.memory_records import MemoryRecords

__all__ = ["NOW_MS", "batch", "batches", "offsets", "values"]

NOW_MS = int(time.time() * 1000)


def batch(
    *contents: bytes,
    timestamps: list[int] | None = None,
    producer: tuple[int, int] | None = None,
    sequence: int = 0,
    transactional: bool = False,
) -> bytes:
    """A batch of records with these values; of a producer with an id and an epoch, if it has one."""
    producer_id, epoch = producer or (-1, -1)
    builder = MemoryRecordsBuilder(
        magic=2,
        compression_type=0,
        batch_size=1 << 30,
        transactional=transactional,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=-1 if producer is None else sequence,
    )
    for index, content in enumerate(contents):
        builder.append(timestamp=timestamps[index] if timestamps else NOW_MS, key=None, value=content)
    builder.close()
    return bytes(builder.buffer())


def batches(data: Any) -> list[Any]:
    """The whole batches in a partition's part of a fetch response."""
    records, found = MemoryRecords(bytes(data.records or b"")), []
    while (each := records.next_batch()) is not None:
        found.append(each)
    return found


def values(data: Any) -> list[bytes]:
    """The values of all records in a partition's part of a fetch response; markers of transactions are left out."""
    return [record.value for each in batches(data) if not each.is_control_batch for record in each]


def offsets(data: Any) -> list[int]:
    """The offsets of all records in a partition's part of a fetch response, markers of transactions included."""
    return [record.offset for each in batches(data) for record in each]
