"""Tables of all that was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.cases import Result
from benchmarks.figures import in_columns, libraries_in, low_to_high, middle, ratios, spread, which
from benchmarks.goals import goal_table

__all__ = ["group_cell", "tables"]

Column = Callable[[list[Result]], str]

YARDSTICK = "kafka-python"
"""The library that the throughput of all others is compared with."""

WAITING: dict[str, Column] = {
    "assigned": lambda r: low_to_high(f["assigned"] for f in r),
    "after s": lambda r: middle(r, "assigned_s"),
    "sockets": lambda r: middle(r, "sockets"),
    "most to one broker idle/load": lambda r: (
        f"{max(f['sockets_to_one_broker'] for f in r)} / {max(f['sockets_to_one_broker_under_load'] for f in r)}"
    ),
    "threads": lambda r: middle(r, "threads"),
    "memory MB": lambda r: middle(r, "rss_mb"),
    "idle CPU %": lambda r: middle(r, "idle_cpu_percent"),
    "produce p50/p99 ms": lambda r: f"{middle(r, 'produce_p50_ms')} / {middle(r, 'produce_p99_ms')}",
    "end-to-end p50/p99 ms": lambda r: f"{middle(r, 'end_to_end_p50_ms')} / {middle(r, 'end_to_end_p99_ms')}",
    "lost": lambda r: str(sum(f["sent"] - f["received"] for f in r)),
    "errors": lambda r: str(sum(len(f["errors"]) + len(f["failed"]) for f in r)),
}
PRODUCE: dict[str, Column] = {
    "records/s": lambda r: middle(r, "records_per_s"),
    "MB/s": lambda r: middle(r, "mb_per_s"),
    "CPU s per million": lambda r: middle(r, "cpu_s_per_million"),
    "peak memory MB": lambda r: middle(r, "peak_rss_mb"),
}
CONSUME: dict[str, Column] = {
    "records/s": lambda r: middle(r, "records_per_s"),
    "after the first": lambda r: middle(r, "records_per_s_after_first"),
    "CPU s per million": lambda r: middle(r, "cpu_s_per_million"),
    "peak memory MB": lambda r: middle(r, "peak_rss_mb"),
    "received, times the values": lambda r: (
        middle(r, "received_times") if all(f["received_times"] is not None for f in r) else "?"
    ),
}
LATENCY: dict[str, Column] = {
    "records/s": lambda r: middle(r, "records_per_s"),
    "produce p50/p99 ms": WAITING["produce p50/p99 ms"],
    "end-to-end p50/p99 ms": WAITING["end-to-end p50/p99 ms"],
    "late p99 ms": lambda r: middle(r, "late_p99_ms"),
    "CPU %": lambda r: middle(r, "cpu_percent"),
}
CLIENTS: dict[str, Column] = {
    "assigned": WAITING["assigned"],
    "after s": WAITING["after s"],
    "sockets": WAITING["sockets"],
    "threads": WAITING["threads"],
    "memory MB": WAITING["memory MB"],
    "idle CPU %": WAITING["idle CPU %"],
    "one more consumer s": lambda r: middle(r, "next_consumer_s"),
    "one more producer s": lambda r: middle(r, "next_producer_s"),
    "errors": lambda r: str(sum(len(f["errors"]) for f in r)),
}
PARTITIONS: dict[str, Column] = {
    "assigned after s": lambda r: middle(r, "assigned_s"),
    "all reached after s": lambda r: middle(r, "reached_s"),
    "memory MB": WAITING["memory MB"],
    "idle CPU %": WAITING["idle CPU %"],
    "records/s": lambda r: middle(r, "records_per_s"),
    "CPU s per million": lambda r: middle(r, "cpu_s_per_million"),
    "errors": lambda r: str(sum(len(f["errors"]) for f in r)),
}

LATENCIES = {
    "produce_p50_ms": "produce p50",
    "produce_p99_ms": "produce p99",
    "end_to_end_p50_ms": "end-to-end p50",
    "end_to_end_p99_ms": "end-to-end p99",
}


def by_case(results: list[Result], named_by: list[str], columns: dict[str, Column]) -> str:
    """A row for each library, and for each of its ways to send, beneath one another for each case."""
    rows = [["library", *named_by, *columns]]
    told_by = [name for name in named_by if name != "way"]
    for case in dict.fromkeys(tuple(result[name] for name in told_by) for result in results):
        of_case = which(results, **dict(zip(told_by, case, strict=True)))
        for library in libraries_in(of_case):
            of_library = which(of_case, library=library)
            for way in sorted({result.get("way", "") for result in of_library}):
                mine = [result for result in of_library if result.get("way", "") == way]
                named = [str(mine[0][name]) for name in named_by]
                rows.append([library, *named, *(column(mine) for column in columns.values())])
    return in_columns(rows)


def throughput_table(results: list[Result], named_by: list[str], columns: dict[str, Column]) -> str:
    """The same, with each one's records a second over stock kafka-python's in the same case and round."""

    def over_the_yardstick(mine: list[Result]) -> str:
        case = {name: mine[0][name] for name in named_by if name != "way"}
        over = ratios(mine, which(results, library=YARDSTICK, **case), "records_per_s")
        return spread(over) if over else ""

    return by_case(results, named_by, {**columns, f"times {YARDSTICK}": over_the_yardstick})


def ratio_table(results: list[Result]) -> str | None:
    """Each library's latencies with many consumers over its own with the fewest, round by round."""
    counts = sorted({result["consumers"] for result in results})
    rows = [["library", "consumers", "rounds", *LATENCIES.values(), f"p99s of {counts[0]} alone, highest / lowest"]]
    for more in counts[1:]:
        for library in libraries_in(results):
            fewest = which(results, library=library, consumers=counts[0])
            many = which(results, library=library, consumers=more)
            by_name = {name: ratios(many, fewest, name) for name in LATENCIES}
            rounds = len(by_name["produce_p50_ms"])
            if rounds:
                noise = [
                    max(r[name] for r in fewest) / min(r[name] for r in fewest)
                    for name in ("produce_p99_ms", "end_to_end_p99_ms")
                ]
                rows.append(
                    [library, f"{more} / {counts[0]}", str(rounds)]
                    + [spread(values) for values in by_name.values()]
                    + [" and ".join(f"{value:.2f}" for value in noise)]
                )
    return in_columns(rows) if len(rows) > 1 else None


