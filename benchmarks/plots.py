"""Pictures of what was measured, for the README: medians over the rounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.cases import Result
from benchmarks.consume import KINDS
from benchmarks.figures import libraries_in, median, number, which
from benchmarks.libraries import LIBRARIES

__all__ = ["draw"]

COLORS = {"pooledkafka": "#0b6e4f", "kafka-python": "#c8553d", "confluent-kafka": "#4a6fa5", "aiokafka": "#e0a030"}
MARKERS = {"pooledkafka": "o", "kafka-python": "s", "confluent-kafka": "^", "aiokafka": "D"}
STYLE: Any = {  # matplotlib's type lists all names that there are
    "svg.fonttype": "none",  # words stay words, and the file small
    "svg.hashsalt": "pooledkafka",  # the same figures give the same file
    "font.size": 9,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",  # to be read on a dark page, too
    "savefig.facecolor": "white",
}

Panel = tuple[str, str]
"""A heading, and the figure that it shows."""

CLIENTS: tuple[Panel, ...] = (
    ("connections to brokers", "sockets"),
    ("threads of the library", "threads"),
    ("memory, MB", "rss_mb"),
    ("idle CPU, % of a core", "idle_cpu_percent"),
    ("from nothing to all assigned, s", "assigned_s"),
    ("one more consumer, s", "next_consumer_s"),
)
PARTITIONS: tuple[Panel, ...] = (
    ("from nothing to assigned, s", "assigned_s"),
    ("idle CPU, % of a core", "idle_cpu_percent"),
    ("memory, MB", "rss_mb"),
    ("records/s, sent and read", "records_per_s"),
)
LATENCY: tuple[Panel, ...] = (
    ("acknowledged, p50, ms", "produce_p50_ms"),
    ("acknowledged, p99, ms", "produce_p99_ms"),
    ("end to end, p50, ms", "end_to_end_p50_ms"),
    ("end to end, p99, ms", "end_to_end_p99_ms"),
)
WAITING: tuple[Panel, ...] = (
    ("connections to brokers", "sockets"),
    ("idle CPU, % of a core", "idle_cpu_percent"),
    ("from nothing to all assigned, s", "assigned_s"),
    ("end to end, p99, ms", "end_to_end_p99_ms"),
)


def panels(count: int, across: int) -> tuple[Figure, list[Axes]]:
    down = -(-count // across)
    figure = Figure(figsize=(3.4 * across, 2.5 * down + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False)
    every: list[Axes] = list(axes.flat)
    for unused in every[count:]:
        unused.set_axis_off()
    return figure, every[:count]


def legend(figure: Figure, axes: list[Axes]) -> None:
    found: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            found.setdefault(label, handle)
    across = min(len(found), 4)
    figure.legend(list(found.values()), list(found), loc="outside upper center", ncols=across, frameon=False)


def lines(results: list[Result], over: str, shown: tuple[Panel, ...], along: str, across: int) -> Figure:
    """A panel for each figure; one line for each library."""
    figure, axes = panels(len(shown), across)
    counts = sorted({result[over] for result in results})
    for axis, (heading, name) in zip(axes, shown, strict=True):
        for library in libraries_in(results):
            points = [(count, median(which(results, library=library, **{over: count}), name)) for count in counts]
            known = [(count, value) for count, value in points if value is not None]
            if known:
                axis.plot(
                    [count for count, _ in known],
                    [value for _, value in known],
                    color=COLORS[library],
                    marker=MARKERS[library],
                    markersize=4,
                    label=library,
                )
        axis.set_title(heading, fontsize=9)
        if counts[-1] >= 10 * counts[0]:
            axis.set_xscale("log")
        axis.set_xticks(counts, [number(count).replace(" ", "") for count in counts])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_xlabel(along)
    legend(figure, axes)
    return figure


def series_of(results: list[Result]) -> list[str]:
    """A bar's name: the library, with the way to send where there is one."""
    ways = {(result["library"], result.get("way", "")) for result in results}
    ordered = sorted(ways, key=lambda one: (LIBRARIES.index(one[0]), one[1]))
    return [f"{library} {way}".strip() for library, way in ordered]


