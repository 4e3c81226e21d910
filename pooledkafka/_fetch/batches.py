"""Where the next fetch continues: read off the headers of record batches, without decoding them."""

from __future__ import annotations

from struct import Struct
from typing import Any, NamedTuple

__all__ = ["End", "end_of"]

# Record batch, message format v2: baseOffset int64, batchLength int32, partitionLeaderEpoch int32, magic int8, crc
# uint32, attributes int16, lastOffsetDelta int32. The older formats have offset int64, size int32 and magic in the
# same places, and no epoch. (Kafka's documentation, "Record Batch")
_PREFIX = Struct(">qiib")
_LAST_OFFSET_DELTA = Struct(">i")
_LENGTH_END = 12
_MAGIC_END = 17
_LAST_OFFSET_DELTA_AT = 23
_V2_HEADER_END = 61


class End(NamedTuple):
    """The position after the last complete batch."""

    next_offset: int
    leader_epoch: int
    size: int
    """Bytes up to there."""


def end_of(records: Any) -> End | None:
    """Where ``records`` end; None if they hold no complete batch. One that was cut off at the end does not count."""
    end: End | None = None
    size = len(records)
    at = 0
    while at + _MAGIC_END <= size:
        base_offset, length, epoch, magic = _PREFIX.unpack_from(records, at)
        following = at + _LENGTH_END + length
        if following > size or length <= 0:
            break
        if magic >= 2:
            if at + _V2_HEADER_END > size:
                break
            (delta,) = _LAST_OFFSET_DELTA.unpack_from(records, at + _LAST_OFFSET_DELTA_AT)
            end = End(base_offset + delta + 1, epoch, following)
        else:
            end = End(base_offset + 1, -1, following)
        at = following
    return end