def group_table(results: list[Result]) -> str:
    """Seconds from the start to balanced, the libraries side by side."""
    libraries = libraries_in(results)
    rows = [["started together", "seconds until balanced", *libraries]]
    for groups, members in dict.fromkeys((result["groups"], result["members"]) for result in results):
        of_case = which(results, groups=groups, members=members)
        what = f"{groups} group{'s' * (groups > 1)} of {members}"
        for row, pick in (("a group", statistics.median), ("the last group", max)) if groups > 1 else (("", max),):
            rows.append([what, row, *(group_cell(of_case, library, pick) for library in libraries)])
    return in_columns(rows)


def group_cell(results: list[Result], library: str, pick: Callable[[list[float]], float]) -> str:
    mine = which(results, library=library)
    if not mine:
        return ""
    complete = [pick(r["balanced_s"]) for r in mine if None not in r["balanced_s"]]
    cell = spread(complete) if complete else "never"
    if len(complete) < len(mine):
        cell += f", all balanced in {len(complete)} of {len(mine)} rounds"
    if late := sum(r["groups"] - r["balanced_at_the_end"] - r["balanced_s"].count(None) for r in mine):
        cell += f", {late} no longer so at the end"
    if errors := sum(len(r["errors"]) for r in mine):
        cell += f", {errors} errors"
    return cell


TABLES: dict[str, tuple[str, Callable[[list[Result]], str | None]]] = {
    "Consumers in groups of their own that wait (medians)": (
        "waiting",
        lambda r: by_case(r, ["consumers"], WAITING),
    ),
    "Latency beside many, over that beside few: median of the rounds (lowest to highest)": ("waiting", ratio_table),
    "Members of one group: median of the rounds (lowest to highest)": ("groups", group_table),
    "One producer (medians; the ratio with lowest and highest)": (
        "produce",
        lambda r: throughput_table(r, ["way", "size", "codec", "options"], PRODUCE),
    ),
    "Reading what is there (medians; the ratio with lowest and highest)": (
        "consume",
        lambda r: throughput_table(r, ["kind", "size", "codec"], CONSUME),
    ),
    "Latency under load (medians)": ("latency", lambda r: by_case(r, ["rate", "size"], LATENCY)),
    "N clients, and one more (medians)": ("clients", lambda r: by_case(r, ["clients"], CLIENTS)),
    "One consumer of all partitions, one producer to all (medians)": (
        "partitions",
        lambda r: by_case(r, ["partitions"], PARTITIONS),
    ),
    "Goals: ratios within each round, median (lowest to highest)": ("", goal_table),
}


def tables(measured: dict[str, Any]) -> str:
    """All that was measured, to be read."""
    parts = [measured["machine"]]
    for heading, (benchmark, table) in TABLES.items():
        results = which(measured["results"], benchmark=benchmark) if benchmark else measured["results"]
        shown = table(results) if results else None
        if shown is not None:
            parts += [heading, shown]
    if failures := measured.get("failures"):
        parts += ["Failed, and in no table", "\n".join(failures)]
    return "\n\n".join(parts)
