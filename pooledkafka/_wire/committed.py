"""Keeps a consumer from taking an old answer for what its group has committed now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kafka.future import Future
from kafka.structs import TopicPartition

__all__ = ["OffsetFetches"]


class OffsetFetches(dict[Any, Future]):
    """In place of the coordinator's futures of OffsetFetch requests, by partitions: of this generation only.

    A poll that cannot wait for the answer leaves its future for the next one. Where a rebalance comes in between, and
    the member gets the same partitions only much later, kafka-python takes what was committed then for what is
    committed now: the group goes back as far, and reads and commits it all again. (Java's client compares the
    generations, too.) Likewise ``committed()`` would say what was committed before the consumer's last commit.

    Used on the I/O thread only, as the coordinator's are.
    """

    def __init__(self, coordinator: Any) -> None:
        super().__init__()
        self._coordinator = coordinator
        self._asked_in: dict[Any, tuple[int, str]] = {}  # the generation in which each was asked

    def __contains__(self, partitions: object) -> bool:
        return super().__contains__(partitions) and self._asked_in[partitions] == self._generation()

    def __setitem__(self, partitions: Any, future: Future) -> None:
        now = self._generation()
        for old in [key for key, generation in self._asked_in.items() if generation != now]:
            del self[old]
        self._asked_in[partitions] = now
        super().__setitem__(partitions, future)

    def __delitem__(self, partitions: Any) -> None:
        del self._asked_in[partitions]
        super().__delitem__(partitions)

    def outdate(self, partitions: Iterable[TopicPartition]) -> None:
        """What was committed for these is about to change.

        Not for others: those for which a position is still to be found are never among what a consumer commits, so it
        is found however often there is a commit.
        """
        changing = set(partitions)
        for key in [key for key in self._asked_in if changing & key]:
            del self[key]

    def _generation(self) -> tuple[int, str]:
        generation = self._coordinator._generation
        return generation.generation_id, generation.member_id
