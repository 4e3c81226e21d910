"""Connections lent to one request at a time."""

from __future__ import annotations

from collections import defaultdict

from pooledkafka._wire.lanes import Lane, LaneKey

__all__ = ["Leases"]


class Leases:
    """Decides which leased connection of a broker a parking request gets; opens and closes nothing itself.

    The free connection with the lowest number is lent first, so that after a burst the same few stay in use and the
    rest become idle and can be closed. There is no upper bound here: members of one group that join at once must all be
    let in, since each JoinGroup waits on the broker for the others, and ``Joins`` counts whole groups.

    Used on the I/O thread only. ``now`` is in seconds, of any steady clock.
    """

    def __init__(self) -> None:
        self._lent: defaultdict[int, set[int]] = defaultdict(set)  # node id -> indexes in use
        self._free_since: dict[LaneKey, float] = {}

    def acquire(self, node_id: int) -> LaneKey:
        """Lend a connection to ``node_id`` that nobody else uses until it is released."""
        lent = self._lent[node_id]
        index = next(i for i in range(len(lent) + 1) if i not in lent)
        lent.add(index)
        key = LaneKey(node_id, Lane.LEASED, index)
        self._free_since.pop(key, None)
        return key

    def release(self, key: LaneKey, now: float) -> None:
        """Take the connection back; the next request may have it."""
        self._lent[key.node_id].remove(key.number)
        self._free_since[key] = now

    def idle_in(self, now: float, idle_s: float) -> float | None:
        """In how many seconds the next connection will have been idle for ``idle_s``; None where none is free."""
        return max(0.0, min(self._free_since.values()) + idle_s - now) if self._free_since else None

    def take_idle(self, now: float, idle_s: float) -> list[LaneKey]:
        """The connections that nobody has used for ``idle_s`` and that should be closed now."""
        idle = [key for key, since in self._free_since.items() if now - since >= idle_s]
        for key in idle:
            del self._free_since[key]
        return idle
