"""A partition leader's log, as the multiplexer's tests see one: answers fetches without a network."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from kafka.structs import TopicPartition

from pooledkafka._fetch import Position, WireFetch

__all__ = ["SimulatedBroker", "SimulatedLog", "join", "offsets_in"]


def batch(base_offset: int, count: int, epoch: int) -> bytes:
    """A record batch of message format v2 with ``count`` records; its header is real, its records are zeros."""
    body = struct.pack(">iBIhi", epoch, 2, 0, 0, count - 1) + bytes(61 - 27 + 10 * count)
    return struct.pack(">qi", base_offset, len(body)) + body


@dataclass
class SimulatedLog:
    """The log of one partition: batches by base offset."""

    start: int = 0
    end: int = 0
    epoch: int = 0
    batches: list[tuple[int, int, int]] = field(default_factory=list)  # base offset, next offset, epoch
    error: int = 0

    def append(self, count: int) -> None:
        self.batches.append((self.end, self.end + count, self.epoch))
        self.end += count

    def read(self, position: Position) -> bytes:
        data = b""
        for base, following, epoch in self.batches:
            if following <= position.fetch_offset:
                continue
            piece = batch(base, following - base, epoch)
            if data and len(data) + len(piece) > position.partition_max_bytes:
                break
            data += piece
        return data


class SimulatedBroker:
    """Answers wire fetches at the moment it is told to, with what its logs hold then."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, SimulatedLog] = {}

    def answer(self, wire: WireFetch, *, sessions: bool = False) -> dict[TopicPartition, Any]:
        answers: dict[TopicPartition, Any] = {}
        left = wire.max_bytes
        for partition, position in wire.partitions.items():
            log = self.logs[partition]
            error, records = log.error, b""
            if not error and not log.start <= position.fetch_offset <= log.end:
                error = 1  # OFFSET_OUT_OF_RANGE
            if not error:
                records = log.read(position)
                if left < wire.max_bytes and len(records) > left:
                    records = b""
                left -= len(records)
            if sessions and not error and not records and position.fetch_offset == log.end:
                continue
            answers[partition] = partition_answer(log.end, records, error)
        return answers


def partition_answer(high_watermark: int, records: bytes, error_code: int = 0, preferred: int = -1) -> Any:
    return SimpleNamespace(
        error_code=error_code,
        high_watermark=high_watermark,
        last_stable_offset=high_watermark,
        preferred_read_replica=preferred,
        diverging_epoch=None,
        aborted_transactions=[],
        records=records,
    )


def join(answers: Sequence[Any], readers: int) -> Any:
    joined = b"".join(answer.records for answer in answers)
    return SimpleNamespace(**{**vars(answers[-1]), "records": joined, "readers": readers})


def offsets_in(records: bytes) -> list[int]:
    """The offsets of all records in whole batches."""
    offsets: list[int] = []
    at = 0
    while at < len(records):
        base, length = struct.unpack_from(">qi", records, at)
        (delta,) = struct.unpack_from(">i", records, at + 23)
        offsets.extend(range(base, base + delta + 1))
        at += 12 + length
    return offsets
