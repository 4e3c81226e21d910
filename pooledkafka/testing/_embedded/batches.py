"""Record batches as they are produced, stored and fetched; only their headers are read and written here."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kafka.errors import (
    CorruptRecordError,
    InvalidRecordError,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    UnsupportedCodecError,
    UnsupportedCompressionTypeError,
)
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

__all__ = ["Batch", "control_batch", "only_batch", "parsed"]

_HEADER = DefaultRecordBatch.HEADER_STRUCT
_LENGTH_AT = 8
_BEFORE_LENGTH = 12  # the base offset and the length itself
_LEADER_EPOCH_AT = 12
_MAGIC_AT = 16
_LEAST_LENGTH = 14  # of the oldest format


@dataclass(frozen=True)
class Batch:
    """One batch of records in the format of magic 2, with what its header says."""

    base_offset: int
    last_offset: int
    leader_epoch: int
    attributes: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & DefaultRecordBatch.TRANSACTIONAL_MASK)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & DefaultRecordBatch.CONTROL_MASK)

    @property
    def compression(self) -> int:
        """The codec's number, as ``DefaultRecordBatch`` has them."""
        return int(self.attributes & DefaultRecordBatch.CODEC_MASK)

    @property
    def last_sequence(self) -> int:
        """The sequence number of its last record; they wrap around after 2^31 - 1."""
        return (self.base_sequence + self.last_offset - self.base_offset) % 2**31

    @property
    def commits(self) -> bool:
        """Whether a control batch ends its transaction with a commit, rather than an abort."""
        record = next(DefaultRecordBatch(self.data))
        return bool(struct.unpack(">hh", record.key)[1])

    def at(self, base_offset: int, leader_epoch: int) -> Batch:
        """The same records at another place in a log. The checksum covers neither field."""
        data = bytearray(self.data)
        struct.pack_into(">q", data, 0, base_offset)
        struct.pack_into(">i", data, _LEADER_EPOCH_AT, leader_epoch)
        return replace(
            self,
            base_offset=base_offset,
            last_offset=base_offset + self.last_offset - self.base_offset,
            leader_epoch=leader_epoch,
            data=bytes(data),
        )

    def check(self, max_bytes: int, latest_timestamp: int) -> None:
        """Raise what a broker answers for a batch that no client may write; as UnifiedLog, then LogValidator.

        The records themselves are not looked at.

        Args:
            max_bytes: the topic's ``max.message.bytes``.
            latest_timestamp: in ms, up to which a record may be from the future.
        """
        if self.base_offset != 0:
            raise InvalidRecordError(f"a batch has base offset {self.base_offset}; producers begin with 0")
        if self.size > max_bytes:
            raise MessageSizeTooLargeError(f"a batch of {self.size} bytes; the most is {max_bytes}")
        (checksum,) = struct.unpack_from(">I", self.data, DefaultRecordBatch.CRC_OFFSET)
        if calc_crc32c(memoryview(self.data)[DefaultRecordBatch.ATTRIBUTES_OFFSET :]) != checksum:
            raise CorruptRecordError("the checksum of a batch is wrong")
        if self.records < 1 or self.last_offset != self.records - 1:
            raise InvalidRecordError(f"a batch says that it has {self.records} records up to {self.last_offset}")
        if self.is_control:
            raise InvalidRecordError("only brokers write control batches")
        if self.producer_id >= 0 and self.base_sequence < 0:
            raise InvalidRecordError(f"producer {self.producer_id} gives no sequence number")
        if self.attributes & DefaultRecordBatch.TIMESTAMP_TYPE_MASK:
            raise InvalidTimestampError("only brokers write the time of appending")
        if self.max_timestamp > latest_timestamp:
            raise InvalidTimestampError(f"timestamp {self.max_timestamp} is too far in the future")

    def first_at_or_after(self, timestamp: int) -> tuple[int, int] | None:
        """Offset and timestamp of its first record that is as new as ``timestamp``, in ms.

        Raises CorruptRecordError where the records are malformed, UnsupportedCompressionTypeError where the module that
        could read them is not installed.
        """
        for record in self._decoded():
            if record.timestamp >= timestamp:
                return record.offset, record.timestamp
        return None

    def _decoded(self) -> Iterator[DefaultRecord]:
        try:
            yield from DefaultRecordBatch(self.data)
        except UnsupportedCodecError as error:
            raise UnsupportedCompressionTypeError(str(error)) from error
        except CorruptRecordError:
            raise
        except Exception as error:  # whatever a decompressor says of bytes that are none of its
            raise CorruptRecordError(f"the records of a batch cannot be read: {error!r}") from error


def only_batch(records: bytes) -> Batch:
    """The one batch that a Produce request has for a partition.

    Raises InvalidRecordError where there is none or more, and as ``parsed`` does.
    """
    batches = list(parsed(records))
    if len(batches) != 1:
        raise InvalidRecordError(f"a partition's records are {len(batches)} batches; expected one")
    return batches[0]


def parsed(records: bytes) -> Iterator[Batch]:
    """The batches that lie one after the other in ``records``, unchecked; one that is cut off at the end is left out.

    Raises CorruptRecordError for a length or format that cannot be, InvalidRecordError for a format before magic 2.
    """
    position = 0
    while len(records) - position > _MAGIC_AT:
        (length,) = struct.unpack_from(">i", records, position + _LENGTH_AT)
        magic = records[position + _MAGIC_AT]
        end = position + _BEFORE_LENGTH + length
        if length < _LEAST_LENGTH or magic > 2:
            raise CorruptRecordError(f"{length} bytes of magic {magic} are no batch")
        if end > len(records):
            return
        if magic < 2:
            raise InvalidRecordError(f"a batch of magic {magic}; only magic 2 is taken")
        if length < _HEADER.size - _BEFORE_LENGTH:
            raise CorruptRecordError(f"{length} bytes are too few for a batch")
        header = _HEADER.unpack_from(records, position)
        base_offset, _, leader_epoch, _, _, attributes, last_delta, _, max_timestamp = header[:9]
        producer_id, producer_epoch, base_sequence, count = header[9:]
        yield Batch(
            base_offset,
            base_offset + last_delta,
            leader_epoch,
            attributes,
            max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            count,
            bytes(records[position:end]),
        )
        position = end


def control_batch(
    producer_id: int, producer_epoch: int, commits: bool, timestamp: int, coordinator_epoch: int
) -> Batch:
    """The marker that ends a transaction in one partition."""
    builder = DefaultRecordBatchBuilder(2, 0, 1, producer_id, producer_epoch, -1, 1_000)
    key = struct.pack(">hh", 0, int(commits))
    builder.append(0, timestamp, key, struct.pack(">hi", 0, coordinator_epoch), [])
    data = bytearray(builder.build())
    # kafka-python's builder makes no control batches: the attribute is set here, and with it another checksum.
    attributes_at = DefaultRecordBatch.ATTRIBUTES_OFFSET
    (attributes,) = struct.unpack_from(">h", data, attributes_at)
    struct.pack_into(">h", data, attributes_at, attributes | DefaultRecordBatch.CONTROL_MASK)
    struct.pack_into(">I", data, DefaultRecordBatch.CRC_OFFSET, calc_crc32c(memoryview(data)[attributes_at:]))
    return next(parsed(bytes(data)))
