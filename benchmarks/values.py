"""Values to send: words, which a codec halves or better, like much that is sent."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Supply", "values"]

CHUNK_BYTES = 200_000
CHUNK_RECORDS = 1_000


def values(size: int, seed: int = 7) -> list[bytes]:
    """Different values of exactly that size, the same in every run; enough that no batch repeats one too often."""
    source = random.Random(seed)
    words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(3, 10))) for _ in range(2_000)]
    text = " ".join(source.choices(words, k=400_000)).encode()
    count = max(50, min(1_000, 2_000_000 // size))
    return [text[start : start + size] for start in (source.randrange(len(text) - size) for _ in range(count))]


@dataclass
class Supply:
    """Hands out values in chunks, until so many have been taken or so many seconds are over."""

    size: int
    records: int
    seconds: float
    taken: int = field(default=0, init=False)
    _length: int = field(init=False)
    _pool: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._length = max(1, min(CHUNK_RECORDS, CHUNK_BYTES // self.size))
        different = values(self.size)
        self._pool = different * (self._length // len(different) + 2)  # a chunk may begin anywhere in the first ones

    def __iter__(self) -> Iterator[list[bytes]]:
        deadline = time.monotonic() + self.seconds
        while self.taken < self.records and time.monotonic() < deadline:
            begin = self.taken % (len(self._pool) - self._length)
            chunk = self._pool[begin : begin + min(self._length, self.records - self.taken)]
            self.taken += len(chunk)
            yield chunk
