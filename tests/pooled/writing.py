"""Numbered records, so that one that is lost, doubled or out of order shows."""

from __future__ import annotations

import itertools

from pooledkafka import Producer
from tests.pooled.waiting import TIMEOUT_S

__all__ = ["Writer"]


class Writer:
    """Writes records with values that are counted up; keeps them, by topic and partition."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self._numbers = itertools.count()
        self._written: dict[tuple[str, int], list[bytes]] = {}

    def write(self, topic: str, count: int = 1, *, partition: int = 0, size: int = 0) -> list[bytes]:
        """Write so many records, of ``size`` bytes or more, and wait for their answers; returns their values."""
        values = [(b"%d" % next(self._numbers)).ljust(size, b".") for _ in range(count)]
        for future in [self.producer.send(topic, value, partition=partition) for value in values]:
            future.get(timeout=TIMEOUT_S)
        self._written.setdefault((topic, partition), []).extend(values)
        return values

    def written(self, topic: str, partition: int = 0) -> list[bytes]:
        """All that was written to a partition and is there, in its order."""
        return list(self._written.get((topic, partition), ()))

    def lost(self, topic: str, from_offset: int) -> None:
        """The records of partition 0 from an offset on are not there any more."""
        del self._written[topic, 0][from_offset:]

    def has_written(self, topic: str, value: bytes) -> None:
        """A record that was sent by other means is in partition 0 now, after all others."""
        self._written[topic, 0].append(value)
