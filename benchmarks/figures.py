"""Medians, ratios and tables of what many_clients.py measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["tables"]

Result = dict[str, Any]

WAITING: dict[str, Callable[[list[Result]], str]] = {
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

LATENCIES = {
    "produce_p50_ms": "produce p50",
    "produce_p99_ms": "produce p99",
    "end_to_end_p50_ms": "end-to-end p50",
    "end_to_end_p99_ms": "end-to-end p99",
}


def number(value: float) -> str:
    if value >= 100 or float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def middle(results: list[Result], name: str) -> str:
    values = [result[name] for result in results if result[name] is not None]
    return number(statistics.median(values)) if values else "never"


def low_to_high(values: Iterable[int]) -> str:
    ordered = sorted(values)
    return str(ordered[0]) if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def in_columns(rows: list[list[str]]) -> str:
    """A table that reads as text and as Markdown."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    return "\n".join([lines[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines[1:]])


def waiting_table(results: list[Result]) -> str:
    rows = [["library", "consumers", *WAITING]]
    for consumers in dict.fromkeys(result["consumers"] for result in results):
        for library in dict.fromkeys(result["library"] for result in results):
            mine = [r for r in results if (r["consumers"], r["library"]) == (consumers, library)]
            if mine:
                rows.append([library, str(consumers), *(column(mine) for column in WAITING.values())])
    return in_columns(rows)


def ratios(results: list[Result], library: str, more: int, fewer: int, name: str) -> list[float]:
    """The figure with ``more`` consumers over that with ``fewer``, for each round in which there are both."""
    found = {(r["round"], r["consumers"]): r[name] for r in results if r["library"] == library}
    rounds = sorted({number for number, _ in found})
    return [found[n, more] / found[n, fewer] for n in rounds if (n, more) in found and (n, fewer) in found]


def ratio_table(results: list[Result]) -> str | None:
    """Each library's latencies with many consumers over its own with the fewest, round by round."""
    counts = sorted({result["consumers"] for result in results})
    rows = [["library", "consumers", "rounds", *LATENCIES.values(), f"p99s of {counts[0]} alone, highest / lowest"]]
    for more in counts[1:]:
        for library in dict.fromkeys(result["library"] for result in results):
            by_name = {name: ratios(results, library, more, counts[0], name) for name in LATENCIES}
            rounds = len(by_name["produce_p50_ms"])
            if rounds:
                fewest = [r for r in results if (r["library"], r["consumers"]) == (library, counts[0])]
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
    libraries = list(dict.fromkeys(result["library"] for result in results))
    rows = [["started together", "seconds until balanced", *libraries]]
    for groups, members in dict.fromkeys((result["groups"], result["members"]) for result in results):
        of_case = [r for r in results if (r["groups"], r["members"]) == (groups, members)]
        what = f"{groups} group{'s' * (groups > 1)} of {members}"
        for row, pick in (("a group", statistics.median), ("the last group", max)) if groups > 1 else (("", max),):
            rows.append([what, row, *(group_cell(of_case, library, pick) for library in libraries)])
    return in_columns(rows)


def group_cell(results: list[Result], library: str, pick: Callable[[list[float]], float]) -> str:
    mine = [result for result in results if result["library"] == library]
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


def tables(measured: dict[str, Any]) -> str:
    """All that was measured, to be read."""
    results = measured["results"]
    waiting = [result for result in results if not result["members"]]
    groups = [result for result in results if result["members"]]
    parts = [measured["machine"]]
    if waiting:
        parts += ["Consumers in groups of their own that wait (medians)", waiting_table(waiting)]
        if table := ratio_table(waiting):
            parts += ["Latency beside many, over that beside few: median of the rounds (lowest to highest)", table]
    if groups:
        parts += ["Members of one group: median of the rounds (lowest to highest)", group_table(groups)]
    return "\n\n".join(parts)
