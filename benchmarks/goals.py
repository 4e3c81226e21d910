"""What pooledkafka is to reach, as ratios to its peers in the same round, and the cases that tell."""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import consume, many_clients
from benchmarks.cases import Case, Plan, Result
from benchmarks.consume import MANY
from benchmarks.figures import in_columns, number, ratios, spread, which
from benchmarks.produce import ProduceCase

__all__ = ["GOALS", "QUICK", "Goal", "add_options", "goal_table", "plan"]

PARTITIONS = 6
MANY_CONSUMERS = 50
QUICK: dict[str, Any] = {
    "many": 3,
    "produce_records": 2_000,
    "consume_records": 2_000,
    "load": 1.0,
    "settle": 0.5,
    "idle": 0.5,
    "within": 15.0,
}

Some = tuple[str, dict[str, Any]]
"""A library, and what tells the case."""


def waiting(library: str, consumers: int | None = None) -> Some:
    """None: many, which are 50 but in a quick run."""
    return library, {"benchmark": "waiting", "consumers": consumers}


def producing(library: str, way: str, size: int, options: str) -> Some:
    return library, {"benchmark": "produce", "way": way, "size": size, "codec": "none", "options": options}


def reading(library: str, kind: str) -> Some:
    return library, {"benchmark": "consume", "kind": kind, "size": 200, "codec": "none"}


@dataclass(frozen=True)
class Goal:
    """A figure of the one over that of the other must be ``needed``: at least, at most or below a limit."""

    what: str
    figure: str
    above: Some
    below: Some
    needed: str
    limit: float

    def is_met(self, ratio: float) -> bool:
        if self.needed == "below":
            return ratio < self.limit
        return ratio >= self.limit if self.needed == "at least" else ratio <= self.limit


GOALS = (
    Goal(
        "idle CPU of {many} consumers, over confluent-kafka's",
        "idle_cpu_percent",
        waiting("pooledkafka"),
        waiting("confluent-kafka"),
        "at most",
        1.0,
    ),
    Goal(
        "{many} consumers from nothing to assigned, over confluent-kafka's time",
        "assigned_s",
        waiting("pooledkafka"),
        waiting("confluent-kafka"),
        "below",
        1.0,
    ),
    Goal(
        "send_batch, 200 bytes, over kafka-python's send",
        "records_per_s",
        producing("pooledkafka", "send_batch", 200, "same"),
        producing("kafka-python", "send", 200, "same"),
        "at least",
        8.0,
    ),
    Goal(
        "send_batch, 200 bytes, over confluent-kafka's produce",
        "records_per_s",
        producing("pooledkafka", "send_batch", 200, "same"),
        producing("confluent-kafka", "produce", 200, "same"),
        "at least",
        0.5,
    ),
    Goal(
        "send_batch, 200 bytes, default options, over kafka-python's send",
        "records_per_s",
        producing("pooledkafka", "send_batch", 200, "defaults"),
        producing("kafka-python", "send", 200, "defaults"),
        "at least",
        8.0,
    ),
    Goal(
        "send_batch, 200 bytes, default options, over confluent-kafka's produce",
        "records_per_s",
        producing("pooledkafka", "send_batch", 200, "defaults"),
        producing("confluent-kafka", "produce", 200, "defaults"),
        "at least",
        0.5,
    ),
    Goal(
        "send, 1000 bytes, default options, over kafka-python's",
        "records_per_s",
        producing("pooledkafka", "send", 1_000, "defaults"),
        producing("kafka-python", "send", 1_000, "defaults"),
        "at least",
        3.0,
    ),
    Goal(
        "one consumer, 200 bytes, over kafka-python's",
        "records_per_s",
        reading("pooledkafka", "1 consumer"),
        reading("kafka-python", "1 consumer"),
        "at least",
        2.0,
    ),
    Goal(
        f"{MANY} groups on one topic, all records, over confluent-kafka's time",
        "seconds",
        reading("pooledkafka", f"{MANY} groups"),
        reading("confluent-kafka", f"{MANY} groups"),
        "below",
        1.0,
    ),
    Goal(
        f"bytes received for {MANY} groups, over those for one consumer (what is in the topic being equal)",
        "received_times",
        reading("pooledkafka", f"{MANY} groups"),
        reading("pooledkafka", "1 consumer"),
        "at most",
        1.1,
    ),
    Goal(
        "end-to-end p99 beside {many} consumers, over that beside 1",
        "end_to_end_p99_ms",
        waiting("pooledkafka"),
        waiting("pooledkafka", 1),
        "at most",
        1.1,
    ),
    Goal(
        "end-to-end p99 beside {many} consumers, over kafka-python's",
        "end_to_end_p99_ms",
        waiting("pooledkafka"),
        waiting("kafka-python"),
        "at most",
        1.0,
    ),
)


