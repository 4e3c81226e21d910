"""Connections lent to one request at a time."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable

from pooledkafka._wire.lanes import Lane, LaneKey

__all__ = ["AT_ONCE", "Leases"]

AT_ONCE = 10
"""How many connections to one broker may be opened at one instant, after a while in which none was."""

Granted = Callable[["LaneKey | None"], None]


class Leases:
    """Decides which leased connection of a broker a parking request gets; opens and closes nothing itself.

    The connection with the lowest number that is open and free is lent first, so that after a burst the same few stay
    in use and the rest become idle and can be closed. Where none is free, some may be opened at once, and after them so
    many ``per_second``: who comes then waits for one of these, or for one that is given back, whichever is first. When
    hundreds of groups join together, most joins are answered in milliseconds, and few connections serve them all.

    A group that has a connection gets as many as it asks for, and others wait the longer: each JoinGroup waits on the
    broker for the others of its group. There is no upper bound here, since those others may be of another pool, which
    waits for groups of this one; ``Joins`` counts whole groups.

    Used on the I/O thread only. ``now`` is in seconds, of any steady clock. ``is_open`` says whether a connection is.
    """

    def __init__(self, per_second: float, is_open: Callable[[LaneKey], bool]) -> None:
        self._per_second = per_second
        self._is_open = is_open
        self._lent: dict[LaneKey, str | None] = {}  # to a request of which group
        self._free_since: dict[LaneKey, float] = {}
        self._waiting: defaultdict[int, deque[tuple[str | None, Granted]]] = defaultdict(deque)  # by node id
        self._may_open: dict[int, tuple[float, float]] = {}  # node id -> how many, at what time

    @property
    def waiting(self) -> int:
        """How many requests wait for a connection."""
        return sum(map(len, self._waiting.values()))

    def acquire(
        self, node_id: int, granted: Granted, now: float, *, group: str | None = None, first: bool = False
    ) -> None:
        """Call ``granted`` with a connection to ``node_id`` that nobody else uses until it is released.

        ``first``: before all who wait already. ``granted(None)``: the broker could not be reached meanwhile.
        """
        if first:
            self._waiting[node_id].appendleft((group, granted))
        else:
            self._waiting[node_id].append((group, granted))
        self._lend(node_id, now)

    def release(self, key: LaneKey, now: float) -> None:
        """Take the connection back; the next request gets it."""
        del self._lent[key]
        self._free_since[key] = now
        self._lend(key.node_id, now)

    def refuse(self, node_id: int) -> None:
        """A broker cannot be reached: let those who wait for a connection to it look for another."""
        refused, self._waiting[node_id] = self._waiting[node_id], deque()
        for _, granted in refused:
            granted(None)

    def open_more(self, now: float) -> float | None:
        """Lend what may be opened by now; in how many seconds to call again, None where nobody waits."""
        for node_id in list(self._waiting):
            self._lend(node_id, now)
        waits = [self._opens_in(node_id, now) for node_id, waiting in self._waiting.items() if waiting]
        return min(waits, default=None)

    def _lend(self, node_id: int, now: float) -> None:
        waiting = self._waiting[node_id]
        while waiting:
            with_one = {group for key, group in self._lent.items() if key.node_id == node_id and group is not None}
            entry = next((entry for entry in waiting if entry[0] in with_one), None)
            free = [key for key in self._free_since if key.node_id == node_id and self._is_open(key)]
            if free:
                key = min(free, key=lambda key: key.number)
                del self._free_since[key]
            elif entry is not None or self._opens_in(node_id, now) <= 0:
                self._may_open[node_id] = self._left(node_id, now) - 1, now
                numbers = {lent.number for lent in self._lent if lent.node_id == node_id}
                key = LaneKey(node_id, Lane.LEASED, next(i for i in range(len(numbers) + 1) if i not in numbers))
                self._free_since.pop(key, None)
            else:
                return
            group, granted = entry = entry or waiting[0]
            waiting.remove(entry)
            self._lent[key] = group
            granted(key)

    def _left(self, node_id: int, now: float) -> float:
        """How many may be opened now; below zero after a group took more."""
        count, since = self._may_open.get(node_id, (float(AT_ONCE), now))
        return min(float(AT_ONCE), count + (now - since) * self._per_second)

    def _opens_in(self, node_id: int, now: float) -> float:
        # Who comes when told must not find a billionth lacking.
        lacking = 1 - self._left(node_id, now)
        return 0.0 if lacking < 1e-6 else lacking / self._per_second

    def idle_in(self, now: float, idle_s: float) -> float | None:
        """In how many seconds the next connection will have been idle for ``idle_s``; None where none is free."""
        return max(0.0, min(self._free_since.values()) + idle_s - now) if self._free_since else None

    def take_idle(self, now: float, idle_s: float) -> list[LaneKey]:
        """The connections that nobody has used for ``idle_s`` and that should be closed now."""
        idle = [key for key, since in self._free_since.items() if now - since >= idle_s]
        for key in idle:
            del self._free_since[key]
        return idle
