"""What the parked request asks for, from one to the next."""

from __future__ import annotations

from collections import Counter

from kafka.structs import TopicPartition

from pooledkafka._fetch.model import Line, Position
from pooledkafka._fetch.stream import Stream

__all__ = ["Standing"]


class Standing:
    """The streams that the parked request covers.

    They stay covered while it is answered and sent again, but for those that were answered or have otherwise changed:
    one that is hot costs the same beside thousands that are idle as beside none.
    """

    def __init__(self) -> None:
        self.streams: dict[TopicPartition, Stream] = {}
        self.positions: dict[TopicPartition, Position] = {}  # what the last request asked for
        self._sizes: Counter[int] = Counter()  # how many streams have each max_bytes
        self._left: dict[TopicPartition, None] = {}  # no longer covered since the last request
        self._unsettled: dict[Stream, None] = {}  # covered, and changed since

    @property
    def largest(self) -> int:
        """The most bytes that any of the streams asks for."""
        return max(self._sizes, default=0)

    def unsettle(self, stream: Stream) -> None:
        """Have a covered stream looked at before the next request."""
        self._unsettled[stream] = None

    def take_unsettled(self) -> list[Stream]:
        """Those, which are no longer covered."""
        unsettled, self._unsettled = self._unsettled, {}
        taken = [stream for stream in unsettled if stream.in_flight is Line.PARKED]
        for stream in taken:
            self.remove(stream)
        return taken

    def add(self, stream: Stream) -> None:
        """Cover a stream, of a partition that is not covered."""
        self.streams[stream.partition] = stream
        self._sizes[stream.max_bytes] += 1
        stream.in_flight = Line.PARKED

    def remove(self, stream: Stream) -> None:
        """Cover it no longer."""
        del self.streams[stream.partition]
        self._sizes[stream.max_bytes] -= 1
        if not self._sizes[stream.max_bytes]:
            del self._sizes[stream.max_bytes]
        self._left[stream.partition] = None
        stream.in_flight = None

    def clear(self) -> list[Stream]:
        """Cover none, as if there had been no request yet; returns those that were."""
        streams = list(self.streams.values())
        for stream in streams:
            self.remove(stream)
        self.positions = {}
        self._left.clear()
        return streams

    def differences(self, added: list[Stream]) -> tuple[dict[TopicPartition, Position], list[TopicPartition]]:
        """What the next request asks for that the last did not, or not so, and what it no longer asks for."""
        left, self._left = self._left, {}
        forgotten = [partition for partition in left if partition not in self.streams and partition in self.positions]
        for partition in forgotten:
            del self.positions[partition]
        changed = {}
        for stream in added:
            position = stream.position
            if self.positions.get(stream.partition) != position:
                changed[stream.partition] = self.positions[stream.partition] = position
        return changed, forgotten
