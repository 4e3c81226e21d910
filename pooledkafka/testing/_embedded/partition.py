"""A partition: its log, its replicas, and how far they have come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from kafka.errors import (
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    RequestTimedOutError,
)

from .batches import Batch
from .log import Log

__all__ = ["Partition"]


class Partition:
    """One log for all replicas, and for each follower the offset up to which it has copied it.

    Followers copy at once, unless ``follower_delay_s`` holds them back. A new leader has what it had copied: the rest
    is truncated, as on a real broker the rest would be lost.

    Args:
        topic, index: which partition.
        replicas: node ids, the preferred leader first.
        alive: those of them that are up.
        min_in_sync: how many must have a record before a producer with ``acks=all`` hears of it; asked each time.
        follower_delay_s: how long it takes to copy from a leader to a follower, by their node ids; None: for ever;
            asked each time.
        lag_max_s: after how long behind the leader a follower leaves the ISR.
    """

    def __init__(
        self,
        topic: str,
        index: int,
        replicas: Collection[int],
        alive: Collection[int],
        min_in_sync: Callable[[], int],
        follower_delay_s: Callable[[int, int], float | None],
        lag_max_s: float,
    ) -> None:
        self.topic = topic
        self.index = index
        self.replicas = list(replicas)
        self.in_sync = [node_id for node_id in self.replicas if node_id in alive]
        self.leader = self.in_sync[0] if self.in_sync else -1
        self.leader_epoch = 0
        self.log = Log()
        self.high_watermark = 0
        self.deleted = False
        self._min_in_sync = min_in_sync
        self._follower_delay_s = follower_delay_s
        self._lag_max_s = lag_max_s
        self._alive = set(alive)
        self._ends = dict.fromkeys(self.replicas, 0)  # of the followers' copies
        self._watchers: set[asyncio.Event] = set()

    # -- waiting for changes -------------------------------------------------------------------------------------------

    def watch(self, event: asyncio.Event) -> None:
        """Set ``event`` at every change that a reader or a producer may wait for, until ``unwatch``."""
        self._watchers.add(event)

    def unwatch(self, event: asyncio.Event) -> None:
        self._watchers.discard(event)

    def _changed(self) -> None:
        for event in self._watchers:
            event.set()

    # -- reading -------------------------------------------------------------------------------------------------------

    @property
    def last_stable_offset(self) -> int:
        return self.log.last_stable_offset(self.high_watermark)

    def readable_end(self, read_committed: bool) -> int:
        """The offset before which a consumer may read."""
        return self.last_stable_offset if read_committed else self.high_watermark

    def end_of_epoch(self, epoch: int) -> tuple[int, int]:
        """The largest leader epoch up to this one, and where it ends; (-1, -1) for one that has not begun.

        The latest epoch is one even where nothing was written in it: a leader notes it when it begins.
        """
        if not 0 <= epoch <= self.leader_epoch:
            return -1, -1
        return (epoch, self.log.end_offset) if epoch == self.leader_epoch else self.log.end_of_epoch(epoch)

    # -- writing -------------------------------------------------------------------------------------------------------

    def append(self, batch: Batch) -> Batch:
        """Append a batch as the leader does; followers copy it. Returns it with its offsets."""
        batch = self.log.append(batch, self.leader_epoch)
        self._replicate()
        return batch

    def delete_before(self, offset: int) -> int:
        """Remove the records before ``offset``, on all replicas; -1: all that are replicated. Returns where it starts.

        Raises OffsetOutOfRangeError.
        """
        offset = self.high_watermark if offset == -1 else offset
        if not 0 <= offset <= self.high_watermark:
            raise OffsetOutOfRangeError(f"offset {offset}; the records up to {self.high_watermark} can be deleted")
        if offset > self.log.start_offset:
            self.log.delete_before(offset)
            self._changed()
        return self.log.start_offset

    def check_in_sync(self) -> None:
        """Raise NotEnoughReplicasError where a record for all would reach too few replicas."""
        if len(self.in_sync) < self._needed():
            raise NotEnoughReplicasError(f"{len(self.in_sync)} replicas are in sync, {self._needed()} are needed")

    def _needed(self) -> int:
        """How many replicas must be in sync: never more than there are (Partition.effectiveMinIsr)."""
        return min(self._min_in_sync(), len(self.replicas))

    async def committed(self, end: int, epoch: int, timeout_s: float) -> None:
        """Wait until all in-sync replicas have everything before offset ``end``, that was appended in an epoch.

        Raises RequestTimedOutError, NotLeaderForPartitionError when the leader changes meanwhile, and
        NotEnoughReplicasAfterAppendError when too few were in sync at the end.
        """
        changed = asyncio.Event()
        self.watch(changed)
        try:
            deadline = asyncio.get_running_loop().time() + timeout_s
            while True:
                if self.leader_epoch != epoch or self.deleted:
                    raise NotLeaderForPartitionError("the leader changed before the records were replicated")
                if self.high_watermark >= end:
                    break
                left = deadline - asyncio.get_running_loop().time()
                changed.clear()
                try:
                    await asyncio.wait_for(changed.wait(), max(0.0, left))
                except asyncio.TimeoutError:
                    raise RequestTimedOutError("the followers did not copy the records in time") from None
        finally:
            self.unwatch(changed)
        if len(self.in_sync) < self._needed():
            raise NotEnoughReplicasAfterAppendError(f"only {len(self.in_sync)} replicas had the records")

    # -- replicas ------------------------------------------------------------------------------------------------------

    def end_of(self, node_id: int) -> int:
        """Up to which offset a replica has the log."""
        return self.log.end_offset if node_id == self.leader else self._ends[node_id]

    def up(self, node_id: int, unclean: bool) -> None:
        """A broker has come back: it catches up, and leads where nobody does."""
        self._alive.add(node_id)
        if self.leader == -1 and node_id in self.replicas and (node_id in self.in_sync or unclean):
            self.lead(node_id)
        else:
            self._replicate()

    def down(self, node_id: int, unclean: bool) -> None:
        """A broker has gone: it leaves the ISR, if it is not the last there, and another one leads."""
        self._alive.discard(node_id)
        if node_id not in self.replicas:
            return
        others = [each for each in self.in_sync if each != node_id and each in self._alive]
        if others:
            self.in_sync = others
        if self.leader == node_id:
            candidates = others or ([each for each in self.replicas if each in self._alive] if unclean else [])
            self.lead(candidates[0] if candidates else -1)
        else:
            self._replicate()

    def lead(self, node_id: int) -> None:
        """Make a replica the leader, or with -1 none; in a new epoch, with what it has copied."""
        if node_id == self.leader:
            return
        if self.leader != -1:
            self._ends[self.leader] = self.log.end_offset
        if node_id != -1:
            self.truncate_to(self._ends[node_id])
            if node_id not in self.in_sync:  # an unclean election
                self.in_sync = [node_id]
        self.leader = node_id
        self.leader_epoch += 1
        self._replicate()

    def truncate_to(self, offset: int) -> None:
        """Lose the records from ``offset`` on, on all replicas."""
        self.log.truncate(offset)
        end = self.log.end_offset
        self._ends = {node_id: min(copied, end) for node_id, copied in self._ends.items()}
        self.high_watermark = min(self.high_watermark, end)
        self._changed()

    def _replicate(self) -> None:
        """Let the followers copy what is new, now or after their delay."""
        if self.leader == -1 or self.deleted:
            self._changed()
            return
        loop = asyncio.get_running_loop()
        end, epoch = self.log.end_offset, self.leader_epoch
        for node_id in self.replicas:
            if node_id == self.leader or node_id not in self._alive:
                continue
            delay_s = self._follower_delay_s(self.leader, node_id)
            if delay_s == 0:
                self._copied(node_id, end, epoch)
            else:
                if delay_s is not None:
                    loop.call_later(delay_s, self._copied, node_id, end, epoch)
                loop.call_later(self._lag_max_s, self._lags, node_id, end, epoch)
        self._advance()

    def _copied(self, node_id: int, end: int, epoch: int) -> None:
        if epoch != self.leader_epoch or node_id not in self._alive:
            return
        self._ends[node_id] = max(self._ends[node_id], min(end, self.log.end_offset))
        if self._ends[node_id] >= self.high_watermark and node_id not in self.in_sync:
            self.in_sync.append(node_id)
        self._advance()

    def _lags(self, node_id: int, end: int, epoch: int) -> None:
        if epoch == self.leader_epoch and self._ends[node_id] < end and node_id in self.in_sync:
            self.in_sync.remove(node_id)
            self._advance()

    def _advance(self) -> None:
        in_sync = [self.end_of(node_id) for node_id in self.in_sync]
        self.high_watermark = max(self.high_watermark, min(in_sync, default=self.high_watermark))
        self._changed()

    def catch_up(self) -> None:
        """The followers' delays have changed."""
        self._replicate()

    def delete(self) -> None:
        """The topic is gone: whoever waits here is answered."""
        self.deleted = True
        self._changed()
