"""The figures of ``reliability.memory`` as tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from reliability.memory import mib

__all__ = ["show"]

Shown = Callable[[dict[str, Any], dict[str, Any]], str]


def number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


MEMORY: dict[str, Shown] = {
    "fetch_buffer_bytes": lambda case, _: mib(case["fetch_buffer_bytes"]) if case["library"] == "pooledkafka" else "",
    "most read ahead": lambda _, f: mib(f["read_ahead"]),
    "peak memory, on top": lambda _, f: mib(f["peak"]),
    "left at the end": lambda _, f: mib(f["left"]),
}
COLUMNS: dict[str, tuple[str, dict[str, Shown]]] = {
    "slow": (
        "Slow consumers on fast topics, and one that is fast",
        {
            "consumers": lambda _, f: number(f["consumers"]),
            **MEMORY,
            "peak with the fast one alone": lambda _, f: mib(f["peak_alone"]),
            "its rate alone": lambda _, f: mib(f["rate_alone"]) + "/s",
            "beside the slow": lambda _, f: mib(f["rate_beside"]) + "/s",
        },
    ),
    "huge": (
        "Records of 10 MiB, to four groups; max_partition_fetch_bytes is 64 KiB",
        {
            "records": lambda _, f: number(f["records"]),
            "read by each group": lambda _, f: ", ".join(map(number, f["read"])),
            "too large, refused": lambda _, f: f"{f['refused'][0]} of {f['refused'][1]}",
            **MEMORY,
        },
    ),
    "partitions": (
        "Consumers of thousands of partitions, of which one has records; and one of a single partition beside them",
        {
            "partitions": lambda _, f: number(f["partitions"]),
            "consumers": lambda _, f: number(f["consumers"]),
            "first record, the last s": lambda _, f: number(f["first_s"]),
            "peak memory, on top": lambda _, f: mib(f["peak"]),
            "idle CPU %": lambda _, f: number(f["idle_cpu_percent"]),
            "CPU ms a record": lambda _, f: number(f["cpu_ms_a_record"]),
            "hot p50/max ms": lambda _, f: f"{number(f['hot_p50_ms'])} / {number(f['hot_max_ms'])}",
            "beside p50/max ms": lambda _, f: f"{number(f['beside_p50_ms'])} / {number(f['beside_max_ms'])}",
            "I/O thread kept waiting ms: start, idle, load": lambda _, f: " ".join(
                number(f[f"stall_{when}_ms"]) for when in ("start", "idle", "load")
            ),
        },
    ),
    "churn": (
        "What so many of the gone have left",
        {
            **{
                name: lambda _, f, name=name: (  # type: ignore[misc]
                    f"{f[name]['count']}: {f[name]['bytes']:,} bytes, {f[name]['objects']} objects"
                )
                for name in ("consumers", "handles", "connections")
            },
            "left at the end": lambda _, f: mib(f["left"]),
        },
    ),
}


def show(measured: list[dict[str, Any]], broken: list[str]) -> None:
    """Print everything."""
    console = Console(width=190)
    for scenario, (title, columns) in COLUMNS.items():
        results = [each for each in measured if each["case"]["scenario"] == scenario]
        if not results:
            continue
        table = Table(title=title, title_justify="left")
        table.add_column("")
        for column in columns:
            table.add_column(column, justify="right")
        for each in results:
            case, figures = each["case"], each["figures"]
            table.add_row(case["library"], *(shown(case, figures) for shown in columns.values()))
        console.print(table)
    for sentence in broken:
        console.print(f"[bold red]NOT KEPT[/] {sentence}")
