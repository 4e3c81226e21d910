"""When the members of a pool send their heartbeats."""

from __future__ import annotations

import random
import time
from typing import Any

from kafka.coordinator.heartbeat import Heartbeat

__all__ = ["BeatInTurn"]

_TURNS = 12


class BeatInTurn(Heartbeat):  # type: ignore[misc]
    """Beats at one of twelve moments in each heartbeat interval, with the other members that beat at that one.

    What wakes the event loop costs more than a heartbeat: who beats together shares it. Not all do, since whoever comes
    next on that connection waits for them; and who was made together does not beat together, since each draws its
    moment. Never later than kafka-python's own: after a join, and after a heartbeat that failed, up to an interval
    earlier.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._turn = random.randrange(_TURNS)

    def time_to_next_heartbeat(self) -> float:
        in_s = float(super().time_to_next_heartbeat())
        if self.heartbeat_failed:
            return in_s
        now = time.monotonic()
        interval_s: float = self.config["heartbeat_interval_ms"] / 1000
        # The last of its moments that is not after the time that kafka-python has for it.
        late_s = (now + in_s - self._turn * interval_s / _TURNS) % interval_s
        return max(0.0, in_s - late_s)
