"""Batches that were decoded for one consumer, for all others of the pool that read the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import count

from pooledkafka._locks import LockName, new_lock
from pooledkafka._records import Columns
from pooledkafka._wire.record_batch import RecordBatch

__all__ = ["DecodedBatches"]

# Bytes counted for the objects that a batch and its records are made of, and made into, beside their own.
_BATCH = 1_200
_RECORD = 300
_KEY = 50
_HEADER = 150


class _Place:
    """Where a batch is kept."""

    __slots__ = ("batch", "cost", "decoding", "left", "made_in")

    def __init__(self, readers: int) -> None:
        self.decoding = new_lock(LockName.DECODING)  # held while it is decoded, so that others wait for it
        self.batch: RecordBatch | None = None  # guarded by decoding; read without, since once set it stays
        # How many are to come for it. To count down is one step, into which no other thread comes.
        self.left = count(readers - 1, -1)
        self.cost = 0  # guarded by the lock of DecodedBatches, as the next
        self.made_in = 0


class DecodedBatches:
    """Keeps what was decoded until all have had it, up to about ``limit`` bytes. From any thread.

    Consumers of several groups read the same batches, one soon after the other: the first one decodes a batch, the
    others find it here. To keep it any longer would cost more than memory: the garbage collector looks at its records
    again and again. What nobody comes for, because a consumer has paused, say, or left, goes with ``sweep``.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = new_lock(LockName.DECODED)  # guards all below; the I/O thread only tries to take it
        self._places: dict[Hashable, _Place] = {}  # the oldest first; read without the lock, for which all would wait
        self._used = 0
        self._sweeps = 0

    def find(self, key: Hashable) -> RecordBatch | None:
        """The batch that ``key`` tells from all others, if it was decoded."""
        place = self._places.get(key)
        if place is None or place.batch is None:
            return None
        if next(place.left) <= 1:
            with self._lock:
                self._drop(key, place)
        return place.batch

    def batch(self, key: Hashable, readers: int, decode: Callable[[], RecordBatch]) -> RecordBatch:
        """That batch as ``decode`` returns it, or has returned it to another one of so many ``readers``.

        While another one decodes it, it waits for that.
        """
        place = _Place(readers)
        with self._lock:
            place.made_in = self._sweeps
            place = self._places.setdefault(key, place)
        with place.decoding:
            batch = place.batch
            if batch is None:
                try:
                    batch = decode()
                except BaseException:  # the next one tries again
                    with self._lock:
                        self._drop(key, place)
                    raise
                self._account_for(key, place, _cost(batch.columns))
                place.batch = batch
                return batch
        return self.find(key) or batch

    def sweep(self, *, all_of_it: bool = False) -> None:
        """Forget what was decoded before the sweep before this one; to be called now and then.

        Does nothing this time where another thread is at it: the I/O thread must not wait for one that may wait for it.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._sweeps += 1
            since = self._sweeps if all_of_it else self._sweeps - 1
            for key, place in list(self._places.items()):
                if place.made_in < since:
                    self._drop(key, place)
        finally:
            self._lock.release()

    def _account_for(self, key: Hashable, place: _Place, cost: int) -> None:
        with self._lock:
            if self._places.get(key) is place:  # else it was forgotten meanwhile
                place.cost = cost
                self._used += cost
                while self._used > self._limit and self._places:
                    self._drop(*next(iter(self._places.items())))

    def _drop(self, key: Hashable, place: _Place) -> None:
        if self._places.get(key) is place:
            del self._places[key]
            # An interrupt may come before its cost is taken off: that is forgotten at the latest where all is gone.
            self._used = self._used - place.cost if self._places else 0


def _cost(columns: Columns) -> int:
    cost = _BATCH + columns.size + _RECORD * len(columns)
    if columns.keys:
        cost += _KEY * len(columns)
    if columns.headers:
        cost += _HEADER * sum(map(len, columns.headers))
    return cost
