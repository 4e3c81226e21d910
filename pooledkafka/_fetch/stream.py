"""One place in one partition's log from which records are read for everybody who is there."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kafka.structs import TopicPartition

from pooledkafka._fetch.batches import End
from pooledkafka._fetch.model import Line, LogicalFetch, PartitionAnswer, Position

if TYPE_CHECKING:
    from pooledkafka._fetch.reader import Reader

__all__ = ["Chunk", "Cursor", "ReadAhead", "Stream"]

_CHUNK_OVERHEAD = 512
"""Bytes counted for a chunk beside its records, so that many tiny ones are bounded too."""


class ReadAhead:
    """The bytes read ahead for all brokers of a pool, and their bound."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def has_room(self) -> bool:
        return self.used < self.limit


@dataclass(eq=False)
class Chunk:
    """Records that came in one answer: those from ``start`` up to, but not including, ``next_offset``."""

    start: int
    next_offset: int
    previous_epoch: int  # the last_fetched_epoch that it was read with
    answer: PartitionAnswer

    @property
    def size(self) -> int:
        return len(self.answer.records) + _CHUNK_OVERHEAD


@dataclass(eq=False)
class Cursor:
    """How far one reader has got in a stream."""

    reader: Reader
    offset: int
    asks: bool = False  # whether the reader's last fetch has this partition
    asked_at: float = 0.0  # when it last had; for one that asks, the reader's own time holds
    told_high_watermark: int = -1

    @property
    def waiting(self) -> LogicalFetch | None:
        """The fetch that waits here."""
        return self.reader.fetch if self.asks else None


class Stream:
    """Reads one partition onwards from one offset.

    Readers at the same place share one; a reader that lags or seeks gets another, and joins the first when it comes to
    a place that one has. Readers share only what their requests would have been answered alike: the same leader epoch
    and ``partition_max_bytes``.
    """

    def __init__(self, partition: TopicPartition, position: Position, budget: ReadAhead) -> None:
        self.partition = partition
        self.leader_epoch = position.current_leader_epoch
        self.max_bytes = position.partition_max_bytes
        self.offset = position.fetch_offset  # the next to read from the broker
        self.last_fetched_epoch = position.last_fetched_epoch
        self.at_end = False  # the last answer said that there is nothing beyond ``offset``
        self.chunks: deque[Chunk] = deque()  # what was read and somebody has not taken yet, without gaps
        self.buffered = 0  # bytes in chunks
        self.full = False  # reading ahead stopped at max_bytes and has not sunk below half of it yet
        self.cursors: dict[int, Cursor] = {}  # by reader
        self.in_flight: Line | None = None
        self.closed = False  # nobody reads here any more; an answer that still comes is dropped
        self.latest: PartitionAnswer | None = None  # the last answer without records: it tells the high watermark
        self._budget = budget

    @property
    def position(self) -> Position:
        """What to ask the broker for."""
        return Position(self.offset, self.leader_epoch, self.last_fetched_epoch, self.max_bytes)

    def serves(self, position: Position) -> bool:
        """Whether a reader at ``position`` would have been answered as this stream is."""
        if (position.current_leader_epoch, position.partition_max_bytes) != (self.leader_epoch, self.max_bytes):
            return False
        offset = position.fetch_offset
        if offset == self.offset:
            return position.last_fetched_epoch in (-1, self.last_fetched_epoch)
        for chunk in self.chunks:
            if offset == chunk.start:
                return position.last_fetched_epoch in (-1, chunk.previous_epoch)
            if chunk.start < offset < chunk.next_offset:
                return True
        return False

    def append(self, answer: PartitionAnswer, end: End) -> None:
        """Take records read from ``offset``."""
        chunk = Chunk(self.offset, end.next_offset, self.last_fetched_epoch, answer)
        self.chunks.append(chunk)
        self.buffered += chunk.size
        self._budget.used += chunk.size
        self.offset = end.next_offset
        self.last_fetched_epoch = end.leader_epoch
        self._mark_full()

    def chunks_for(self, cursor: Cursor, limit: int) -> list[Chunk]:
        """What ``cursor`` has not taken yet, up to ``limit`` bytes, and at least one chunk if there is any."""
        taken: list[Chunk] = []
        size = 0
        for chunk in self.chunks:
            if chunk.next_offset <= cursor.offset:
                continue
            size += len(chunk.answer.records)
            if taken and size > limit:
                break
            taken.append(chunk)
        return taken

    def has_for(self, cursor: Cursor) -> bool:
        return bool(self.chunks) and self.chunks[-1].next_offset > cursor.offset

    def high_watermark_for(self, cursor: Cursor) -> PartitionAnswer | None:
        """An answer that tells a reader, who has taken everything, a high watermark that it has not been told."""
        latest = self.latest
        if latest is None or cursor.offset != self.offset or latest.high_watermark == cursor.told_high_watermark:
            return None
        return latest

    def trim(self) -> None:
        """Drop what every reader has taken."""
        slowest = min((cursor.offset for cursor in self.cursors.values()), default=self.offset)
        while self.chunks and self.chunks[0].next_offset <= slowest:
            self._account_for(self.chunks.popleft())

    def drop_before(self, offset: int) -> list[Cursor]:
        """Drop what lies before ``offset``, and leave behind the readers that have not taken it: they will come back.

        So a slow reader never keeps a fast one waiting; it reads what it missed again, on its own. Returns them.
        """
        while self.chunks and self.chunks[0].next_offset <= offset:
            self._account_for(self.chunks.popleft())
        first = self.chunks[0].start if self.chunks else self.offset
        left = [cursor for cursor in self.cursors.values() if cursor.offset < first]
        for cursor in left:
            del self.cursors[cursor.reader.number]
        return left

    def give_back(self) -> None:
        """Drop what came when there was no room and no reader has taken; it is read again when one comes for it."""
        furthest = max(cursor.offset for cursor in self.cursors.values())
        while self.chunks and self.chunks[-1].start >= furthest:
            if self._budget.used - self.chunks[-1].size < self._budget.limit:
                break
            chunk = self._account_for(self.chunks.pop())
            self.offset = chunk.start
            self.last_fetched_epoch = chunk.previous_epoch
            self.at_end = False

    def clear(self) -> None:
        """Drop everything."""
        while self.chunks:
            self._account_for(self.chunks.popleft())

    def _account_for(self, chunk: Chunk) -> Chunk:
        """Count a chunk that was dropped no longer."""
        self.buffered -= chunk.size
        self._budget.used -= chunk.size
        self._mark_full()
        return chunk

    def _mark_full(self) -> None:
        if self.buffered >= self.max_bytes:
            self.full = True
        elif self.buffered < self.max_bytes / 2:
            self.full = False

    @property
    def wanted_now(self) -> bool:
        """Whether a reader waits for what comes next."""
        return any(c.waiting is not None and c.offset >= self.offset for c in self.cursors.values())
