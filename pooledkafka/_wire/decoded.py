"""Batches that were decoded for one consumer, for all others of the pool that read the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import count
from weakref import ref

from pooledkafka._locks import LockName, new_lock
from pooledkafka._wire.record_batch import RecordBatch

__all__ = ["DecodedBatches"]

# Bytes counted for the objects that a batch and its records are made of, and made into, beside their own.
_BATCH = 1_200
_TAKEN_IN = 250
_RECORD = 300
_KEY = 50
_HEADER = 150
_PLACE = 450


class _Place:
    """Where a batch is found, and how many are to come for it; also without it, where there was no room for it."""

    __slots__ = ("batch", "decoding", "left", "made_in")

    def __init__(self, readers: int) -> None:
        self.decoding = new_lock(LockName.DECODING)  # held while it is decoded, so that others wait for it
        # To count down is one step, into which no other thread comes. Who makes the place has had it.
        self.left = count(readers - 1, -1)
        self.made_in = 0  # guarded by the lock of DecodedBatches
        # The batch as long as it is kept or anybody reads it, as those do who waited until it was decoded. Guarded by
        # ``decoding``, but for reading.
        self.batch: Callable[[], RecordBatch | None] = _nothing


def _nothing() -> None:
    return None


class DecodedBatches:
    """Keeps what was decoded until all have had it, up to about ``limit`` bytes. From any thread.

    Consumers of several groups read the same batches, one soon after the other: the first one decodes a batch, the
    others find it here. To keep it any longer would cost more than memory: the garbage collector looks at its records
    again and again. What nobody comes for, because a consumer has paused, say, or left, goes with ``sweep``.

    Where consumers are too far apart, those behind decode again what there was no room for, and it is kept for as many
    as have not had it. For all, it would fill the room with what nobody comes for, and more and more be decoded again.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = new_lock(LockName.DECODED)  # guards all below; the I/O thread only tries to take it
        self._places: dict[Hashable, _Place] = {}  # the oldest first; read without the lock, for which all would wait
        self._kept: dict[Hashable, tuple[RecordBatch, int]] = {}  # and what each costs; the one kept longest first
        self._used = 0  # what all these cost
        self._sweeps = 0

    def find(self, key: Hashable) -> RecordBatch | None:
        """The batch that ``key`` tells from all others, if it was decoded."""
        place = self._places.get(key)
        if place is None:
            return None
        batch = place.batch()
        if batch is not None:
            self._count(key, place)
        return batch

    def batch(self, key: Hashable, readers: int, decode: Callable[[], RecordBatch]) -> RecordBatch:
        """That batch as ``decode`` returns it, or has returned it to another one of so many ``readers``.

        While another one decodes it, it waits for that.
        """
        new = _Place(readers)
        with new.decoding:  # before others can find it: who makes the place is who decodes first
            with self._lock:
                new.made_in = self._sweeps
                place = self._places.setdefault(key, new)
            if place is new:
                return self._decoded(key, place, decode)
        with place.decoding:
            batch = place.batch()
            self._count(key, place)
            return self._decoded(key, place, decode) if batch is None else batch

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
            # Anew, since an interrupt may have come between two steps.
            self._used = sum(cost for _, cost in self._kept.values())
        finally:
            self._lock.release()

    def _decoded(self, key: Hashable, place: _Place, decode: Callable[[], RecordBatch]) -> RecordBatch:
        try:
            batch = decode()
        except BaseException:  # the next one tries again
            with self._lock:
                self._drop(key, place)
            raise
        place.batch = ref(batch)
        with self._lock:
            if self._places.get(key) is place:  # else it was for the last, or was forgotten meanwhile
                place.made_in = self._sweeps
                self._keep(key, batch)
        return batch

    def _count(self, key: Hashable, place: _Place) -> None:
        """One more has had it."""
        if next(place.left) <= 1:
            with self._lock:
                self._drop(key, place)

    def _keep(self, key: Hashable, batch: RecordBatch) -> None:
        cost = _cost(batch)
        self._kept[key] = batch, cost
        self._used += cost
        while self._kept and self._used + _PLACE * len(self._places) > self._limit:
            self._empty(next(iter(self._kept)))
        while _PLACE * len(self._places) > self._limit:
            self._drop(*next(iter(self._places.items())))

    def _drop(self, key: Hashable, place: _Place) -> None:
        if self._places.get(key) is place:
            self._empty(key)
            del self._places[key]

    def _empty(self, key: Hashable) -> None:
        if key in self._kept:
            _, cost = self._kept.pop(key)
            self._used -= cost


def _cost(batch: RecordBatch) -> int:
    columns = batch.columns
    cost = _BATCH + _TAKEN_IN * batch.taken_in + columns.size + _RECORD * len(columns)
    if columns.keys:
        cost += _KEY * len(columns)
    if columns.headers:
        cost += _HEADER * sum(map(len, columns.headers))
    return cost
