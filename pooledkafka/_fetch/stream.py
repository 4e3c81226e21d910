"""One place in one partition's log from which records are read for everybody who is there."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kafka.structs import TopicPartition

from pooledkafka._fetch.batches import End
from pooledkafka._fetch.model import Line, LogicalFetch, PartitionAnswer, Position

if TYPE_CHECKING:
    from pooledkafka._fetch.reader import Reader

__all__ = ["Chunk", "Cursor", "ReadAhead", "Stream"]

_SPARE_CHUNKS = 64
"""How many answers are kept of a partition, at most, though everybody has taken them."""
_CHUNK_OVERHEAD = 512
"""Bytes counted for a chunk beside its records, so that many tiny ones are bounded too."""


class ReadAhead:
    """The bytes read for all brokers of a pool, and their bound."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0  # of what somebody has not taken yet
        self.asked = 0  # of what the requests for lagging readers, of all brokers, may bring at most
        self.spare = 0  # of what is kept though everybody has: as long as there is room for it
        self._spares: dict[Stream, None] = {}  # that have some, the one whose has not changed for longest first

    @property
    def has_room(self) -> bool:
        return self.used < self.limit

    @property
    def half_full(self) -> bool:
        return self.used >= self.limit / 2

    @property
    def total(self) -> int:
        return self.used + self.spare

    def note(self, stream: Stream) -> None:
        """What a stream has was counted anew; what is spare, there or elsewhere, makes room."""
        self._spares.pop(stream, None)
        if stream.spare:
            self._spares[stream] = None
        while self._spares and self.total > self.limit:
            next(iter(self._spares)).drop_spare()


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
        self.ahead = 0  # bytes in chunks, but for the spare ones
        self.spare = 0  # bytes in the chunks that everybody has taken, kept for those who come a moment later
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

    def serves(self, position: Position, *, again: bool) -> bool:
        """Whether a reader at ``position`` would have been answered as this stream is.

        One that reads ``again`` what it has had, because that was corrupt, say, is not given the same from memory.
        """
        if (position.current_leader_epoch, position.partition_max_bytes) != (self.leader_epoch, self.max_bytes):
            return False
        offset = position.fetch_offset
        if offset == self.offset:
            return position.last_fetched_epoch in (-1, self.last_fetched_epoch)
        passed = 0
        for chunk in self.chunks:
            passed += chunk.size
            if again and passed <= self.spare:
                continue
            if offset == chunk.start:
                return position.last_fetched_epoch in (-1, chunk.previous_epoch)
            if chunk.start < offset < chunk.next_offset:
                return True
        return False

    def append(self, answer: PartitionAnswer, end: End) -> None:
        """Take records read from ``offset``."""
        chunk = Chunk(self.offset, end.next_offset, self.last_fetched_epoch, answer)
        self.chunks.append(chunk)
        self.offset = end.next_offset
        self.last_fetched_epoch = end.leader_epoch
        self._account(self.ahead + chunk.size, self.spare)

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
        """Drop what every reader has taken; on the way to the end the last of it is kept while there is room.

        Groups that begin together are some milliseconds apart. Whoever comes to what is there reads on with the others;
        on its own it would have everything sent again.
        """
        slowest = min((cursor.offset for cursor in self.cursors.values()), default=self.offset)
        taken = [chunk.size for chunk in itertools.takewhile(lambda c: c.next_offset <= slowest, self.chunks)]
        dropped = len(taken) if self.at_end else max(0, len(taken) - _SPARE_CHUNKS)
        for _ in range(dropped):
            self.chunks.popleft()
        self._account(self.ahead + self.spare - sum(taken), sum(taken[dropped:]))

    def drop_spare(self) -> None:
        """Drop what every reader has taken."""
        size = self.spare
        while size > 0:
            size -= self.chunks.popleft().size
        self._account(self.ahead, 0)

    def _account(self, ahead: int, spare: int) -> None:
        if (ahead, spare) == (self.ahead, self.spare):
            return
        self._budget.used += ahead - self.ahead
        self._budget.spare += spare - self.spare
        self.ahead, self.spare = ahead, spare
        if ahead >= self.max_bytes:
            self.full = True
        elif ahead < self.max_bytes / 2:
            self.full = False
        self._budget.note(self)

    def drop_before(self, offset: int) -> list[Cursor]:
        """Drop what lies before ``offset``, and leave behind the readers that have not taken it: they will come back.

        So a slow reader never keeps a fast one waiting; it reads what it missed again, on its own. Returns them.
        """
        self.drop_spare()
        while self.chunks and self.chunks[0].next_offset <= offset:
            self._account(self.ahead - self.chunks.popleft().size, 0)
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
            chunk = self.chunks.pop()
            self._account(self.ahead - chunk.size, self.spare)
            self.offset = chunk.start
            self.last_fetched_epoch = chunk.previous_epoch
            self.at_end = False

    def clear(self) -> None:
        """Drop everything."""
        self.chunks.clear()
        self._account(0, 0)

    @property
    def wanted_now(self) -> bool:
        """Whether a reader waits for what comes next."""
        return any(c.waiting is not None and c.offset >= self.offset for c in self.cursors.values())
