"""The measurements as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pooledkafka._bench.cases import CLIENTS

__all__ = ["PlotError", "check_matplotlib", "plot"]

_SHOWN = {
    ("send", "records_per_second"): "send: records a second",
    ("send_batch", "records_per_second"): "send_batch: records a second",
    ("consume", "records_per_second"): "consume: records a second",
    ("idle", "connections"): "idle: connections",
    ("idle", "cpu_percent"): "idle: % of a processor",
    ("idle", "rss_mb"): "idle: MB of memory",
}


class PlotError(Exception):
    """No picture can be made."""


def check_matplotlib() -> None:
    """Raise PlotError where matplotlib is not installed."""
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError:
        raise PlotError("a plot needs matplotlib; pip install matplotlib") from None


def plot(cases: Mapping[str, Mapping[str, Mapping[str, Any]]], title: str, path: Path) -> None:
    """Write bars of the medians, by case and client, to ``path``."""
    check_matplotlib()
    from matplotlib.figure import Figure

    shown = [(case, figure, label) for (case, figure), label in _SHOWN.items() if case in cases]
    drawing = Figure(figsize=(3.2 * len(shown), 3.4), layout="constrained")
    drawing.suptitle(title, fontsize=9)
    for axes, (case, figure, label) in zip(drawing.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        values = [cases[case][client]["median"][figure] for client in CLIENTS]
        axes.bar_label(axes.bar(CLIENTS, values, color=["tab:blue", "tab:gray"]), fmt="{:,.1f}", fontsize=8)
        axes.set_title(label, fontsize=9)
        axes.set_ylim(bottom=0)
    drawing.savefig(path, dpi=120)
