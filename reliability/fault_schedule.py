"""Which faults come in which order, from a seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum

__all__ = ["Fault", "Kind", "Pace", "faults"]


class Kind(Enum):
    """What is done to the cluster."""

    PAUSE = "pause"
    KILL = "kill"
    RESTART = "restart"
    CUT_FROM_CLIENTS = "cut off from clients"
    CUT_FROM_BROKERS = "cut off from brokers"
    ROLLING_RESTART = "rolling restart"
    MOVE_LEADERS = "leaders move"
    MOVE_COORDINATORS = "coordinators move"


@dataclass(frozen=True)
class Pace:
    """How long faults last and how long it is calm after each, in seconds: from, to."""

    hold_s: tuple[float, float] = (2.0, 20.0)
    """Short ones end before anybody has timed out; long ones get a broker fenced, and members out of their groups."""
    calm_s: tuple[float, float] = (4.0, 10.0)


@dataclass(frozen=True)
class Fault:
    """One of them. ``node_id`` and ``hold_s`` are of those that befall one broker for a while."""

    kind: Kind
    node_id: int
    hold_s: float
    calm_s: float


def faults(
    seed: int, node_ids: Collection[int], kinds: Collection[Kind] = tuple(Kind), pace: Pace | None = None
) -> Iterator[Fault]:
    """Endlessly many; the same for the same arguments. Each kind comes once before any comes again."""
    pace = pace or Pace()
    rng = random.Random(seed)
    while True:
        for kind in rng.sample(list(kinds), len(kinds)):
            yield Fault(kind, rng.choice(sorted(node_ids)), rng.uniform(*pace.hold_s), rng.uniform(*pace.calm_s))
