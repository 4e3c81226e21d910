"""Medians and ratios of what was measured, and how they are written."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.cases import Result
from benchmarks.libraries import LIBRARIES

__all__ = ["in_columns", "libraries_in", "low_to_high", "median", "middle", "number", "ratios", "spread", "which"]


def libraries_in(results: list[Result]) -> list[str]:
    """Always in the same order, whichever began."""
    found = {result["library"] for result in results}
    return [library for library in LIBRARIES if library in found] + sorted(found.difference(LIBRARIES))


def which(results: list[Result], **wanted: Any) -> list[Result]:
    """Those results that are about this."""
    return [r for r in results if all(r.get(name) == value for name, value in wanted.items())]


def median(results: list[Result], name: str) -> float | None:
    """Over the rounds in which there is such a figure."""
    values = [result[name] for result in results if result.get(name) is not None]
    return statistics.median(values) if values else None


def ratios(above: list[Result], below: list[Result], name: str) -> list[float]:
    """The one's figure over the other's, for each round in which there are both."""
    over = {r["round"]: r[name] for r in above if r.get(name) is not None}
    under = {r["round"]: r[name] for r in below if r.get(name)}
    return [over[number] / under[number] for number in sorted(over.keys() & under.keys())]


def number(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1e6:.2f} M"
    if value >= 10_000:
        return f"{value / 1e3:.0f} k"
    if value >= 100 or float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def middle(results: list[Result], name: str) -> str:
    found = median(results, name)
    return "never" if found is None else number(found)


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
