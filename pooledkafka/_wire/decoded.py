"""Batches that were decoded for one consumer, for all others of the pool that read the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from pooledkafka._locks import LockName, new_lock
from pooledkafka._records import Columns

__all__ = ["DecodedBatches"]

_RECORD_OVERHEAD = 500
"""Bytes counted for a decoded record beside its size: its Python objects."""


_HEADER_OVERHEAD = 150


class _Chunk:
    """What was decoded of the bytes of one answer."""

    def __init__(self, data: bytes) -> None:
        self.data = data  # lives as long as this, so that no other bytes have its id()
        # Guards batches; held while one is decoded, so that others wait for it.
        self.decoding = new_lock(LockName.DECODING)
        self.batches: dict[Hashable, Columns] = {}
        self.cost = len(data)  # guarded by the lock of DecodedBatches


class DecodedBatches:
    """Keeps what was decoded last, up to about ``limit`` bytes. From any thread.

    Consumers of several groups that read the same records get them from the same answer of a broker: the first one
    decodes a batch, the others find it here. With one consumer there is nobody to keep it for.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = new_lock(LockName.DECODED)  # guards all below
        self._consumers = 0
        self._chunks: OrderedDict[int, _Chunk] = OrderedDict()  # by id() of the bytes, the least recently used first
        self._used = 0

    def serve(self, consumers: int) -> None:
        """There are so many consumers now; nothing is kept for the last."""
        with self._lock:
            self._consumers = consumers
            if consumers < 2:
                self._chunks.clear()
                self._used = 0

    def columns(self, data: bytes, batch: Hashable, decode: Callable[[], Columns]) -> Columns:
        """What ``decode`` makes of ``batch``, which lies in ``data``, or made of it for another consumer."""
        chunk = self._chunk(data)
        if chunk is None:
            return decode()
        with chunk.decoding:
            columns = chunk.batches.get(batch)
            if columns is None:
                columns = chunk.batches[batch] = decode()  # where it raises, the next one tries again
                self._account_for(chunk, columns)
        return columns

    def _chunk(self, data: bytes) -> _Chunk | None:
        key = id(data)
        with self._lock:
            if self._consumers < 2:
                return None
            chunk = self._chunks.get(key)
            if chunk is None:
                chunk = self._chunks[key] = _Chunk(data)
                self._used += chunk.cost
            else:
                self._chunks.move_to_end(key)
            return chunk

    def _account_for(self, chunk: _Chunk, columns: Columns) -> None:
        cost = columns.size + _RECORD_OVERHEAD * len(columns.offsets)
        if columns.headers:
            cost += _HEADER_OVERHEAD * sum(map(len, columns.headers))
        with self._lock:
            if self._chunks.get(id(chunk.data)) is chunk:  # else it was dropped meanwhile
                chunk.cost += cost
                self._used += cost
                while self._used > self._limit and self._chunks:
                    _, dropped = self._chunks.popitem(last=False)
                    self._used -= dropped.cost