def bars(results: list[Result], names: list[str], axis: Axes, heading: str) -> None:
    """Records a second, a bar from zero for each library and way."""
    for position, name in enumerate(names):
        library, _, way = name.partition(" ")
        height = median(which(results, library=library, **({"way": way} if way else {})), "records_per_s")
        if height is not None:
            drawn = axis.barh(position, height, color=COLORS[library], hatch="///" if "batch" in way else None)
            axis.bar_label(drawn, [number(height)], fontsize=7, padding=2)
    axis.set_title(heading, fontsize=9)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.invert_yaxis()
    axis.set_xticks([])  # the bars say it
    axis.margins(x=0.25)
    axis.grid(visible=False)
    axis.spines["bottom"].set_visible(False)


Row = tuple[str, list[tuple[str, list[Result]]]]
"""What is shown in a row, and its panels, each with what is special about it."""


def in_rows(rows: list[Row]) -> Figure | None:
    rows = [row for row in rows if row[1]]
    if not rows:
        return None
    across = max(len(shown) for _, shown in rows)
    figure = Figure(figsize=(1.5 + 2.3 * across, 0.3 + 1.7 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), across, squeeze=False)
    for line, (what, shown) in zip(axes, rows, strict=True):
        names = series_of([result for _, results in shown for result in results])
        for axis in line[len(shown) :]:
            axis.set_axis_off()
        for column, (axis, (special, results)) in enumerate(zip(line, shown, strict=False)):
            bars(results, names, axis, f"{what}, {special}")
            if column:
                axis.tick_params(labelleft=False)
    figure.suptitle("records/s", fontsize=9)
    return figure


def throughput(results: list[Result]) -> Figure | None:
    """Producing, and all kinds of reading, by size; sizes that were measured with few libraries only are left out."""
    rows: list[Row] = []
    produced = which(results, benchmark="produce", codec="none", options="same")
    read = which(results, benchmark="consume", codec="none")
    for what, found in [("producer", produced), *((kind, which(read, kind=kind)) for kind in KINDS)]:
        by_size = {size: which(found, size=size) for size in sorted({result["size"] for result in found})}
        most = max((len(libraries_in(mine)) for mine in by_size.values()), default=0)
        rows.append(
            (what, [(f"{size} bytes", mine) for size, mine in by_size.items() if len(libraries_in(mine)) == most])
        )
    return in_rows(rows)


def codecs(results: list[Result]) -> Figure | None:
    """Producing and reading, by codec, with the size that was compressed."""
    rows: list[Row] = []
    produced = which(results, benchmark="produce", options="same")
    read = which(results, benchmark="consume", kind="1 consumer")
    for what, found in (("producer", produced), ("1 consumer", read)):
        sizes = {result["size"] for result in found if result["codec"] != "none"}
        mine = which(found, size=min(sizes)) if sizes else []
        rows.append((what, [(codec, which(mine, codec=codec)) for codec in dict.fromkeys(r["codec"] for r in mine)]))
    return in_rows(rows)


def _lines_of(benchmark: str, over: str, shown: tuple[Panel, ...], along: str, across: int = 2) -> Any:
    def drawn(results: list[Result]) -> Figure | None:
        found = which(results, benchmark=benchmark)
        return lines(found, over, shown, along, across) if found else None

    return drawn


PLOTS: dict[str, Callable[[list[Result]], Figure | None]] = {
    "throughput": throughput,
    "codecs": codecs,
    "many_clients": _lines_of("waiting", "consumers", WAITING, "consumers"),
    "clients": _lines_of("clients", "clients", CLIENTS, "clients", 3),
    "partitions": _lines_of("partitions", "partitions", PARTITIONS, "partitions"),
    "latency": _lines_of("latency", "rate", LATENCY, "records/s, one producer and one consumer"),
}


def draw(measured: dict[str, Any], directory: Path, kind: str = "svg") -> list[Path]:
    """A file for each benchmark that was run."""
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    with mpl.rc_context(STYLE):
        for name, plot in PLOTS.items():
            figure = plot(measured["results"])
            if figure is not None:
                file = directory / f"{name}.{kind}"
                figure.savefig(file, dpi=150, metadata={"Date": None} if kind == "svg" else None)
                files.append(file)
    return files