def _many(results: list[Result]) -> int:
    """With fewer than were meant, as in a quick run, the table is only to be seen to work."""
    counts = [result["consumers"] for result in which(results, benchmark="waiting")]
    return MANY_CONSUMERS if MANY_CONSUMERS in counts else max(counts, default=0)


def _of(some: Some, results: list[Result]) -> list[Result]:
    library, what = some
    if what.get("consumers", 0) is None:
        what = {**what, "consumers": _many(results)}
    return which(results, library=library, **what)


def goal_table(results: list[Result]) -> str | None:
    """Each goal of which there is anything, and whether it is met."""
    rows = [["goal", "needed", "ratio", "rounds", "figures", "met"]]
    for goal in GOALS:
        above, below = _of(goal.above, results), _of(goal.below, results)
        found = ratios(above, below, goal.figure)
        if not found:
            continue
        figures = [statistics.median(r[goal.figure] for r in side if r.get(goal.figure)) for side in (above, below)]
        rows.append(
            [
                goal.what.format(many=_many(results)),
                f"{goal.needed} {goal.limit:g}",
                spread(found),
                str(len(found)),
                " / ".join(map(number, figures)),
                "yes" if goal.is_met(statistics.median(found)) else "no",
            ]
        )
    return in_columns(rows) if len(rows) > 1 else None


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--many", type=int, default=MANY_CONSUMERS, help="how many consumers wait; 0: none of what that tells")
    add("--seconds", type=float, default=3.0, help="how long each producer sends")
    add("--produce-records", type=int, default=10_000_000, help="... or until it has sent so many")
    add("--consume-records", type=int, default=1_000_000, help="how many are in a topic that is read, at most")
    add("--load", type=float, default=20.0, help="seconds of sending, for latency")
    add("--settle", type=float, default=8.0, help="seconds after the start before anything but time is measured")
    add("--idle", type=float, default=8.0, help="seconds over which idle CPU is measured")
    add("--within", type=float, default=30.0, help="seconds to wait for partitions")


def plan(arguments: argparse.Namespace, name: str) -> Plan:
    """Only what the goals compare, in the other benchmarks' cases."""
    done = Plan()
    if arguments.many:
        of_those = argparse.Namespace(**vars(arguments))
        of_those.consumers, of_those.members, of_those.together = [1, arguments.many], [], 0
        of_those.producers, of_those.rate = 1, 150.0
        done += many_clients.plan(of_those, name)
    ways = ("pooledkafka send_batch", "kafka-python send", "confluent-kafka produce")
    done.cases += [
        _producing(arguments, 200, "same", ways),
        _producing(arguments, 200, "defaults", ways),
        _producing(arguments, 1_000, "defaults", ("pooledkafka send", "kafka-python send")),
    ]
    full = argparse.Namespace(partitions=PARTITIONS, consume_records=arguments.consume_records)
    done += consume.of_size(name, full, 200, "none", ("1 consumer", f"{MANY} groups"))
    return replace(done, cases=[_only_compared(case) for case in done.cases])


def _producing(arguments: argparse.Namespace, size: int, options: str, ways: tuple[str, ...]) -> ProduceCase:
    return ProduceCase(
        partitions=PARTITIONS,
        size=size,
        codec="none",
        options=options,
        records=arguments.produce_records,
        seconds=arguments.seconds,
        ways=ways,
    )


def _only_compared(case: Case) -> Case:
    """No goal speaks of aiokafka, nor of kafka-python's 8 groups, which take very long."""
    compared: tuple[str, ...] = ("pooledkafka", "kafka-python", "confluent-kafka")
    if getattr(case, "kind", "") == f"{MANY} groups":
        compared = ("pooledkafka", "confluent-kafka")
    return replace(case, libraries=compared)
