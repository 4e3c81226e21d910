"""The markers that end a transaction, on their way to its partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kafka.errors import NotEnoughReplicasError

from .batches import Batch
from .partition import Partition

__all__ = ["Marker", "all_through"]


class Marker:
    """One for one partition: written as soon as it can be, and again by a new leader that has not got it."""

    def __init__(self, partition: Partition, batch: Batch) -> None:
        self.partition = partition
        self._batch = batch
        self._end = -1
        self._epoch = -1  # in which it was written

    def is_through(self) -> bool:
        """Write it, if it can be written and is not yet; whether all replicas in sync have it, or nobody needs it."""
        partition = self.partition
        if partition.deleted:
            return True
        if partition.leader == -1:
            return False
        try:
            partition.check_in_sync()
        except NotEnoughReplicasError:
            return False
        if self._epoch != partition.leader_epoch:
            self._end = partition.append(self._batch).last_offset + 1
            self._epoch = partition.leader_epoch
        return partition.high_watermark >= self._end


async def all_through(markers: Sequence[Marker]) -> None:
    """Wait until all are through."""
    changed = asyncio.Event()
    for marker in markers:
        marker.partition.watch(changed)
    missing = list(markers)
    try:
        while True:
            changed.clear()
            missing = [marker for marker in missing if not marker.is_through()]
            if not missing:
                return
            await changed.wait()
    finally:
        for marker in markers:
            marker.partition.unwatch(changed)
