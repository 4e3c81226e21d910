"""Groups of several members that all start at once: the time until each group is balanced."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.cases import Case, Result
from benchmarks.libraries import Library, Partitions
from benchmarks.polling import PollingConsumer, errors_of, wait_until

__all__ = ["GroupsCase", "balanced"]


def balanced(views: Iterable[Partitions], partitions: int) -> bool:
    """Whether, as the members see it, each partition has exactly one owner and they are evenly spread."""
    owned = list(views)
    owners = Counter(partition for view in owned for partition in view)
    sizes = [len(view) for view in owned]
    return len(owners) == partitions == owners.total() and max(sizes) - min(sizes) <= 1


@dataclass(frozen=True, kw_only=True)
class GroupsCase(Case):
    benchmark = "groups"
    named_by = ("groups", "members")

    topic: str
    partitions: int
    groups: int
    members: int
    within_s: float  # for all groups to be balanced
    settle_s: float  # after that, to see whether they stay so

    def about_s(self) -> float:
        return 4 + self.settle_s + self.groups * self.members / 20

    def measure(self, library: Library) -> Result:
        """Start all members of all groups at once, and time each group until it is balanced."""
        name = uuid.uuid4().hex[:8]
        start = time.monotonic()
        everybody = [
            [PollingConsumer(library, self.topic, f"bench-{name}-{group}") for _ in range(self.members)]
            for group in range(self.groups)
        ]
        balanced_s: list[float | None] = [None] * self.groups

        def all_balanced() -> bool:
            for number, members in enumerate(everybody):
                if balanced_s[number] is None and balanced((member.owned for member in members), self.partitions):
                    balanced_s[number] = max(member.changed_at for member in members) - start
            return None not in balanced_s

        wait_until(all_balanced, self.within_s)
        time.sleep(self.settle_s)
        consumers = [member for members in everybody for member in members]
        PollingConsumer.end(consumers)
        stayed = sum(balanced((member.held for member in members), self.partitions) for members in everybody)
        return {"balanced_s": balanced_s, "balanced_at_the_end": stayed, "errors": errors_of(consumers)}
