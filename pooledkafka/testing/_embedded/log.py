"""The log of one partition: batches one after the other, whose they are, and what readers may see of them."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

from .batches import Batch
from .sequences import Sequences

__all__ = ["AbortedTransaction", "Log"]


@dataclass(frozen=True)
class AbortedTransaction:
    """Records of a producer from the first offset on, up to its marker at the last, are void."""

    producer_id: int
    first_offset: int
    last_offset: int


class Log:
    """All batches of a partition. What it knows of producers and transactions follows from the batches alone."""

    def __init__(self) -> None:
        self.start_offset = 0
        self._batches: list[Batch] = []
        self._forget()

    def _forget(self) -> None:
        self.sequences = Sequences()
        self._open: dict[int, int] = {}  # first offset of each producer's open transaction
        self._aborted: list[AbortedTransaction] = []
        self._completed: list[tuple[int, int]] = []  # first offset and marker's offset of each transaction that ended

    @property
    def end_offset(self) -> int:
        """The offset of the next record."""
        return self._batches[-1].last_offset + 1 if self._batches else self.start_offset

    def append(self, batch: Batch, leader_epoch: int) -> Batch:
        """Put a batch at the end; returns it with its offsets."""
        batch = batch.at(self.end_offset, leader_epoch)
        self._batches.append(batch)
        self._note(batch)
        return batch

    def _note(self, batch: Batch) -> None:
        self.sequences.note(batch)
        if batch.is_control:
            first = self._open.pop(batch.producer_id, None)
            if first is not None:
                self._completed.append((first, batch.base_offset))
                if not batch.commits:
                    self._aborted.append(AbortedTransaction(batch.producer_id, first, batch.base_offset))
        elif batch.is_transactional:
            self._open.setdefault(batch.producer_id, batch.base_offset)

    def truncate(self, offset: int) -> None:
        """Remove every batch that reaches beyond ``offset``."""
        kept = [batch for batch in self._batches if batch.last_offset < offset]
        if len(kept) < len(self._batches):
            if not kept:
                self.start_offset = min(self.start_offset, offset)
            self._batches = kept
            self._forget()
            for batch in kept:
                self._note(batch)

    def delete_before(self, offset: int) -> None:
        """Let the log start at ``offset``, as DeleteRecords does; batches before it are removed."""
        self.start_offset = offset
        kept = [batch for batch in self._batches if batch.last_offset >= offset]
        if not kept and self._batches:
            # The end of an empty log is where it starts.
            self.start_offset = max(offset, self._batches[-1].last_offset + 1)
        self._batches = kept

    def read(self, offset: int, end: int, max_bytes: int, at_least_one: bool) -> bytes:
        """Batches from the one that holds ``offset``, up to offset ``end`` and ``max_bytes``.

        The last one may be cut off, as LogSegment does; but the first one comes whole, or where it is larger than
        ``max_bytes`` not at all, unless with ``at_least_one``.
        """
        read: list[bytes] = []
        left = max_bytes
        for batch in self.batches(offset, end):
            if not read and batch.size > left:
                return batch.data if at_least_one else b""
            read.append(batch.data[:left])
            left -= batch.size
            if left <= 0:
                break
        return b"".join(read)

    def batches(self, offset: int, end: int) -> Iterable[Batch]:
        """From the one that holds ``offset``, to the last one that ends before ``end``."""
        for index in range(self._index(offset), len(self._batches)):
            if self._batches[index].last_offset >= end:
                return
            yield self._batches[index]

    def is_open(self, producer_id: int, epoch: int | None = None) -> bool:
        """Whether a producer, and in this epoch, has written here since its last transaction ended."""
        return producer_id in self._open and epoch in (None, self.sequences.epoch_of(producer_id))

    def last_stable_offset(self, high_watermark: int) -> int:
        """Up to where transactions are decided: before the first that is open, or whose end is not replicated yet."""
        decided = bisect.bisect_left(self._completed, high_watermark, key=lambda completed: completed[1])
        undecided = [*self._open.values(), *(first for first, _ in self._completed[decided:])]
        return max(self.start_offset, min([high_watermark, *undecided]))

    def aborted(self, offset: int, end: int) -> list[AbortedTransaction]:
        """The aborted transactions with records from ``offset`` to before ``end``."""
        begin = bisect.bisect_left(self._aborted, offset, key=lambda aborted: aborted.last_offset)
        return [each for each in self._aborted[begin:] if each.first_offset < end]

    def end_of_epoch(self, epoch: int) -> tuple[int, int]:
        """The largest leader epoch up to this one that the log has, and the offset where it ends.

        As LeaderEpochFileCache does (KIP-101, KIP-279): where all batches are younger, the epoch itself, and where they
        begin.
        """
        younger = bisect.bisect_right(self._batches, epoch, key=lambda batch: batch.leader_epoch)
        end = self._batches[younger].base_offset if younger < len(self._batches) else self.end_offset
        return (self._batches[younger - 1].leader_epoch if younger else epoch), end

    def epoch_at(self, offset: int) -> int:
        """The leader epoch of the record at ``offset``; -1 if there is none."""
        index = self._index(offset)
        return self._batches[index].leader_epoch if index < len(self._batches) else -1

    def first_at_or_after(self, timestamp: int, end: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record that is as new as ``timestamp``, in ms."""
        for batch in self.batches(self.start_offset, end):
            if batch.max_timestamp >= timestamp and (found := batch.first_at_or_after(timestamp)):
                return found
        return None

    def newest(self, end: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record with the largest timestamp."""
        newest = max(self.batches(self.start_offset, end), key=lambda batch: batch.max_timestamp, default=None)
        return newest.first_at_or_after(newest.max_timestamp) if newest else None

    def _index(self, offset: int) -> int:
        return bisect.bisect_left(self._batches, offset, key=lambda batch: batch.last_offset)
