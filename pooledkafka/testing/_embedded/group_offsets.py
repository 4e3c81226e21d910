"""The offsets that one group has committed, and those that transactions will commit for it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Committed", "GroupOffsets"]

Key = tuple[str, int]


@dataclass(frozen=True)
class Committed:
    """What OffsetCommit said of one partition."""

    offset: int
    leader_epoch: int
    metadata: str


class GroupOffsets:
    """Committed offsets by topic and partition (OffsetMetadataManager).

    What a transaction commits is staged until it is resolved. Of several commits of one partition the one that was made
    last counts, not the one whose transaction ended last: so each gets a number.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._committed: dict[Key, tuple[int, Committed]] = {}
        self._staged: dict[int, dict[Key, tuple[int, Committed]]] = {}

    def commit(self, offsets: Mapping[Key, Committed]) -> None:
        """Commit outside of any transaction."""
        self._committed.update(self._numbered(offsets))

    def stage(self, producer_id: int, offsets: Mapping[Key, Committed]) -> None:
        """Note what a producer's open transaction will commit."""
        self._staged.setdefault(producer_id, {}).update(self._numbered(offsets))

    def resolve(self, producer_id: int, commits: bool) -> None:
        """A producer's transaction has ended: what it staged is committed or forgotten."""
        for key, made in self._staged.pop(producer_id, {}).items():
            if commits and (key not in self._committed or self._committed[key][0] < made[0]):
                self._committed[key] = made

    def committed(self, key: Key) -> Committed | None:
        """The committed offset of a partition; None where there is none."""
        return self._committed[key][1] if key in self._committed else None

    def all(self) -> dict[Key, Committed]:
        """All that is committed."""
        return {key: committed for key, (_, committed) in self._committed.items()}

    def is_pending(self, key: Key) -> bool:
        """Whether an open transaction will commit an offset of this partition."""
        return any(key in staged for staged in self._staged.values())

    def delete(self, key: Key) -> None:
        """Forget what is committed or staged of a partition, if there is anything."""
        for offsets in (self._committed, *self._staged.values()):
            offsets.pop(key, None)

    def delete_topic(self, topic: str) -> None:
        """Forget what is committed or staged of a topic's partitions."""
        keys = {key for offsets in (self._committed, *self._staged.values()) for key in offsets if key[0] == topic}
        for key in keys:
            self.delete(key)

    def _numbered(self, offsets: Mapping[Key, Committed]) -> dict[Key, tuple[int, Committed]]:
        return {key: (next(self._numbers), committed) for key, committed in offsets.items()}
