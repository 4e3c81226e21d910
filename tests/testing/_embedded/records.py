"""Record batches as producers make them."""

from __future__ import annotations

import struct

from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

from pooledkafka.testing._embedded.batches import Batch, only_batch

__all__ = ["encoded", "of_producer", "signed"]

NOBODY = (-1, -1)


def encoded(
    *values: bytes,
    producer: tuple[int, int] = NOBODY,
    sequence: int = -1,
    transactional: bool = False,
    compression: int = 0,
    timestamp: int = 1_000,
) -> bytes:
    """The bytes of a batch of these values, of a producer by its id and epoch."""
    builder = DefaultRecordBatchBuilder(2, compression, transactional, *producer, sequence, 1 << 20)
    for offset, value in enumerate(values):
        builder.append(offset, timestamp, None, value, [])
    return bytes(builder.build())


def of_producer(producer: tuple[int, int], sequence: int, records: int = 1, *, transactional: bool = False) -> Batch:
    """A batch of so many records, as a log gets it."""
    return only_batch(encoded(*[b"value"] * records, producer=producer, sequence=sequence, transactional=transactional))


def signed(data: bytearray) -> bytes:
    """A batch whose fields were changed, with the checksum that it has to have then."""
    checksum = calc_crc32c(memoryview(data)[DefaultRecordBatch.ATTRIBUTES_OFFSET :])
    struct.pack_into(">I", data, DefaultRecordBatch.CRC_OFFSET, checksum)
    return bytes(data)
