"""Which groups may join at the same time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

__all__ = ["Joins"]


class Joins:
    """Admits whole groups to joining, so that no two wait for each other's connections or permits.

    Each JoinGroup waits on the broker until all members of its group have sent theirs. If only some members of each of
    two groups got in, neither group could ever complete. So a group is let in only where there is room for all its
    members in this pool, and groups wait in the order in which they came. A group that is alone may take all the room;
    several together leave ``spare`` places free.

    Used on the I/O thread only. ``capacity`` None: as many as there are.
    """

    def __init__(self, capacity: int | None, spare: int = 0) -> None:
        self._capacity = capacity
        self._spare = spare
        self.members: Counter[str] = Counter()  # consumers of this pool by group
        self._active: Counter[str] = Counter()  # requests admitted and not done, by group
        self._taken = 0  # places, by all groups that are active
        self._waiting: deque[tuple[str, Callable[[], None]]] = deque()

    @property
    def waiting(self) -> int:
        """How many joins wait for their group's turn."""
        return len(self._waiting)

    def enter(self, group: str, admitted: Callable[[], None]) -> None:
        """Call ``admitted`` when ``group`` may join: at once if it does already or there is room for all of it."""
        if self._has_room(group) and (group in self._active or not self._waiting):
            self._admit(group)
            admitted()
        else:
            self._waiting.append((group, admitted))

    def attach(self, group: str) -> None:
        """There is one more consumer of ``group`` in this pool."""
        before = self._places(group)
        self.members[group] += 1
        self._resize(group, before)

    def detach(self, group: str) -> None:
        """There is one less; what room that makes is for those who wait."""
        before = self._places(group)
        self.members[group] -= 1
        if not self.members[group]:
            del self.members[group]
        self._resize(group, before)
        self._admit_waiting()

    def leave(self, group: str) -> None:
        """One request of ``group`` is done."""
        self._active[group] -= 1
        if not self._active[group]:
            del self._active[group]
            self._taken -= self._places(group)
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        still_waiting: deque[tuple[str, Callable[[], None]]] = deque()
        let_in: list[Callable[[], None]] = []
        for group, admitted in self._waiting:
            # Members of a group that was let in go with it, past others that have to wait.
            if self._has_room(group) and (group in self._active or not still_waiting):
                self._admit(group)
                let_in.append(admitted)
            else:
                still_waiting.append((group, admitted))
        self._waiting = still_waiting
        for admitted in let_in:
            admitted()

    def _admit(self, group: str) -> None:
        if group not in self._active:
            self._taken += self._places(group)
        self._active[group] += 1

    def _resize(self, group: str, before: int) -> None:
        if group in self._active:
            self._taken += self._places(group) - before

    def _has_room(self, group: str) -> bool:
        places = self._places(group)
        others = self._taken - places if group in self._active else self._taken
        if self._capacity is None or not others:
            return True
        return others + places <= self._capacity - self._spare

    def _places(self, group: str) -> int:
        return max(1, self.members[group])
