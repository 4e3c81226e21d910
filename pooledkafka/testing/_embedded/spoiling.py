"""Answers that are not what a broker would write: spoiled bytes, and errors for some partitions among good ones."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from typing import Any

__all__ = ["SPOILERS", "put_errors", "spoil_batches"]

_FRAME = struct.Struct(">ii")  # the length of what follows, and the correlation id


def _with_length(length: int) -> Callable[[bytes], bytes]:
    return lambda frame: struct.pack(">i", length) + frame[4:]


def _other_id(frame: bytes) -> bytes:
    length, correlation_id = _FRAME.unpack_from(frame)
    return _FRAME.pack(length, correlation_id ^ 0x55AA) + frame[8:]


def _garbage(frame: bytes) -> bytes:
    body = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    _, correlation_id = _FRAME.unpack_from(frame)
    return _FRAME.pack(4 + len(body), correlation_id) + body


def _flipped(frame: bytes) -> bytes:
    return frame[:8] + bytes(byte ^ 0xFF for byte in frame[8:])


def _short(frame: bytes) -> bytes:
    _, correlation_id = _FRAME.unpack_from(frame)
    body = frame[8 : 8 + max(0, len(frame) - 8) // 2]
    return _FRAME.pack(4 + len(body), correlation_id) + body


SPOILERS: dict[str, Callable[[bytes], bytes]] = {
    "negative length": _with_length(-1),
    "huge length": _with_length(2**31 - 1),
    "correlation id": _other_id,
    "garbage": _garbage,
    "flipped": _flipped,
    "short": _short,
}
"""What may be wrong with an answer, and what makes it so of its bytes, the length in front included."""

# Record batch: baseOffset int64, batchLength int32, partitionLeaderEpoch int32, magic int8, crc uint32.
_LENGTH_AT, _LENGTH_END, _CRC_AT = 8, 12, 17


def spoil_batches(response: Any) -> None:
    """Make the checksum of every record batch in a Fetch response wrong; the log itself stays as it is."""
    for _, _, answer in _answers(response):
        records = bytearray(getattr(answer, "records", None) or b"")
        at = 0
        while at + _CRC_AT < len(records):
            records[at + _CRC_AT] ^= 0xFF
            at += _LENGTH_END + int.from_bytes(records[at + _LENGTH_AT : at + _LENGTH_END], "big")
        if records:
            answer.records = bytes(records)


def put_errors(response: Any, error_code: int, partitions: Collection[tuple[str, int]]) -> None:
    """Let a response say an error of ``partitions``, where it speaks of them at all."""
    for topic, index, answer in _answers(response):
        if (topic, index) in partitions:
            answer.error_code = error_code
            if getattr(answer, "records", None):
                answer.records = b""


def _answers(response: Any) -> Iterator[tuple[str, int, Any]]:
    for topic in _topics(response):
        for answer in _partitions(topic):
            yield _name(topic), _index(answer), answer


def _topics(response: Any) -> list[Any]:
    """What an answer says of each topic; of all groups, where it is about several."""
    groups = getattr(response, "groups", None)
    if groups:
        return [topic for group in groups for topic in group.topics]
    return list(_first_of(response, "topics", "responses"))


def _partitions(topic: Any) -> list[Any]:
    found: list[Any] = _first_of(topic, "partitions", "partition_responses")
    return found


def _name(topic: Any) -> str:
    return str(getattr(topic, "name", None) or getattr(topic, "topic", None))


def _index(answer: Any) -> int:
    return next(
        int(index)
        for name in ("partition_index", "index", "partition")
        if (index := getattr(answer, name, None)) is not None
    )


def _first_of(thing: Any, *names: str) -> Any:
    return next((found for name in names if (found := getattr(thing, name, None)) is not None), [])
