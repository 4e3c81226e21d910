"""One consumer as a multiplexer knows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kafka.structs import TopicPartition

from pooledkafka._fetch.model import LogicalFetch, Position

if TYPE_CHECKING:
    from pooledkafka._fetch.stream import Stream

__all__ = ["Reader"]


@dataclass(eq=False)
class Reader:
    """What one consumer asks for, and where it reads.

    A consumer of ten thousand partitions asks for all of them again when one has brought it records. What it asked for
    before in the same way stays as it is: only the difference is looked at, and only partitions with news are answered.
    """

    number: int
    fetch: LogicalFetch | None = None  # that waits
    asked: dict[TopicPartition, Position | None] = field(default_factory=dict)
    """What its last fetch asked for; None where it has to be placed anew in any case."""
    asked_at: float = 0.0  # when it last began or ceased to wait
    places: dict[TopicPartition, Stream] = field(default_factory=dict)
    """Where it has a cursor."""
    news: dict[TopicPartition, None] = field(default_factory=dict)
    """Where there may be something to tell, the oldest first."""
    lost: bool = False  # the fetch that waits has lost its place in a partition: nothing will come there

    def looks_anew(self, partition: TopicPartition) -> None:
        """Have a partition placed anew when it is next asked for."""
        if partition in self.asked:
            self.asked[partition] = None

    def loses(self, partition: TopicPartition) -> None:
        """It has no place in a partition any more."""
        del self.places[partition]
        self.news.pop(partition, None)
        if partition in self.asked:
            self.asked[partition] = None
            self.lost = True
