"""How long clients were without success in each fault, and after it."""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from reliability.fault_stage import Incident
from reliability.ledger import Findings, Series

__all__ = ["Recovery", "Spread", "recoveries"]


@dataclass
class Spread:
    """Seconds, of which the median and the worst are shown."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else 0.0

    @property
    def worst(self) -> float:
        return max(self.seconds, default=0.0)

    def __str__(self) -> str:
        return f"{self.median:.1f} / {self.worst:.1f}" if self.seconds else "-"


@dataclass
class Recovery:
    """What one library's clients lived through in all faults of one kind. A client counts with the worst of its own."""

    faults: int = 0
    ack_silence: Spread = field(default_factory=Spread)
    """Of each producer: the longest time without an acknowledgement from one of its partitions."""
    ack_after_heal: Spread = field(default_factory=Spread)
    """Of each producer: from the end of the fault until all its partitions have acknowledged something."""
    read_silence: Spread = field(default_factory=Spread)
    """Of each group: the longest time in which one of its partitions was not read."""
    read_after_heal: Spread = field(default_factory=Spread)
    """Of each consumer: from the end of the fault until it has read something."""
    late: int = 0
    """Clients that had not recovered when the next fault began."""
    never: int = 0
    """Clients that had not recovered when the traffic ended."""


def recoveries(findings: Findings, incidents: list[Incident], until: float) -> dict[str, Recovery]:
    """By kind of fault, and of all together as "all"."""
    found: dict[str, Recovery] = defaultdict(Recovery)
    producers, groups = by_owner(findings.acks), by_owner(findings.reads)
    consumers = {name: [times] for name, times in findings.reads_by_consumer.items()}
    for incident in incidents:
        for recovery in (found[incident.kind], found["all"]):
            recovery.faults += 1
            for series in producers.values():
                recovery.ack_silence.seconds.append(silence(series, incident, until))
                count(recovery, recovery.ack_after_heal, series, incident, until)
            for series in groups.values():
                recovery.read_silence.seconds.append(silence(series, incident, until))
            for series in consumers.values():
                count(recovery, recovery.read_after_heal, series, incident, until)
    return dict(found)


def by_owner(series: Series) -> Mapping[object, list[list[float]]]:
    owners: dict[object, list[list[float]]] = defaultdict(list)
    for (owner, _), times in series.items():
        owners[owner].append(times)
    return owners


def silence(series: Collection[list[float]], incident: Incident, until: float) -> float:
    """The longest time without success in any of the series, from the fault's begin until the next one's.

    Where there was none at all after the fault, it goes on until there was: into the next fault, or to the end.
    """
    longest = 0.0
    for times in series:
        end = max(incident.calm_until, next(iter(times[bisect_left(times, incident.healed) :][:1]), until))
        within = times[bisect_left(times, incident.began) : bisect_right(times, end)]
        longest = max([longest, *(b - a for a, b in pairwise([incident.began, *within, end]))])
    return longest


def count(
    recovery: Recovery, spread: Spread, series: Collection[list[float]], incident: Incident, until: float
) -> None:
    """Add the time from the end of the fault until there was success in all of the series."""
    firsts = [next(iter(times[bisect_left(times, incident.healed) :][:1]), None) for times in series]
    found = [first for first in firsts if first is not None]
    if not series or len(found) < len(firsts):
        recovery.never += 1
        found.append(until)
    last = max(found)
    recovery.late += last > incident.calm_until
    spread.seconds.append(last - incident.healed)
